/* test_gbench.c - the benches' wrapper, by benches of which every figure is known (prog_gbench.c):
 * what is counted, what the console, JSON and CSV say of it, what is refused.
 *
 * No time is looked at. Environment: MEMKIT_BUILD, the build's directory; MEMKIT_ROOT, the
 * sources'; CC; MEMKIT_GBENCH, "y" where google-benchmark was there when it was made.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char out[1 << 18], err[1 << 16]; /* of the program run last */
static char scratch[] = "/tmp/memkit-gbench-XXXXXX";

static void slurp(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    size_t n = 0;
    ssize_t got;
    while (n < room - 1 && (got = read(fd, text + n, room - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(fd);
}

static const char *in_scratch(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

/* Runs a command of the shell, in which $P is the counted program and $U the other one. */
static int sh(const char *command)
{
    char line[8192];
    snprintf(line, sizeof line,
             "P='%s/tests/prog_gbench-counted --benchmark_min_time=0.001' "
             "U='%s/tests/prog_gbench-uncounted --benchmark_min_time=0.001' D='%s'; "
             "(%s) >%s/out 2>%s/err",
             getenv("MEMKIT_BUILD"), getenv("MEMKIT_BUILD"), scratch, command, scratch, scratch);
    int status = system(line);
    slurp(in_scratch("out"), out, sizeof out);
    slurp(in_scratch("err"), err, sizeof err);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void need_gbench(void)
{
    const char *have = getenv("MEMKIT_GBENCH");
    if (have == NULL || *have == '\0')
        skip(); /* google-benchmark is not installed (make deps-bench) */
}

static void need_counts(void)
{
    need_gbench();
    if (SANITIZED)
        skip(); /* a sanitizer has a malloc of its own: nothing is counted */
}

/* ---- the console's lines ---- */

/* The words of the line that begins with `name`. */
static int words(const char *name, char word[16][64])
{
    const char *line = out;
    size_t n = strlen(name);
    while (line != NULL && (strncmp(line, name, n) != 0 || line[n] != ' ')) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    if (line == NULL)
        fail_msg("no line of %s in:\n%s", name, out);
    int count = 0, used;
    for (; count < 16 && sscanf(line, "%*[ ]%n", &used) != EOF; count++) {
        line += strspn(line, " ");
        if (*line == '\n' || sscanf(line, "%63[^ \n]%n", word[count], &used) != 1)
            break;
        line += used;
    }
    return count;
}

/* name, time, unit, CPU, unit, iterations, then our three. */
enum { ALLOCS = 6, BYTES, PEAK, REST };

static void assert_figures(const char *name, const char *allocs, const char *bytes)
{
    char word[16][64];
    assert_in_range(words(name, word), REST, 16);
    assert_string_equal(word[ALLOCS], allocs);
    assert_string_equal(word[BYTES], bytes);
}

/* ---- JSON: strict, and searched ---- */

static const char *json_value(const char *p);

static const char *blank(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

static const char *json_string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < ' ')
            return NULL;
        if (*p == '\\' && (*++p == '\0' || strchr("\"\\/bfnrtu", *p) == NULL))
            return NULL;
    }
    return p + 1;
}

static const char *json_number(const char *p)
{
    p += *p == '-';
    if (!isdigit((unsigned char)*p))
        return NULL; /* NaN and Infinity too */
    p += strspn(p, "0123456789");
    if (*p == '.')
        p += 1 + strspn(p + 1, "0123456789");
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        p += strspn(p, "0123456789");
    }
    return isdigit((unsigned char)p[-1]) ? p : NULL;
}

/* An object or an array: members up to `end`. */
static const char *json_members(const char *p, char end)
{
    p = blank(p + 1);
    if (*p == end)
        return p + 1;
    for (;;) {
        if (end == '}') {
            p = json_string(p);
            p = p != NULL ? blank(p) : NULL;
            if (p == NULL || *p != ':')
                return NULL;
            p++;
        }
        p = json_value(blank(p));
        if (p == NULL)
            return NULL;
        p = blank(p);
        if (*p == end)
            return p + 1;
        if (*p != ',')
            return NULL;
        p = blank(p + 1);
    }
}

/* Behind the value, or NULL. */
static const char *json_value(const char *p)
{
    if (*p == '{' || *p == '[')
        return json_members(p, *p == '{' ? '}' : ']');
    if (*p == '"')
        return json_string(p);
    for (const char *const *word = (const char *const[]){"true", "false", "null", NULL};
         *word != NULL; word++)
        if (strncmp(p, *word, strlen(*word)) == 0)
            return p + strlen(*word);
    return json_number(p);
}

static void assert_json(const char *text)
{
    const char *end = json_value(blank(text));
    if (end == NULL || *blank(end) != '\0')
        fail_msg("not JSON:\n%s", text);
}

/* A number of the run called `name`; -1: it has none of that key. */
static double json_of(const char *text, const char *name, const char *key)
{
    char want[256];
    snprintf(want, sizeof want, "\"name\": \"%s\",", name);
    const char *from = strstr(text, want);
    if (from == NULL)
        fail_msg("no %s in:\n%s", name, text);
    const char *to = strchr(from, '}');
    snprintf(want, sizeof want, "\"%s\": ", key);
    const char *at = strstr(from, want);
    return at != NULL && at < to ? strtod(at + strlen(want), NULL) : -1;
}

/* ---- what is counted ---- */

static void what_is_timed_is_counted_exactly(void **state)
{
    (void)state;
    need_counts();
    assert_int_equal(sh("$P --benchmark_filter=count/"), 0);
    assert_figures("count/none", "0", "0");
    assert_figures("count/around", "1", "24");
    assert_figures("count/left_paused", "1", "24");
    for (const char *const *name =
             (const char *const[]){"count/three/10", "count/three/1000", NULL};
         *name != NULL; name++) {
        char word[16][64], usable[80];
        assert_int_equal(words(*name, word), REST + 1);
        assert_string_equal(word[ALLOCS], "3");
        snprintf(usable, sizeof usable, "usable=%s", word[BYTES]); /* "6008" is "usable=6008" */
        assert_string_equal(word[REST], usable);
    }
}

static void threads_are_summed(void **state)
{
    (void)state;
    need_counts();
    assert_int_equal(sh("$P --benchmark_filter=count/threads --benchmark_repetitions=5"), 0);
    assert_figures("count/threads/threads:2", "3", "120");
    assert_non_null(strstr(out, "threads_seen=2"));
}

static void the_peak_is_the_benchs_own(void **state)
{
    (void)state;
    need_counts();
    assert_int_equal(sh("$P --benchmark_filter=count/ --benchmark_repetitions=3 "
                        "--benchmark_enable_random_interleaving=true --benchmark_format=json"),
                     0);
    double held = 8 * ((1 << 20) - 64), peak = json_of(out, "count/holds", "peak_bytes");
    assert_true(peak >= held && peak <= held + 8 * 16 + 65536);
    assert_true(json_of(out, "count/none", "peak_bytes") == 0);
    double small = json_of(out, "count/three/1000", "peak_bytes");
    assert_true(small >= 6000 && small <= 6008 + 65536);
}

static void json_has_the_figures_under_their_names(void **state)
{
    (void)state;
    need_counts();
    assert_int_equal(sh("$P --benchmark_filter='count|figures' --benchmark_repetitions=2 "
                        "--benchmark_format=json --benchmark_out=$D/file.json"),
                     0);
    static char file[1 << 18];
    slurp(in_scratch("file.json"), file, sizeof file);
    assert_json(out); /* the variation of a 0, which is not a number, is left out */
    assert_json(file);
    assert_non_null(strstr(out, "\"malloc_counted\": \"yes\""));
    for (const char *const *text = (const char *const[]){out, file, NULL}; *text != NULL; text++) {
        assert_true(json_of(*text, "count/none", "allocs_per_op") == 0);
        assert_true(json_of(*text, "count/none", "bytes_per_op") == 0);
        assert_true(json_of(*text, "count/three/10", "allocs_per_op") == 3);
        assert_true(json_of(*text, "count/three/10", "bytes_per_op") ==
                    json_of(*text, "count/three/10", "usable"));
        assert_true(json_of(*text, "count/three/10_median", "allocs_per_op") == 3);
        assert_true(json_of(*text, "count/threads/threads:2", "allocs_per_op") == 3);
    }
}

static void csv_has_them_too(void **state)
{
    (void)state;
    need_counts();
    assert_int_equal(sh("$P --benchmark_filter='count/(none|around)' --benchmark_format=csv"), 0);
    assert_non_null(strstr(out, "\"allocs_per_op\",\"bytes_per_op\",\"peak_bytes\""));
    const char *around = strstr(out, "\"count/around\"");
    assert_non_null(around);
    assert_non_null(strstr(around, ",1,24,"));
}

/* ---- where nothing is counted ---- */

static void what_is_not_counted_is_not_called_zero(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$U --benchmark_filter=count/"), 0);
    assert_figures("count/none", "n/a", "n/a");
    assert_figures("count/three/10", "n/a", "n/a");
    assert_int_equal(sh("$U --benchmark_filter=count/ --benchmark_format=json"), 0);
    assert_json(out);
    assert_null(strstr(out, "allocs_per_op"));
    assert_null(strstr(out, "bytes_per_op"));
    assert_null(strstr(out, "peak_bytes"));
    assert_non_null(strstr(out, "\"malloc_counted\": \"no\""));
}

static void a_bench_may_say_that_it_is_not_counted(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter=^uncounted"), 0);
    assert_figures("uncounted", "n/a", "n/a");
}

/* ---- how it is shown ---- */

static void figures_of_ones_own_are_shown(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter=figures"), 0);
    for (const char *const *part =
             (const char *const[]){"sum=7", "per_round=5", "context=17", "no_argument=0",
                                   " a label\n", "items_per_second=", "bytes_per_second=", NULL};
         *part != NULL; part++)
        assert_non_null(strstr(out, *part));
    assert_int_equal(sh("$P --benchmark_filter=figures --benchmark_counters_tabular=true"), 0);
    assert_null(strstr(out, "sum="));
    assert_non_null(strstr(out, " per_round "));
}

static void medians_are_in_the_order_of_registration(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter='count/(none|three)|unit' --gbench_medians "
                        "--benchmark_repetitions=3 --benchmark_enable_random_interleaving=true"),
                     0);
    const char *none = strstr(out, "\ncount/none "), *three = strstr(out, "\ncount/three/10 "),
               *thousand = strstr(out, "\ncount/three/1000 "), *unit = strstr(out, "\nunit/ms ");
    assert_true(none != NULL && none < three && three < thousand && thousand < unit);
    assert_null(strstr(none + 1, "\ncount/none "));
    assert_null(strstr(out, "_mean"));
}

