/* counters.h - one block of counters a thread; see counters.c for how they come and go.
 *
 * The inline functions are the hook's fast path: no lock prefix, no fence, no branch but the one
 * that asks whether `room` left [0, MEMKIT__ROOM_MAX]. A thread that has no block yet points at one
 * of which the room is always out of range, so that "is there a block" needs no test of its own.
 */
#ifndef MEMKIT_HOOK_COUNTERS_H
#define MEMKIT_HOOK_COUNTERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/attach.h"
#include "core/counter.h"
#include "core/internal.h"

#pragma GCC visibility push(hidden)

/* What a thread may have reserved ahead of its use, and what the slow path leaves it. */
#define MEMKIT__ROOM_MAX  ((int64_t)64 * 1024)
#define MEMKIT__ROOM_HALF (MEMKIT__ROOM_MAX / 2)

/* What one thread counted, in blocks and usable bytes. */
typedef struct {
    uint64_t mallocs, frees, alloc_bytes, freed_bytes;
} memkit__tally;

typedef struct {
    /* The hot line: written by the block's thread alone, read by anybody. */
    _Alignas(128) _Atomic uint64_t mallocs;
    _Atomic uint64_t frees;
    _Atomic uint64_t alloc_bytes; /* usable bytes allocated */
    _Atomic uint64_t freed_bytes; /* usable bytes freed */
    _Atomic int64_t room;         /* reserved in `reserved` of counters.c and not yet used */
    /* A sample is due once alloc_bytes is that much. 0: the sampler has to think; written by those
     * who control it, too. UINT64_MAX: never. See prof/sampler.c, whose the next two are. */
    _Atomic uint64_t sample_at;
    uint64_t random;
    uint32_t label, label_age;

    /* The cold line. */
    _Alignas(64) _Atomic uint32_t taken;       /* by a living thread, or free, or never used */
    uint32_t number;                           /* of blocks, from 0 */
    memkit__tally base;                        /* the counts when this thread took the block */
    _Atomic(struct memkit__clocked *) clocked; /* timing.c's, NULL until it wants one */
    uint64_t sample_rate;                      /* that sample_at was drawn with; sampler.c's */
    _Atomic(struct memkit__exact *) exact;     /* sums.c's, NULL until it wants one */
} memkit__block;

/* All the thread-local storage of the counters. */
typedef struct {
    memkit__block *block;        /* never NULL */
    memkit__block *loud;         /* while quiet: what `block` was */
    memkit__tally early;         /* what this thread counted in the shared block before its own, or
                                    in all once it gave that up */
    uint32_t id;                 /* of the thread, for the sampler; 0: none yet */
    uint8_t early_calls;         /* that came while the thread had no block yet */
    uint8_t rounds;              /* of key destructors that the thread went through */
    volatile uint8_t unobserved; /* > 0: what is allocated is not sampled */
    uint8_t quiet;               /* > 0: nor counted; how often begun */
} memkit__thread;

extern MEMKIT__TLS memkit__thread memkit__me;

/* Counts what the fast path could not: the room of memkit__me.block is off limits, and already
 * changed by freed - allocated. Keeps errno. */
void memkit__count_slow(uint64_t allocated, uint64_t freed, unsigned mallocs, unsigned frees);

/* The calling thread's block, taken now if need be; NULL: there is none to be had, or the thread is
 * past its end. */
memkit__block *memkit__own_block(void);

/* The same without taking one. */
memkit__block *memkit__block_if_any(void);

/* For a call that is made to see whether the hook counts it: the own block's counts before, and
 * back to them, as if it had not been. False: the thread has no block, nothing can be seen. */
bool memkit__trial_begin(memkit__tally *before);
/* How many calls were counted since. */
uint64_t memkit__trial_count(const memkit__tally *before);
void memkit__trial_end(const memkit__tally *before);

/* From here on the thread counts in a block of nobody's, which is in no sum; then no more. They
 * nest. prof/quiet.h */
void memkit__count_aside(void);
void memkit__count_again(void);

/* How many allocations the calling thread has made: those before it had a block, too. */
uint64_t memkit__thread_mallocs(void);

/* 0 in each block's sample_at: each thread asks the sampler at its next allocation. */
void memkit__blocks_resample(void);

/* Calls fn for each block that a thread ever had. */
void memkit__each_block(void (*fn)(const memkit__block *b, void *arg), void *arg);

