/* test_prof.h - what the tests of the heap profiler share: its figures for one caller of malloc,
 * and running a check in a process of its own.
 */
#ifndef MEMKIT_TESTS_TEST_PROF_H
#define MEMKIT_TESTS_TEST_PROF_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <memkit/prof.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sanitized.h"
#include "support.h"

#include "prof/heap.h"
#include "prof/quiet.h"
#include "prof/sampler.h"
#include "prof/site.h"
#include "prof/sums.h"

#define TYPES MEMKIT__HEAP_TYPE_COUNT

/* Over a sanitizer's malloc nothing can be seen. */
#define NEEDS_HOOK()   \
    do {               \
        if (SANITIZED) \
            skip();    \
    } while (0)

typedef struct {
    int64_t v[TYPES];
    double variance[TYPES];
    unsigned stacks;
} figures;

/* Of all stacks that begin with that caller; 0: of all. */
static inline figures figures_of(uintptr_t caller, const memkit_prof_snap *since)
{
    figures f = {0};
    memkit__scratch s = {0};
    memkit__quiet_begin();
    memkit__profile *p = memkit__heap_profile(MEMKIT_PROF_HEAP, since, &s);
    for (uint32_t i = 0; p != NULL && i < p->n_samples; i++) {
        const memkit__sample *x = &p->samples[i];
        if (caller != 0 && (x->depth < 2 || memkit__frame_pc(x->frames[1]) != caller))
            continue;
        f.stacks++;
        for (unsigned t = 0; t < TYPES; t++) {
            f.v[t] += x->values[t];
            f.variance[t] += x->variance != NULL ? x->variance[t] : 0;
        }
    }
    memkit__scratch_free(&s);
    memkit__quiet_end();
    return f;
}

/* The caller of the one allocation that fn makes, sampling every allocation; it frees the block. */
static inline uintptr_t caller_of(void *(*fn)(size_t), uint64_t *leaf)
{
    uint64_t before[512];
    uint32_t n = memkit__site_count(&memkit__heap_sites);
    memkit__sums_read r;
    for (uint32_t i = 0; i < n && i < 512; i++) {
        memkit__sums_get(memkit__site_at(&memkit__heap_sites, i), &r);
        before[i] = r.sum[MEMKIT__SAMPLES];
    }
    free(fn(64));
    for (uint32_t i = memkit__site_count(&memkit__heap_sites); i-- > 0;) {
        const memkit__site *site = memkit__site_at(&memkit__heap_sites, i);
        memkit__sums_get(site, &r);
        if (i >= n || (i < 512 && r.sum[MEMKIT__SAMPLES] > before[i])) {
            *leaf = site->frames[0];
            return memkit__frame_pc(site->frames[1]);
        }
    }
    fail_msg("no site was added to");
    return 0;
}

/* Runs fn in a child, where memkit_prof_start was never called unless it was here; fn returns NULL,
 * or what went wrong. */
static inline void in_a_child(const char *(*fn)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        const char *wrong = fn();
        if (wrong != NULL)
            fprintf(stderr, "%s\n", wrong);
        _exit(wrong == NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

/* In such a function. */
#define MUST(is_true)                                              \
    do {                                                           \
        if (!(is_true))                                            \
            return __FILE__ ":" STRINGIFY(__LINE__) ": " #is_true; \
    } while (0)

#endif
