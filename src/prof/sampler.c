/* sampler.c - which allocations are samples, and what is noted of them.
 *
 *     hook: alloc_bytes >= sample_at? --> is it due? --> stack --> site --> block table --> sums
 *     hook: in the filter?            --> block table --> sums
 *
 * - sample_at is in the thread's block of counters (counters.h), so that asking costs the hook a
 *   load and a compare of a line that it has written just before. It is drawn by its thread: the
 *   sum of bytes allocated at which the next point of chance.h lies.
 * - Who controls sampling writes the rate, then 0 to every block's sample_at; a thread that finds 0
 *   draws anew, or goes to sleep (UINT64_MAX). It then reads the rate again: had that changed since
 *   it was drawn with, the 0 may have been overwritten, and is written once more. With a rate of 1
 *   the 0 stays, and every allocation comes here.
 * - A thread without a block (its first allocations, its last ones) draws for each allocation: the
 *   distance has no memory, so that is the same.
 * - Nothing here holds anything, so a signal handler may allocate at any point: its allocation is
 *   counted, and recorded, as any other.
 * - Stacks are cut so that they begin with the exported function, whatever of ours lies before it:
 *   its frame is the one towards the leaf of the caller's, which is known.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/sampler.h"

#include <errno.h>

#include "hook/counters.h"
#include "prof/chance.h"
#include "prof/clock.h"
#include "prof/site_table.h"
#include "prof/sums.h"
#include "prof/takes.h"
#include "prof/unwind.h"

#define OWN_FRAMES    8u   /* of ours, that are cut off */
#define LABEL_SAMPLES 256u /* a thread's name is read again after so many */

atomic_bool memkit__sampler_labels;
_Atomic uint64_t memkit__sampler_dropped;

static _Atomic uint64_t rate;
static _Atomic uint32_t last_thread;
static _Atomic uint64_t shared_random;

/* ---- is it due? ------------------------------------------------------------------------------ */

static void set_next(memkit__block *b, uint64_t at, uint64_t drawn_with)
{
    b->sample_rate = drawn_with;
    atomic_store(&b->sample_at, at);
    if (atomic_load(&rate) != drawn_with)
        atomic_store(&b->sample_at, 0);
}

static uint64_t gap(memkit__block *b, uint64_t mean)
{
    if (b->random == 0)
        b->random = memkit__chance_mix(memkit__clock_ticks() ^ (uint64_t)(uintptr_t)b);
    return memkit__chance_gap(&b->random, mean);
}

/* The weight of the allocation of so many bytes, just counted; 0: it is no sample. */
static double due_without_block(uint64_t bytes, uint64_t mean)
{
    if (mean <= 1)
        return (double)mean;
    uint64_t random =
        memkit__chance_mix(atomic_fetch_add(&shared_random, 1) ^ memkit__clock_ticks() << 20);
    return memkit__chance_gap(&random, mean) <= bytes ? memkit__chance_weight(bytes, mean) : 0;
}

static double due(uint64_t bytes)
{
    uint64_t mean = atomic_load(&rate);
    if (memkit__me.unobserved > 0 || memkit__me.quiet > 0)
        return 0;
    memkit__block *b = memkit__block_if_any();
    if (b == NULL)
        return due_without_block(bytes, mean);
    if (mean == 1)
        return 1;
    if (mean == 0) {
        set_next(b, UINT64_MAX, mean);
        return 0;
    }
    uint64_t now = memkit__read(&b->alloc_bytes);
    if (atomic_load_explicit(&b->sample_at, memory_order_relaxed) == 0)
        set_next(b, now - bytes + gap(b, mean), mean);
    uint64_t at = atomic_load_explicit(&b->sample_at, memory_order_relaxed);
    if (at == 0 || now < at)
        return 0;
    uint64_t drawn_with = b->sample_rate;
    set_next(b, now + gap(b, mean), mean);
    return drawn_with > 1 ? memkit__chance_weight(bytes, drawn_with) : 1;
}

void memkit__sampler_rate(uint64_t mean)
{
    atomic_store(&rate, mean);
    memkit__blocks_resample();
}

void memkit__sampler_seed(uint64_t seed)
{
    memkit__block *b = memkit__own_block();
    if (b == NULL)
        return;
    b->random = memkit__chance_mix(seed);
    atomic_store(&b->sample_at, 0);
}

/* ---- taking a sample ------------------------------------------------------------------------- */

static uint32_t this_thread(void)
{
    if (MEMKIT_UNLIKELY(memkit__me.id == 0))
        memkit__me.id = atomic_fetch_add(&last_thread, 1) + 1;
    return memkit__me.id;
}

static uint32_t label_of_thread(void)
{
    memkit__block *b = memkit__block_if_any();
    if (b == NULL)
        return memkit__label_here();
    if (b->label_age++ % LABEL_SAMPLES == 0)
        b->label = memkit__label_here();
    return b->label;
}

memkit__site *memkit__sample_site(memkit__asked asked)
{
    uint64_t frames[MEMKIT_PROF_MAX_DEPTH + OWN_FRAMES];
    bool cut = false;
    unsigned n = memkit__unwind_here(frames, MEMKIT_PROF_MAX_DEPTH + OWN_FRAMES, &cut);
    unsigned at = 1;
    while (at < n && at <= OWN_FRAMES && memkit__frame_pc(frames[at]) != (uintptr_t)asked.caller)
        at++;
    if (asked.caller == NULL && n > 2) { /* all but this function and its caller */
        at = 3;
    } else if (at >= n || at > OWN_FRAMES) { /* it cannot be read even through our own functions */
        at = 1;
        n = 2;
        frames[1] = (uintptr_t)asked.caller;
        cut = true;
    }
    if (asked.function != 0)
        frames[at - 1] = asked.function + 1;
    unsigned depth = n - (at - 1);
    if (depth > MEMKIT_PROF_MAX_DEPTH) {
        depth = MEMKIT_PROF_MAX_DEPTH;
        cut = true;
    }
    uint32_t label =
        atomic_load_explicit(&memkit__sampler_labels, memory_order_relaxed) ? label_of_thread() : 0;
    return memkit__site_find(&memkit__heap_sites, frames + (at - 1), depth, cut, label);
}

