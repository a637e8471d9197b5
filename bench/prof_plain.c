/* prof_plain.c - the workload as a program of its own, linked with nothing: the profilers come by
 * preload. Prints one line, what was measured and what the profiler says of itself. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <memkit/prof.h>

#include "prof_workload.h"

static long rss_kib(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A run that measures a profiler which does not profile would look good. */
static void print_sampling(void)
{
    void (*stats)(memkit_prof_stats_t *);
    int (*mallctl)(const char *, void *, size_t *, void *, size_t);
    *(void **)&stats = dlsym(RTLD_DEFAULT, "memkit_prof_stats");
    *(void **)&mallctl = dlsym(RTLD_DEFAULT, "mallctl");
    if (stats != NULL) {
        memkit_prof_stats_t s;
        stats(&s);
        printf(" rate=%" PRIu64 " samples=%" PRIu64 " sites=%" PRIu64 " own=%" PRIu64,
               s.samples == 0 ? 0 : s.sample_bytes, s.samples, s.sites, s.own_bytes);
    } else if (mallctl != NULL) {
        bool on = false;
        size_t lg = 0, size = sizeof on;
        if (mallctl("opt.prof", &on, &size, NULL, 0) == 0 && on) {
            size = sizeof lg;
            mallctl("prof.lg_sample", &lg, &size, NULL, 0);
            printf(" rate=%zu", (size_t)1 << lg);
        }
    }
}

int main(int argc, char **argv)
{
    const unsigned threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    const uint64_t pairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    if (threads == 0 || pairs == 0 || pairs % 100 != 0) {
        fputs("usage: prof_plain THREADS PAIRS (a multiple of 100)\n", stderr);
        return 2;
    }
    const workload_result r = workload_run(threads, pairs);
    printf("wall=%.2f cpu=%.2f checksum=%" PRIx64 " rss=%ld", r.wall_ns, r.cpu_ns, r.checksum,
           rss_kib());
    print_sampling();
    putchar('\n');
    return 0;
}
