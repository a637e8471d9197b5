/* test_hook_timing.c - MEMKIT_TIMING: what is timed, the longest call, the histogram's arithmetic,
 * the metrics and the table. tests/lib_odd_malloc.c, under the hook, has calls of known length.
 */
#include "test_hook.h"

#include "hook/timing.h"

static const result *run_timed(const char *value, const char *stats, const char *mode)
{
    char list[4096];
    snprintf(list, sizeof list, "%s:%s", in_build("libmemkit-prof.so.0"),
             in_build("tests/lib_odd_malloc.so"));
    preload_list = list;
    setenv("MEMKIT_TIMING", value, 1);
    const result *r = RUN(true, stats, in_build("tests/prog_hook_timing"), mode);
    unsetenv("MEMKIT_TIMING");
    preload_list = NULL;
    return r;
}

static void every_call_is_timed_once_and_the_longest_is_known(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(run_timed("1", NULL, "calls"), 0);
}

static void calls_of_every_thread_are_timed_dead_or_alive(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(run_timed("1", NULL, "threads"), 0);
}

static void switches_are_those_within_the_longest_call(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(run_timed("1", NULL, "switches"), 0);
}

static void nothing_is_timed_unasked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    static const char *const off[] = {"", "0"};
    for (int i = 0; i < 2; i++) {
        const result *r = run_timed(off[i], "1", "off");
        assert_ran(r, 0);
        assert_null(strstr(r->err, "timed"));
    }
    static const char *const wrong[] = {"yes", "2", "01"};
    for (int i = 0; i < 3; i++) {
        const result *r = run_timed(wrong[i], NULL, "off");
        assert_ran(r, 0);
        char want[200];
        snprintf(want, sizeof want, "memkit: MEMKIT_TIMING=%s: neither 0 nor 1; nothing is timed\n",
                 wrong[i]);
        assert_string_equal(r->err, want);
    }
}

static unsigned long long ns_in(const char *table, const char *label)
{
    unsigned long long n = ~0ull;
    char line[64];
    snprintf(line, sizeof line, "\n  %-24s", label);
    const char *at = strstr(table, line);
    if (at == NULL || sscanf(at + strlen(line), " %llu", &n) != 1)
        fail_msg("no '%s' in the table:\n%s", label, table);
    return n;
}

