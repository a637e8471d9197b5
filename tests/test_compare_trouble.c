/* test_compare_trouble.c - service-compare where a service fails, is overloaded, or the user has
 * enough: what is said of it, the exit status, and that nothing is left behind.
 */
#define _GNU_SOURCE

#include "test_compare.h"

static void what_went_wrong_with_before_is_said_and_does_not_fail(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("errors", "", "0.2")), 0);
    must_contain("stdout", "before !");
    must_contain("stdout", "20 requests failed (status not 200: 20,");
    must_contain("stdout", "! before: reached");
    must_not_contain("stdout", "! after: 20 requests");
    must_contain("a/out/report.md", "- ! before: ");
    must_contain("a/out/report.json", "\"status_not_200\": 20");
    must_contain("a/out/report.json", "\"void\": false");
}

static void an_overloaded_before_ends_in_bounded_time(void **state)
{
    (void)state;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    /* 100 requests a second of 1,000 for a while; its /metrics and its stop stand in the same
     * queue. */
    pid_t pid = start_mocks("slow", "die", "0.3"); /* after's end spares this test the other runs */
    int rc = finish(pid);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(rc, 1);
    assert_true(b.tv_sec - a.tv_sec < 14);
    must_contain("stdout", "were never sent");
    must_contain("stdout", ">= ");
    must_contain("stdout", "! after: the service died under the load: exit status 7");
    must_contain("stderr", "the other runs are left out");
}

/* The field of the first run in the report. */
static double json_number(const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "\"%s\": ", name);
    assert_non_null(slurp("a/out/report.json"));
    char *at = strstr(strstr(text, "\"populations\""), key);
    assert_non_null(at);
    return strncmp(at + strlen(key), "null", 4) == 0 ? NAN : atof(at + strlen(key));
}

static void a_service_that_dies_has_the_figures_of_its_last_second(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("die later", "nostart", "2.5")), 1);
    /* At 1 s of 1.5 s; were all answers counted it would be 6.7. */
    double mallocs = json_number("allocations_per_request");
    if (!(mallocs > 9 && mallocs < 11.5))
        fail_msg("%g allocations a request", mallocs);
    assert_true(json_number("rss_bytes") > 0);
    assert_true(json_number("rss_peak_bytes") > 0);
    assert_true(json_number("cpu_us_per_request") > 0);
    must_contain("stdout", "the service died under the load: exit status 7");
    must_contain("stdout", "never sent, because the service was gone");
    must_not_contain("stdout", "every connection was waiting");
    must_contain("stdout", "CPU and RSS are of 1.");
}

static void a_service_that_does_not_start_or_is_not_counted_makes_it_void(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("", "nostart", "0.2")), 1);
    must_contain("stdout", "exit status 9");
    must_contain("stdout", "no such luck");
    must_contain("stdout", "The comparison is void");
    must_contain("a/out/report.json", "\"void\": true");
    assert_int_equal(finish(start_mocks("unhooked", "", "0.2")), 1);
    must_contain("stdout", "malloc was not counted");
    must_contain("stdout", "The comparison is void");
    must_contain("stdout", "n/a");
}

static pid_t mock_pid(void)
{
    for (int i = 0; i < 300; i++) {
        if (slurp("mock.pid") != NULL && strchr(text, '\n') != NULL)
            return (pid_t)atoi(text);
        usleep(10000);
    }
    fail_msg("no service was started");
    return 0;
}

static void forget_mock_pid(void)
{
    char path[200];
    snprintf(path, sizeof path, "%s/mock.pid", dir);
    unlink(path);
}

static void gone_soon(pid_t pid)
{
    for (int i = 0; i < 300; i++) {
        if (kill(pid, 0) != 0 && errno == ESRCH)
            return;
        usleep(10000);
    }
    kill(pid, SIGKILL);
    fail_msg("the service lives on");
}

static void an_interrupt_leaves_no_orphan_and_no_report(void **state)
{
    (void)state;
    static const struct {
        int sig, status;
    } how[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGKILL, 1000 + SIGKILL}};
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/a/out/report.json", dir);
        unlink(path);
        forget_mock_pid();
        pid_t pid = start_mocks("", "", "20");
        pid_t service = mock_pid();
        usleep(100000);
        kill(pid, how[i].sig);
        assert_int_equal(finish(pid), how[i].status);
        gone_soon(service);
        assert_int_equal(access(path, F_OK), -1);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_wrong_with_before_is_said_and_does_not_fail),
        cmocka_unit_test(an_overloaded_before_ends_in_bounded_time),
        cmocka_unit_test(a_service_that_dies_has_the_figures_of_its_last_second),
        cmocka_unit_test(a_service_that_does_not_start_or_is_not_counted_makes_it_void),
        cmocka_unit_test(an_interrupt_leaves_no_orphan_and_no_report),
    };
    return mock_or_tests(argc, argv, tests, sizeof tests / sizeof *tests);
}
