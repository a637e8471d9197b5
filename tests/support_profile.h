/* support_profile.h - profiles made up for the tests of the writers. */
#ifndef MEMKIT_TESTS_SUPPORT_PROFILE_H
#define MEMKIT_TESTS_SUPPORT_PROFILE_H

#include "prof/profile.h"
#include "prof/types.h"

/* A small heap profile whose every figure is written down in support_profile.c: names that need
 * escaping, a frame without a name, one that is dropped, two samples of one stack, threads, a
 * profile's own row. */
enum { SMALL_SAMPLES = 6 };
memkit__profile *small_profile(memkit__scratch *s);

/* A heap profile as of a service: `stacks` distinct ones, 10 to 30 deep, that share their outer
 * frames; some 500 functions of eight modules; sampled at 512 KiB. The same for the same seed. */
memkit__profile *service_profile(memkit__scratch *s, uint32_t stacks, uint64_t seed);

/* A CPU profile of a few samples. */
memkit__profile *cpu_profile(memkit__scratch *s);

int64_t profile_total(const memkit__profile *p, uint32_t type);

#endif
