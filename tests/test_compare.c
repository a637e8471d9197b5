/* test_compare.c - service-compare from the outside: the command line, and that its figures are
 * what the load did, against a pair of made-up services and against the real pair.
 */
#define _GNU_SOURCE

#include "test_compare.h"

static void bad_flags_exit_with_2(void **state)
{
    (void)state;
    static char *bad[][12] = {
        {NULL},
        {"--nonsense", NULL},
        {"--before", "before", NULL},
        {"--before", "before", "--after", "missing", "--prof", "prof.so", NULL},
        {"--before", "before", "--after", "after", "--prof", ".", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "surplus", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--duration", "0", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--duration", "5s", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--rate=-1", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--ids", "1.5", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--id-bytes=2", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--price-per-gib=nan",
         NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--timing-seconds=0.1",
         NULL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = finish(start(bad[i]));
        if (rc != 2)
            fail_msg("set %zu: exit status %d", i, rc);
        assert_non_null(slurp("stderr"));
        assert_true(strlen(text) > 10);
    }
    static char *out[] = {"prof.so", "prof.so/below", ""};
    for (size_t i = 0; i < 3; i++) {
        char *args[] = {"--before", "before", "--after", "after", "--prof",
                        "prof.so",  "--out",  out[i],    NULL};
        assert_int_equal(finish(start(args)), 2);
        must_contain("stderr", "--out takes a directory");
    }
    char *dirs[2][8] = {{"--before", "before", "--after", "after", "--prof", ".", NULL},
                        {"--before", ".", "--after", "after", "--prof", "prof.so", NULL}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(finish(start(dirs[i])), 2);
        must_contain("stderr", " .: not a file\n");
    }
    assert_int_equal(finish(start((char *[]){"--help", NULL})), 0);
    must_contain("stdout", "example:");
}

/* One comparison, of which several tests look at what was written. Timing is asked for from the
 * outside too: it must not reach the runs whose figures it would spoil. */
static void compare_once(void)
{
    static bool done;
    if (done)
        return;
    setenv("MEMKIT_TIMING", "1", 1);
    assert_int_equal(finish(start_mocks("", "", "0.2")), 0);
    unsetenv("MEMKIT_TIMING");
    done = true;
}

static void figures_are_what_the_load_did_and_nothing_else(void **state)
{
    (void)state;
    compare_once();
    /* Exactly: the scrapes' 7 allocations each are taken off. */
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": 10,"), 3);
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": 4,"), 3);
    assert_int_equal(occurrences("a/out/report.json", "\"allocated_bytes_per_request\": 3000,"), 3);
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": -60"), 2);
    assert_int_equal(occurrences("a/out/report.json", "\"answered\": 200,\n"), 8);
    must_contain("a/out/report.json", "\"allocated_in_total_bytes\": 600000");
    must_contain("a/out/report.json", "\"allocated_now_bytes\": 8388608");
    must_contain("a/out/report.json", "\"void\": false");
    must_contain("a/out/report.json", "\"kind\": \"zipf\"");
    must_contain("a/out/report.json", "\"duration_seconds\": 0.2");
    must_contain("a/out/report.json", "{\"t_seconds\": 0.");
    must_contain("a/out/report.md", "| Allocations a request | 10.00 | 4.00 | -60.0 % | -41 % |");
    must_contain("a/out/report.md", "| Allocated now, MiB | 8.00 | 4.00 | -50.0 % | -30 % |");
    must_contain("a/out/report.md", "## Zipf 0.99, 1,000,000 ids of 24 B");
    must_contain("a/out/report.md", "## Saturation: 1024 connections, each as fast as it goes, "
                                    "0.2 s, Uniform, 1,000,000 ids of 24 B");
    must_contain("a/out/report.md", "| RSS without libmicrohttpd's, MiB | ");
    must_contain("a/out/report.md", "keeps 24 KiB for a connection, 0.4 MiB for 16,");
    must_contain("a/out/report.md", "Load: 1,000 requests a second (open loop) over 16 connect");
    must_not_contain("stdout", ": reached"); /* a short run that keeps up reaches its rate */
    must_contain("a/out/report.md", "The bodies differ");
    must_contain("a/out/report.md", "| n/a | too short to tell |");
    must_contain("stdout", "Latency p99.9, ms");
    must_contain("stdout", "  -60.0 %");
    must_not_contain("stdout", "void");
    must_not_contain("stdout", "\033"); /* no colours in a file */
    must_contain("stderr", "10 runs, about");
    struct stat st;
    char path[200];
    snprintf(path, sizeof path, "%s/a/out/before-uniform-24.log", dir);
    assert_int_equal(stat(path, &st), 0);
}

