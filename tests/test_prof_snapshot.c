/* test_prof_snapshot.c - the profile as data: what since means, types, comments, period, variance.
 */
#include "test_prof.h"

#include <stdlib.h>
#include <time.h>

static __attribute__((noinline)) void *allocate(size_t n)
{
    void *volatile p = malloc(n);
    return p;
}

static __attribute__((noinline)) void *allocate_later(size_t n)
{
    void *volatile p = malloc(n);
    return p;
}

static void a_delta_has_what_was_added_and_inuse_as_it_is(void **state)
{
    (void)state;
    NEEDS_HOOK();
    uint64_t leaf;
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    uintptr_t caller = caller_of(allocate, &leaf);
    void *p[10];
    for (int i = 0; i < 10; i++)
        p[i] = allocate(100);
    free(p[0]);
    memkit_prof_snap *snap = memkit_prof_snapshot();
    assert_non_null(snap);
    figures none = figures_of(caller, snap);
    assert_int_equal(none.v[MEMKIT__ALLOC_OBJECTS], 0);
    assert_int_equal(none.v[MEMKIT__FREED_OBJECTS], 0);
    assert_int_equal(none.v[MEMKIT__INUSE_SPACE], 900);
    p[0] = allocate(1000);
    free(p[1]);
    figures f = figures_of(caller, snap);
    assert_int_equal(f.v[MEMKIT__ALLOC_OBJECTS], 1);
    assert_int_equal(f.v[MEMKIT__ALLOC_SPACE], 1000);
    assert_int_equal(f.v[MEMKIT__FREED_OBJECTS], 1);
    assert_int_equal(f.v[MEMKIT__INUSE_OBJECTS], 9);
    assert_int_equal(f.v[MEMKIT__INUSE_SPACE], 1800);
    /* A site that is new since counts whole. */
    uintptr_t later = caller_of(allocate_later, &leaf);
    void *q = allocate_later(50);
    f = figures_of(later, snap);
    assert_int_equal(f.v[MEMKIT__ALLOC_OBJECTS], 2);
    assert_int_equal(f.v[MEMKIT__INUSE_SPACE], 50);
    memkit_prof_snap_free(snap);
    free(q);
    for (int i = 0; i < 10; i++)
        if (i != 1)
            free(p[i]);
    f = figures_of(caller, NULL);
    assert_int_equal(f.v[MEMKIT__INUSE_SPACE], 0);
    assert_int_equal(f.v[MEMKIT__ALLOC_OBJECTS], 12);
    assert_int_equal(memkit_prof_stop(), 0);
}

static void stacks_of_which_there_is_nothing_to_tell_are_left_out(void **state)
{
    (void)state;
    NEEDS_HOOK();
    uint64_t leaf;
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    uintptr_t caller = caller_of(allocate, &leaf);
    memkit_prof_snap *snap = memkit_prof_snapshot();
    assert_int_equal(figures_of(caller, snap).stacks, 0);
    free(allocate(1));
    assert_int_equal(figures_of(caller, snap).stacks, 1);
    memkit_prof_snap_free(snap);
    assert_int_equal(memkit_prof_stop(), 0);
}

static bool commented(const memkit__profile *p, const char *text)
{
    for (uint32_t i = 0; i < p->n_comments; i++)
        if (strstr(p->comments[i], text) != NULL)
            return true;
    return false;
}

static void a_profile_says_what_it_is(void **state)
{
    (void)state;
    NEEDS_HOOK();
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 12345}), 0);
    memkit_prof_snap *snap = memkit_prof_snapshot();
    usleep(20000);
    memkit__scratch s = {0};
    memkit__profile *p = memkit__heap_profile(MEMKIT_PROF_HEAP, NULL, &s);
    memkit__profile *a = memkit__heap_profile(MEMKIT_PROF_ALLOCS, snap, &s);
    assert_non_null(p);
    assert_non_null(a);
    assert_int_equal(p->n_types, TYPES);
    static const char *const first[] = {"alloc_objects", "alloc_space", "inuse_objects",
                                        "inuse_space"};
    for (unsigned i = 0; i < 4; i++)
        assert_string_equal(p->types[i].type, first[i]);
    assert_string_equal(p->types[p->default_type].type, "inuse_space");
    assert_string_equal(a->types[a->default_type].type, "alloc_space");
    assert_string_equal(p->period_type.type, "space");
    assert_string_equal(p->period_type.unit, "bytes");
    assert_int_equal(p->period, 12345);
    assert_true(llabs(p->time_ns / 1000000000 - (int64_t)time(NULL)) <= 2);
    assert_true(a->duration_ns >= 20000000 && a->duration_ns <= p->duration_ns);
    assert_true(commented(p, "one sample in 12345 bytes"));
    assert_true(commented(p, "memkit " MEMKIT_VERSION));
    assert_true(commented(p, "samples dropped for want of room: 0"));
    char own[64];
    memkit_prof_stats_t st;
    memkit_prof_stats(&st);
    snprintf(own, sizeof own, "own memory: %llu bytes", (unsigned long long)st.own_bytes);
    assert_true(commented(p, own));
    assert_false(commented(p, "at the end"));
    assert_true(commented(a, "inuse_* are values at the end"));
    memkit__scratch_free(&s);
    memkit_prof_snap_free(snap);
    assert_int_equal(memkit_prof_stop(), 0);
}

static void lifetimes_are_those_of_the_clock(void **state)
{
    (void)state;
    NEEDS_HOOK();
    uint64_t leaf;
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    uintptr_t caller = caller_of(allocate, &leaf);
    memkit_prof_snap *snap = memkit_prof_snapshot();
    void *p = allocate(1);
    usleep(20000);
    free(p);
    figures f = figures_of(caller, snap);
    /* At least 20 ms; a machine that is busy makes it more. */
    int64_t longer = 0;
    for (unsigned t = MEMKIT__LIFE_100MS; t <= MEMKIT__LIFE_LONGER; t++)
        longer += f.v[t];
    assert_int_equal(longer, 1);
    assert_int_equal(f.v[MEMKIT__FREED_OBJECTS], 1);
    memkit_prof_snap_free(snap);
    assert_int_equal(memkit_prof_stop(), 0);
}

static void writing_is_the_profilers_own_and_the_buffers_growth_the_callers(void **state)
{
    (void)state;
    NEEDS_HOOK();
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    memkit_buf *out = memkit_buf_new(1 << 20);
    assert_non_null(out);
    memkit_thread_allocs_t before, after;
    memkit_thread_allocs(&before);
    figures f = figures_of(0, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(memkit_prof_write(out, MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF, NULL), 0);
    figures g = figures_of(0, NULL);
    memkit_thread_allocs(&after);
    assert_memory_equal(f.v, g.v, sizeof f.v);
    assert_int_equal(after.mallocs, before.mallocs);
    assert_true(out->len > 0);
    memkit_buf_free(out);
    assert_int_equal(memkit_prof_stop(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delta_has_what_was_added_and_inuse_as_it_is),
        cmocka_unit_test(stacks_of_which_there_is_nothing_to_tell_are_left_out),
        cmocka_unit_test(a_profile_says_what_it_is),
        cmocka_unit_test(lifetimes_are_those_of_the_clock),
        cmocka_unit_test(writing_is_the_profilers_own_and_the_buffers_growth_the_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