static void those_that_are_compared_stand_side_by_side(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter='count/(none|three)'"), 0);
    const char *summary = strstr(out, "Side by side");
    assert_non_null(summary);
    assert_non_null(strstr(summary, "count/three/10 "));
    assert_non_null(strstr(summary, " none "));
    assert_non_null(strstr(summary, "a target in words"));
    assert_int_equal(sh("$P --benchmark_filter=count/three"), 0);
    assert_null(strstr(out, "Side by side")); /* the other one did not run */
}

static void instances_are_made_as_registered(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter=args/ --benchmark_list_tests=true"), 0);
    assert_string_equal(out,
                        "args/range/8\nargs/range/64\nargs/range/512\n"
                        "args/steps/1\nargs/steps/2\nargs/steps/3\n"
                        "args/two/x:1/y:2\n"
                        "args/threads/threads:1\nargs/threads/threads:2\nargs/threads/threads:4\n"
                        "args/real/real_time\n");
    assert_int_equal(sh("$P --benchmark_filter=args/"), 0);
}

/* ---- what is wrong ---- */

static void a_bench_that_fails_says_why_and_fails_the_program(void **state)
{
    static const char *const wrong[][2] = {
        {"skips_before", "answers differ"},
        {"skips_within", "the second of two answers"},
        {"one_thread", "thread 1 fails"},
        {"leaves_early", "GBENCH_LOOP was left before its end"},
        {"returns_early", "GBENCH_LOOP was left before its end"},
        {"never_loops", "no GBENCH_LOOP was run"},
        {"loops_twice", "more than one GBENCH_LOOP was run"},
    };
    (void)state;
    need_gbench();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int form = 0; form < 3; form++) {
            char command[256];
            snprintf(command, sizeof command, "$P --benchmark_filter='wrong/%s|count/none' %s",
                     wrong[i][0],
                     form == 0   ? ""
                     : form == 1 ? "--gbench_medians --benchmark_repetitions=2"
                                 : "--benchmark_format=json");
            assert_int_equal(sh(command), 1);
            assert_non_null(strstr(out, wrong[i][1]));
            assert_non_null(strstr(out, "count/none")); /* the others run */
        }
    assert_json(out);
}