static void time_in_malloc_has_a_run_of_its_own(void **state)
{
    (void)state;
    compare_once();
    must_contain("stdout", "Time in malloc, in place of the article's GC pause: Uniform, ");
    must_contain("a/out/report.md", "| Inside malloc a request, us | 10.00 | 4.00 | -60.0 % |");
    must_contain("a/out/report.md", "| p99 of a call, us, at most | 1.024 | 1.024 | 0.0 % |");
    must_contain("a/out/report.md", "| Longest call, ms | 2.000 | 2.000 | 0.0 % |");
    must_contain("a/out/report.md", "| its involuntary context switches | 3 | 3 |  |");
    must_contain("a/out/report.md", "- ~ before: the longest call was before the load.");
    must_contain("a/out/report.html", "Inside malloc, % of CPU");
    assert_int_equal(occurrences("a/out/report.json", "\"malloc_us_per_request\": 10,"), 1);
    assert_int_equal(occurrences("a/out/report.json", "\"malloc_us_per_request\": 4,"), 1);
    must_contain("a/out/report.json", "{\"seconds\": 1.024e-06, \"calls\": 2000}");
    must_not_contain("stdout", "not timed");
    must_contain("a/out/before-malloc-timed.log", "mock: timed");
    must_contain("a/out/before-uniform-24.log", "mock: not timed");
    must_contain("a/out/after-without-counters.log", "mock: not timed");
}

static void the_page_is_written_beside_the_text_and_holds_the_same(void **state)
{
    (void)state;
    compare_once();
    must_contain("stdout", "written: a/out/report.html,");
    must_contain("a/out/report.html", "<th scope=\"row\">Allocations a request</th><td>10.00</td>"
                                      "<td>4.00</td><td class=\"good\">-60.0 %</td>");
    must_contain("a/out/report.html", "</html>");
    assert_int_equal(occurrences("a/out/report.html", "<svg class=\"chart\""), 12);
}

static void one_request_a_second_is_one_request(void **state)
{
    (void)state;
    char *args[] = {"--before",   "before", "--after",    "after", "--prof",          "prof.so",
                    "--out",      "a/out",  "--duration", "1",     "--rate",          "1",
                    "--id-bytes", "24",     "--ids",      "1",     "--connections=1", NULL};
    setenv("MOCK_BEFORE", "", 1);
    setenv("MOCK_AFTER", "nostart", 1);
    assert_int_equal(finish(start(args)), 1);
    must_contain("a/out/report.md",
                 "Load: 1 request a second (open loop) over 1 connection for 1 s, 1 id,");
}

static void the_real_pair_is_compared(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* a sanitizer has a malloc of its own: nothing is counted */
    char before[4096], after[4096], prof[4096];
    snprintf(before, sizeof before, "%s", build("service-before"));
    snprintf(after, sizeof after, "%s", build("service-after"));
    snprintf(prof, sizeof prof, "%s", build("libmemkit-prof.so.0"));
    char *args[] = {"--before",
                    before,
                    "--after",
                    after,
                    "--prof",
                    prof,
                    "--out",
                    "real",
                    "--duration=0.4",
                    "--rate=500",
                    "--id-bytes=64",
                    "--ids=1000",
                    "--connections=16",
                    "--saturation-seconds=0.3",
                    NULL};
    unsetenv("MOCK_BEFORE");
    unsetenv("MOCK_AFTER");
    int rc = finish(start(args));
    if (rc != 0)
        fail_msg("exit status %d: %s", rc, slurp("stdout"));
    must_contain("real/report.md", "before");
    must_contain("real/report.md", "| after");
    must_contain("real/report.json", "\"before\": {");
    must_contain("real/report.json", "\"after\": {");
    must_contain("real/report.json", "\"void\": false");
    must_contain("real/report.json", "\"mallocs_total\"");
    must_contain("real/report.json", "\"malloc_us_per_request\": ");
    assert_null(strstr(text, "\"malloc_us_per_request\": null"));
    must_contain("real/report.html", "</html>");
    must_contain("real/report.json", "\"before\": {"); /* text is the JSON's again */
    /* Runs without the counters come after this, and have no figures of allocations. */
    char *counted_end = strstr(text, "\"saturation\": {");
    assert_non_null(counted_end);
    *counted_end = '\0';
    assert_null(strstr(text, "\"allocations_per_request\": null"));
    assert_non_null(strstr(text, "\"allocations_per_request\": "));
    assert_null(strstr(text, "\"cpu_us_per_request\": null"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_flags_exit_with_2),
        cmocka_unit_test(figures_are_what_the_load_did_and_nothing_else),
        cmocka_unit_test(time_in_malloc_has_a_run_of_its_own),
        cmocka_unit_test(the_page_is_written_beside_the_text_and_holds_the_same),
        cmocka_unit_test(one_request_a_second_is_one_request),
        cmocka_unit_test(the_real_pair_is_compared),
    };
    return mock_or_tests(argc, argv, tests, sizeof tests / sizeof *tests);
}
