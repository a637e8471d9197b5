/* test_track.c - Valgrind and ASan see who uses a pool's or an arena's memory that is not his.
 *
 * Builds the core and prog_pool_misuse.c, which does not know of it, once with ASan and once for
 * Valgrind, whatever this program is built with, and runs it once for each misuse.
 */
#include "test_track.h"

static const char *root, *build, *cc;

/* The core with core_flags as well, the program without those. DWARF 4, as clang's 5 is more than
 * Valgrind 3.19 reads. */
static void compile(const char *name, const char *flags, const char *core_flags)
{
    char out[4000];
    if (run(out, sizeof out,
            "set -e; cd '%s'; dir='%s/tests/%s.tmp'; mkdir -p \"$dir\"; "
            "%s -std=gnu11 -gdwarf-4 %s -Iinclude -c -o \"$dir/prog.o\" tests/prog_pool_misuse.c; "
            "%s -std=gnu11 -gdwarf-4 %s %s -Iinclude -Isrc -o '%s/tests/%s' \"$dir/prog.o\" "
            "src/core/*.c -pthread 2>&1",
            root, build, name, cc, flags, cc, flags, core_flags, build, name) != 0)
        fail_msg("%s", out);
}

/* The names of the misuses, each ended by a 0. */
static size_t names_of(const char *program, char *names, size_t room)
{
    assert_int_equal(run(names, room, "'%s/tests/%s'", build, program), 0);
    size_t n = 0;
    for (char *p = names; *p != '\0'; p++)
        if (*p == '\n')
            *p = '\0', n++;
    assert_true(n > 20);
    return n;
}

static void asan_ends_every_misuse(void **state)
{
    (void)state;
    char names[2000], out[16000];
    compile("pool_misuse_asan", "-fsanitize=address", "");
    size_t n = names_of("pool_misuse_asan", names, sizeof names);
    for (const char *name = names; n-- > 0; name += strlen(name) + 1) {
        int code =
            run(out, sizeof out,
                "ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD= '%s/tests/pool_misuse_asan' %s 2>&1",
                build, name);
        /* What was not written is memcheck's affair. */
        bool allowed = strcmp(name, "fine") == 0 || strncmp(name, "judge", 5) == 0;
        if (allowed && code != 0)
            fail_msg("%s: exit code %d: %s", name, code, out);
        if (!allowed && (code == 0 || strstr(out, "ERROR: AddressSanitizer: ") == NULL ||
                         strstr(out, "prog_pool_misuse.c") == NULL))
            fail_msg("%s is not seen: exit code %d: %s", name, code, out);
    }
}

static void memcheck_sees_every_misuse(void **state)
{
    (void)state;
    char names[2000];
    static char out[400000];
    if (run(out, sizeof out,
            "valgrind --version && echo '#include <valgrind/memcheck.h>' | %s -E - "
            ">/dev/null",
            cc) != 0)
        skip(); /* make deps-ci brings it */
    compile("pool_misuse_memcheck", "", "-DMEMKIT_TRACK_VALGRIND");
    size_t n = names_of("pool_misuse_memcheck", names, sizeof names);
    int code =
        run(out, sizeof out,
            "valgrind -q --error-exitcode=9 '%s/tests/pool_misuse_memcheck' all 2>&1", build);
    assert_int_equal(code, 9);
    for (const char *name = names; n-- > 0; name += strlen(name) + 1) {
        char mark[sizeof names + 8];
        snprintf(mark, sizeof mark, "\n<%s>\n", name);
        char *from = strstr(out, mark), *to = from != NULL ? strstr(from + 2, "\n<") : NULL;
        assert_non_null(from);
        from = strndup(from, to != NULL ? (size_t)(to - from) : strlen(from));
        bool seen = strstr(from, "Invalid ") != NULL || strstr(from, "uninitialised") != NULL;
        if (seen != (strcmp(name, "fine") != 0) ||
            (seen && strstr(from, "prog_pool_misuse.c") == NULL))
            fail_msg("%s: %s: %s", name, seen ? "seen" : "not seen", from);
        free(from);
    }
}

/* What is above is misuse, not a word the program does not know: without a tool most of it runs to
 * its end, since the bytes are there. */
static void without_a_tool_nothing_is_hidden(void **state)
{
    (void)state;
    char out[1000];
    compile("pool_misuse_plain", "", "");
    const char *const harmless[] = {"fine",          "read-after-put",   "write-one-past-13",
                                    "read-free-end", "read-after-reset", "read-after-rewind"};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        assert_int_equal(run(out, sizeof out, "LD_PRELOAD= '%s/tests/pool_misuse_plain' %s 2>&1",
                             build, harmless[i]),
                         0);
}

static int prepare(void **state)
{
    (void)state;
    root = getenv("MEMKIT_ROOT");
    build = getenv("MEMKIT_BUILD");
    cc = getenv("CC");
    if (root != NULL && build != NULL && cc != NULL)
        return 0;
    fprintf(stderr, "run by `make test`: MEMKIT_ROOT, MEMKIT_BUILD and CC are not set\n");
    return -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asan_ends_every_misuse),
        cmocka_unit_test(memcheck_sees_every_misuse),
        cmocka_unit_test(without_a_tool_nothing_is_hidden),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
