/* control.h - of prof.c, for heap.c. */
#ifndef MEMKIT_PROF_CONTROL_H
#define MEMKIT_PROF_CONTROL_H

#include <stdint.h>

/* When sampling was first started, CLOCK_MONOTONIC; 0: never. */
uint64_t memkit__prof_started_ns(void) __attribute__((visibility("hidden")));

#endif
