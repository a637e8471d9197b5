/* sampler.h - between the hook and the heap profiler. All of it runs inside malloc, perhaps in a
 * signal handler, and keeps errno. */
#ifndef MEMKIT_PROF_SAMPLER_H
#define MEMKIT_PROF_SAMPLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prof/blocks.h"

#pragma GCC visibility push(hidden)

/* An allocation as the program asked for it. */
typedef struct {
    size_t bytes;
    uintptr_t function; /* the exported one: malloc, calloc ... */
    const void *caller; /* the return address of that */
} memkit__asked;

/* p was allocated and counted, `usable` bytes, asked for as memkit__asked says; where
 * memkit__sample_due says so, or the count was slow. Finds out whether it is a sample, and if so
 * records it. Returns p: the hook jumps here last thing, and is then no frame of the stack. */
void *memkit__on_alloc(void *p, size_t usable, size_t bytes, uintptr_t function,
                       const void *caller);

/* The same for what realloc made of a block. */
void *memkit__on_realloc(void *p, size_t usable, size_t bytes, uintptr_t function,
                         const void *caller);

/* p is about to be freed; where memkit__perhaps_sampled. */
void memkit__on_free(void *p);

/* That in two steps, for realloc: what is known of p is taken out; then the block is gone after
 * all, or still there. */
bool memkit__sample_take(void *p, memkit__record *r);
void memkit__sample_freed(const memkit__record *r);
void memkit__sample_put_back(void *p, const memkit__record *r);

/* p is memkit's stock: in use by the held row from now on (takes.h). */
void memkit__sample_own(void *p);

/* The stack from the function's caller on, with the function itself as its leaf; caller NULL: not
 * known, the stack from the caller's caller of this on. NULL: no room. */
memkit__site *memkit__sample_site(memkit__asked asked);

/* The mean from now on, in all threads: each notices at its next allocation. 0: none is sampled; 1:
 * all are. One caller at a time. */
void memkit__sampler_rate(uint64_t mean);

/* Whether stacks are told apart by the thread's name. */
extern atomic_bool memkit__sampler_labels;

/* Samples for which there was no room. */
extern _Atomic uint64_t memkit__sampler_dropped;

/* For tests: the calling thread's random numbers begin anew. */
void memkit__sampler_seed(uint64_t seed);

/* The name behind a site's label; NULL: none. And the calling thread's, noted if new; 0: no room.
 * labels.c */
const char *memkit__label_name(uint32_t label);
uint32_t memkit__label_here(void);

void memkit__sampler_in_child(void);

#pragma GCC visibility pop

#endif
