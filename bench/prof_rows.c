/* prof_rows.c - the configurations: whose profiler over which malloc.
 *
 * Each profiler is compared with its own malloc without it, in the same build of the same work. An
 * @ in an environment variable or a command is the directory for the run's files.
 *
 * heaptrack's library writes what it sees into a file, and another program, the interpreter, makes
 * something of it: the command of that name joins them by a pipe. Here the library is preloaded
 * alone, so that the row is what the program itself pays; the interpreter has a line of its own.
 */
#include "prof_bench.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    GLIBC,
    EMPTY,
    COUNTING,
    SAMPLING,
    EVERY,
    LSAN,
    HEAPTRACK,
    MASSIF,
    JEMALLOC,
    JEMALLOC_SAMPLING,
    JEMALLOC_EVERY,
    TCMALLOC,
    TCMALLOC_SAMPLING,
    TCMALLOC_EVERY
};

#define PLAIN      .program = "prof_plain"
#define OURS       .preload = "/libmemkit-prof.so.0", PLAIN
#define JE         .preload = "libjemalloc.so.2", PLAIN
#define JE_REFUSAL .refusal = "Invalid conf pair"
#define TC         .preload = "libtcmalloc.so.4", PLAIN

row rows[] = {
    [GLIBC] = {.name = "glibc malloc", .base = GLIBC, PLAIN, .counted = true},
    [EMPTY] = {.name = "  under an empty preload",
               .base = GLIBC,
               .preload = "/bench/empty_preload.so",
               PLAIN,
               .counted = true},
    [COUNTING] = {.name = "  memkit, counting", .base = GLIBC, OURS, .counted = true},
    [SAMPLING] = {.name = "  memkit, 512 KiB",
                  .base = GLIBC,
                  OURS,
                  .env = {"MEMKIT_SAMPLE=524288"},
                  .want_rate = 524288,
                  .target = {1.20, 1.12},
                  .counted = true},
    [EVERY] = {.name = "  memkit, every allocation",
               .base = GLIBC,
               OURS,
               .env = {"MEMKIT_SAMPLE=1"},
               .want_rate = 1,
               .target = {3, 3},
               .counted = true},
    [LSAN] = {.name = "  LeakSanitizer (leaks only)",
              .base = GLIBC,
              .program = "prof_leak",
              .slow = true},
    [HEAPTRACK] = {.name = "  heaptrack, every allocation",
                   .base = GLIBC,
                   .preload = "heaptrack/libheaptrack_preload.so",
                   PLAIN,
                   .env = {"DUMP_HEAPTRACK_OUTPUT=@/heaptrack"},
                   .reads = "@/heaptrack",
                   .reader = "heaptrack/libexec/heaptrack_interpret"},
    [MASSIF] = {.name = "  massif",
                .base = GLIBC,
                PLAIN,
                .wrap = {"valgrind", "-q", "--tool=massif", "--massif-out-file=@/massif"},
                .slow = true,
                .optional = true},
    [JEMALLOC] = {.name = "jemalloc", .base = JEMALLOC, JE},
    [JEMALLOC_SAMPLING] = {.name = "  its profiler, 512 KiB",
                           .base = JEMALLOC,
                           JE,
                           JE_REFUSAL,
                           .env = {"MALLOC_CONF=prof:true,lg_prof_sample:19"},
                           .want_rate = 524288},
    [JEMALLOC_EVERY] = {.name = "  its profiler, every allocation",
                        .base = JEMALLOC,
                        JE,
                        JE_REFUSAL,
                        .env = {"MALLOC_CONF=prof:true,lg_prof_sample:0"},
                        .want_rate = 1,
                        .slow = true},
    [TCMALLOC] = {.name = "tcmalloc (gperftools)",
                  .base = TCMALLOC,
                  TC,
                  .env = {"TCMALLOC_SAMPLE_PARAMETER=0"}},
    [TCMALLOC_SAMPLING] = {.name = "  its heap sampling, 512 KiB",
                           .base = TCMALLOC,
                           TC,
                           .env = {"TCMALLOC_SAMPLE_PARAMETER=524288"}},
    [TCMALLOC_EVERY] = {.name = "  its heap profiler, every allocation",
                        .base = TCMALLOC,
                        TC,
                        .env = {"TCMALLOC_SAMPLE_PARAMETER=0", "HEAPPROFILE=@/tcmalloc"},
                        .slow = true},
};
const unsigned row_count = sizeof rows / sizeof *rows;

static const char *const places[] = {
#if defined(__x86_64__)
    "/usr/lib/x86_64-linux-gnu",
#elif defined(__aarch64__)
    "/usr/lib/aarch64-linux-gnu",
#endif
    "/usr/lib64", "/usr/lib", "/usr/local/lib"};

const char *library_path(const bench_opts *o, const char *name)
{
    static char path[512];
    if (name[0] == '/') {
        snprintf(path, sizeof path, "%s%s", o->build, name);
        return access(path, R_OK) == 0 ? path : NULL;
    }
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", places[i], name);
        if (access(path, R_OK) == 0)
            return path;
    }
    return NULL;
}

static bool command_is_there(const char *name)
{
    char command[128];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", name);
    FILE *f = popen(command, "r");
    return f != NULL && pclose(f) == 0;
}

void row_look(const bench_opts *o, row *r)
{
    char program[512];
    snprintf(program, sizeof program, "%s/bench/%s", o->build, r->program);
    if (access(program, X_OK) != 0)
        snprintf(r->absent, sizeof r->absent, "%s could not be built here", r->program);
    else if (r->preload != NULL && library_path(o, r->preload) == NULL)
        snprintf(r->absent, sizeof r->absent, "no %s here",
                 strrchr(r->preload, '/') != NULL ? strrchr(r->preload, '/') + 1 : r->preload);
    else if (r->wrap[0] != NULL && !command_is_there(r->wrap[0]))
        snprintf(r->absent, sizeof r->absent, "no command %s here", r->wrap[0]);
}

uint64_t row_pairs(const bench_opts *o, const row *r)
{
    return r->slow ? o->pairs / 10 : o->pairs;
}
