/* test_prof_sampling.c - sampled figures are unbiased, and the variance beside them is honest.
 *
 * The random numbers are seeded, so that a run is like the next; but for threads that have no block
 * of counters yet, whose tolerance is wide.
 */
#include "test_prof.h"

#include <math.h>
#include <stdlib.h>

#include "prof/chance.h"

#define RATE    16384
#define SEEDS   50
#define SAMPLES 500 /* a seed and size, about */

static const size_t sizes[] = {16, 48, 200, 1000, 5000, 16000, 60000, 1 << 20};
#define SIZES (sizeof sizes / sizeof sizes[0])

static __attribute__((noinline)) void *allocate(size_t n)
{
    void *volatile p = malloc(n);
    return p;
}

static uintptr_t caller;

static void start_at(size_t rate)
{
    uint64_t leaf;
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    caller = caller_of(allocate, &leaf);
    assert_int_equal(memkit_prof_set_rate(rate), 0);
}

/* How often a size is allocated, so that it gives about so many samples. */
static uint64_t count_for(size_t size)
{
    return (uint64_t)(SAMPLES * memkit__chance_weight(size, RATE)) + 1;
}

typedef struct {
    double objects, space, truth_objects, truth_space;
    unsigned within; /* of the seeds: no more than two standard errors off */
} estimate;

static estimate estimates[SIZES];

static void estimate_all(void)
{
    start_at(RATE);
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (unsigned k = 0; k < SIZES; k++) {
            memkit_prof_snap *before = memkit_prof_snapshot();
            assert_non_null(before);
            memkit__sampler_seed(seed * 1000 + k);
            uint64_t n = count_for(sizes[k]);
            for (uint64_t i = 0; i < n; i++)
                free(allocate(sizes[k]));
            figures f = figures_of(caller, before);
            memkit_prof_snap_free(before);
            double truth = (double)n * (double)sizes[k];
            double space = (double)f.v[MEMKIT__ALLOC_SPACE];
            estimate *e = &estimates[k];
            e->objects += (double)f.v[MEMKIT__ALLOC_OBJECTS];
            e->space += space;
            e->truth_objects += (double)n;
            e->truth_space += truth;
            e->within += fabs(space - truth) <= 2 * sqrt(f.variance[MEMKIT__ALLOC_SPACE]) + 0.5;
        }
    assert_int_equal(memkit_prof_stop(), 0);
}

/* 25,000 samples of a size: a standard error of 0.6 %. */
static bool agrees(double estimated, double truth)
{
    return fabs(estimated / truth - 1) < 0.015;
}

static void sampled_figures_are_unbiased(void **state)
{
    (void)state;
    NEEDS_HOOK();
    estimate_all();
    for (unsigned k = 0; k < SIZES; k++) {
        const estimate *e = &estimates[k];
        if (!agrees(e->space, e->truth_space) || !agrees(e->objects, e->truth_objects))
            fail_msg("%zu bytes: %.0f of %.0f bytes, %.0f of %.0f blocks", sizes[k], e->space,
                     e->truth_space, e->objects, e->truth_objects);
        /* A weight that is 3 % off would be seen. */
        assert_false(agrees(e->space * 1.03, e->truth_space));
        assert_false(agrees(e->space * 0.97, e->truth_space));
    }
}

/* The weight that others use, rate / size, would be noticed where sizes come near to the rate; so
 * would the right one for the size asked for, 16, when the chance is that of the usable size, 24.
 */
static void a_wrong_weight_would_be_noticed(void **state)
{
    (void)state;
    NEEDS_HOOK();
    for (unsigned k = 0; k < SIZES; k++) {
        double right = memkit__chance_weight(sizes[k] + 8, RATE); /* glibc's usable size */
        double simple = sizes[k] < RATE ? (double)RATE / (double)(sizes[k] + 8) : 1;
        double off = fabs(simple / right - 1);
        if (off > 0.03)
            assert_false(agrees(estimates[k].space * simple / right, estimates[k].truth_space));
    }
    assert_false(agrees(estimates[0].space * 24 / 16, estimates[0].truth_space));
}

static void two_standard_errors_hold_95_times_of_100(void **state)
{
    (void)state;
    NEEDS_HOOK();
    unsigned within = 0, all = 0;
    for (unsigned k = 0; k < SIZES; k++)
        if (sizes[k] < RATE) {
            within += estimates[k].within;
            all += SEEDS;
        }
    if (within < all * 92 / 100 || within > all * 985 / 1000)
        fail_msg("%u of %u", within, all);
}

