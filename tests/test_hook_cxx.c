/* test_hook_cxx.c - C++ under the hook: operator new and delete over libstdc++, preloaded and
 * linked, and loaded late into a program in C. Over other mallocs: tools_mallocs.c.
 */
#include "test_hook.h"

static void every_operator_counts_once_and_does_as_ever(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    static result plain;
    plain = *RUN(false, NULL, in_build("tests/prog_hook_cxx"), "none");
    assert_ran(&plain, 0);
    const result *r = RUN(true, NULL, in_build("tests/prog_hook_cxx"), "hooked");
    assert_ran(r, 0);
    assert_string_equal(r->out, plain.out);
    assert_non_null(strstr(r->out, "aligned sized[]\n"));
    assert_string_equal(r->err, "");
    setenv("MEMKIT_TIMING", "1", 1);
    r = RUN(true, NULL, in_build("tests/prog_hook_cxx"), "hooked");
    unsetenv("MEMKIT_TIMING");
    assert_ran(r, 0);
    assert_string_equal(r->out, plain.out);
}

static void the_archive_counts_a_cxx_program(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(false, NULL, in_build("tests/prog_hook_cxx_linked"), "hooked"), 0);
}

/* Then there is no operator new behind ours: it is made of malloc, and must throw all the same. */
static void the_archive_counts_beside_a_static_libstdcxx(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(false, NULL, in_build("tests/prog_hook_cxx_static"), "hooked"), 0);
}

static void a_plugin_in_cxx_finds_its_own_operators(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    static const char *const plugins[] = {"tests/lib_cxx.so", "tests/lib_cxx_static.so"};
    for (int i = 0; i < 2; i++) {
        const char *plugin = in_build(plugins[i]);
        assert_ran(RUN(false, NULL, in_build("tests/prog_hook_plugin"), plugin, "unhooked"), 0);
        assert_ran(RUN(true, NULL, in_build("tests/prog_hook_plugin"), plugin), 0);
    }
}

int main(void)
{
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_counts_once_and_does_as_ever),
        cmocka_unit_test(the_archive_counts_a_cxx_program),
        cmocka_unit_test(the_archive_counts_beside_a_static_libstdcxx),
        cmocka_unit_test(a_plugin_in_cxx_finds_its_own_operators),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