static void a_wrong_command_line_is_refused(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --no_such_flag"), 2);
    assert_non_null(strstr(err, "--no_such_flag"));
    assert_int_equal(sh("$P --benchmark_repetitions=many"), 2);
    assert_int_equal(sh("$P --benchmark_format=xml"), 2);
    assert_non_null(strstr(err, "a flag has a value"));
    assert_int_equal(sh("$P a_word"), 2);
    assert_int_equal(sh("$P --help"), 0);
    assert_non_null(strstr(out, "--gbench_medians"));
}

static void a_filter_that_matches_nothing_is_an_error(void **state)
{
    (void)state;
    need_gbench();
    assert_int_equal(sh("$P --benchmark_filter=nothing_of_that_name"), 1);
    assert_int_equal(sh("$P --benchmark_filter='('"), 1);
    assert_int_equal(sh("$P --benchmark_filter=^unit"), 0);
    assert_null(strstr(out, "count/"));
}

/* ---- what the loop costs ---- */

static double instructions(const char *bench)
{
    char command[512];
    snprintf(
        command, sizeof command,
        "strip -g -o $D/bare ${P%% *} && " /* valgrind 3.19 stumbles over clang's DWARF */
        "valgrind --tool=callgrind --callgrind-out-file=/dev/null $D/bare --benchmark_filter=%s",
        bench);
    assert_int_equal(sh(command), 0);
    const char *total = strstr(err, "Collected : ");
    assert_non_null(total);
    return strtod(total + strlen("Collected : "), NULL);
}

