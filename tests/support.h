/* support.h - what the tests share: cmocka's includes, the fault handler's catch, failing malloc.
 */
#ifndef MEMKIT_TESTS_SUPPORT_H
#define MEMKIT_TESTS_SUPPORT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memkit/memkit.h>

#include "sanitized.h"

/* ---- faults: caught, counted, and the last message kept ---- */

extern int faults;
extern char last_fault[256];
void catch_faults(void); /* from now on, with faults = 0 */

#define assert_faults(expression, part)            \
    do {                                           \
        int before_ = faults;                      \
        expression;                                \
        assert_int_equal(faults, before_ + 1);     \
        assert_non_null(strstr(last_fault, part)); \
    } while (0)

/* errno set by an expression that answers `want`. */
#define assert_errno(expression, want, code) \
    do {                                     \
        errno = 0;                           \
        assert_true((expression) == (want)); \
        assert_int_equal(errno, code);       \
    } while (0)

/* ---- malloc that fails (binaries linked with --wrap: see WRAPPED in the Makefile) ---- */

/* The nth allocation from now (1 = the next) fails, once or from then on; 0: none does. */
void fail_malloc(unsigned nth, bool from_then_on);
extern unsigned mallocs_seen; /* allocations by this binary's own objects since fail_malloc */
extern unsigned mallocs_failed;
extern unsigned frees_seen; /* by the same, since the start */
extern long blocks_out;     /* allocated minus freed since the start */
extern long bytes_out;      /* their usable bytes, and malloc's word before each */

/* Steps of a long test: fewer, but ten, where a tool makes each of them dear. Says how many. */
unsigned model_steps(unsigned wanted);

/* A fast deterministic generator (splitmix64), for model tests. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
