/* test_compare_timing.c - the time inside malloc: what is read from /metrics, and what is made of
 * it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../examples/service/compare.h"

/* As the preloaded library writes it, among other things. */
static const char fixture[] =
    "# HELP memkit_mallocs_total Allocations.\n"
    "# TYPE memkit_mallocs_total counter\n"
    "memkit_mallocs_total 100\n"
    "# HELP memkit_malloc_duration_seconds Time inside calls of malloc's family.\n"
    "# TYPE memkit_malloc_duration_seconds histogram\n"
    "memkit_malloc_duration_seconds_bucket{le=\"1.6e-08\"} 10\n"
    "memkit_malloc_duration_seconds_bucket{le=\"3.2e-08\"} 90\n"
    "memkit_malloc_duration_seconds_bucket{le=\"6.4e-08\"} 98\n"
    "memkit_malloc_duration_seconds_bucket{le=\"0.001024\"} 99\n"
    "memkit_malloc_duration_seconds_bucket{le=\"+Inf\"} 100\n"
    "memkit_malloc_duration_seconds_sum 0.0125\n"
    "memkit_malloc_duration_seconds_count 100\n"
    "# TYPE memkit_malloc_longest_duration_seconds gauge\n"
    "memkit_malloc_longest_duration_seconds 0.0115\n"
    "# TYPE memkit_malloc_longest_involuntary_switches gauge\n"
    "memkit_malloc_longest_involuntary_switches 2\n";

static void a_histogram_is_read_whole(void **state)
{
    (void)state;
    cmp_timing t;
    cmp_timing_parse(fixture, &t);
    assert_true(t.ok);
    assert_int_equal(t.buckets, 5);
    assert_true(t.le_s[0] == 1.6e-8 && t.le_s[3] == 0.001024 && isinf(t.le_s[4]));
    assert_int_equal(t.at_most[0], 10);
    assert_int_equal(t.at_most[4], 100);
    assert_int_equal(t.calls, 100);
    assert_true(t.sum_s == 0.0125 && t.longest_s == 0.0115);
    assert_int_equal(t.longest_switches, 2);
}

/* The fixture with the first `what` replaced; `what` is there. */
static const char *changed(const char *what, const char *by)
{
    static char text[4096];
    const char *at = strstr(fixture, what);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - fixture), fixture, by, at + strlen(what));
    return text;
}

static void half_a_histogram_is_none(void **state)
{
    (void)state;
    static const char *const broken[][2] = {
        {"memkit_malloc_duration_seconds_sum", "memkit_malloc_duration_seconds_soup"},
        {"memkit_malloc_duration_seconds_count", "x"},
        {"memkit_malloc_longest_duration_seconds 0", "memkit_malloc_longest_duration_secs 0"},
        {"memkit_malloc_longest_involuntary_switches 2", "none 2"},
        {"{le=\"+Inf\"}", "{le=\"1\"}"},              /* where is its end? */
        {"{le=\"3.2e-08\"} 90", "{le=\"1e-08\"} 90"}, /* not ascending */
        {"{le=\"3.2e-08\"} 90", "{le=\"3.2e-08\"} 9"},
        {"{le=\"3.2e-08\"} 90", "{le=\"3.2e-08\"} ninety"},
        {"{le=\"3.2e-08\"} 90", "{le=\"nan\"} 90"},
        {"{le=\"3.2e-08\"} 90", "{le=\"3.2e-08\",x=\"y\"} 90"},
        {"{le=\"3.2e-08\"} 90", "{le=\"3.2e-08\"} -1"},
        {"_sum 0.0125", "_sum NaN"},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        cmp_timing t;
        cmp_timing_parse(changed(broken[i][0], broken[i][1]), &t);
        if (t.ok)
            fail_msg("accepted with \"%s\"", broken[i][1]);
    }
    cmp_timing none;
    cmp_timing_parse("", &none);
    assert_false(none.ok);
    static char many[16384];
    size_t n = 0;
    for (int i = 0; i < CMP_TIMING_BUCKETS + 1; i++)
        n += (size_t)snprintf(many + n, sizeof many - n,
                              "memkit_malloc_duration_seconds_bucket{le=\"%d\"} 1\n", i + 1);
    cmp_timing_parse(many, &none);
    assert_false(none.ok);
    assert_int_equal(none.buckets, CMP_TIMING_BUCKETS); /* and no more was written */
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9 * fabs(want)))
        fail_msg("%.12g, not %.12g", got, want);
}