void memkit__thread_counts(memkit__counts *out);
void memkit__process_counts(memkit__counts *out);

/* Adds to the room; true when it is then out of range. */
static inline bool memkit__room_add(_Atomic int64_t *room, uint64_t n)
{
#if defined(__x86_64__)
    bool above; /* as unsigned: what is negative is above too */
    __asm__ volatile("addq %2, %0\n\tcmpq %3, %0"
                     : "+m"(*room), "=@cca"(above)
                     : "r"(n), "i"(MEMKIT__ROOM_MAX)
                     : "cc");
    return above;
#else
    int64_t now = (int64_t)((uint64_t)atomic_load_explicit(room, memory_order_relaxed) + n);
    atomic_store_explicit(room, now, memory_order_relaxed);
    return (uint64_t)now > (uint64_t)MEMKIT__ROOM_MAX;
#endif
}

/* Takes from the room, which only has a lower end to fall off: true when it is then negative. */
static inline bool memkit__room_sub(_Atomic int64_t *room, uint64_t n)
{
#if defined(__x86_64__)
    bool below;
    __asm__ volatile("subq %2, %0" : "+m"(*room), "=@ccs"(below) : "r"(n));
    return below;
#else
    int64_t now = (int64_t)((uint64_t)atomic_load_explicit(room, memory_order_relaxed) - n);
    atomic_store_explicit(room, now, memory_order_relaxed);
    return now < 0;
#endif
}

/* The block that the calling thread counts in; NULL where it has none, or is quiet. */
static inline memkit__block *memkit__block_here(void)
{
    memkit__block *b = memkit__me.block;
    return MEMKIT_LIKELY(atomic_load_explicit(&b->taken, memory_order_relaxed) != 0) ? b : NULL;
}

/* True: memkit__on_alloc must be called for the allocation just counted. */
static inline bool memkit__sample_due(void)
{
    const memkit__block *b = memkit__me.block;
    uint64_t bytes = memkit__read(&b->alloc_bytes);
#if defined(__x86_64__) /* compilers load an atomic into a register first */
    bool due;
    __asm__ volatile("cmpq %2, %1" : "=@ccae"(due) : "r"(bytes), "m"(b->sample_at));
    return MEMKIT_UNLIKELY(due);
#else
    return MEMKIT_UNLIKELY(bytes >= memkit__read(&b->sample_at));
#endif
}

/* False: memkit__count_slow must do it. */
static inline bool memkit__try_count_malloc(uint64_t bytes)
{
    memkit__block *b = memkit__me.block;
    if (MEMKIT_UNLIKELY(memkit__room_sub(&b->room, bytes)))
        return false;
    memkit__bump(&b->mallocs, 1);
    memkit__bump(&b->alloc_bytes, bytes);
    return true;
}

/* True: memkit__on_alloc must be asked. */
static inline bool memkit__count_malloc(uint64_t bytes)
{
    if (MEMKIT_LIKELY(memkit__try_count_malloc(bytes)))
        return memkit__sample_due();
    memkit__count_slow(bytes, 0, 1, 0);
    return true;
}

static inline bool memkit__try_count_free(uint64_t bytes)
{
    memkit__block *b = memkit__me.block;
    if (MEMKIT_UNLIKELY(memkit__room_add(&b->room, bytes)))
        return false;
    memkit__bump(&b->frees, 1);
    memkit__bump(&b->freed_bytes, bytes);
    return true;
}

static inline void memkit__count_free(uint64_t bytes)
{
    if (MEMKIT_UNLIKELY(!memkit__try_count_free(bytes)))
        memkit__count_slow(0, bytes, 0, 1);
}

/* One of each, and the room sees the difference only: the old block does not outlive the new one.
 * True: memkit__on_alloc must be asked. */
static inline bool memkit__count_realloc(uint64_t old, uint64_t bytes)
{
    memkit__block *b = memkit__me.block;
    if (MEMKIT_UNLIKELY(memkit__room_add(&b->room, old - bytes))) {
        memkit__count_slow(bytes, old, 1, 1);
        return true;
    }
    memkit__bump(&b->mallocs, 1);
    memkit__bump(&b->alloc_bytes, bytes);
    memkit__bump(&b->frees, 1);
    memkit__bump(&b->freed_bytes, old);
    return memkit__sample_due();
}

#pragma GCC visibility pop

#endif
