/* prof.c - the heap profiler's controls, and writing a profile: <memkit/prof.h>.
 *
 * One mutex guards starting, stopping and changing the rate; nothing on malloc's path takes it. It
 * is held over a fork, so that the child finds no half of a change.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <memkit/prof.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "hook/attach.h"
#include "prof/blocks.h"
#include "prof/clock.h"
#include "prof/control.h"
#include "prof/heap.h"
#include "prof/mem.h"
#include "prof/quiet.h"
#include "prof/sampler.h"
#include "prof/site.h"
#include "prof/sums.h"
#include "prof/takes.h"
#include "prof/unwind.h"

#define DEFAULT_RATE ((size_t)512 * 1024)
#define DENSE_RATE   ((size_t)4096) /* below it most blocks that last are samples */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool running;
static _Atomic uint64_t rate_said, most_bytes;
static _Atomic uint64_t started_ns; /* of the first start; 0: never */

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Makes the table, the clock and the filter fit a rate, and begins to sample. Lock held. */
static int sample_with(size_t rate)
{
    if (!memkit__blocks_prepare(rate < DENSE_RATE))
        return fail(ENOMEM);
    memkit__clock_calibrate();
    atomic_store(&rate_said, rate);
    memkit__sampler_rate(rate);
    return 0;
}

static int start(const memkit_prof_opts *o)
{
    if (running)
        return fail(EBUSY);
    size_t max = o->max_bytes != 0 ? o->max_bytes : MEMKIT__KEPT_LIMIT;
    memkit__kept_limit(max);
    if (memkit__unwind_prepare() != 0)
        return fail(ENOMEM);
    atomic_store(&memkit__sampler_labels, o->label_threads == 1);
    if (sample_with(o->sample_bytes != 0 ? o->sample_bytes : DEFAULT_RATE) != 0)
        return -1;
    atomic_store(&most_bytes, max);
    memkit__takes_rate(atomic_load(&rate_said), max);
    uint64_t never = 0;
    atomic_compare_exchange_strong(&started_ns, &never, now_ns(CLOCK_MONOTONIC));
    running = true;
    return 0;
}

