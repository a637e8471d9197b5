/* metrics_process.c - the process's own figures, and the text format itself (version 0.0.4).
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/ . Compiled into libmemkit and into
 * libmemkit-prof, which answers /metrics in programs that have no core: nothing here knows of a
 * pool, a cache or an arena, nor of who counts.
 */
#include "core/metrics.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/internal.h"

/* ---- lines ---- */

int memkit__metric_head(memkit_buf *out, const char *name, const char *type, const char *help)
{
    return memkit_buf_appendf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Bytes of the UTF-8 character at s (RFC 3629), 0 where there is none: cut off, overlong, a
 * surrogate. */
static size_t utf8_length(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (n == 4 && (p[0] < 0xf0 || p[0] > 0xf4))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool wrong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                 (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return wrong ? 0 : n;
}

/* A label's value: backslash, quote and newline escaped, as the format asks; a byte that is no
 * UTF-8, for which a scrape would be refused whole, becomes a question mark. */
static int append_escaped(memkit_buf *out, const char *s)
{
    while (*s != '\0') {
        size_t n = utf8_length(s);
        int failed = n == 0                    ? memkit_buf_append_byte(out, '?')
                     : *s == '\n'              ? memkit_buf_append_str(out, "\\n")
                     : *s == '"' || *s == '\\' ? memkit_buf_appendf(out, "\\%c", *s)
                                               : memkit_buf_append(out, s, n);
        if (failed != 0)
            return -1;
        s += n != 0 ? n : 1;
    }
    return 0;
}

int memkit__metric_sample(memkit_buf *out, const memkit__metric *m, unsigned core)
{
    if (memkit_buf_appendf(out, "%s{%s=\"", m->family, m->label) != 0 ||
        append_escaped(out, m->name) != 0 || memkit_buf_appendf(out, "\",id=\"%u\"", m->id) != 0 ||
        (core != 0 && memkit_buf_appendf(out, ",core=\"%u\"", core) != 0))
        return -1;
    return memkit_buf_appendf(out, "} %" PRIu64 "\n", m->value);
}

/* ---- /proc ---- */

/* The figure of a line "name:  N kB", in bytes; 0 when there is no such line. */
static uint64_t status_bytes(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    return line != NULL ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* One read: the file is made anew for each, so that two would not agree. */
static void read_status(memkit_memstats_t *out)
{
    char status[8192]; /* some 1,500 bytes, and up to 11 for each supplementary group */
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n;
    do {
        n = read(fd, status, sizeof status - 1);
    } while (n < 0 && errno == EINTR);
    close(fd);
    if (n <= 0)
        return;
    status[n] = '\0';
    out->peak_rss_bytes = status_bytes(status, "\nVmHWM:");
    out->rss_bytes = status_bytes(status, "\nVmRSS:");
    out->sys_bytes = status_bytes(status, "\nVmData:");
}

void memkit__memstats_fill(memkit_memstats_t *out, const memkit__counts *counts)
{
    *out = (memkit_memstats_t){0};
    read_status(out);
    if (counts == NULL)
        return;
    /* Blocks that a library got past the hook and freed through it may outweigh the rest. */
    out->alloc_bytes =
        counts->alloc_bytes > counts->freed_bytes ? counts->alloc_bytes - counts->freed_bytes : 0;
    out->total_alloc_bytes = counts->alloc_bytes;
    out->mallocs = counts->mallocs;
    out->frees = counts->frees;
    out->peak_alloc_bytes = counts->peak_bytes;
    out->hooked = true;
}

/* ---- the process ---- */

int memkit__metric_one(memkit_buf *out, const char *name, const char *type, const char *help,
                       uint64_t value)
{
    return memkit__metric_head(out, name, type, help) != 0 ||
                   memkit_buf_appendf(out, "%s %" PRIu64 "\n", name, value) != 0
               ? -1
               : 0;
}

int memkit__metrics_process(memkit_buf *out, const memkit_memstats_t *m)
{
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"memkit_process_resident_bytes", "gauge", "Resident memory of the process.", m->rss_bytes},
        {"memkit_process_resident_peak_bytes", "gauge", "Most resident memory so far.",
         m->peak_rss_bytes},
        {"memkit_process_sys_bytes", "gauge", "Private writable memory mapped by the process.",
         m->sys_bytes},
        {"memkit_malloc_hooked", "gauge", "Whether malloc is counted: 1 or 0.", m->hooked},
        {"memkit_heap_alloc_bytes", "gauge", "Usable bytes allocated and not freed.",
         m->alloc_bytes},
        {"memkit_heap_alloc_peak_bytes", "gauge",
         "Most usable bytes allocated and not freed so far.", m->peak_alloc_bytes},
        {"memkit_heap_allocated_bytes_total", "counter", "Usable bytes allocated since the start.",
         m->total_alloc_bytes},
        {"memkit_mallocs_total", "counter", "Allocations since the start.", m->mallocs},
        {"memkit_frees_total", "counter", "Frees since the start.", m->frees},
    };
    enum { ROWS = sizeof rows / sizeof rows[0], ALWAYS = 4 };
    for (size_t i = 0; i < (m->hooked ? (size_t)ROWS : (size_t)ALWAYS); i++)
        if (memkit__metric_one(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value) != 0)
            return -1;
    return 0;
}

/* ---- MEMKIT_TIMING ---- */

#define NS 1000000000u

/* Seconds in full: what %g prints depends on the locale. */
static int append_seconds(memkit_buf *out, uint64_t ns)
{
    return memkit_buf_appendf(out, "%" PRIu64 ".%09u", ns / NS, (unsigned)(ns % NS));
}

static int write_histogram(memkit_buf *out, const char *name, const memkit__times *t)
{
    int failed = memkit__metric_head(
        out, name, "histogram",
        "Time inside each call of malloc, free and their kin (MEMKIT_TIMING=1).");
    uint64_t sum = 0;
    for (unsigned i = 0; failed == 0 && i < MEMKIT__TIMES_BUCKETS; i++) {
        sum += t->buckets[i];
        failed = memkit_buf_appendf(out, "%s_bucket{le=\"", name) != 0 ||
                 (i + 1 < MEMKIT__TIMES_BUCKETS
                      ? append_seconds(out, UINT64_C(1) << (MEMKIT__TIMES_FIRST_BIT + i))
                      : memkit_buf_append_str(out, "+Inf")) != 0 ||
                 memkit_buf_appendf(out, "\"} %" PRIu64 "\n", sum) != 0;
    }
    return failed != 0 || memkit_buf_appendf(out, "%s_sum ", name) != 0 ||
                   append_seconds(out, t->total_ns) != 0 ||
                   memkit_buf_appendf(out, "\n%s_count %" PRIu64 "\n", name, sum) != 0
               ? -1
               : 0;
}

int memkit__metrics_times(memkit_buf *out, const memkit__times *t)
{
    static const char longest[] = "memkit_malloc_longest_duration_seconds";
    return write_histogram(out, "memkit_malloc_duration_seconds", t) != 0 ||
                   memkit__metric_head(out, longest, "gauge", "The longest of these calls.") != 0 ||
                   memkit_buf_appendf(out, "%s ", longest) != 0 ||
                   append_seconds(out, t->longest_ns) != 0 ||
                   memkit_buf_append_byte(out, '\n') != 0 ||
                   memkit__metric_one(out, "memkit_malloc_longest_involuntary_switches", "gauge",
                                      "Involuntary context switches of its thread meanwhile.",
                                      t->longest_switches) != 0
               ? -1
               : 0;
}
