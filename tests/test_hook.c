/* test_hook.c - libmemkit-prof linked into this very program (the static archive, exported by
 * --export-dynamic-symbol): counts, threads, peak, fork, attaching. test_hook_preload.c has the
 * rest. The checks of the malloc family and of threads are those of tests/prog_hook_*.c, run here.
 */
#include "test_hook.h"

/* ---- linked: calls and threads --------------------------------------------------------------- */

static void linked_it_counts_the_family_exactly(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* their malloc answers failing calls and alignments in its own way */
    for (size_t i = 0; i < FAMILY_CHECKS; i++)
        if (!family[i].run())
            fail_msg("failed: %s", family[i].name);
}

static void linked_it_counts_threads_exactly(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    for (size_t i = 0; i < THREAD_CHECKS; i++)
        if (!threaded[i].run())
            fail_msg("failed: %s", threaded[i].name);
}

static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;
static const memkit__block *seen[64];
static unsigned n_seen;

static void see_block(void)
{
    const memkit__block *b = memkit__me.block;
    pthread_mutex_lock(&seen_lock);
    unsigned i = 0;
    while (i < n_seen && seen[i] != b)
        i++;
    if (i == n_seen && n_seen < 64)
        seen[n_seen++] = b;
    pthread_mutex_unlock(&seen_lock);
}

static void ten_thousand_short_threads_share_a_handful_of_blocks(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    n_seen = 0;
    short_thread_seen = see_block;
    assert_true(ten_thousand_short_threads_leave_no_drift());
    short_thread_seen = NULL;
    /* 8 at once, those that joined but are still dying, and the place-holder of the very short */
    assert_true(n_seen >= 2 && n_seen <= 20);
}

static void *first_calls_keep_errno(void *arg)
{
    int *wrong = arg;
    for (int i = 0; i < 40; i++) {
        errno = 4711;
        void *volatile p = malloc(40000);
        *wrong += errno != 4711;
        free(p);
        *wrong += errno != 4711;
    }
    return NULL;
}

static void taking_a_block_keeps_errno(void **state)
{
    (void)state;
    int wrong = 0;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, first_calls_keep_errno, &wrong), 0);
    pthread_join(t, NULL);
    assert_int_equal(wrong, 0);
}

static void the_core_finds_the_hook_and_reads_it(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    memkit_thread_allocs_t t0, t1;
    assert_int_equal(memkit_thread_allocs(&t0), 1);
    void *volatile p = malloc(100);
    size_t usable = malloc_usable_size(p);
    free(p);
    assert_int_equal(memkit_thread_allocs(&t1), 1);
    assert_int_equal(t1.mallocs - t0.mallocs, 1);
    assert_int_equal(t1.frees - t0.frees, 1);
    assert_int_equal(t1.bytes - t0.bytes, usable);
    memkit_memstats_t m0, m1;
    memkit_memstats(&m0);
    p = malloc(1000000);
    usable = malloc_usable_size(p);
    memkit_memstats(&m1);
    assert_true(m0.hooked);
    assert_int_equal(m1.mallocs - m0.mallocs, 1);
    assert_int_equal(m1.frees, m0.frees);
    assert_int_equal(m1.alloc_bytes - m0.alloc_bytes, usable);
    assert_int_equal(m1.total_alloc_bytes - m0.total_alloc_bytes, usable);
    assert_true(m1.peak_alloc_bytes >= m1.alloc_bytes);
    free(p);
}

/* ---- peak ------------------------------------------------------------------------------------ */

#define SLACK ((uint64_t)64 * 1024)

static uint64_t live_now(void)
{
    memkit__counts c;
    memkit__process_counts(&c);
    return c.alloc_bytes - c.freed_bytes;
}

static uint64_t peak_now(void)
{
    memkit__counts c;
    memkit__process_counts(&c);
    return c.peak_bytes;
}

