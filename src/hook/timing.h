/* timing.h - MEMKIT_TIMING=1: how long each call of the allocator underneath takes; see timing.c.
 */
#ifndef MEMKIT_HOOK_TIMING_H
#define MEMKIT_HOOK_TIMING_H

#include <stdbool.h>

#include "core/attach.h"
#include "hook/counters.h"
#include "hook/real.h"

#pragma GCC visibility push(hidden)

extern bool memkit__timing;

/* Puts the timed functions in front of those in *table. */
void memkit__timing_cover(memkit__real_table *table);

/* For calls that do not go through the table: around one of them. `function` is a literal. */
typedef struct {
    uint64_t at;       /* ns */
    uint64_t switches; /* involuntary ones of the thread, up to a moment before */
} memkit__stamp;

memkit__stamp memkit__timing_enter(void);
void memkit__timing_leave(memkit__stamp entered, const char *function, size_t bytes);

/* The bucket that a call of ns is counted in. */
unsigned memkit__timing_bucket(uint64_t ns);

/* False when timing is off. */
bool memkit__timing_read(memkit__times *out);

/* The time that is not above what `per_mille` of the calls took: a bucket's bound, or the longest.
 */
uint64_t memkit__timing_quantile(const memkit__times *t, unsigned per_mille);

/* The block has another thread now. */
void memkit__timing_new_thread(memkit__block *b);

/* After a fork the other threads are gone, one of them perhaps while it noted a call. */
void memkit__timing_in_child(void);

#pragma GCC visibility pop

#endif
