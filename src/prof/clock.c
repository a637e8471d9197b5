/* clock.c - how fast the ticks of clock.h go. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define FIRST_WAIT_NS 200000

bool memkit__clock_fine;
_Atomic uint64_t memkit__life_limits[MEMKIT__LIFE_LIMITS];

typedef struct {
    uint64_t ticks, ns;
} moment;

/* Both clocks at one moment: of some readings the one that took the least time. */
static moment read_both(void)
{
    moment best = {0, 0};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct timespec t;
        uint64_t before = memkit__clock_ticks();
        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t took = memkit__clock_ticks() - before;
        if (took < least) {
            least = took;
            best.ticks = before + took / 2;
            best.ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        }
    }
    return best;
}

static void set_limits(double ticks_per_ns)
{
    double ns = 1000;
    for (unsigned i = 0; i < MEMKIT__LIFE_LIMITS; i++, ns *= 10)
        atomic_store(&memkit__life_limits[i], (uint64_t)(ns * ticks_per_ns + 0.5));
}

#if defined(__x86_64__)
static bool steady_tsc(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007u, &a, &b, &c, &d) != 0 && (d >> 8 & 1) != 0;
}
#endif

void memkit__clock_calibrate(void)
{
#if defined(__x86_64__)
    static moment first;
    if (first.ns == 0) {
        memkit__clock_fine = steady_tsc();
        if (memkit__clock_fine) {
            first = read_both();
            struct timespec wait = {0, FIRST_WAIT_NS};
            clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, NULL);
        } else {
            first.ns = 1;
            set_limits(1);
        }
    }
    if (!memkit__clock_fine)
        return;
    moment now = read_both();
    if (now.ns > first.ns && now.ticks > first.ticks)
        set_limits((double)(now.ticks - first.ticks) / (double)(now.ns - first.ns));
#elif defined(__aarch64__)
    uint64_t hz;
    (void)read_both;
    __asm__("mrs %0, cntfrq_el0" : "=r"(hz));
    set_limits((double)hz / 1e9);
#else
    (void)read_both;
    set_limits(1);
#endif
}