static void inuse_is_what_is_not_freed_also_of_samples(void **state)
{
    (void)state;
    NEEDS_HOOK();
    start_at(RATE);
    memkit__sampler_seed(3);
    figures before = figures_of(caller, NULL);
    enum { N = 20000, SIZE = 1000 };
    static void *p[N];
    for (int i = 0; i < N; i++)
        p[i] = allocate(SIZE);
    figures full = figures_of(caller, NULL);
    for (int i = 0; i < N; i += 2)
        free(p[i]);
    figures half = figures_of(caller, NULL);
    for (int i = 1; i < N; i += 2)
        free(p[i]);
    figures end = figures_of(caller, NULL);
    assert_int_equal(memkit_prof_stop(), 0);
    double all = (double)(full.v[MEMKIT__INUSE_SPACE] - before.v[MEMKIT__INUSE_SPACE]);
    double rest = (double)(half.v[MEMKIT__INUSE_SPACE] - before.v[MEMKIT__INUSE_SPACE]);
    assert_true(fabs(all / (N * SIZE) - 1) < 0.1); /* 1,220 samples: 3.5 standard errors */
    assert_true(fabs(rest / all - 0.5) < 0.06);
    assert_true(full.variance[MEMKIT__INUSE_SPACE] > half.variance[MEMKIT__INUSE_SPACE] &&
                half.variance[MEMKIT__INUSE_SPACE] > 0);
    assert_int_equal(end.v[MEMKIT__INUSE_SPACE], before.v[MEMKIT__INUSE_SPACE]);
    assert_int_equal(end.v[MEMKIT__INUSE_OBJECTS], before.v[MEMKIT__INUSE_OBJECTS]);
}

static void *allocates_a_few(void *arg)
{
    for (int i = 0; i < 8; i++)
        free(allocate(1000));
    return arg;
}

static void threads_that_make_few_calls_are_sampled_alike(void **state)
{
    (void)state;
    NEEDS_HOOK();
    enum { N = 2500 };
    start_at(8192);
    figures before = figures_of(caller, NULL);
    for (int i = 0; i < N; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, allocates_a_few, NULL), 0);
        pthread_join(t, NULL);
    }
    figures after = figures_of(caller, NULL);
    assert_int_equal(memkit_prof_stop(), 0);
    double made = (double)(after.v[MEMKIT__ALLOC_OBJECTS] - before.v[MEMKIT__ALLOC_OBJECTS]);
    assert_true(fabs(made / (N * 8) - 1) < 0.1); /* 2,300 samples: 5 standard errors */
}

/* A change of the rate falls between two samples: neither those before nor those after are biased.
 */
static void a_rate_that_changes_all_the_time_is_unbiased(void **state)
{
    (void)state;
    NEEDS_HOOK();
    enum { ROUNDS = 3000, EACH = 100, SIZE = 1000 };
    static const size_t rates[] = {8192, 1, 65536, 300, 20000};
    start_at(8192);
    memkit__sampler_seed(11);
    memkit_prof_snap *before = memkit_prof_snapshot();
    assert_non_null(before);
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_int_equal(memkit_prof_set_rate(rates[i % 5]), 0);
        for (int k = 0; k < EACH; k++)
            free(allocate(SIZE));
    }
    figures after = figures_of(caller, before);
    memkit_prof_snap_free(before);
    assert_int_equal(memkit_prof_stop(), 0);
    double made = (double)after.v[MEMKIT__ALLOC_SPACE];
    double error = sqrt(after.variance[MEMKIT__ALLOC_SPACE]);
    double truth = (double)ROUNDS * EACH * SIZE;
    assert_true(fabs(made - truth) < 3 * error && error < truth * 0.02);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_figures_are_unbiased),
        cmocka_unit_test(a_wrong_weight_would_be_noticed),
        cmocka_unit_test(two_standard_errors_hold_95_times_of_100),
        cmocka_unit_test(inuse_is_what_is_not_freed_also_of_samples),
        cmocka_unit_test(threads_that_make_few_calls_are_sampled_alike),
        cmocka_unit_test(a_rate_that_changes_all_the_time_is_unbiased),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
