/* test_prof_drops.c - drop_frames and keep_frames, as pprof understands them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "prof/profile.h"

static bool drops(const char *drop, const char *keep, const char *name)
{
    memkit__profile p = {.drop_frames = drop, .keep_frames = keep};
    memkit__function f = {.name = name, .system_name = name};
    return memkit__profile_drops(&p, &f);
}

static void the_whole_name_must_match(void **state)
{
    (void)state;
    assert_true(drops("malloc|calloc", NULL, "malloc"));
    assert_true(drops("malloc|calloc", NULL, "calloc"));
    assert_false(drops("malloc|calloc", NULL, "xmalloc"));
    assert_false(drops("malloc|calloc", NULL, "malloc_trim"));
    assert_true(drops("memkit__.*|operator new.*", NULL, "memkit__sample"));
    assert_false(drops("memkit__.*", NULL, "memkit_pool_get"));
}

static void parameters_of_a_cxx_name_do_not_count(void **state)
{
    (void)state;
    assert_true(drops("operator new", NULL, "operator new(unsigned long)"));
    assert_true(drops("operator new(\\[\\])?", NULL, "operator new[](unsigned long)"));
    assert_false(drops("operator new", NULL, "operator new[](unsigned long)"));
    /* These two parentheses are part of a name. */
    assert_true(drops("\\(anonymous namespace\\)::f", NULL, "(anonymous namespace)::f(int)"));
    assert_true(drops("A::operator\\(\\)", NULL, "A::operator()(int) const"));
    assert_false(drops("A::operator", NULL, "A::operator()(int) const"));
    assert_true(drops("f", NULL, ".f"));
}

static void keep_overrules_drop(void **state)
{
    (void)state;
    assert_true(drops("je_.*", "je_main", "je_malloc"));
    assert_false(drops("je_.*", "je_main", "je_main"));
    assert_false(drops(NULL, "je_main", "je_main"));
}

static void nothing_and_nonsense_drop_nothing(void **state)
{
    (void)state;
    assert_false(drops(NULL, NULL, "malloc"));
    assert_false(drops("", NULL, "malloc"));
    assert_false(drops("", NULL, ""));
    assert_false(drops(".*", NULL, ""));
    assert_false(drops("(malloc", NULL, "malloc"));
    static char deep[100000];
    for (size_t i = 0; i < sizeof deep - 1; i++)
        deep[i] = 'x';
    assert_false(drops("malloc", NULL, deep));
    assert_true(drops("x*", NULL, deep));
}

static void *many(void *arg)
{
    const char *drop = arg;
    long wrong = 0;
    for (int i = 0; i < 2000; i++)
        wrong += !drops(drop, NULL, drop) + drops(drop, NULL, "other");
    return (void *)wrong; // NOLINT
}

static void threads_with_different_rules_do_not_disturb_each_other(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "bb", "ccc", "dddd", "eeeee", "a"};
    pthread_t t[6];
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&t[i], NULL, many, (void *)(uintptr_t)names[i]), 0);
    for (int i = 0; i < 6; i++) {
        void *wrong;
        assert_int_equal(pthread_join(t[i], &wrong), 0);
        assert_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_name_must_match),
        cmocka_unit_test(parameters_of_a_cxx_name_do_not_count),
        cmocka_unit_test(keep_overrules_drop),
        cmocka_unit_test(nothing_and_nonsense_drop_nothing),
        cmocka_unit_test(threads_with_different_rules_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
