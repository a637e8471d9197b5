/* sums.h - what the heap profile adds up for each site.
 *
 *     site->sums --> [ common | own[0] own[1] ... ]     common: atomic adds, by anybody
 *                               |                        own[i]: by the thread of block i alone
 *                               v                        (counters.c), made when it first adds
 *                             sums
 *
 * - A sum is a fixed-point number, modulo 2^64: objects in units of 2^-20, bytes of 2^-6. What a
 *   block adds to inuse_* when it comes is taken off to the bit when it goes, since both are made
 *   of the same record; fractions of weights are carried, not dropped.
 * - A sample of weight 1 (every allocation is one) adds to the thread's own sums, without a lock
 *   prefix; one of more is rare, and adds to the common ones.
 * - Variance: a sample of weight w of a thing x adds w (w - 1) x^2, which is unbiased for
 *   x^2 (1 - p) / p; for objects and bytes, allocated, in use and taken. It is a double, added to in a
 * loop.
 */
#ifndef MEMKIT_PROF_SUMS_H
#define MEMKIT_PROF_SUMS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

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

typedef struct {
    memkit__sums common;
    _Atomic(memkit__sums *) own[MEMKIT__OWN_SUMS];
} memkit__site_sums;

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

/* Where the calling thread adds. */
typedef struct {
    memkit__sums *sums;
    bool alone;
} memkit__adder;

memkit__adder memkit__sums_adder(memkit__site *site, double weight);

/* Adds fixed-point numbers; a negative one as its two's complement. Inside malloc, in a signal
 * handler. */
void memkit__sums_add(memkit__adder to, unsigned which, uint64_t by);
void memkit__sums_add_variance(memkit__adder to, unsigned which, double by);

#pragma GCC visibility pop

#endif
