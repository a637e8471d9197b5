/* test_prof_cpu.c - the CPU profile: what it shows, and what it does to signals, threads, forks. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"
#include "test_prof_cpu.h"

/* TSan has one of its own. */
#define OWN_THREADS (UNDER_TSAN ? 2 : 1)

BURNER(most)
BURNER(some)
BURNER(few)
BURNER(t0)
BURNER(t1)
BURNER(t2)
BURNER(t3)
BURNER(t4)
BURNER(t5)
BURNER(t6)
BURNER(t7)

typedef struct {
    int64_t (*burn)(int64_t ns);
    bool (*in)(uintptr_t pc);
    int64_t ns, burnt;
    pthread_barrier_t *gate;
    pthread_t id;
} burner;

static void *run_burner(void *arg)
{
    burner *b = arg;
    if (b->gate != NULL)
        pthread_barrier_wait(b->gate);
    b->burnt = b->burn(b->ns);
    return NULL;
}

static const burner eight[8] = {{burn_t0, in_t0, 0, 0, 0, 0}, {burn_t1, in_t1, 0, 0, 0, 0},
                                {burn_t2, in_t2, 0, 0, 0, 0}, {burn_t3, in_t3, 0, 0, 0, 0},
                                {burn_t4, in_t4, 0, 0, 0, 0}, {burn_t5, in_t5, 0, 0, 0, 0},
                                {burn_t6, in_t6, 0, 0, 0, 0}, {burn_t7, in_t7, 0, 0, 0, 0}};

/* ---- what it shows ---- */

static void functions_show_the_shares_of_processor_time_they_burn(void **state)
{
    (void)state;
    int64_t burnt[3] = {0};
    start(1000);
    for (int round = 0; round < 2; round++) {
        burnt[0] += burn_most(490 * MS);
        burnt[1] += burn_some(140 * MS);
        burnt[2] += burn_few(70 * MS);
    }
    stop();
    const int64_t all = burnt[0] + burnt[1] + burnt[2], seen = ns_in(NULL);
    const int64_t of[3] = {ns_in(in_most), ns_in(in_some), ns_in(in_few)};
    for (int i = 0; i < 3; i++) {
        const double share = 100 * (double)of[i] / (double)seen;
        const double truth = 100 * (double)burnt[i] / (double)all;
        if (share < truth - 5 || share > truth + 5)
            fail_msg("function %d: %.1f %% in the profile, %.1f %% burnt", i, share, truth);
    }
    /* Weights: a kernel looks at these clocks at its ticks, of which it may have fewer than 1000 a
     * second; then each signal stands for several periods. */
    if (seen < all * 9 / 10 || seen > all * 12 / 10)
        fail_msg("%.3f s in samples, %.3f s burnt", (double)seen / 1e9, (double)all / 1e9);
}

/* A kernel looks at these clocks at its ticks alone: what a thread used since the last that met it
 * is lost when it ends. On a loaded machine, with short turns, that may be most of one thread's
 * little, but not of all of them.
 */
static void check_eight(const burner *b)
{
    int64_t seen_of_all = 0, burnt_by_all = 0;
    for (int i = 0; i < 8; i++) {
        const int64_t seen = ns_in(b[i].in);
        if (seen == 0 || seen > b[i].burnt + 25 * MS)
            fail_msg("thread %d: %.3f s in samples, %.3f s burnt", i, (double)seen / 1e9,
                     (double)b[i].burnt / 1e9);
        seen_of_all += seen;
        burnt_by_all += b[i].burnt;
    }
    if (seen_of_all < burnt_by_all / 2)
        fail_msg("%.3f s in samples, %.3f s burnt", (double)seen_of_all / 1e9,
                 (double)burnt_by_all / 1e9);
}

