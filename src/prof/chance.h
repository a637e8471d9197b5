/* chance.h - when the next sample is due, and what it then stands for.
 *
 * Samples are the points of a Poisson process on the axis of bytes allocated: the distance between
 * two is exponential with the rate as its mean, and has no memory. So an allocation of s bytes is
 * sampled with probability p = 1 - exp(-s / rate), whatever was before, and stands for 1 / p.
 */
#ifndef MEMKIT_PROF_CHANCE_H
#define MEMKIT_PROF_CHANCE_H

#include <stdint.h>

#pragma GCC visibility push(hidden)

/* A distance in whole bytes, at least 1; *state is the generator's, any value. Rounded up, which
 * makes "at most s" exactly as probable as for the real number. */
uint64_t memkit__chance_gap(uint64_t *state, uint64_t rate);

/* 1 / (1 - exp(-bytes / rate)); bytes and rate at least 1. */
double memkit__chance_weight(uint64_t bytes, uint64_t rate);

/* A well mixed number made of any. */
uint64_t memkit__chance_mix(uint64_t seed);

/* ln(x) for 0 < x <= 1 and 1 - exp(-x) for x >= 0, without libm: both to 2 units in 10^15. */
double memkit__chance_ln(double x);
double memkit__chance_hit(double x);

#pragma GCC visibility pop

#endif
