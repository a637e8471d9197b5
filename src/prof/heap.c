/* heap.c - the heap profile as data, and snapshots to subtract.
 *
 * Both read the sums of all sites (sums.h) while threads go on adding: a block may be in one sum
 * and not yet in another. A snapshot is the sums of the sites that there were, by id; what came
 * since is less by these, but for inuse_*, which is what it is now.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/heap.h"

#include <errno.h>
#include <inttypes.h>
#include <memkit/version.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "prof/clock.h"
#include "prof/control.h"
#include "prof/sampler.h"
#include "prof/site.h"
#include "prof/sums.h"
#include "prof/takes.h"

#define TYPES        MEMKIT__HEAP_TYPE_COUNT
#define MAX_COMMENTS 8

/* A function of these names is dropped by pprof with all towards the leaf; what calls the user's
 * code back (a cache's eviction, an arena's defers) must not be among them, nor any function of the
 * user's own. */
static const char drop_frames[] =
    "malloc|calloc|realloc|reallocarray|aligned_alloc|memalign|posix_memalign|valloc|pvalloc|"
    "operator new.*|_Zn[wa].*|"
    "memkit_(buf|pool)_.*|memkit_arena_(new|alloc|alloc_slow|alloc_aligned|calloc|memdup)|"
    "memkit_arena_(strdup|strndup|printf|realloc|defer)";

#define VALUE_TYPE(name, type, unit, ...) {type, unit},
static const memkit__value_type types[TYPES] = {MEMKIT__HEAP_TYPES(VALUE_TYPE)};

struct memkit_prof_snap {
    memkit__scratch memory; /* this is in it, too */
    uint64_t taken_ns;
    uint32_t n;
    memkit__sums_read *sums;
};

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

memkit_prof_snap *memkit_prof_snapshot(void)
{
    memkit__scratch memory = {0};
    uint32_t n = memkit__site_count(&memkit__heap_sites);
    memkit_prof_snap *snap = memkit__scratch_alloc(&memory, sizeof *snap);
    memkit__sums_read *sums = memkit__scratch_array(&memory, n, sizeof *sums);
    if (snap == NULL || sums == NULL) {
        memkit__scratch_free(&memory);
        errno = ENOMEM;
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        const memkit__site *site = memkit__site_at(&memkit__heap_sites, i);
        if (site != NULL)
            memkit__sums_get(site, &sums[i]);
    }
    *snap = (memkit_prof_snap){memory, now_ns(CLOCK_MONOTONIC), n, sums};
    return snap;
}

void memkit_prof_snap_free(memkit_prof_snap *snap)
{
    if (snap == NULL)
        return;
    memkit__scratch memory = snap->memory;
    memkit__scratch_free(&memory);
}

static void subtract(memkit__sums_read *from, const memkit__sums_read *what)
{
    for (unsigned i = 0; i < TYPES; i++)
        if (i != MEMKIT__INUSE_OBJECTS && i != MEMKIT__INUSE_SPACE)
            from->sum[i] -= what->sum[i];
    for (unsigned i = 0; i < MEMKIT__VARIANCES; i++)
        if (i != MEMKIT__INUSE_OBJECTS && i != MEMKIT__INUSE_SPACE) {
            from->variance[i] -= what->variance[i];
            if (from->variance[i] < 0)
                from->variance[i] = 0;
        }
}

/* ---- samples --------------------------------------------------------------------------------- */

/* The first six have sums of their own. Of the others, all counts, a site's variance is taken to
 * be in proportion to its allocations': exact where its blocks are of one size. NULL where all is
 * exact. */
static const double *variances(const memkit__sums_read *r, const int64_t *values,
                               memkit__scratch *s, bool *failed)
{
    bool exact = true;
    for (unsigned i = 0; i < MEMKIT__VARIANCES; i++)
        exact = exact && r->variance[i] <= 0;
    if (exact)
        return NULL;
    double *v = memkit__scratch_array(s, TYPES, sizeof *v);
    *failed = v == NULL;
    if (v == NULL)
        return NULL;
    unsigned from =
        values[MEMKIT__ALLOC_OBJECTS] > 0 ? MEMKIT__ALLOC_OBJECTS : MEMKIT__INUSE_OBJECTS;
    double each = values[from] > 0 ? r->variance[from] / (double)values[from] : 0;
    for (unsigned i = 0; i < TYPES; i++)
        v[i] = i < MEMKIT__VARIANCES ? r->variance[i] : each * (double)values[i];
    return v;
}

