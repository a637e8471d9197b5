/* sums.h - what the heap profile adds up for each site.
 *
 *     site->sums --> [ common | own[0] own[1] ... ]     common: atomic adds, by anybody
 *                               |                        own[i]: by the thread of block i alone
 *                               v                        (counters.c), made when it first adds
 *                             counts --> site
 *
 * - A sum is a fixed-point number, modulo 2^64: objects in units of 2^-20, bytes of 2^-6. What a
 *   block adds to inuse_* when it comes is taken off to the bit when it goes, since both are made
 *   of the same record; fractions of weights are carried, not dropped.
 * - A sample of weight 1 (every allocation is one) adds to the thread's own counts, without a lock
 *   prefix; one of more is rare, and adds to the common sums. Counts are whole numbers, and no more
 *   of them than needed: two are added to when a block comes, two or three when it goes, and who
 *   reads them makes all sums of them. They lie with others of their thread alone.
 * - Variance: a sample of weight w of a thing x adds w (w - 1) x^2, which is unbiased for
 *   x^2 (1 - p) / p; for objects and bytes, allocated, in use and taken. It is a double, added to
 * in a loop.
 */
#ifndef MEMKIT_PROF_SUMS_H
#define MEMKIT_PROF_SUMS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/internal.h"
#include "hook/counters.h"
#include "prof/site.h"
#include "prof/types.h"

#pragma GCC visibility push(hidden)

#define MEMKIT__OBJECT_BITS 20
#define MEMKIT__SPACE_BITS  6

/* After the sample types: samples taken and those of them that are freed, whole numbers. */
enum { MEMKIT__SAMPLES = MEMKIT__HEAP_TYPE_COUNT, MEMKIT__SAMPLES_FREED, MEMKIT__SUM_COUNT };

/* Variances are kept of the first six types. */
#define MEMKIT__VARIANCES 6

typedef struct {
    _Atomic uint64_t sum[MEMKIT__SUM_COUNT];
    _Atomic uint64_t variance[MEMKIT__VARIANCES]; /* the bits of doubles */
} memkit__sums;

#define MEMKIT__OWN_SUMS 16
#define MEMKIT__LIVES    (MEMKIT__LIFE_LONGER - MEMKIT__LIFE_1US + 1)

/* What one thread counted at one site of samples of weight 1. */
typedef struct {
    _Atomic uint64_t allocs, alloc_bytes, freed_bytes;
    _Atomic uint64_t lives[MEMKIT__LIVES]; /* blocks freed, by how long they lived */
    _Atomic uint64_t temporary, foreign, reallocs;
    /* Fixed-point, of INUSE_OBJECTS to TAKE_SPACE: beyond what the above come to. */
    _Atomic uint64_t beyond[4];
    memkit__site *site;
} memkit__own;

typedef struct {
    memkit__sums common;
    _Atomic(memkit__own *) own[MEMKIT__OWN_SUMS];
} memkit__site_sums;

/* What the thread of a block has for samples of weight 1. */
#define MEMKIT__KNOWN_BITS 8
typedef struct memkit__exact {
    _Atomic(struct memkit__slab *) slab;
    _Atomic(struct memkit__trails *) trails; /* its stacks, once it has allocated much: sampler.c */
    atomic_bool no_trails;                   /* there was no room */
    /* Its counts at sites that it was at lately, by a sum of their frames: sampler.c. */
    _Atomic(memkit__own *) known[1 << MEMKIT__KNOWN_BITS];
} memkit__exact;

/* The counts of that block's thread, made if need be, and b->exact with them; NULL: there are none
 * to be had. */
memkit__own *memkit__own_new(memkit__site *site, memkit__block *b);
static inline memkit__own *memkit__own_of(memkit__site *site, memkit__block *b)
{
    memkit__site_sums *all = site->sums;
    memkit__own *own = b->number < MEMKIT__OWN_SUMS
                           ? atomic_load_explicit(&all->own[b->number], memory_order_acquire)
                           : NULL;
    return MEMKIT_LIKELY(own != NULL) ? own : memkit__own_new(site, b);
}

/* Adds to a count: by its thread, or a handler that runs in it. */
static inline void memkit__own_add(_Atomic uint64_t *count, uint64_t by)
{
#if defined(__x86_64__) /* where a bump is one instruction, and a handler cannot come in between \
                         */
    memkit__bump(count, by);
#else
    atomic_fetch_add_explicit(count, by, memory_order_relaxed);
#endif
}

/* Sums of one site, read. */
typedef struct {
    uint64_t sum[MEMKIT__SUM_COUNT];
    double variance[MEMKIT__VARIANCES];
} memkit__sums_read;

void memkit__sums_get(const memkit__site *site, memkit__sums_read *out);

/* A sum as a whole number; below 0 there is only what is just being added. */
int64_t memkit__sums_value(const memkit__sums_read *r, unsigned type);

/* What a sample of that weight adds for one object, and for so many bytes. */
static inline uint64_t memkit__sums_objects(double weight)
{
    return (uint64_t)(weight * (1 << MEMKIT__OBJECT_BITS) + 0.5);
}

static inline uint64_t memkit__sums_bytes(double weight, uint64_t bytes)
{
    return weight == 1 ? bytes << MEMKIT__SPACE_BITS
                       : (uint64_t)(weight * (double)bytes * (1 << MEMKIT__SPACE_BITS) + 0.5);
}

/* Where the calling thread adds: to its own counts, or to the common sums. */
typedef struct {
    memkit__sums *common;
    memkit__own *own; /* NULL: it has none */
} memkit__adder;

memkit__adder memkit__sums_adder(memkit__site *site, double weight);

static inline memkit__adder memkit__sums_common(memkit__site *site)
{
    return (memkit__adder){&((memkit__site_sums *)site->sums)->common, NULL};
}

/* Adds fixed-point numbers; a negative one as its two's complement. Inside malloc, in a signal
 * handler. Of what is counted one by one (MEMKIT__INUSE_OBJECTS to MEMKIT__TAKE_SPACE are not) only
 * to the common sums. */
void memkit__sums_add(memkit__adder to, unsigned which, uint64_t by);
void memkit__sums_add_variance(memkit__adder to, unsigned which, double by);

#pragma GCC visibility pop

#endif
