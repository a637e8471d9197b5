/* prof_inside.c - what only a program with the profiler linked in can measure: the size of a
 * profile with names, the profiler's own memory, the time until a flame graph is there, and the
 * cost of one sample at a depth of 20. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <memkit/buf.h>
#include <memkit/prof.h>

#include "prof/site.h"
#include "prof/unwind.h"
#include "prof_workload.h"

#define FLAMEGRAPH "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static const char *against(double is, double target)
{
    return is <= target ? "reached" : "MISSED";
}

static memkit_buf *written(memkit_prof_format fmt, double *ms)
{
    memkit_buf *out = memkit_buf_new(0);
    const double from = now_ms();
    if (out == NULL || memkit_prof_write(out, MEMKIT_PROF_ALLOCS, fmt, NULL) != 0) {
        perror("memkit_prof_write");
        exit(1);
    }
    *ms = now_ms() - from;
    return out;
}

static void save(const char *path, const memkit_buf *b)
{
    FILE *f = fopen(path, "w");
    if (f == NULL || fwrite(b->data, 1, b->len, f) != b->len || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* Milliseconds of a command of the shell's; below 0: it failed. */
static double command_ms(const char *command)
{
    const double from = now_ms();
    const int status = system(command); /* constant, but for a directory of ours */
    return status == 0 ? now_ms() - from : -1;
}

static void foreign_flame_graph(const memkit_buf *pprof, const memkit_buf *folded)
{
    char dir[] = "/tmp/prof-inside.XXXXXX", path[128], command[512];
    if (mkdtemp(dir) == NULL)
        return;
    snprintf(path, sizeof path, "%s/heap.pb.gz", dir);
    save(path, pprof);
    snprintf(path, sizeof path, "%s/heap.folded", dir);
    save(path, folded);
    snprintf(command, sizeof command, "go tool pprof -raw %s/heap.pb.gz >%s/raw 2>/dev/null", dir,
             dir);
    const double raw = command_ms(command);
    snprintf(command, sizeof command, "perl " FLAMEGRAPH " %s/heap.folded >%s/heap.svg 2>/dev/null",
             dir, dir);
    const double svg = command_ms(command);
    printf("profile to flame graph through foreign tools: ");
    if (raw >= 0)
        printf("go tool pprof -raw %.0f ms", raw);
    else
        printf("go tool pprof absent");
    if (svg >= 0)
        printf(", flamegraph.pl %.0f ms\n", svg);
    else
        printf(", flamegraph.pl absent\n");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    command_ms(command);
}

static void measure(size_t sample_bytes, uint64_t pairs)
{
    const memkit_prof_opts opts = {.sample_bytes = sample_bytes};
    if (memkit_prof_start(&opts) != 0) {
        perror("memkit_prof_start");
        exit(1);
    }
    workload_run(1, pairs);
    memkit_prof_stats_t s;
    memkit_prof_stats(&s);
    double svg_ms, again_ms, pprof_ms, folded_ms;
    memkit_buf *svg = written(MEMKIT_FMT_SVG, &svg_ms); /* first: symbol tables are read for it */
    memkit_buf *again = written(MEMKIT_FMT_SVG, &again_ms);
    memkit_buf *pprof = written(MEMKIT_FMT_PPROF, &pprof_ms);
    memkit_buf *folded = written(MEMKIT_FMT_FOLDED, &folded_ms);
    printf("a sample each %zu bytes: %" PRIu64 " samples, %" PRIu64 " stacks, own memory %.2f MiB "
           "(<= 3 %s)\n",
           sample_bytes, s.samples, s.sites, (double)s.own_bytes / 1048576,
           against((double)s.own_bytes, 3 * 1048576.0));
    printf("  profile with names: pprof %zu bytes (<= 30720 %s), folded %zu, SVG %zu\n", pprof->len,
           against((double)pprof->len, 30720), folded->len, svg->len);
    printf("  to write it: pprof %.1f ms, folded %.1f, SVG %.1f, at first %.1f (<= 100 %s)\n",
           pprof_ms, folded_ms, again_ms, svg_ms, against(svg_ms, 100));
    if (sample_bytes == 1)
        foreign_flame_graph(pprof, folded);
    memkit_buf_free(svg);
    memkit_buf_free(again);
    memkit_buf_free(pprof);
    memkit_buf_free(folded);
}

/* ---- one sample ---- */

#define SAMPLES 200000

static double unwind_ns, sample_ns;
static unsigned depth_seen;

__attribute__((noinline)) static void sample_here(void)
{
    uint64_t frames[MEMKIT_PROF_MAX_DEPTH];
    bool cut = false;
    for (int i = 0; i < 1000; i++)
        depth_seen = memkit__unwind_here(frames, MEMKIT_PROF_MAX_DEPTH, &cut);
    double from = now_ms();
    for (int i = 0; i < SAMPLES; i++)
        depth_seen = memkit__unwind_here(frames, MEMKIT_PROF_MAX_DEPTH, &cut);
    unwind_ns = (now_ms() - from) * 1e6 / SAMPLES;
    from = now_ms();
    for (int i = 0; i < SAMPLES; i++) {
        depth_seen = memkit__unwind_here(frames, MEMKIT_PROF_MAX_DEPTH, &cut);
        if (memkit__site_find(&memkit__heap_sites, frames, depth_seen, cut, 0) == NULL)
            abort();
    }
    sample_ns = (now_ms() - from) * 1e6 / SAMPLES;
}

__attribute__((noinline)) static unsigned go_down(unsigned levels)
{
    if (levels == 0) {
        sample_here();
        return 1;
    }
    const unsigned deeper = go_down(levels - 1);
    __asm__ volatile("" ::: "memory"); /* no tail call, no loop */
    return deeper + 1;
}

/* The depth is what it is measured to be: main has frames of libc's beneath it. */
static void measure_sample(void)
{
    if (memkit__unwind_prepare() != 0)
        exit(1);
    for (unsigned levels = 1; depth_seen != 20 && levels < 40; levels++) {
        depth_seen = 0;
        go_down(levels);
    }
    printf("one sample at depth %u, warm: stack %.0f ns, found in the table, too: %.0f ns "
           "(<= 100 %s)\n",
           depth_seen, unwind_ns, sample_ns, against(sample_ns, 100));
}

/* In a process of its own: what a run leaves would be in the next. */
static int in_child(void (*fn)(size_t, uint64_t), size_t sample_bytes, uint64_t pairs)
{
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        if (fn != NULL)
            fn(sample_bytes, pairs);
        else
            measure_sample();
        fflush(stdout);
        _exit(0);
    }
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

int main(int argc, char **argv)
{
    const uint64_t pairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    return in_child(measure, 524288, pairs) != 0 || in_child(measure, 1, pairs) != 0 ||
           in_child(NULL, 0, 0) != 0;
}
