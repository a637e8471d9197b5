/* debug_index.c - /debug/pprof/: what there is, as a page for people.
 *
 * All links are relative, so that the page works behind a proxy that puts a path in front. It needs
 * no script and no other file.
 */
#include "prof/debug.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char style[] =
    "<style>\n"
    ":root{color-scheme:light dark}\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}\n"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:1.6rem}\n"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1.2rem .15rem 0;"
    "vertical-align:top}\n"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.95em}\n"
    "th~td:last-child{white-space:nowrap}\n"
    "</style>\n";

static const struct {
    const char *name, *says, *links[4][2]; /* target, text */
} profiles[] = {
    {"heap",
     "Where the memory in use was allocated.",
     {{"heap", "profile"}, {"heap?debug=1", "text"}, {"heap?seconds=30", "30 s"}}},
    {"allocs",
     "Where memory is allocated, given back or not: the same data, seen as all since the start.",
     {{"allocs", "profile"}, {"allocs?debug=1", "text"}, {"allocs?seconds=30", "30 s"}}},
    {"profile",
     "Where processor time goes, of all threads. It is collected while you wait.",
     {{"profile?seconds=30", "30 s"}, {"profile?seconds=5", "5 s"}}},
    {"cmdline", "The command line, its arguments separated by NULs.", {{"cmdline", "text"}}},
    {"symbol", "Names of addresses, for pprof.", {{"symbol", "text"}}},
    {"metrics", "All counters, as Prometheus reads them.", {{"../../metrics", "text"}}},
};

static int escaped(memkit_buf *out, const char *s)
{
    for (; *s != '\0'; s++) {
        const char *e = *s == '<'    ? "&lt;"
                        : *s == '>'  ? "&gt;"
                        : *s == '&'  ? "&amp;"
                        : *s == '"'  ? "&quot;"
                        : *s == '\'' ? "&#39;"
                                     : NULL;
        if (e != NULL ? memkit_buf_append_str(out, e) != 0
                      : memkit_buf_append_byte(out, (unsigned char)*s) != 0)
            return -1;
    }
    return 0;
}

/* The program's name, "?" where /proc does not tell. */
static void program(char *out, size_t room)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    const char *base = strrchr(path, '/');
    snprintf(out, room, "%s", base != NULL && base[1] != '\0' ? base + 1 : "?");
}

/* base: what the links of the page are relative to where its own address has no slash at its end.
 */
static int write_head(memkit_buf *out, const char *base)
{
    char name[256];
    program(name, sizeof name);
    if (memkit_buf_appendf(out,
                           "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                           "%s<title>profiles of ",
                           base) != 0 ||
        escaped(out, name) != 0 ||
        memkit_buf_appendf(out, "</title>\n%s</head>\n<body>\n<h1>Profiles of ", style) != 0 ||
        escaped(out, name) != 0)
        return -1;
    return memkit_buf_appendf(out, ", process %ld</h1>\n", (long)getpid());
}

static int row(memkit_buf *out, const char *label, uint64_t n, const char *unit)
{
    return memkit_buf_appendf(out, "<tr><td>%s</td><td class=\"n\">%llu</td><td>%s</td></tr>\n",
                              label, (unsigned long long)n, unit);
}

static int write_state(memkit_buf *out)
{
    memkit_prof_stats_t s;
    memkit_prof_stats(&s);
    const char *state =
        memkit_prof_running() ? "The heap profiler runs."
        : s.sample_bytes != 0 || s.samples != 0
            ? "The heap profiler is stopped."
            : "The heap profiler was not started: "
              "<code>memkit_prof_start</code> or <code>MEMKIT_SAMPLE</code> does it.";
    if (memkit_buf_appendf(out, "<p>%s</p>\n<table>\n", state) != 0 ||
        row(out, "rate", s.sample_bytes,
            s.sample_bytes == 1 ? "every allocation" : "bytes between samples, on average") != 0 ||
        row(out, "samples", s.samples, "since the start") != 0 ||
        row(out, "in use", s.live_samples, "of them") != 0 ||
        row(out, "sites", s.sites, "distinct stacks") != 0 ||
        row(out, "lost", s.dropped, "samples that found no room") != 0 ||
        memkit_buf_appendf(out,
                           "<tr><td>own memory</td><td class=\"n\">%llu</td><td>bytes, of at most "
                           "%llu</td></tr>\n",
                           (unsigned long long)s.own_bytes, (unsigned long long)s.max_bytes) != 0)
        return -1;
    return memkit_buf_append_str(out, "</table>\n");
}

static int write_profiles(memkit_buf *out)
{
    if (memkit_buf_append_str(out, "<h2>Profiles</h2>\n"
                                   "<p>For <code>go tool pprof ADDRESS</code>, Parca, Pyroscope, "
                                   "speedscope.</p>\n<table>\n") != 0)
        return -1;
    for (size_t i = 0; i < sizeof profiles / sizeof profiles[0]; i++) {
        if (memkit_buf_appendf(out, "<tr><th>%s</th><td>%s</td><td>", profiles[i].name,
                               profiles[i].says) != 0)
            return -1;
        for (size_t k = 0; k < 4 && profiles[i].links[k][0] != NULL; k++)
            if (memkit_buf_appendf(out, "<a href=\"%s\">%s</a> ", profiles[i].links[k][0],
                                   profiles[i].links[k][1]) != 0)
                return -1;
        if (memkit_buf_append_str(out, "</td></tr>\n") != 0)
            return -1;
    }
    return memkit_buf_append_str(out, "</table>\n");
}

static int write_flames(memkit_buf *out)
{
    if (memkit_buf_append_str(out, "<h2>Flame graphs</h2>\n<table>\n") != 0)
        return -1;
    const char *meaning, *type;
    for (unsigned i = 0; (type = memkit__debug_type(i, &meaning)) != NULL; i++) {
        /* Of processor time there is nothing before it is waited for. */
        bool cpu = strcmp(type, MEMKIT__CPU_TYPE) == 0;
        if (memkit_buf_appendf(out, "<tr><th>%s</th><td>%s</td><td>", type, meaning) != 0 ||
            (!cpu && memkit_buf_appendf(out, "<a href=\"../memkit/flame.svg?type=%s\">graph</a> ",
                                        type) != 0) ||
            memkit_buf_appendf(out,
                               "<a href=\"../memkit/flame.svg?type=%s&amp;seconds=10\">10 s</a>"
                               "</td></tr>\n",
                               type) != 0)
            return -1;
    }
    return memkit_buf_append_str(out, "</table>\n</body>\n</html>\n");
}

int memkit__debug_index(memkit_debug_req *req, memkit_buf *out)
{
    return write_head(out, req->slash ? "" : "<base href=\"pprof/\">\n") != 0 ||
                   write_state(out) != 0 || write_profiles(out) != 0 || write_flames(out) != 0
               ? -1
               : 0;
}
