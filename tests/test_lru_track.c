/* test_lru_track.c - Valgrind and ASan see who reads what he does not hold any more.
 *
 * Builds prog_lru_misuse.c and the cache, once with ASan and once for Valgrind, whatever
 * this program is built with, and runs it once for each misuse.
 */
#include <unistd.h>

#include "test_track.h"

static const char *const misuses[] = {"released",     "deleted", "evicted",   "told",   "past-end",
                                      "past-end-ttl", "large",   "large-end", "cleared"};
enum { MISUSES = sizeof misuses / sizeof misuses[0] };

static const char *root, *build, *cc;
static char archive[512]; /* the library at hand */
/* Compiled whole: of what clang writes into the library, valgrind 3.19 cannot read the DWARF 5. */
static const char core[] = "src/core/*.c";

static void compile(const char *name, const char *flags, const char *sources)
{
    char out[4000];
    if (run(out, sizeof out,
            "cd '%s' && %s -std=gnu11 -gdwarf-4 %s -Iinclude -Isrc -o '%s/tests/%s' "
            "tests/prog_lru_misuse.c %s -pthread 2>&1",
            root, cc, flags, build, name, sources) != 0)
        fail_msg("%s", out);
}

static void bites(const char *under, const char *name, const char *says)
{
    char out[16000];
    int code = run(out, sizeof out, "%s '%s/tests/%s' fine 2>&1", under, build, name);
    if (code != 0)
        fail_msg("%s of what is allowed: exit code %d: %s", name, code, out);
    for (int i = 0; i < MISUSES; i++) {
        code = run(out, sizeof out, "%s '%s/tests/%s' %s 2>&1", under, build, name, misuses[i]);
        if (code == 0 || strstr(out, says) == NULL || strstr(out, "prog_lru_misuse.c") == NULL)
            fail_msg("%s: %s is not seen: exit code %d: %s", name, misuses[i], code, out);
    }
}

static void asan_sees_every_misuse(void **state)
{
    (void)state;
    compile("lru_misuse_asan", "-fsanitize=address", core);
    bites("ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=", "lru_misuse_asan",
          "ERROR: AddressSanitizer: ");
}

static void memcheck_sees_every_misuse(void **state)
{
    (void)state;
    char out[200];
    if (run(out, sizeof out,
            "valgrind --version && echo '#include <valgrind/memcheck.h>' | %s -E - "
            ">/dev/null",
            cc) != 0)
        skip(); /* make deps-ci brings it */
    compile("lru_misuse_memcheck", "-DMEMKIT_TRACK_VALGRIND", core);
    bites("valgrind -q --error-exitcode=9", "lru_misuse_memcheck", "Invalid read");
}

/* What is above is misuse, not a word the program does not know: without a tool each runs to its
 * end, since the bytes are there. */
static void without_a_tool_nothing_is_hidden(void **state)
{
    (void)state;
    char out[1000];
    if (SANITIZED)
        skip(); /* the library at hand needs the tool */
    compile("lru_misuse_plain", "", archive);
    for (int i = 0; i < MISUSES; i++)
        assert_int_equal(
            run(out, sizeof out, "'%s/tests/lru_misuse_plain' %s 2>&1", build, misuses[i]), 0);
}

static int prepare(void **state)
{
    (void)state;
    root = getenv("MEMKIT_ROOT");
    build = getenv("MEMKIT_BUILD");
    cc = getenv("CC");
    if (root != NULL && build != NULL && cc != NULL) {
        snprintf(archive, sizeof archive, "'%s/libmemkit.a'", build);
        return 0;
    }
    fprintf(stderr, "run by `make test`: MEMKIT_ROOT, MEMKIT_BUILD and CC are not set\n");
    return -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asan_sees_every_misuse),
        cmocka_unit_test(memcheck_sees_every_misuse),
        cmocka_unit_test(without_a_tool_nothing_is_hidden),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