/* Blocks of every size up to a new peak, which is then known to the byte; and down again. */
static void peak_is_never_below_the_truth_and_at_most_64_KiB_above(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    static void *blocks[4000];
    uint64_t most = live_now();
    for (size_t i = 0; i < 4000; i++) {
        blocks[i] = malloc(i * 7 % 3000);
        uint64_t live = live_now(), peak = peak_now();
        most = live > most ? live : most;
        assert_true(peak >= most);
        assert_true(peak <= most + SLACK);
        if (i % 3 == 2) {
            free(blocks[i - 1]);
            blocks[i - 1] = NULL;
        }
    }
    for (size_t i = 0; i < 4000; i++)
        free(blocks[i]);
    free(top);
    assert_true(peak_now() >= most);
    assert_true(peak_now() <= most + SLACK);
}

static pthread_barrier_t all_hold, all_may_go;

static void *holds_some(void *arg)
{
    void *held[500];
    (void)arg;
    for (int i = 0; i < 500; i++)
        held[i] = malloc((size_t)i * 13);
    pthread_barrier_wait(&all_hold);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 500; i++)
        free(held[i]);
    return NULL;
}

static void peak_holds_over_threads_and_their_room_comes_back(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    assert_true(ten_thousand_short_threads_leave_no_drift()); /* leaves no room reserved */
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    free(top);
    uint64_t before = peak_now();
    top = malloc(before - live_now() + 1000000);
    pthread_t t[6];
    pthread_barrier_init(&all_hold, NULL, 7);
    pthread_barrier_init(&all_may_go, NULL, 7);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&t[i], NULL, holds_some, NULL), 0);
    pthread_barrier_wait(&all_hold);
    uint64_t most = live_now(), peak = peak_now();
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_true(most > before + 6 * 500 * 250 * 13); /* so it is this peak that was measured */
    assert_true(peak >= most);
    assert_true(peak <= most + 7 * SLACK);
    free(top);
    /* one thread is left: the next peak is within its own 64 KiB again */
    top = malloc(peak - live_now() + 1000000);
    assert_true(peak_now() >= live_now());
    assert_true(peak_now() <= live_now() + SLACK);
    free(top);
}

/* ---- fork, signals --------------------------------------------------------------------------- */

static int child_counts(void)
{
    memkit__counts before, after;
    memkit__process_counts(&before);
    start();
    void *p = got(malloc(hundred));
    if (!agreed())
        return 1;
    free(gone(p));
    if (!agreed())
        return 2;
    if (!eight_busy_threads_are_counted_exactly()) /* takes the blocks of threads left behind */
        return 3;
    memkit__process_counts(&after);
    if (after.mallocs < before.mallocs + 700000)
        return 4;
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    (void)top;
    return peak_now() >= live_now() && peak_now() <= live_now() + SLACK ? 0 : 5;
}

static void *waits_with_a_block(void *arg)
{
    (void)arg;
    void *held[20];
    for (int i = 0; i < 20; i++)
        held[i] = malloc(1000);
    pthread_barrier_wait(&all_hold);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 20; i++)
        free(held[i]);
    return NULL;
}

static void a_forked_child_goes_on_counting(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    pthread_t t[3];
    pthread_barrier_init(&all_hold, NULL, 4);
    pthread_barrier_init(&all_may_go, NULL, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, waits_with_a_block, NULL), 0);
    pthread_barrier_wait(&all_hold);
    memkit__counts parent, now;
    memkit__process_counts(&parent);
    pid_t pid = fork();
    if (pid == 0) {
        memkit__process_counts(&now);
        if (now.mallocs < parent.mallocs || now.alloc_bytes < parent.alloc_bytes)
            _exit(6); /* the memory of the other threads is the child's too */
        _exit(child_counts());
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}

static volatile sig_atomic_t interrupted;

