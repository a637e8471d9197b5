/* cpu_profile.c - what the CPU profiler collected, as a profile: samples/count, cpu/nanoseconds.
 *
 * Read while it runs, too: each sum is one atomic word, so each row is true at some moment.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "prof/heap.h"

#define COMMENTS_MAX 6

static const memkit__value_type types[] = {{"samples", "count"}, {"cpu", "nanoseconds"}};
enum { N_TYPES = sizeof types / sizeof *types, CPU = 1 };

static bool add_sample(memkit__profile *p, const memkit__site *site, int64_t period_ns,
                       memkit__scratch *s)
{
    const uint64_t periods = atomic_load(&memkit__cpu_sums_of(site)->periods);
    if (periods == 0)
        return true; /* of a run before this one */
    int64_t *values = memkit__scratch_array(s, N_TYPES, sizeof *values);
    double *variance = memkit__scratch_array(s, N_TYPES, sizeof *variance);
    if (values == NULL || variance == NULL)
        return false;
    values[0] = (int64_t)periods;
    values[CPU] = (int64_t)periods * period_ns;
    variance[0] = (double)periods; /* of a count of rare, independent events */
    variance[CPU] = (double)periods * (double)period_ns * (double)period_ns;
    p->samples[p->n_samples++] = (memkit__sample){.frames = site->frames,
                                                  .depth = site->depth,
                                                  .cut = site->cut,
                                                  .values = values,
                                                  .variance = variance};
    return true;
}

static bool add_samples(memkit__profile *p, int64_t period_ns, memkit__scratch *s)
{
    const uint32_t n = memkit__site_count(&memkit__cpu_sites);
    p->samples = memkit__scratch_array(s, n, sizeof *p->samples);
    if (p->samples == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const memkit__site *site = memkit__site_at(&memkit__cpu_sites, i);
        if (site != NULL && !add_sample(p, site, period_ns, s))
            return false;
    }
    return true;
}

/* ---- comments ---- */

typedef struct {
    const char *lines[COMMENTS_MAX];
    uint32_t n;
    bool failed;
    memkit__scratch *scratch;
} comments;

__attribute__((format(printf, 2, 3))) static void say(comments *c, const char *fmt, ...)
{
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    const char *kept = memkit__scratch_strndup(c->scratch, line, strlen(line));
    c->failed |= kept == NULL;
    c->lines[c->n++] = kept;
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

static void say_all(comments *c, const memkit__profile *p)
{
    const memkit__cpu_run *run = &memkit__cpu_last;
    int64_t in_samples = 0, cpu = atomic_load(&run->end_cpu_ns);
    for (uint32_t i = 0; i < p->n_samples; i++)
        in_samples += p->samples[i].values[CPU];
    if (cpu == 0)
        cpu = memkit__cpu_clock(CLOCK_PROCESS_CPUTIME_ID);
    cpu -= atomic_load(&run->start_cpu_ns) + atomic_load(&run->helper_cpu_ns);
    say(c,
        "memkit CPU profile: a sample each %.3f ms of a thread's processor time, %" PRIu64
        " threads seen",
        seconds(p->period) * 1e3, atomic_load(&run->threads));
    say(c, "processor time of the process: %.3f s, in samples: %.3f s", seconds(cpu),
        seconds(in_samples));
    say(c, "memory that the profiler holds for itself: %zu bytes", memkit__kept_bytes());
    const uint64_t dropped = atomic_load(&run->dropped);
    if (dropped != 0)
        say(c, "not in the samples, for want of room: %" PRIu64 " samples, %.3f s", dropped,
            seconds((int64_t)dropped * p->period));
    const uint64_t without = atomic_load(&run->without_timer);
    if (without != 0)
        say(c,
            "not in the samples: up to %" PRIu64
            " threads at a time could have no timer (ulimit -i bounds them)",
            without);
    if (atomic_load(&run->taken_away))
        say(c, "ended early: the program has set an action of its own for SIGPROF");
}

static bool add_comments(memkit__profile *p, memkit__scratch *s)
{
    comments *c = memkit__scratch_alloc(s, sizeof *c);
    if (c == NULL)
        return false;
    c->scratch = s;
    say_all(c, p);
    p->comments = c->lines;
    p->n_comments = c->n;
    return !c->failed;
}

memkit__profile *memkit__cpu_profile(memkit__scratch *s)
{
    const memkit__cpu_run *run = &memkit__cpu_last;
    const int64_t period_ns = atomic_load(&run->period_ns);
    if (period_ns == 0) {
        errno = ENODATA;
        return NULL;
    }
    memkit__profile *p = memkit__scratch_alloc(s, sizeof *p);
    if (p == NULL)
        return NULL;
    int64_t end = atomic_load(&run->end_ns);
    if (end == 0)
        end = memkit__cpu_clock(CLOCK_MONOTONIC);
    p->types = types;
    p->n_types = N_TYPES;
    p->default_type = CPU;
    p->period_type = types[CPU];
    p->period = period_ns;
    p->time_ns = atomic_load(&run->start_real_ns);
    p->duration_ns = end - atomic_load(&run->start_ns);
    return add_samples(p, period_ns, s) && add_comments(p, s) ? p : NULL;
}
