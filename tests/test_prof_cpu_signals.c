/* test_prof_cpu_signals.c - the CPU profile and SIGPROF: whose it is, where it may come, forks. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support.h"
#include "test_prof_cpu.h"

BURNER(most)
BURNER(some)
BURNER(few)

/* ---- refusals ---- */

static void a_second_start_and_a_second_stop_are_refused(void **state)
{
    (void)state;
    assert_errno(memkit_prof_cpu_stop(), -1, EINVAL);
    assert_errno(memkit_prof_cpu_start(1001), -1, EINVAL);
    start(1000);
    assert_errno(memkit_prof_cpu_start(100), -1, EBUSY);
    stop();
    assert_errno(memkit_prof_cpu_stop(), -1, EINVAL);
}

static atomic_uint own_signals;

static void own_handler(int sig)
{
    (void)sig;
    atomic_fetch_add(&own_signals, 1);
}

static void a_program_with_a_handler_keeps_it(void **state)
{
    (void)state;
    signal(SIGPROF, own_handler);
    assert_errno(memkit_prof_cpu_start(100), -1, EBUSY);
    assert_int_equal(sigprof_action(), (uintptr_t)own_handler);
    signal(SIGPROF, SIG_IGN);
    start(100);
    stop();
    assert_int_equal(sigprof_action(), (uintptr_t)SIG_IGN);
    signal(SIGPROF, SIG_DFL);
    start(100);
    assert_int_not_equal(sigprof_action(), (uintptr_t)SIG_DFL);
    stop();
    assert_int_equal(sigprof_action(), (uintptr_t)SIG_DFL);
}

static void a_handler_set_while_it_runs_is_the_programs(void **state)
{
    (void)state;
    start(1000);
    burn_few(30 * MS);
    signal(SIGPROF, own_handler);
    sleep_ms(300); /* the helper comes by */
    burn_few(20 * MS);
    atomic_store(&own_signals, 0);
    burn_few(100 * MS);
    assert_int_equal(atomic_load(&own_signals), 0);
    assert_errno(memkit_prof_cpu_start(100), -1, EBUSY);
    stop();
    assert_int_equal(sigprof_action(), (uintptr_t)own_handler);
    assert_true(cpu_comment_has("ended early"));
    signal(SIGPROF, SIG_DFL);
    start(1000);
    stop();
    assert_false(cpu_comment_has("ended early"));
}

/* ---- signals ---- */

static bool sigprof_pending(void)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGPROF) == 1;
}

static atomic_bool hammered;

static void *burns_on(void *arg)
{
    sigset_t prof;
    sigemptyset(&prof);
    sigaddset(&prof, SIGPROF);
    while (!atomic_load(&hammered)) {
        if (arg != NULL) /* pending ones come all at once, after a stop, too */
            pthread_sigmask(SIG_BLOCK, &prof, NULL);
        burn_some(7 * MS);
        pthread_sigmask(SIG_UNBLOCK, &prof, NULL);
    }
    return NULL;
}

static void hammer(void)
{
    pthread_t id[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&id[i], NULL, burns_on, i < 2 ? NULL : &id[i]) == 0);
    for (int i = 0; i < (SANITIZED ? 20 : 100); i++) {
        CHECK(memkit_prof_cpu_start(1000) == 0);
        sleep_ms(10);
        CHECK(memkit_prof_cpu_stop() == 0);
        CHECK(sigprof_action() == (uintptr_t)SIG_DFL);
        CHECK(timers_of_process() <= 0);
    }
    atomic_store(&hammered, true);
    for (int i = 0; i < 4; i++)
        pthread_join(id[i], NULL);
}

static void no_stray_signal_kills_after_stop(void **state)
{
    (void)state;
    assert_true(child_does(hammer));
}

static void a_blocked_signal_is_gone_after_stop(void **state)
{
    (void)state;
    sigset_t prof;
    sigemptyset(&prof);
    sigaddset(&prof, SIGPROF);
    sigprocmask(SIG_BLOCK, &prof, NULL);
    start(1000);
    burn_few(50 * MS);
    assert_true(sigprof_pending());
    stop();
    assert_false(sigprof_pending());
    sigprocmask(SIG_UNBLOCK, &prof, NULL);
}

static void errno_and_system_calls_are_left_alone(void **state)
{
    (void)state;
    start(1000);
    struct sigaction now;
    sigaction(SIGPROF, NULL, &now);
    assert_true((now.sa_flags & SA_RESTART) != 0 && (now.sa_flags & SA_ONSTACK) != 0);
    const int64_t from = test_clock(CLOCK_THREAD_CPUTIME_ID);
    errno = 4711;
    while (test_clock(CLOCK_THREAD_CPUTIME_ID) - from < 200 * MS)
        if (errno != 4711)
            break;
    const int after = errno;
    stop();
    assert_int_equal(after, 4711);
    assert_true(ns_in(NULL) > 50 * MS);
}

static void a_signal_of_another_origin_is_not_counted(void **state)
{
    (void)state;
    start(1);
    for (int i = 0; i < 100; i++)
        raise(SIGPROF);
    stop();
    assert_in_range(ns_in(NULL), 0, 1000 * MS); /* 100 s else */
}

/* ---- where it may come ---- */

