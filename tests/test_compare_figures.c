/* test_compare_figures.c - service-compare's arithmetic on made-up runs: figures, noise, what is
 * said of a run, and what a run notes of a service that no longer answers. The program as a whole
 * is test_compare.c's.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* The arithmetic, and what a run notes of its service, are tested on made-up runs; what else they
 * call comes from load*.o, but for these. */
#include "../examples/service/compare_figures.c"
#include "../examples/service/compare_run.c"

static struct {
    bool dead;
    cmp_proc proc;
    cmp_counters counters;
    unsigned scraped;
} stub;

void cmp_exit_text(int status, char *out, size_t cap)
{
    snprintf(out, cap, "status %d", status);
}

bool cmp_child_alive(cmp_child *c)
{
    (void)c;
    return !stub.dead;
}

void cmp_child_stop(cmp_child *c, double seconds)
{
    (void)c;
    (void)seconds;
}

int cmp_child_start(cmp_child *c, const char *program, const char *preload, bool timing,
                    const char *log, char *why, size_t cap)
{
    (void)timing;
    (void)c;
    (void)program;
    (void)preload;
    (void)log;
    snprintf(why, cap, "not here");
    return -1;
}

uint64_t cmp_proc_cpu_ns(pid_t pid)
{
    (void)pid;
    return stub.proc.cpu_ns;
}

void cmp_proc_read(pid_t pid, cmp_proc *out)
{
    (void)pid;
    *out = stub.proc;
}

int cmp_scrape(const char *target, int timeout_ms, cmp_counters *out, cmp_timing *timing)
{
    (void)timing;
    (void)target;
    (void)timeout_ms;
    stub.scraped++;
    *out = stub.counters;
    return out->ok ? 0 : -1;
}

static void free_made_up(cmp_run *run)
{
    free(run->sample);
    free(run->load.second);
}

/* Four seconds of 1,000 answers, each of cpu_us and with a p99 of p99_ms; the load has no more. */
static void made_up_run(cmp_run *run, int side, double cpu_us, double p99_ms, double wobble)
{
    *run = (cmp_run){.side = side, .ran = true, .rate = 1000, .samples = 4};
    run->load.answered = run->load.due = 4000;
    run->load.rate_reached = 1000;
    run->load.seconds = 4;
    run->sample = calloc(4, sizeof *run->sample);
    run->load.second = calloc(4, sizeof *run->load.second);
    assert_non_null(run->sample);
    assert_non_null(run->load.second);
    double cpu = 0;
    for (unsigned i = 0; i < 4; i++) {
        double w = i % 2 == 0 ? 1 + wobble : 1 - wobble;
        cpu += 1000 * cpu_us * 1e3 * w;
        run->sample[i].answered = (i + 1) * 1000;
        run->sample[i].cpu_ns = (uint64_t)cpu;
        run->load.second[i].answered = 1000;
        run->load.second[i].p99_ns = (uint64_t)(p99_ms * 1e6 * w);
    }
    run->proc_end = (cmp_proc){.ok = true, .cpu_ns = (uint64_t)(4000 * cpu_us * 1e3)};
    load_hist_reset(&run->load.latency);
    for (int i = 0; i < 4000; i++)
        load_hist_record(&run->load.latency, (uint64_t)(p99_ms * 1e6));
}

static void noise_is_at_least_what_cannot_be_the_counters(void **state)
{
    (void)state;
    static cmp_report r;
    /* Steady, and a little slower with the counters: only the floor. */
    made_up_run(&r.bare[CMP_BEFORE], CMP_BEFORE, 50, 12, 0);
    made_up_run(&r.run[0][CMP_BEFORE], CMP_BEFORE, 51, 12.1, 0);
    made_up_run(&r.bare[CMP_AFTER], CMP_AFTER, 40, 12, 0);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 12.1, 0);
    cmp_noise n = cmp_counters_noise(&r);
    assert_true(fabs(n.cpu - 3) < 1e-9 && fabs(n.p99 - 3) < 1e-9);
    /* p99 halves with the counters on one side: two runs differ by 50 %, for both sides. */
    free_made_up(&r.run[0][CMP_AFTER]);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 6, 0);
    n = cmp_counters_noise(&r);
    assert_true(fabs(n.cpu - 3) < 1e-9 && fabs(n.p99 - 50) < 1);
    /* From second to second, +-10 %: the last three of four have a deviation of 11.9 or 11.2 %. */
    free_made_up(&r.run[0][CMP_AFTER]);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 12.1, 0.1);
    n = cmp_counters_noise(&r);
    if (fabs(n.cpu - 11.6) > 0.8 || fabs(n.p99 - 11.6) > 0.8)
        fail_msg("noise %g and %g %%", n.cpu, n.p99);
    /* Two seconds tell nothing. */
    r.bare[CMP_BEFORE].samples = 2;
    n = cmp_counters_noise(&r);
    assert_true(isnan(n.cpu) && !isnan(n.p99));
    for (int s = 0; s < CMP_SIDES; s++) {
        free_made_up(&r.bare[s]);
        free_made_up(&r.run[0][s]);
    }
}

