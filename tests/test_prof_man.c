/* test_prof_man.c - the man pages: formatted without a warning, and complete. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prof/types.h"

static char text[1 << 20];

/* Runs a command in the source's directory and keeps what it prints. */
static int shell(const char *command)
{
    char whole[4096];
    const char *root = getenv("MEMKIT_ROOT");
    snprintf(whole, sizeof whole, "cd '%s' && (%s) 2>&1", root != NULL ? root : ".", command);
    FILE *f = popen(whole, "re"); // NOLINT
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    return pclose(f);
}

static void expect_in_text(const char *what)
{
    if (strstr(text, what) == NULL)
        fail_msg("nothing of %s", what);
}

static void pages_are_formatted_without_a_warning(void **state)
{
    (void)state;
    if (shell("command -v groff && test -e docs/man/memkit-prof.7") != 0)
        skip();
    assert_int_equal(
        shell("for page in docs/man/*.[1-9]; do groff -man -Tascii -ww -z $page; done"), 0);
    assert_string_equal(text, "");
    if (shell("command -v mandoc") != 0)
        return;
    assert_int_equal(shell("mandoc -T lint -W warning docs/man/*.[1-9]"), 0);
}

static void every_sample_type_is_explained(void **state)
{
    (void)state;
    assert_int_equal(shell("cat docs/man/memkit-prof.7"), 0);
#define EXPECT(name, type, ...) expect_in_text(type);
    MEMKIT__HEAP_TYPES(EXPECT)
}

static void every_variable_of_the_library_is_explained(void **state)
{
    (void)state;
    static char names[sizeof text];
    assert_int_equal(
        shell("grep -rhoE '\"MEMKIT_[A-Z_]+\"' src/prof src/hook | tr -d '\"' | sort -u"), 0);
    strcpy(names, text);
    int n = 0;
    assert_int_equal(shell("cat docs/man/memkit-prof.7"), 0);
    for (char *name = strtok(names, "\n"); name != NULL; name = strtok(NULL, "\n"), n++)
        expect_in_text(name);
    assert_in_range(n, 8, 100);
}

static void every_function_of_prof_h_is_explained(void **state)
{
    (void)state;
    static char names[sizeof text];
    assert_int_equal(shell("grep -oE 'memkit_prof_[a-z_]+\\(' include/memkit/prof.h | sort -u"), 0);
    strcpy(names, text);
    int n = 0;
    assert_int_equal(shell("cat docs/man/memkit_prof_start.3"), 0);
    for (char *name = strtok(names, "\n"); name != NULL; name = strtok(NULL, "\n"), n++)
        expect_in_text(name);
    assert_in_range(n, 10, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_formatted_without_a_warning),
        cmocka_unit_test(every_sample_type_is_explained),
        cmocka_unit_test(every_variable_of_the_library_is_explained),
        cmocka_unit_test(every_function_of_prof_h_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
