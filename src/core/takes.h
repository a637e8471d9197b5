/* takes.h - the core tells an attached profiler who has what of the memory it manages.
 *
 *     malloc --own--> [memkit held] --charge--> the taker's stack --uncharge--> [memkit held] -->
 * free
 *
 * Takes are sampled by bytes: a countdown (one a thread and pool, one a shard, one an arena) runs
 * out at a Poisson process's next point, and the object that lies there is charged. It keeps a
 * token, so that giving back one that was not sampled costs a test. At a mean of 1 byte each object
 * is charged.
 *
 * While nobody profiles the paths pay for one test of memkit__takes_epoch, the arena's inline path
 * for nothing: there `end` is lowered to the next point instead (arena_takes.c).
 *
 * Only what lies in stock is charged: blocks that malloc gave while takes were wanted. So whatever
 * is started and stopped in between, the rows' sum stays what the profile knows of malloc.
 *
 * Locking: a countdown is its owner's (the thread's, or under the lock of what it is of).
 */
#ifndef MEMKIT_CORE_TAKES_H
#define MEMKIT_CORE_TAKES_H

#include <stdatomic.h>

#include "core/attach.h"

/* Odd: takes are wanted; it changes with start, stop and rate. */
extern _Atomic uint32_t memkit__takes_epoch __attribute__((visibility("hidden")));

static inline uint32_t memkit__takes_now(void)
{
    return atomic_load_explicit(&memkit__takes_epoch, memory_order_relaxed);
}

/* A compiler does not fold an atomic load into a test: that would be a third instruction. */
static inline bool memkit__takes_wanted(void)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    bool wanted;
    __asm__ volatile("testb $1, %1" : "=@ccnz"(wanted) : "m"(memkit__takes_epoch));
    return MEMKIT_UNLIKELY(wanted);
#else
    return MEMKIT_UNLIKELY((memkit__takes_now() & 1) != 0);
#endif
}

/* Where the function it is written in returns to; taken in public functions, whose callers are the
 * program's. */
#define MEMKIT__RETURNS_TO __builtin_return_address(0)

/* {0} is one that has not begun. */
typedef struct {
    int64_t room;   /* bytes until the next point; below 0: passed */
    size_t mean;    /* that room was drawn with */
    uint32_t epoch; /* when it was */
} memkit__countdown;

/* Draws anew where the epoch has changed; without takes there is room for all. */
void memkit__countdown_sync(memkit__countdown *c);

/* Takes bytes off; true where that passes the point: then memkit__charge. */
bool memkit__take_due(memkit__countdown *c, size_t bytes);

/* A sample; the countdown begins again, and gives the mean. A token, 0: not charged. */
uint64_t memkit__charge(memkit__countdown *c, memkit__taking t);
void memkit__uncharge(uint64_t token, size_t bytes, uint64_t objects, bool whole);
uint64_t memkit__recharge(uint64_t token, size_t old_bytes, size_t bytes, bool whole);

/* realloc for what has to be remembered of samples, and its end: 0 bytes. NULL: no memory. */
void *memkit__side(void *p, size_t old_bytes, size_t bytes);

void memkit__own_slow(const void *p);

/* p, just had from malloc, is stock. `epoch` is memkit__takes_now() from before that. True where it
 * may be charged to takers: malloc was watched. */
static inline bool memkit__own(const void *p, uint32_t epoch)
{
    if (MEMKIT_LIKELY((epoch & 1) == 0) || p == NULL)
        return false;
    memkit__own_slow(p);
    return epoch == memkit__takes_now();
}

/* For attach.c: later news only. */
void memkit__takes_set(uint32_t epoch);

#endif
