/* clock.h - ticks of a counter that all processors share, for how long blocks live. */
#ifndef MEMKIT_PROF_CLOCK_H
#define MEMKIT_PROF_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#pragma GCC visibility push(hidden)

/* False where the processor's counter does not go at one speed; then the kernel's coarse clock is
 * read, nanoseconds in steps of some milliseconds. */
extern bool memkit__clock_fine;

/* 1 us, 10 us ... 100 s in ticks. */
#define MEMKIT__LIFE_LIMITS 9
extern _Atomic uint64_t memkit__life_limits[MEMKIT__LIFE_LIMITS];

/* Finds out how fast the ticks go: the first time it takes 0.2 ms; later calls make it more exact,
 * from what has passed since. One caller at a time. */
void memkit__clock_calibrate(void);

static inline uint64_t memkit__clock_coarse(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t memkit__clock_ticks(void)
{
#if defined(__x86_64__)
    return memkit__clock_fine ? __rdtsc() : memkit__clock_coarse();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return memkit__clock_coarse();
#endif
}

/* Which of LIFE_1US ... LIFE_LONGER, from 0. */
static inline unsigned memkit__life_bucket(uint64_t born, uint64_t now)
{
    uint64_t ticks = now > born ? now - born : 0; /* processors differ by a few */
    unsigned i = 0;
    while (i < MEMKIT__LIFE_LIMITS &&
           ticks >= atomic_load_explicit(&memkit__life_limits[i], memory_order_relaxed))
        i++;
    return i;
}

#pragma GCC visibility pop

#endif