static void each_of_eight_threads_is_seen(void **state)
{
    (void)state;
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, 9);
    burner b[8];
    for (int i = 0; i < 8; i++) {
        b[i] = eight[i];
        b[i].ns = (90 + 20 * i) * MS;
        b[i].gate = &gate;
        assert_int_equal(pthread_create(&b[i].id, NULL, run_burner, &b[i]), 0);
    }
    start(500);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < 8; i++)
        pthread_join(b[i].id, NULL);
    stop();
    pthread_barrier_destroy(&gate);
    check_eight(b);
}

static void threads_born_while_it_runs_are_seen(void **state)
{
    (void)state;
    burner b[8];
    start(500);
    for (int i = 0; i < 8; i++) {
        b[i] = eight[i];
        b[i].ns = 150 * MS;
        assert_int_equal(pthread_create(&b[i].id, NULL, run_burner, &b[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(b[i].id, NULL);
    stop();
    check_eight(b); /* what they burn before they are found is lost */
    assert_true(cpu_comment_has(OWN_THREADS == 1 ? " 9 threads seen" : " 10 threads seen"));
}

static void *sleeper(void *arg)
{
    (void)arg;
    sleep_ms(300);
    return NULL;
}

static void threads_that_sleep_are_not_in_it(void **state)
{
    (void)state;
    pthread_t id[8];
    const int64_t from = test_clock(CLOCK_PROCESS_CPUTIME_ID);
    start(1000);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&id[i], NULL, sleeper, NULL), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(id[i], NULL);
    stop();
    const int64_t used = test_clock(CLOCK_PROCESS_CPUTIME_ID) - from;
    assert_in_range(ns_in(NULL), 0, used + 20 * MS); /* of 8 * 300 ms */
}

static void the_profile_says_what_it_is(void **state)
{
    (void)state;
    start(0);
    burn_most(150 * MS);
    memkit__scratch s = {0};
    memkit__profile *p = memkit__cpu_profile(&s); /* while it runs */
    assert_non_null(p);
    assert_int_equal(p->n_types, 2);
    assert_string_equal(p->types[0].type, "samples");
    assert_string_equal(p->types[0].unit, "count");
    assert_string_equal(p->types[1].type, "cpu");
    assert_string_equal(p->types[1].unit, "nanoseconds");
    assert_int_equal(p->default_type, 1);
    assert_string_equal(p->period_type.type, "cpu");
    assert_string_equal(p->period_type.unit, "nanoseconds");
    assert_int_equal(p->period, 10 * MS);
    assert_true(p->duration_ns >= 150 * MS);
    assert_in_range(p->time_ns, test_clock(CLOCK_REALTIME) - 60000 * MS,
                    test_clock(CLOCK_REALTIME));
    assert_true(p->n_samples > 0);
    for (uint32_t i = 0; i < p->n_samples; i++)
        assert_int_equal(p->samples[i].values[1], p->samples[i].values[0] * 10 * MS);
    memkit__scratch_free(&s);
    stop();
    assert_true(cpu_comment_has("10.000 ms"));
    assert_true(cpu_comment_has("processor time of the process"));
}

static void a_run_begins_without_the_one_before(void **state)
{
    (void)state;
    start(1000);
    burn_some(60 * MS);
    stop();
    assert_true(ns_in(in_some) > 20 * MS);
    start(1000);
    burn_few(60 * MS);
    stop();
    assert_int_equal(ns_in(in_some), 0);
    assert_true(ns_in(in_few) > 20 * MS);
    burn_few(60 * MS); /* and ends with its stop */
    const int64_t after = ns_in(in_few);
    burn_few(60 * MS);
    assert_int_equal(ns_in(in_few), after);
}

static void own_memory_is_in_no_counter(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    start(1000); /* what libc makes once is made */
    stop();
    memkit_memstats_t before, after;
    memkit_memstats(&before);
    assert_true(before.hooked);
    for (int i = 0; i < 10; i++) {
        start(1000);
        burn_few(10 * MS);
        stop();
    }
    memkit_memstats(&after);
    assert_int_equal(after.mallocs, before.mallocs);
    assert_int_equal(after.frees, before.frees);
    assert_int_equal(after.alloc_bytes, before.alloc_bytes);
}

static void timers_of_dead_threads_are_deleted(void **state)
{
    (void)state;
    if (timers_of_process() < 0)
        skip();
    start(100);
    int most = 0;
    for (int round = 0; round < 6; round++) {
        pthread_t id[20];
        for (int i = 0; i < 20; i++)
            assert_int_equal(pthread_create(&id[i], NULL, sleeper, NULL), 0);
        sleep_ms(100);
        const int now = timers_of_process();
        most = now > most ? now : most;
        for (int i = 0; i < 20; i++)
            pthread_join(id[i], NULL);
    }
    assert_in_range(most, 10, 21 + 20); /* of 120 */
    for (int ms = 0; timers_of_process() > OWN_THREADS && ms < 10000; ms += 10)
        sleep_ms(10);
    assert_int_equal(timers_of_process(), OWN_THREADS);
    stop();
    assert_int_equal(timers_of_process(), 0);
}

static void *waits_at(void *gate)
{
    pthread_barrier_wait(gate);
    return NULL;
}

static void hundreds_of_threads_have_a_timer_each(void **state)
{
    (void)state;
    enum { N = UNDER_TSAN ? 50 : 700 };
    pthread_t *id = calloc(N, sizeof *id);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, (size_t)128 * 1024);
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, N + 1);
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&id[i], &small, waits_at, &gate), 0);
    start(100);
    char want[64];
    snprintf(want, sizeof want, " %d threads seen", N + OWN_THREADS);
    assert_true(cpu_comment_has(want));
    if (timers_of_process() >= 0)
        assert_int_equal(timers_of_process(), N + OWN_THREADS);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < N; i++)
        pthread_join(id[i], NULL);
    stop();
    pthread_attr_destroy(&small);
    pthread_barrier_destroy(&gate);
    free(id);
}

