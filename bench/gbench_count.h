/* gbench_count.h - the allocations of a bench's timed iterations. Between gbench.cc and
 * gbench_count.c.
 *
 * A thread's way through a run: meet, on, (off, on)*, off, total, then all threads are past the
 * loop's end, then peak.
 */
#ifndef GBENCH_COUNT_H
#define GBENCH_COUNT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One thread's. */
typedef struct {
    uint64_t allocs; /* while on */
    uint64_t bytes;
    uint64_t allocs_at, bytes_at; /* this thread's counters when it was last switched on ... */
    uint64_t bytes_first;         /* ... and when it was first */
    bool begun;
    bool counted; /* malloc is counted, so that the others mean something */
} gbench__count;

/* Waits for all `threads` of this run; the last to come prepares the peak. Each thread comes once
 * in each run, also one that will not run the loop. */
void gbench__count_meet(int threads);

void gbench__count_on(gbench__count *c);
void gbench__count_off(gbench__count *c);

/* Hands in what this thread allocated in all since it was first on. */
void gbench__count_total(const gbench__count *c);

/* The most that was in use above what was at the meeting; -1: not known. */
int64_t gbench__count_peak(void);

#ifdef __cplusplus
}
#endif

#endif