static atomic_bool enough;
static atomic_uint handled;

static void signal_burner(int sig)
{
    (void)sig;
    burn_few(1 * MS);
    atomic_fetch_add(&handled, 1);
}

static void *in_malloc(void *arg)
{
    (void)arg;
    void *p[64] = {0};
    for (uint64_t seed = 1; !atomic_load(&enough);) {
        const uint64_t r = next_random(&seed);
        free(p[r % 64]);
        p[r % 64] = malloc(r >> 8 & 4095);
    }
    for (int i = 0; i < 64; i++)
        free(p[i]);
    return NULL;
}

static void *in_loader(void *arg)
{
    (void)arg;
    while (!atomic_load(&enough)) {
        void *lib = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        if (lib != NULL)
            dlclose(lib);
        lib = dlopen("libnss_files.so.2", RTLD_NOW);
        if (lib != NULL)
            dlclose(lib);
        dlopen("/does/not/exist.so", RTLD_NOW);
    }
    return NULL;
}

static void *in_vdso_and_handlers(void *arg)
{
    (void)arg;
    while (!atomic_load(&enough)) {
        for (int i = 0; i < 10000; i++)
            test_clock(CLOCK_MONOTONIC);
        raise(SIGUSR1);
    }
    return NULL;
}

static void *nothing(void *arg)
{
    return arg;
}

static void *in_thread_births(void *arg)
{
    (void)arg;
    while (!atomic_load(&enough)) {
        pthread_t id;
        if (pthread_create(&id, NULL, nothing, NULL) == 0)
            pthread_join(id, NULL);
    }
    return NULL;
}

static void it_may_come_anywhere(void **state)
{
    (void)state;
    void *(*const where[])(void *) = {in_malloc, in_malloc, in_loader, in_vdso_and_handlers,
                                      in_thread_births};
    enum { N = sizeof where / sizeof *where };
    pthread_t id[N];
    signal(SIGUSR1, signal_burner);
    atomic_store(&enough, false);
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&id[i], NULL, where[i], NULL), 0);
    for (int i = 0; i < 5; i++) {
        start(1000);
        sleep_ms(200);
        stop();
        assert_true(ns_in(NULL) > 20 * MS);
    }
    atomic_store(&enough, true);
    for (int i = 0; i < N; i++)
        pthread_join(id[i], NULL);
    assert_true(atomic_load(&handled) > 0);
    signal(SIGUSR1, SIG_DFL);
}

/* ---- fork ---- */

static void as_a_child(void)
{
    memkit__scratch s = {0};
    CHECK(timers_of_process() <= 0);
    CHECK(sigprof_action() == (uintptr_t)SIG_DFL);
    errno = 0;
    CHECK(memkit__cpu_profile(&s) == NULL && errno == ENODATA);
    errno = 0;
    CHECK(memkit_prof_cpu_stop() == -1 && errno == EINVAL);
    CHECK(memkit_prof_cpu_start(1000) == 0);
    burn_few(60 * MS);
    CHECK(memkit_prof_cpu_stop() == 0);
    CHECK(ns_in(in_few) > 20 * MS);
    CHECK(ns_in(in_most) == 0);
}

static void a_child_of_a_fork_has_no_profile_and_may_start_one(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip(); /* no threads in the child of a process with threads */
    start(1000);
    burn_most(40 * MS);
    assert_true(child_does(as_a_child));
    burn_some(60 * MS); /* the parent's goes on */
    stop();
    assert_true(ns_in(in_some) > 20 * MS);
    assert_int_equal(ns_in(in_few), 0);
}

static atomic_bool forked_enough;

static void *starts_and_stops(void *arg)
{
    (void)arg;
    while (!atomic_load(&forked_enough)) {
        if (memkit_prof_cpu_start(1000) == 0)
            memkit_prof_cpu_stop();
    }
    return NULL;
}

static void start_once(void)
{
    CHECK(memkit_prof_cpu_start(1000) == 0);
    CHECK(memkit_prof_cpu_stop() == 0);
    CHECK(sigprof_action() == (uintptr_t)SIG_DFL);
}

static void forks_while_another_thread_starts_and_stops(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* their mallocs' locks stay taken in a child, and TSan lets it have no threads */
    pthread_t id;
    atomic_store(&forked_enough, false);
    assert_int_equal(pthread_create(&id, NULL, starts_and_stops, NULL), 0);
    bool good = true;
    for (int i = 0; i < 50 && good; i++)
        good = child_does(start_once);
    atomic_store(&forked_enough, true);
    pthread_join(id, NULL);
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_start_and_a_second_stop_are_refused),
        cmocka_unit_test(a_program_with_a_handler_keeps_it),
        cmocka_unit_test(a_handler_set_while_it_runs_is_the_programs),
        cmocka_unit_test(no_stray_signal_kills_after_stop),
        cmocka_unit_test(a_blocked_signal_is_gone_after_stop),
        cmocka_unit_test(errno_and_system_calls_are_left_alone),
        cmocka_unit_test(a_signal_of_another_origin_is_not_counted),
        cmocka_unit_test(it_may_come_anywhere),
        cmocka_unit_test(a_child_of_a_fork_has_no_profile_and_may_start_one),
        cmocka_unit_test(forks_while_another_thread_starts_and_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
