/* prof_workload.h - the work that profilers are compared by. */
#ifndef BENCH_PROF_WORKLOAD_H
#define BENCH_PROF_WORKLOAD_H

#include <stdint.h>

#define WORKLOAD_STACKS 1900

typedef struct {
    double wall_ns, cpu_ns; /* a pair of malloc and free, in one thread */
    uint64_t checksum;      /* of what the blocks held: the same whatever malloc does */
} workload_result;

/* pairs in each of so many threads, after a tenth of that which is not timed. */
workload_result workload_run(unsigned threads, uint64_t pairs);

#endif