static void before_is_forgiven_what_after_is_not(void **state)
{
    (void)state;
    for (int side = 0; side < CMP_SIDES; side++) {
        static cmp_run run;
        cmp_sentence s[CMP_SENTENCES_MAX];
        made_up_run(&run, side, 50, 12, 0);
        assert_false(cmp_run_void(&run));
        assert_int_equal(cmp_complaints(&run, s), 0);
        run.load.due = 10000; /* 4,000 of them answered */
        run.load.unsent = 6000;
        run.load.rate_reached = 400;
        assert_int_equal(cmp_run_void(&run), side == CMP_AFTER);
        assert_int_equal(cmp_complaints(&run, s), 2);
        run.load.due = 4000;
        run.load.unsent = 0;
        run.load.rate_reached = 989;
        assert_false(cmp_run_void(&run));
        assert_int_equal(cmp_complaints(&run, s), 0); /* but nothing was lost */
        run.load.unanswered = 44;
        assert_int_equal(cmp_complaints(&run, s), 2); /* below 99 % */
        run.load.rate_reached = 991;
        assert_int_equal(cmp_complaints(&run, s), 1);
        run.load.unanswered = 0;
        run.counters = true; /* but nothing counted */
        assert_true(cmp_run_void(&run));
        assert_true(isnan(cmp_value(&(cmp_opts){0}, &run, FIG_ALLOC_NOW, NULL)));
        run.counters = false;
        run.died = true;
        assert_int_equal(cmp_run_void(&run), side == CMP_AFTER);
        free_made_up(&run);
    }
}

static void a_rate_is_missed_by_a_queue_not_by_a_few_late_answers(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sentence s[CMP_SENTENCES_MAX];
    made_up_run(&run, CMP_BEFORE, 50, 12, 0);
    run.load.late = 100;
    run.load.rate_reached = 975;
    load_hist_record(&run.load.latency, 500000000); /* one of 4,001 */
    assert_false(cmp_missed_rate(&run));
    assert_int_equal(cmp_complaints(&run, s), 0);
    load_hist_reset(&run.load.latency);
    for (uint64_t i = 1; i <= 4000; i++)
        load_hist_record(&run.load.latency, i * 100000);
    assert_true(cmp_missed_rate(&run) && cmp_broke_down(&run));
    assert_int_equal(cmp_complaints(&run, s), 1);
    assert_non_null(strstr(s[0].text, "reached 975 of 1000 requests a second (97.5 %)"));
    run.load.rate_reached = 995;
    assert_false(cmp_missed_rate(&run) || cmp_broke_down(&run));
    run.load.rate_reached = 900;
    run.load.late = 0;
    run.load.bad_status = 400;
    assert_true(cmp_missed_rate(&run));
    assert_false(cmp_broke_down(&run)); /* it answered them all, if not well */
    run.load.unsent = 1;
    assert_true(cmp_broke_down(&run));
    free_made_up(&run);
}

static void complaints_know_one_and_why(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sentence s[CMP_SENTENCES_MAX];
    made_up_run(&run, CMP_BEFORE, 50, 12, 0);
    run.rate = 1;
    run.load.rate_reached = 0.5;
    run.load.due = run.load.unsent = 1;
    run.load.closed = run.load.connect_failures = run.load.unanswered = 1;
    assert_int_equal(cmp_complaints(&run, s), 5);
    assert_non_null(strstr(s[0].text, "of 1 request a second"));
    assert_string_equal(s[1].text,
                        "1 of 1 request was never sent, because no connection could be had");
    assert_non_null(strstr(s[2].text, "1 request had no answer"));
    assert_non_null(strstr(s[3].text, "1 request failed"));
    assert_string_equal(s[4].text, "1 connection could not be made");
    run.load.connect_failures = 0;
    run.load.due = 2;
    cmp_complaints(&run, s);
    assert_string_equal(s[1].text,
                        "1 of 2 requests was never sent, because every connection was waiting");
    run.died = true;
    cmp_complaints(&run, s);
    assert_string_equal(s[2].text, "1 of 2 requests was never sent, because the service was gone");
    free_made_up(&run);
}

#define MIB (1u << 20)

static void close_to(double got, double want)
{
    if (!(fabs(got - want) < 1e-6 * want))
        fail_msg("%g, not %g", got, want);
}