/* ---- limits ---- */

static void no_memory_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    memkit__kept_limit(memkit__kept_bytes());
    const int result = memkit_prof_cpu_start(100), error = errno;
    memkit__kept_limit((size_t)64 << 20);
    assert_int_equal(result, -1);
    assert_int_equal(error, ENOMEM);
    assert_int_equal(sigprof_action(), (uintptr_t)SIG_DFL);
    assert_true(timers_of_process() <= 0);
    const size_t kept = memkit__kept_bytes();
    start(100);
    assert_true(memkit__kept_bytes() > kept);
    stop();
    assert_int_equal(memkit__kept_bytes(), kept);
}

static void count_without_timers(void)
{
    CHECK(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){0}) == 0);
    CHECK(memkit_prof_cpu_start(1000) == 0);
    burn_few(50 * MS);
    CHECK(memkit_prof_cpu_stop() == 0);
    CHECK(cpu_comment_has("threads at a time could have no timer"));
    CHECK(ns_in(NULL) == 0);
}

static void a_thread_that_can_have_no_timer_is_told(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip(); /* no threads in the child of a process with threads */
    assert_true(child_does(count_without_timers));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_show_the_shares_of_processor_time_they_burn),
        cmocka_unit_test(each_of_eight_threads_is_seen),
        cmocka_unit_test(threads_born_while_it_runs_are_seen),
        cmocka_unit_test(threads_that_sleep_are_not_in_it),
        cmocka_unit_test(the_profile_says_what_it_is),
        cmocka_unit_test(a_run_begins_without_the_one_before),
        cmocka_unit_test(own_memory_is_in_no_counter),
        cmocka_unit_test(no_memory_is_an_error_and_changes_nothing),
        cmocka_unit_test(a_thread_that_can_have_no_timer_is_told),
        cmocka_unit_test(timers_of_dead_threads_are_deleted),
        cmocka_unit_test(hundreds_of_threads_have_a_timer_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
