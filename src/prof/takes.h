/* takes.h - memory that memkit manages: who has it, and what waits idle (core/attach.h,
 * core/takes.h).
 *
 * The functions of the attach table may be called by any thread, under the core's locks; they take
 * none, and keep errno.
 */
#ifndef MEMKIT_PROF_TAKES_H
#define MEMKIT_PROF_TAKES_H

#include "core/attach.h"
#include "prof/site.h"

#pragma GCC visibility push(hidden)

/* The row `[memkit held]`: stands beside the sites, is in no table of them. inuse_* alone. */
extern memkit__site memkit__held_site;
#define MEMKIT__HELD_NAME "[memkit held]"

/* Takes are sampled with that mean from now on, 0: no more; the cores are told. max_bytes: bound of
 * the profiler's memory. One caller at a time. */
void memkit__takes_rate(uint64_t mean, uint64_t max_bytes);

/* What the cores keep of samples, bytes: the profiler's own memory. */
size_t memkit__takes_side_bytes(void);

/* For tests: the random numbers begin anew. */
void memkit__takes_seed(uint64_t seed);

/* For the attach table, as it says. */
uint32_t memkit__takes_epoch_now(void);
void memkit__takes_own(const void *p);
int64_t memkit__takes_room(size_t *mean);
uint64_t memkit__takes_take(const memkit__taking *t);
uint64_t memkit__takes_retake(uint64_t token, size_t old_bytes, size_t bytes, bool whole);
void memkit__takes_give(uint64_t token, size_t bytes, uint64_t objects, bool whole);
void *memkit__takes_side(void *p, size_t old_bytes, size_t bytes);

#pragma GCC visibility pop

#endif