static void figures_of_a_made_up_run(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_opts o = {.price_per_gib = 3};
    made_up_run(&run, CMP_AFTER, 50, 12, 0);
    run.connections = 256;
    run.proc_start = (cmp_proc){.ok = true, .cpu_ns = 70000000};
    run.proc_end.cpu_ns += 70000000;
    run.proc_end.rss_bytes = 100 * MIB;
    run.proc_end.peak_rss_bytes = 512 * MIB;
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 100.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_RSS_OWN, NULL), 94.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_COST, NULL), 0.5 * 3 * 10);
    run.connections = 10000; /* it cannot have had them all */
    assert_true(isnan(cmp_value(&o, &run, FIG_RSS_OWN, NULL)));
    free_made_up(&run);
}

/* 10 allocations of 300 bytes and 50 us a request, 7 allocations and 5,000 bytes a scrape. */
static void second_passes(run_ctx *x, uint64_t answered, bool scrape_ok, unsigned rss_mib)
{
    cmp_run *run = x->run;
    uint64_t scrapes = run->scrapes + 1;
    stub.counters = (cmp_counters){.ok = scrape_ok,
                                   .hooked = scrape_ok,
                                   .alloc_bytes = answered,
                                   .total_alloc_bytes = 9000 + answered * 300 + scrapes * 5000,
                                   .mallocs = 1000 + answered * 10 + scrapes * 7};
    stub.proc = (cmp_proc){.ok = true,
                           .cpu_ns = 70000000 + answered * 50000,
                           .rss_bytes = rss_mib * MIB,
                           .peak_rss_bytes = (rss_mib + 20) * MIB};
    sample(x,
           (cmp_sample){
               .t_s = (double)run->samples + 1, .answered = answered, .cpu_ns = answered * 50000},
           (cmp_progress){0});
}

static void made_up_seconds(run_ctx *x, cmp_run *run, bool counters)
{
    *run = (cmp_run){.ran = true, .counters = counters, .sample_cap = 3};
    run->sample = calloc(3, sizeof *run->sample);
    assert_non_null(run->sample);
    run->start =
        (cmp_counters){.ok = true, .hooked = true, .mallocs = 1000, .total_alloc_bytes = 9000};
    run->scrape_cost = (cmp_counters){.mallocs = 7, .total_alloc_bytes = 5000};
    run->proc_start = (cmp_proc){.ok = true, .cpu_ns = 70000000};
    *x = (run_ctx){.run = run};
    memset(&stub, 0, sizeof stub);
    second_passes(x, 1000, true, 100);
    second_passes(x, 1800, false, 200);
    run->load.answered = 2000;
    stub.counters = (cmp_counters){0};
}

static void what_failed_at_the_end_is_of_the_last_sample_and_its_answers(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_opts o = {.price_per_gib = 3};
    run_ctx x;
    /* It died: all of it is of the first second, the last one with a scrape. */
    made_up_seconds(&x, &run, true);
    stub.dead = true;
    stub.proc = (cmp_proc){0};
    stub.scraped = 0;
    on_end(&x);
    assert_true(run.died);
    assert_int_equal(stub.scraped, 0); /* there is nobody to ask */
    close_to(cmp_value(&o, &run, FIG_MALLOCS_PER_REQUEST, NULL), 10);
    close_to(cmp_value(&o, &run, FIG_BYTES_PER_REQUEST, NULL), 300);
    close_to(cmp_value(&o, &run, FIG_ALLOC_TOTAL, NULL), 300000);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 100.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_PEAK_RSS, NULL), 120.0 * MIB);
    free(run.sample);
    /* It lives, but does not answer /metrics: the process's own figures are of the end. */
    made_up_seconds(&x, &run, true);
    stub.proc.cpu_ns = 70000000 + 2000 * 60000ull;
    on_end(&x);
    assert_false(run.died);
    close_to(cmp_value(&o, &run, FIG_MALLOCS_PER_REQUEST, NULL), 10);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 60);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 200.0 * MIB);
    free(run.sample);
    /* Without counters: the last second of all. */
    made_up_seconds(&x, &run, false);
    stub.dead = true;
    stub.proc = (cmp_proc){0};
    on_end(&x);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 200.0 * MIB);
    free(run.sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_at_least_what_cannot_be_the_counters),
        cmocka_unit_test(before_is_forgiven_what_after_is_not),
        cmocka_unit_test(a_rate_is_missed_by_a_queue_not_by_a_few_late_answers),
        cmocka_unit_test(complaints_know_one_and_why),
        cmocka_unit_test(figures_of_a_made_up_run),
        cmocka_unit_test(what_failed_at_the_end_is_of_the_last_sample_and_its_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
