/* tools_mallocs.c - the hook over jemalloc, mimalloc and tcmalloc: preloaded in front of them,
 * behind them, and over a program that is linked to them. Fails where one of them is not installed.
 */
#include "test_hook.h"

typedef struct {
    const char *name;
    const char *soname;
    const char *lax;   /* argument of prog_hook_mixture, for one that answers impossible sizes */
    const char *fails; /* argument of prog_hook_cxx, for one that ends the program when new fails */
} under;

static const under mallocs[] = {
    {"jemalloc", "libjemalloc.so.2", NULL, NULL},
    {"mimalloc", "libmimalloc.so.2", NULL, "nofail"},
    {"tcmalloc", "libtcmalloc_minimal.so.4", "lax", NULL},
};

#define MALLOCS (sizeof mallocs / sizeof mallocs[0])

static char hook[4096]; /* the library's path */

static const char *preloaded(const char *first, const char *second)
{
    static char list[8192];
    snprintf(list, sizeof list, "%s%s%s", first, second != NULL ? ":" : "",
             second != NULL ? second : "");
    return list;
}

/* Runs argv under these libraries, in this order. */
#define RUN_UNDER(first, second, ...)             \
    (preload_list = preloaded((first), (second)), \
     run((const char *const[]){__VA_ARGS__, NULL}, true, NULL))

static void need(const under *m)
{
    const result *r = RUN_UNDER(m->soname, NULL, "true");
    if (r->err[0] != '\0')
        fail_msg("%s is not installed: make deps-tools", m->soname);
}

static void in_front_of_each_it_counts_the_family_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < MALLOCS; i++) {
        need(&mallocs[i]);
        assert_ran(RUN_UNDER(hook, mallocs[i].soname, in_build("tests/prog_hook_family"), "other"),
                   0);
        assert_ran(RUN_UNDER(hook, mallocs[i].soname, in_build("tests/prog_hook_threads")), 0);
    }
}

static void in_front_of_each_it_counts_operators_once(void **state)
{
    (void)state;
    static result plain;
    char program[4096];
    snprintf(program, sizeof program, "%s", in_build("tests/prog_hook_cxx"));
    for (size_t i = 0; i < MALLOCS; i++) {
        const under *m = &mallocs[i];
        need(m);
        plain = *RUN_UNDER(m->soname, NULL, program, "none", m->fails);
        assert_ran(&plain, 0);
        const result *r = RUN_UNDER(hook, m->soname, program, "hooked", m->fails);
        assert_ran(r, 0);
        assert_string_equal(r->out, plain.out);
        setenv("MEMKIT_TIMING", "1", 1);
        r = RUN_UNDER(hook, m->soname, program, "hooked", m->fails);
        unsetenv("MEMKIT_TIMING");
        assert_ran(r, 0);
        assert_string_equal(r->out, plain.out);
    }
}

static void behind_each_it_says_that_it_hooks_nothing_and_harms_nothing(void **state)
{
    (void)state;
    char program[4096];
    snprintf(program, sizeof program, "%s", in_build("tests/prog_hook_cxx"));
    for (size_t i = 0; i < MALLOCS; i++) {
        const under *m = &mallocs[i];
        need(m);
        assert_ran(RUN_UNDER(m->soname, hook, program, "unhooked", m->fails), 0);
        assert_ran(RUN_UNDER(m->soname, hook, in_build("tests/prog_hook_mixture")), 0);
        preload_list = preloaded(m->soname, hook);
        const result *r = RUN(true, "1", "ls", "/");
        assert_ran(r, 0);
        assert_non_null(strstr(r->err, "malloc is not hooked"));
    }
}

/* reallocarray, valloc, pvalloc: what an allocator may lack, and libc then has. */
static void what_an_allocator_lacks_is_made_of_what_it_has(void **state)
{
    (void)state;
    for (size_t i = 0; i < MALLOCS; i++) {
        need(&mallocs[i]);
        assert_ran(RUN_UNDER(hook, mallocs[i].soname, in_build("tests/prog_hook_mixture"),
                             "pvalloc", mallocs[i].lax),
                   0);
    }
    assert_ran(RUN_UNDER(hook, NULL, in_build("tests/prog_hook_mixture"), "pvalloc"), 0);
}

/* Allocators' own names go around the hook: nothing breaks, and what malloc gave is counted. */
static void calls_that_go_around_it_do_no_harm(void **state)
{
    (void)state;
    static const char *const own[] = {"mallocx", "mi_malloc", "tc_malloc"};
    for (size_t i = 0; i < MALLOCS; i++) {
        need(&mallocs[i]);
        assert_ran(RUN_UNDER(hook, mallocs[i].soname, in_build("tests/prog_hook_around"), own[i]),
                   0);
    }
}

/* Compiled here, since the build needs none of them. */
static void a_program_linked_to_each_is_counted(void **state)
{
    (void)state;
    char exe[4096], object[4096];
    snprintf(exe, sizeof exe, "%s/linked", scratch);
    snprintf(object, sizeof object, "%s", in_build("tests/prog_hook_cxx.o"));
    for (size_t i = 0; i < MALLOCS; i++) {
        const under *m = &mallocs[i];
        need(m);
        char lib[100];
        snprintf(lib, sizeof lib, "-l:%s", m->soname);
        preload_list = NULL;
        const result *r = RUN(false, NULL, "g++", "-pthread", "-o", exe, object,
                              "-Wl,--no-as-needed", lib, "-ldl");
        assert_ran(r, 0);
        assert_ran(RUN(true, NULL, exe, "hooked", m->fails), 0); /* preloaded */
        r = RUN(false, NULL, "g++", "-pthread", "-o", exe, object, in_build("libmemkit-prof.a"),
                "-Wl,--export-dynamic-symbol=memkit_prof_attach", "-Wl,--no-as-needed", lib, "-lz",
                "-ldl"); /* the archive, before it */
        assert_ran(r, 0);
        assert_ran(RUN(false, NULL, exe, "hooked", m->fails), 0);
    }
}

int main(void)
{
    if (!prepare())
        return 2;
    snprintf(hook, sizeof hook, "%s", in_build("libmemkit-prof.so.0"));
    if (SANITIZED) {
        fprintf(stderr, "a sanitizer's malloc must be the first: build without SAN\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_front_of_each_it_counts_the_family_exactly),
        cmocka_unit_test(in_front_of_each_it_counts_operators_once),
        cmocka_unit_test(behind_each_it_says_that_it_hooks_nothing_and_harms_nothing),
        cmocka_unit_test(what_an_allocator_lacks_is_made_of_what_it_has),
        cmocka_unit_test(calls_that_go_around_it_do_no_harm),
        cmocka_unit_test(a_program_linked_to_each_is_counted),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
