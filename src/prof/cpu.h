/* cpu.h - the parts of the CPU profiler, to each other.
 *
 *     cpu.c          start, stop, fork; the signal and its handler
 *     cpu_threads.c  a timer for each thread, and the helper that looks for new ones
 *     cpu_profile.c  what was collected, as a profile
 */
#ifndef MEMKIT_PROF_CPU_H
#define MEMKIT_PROF_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "prof/site.h"

#pragma GCC visibility push(hidden)

/* The run now, or the last one. Each field is one atomic word: a profile may be written while
 * another thread starts or stops, and is then of no one moment. */
typedef struct {
    _Atomic int64_t period_ns;                       /* 0: there was no run in this process */
    _Atomic int64_t start_real_ns, start_ns, end_ns; /* end_ns 0: it runs */
    _Atomic int64_t start_cpu_ns, end_cpu_ns;        /* of the process */
    _Atomic int64_t helper_cpu_ns;                   /* of that, the helper's */
    _Atomic uint64_t dropped;                        /* weight that found no room in the table */
    _Atomic uint64_t threads;                        /* that had a timer */
    _Atomic uint64_t without_timer;                  /* most at a time that could have none */
    _Atomic bool taken_away; /* the program made SIGPROF its own while the run went on */
} memkit__cpu_run;

extern memkit__cpu_run memkit__cpu_last;

/* What a site of memkit__cpu_sites sums up: periods of processor time, which are samples times
 * their weight. Nanoseconds are these times the period, and so need no word of their own. */
typedef struct {
    _Atomic uint64_t periods;
} memkit__cpu_sums;

static inline memkit__cpu_sums *memkit__cpu_sums_of(const memkit__site *site)
{
    return site->sums;
}

/* The time of a clock, nanoseconds. */
int64_t memkit__cpu_clock(int clock);

/* True while SIGPROF comes to our handler. */
bool memkit__cpu_has_signal(void);

/* Gives each thread that there is a timer: SIGPROF for it after each period of processor time, with
 * this cookie as its value; and starts the helper. 0, or -1 with errno and there is no timer. */
int memkit__cpu_threads_begin(int64_t period_ns, int cookie);
/* Ends the helper and all timers: no SIGPROF is sent any more, but some may be pending. */
void memkit__cpu_threads_end(void);

/* Around fork: the table is whole in between; a child has no timers and no helper. */
void memkit__cpu_threads_hold(void);
void memkit__cpu_threads_let_go(bool in_child);

#pragma GCC visibility pop

#endif
