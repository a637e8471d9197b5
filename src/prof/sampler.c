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
#include <string.h>

#include "hook/counters.h"
#include "prof/chance.h"
#include "prof/clock.h"
#include "prof/site_table.h"
#include "prof/sums.h"
#include "prof/takes.h"
#include "prof/unwind.h"
#include "prof/unwind_trail.h"

#define OWN_FRAMES    8u    /* of ours, that are cut off */
#define TRAILS_AFTER  4096u /* a thread's allocations before its stacks are remembered */
#define LABEL_SAMPLES 256u  /* a thread's name is read again after so many */

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

static uint32_t label_now(void)
{
    return MEMKIT_UNLIKELY(atomic_load_explicit(&memkit__sampler_labels, memory_order_relaxed))
               ? label_of_thread()
               : 0;
}

#define ROOM (MEMKIT_PROF_MAX_DEPTH + OWN_FRAMES)

typedef struct {
    const uint64_t *frames;
    unsigned depth;
    bool cut;
    uint32_t label;
} stack;

/* Of the n frames that were read. */
static inline stack stack_of(uint64_t frames[ROOM], unsigned n, bool cut, uintptr_t function,
                             const void *caller)
{
    unsigned at = 1;
    while (at < n && at <= OWN_FRAMES && memkit__frame_pc(frames[at]) != (uintptr_t)caller)
        at++;
    if (MEMKIT_UNLIKELY(caller == NULL && n > 2)) { /* all but memkit__sample_site and its caller */
        at = 3;
    } else if (MEMKIT_UNLIKELY(at >= n || at > OWN_FRAMES)) {
        at = 1; /* it cannot be read even through our own functions */
        n = 2;
        frames[1] = (uintptr_t)caller;
        cut = true;
    }
    if (MEMKIT_LIKELY(function != 0))
        frames[at - 1] = function + 1;
    unsigned depth = n - (at - 1);
    if (MEMKIT_UNLIKELY(depth > MEMKIT_PROF_MAX_DEPTH)) {
        depth = MEMKIT_PROF_MAX_DEPTH;
        cut = true;
    }
    return (stack){frames + (at - 1), depth, cut, label_now()};
}