static void count_in_handler(int signo)
{
    (void)signo;
    interrupted = interrupted + 1;
    for (int i = 0; i < 50; i++)
        memkit__count_malloc(4000);
    for (int i = 0; i < 50; i++)
        memkit__count_free(4000);
}

/* malloc itself may not be called in a handler; but a program that does gets right counts, if its
 * malloc survives. So it is the counting alone that is interrupted here, anywhere in it. */
static void a_signal_in_the_middle_loses_no_count(void **state)
{
    (void)state;
#if !defined(__x86_64__)
    skip(); /* three instructions to a count elsewhere */
#endif
    if (SANITIZED)
        skip(); /* thread's delivers a signal only at calls that it intercepts */
    struct sigaction act = {.sa_handler = count_in_handler}, old;
    struct itimerspec soon = {{0, 50000}, {0, 50000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    sigaction(SIGALRM, &act, &old);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    interrupted = 0;
    memkit__counts before, after;
    memkit__thread_counts(&before);
    uint64_t live = live_now(), calls = 0;
    timer_settime(timer, 0, &soon, NULL);
    while (interrupted < 2000) {
        for (int i = 0; i < 1000; i++) {
            memkit__count_malloc(5000);
            memkit__count_free(5000);
        }
        calls += 1000;
    }
    timer_delete(timer);
    memkit__thread_counts(&after);
    sigaction(SIGALRM, &old, NULL);
    calls += (uint64_t)interrupted * 50;
    assert_int_equal(after.mallocs - before.mallocs, calls);
    assert_int_equal(after.frees - before.frees, calls);
    assert_int_equal(live_now(), live);
    assert_true(peak_now() >= live_now());
}

/* ---- attaching ------------------------------------------------------------------------------- */

static void attach_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    memkit__core_table core = fake_core;
    assert_null(memkit_prof_attach(NULL));
    core.abi = MEMKIT__ATTACH_ABI + 1;
    assert_null(memkit_prof_attach(&core));
    core.abi = MEMKIT__ATTACH_ABI;
    core.size = offsetof(memkit__core_table, each_object);
    assert_null(memkit_prof_attach(&core));
    core.size = sizeof core + 64; /* a newer one */
    const memkit__prof_table *table = memkit_prof_attach(&core);
    assert_non_null(table);
    assert_int_equal(table->abi, MEMKIT__ATTACH_ABI);
    assert_int_equal(table->size, sizeof *table);
    table->detach(&core);
}

static void sixteen_cores_have_a_place(void **state)
{
    (void)state;
    memkit__core_table core[17];
    int placed = 0;
    for (int i = 0; i < 17; i++) {
        core[i] = fake_core;
        if (memkit_prof_attach(&core[i]) != NULL)
            placed++;
    }
    /* this program's own libmemkit has one, and so has fake_core */
    assert_int_equal(placed, 14);
    assert_non_null(memkit_prof_attach(&core[3])); /* again: no second place */
    prof->detach(&core[5]);
    assert_non_null(memkit_prof_attach(&core[16]));
    for (int i = 0; i < 17; i++)
        prof->detach(&core[i]);
}

int main(void)
{
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linked_it_counts_the_family_exactly),
        cmocka_unit_test(linked_it_counts_threads_exactly),
        cmocka_unit_test(ten_thousand_short_threads_share_a_handful_of_blocks),
        cmocka_unit_test(taking_a_block_keeps_errno),
        cmocka_unit_test(the_core_finds_the_hook_and_reads_it),
        cmocka_unit_test(peak_is_never_below_the_truth_and_at_most_64_KiB_above),
        cmocka_unit_test(peak_holds_over_threads_and_their_room_comes_back),
        cmocka_unit_test(a_forked_child_goes_on_counting),
        cmocka_unit_test(a_signal_in_the_middle_loses_no_count),
        cmocka_unit_test(attach_refuses_what_it_does_not_know),
        cmocka_unit_test(sixteen_cores_have_a_place),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