/* A million iterations more, less what a million more of a loop written by hand takes. What runs
 * around them differs by some thousands of instructions from one run to the next. */
static void the_loop_costs_what_one_by_hand_costs(void **state)
{
    (void)state;
    need_counts();
    if (system("valgrind --version >/dev/null 2>&1") != 0)
        skip(); /* make deps-ci */
    double macro = (instructions("empty/many") - instructions("empty/few")) / 1e6;
    double hand = (instructions("by_hand/many") - instructions("by_hand/few")) / 1e6;
    print_message("instructions an iteration: GBENCH_LOOP %.2f, by hand %.2f\n", macro, hand);
    assert_true(hand > 1);
    assert_true(macro - hand < 0.5);
}

/* The header is C's and C++'s, and warns of nothing where a bench is written with it. */
static void the_header_is_clean_in_both_languages(void **state)
{
    (void)state;
    FILE *f = fopen(in_scratch("bench.c"), "w");
    assert_non_null(f);
    fprintf(f, "#include \"%s/bench/gbench.h\"\n", getenv("MEMKIT_ROOT"));
    fputs("void b(gbench_state *s);\n"
          "void b(gbench_state *s)\n{\n    int n = 0;\n"
          "    if (gbench_arg(s, 0) > 0)\n        GBENCH_LOOP(s) GBENCH_KEEP(n);\n"
          "    GBENCH_HIDE(n);\n    GBENCH_CLOBBER();\n}\n",
          f);
    fclose(f);
    char command[512];
    for (int cxx = 0; cxx < 2; cxx++) {
        snprintf(command, sizeof command,
                 "%s -std=%s -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only "
                 "-x %s $D/bench.c",
                 getenv("CC"), cxx ? "c++17" : "c11", cxx ? "c++" : "c");
        if (sh(command) != 0)
            fail_msg("%s", err);
    }
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(scratch) != NULL && getenv("MEMKIT_BUILD") != NULL ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_timed_is_counted_exactly),
        cmocka_unit_test(threads_are_summed),
        cmocka_unit_test(the_peak_is_the_benchs_own),
        cmocka_unit_test(json_has_the_figures_under_their_names),
        cmocka_unit_test(csv_has_them_too),
        cmocka_unit_test(what_is_not_counted_is_not_called_zero),
        cmocka_unit_test(a_bench_may_say_that_it_is_not_counted),
        cmocka_unit_test(figures_of_ones_own_are_shown),
        cmocka_unit_test(medians_are_in_the_order_of_registration),
        cmocka_unit_test(those_that_are_compared_stand_side_by_side),
        cmocka_unit_test(instances_are_made_as_registered),
        cmocka_unit_test(a_bench_that_fails_says_why_and_fails_the_program),
        cmocka_unit_test(a_wrong_command_line_is_refused),
        cmocka_unit_test(a_filter_that_matches_nothing_is_an_error),
        cmocka_unit_test(the_loop_costs_what_one_by_hand_costs),
        cmocka_unit_test(the_header_is_clean_in_both_languages),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