static void the_table_shows_the_times(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = run_timed("1", "1", "calls");
    assert_ran(r, 0);
    assert_true(ns_in(r->err, "calls timed") >= 16002);
    assert_true(ns_in(r->err, "time in them") >= 200000000);
    assert_true(ns_in(r->err, "longest call") >= 200000000);
    assert_non_null(strstr(r->err, " ns in malloc, 12345 bytes, "));
    unsigned long long half = ns_in(r->err, "50 % took at most");
    unsigned long long most = ns_in(r->err, "99.9 % took at most");
    assert_true(half >= 16 && half <= ns_in(r->err, "99 % took at most"));
    assert_true(most <= ns_in(r->err, "longest call"));
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static void each_bound_is_the_last_of_its_bucket(void **state)
{
    (void)state;
    assert_int_equal(memkit__timing_bucket(0), 0);
    for (unsigned i = 0; i + 1 < MEMKIT__TIMES_BUCKETS; i++) {
        uint64_t bound = UINT64_C(1) << (MEMKIT__TIMES_FIRST_BIT + i);
        assert_int_equal(memkit__timing_bucket(bound), i);
        assert_int_equal(memkit__timing_bucket(bound + 1), i + 1);
    }
    assert_int_equal(memkit__timing_bucket(UINT64_MAX), MEMKIT__TIMES_BUCKETS - 1);
}

static void a_quantile_is_the_bound_that_so_many_calls_are_within(void **state)
{
    (void)state;
    memkit__times t = {.longest_ns = 5000000};
    t.buckets[memkit__timing_bucket(20)] = 500;
    t.buckets[memkit__timing_bucket(100)] = 499;
    t.buckets[memkit__timing_bucket(5000000)] = 1;
    assert_int_equal(memkit__timing_quantile(&t, 1), 32);
    assert_int_equal(memkit__timing_quantile(&t, 500), 32);
    assert_int_equal(memkit__timing_quantile(&t, 501), 128);
    assert_int_equal(memkit__timing_quantile(&t, 999), 128);
    assert_int_equal(memkit__timing_quantile(&t, 1000),
                     5000000);                                /* its bound is above the longest */
    t.buckets[memkit__timing_bucket(20)] = UINT64_C(1) << 60; /* times 1000 would overflow */
    assert_int_equal(memkit__timing_quantile(&t, 999), 32);
    assert_int_equal(memkit__timing_quantile(&t, 1000), 5000000);
    t = (memkit__times){.longest_ns = UINT64_C(1) << 40};
    t.buckets[MEMKIT__TIMES_BUCKETS - 1] = 1; /* above the last bound */
    assert_int_equal(memkit__timing_quantile(&t, 500), UINT64_C(1) << 40);
    t = (memkit__times){0};
    assert_int_equal(memkit__timing_quantile(&t, 500), 0);
}

/* ---- in a process of its own: main says how each begins -------------------------------------- */

static volatile sig_atomic_t interrupted;

static void time_in_handler(int signo)
{
    (void)signo;
    interrupted = interrupted + 1;
    for (int i = 0; i < 20; i++)
        memkit__timing_leave(memkit__timing_enter(), "handler", 1);
}

static uint64_t timed(void)
{
    memkit__times t;
    uint64_t sum = 0;
    if (memkit__timing_read(&t))
        for (unsigned i = 0; i < MEMKIT__TIMES_BUCKETS; i++)
            sum += t.buckets[i];
    return sum;
}

/* Interrupts the noting of times anywhere in it, the longest call's too: each call here is made
 * longer than the last. 0: every one is there. */
static int times_under_signals(void)
{
    for (int i = 0; i < 100; i++) { /* takes a block; gcc would see through the pair */
        void *volatile p = malloc(10);
        free(p);
    }
    struct sigaction act = {.sa_handler = time_in_handler};
    struct itimerspec soon = {{0, 50000}, {0, 50000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    sigaction(SIGALRM, &act, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0)
        return 2;
    uint64_t before = timed(), calls = 0;
    timer_settime(timer, 0, &soon, NULL);
    while (interrupted < 1000) {
        memkit__stamp s = memkit__timing_enter();
        s.at -= UINT64_C(1000000000) + calls * 1000000; /* so it is always the longest */
        memkit__timing_leave(s, "main", 2);
        calls++;
    }
    timer_delete(timer);
    memkit__times t;
    memkit__timing_read(&t);
    if (timed() - before != calls + (uint64_t)interrupted * 20)
        return 3;
    return strcmp(t.longest_function, "main") == 0 && t.longest_bytes == 2 ? 0 : 4;
}

static int print_metrics(void)
{
    for (int i = 0; i < 100; i++) {
        void *volatile p = malloc(10);
        free(p);
    }
    memkit_buf *b = memkit_buf_new(0);
    if (memkit_metrics_write(b) != 0)
        return 1;
    fwrite(b->data, 1, b->len, stdout);
    memkit_buf_free(b);
    return 0;
}

static const result *run_self(const char *timing, const char *mode)
{
    setenv("MEMKIT_TIMING", timing, 1);
    const result *r = RUN(false, NULL, "/proc/self/exe", mode);
    unsetenv("MEMKIT_TIMING");
    return r;
}

static void a_signal_in_the_middle_loses_no_time(void **state)
{
    (void)state;
#if !defined(__x86_64__)
    skip(); /* three instructions to a count elsewhere */
#endif
    if (SANITIZED)
        skip(); /* thread's delivers a signal only at calls that it intercepts */
    assert_ran(run_self("1", "--signals"), 0);
}

static double sample(const char *text, const char *name)
{
    char line[100];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    if (at == NULL)
        fail_msg("no %s in:\n%s", name, text);
    return strtod(at + strlen(line), NULL);
}

static void metrics_have_the_histogram_in_seconds(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* malloc is not hooked, so nothing is timed */
    const result *r = run_self("1", "--metrics");
    assert_ran(r, 0);
    assert_non_null(strstr(r->out, "\n# TYPE memkit_malloc_duration_seconds histogram\n"));
    double last_bound = 0;
    unsigned long long last = 0;
    int bounds = 0;
    static const char bucket[] = "\nmemkit_malloc_duration_seconds_bucket{le=\"";
    for (const char *at = r->out; (at = strstr(at, bucket)) != NULL; bounds++) {
        at += sizeof bucket - 1;
        char *end;
        double bound = strtod(at, &end); /* +Inf too */
        unsigned long long n = 0;
        assert_int_equal(sscanf(end, "\"} %llu", &n), 1);
        assert_true(bound > last_bound && n >= last);
        assert_true(bounds != 0 || strncmp(at, "0.000000016\"", 12) == 0);
        assert_true(bounds != 30 || strncmp(at, "17.179869184\"", 13) == 0);
        last_bound = bound;
        last = n;
    }
    assert_int_equal(bounds, MEMKIT__TIMES_BUCKETS);
    assert_true(last_bound > 1e300 && last >= 200);
    assert_true(sample(r->out, "memkit_malloc_duration_seconds_count") == (double)last);
    double sum = sample(r->out, "memkit_malloc_duration_seconds_sum");
    double longest = sample(r->out, "memkit_malloc_longest_duration_seconds");
    assert_true(longest > 0 && longest <= sum && sum < 100);
    assert_true(sample(r->out, "memkit_malloc_longest_involuntary_switches") >= 0);
    r = run_self("0", "--metrics");
    assert_ran(r, 0);
    assert_non_null(strstr(r->out, "\nmemkit_mallocs_total "));
    assert_null(strstr(r->out, "memkit_malloc_duration"));
    assert_null(strstr(r->out, "memkit_malloc_longest"));
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--signals") == 0)
        return times_under_signals();
    if (argc == 2 && strcmp(argv[1], "--metrics") == 0)
        return print_metrics();
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_is_timed_once_and_the_longest_is_known),
        cmocka_unit_test(calls_of_every_thread_are_timed_dead_or_alive),
        cmocka_unit_test(switches_are_those_within_the_longest_call),
        cmocka_unit_test(nothing_is_timed_unasked),
        cmocka_unit_test(the_table_shows_the_times),
        cmocka_unit_test(each_bound_is_the_last_of_its_bucket),
        cmocka_unit_test(a_quantile_is_the_bound_that_so_many_calls_are_within),
        cmocka_unit_test(a_signal_in_the_middle_loses_no_time),
        cmocka_unit_test(metrics_have_the_histogram_in_seconds),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