memkit__site *memkit__sample_site(memkit__asked asked)
{
    uint64_t frames[ROOM];
    bool cut = false;
    unsigned n = memkit__unwind_here(frames, ROOM, &cut);
    stack s = stack_of(frames, n, cut, asked.function, asked.caller);
    return memkit__site_find(&memkit__heap_sites, s.frames, s.depth, s.cut, s.label);
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

/* To the common sums: a sample that its thread's own counts are not for, or had no room for. */
static void add_allocated(const memkit__record *r, bool by_realloc)
{
    double w = (double)r->weight, size = (double)r->bytes;
    memkit__adder to = memkit__sums_common(r->site);
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

static __attribute__((noinline)) void *sample(void *p, size_t usable, memkit__asked asked,
                                              bool by_realloc)
{
    double weight = due(usable);
    if (weight <= 0)
        return p;
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
    return p;
}

/* ---- every allocation is a sample ------------------------------------------------------------ */

/* A thread's last sites are known to it by a sum of their frames: which is quickly made, and tells
 * hardly more than where to look. */
static inline unsigned where_known(const stack *s)
{
    uint64_t even = s->depth, odd = s->label;
    const uint64_t *at = s->frames, *end = at + s->depth;
    for (; end - at >= 4; at += 4) {
        even += at[0];
        odd += at[1];
        even += at[2];
        odd += at[3];
    }
    for (; at < end; at++)
        even += *at;
    return (unsigned)((even + odd * 3) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - MEMKIT__KNOWN_BITS));
}

static inline bool is_of(const memkit__own *own, const stack *s)
{
    const memkit__site *site = own->site;
    return site->depth == s->depth && site->cut == s->cut && site->label == s->label &&
           memcmp(site->frames, s->frames, s->depth * sizeof s->frames[0]) == 0;
}

static __attribute__((noinline)) memkit__own *find_own(memkit__block *b, const stack *s)
{
    memkit__site *site =
        memkit__site_find(&memkit__heap_sites, s->frames, s->depth, s->cut, s->label);
    memkit__own *own = site != NULL ? memkit__own_of(site, b) : NULL;
    memkit__exact *x = atomic_load_explicit(&b->exact, memory_order_relaxed);
    if (own != NULL && x != NULL)
        atomic_store_explicit(&x->known[where_known(s)], own, memory_order_relaxed);
    return own;
}

static inline memkit__own *own_at(memkit__block *b, const stack *s)
{
    memkit__exact *x = atomic_load_explicit(&b->exact, memory_order_relaxed);
    if (MEMKIT_LIKELY(x != NULL)) {
        memkit__own *own = atomic_load_explicit(&x->known[where_known(s)], memory_order_relaxed);
        if (MEMKIT_LIKELY(own != NULL && is_of(own, s)))
            return own;
    }
    return find_own(b, s);
}

/* Written in place: a record that is copied would be read in other pieces than it was just written
 * in, and the processor waits for that. False: not recorded yet. */
__attribute__((always_inline)) static inline bool
record(memkit__block *b, void *p, size_t bytes, memkit__own *own, uint64_t born, bool by_realloc)
{
    memkit__place at;
    if (MEMKIT_UNLIKELY(own == NULL || !memkit__blocks_reserve(p, &at)))
        return false;
    at.record->site = own->site;
    at.record->bytes = bytes;
    at.record->born = born;
    at.record->weight = 1;
    at.record->thread = this_thread();
    at.record->number = (uint32_t)(memkit__read(&b->mallocs) - b->base.mallocs);
    at.record->held = false;
    memkit__blocks_publish(&at);
    memkit__own_add(&own->allocs, 1);
    memkit__own_add(&own->alloc_bytes, bytes);
    if (by_realloc)
        memkit__own_add(&own->reallocs, 1);
    return true;
}

/* Where the thread keeps the stacks it was at; NULL: it has allocated little as yet, or there is no
 * room, or a site is more than a stack. */
static inline memkit__trails *trails_of(memkit__block *b)
{
    memkit__exact *x = atomic_load_explicit(&b->exact, memory_order_relaxed);
    if (MEMKIT_UNLIKELY(x == NULL ||
                        atomic_load_explicit(&memkit__sampler_labels, memory_order_relaxed)))
        return NULL;
    return atomic_load_explicit(&x->trails, memory_order_relaxed);
}

static __attribute__((noinline)) void make_trails(memkit__block *b)
{
    memkit__exact *x = atomic_load_explicit(&b->exact, memory_order_relaxed);
    if (x == NULL || atomic_load_explicit(&x->trails, memory_order_relaxed) != NULL ||
        memkit__read(&b->mallocs) - b->base.mallocs < TRAILS_AFTER ||
        atomic_exchange_explicit(&x->no_trails, true, memory_order_relaxed))
        return; /* it is tried once, and a signal handler does not come in between */
    atomic_store_explicit(&x->trails, memkit__trails_new(), memory_order_relaxed);
}

/* The counts of this thread at the site that it allocates at. */
static inline memkit__own *own_here(memkit__block *b, uintptr_t function, const void *caller)
{
    memkit__trails *t = trails_of(b);
    memkit__trail_asked asked = {0};
    if (MEMKIT_LIKELY(t != NULL)) {
        memkit__own *own = memkit__trail_find(t, &asked);
        if (MEMKIT_LIKELY(own != NULL && own->site->frames[0] == function + 1))
            return own;
    }
    uint64_t frames[ROOM];
    bool cut = false;
    unsigned n = memkit__unwind_here(frames, ROOM, &cut);
    stack s = stack_of(frames, n, cut, function, caller);
    memkit__own *own = own_at(b, &s);
    if (t == NULL)
        make_trails(b);
    else if (own != NULL && asked.sp != 0)
        memkit__trail_note(t, &asked, own);
    return own;
}

__attribute__((always_inline)) static inline void *on_alloc(void *p, size_t usable, size_t bytes,
                                                            uintptr_t function, const void *caller,
                                                            bool by_realloc)
{
    memkit__block *b = memkit__block_here();
    if (MEMKIT_UNLIKELY(atomic_load_explicit(&rate, memory_order_relaxed) != 1 || b == NULL ||
                        memkit__me.unobserved > 0))
        return sample(p, usable, (memkit__asked){bytes, function, caller}, by_realloc);
    memkit__blocks_expect(p);
    int saved = errno;
    uint64_t born = memkit__clock_ticks();
    bool recorded = record(b, p, bytes, own_here(b, function, caller), born, by_realloc);
    errno = saved;
    if (MEMKIT_LIKELY(recorded))
        return p;
    return sample(p, usable, (memkit__asked){bytes, function, caller}, by_realloc);
}

void *memkit__on_alloc(void *p, size_t usable, size_t bytes, uintptr_t function, const void *caller)
{
    return on_alloc(p, usable, bytes, function, caller, false);
}

void *memkit__on_realloc(void *p, size_t usable, size_t bytes, uintptr_t function,
                         const void *caller)
{
    return on_alloc(p, usable, bytes, function, caller, true);
}

/* ---- its end --------------------------------------------------------------------------------- */

bool memkit__sample_take(void *p, memkit__record *r)
{
    return memkit__blocks_take(p, r);
}

static void add_freed(const memkit__record *r, unsigned life, bool foreign)
{
    memkit__adder to = memkit__sums_common(r->site);
    uint64_t objects = memkit__sums_objects((double)r->weight);
    memkit__sums_add(to, MEMKIT__SAMPLES_FREED, 1);
    memkit__sums_add(to, MEMKIT__FREED_OBJECTS, objects);
    memkit__sums_add(to, MEMKIT__LIFE_1US + life, objects);
    if (foreign)
        memkit__sums_add(to, MEMKIT__FOREIGN_FREED_OBJECTS, objects);
    else if (r->number == (uint32_t)memkit__thread_mallocs())
        memkit__sums_add(to, MEMKIT__TEMPORARY_OBJECTS, objects);
    add_inuse(user_of(r), r, -1);
}

/* The block's free took it off its site's row, where it no longer was. */
static __attribute__((noinline)) void leave_held(const memkit__record *r)
{
    add_inuse(memkit__sums_adder(r->site, 1), r, 1);
    add_inuse(user_of(r), r, -1);
}

static inline void freed(const memkit__record *r)
{
    memkit__block *b = memkit__block_here();
    unsigned life = memkit__life_bucket(r->born, memkit__clock_ticks());
    bool foreign = r->thread != this_thread();
    memkit__own *own = NULL;
    if (MEMKIT_LIKELY(r->weight == 1 && b != NULL))
        own = memkit__own_of(r->site, b);
    if (MEMKIT_UNLIKELY(own == NULL)) {
        add_freed(r, life, foreign);
        return;
    }
    memkit__own_add(&own->freed_bytes, r->bytes);
    memkit__own_add(&own->lives[life], 1);
    if (foreign)
        memkit__own_add(&own->foreign, 1);
    else if (r->number == (uint32_t)(memkit__read(&b->mallocs) - b->base.mallocs))
        memkit__own_add(&own->temporary, 1);
    if (MEMKIT_UNLIKELY(r->held))
        leave_held(r);
}

void memkit__sample_freed(const memkit__record *r)
{
    freed(r);
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
        freed(&r);
}

void memkit__sampler_in_child(void)
{
    memkit__blocks_in_child();
    memkit__sites_in_child(&memkit__heap_sites);
    memkit__sites_in_child(&memkit__cpu_sites);
}