/* What a block adds to the sums, or takes off again. */
static void add_inuse(memkit__adder to, const memkit__record *r, int sign)
{
    double w = (double)r->weight, variance = sign * w * (w - 1);
    uint64_t objects = memkit__sums_objects(w), bytes = memkit__sums_bytes(w, r->bytes);
    memkit__sums_add(to, MEMKIT__INUSE_OBJECTS, sign > 0 ? objects : 0 - objects);
    memkit__sums_add(to, MEMKIT__INUSE_SPACE, sign > 0 ? bytes : 0 - bytes);
    if (r->weight > 1) {
        double size = (double)r->bytes;
        memkit__sums_add_variance(to, MEMKIT__INUSE_OBJECTS, variance);
        memkit__sums_add_variance(to, MEMKIT__INUSE_SPACE, variance * size * size);
    }
}

/* The row that the block is in use by. */
static memkit__adder user_of(const memkit__record *r)
{
    return memkit__sums_adder(r->held ? &memkit__held_site : r->site, (double)r->weight);
}

static void add_allocated(const memkit__record *r, bool by_realloc)
{
    double w = (double)r->weight, size = (double)r->bytes;
    memkit__adder to = memkit__sums_adder(r->site, w);
    memkit__sums_add(to, MEMKIT__SAMPLES, 1);
    memkit__sums_add(to, MEMKIT__ALLOC_OBJECTS, memkit__sums_objects(w));
    memkit__sums_add(to, MEMKIT__ALLOC_SPACE, memkit__sums_bytes(w, r->bytes));
    if (by_realloc)
        memkit__sums_add(to, MEMKIT__REALLOC_OBJECTS, memkit__sums_objects(w));
    if (r->weight > 1) {
        memkit__sums_add_variance(to, MEMKIT__ALLOC_OBJECTS, w * (w - 1));
        memkit__sums_add_variance(to, MEMKIT__ALLOC_SPACE, w * (w - 1) * size * size);
    }
    add_inuse(to, r, 1);
}

static void sample(void *p, size_t usable, memkit__asked asked, bool by_realloc)
{
    double weight = due(usable);
    if (weight <= 0)
        return;
    int saved = errno;
    memkit__record r = {.bytes = asked.bytes,
                        .born = memkit__clock_ticks(),
                        .weight = (float)weight,
                        .thread = this_thread(),
                        .number = (uint32_t)memkit__thread_mallocs()};
    r.site = memkit__sample_site(asked);
    if (r.site != NULL && memkit__blocks_put(p, &r))
        add_allocated(&r, by_realloc);
    else
        atomic_fetch_add(&memkit__sampler_dropped, 1);
    errno = saved;
}

void memkit__on_alloc(void *p, size_t usable, memkit__asked asked)
{
    sample(p, usable, asked, false);
}

void memkit__on_realloc(void *p, size_t usable, memkit__asked asked)
{
    sample(p, usable, asked, true);
}

/* ---- its end --------------------------------------------------------------------------------- */

bool memkit__sample_take(void *p, memkit__record *r)
{
    return memkit__blocks_take(p, r);
}

void memkit__sample_freed(const memkit__record *r)
{
    memkit__adder to = memkit__sums_adder(r->site, (double)r->weight);
    uint64_t objects = memkit__sums_objects((double)r->weight);
    unsigned life = memkit__life_bucket(r->born, memkit__clock_ticks());
    memkit__sums_add(to, MEMKIT__SAMPLES_FREED, 1);
    memkit__sums_add(to, MEMKIT__FREED_OBJECTS, objects);
    memkit__sums_add(to, MEMKIT__LIFE_1US + life, objects);
    if (r->thread != this_thread())
        memkit__sums_add(to, MEMKIT__FOREIGN_FREED_OBJECTS, objects);
    else if (r->number == (uint32_t)memkit__thread_mallocs())
        memkit__sums_add(to, MEMKIT__TEMPORARY_OBJECTS, objects);
    add_inuse(user_of(r), r, -1);
}

void memkit__sample_own(void *p)
{
    memkit__record r;
    if (!memkit__blocks_take(p, &r))
        return;
    add_inuse(user_of(&r), &r, -1);
    r.held = true;
    add_inuse(user_of(&r), &r, 1);
    memkit__sample_put_back(p, &r);
}

void memkit__sample_put_back(void *p, const memkit__record *r)
{
    if (memkit__blocks_put(p, r))
        return;
    atomic_fetch_add(&memkit__sampler_dropped, 1); /* its place went to another meanwhile */
    memkit__sample_freed(r);
}

void memkit__on_free(void *p)
{
    memkit__record r;
    if (memkit__blocks_take(p, &r))
        memkit__sample_freed(&r);
}

void memkit__sampler_in_child(void)
{
    memkit__blocks_in_child();
    memkit__sites_in_child(&memkit__heap_sites);
    memkit__sites_in_child(&memkit__cpu_sites);
}