int memkit_prof_start(const memkit_prof_opts *opts)
{
    static const memkit_prof_opts defaults;
    const memkit_prof_opts *o = opts != NULL ? opts : &defaults;
    if (!MEMKIT__RESERVED_OK(o) || o->sample_bytes > PTRDIFF_MAX || o->max_bytes > PTRDIFF_MAX ||
        (o->label_threads != 0 && o->label_threads != 1))
        return fail(EINVAL);
    if (!memkit__hooked())
        return fail(ENOTSUP);
    pthread_mutex_lock(&lock);
    uint64_t limit = atomic_load(&most_bytes);
    bool labels = atomic_load(&memkit__sampler_labels);
    int answer = start(o);
    if (answer != 0 && errno != EBUSY) {
        memkit__kept_limit(limit != 0 ? (size_t)limit : MEMKIT__KEPT_LIMIT);
        atomic_store(&memkit__sampler_labels, labels);
        errno = ENOMEM;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int memkit_prof_stop(void)
{
    pthread_mutex_lock(&lock);
    bool was = running;
    if (was) {
        memkit__takes_rate(0, 0);
        memkit__sampler_rate(0);
    }
    running = false;
    pthread_mutex_unlock(&lock);
    return was ? 0 : fail(EINVAL);
}

int memkit_prof_set_rate(size_t sample_bytes)
{
    if (sample_bytes > PTRDIFF_MAX)
        return fail(EINVAL);
    pthread_mutex_lock(&lock);
    int answer =
        running ? sample_with(sample_bytes != 0 ? sample_bytes : DEFAULT_RATE) : fail(EINVAL);
    if (answer == 0)
        memkit__takes_rate(atomic_load(&rate_said), atomic_load(&most_bytes));
    pthread_mutex_unlock(&lock);
    return answer;
}

int memkit_prof_running(void)
{
    pthread_mutex_lock(&lock);
    bool now = running;
    pthread_mutex_unlock(&lock);
    return now;
}

uint64_t memkit__prof_started_ns(void)
{
    return atomic_load(&started_ns);
}

void memkit_prof_stats(memkit_prof_stats_t *out)
{
    if (out == NULL) {
        errno = EINVAL;
        return;
    }
    *out = (memkit_prof_stats_t){.sample_bytes = atomic_load(&rate_said),
                                 .sites = memkit__site_count(&memkit__heap_sites),
                                 .dropped = atomic_load(&memkit__sampler_dropped),
                                 .own_bytes = memkit__kept_bytes() + memkit__takes_side_bytes(),
                                 .max_bytes = atomic_load(&most_bytes)};
    for (uint32_t i = 0; i < out->sites; i++) {
        const memkit__site *site = memkit__site_at(&memkit__heap_sites, i);
        if (site == NULL)
            continue;
        memkit__sums_read sums;
        memkit__sums_get(site, &sums);
        out->samples += sums.sum[MEMKIT__SAMPLES];
        out->live_samples += sums.sum[MEMKIT__SAMPLES] - sums.sum[MEMKIT__SAMPLES_FREED];
        out->cut_stacks += site->cut;
    }
    if (out->live_samples > out->samples) /* frees that were seen before their allocations */
        out->live_samples = 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int write_as(const memkit__profile *p, memkit_prof_format fmt, uint32_t type,
                    memkit_prof_kind kind, memkit_buf *out)
{
    char title[96];
    switch (fmt) {
    case MEMKIT_FMT_PPROF:
        return memkit__pprof_write(p, out);
    case MEMKIT_FMT_FOLDED:
        return memkit__folded_write(p, type, out);
    case MEMKIT_FMT_SVG:
        snprintf(title, sizeof title, "%s: %s", kind == MEMKIT_PROF_CPU ? "CPU" : "Heap",
                 p->types[type].type);
        return memkit__svg_write(p, type, title, out);
    case MEMKIT_FMT_TEXT:
        return memkit__text_write(p, type, out);
    }
    return fail(EINVAL);
}

static int build(memkit_prof_kind kind, memkit_prof_format fmt, const memkit_prof_snap *since,
                 const char *type, memkit__scratch *s, memkit_buf *out)
{
    memkit__profile *p =
        kind == MEMKIT_PROF_CPU ? memkit__cpu_profile(s) : memkit__heap_profile(kind, since, s);
    if (p == NULL)
        return -1;
    for (uint32_t i = 0; type != NULL; i++) {
        if (i == p->n_types)
            return fail(EINVAL);
        if (strcmp(p->types[i].type, type) == 0) {
            p->default_type = i;
            break;
        }
    }
    if (memkit__profile_resolve(p, s) != 0)
        return -1;
    return write_as(p, fmt, p->default_type, kind, out);
}

/* What is built is the profiler's own memory; that `out` grows is the caller's doing. */
int memkit__prof_write_type(memkit_buf *out, memkit_prof_kind kind, memkit_prof_format fmt,
                            const memkit_prof_snap *since, const char *type)
{
    if (out == NULL || (unsigned)kind > MEMKIT_PROF_CPU || (unsigned)fmt > MEMKIT_FMT_TEXT ||
        (kind == MEMKIT_PROF_CPU && since != NULL))
        return fail(EINVAL);
    memkit__scratch scratch = {0};
    memkit__quiet_begin();
    memkit_buf *built = memkit_buf_new(0);
    int answer = built != NULL ? build(kind, fmt, since, type, &scratch, built) : -1;
    int error = errno;
    memkit__scratch_free(&scratch);
    memkit__quiet_end();
    if (answer == 0) {
        answer = memkit_buf_append(out, built->data, built->len);
        error = errno;
    }
    memkit__quiet_begin();
    memkit_buf_free(built);
    memkit__quiet_end();
    return answer == 0 ? 0 : fail(error);
}

int memkit_prof_write(memkit_buf *out, memkit_prof_kind kind, memkit_prof_format fmt,
                      const memkit_prof_snap *since)
{
    return memkit__prof_write_type(out, kind, fmt, since, NULL);
}

/* ---- fork ------------------------------------------------------------------------------------ */

static void hold(void)
{
    pthread_mutex_lock(&lock);
}

static void let_go(void)
{
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(hold, let_go, let_go);
}
