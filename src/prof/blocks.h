/* blocks.h - the table of sampled blocks that are not freed yet: address -> what is known of it.
 *
 * Everything may be called inside malloc, by any thread and in a signal handler: no lock, no wait.
 * That an address is put in and taken out in turns is what the allocator guarantees, as long as a
 * block is put in after it was allocated and taken out before it is freed.
 */
#ifndef MEMKIT_PROF_BLOCKS_H
#define MEMKIT_PROF_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/internal.h"
#include "prof/site.h"

#pragma GCC visibility push(hidden)

typedef struct {
    memkit__site *site;
    uint64_t bytes;  /* asked for */
    uint64_t born;   /* ticks of clock.h */
    float weight;    /* allocations that this one stands for */
    uint32_t thread; /* that allocated it */
    uint32_t number; /* of the allocation among the thread's, modulo 2^32 */
    bool held;       /* in use by the held row, not by its site: takes.h */
} memkit__record;

/* The filter: a counter for some of the blocks each, not 0 where one of them may be in the table.
 * NULL while nothing ever was. */
#define MEMKIT__WATCH_BITS 13
extern _Atomic(const _Atomic uint8_t *) memkit__watch;
/* The address of this instead: all pass. */
extern const _Atomic uint8_t memkit__watch_all;

static inline size_t memkit__watch_index(const void *p)
{
    return (size_t)((uint64_t)(uintptr_t)p * UINT64_C(0x9e3779b97f4a7c15) >>
                    (64 - MEMKIT__WATCH_BITS));
}

/* False: no block was ever in the table. */
static inline bool memkit__ever_sampled(void)
{
#if defined(__x86_64__) /* compilers load an atomic into a register first */
    bool never;
    __asm__ volatile("cmpq $0, %1" : "=@cce"(never) : "m"(memkit__watch));
    return MEMKIT_UNLIKELY(!never);
#else
    return MEMKIT_UNLIKELY(atomic_load_explicit(&memkit__watch, memory_order_relaxed) != NULL);
#endif
}

/* False: p is not in the table. */
static inline bool memkit__perhaps_sampled(const void *p)
{
    const _Atomic uint8_t *watch = atomic_load_explicit(&memkit__watch, memory_order_relaxed);
    return MEMKIT_UNLIKELY(watch != NULL) &&
           MEMKIT_UNLIKELY(
               watch == &memkit__watch_all ||
               atomic_load_explicit(&watch[memkit__watch_index(p)], memory_order_relaxed) != 0);
}

/* A block about to be put in: what it needs is brought near meanwhile. */
void memkit__blocks_expect(const void *p);

/* A place for p, to be filled and published; the table waits for that. False: no room at hand, see
 * memkit__blocks_put. */
typedef struct {
    memkit__record *record;
    _Atomic uint64_t *at;
    uint64_t key;
} memkit__place;

bool memkit__blocks_reserve(const void *p, memkit__place *place);

static inline void memkit__blocks_publish(const memkit__place *place)
{
    atomic_store_explicit(place->at, place->key, memory_order_release);
}

/* False: no room within the bound. */
bool memkit__blocks_put(const void *p, const memkit__record *r);

/* False: not in the table. */
bool memkit__blocks_take(const void *p, memkit__record *r);

/* Makes the table, for sampling that is dense (most blocks come in) or sparse, and the filter fit
 * it. One caller at a time, not inside malloc; it may wait for threads that are. False: ENOMEM. */
bool memkit__blocks_prepare(bool dense);

/* How many blocks there are now; reads the whole table. */
size_t memkit__blocks_count(void);

void memkit__blocks_in_child(void);

#pragma GCC visibility pop

#endif