/* False: ENOMEM. *used: there is something to tell. */
static bool make_sample(memkit__sample *out, const memkit__site *site,
                        const memkit_prof_snap *since, memkit__scratch *s, bool *used)
{
    memkit__sums_read r;
    int64_t values[TYPES];
    memkit__sums_get(site, &r);
    if (since != NULL && site->id < since->n)
        subtract(&r, &since->sums[site->id]);
    *used = false;
    for (unsigned i = 0; i < TYPES; i++) {
        values[i] = memkit__sums_value(&r, i);
        *used = *used || values[i] != 0;
    }
    if (!*used)
        return true;
    int64_t *kept = memkit__scratch_array(s, TYPES, sizeof *kept);
    bool failed = kept == NULL;
    const double *variance = failed ? NULL : variances(&r, values, s, &failed);
    if (failed)
        return false;
    memcpy(kept, values, sizeof values);
    *out = (memkit__sample){.frames = site->frames,
                            .depth = site->depth,
                            .cut = site->cut,
                            .thread = memkit__label_name(site->label),
                            .values = kept,
                            .variance = variance};
    return true;
}

static bool make_samples(memkit__profile *p, const memkit_prof_snap *since, memkit__scratch *s)
{
    uint32_t n = memkit__site_count(&memkit__heap_sites);
    p->samples = memkit__scratch_array(s, (size_t)n + 1, sizeof *p->samples);
    if (p->samples == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const memkit__site *site = memkit__site_at(&memkit__heap_sites, i);
        bool used = false;
        if (site != NULL && !make_sample(&p->samples[p->n_samples], site, since, s, &used))
            return false;
        p->n_samples += used;
    }
    bool held = false;
    if (!make_sample(&p->samples[p->n_samples], &memkit__held_site, since, s, &held))
        return false;
    if (held) {
        p->samples[p->n_samples].frames = NULL;
        p->samples[p->n_samples++].name = MEMKIT__HELD_NAME;
    }
    return true;
}

/* ---- comments -------------------------------------------------------------------------------- */

typedef struct {
    memkit__scratch *s;
    const char **texts;
    uint32_t n;
    bool failed;
} comments;

__attribute__((format(printf, 2, 3))) static void comment(comments *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *kept = memkit__scratch_strndup(c->s, text, len > 0 ? (size_t)len : 0);
    c->failed = c->failed || kept == NULL;
    c->texts[c->n++] = kept;
}

/* No sample was taken at another rate than 1. */
static bool all_exact(const memkit__profile *p)
{
    for (uint32_t i = 0; i < p->n_samples; i++)
        if (p->samples[i].variance != NULL)
            return false;
    return true;
}

static bool make_comments(memkit__profile *p, const memkit_prof_snap *since,
                          const memkit_prof_stats_t *st, memkit__scratch *s)
{
    comments c = {.s = s, .texts = memkit__scratch_array(s, MAX_COMMENTS, sizeof *c.texts)};
    if (c.texts == NULL)
        return false;
    comment(&c, "memkit " MEMKIT_VERSION);
    if (st->sample_bytes == 1 && all_exact(p))
        comment(&c, "every allocation is a sample: exact, in requested bytes");
    else if (st->sample_bytes == 1)
        comment(&c, "every allocation is a sample now, but was not always: not exact");
    else
        comment(&c, "one sample in %" PRIu64 " bytes allocated, on average", st->sample_bytes);
    comment(&c, "the profiler's own memory: %" PRIu64 " bytes of at most %" PRIu64, st->own_bytes,
            st->max_bytes);
    comment(&c, "samples dropped for want of room: %" PRIu64, st->dropped);
    if (st->cut_stacks > 0)
        comment(&c, "stacks cut, their outer frames missing: %" PRIu64, st->cut_stacks);
    if (since != NULL)
        comment(&c, "inuse_* are values at the end; all else is what was added since the begin");
    p->comments = c.texts;
    p->n_comments = c.n;
    return !c.failed;
}

memkit__profile *memkit__heap_profile(memkit_prof_kind kind, const memkit_prof_snap *since,
                                      memkit__scratch *s)
{
    uint64_t begin = memkit__prof_started_ns();
    if (begin == 0) {
        errno = ENODATA;
        return NULL;
    }
    if (since != NULL)
        begin = since->taken_ns;
    memkit_prof_stats_t st;
    memkit_prof_stats(&st);
    memkit__profile *p = memkit__scratch_alloc(s, sizeof *p);
    if (p == NULL || !make_samples(p, since, s) || !make_comments(p, since, &st, s)) {
        errno = ENOMEM;
        return NULL;
    }
    p->types = types;
    p->n_types = TYPES;
    p->default_type = kind == MEMKIT_PROF_ALLOCS ? MEMKIT__ALLOC_SPACE : MEMKIT__INUSE_SPACE;
    p->period_type = (memkit__value_type){"space", "bytes"};
    p->period = (int64_t)st.sample_bytes;
    p->time_ns = (int64_t)now_ns(CLOCK_REALTIME);
    p->duration_ns = (int64_t)(now_ns(CLOCK_MONOTONIC) - begin);
    p->drop_frames = drop_frames;
    return p;
}