/* 1,000 answers, each with 10 calls of 1 us, beyond the fixture; 2 scrapes of 5 calls and 3 us. */
static void made_up_run(cmp_run *run)
{
    *run = (cmp_run){.ran = true, .counters = true, .timing = true, .scrapes = 2};
    run->start.ok = run->end.ok = run->start.hooked = run->end.hooked = true;
    cmp_timing_parse(fixture, &run->timing_start);
    run->timing_end = run->timing_start;
    run->timing_cost = (cmp_timing){.ok = true, .calls = 5, .sum_s = 3e-6, .buckets = 5};
    for (size_t i = 0; i < 5; i++)
        run->timing_cost.at_most[i] = i < 2 ? 0 : 5;
    for (size_t i = 3; i < 5; i++)
        run->timing_end.at_most[i] += 10000 + 10;
    run->timing_end.at_most[2] += 9899 + 10;
    run->timing_end.sum_s += 0.01 + 6e-6;
    run->timing_end.calls += 10010;
    run->load.answered = 1000;
    run->proc_start = (cmp_proc){.ok = true, .cpu_ns = 1000000000};
    run->proc_end = (cmp_proc){.ok = true, .cpu_ns = 1200000000};
}

static void figures_are_the_loads_alone(void **state)
{
    (void)state;
    static cmp_run run;
    made_up_run(&run);
    near(cmp_timing_value(&run, TIMING_PER_REQUEST), 10);
    near(cmp_timing_value(&run, TIMING_CPU_SHARE), 5);
    near(cmp_timing_calls(&run, 4), 10000);
    near(cmp_timing_calls(&run, 2), 9899);
    assert_true(cmp_timing_calls(&run, 0) == 0);
    near(cmp_timing_value(&run, TIMING_LONGEST), 11.5);
    near(cmp_timing_value(&run, TIMING_SWITCHES), 2);
    assert_true(cmp_timing_longest_before(&run));
    run.timing_end.longest_s = 0.02;
    assert_false(cmp_timing_longest_before(&run));
}

static void a_quantile_is_the_bound_of_its_bucket(void **state)
{
    (void)state;
    static cmp_run run;
    made_up_run(&run);
    near(cmp_timing_value(&run, TIMING_P99), 1024); /* 9,899 of 10,000 are not 99 % */
    run.timing_end.at_most[2]++;
    near(cmp_timing_value(&run, TIMING_P99), 0.064);
    /* In the last bucket, which has no bound: no call took longer than the longest. */
    run.timing_end.at_most[4] += 1000;
    near(cmp_timing_value(&run, TIMING_P99), 11500);
    memcpy(&run.timing_end, &run.timing_start, sizeof run.timing_end); /* no call at all */
    assert_true(isnan(cmp_timing_value(&run, TIMING_P99)));
}

static void what_was_not_measured_has_no_figures(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sentence s[CMP_SENTENCES_MAX];
    for (int way = 0; way < 4; way++) {
        made_up_run(&run);
        if (way == 0)
            run.timing_start.ok = false;
        else if (way == 1)
            run.timing_end.ok = false;
        else if (way == 2)
            run.timing_end.buckets--; /* of another library */
        else
            run.ran = false;
        for (int f = 0; f < TIMING_COUNT; f++)
            assert_true(isnan(cmp_timing_value(&run, (cmp_timing_figure)f)));
        assert_true(isnan(cmp_timing_calls(&run, 0)));
        assert_false(cmp_timing_longest_before(&run));
        size_t n = cmp_complaints(&run, s);
        assert_true(n > 0);
        if (way < 3)
            assert_non_null(strstr(s[0].text, "malloc was not timed"));
    }
    made_up_run(&run);
    assert_int_equal(cmp_complaints(&run, s), 0);
    assert_true(isnan(cmp_timing_calls(&run, 5)));
}

/* The scrape at the end failed: time, answers and CPU are all of the last sample with one. */
static void without_an_end_it_is_of_the_last_sample(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sample sample = {.answered = 500, .cpu_ns = 100000000, .scrapes = 2, .c = {.ok = true}};
    made_up_run(&run);
    run.sample = &sample;
    run.samples = run.end_sample = 1;
    run.scrapes = 3;
    near(cmp_timing_value(&run, TIMING_PER_REQUEST), 20);
    near(cmp_timing_value(&run, TIMING_CPU_SHARE), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_histogram_is_read_whole),
        cmocka_unit_test(half_a_histogram_is_none),
        cmocka_unit_test(figures_are_the_loads_alone),
        cmocka_unit_test(a_quantile_is_the_bound_of_its_bucket),
        cmocka_unit_test(what_was_not_measured_has_no_figures),
        cmocka_unit_test(without_an_end_it_is_of_the_last_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
