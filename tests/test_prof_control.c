/* test_prof_control.c - starting, stopping, changing the rate, at any time from any thread; bounds,
 * errors, forks and signals. Each check runs in a process of its own, in which nothing was started.
 */
#include "test_hook.h"
#include "test_prof.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>

static __attribute__((noinline)) void *allocate(size_t n)
{
    void *volatile p = malloc(n);
    return p;
}

static int start_at(size_t rate)
{
    return memkit_prof_start(&(memkit_prof_opts){.sample_bytes = rate});
}

static memkit_prof_stats_t stats(void)
{
    memkit_prof_stats_t st;
    memkit_prof_stats(&st);
    return st;
}

/* ---- errors ---------------------------------------------------------------------------------- */

#define GIVES(call, error) (errno = 0, (call) == -1 && errno == (error))

static const char *try_errors(void)
{
    memkit_buf *out = memkit_buf_new(0);
    MUST(out != NULL && memkit_buf_append_str(out, "as it was") == 0);
    MUST(memkit_prof_running() == 0);
    MUST(GIVES(memkit_prof_stop(), EINVAL));
    MUST(GIVES(memkit_prof_set_rate(1), EINVAL));
    MUST(GIVES(memkit_prof_write(out, MEMKIT_PROF_HEAP, MEMKIT_FMT_TEXT, NULL), ENODATA));
    errno = 0;
    memkit_prof_stats(NULL);
    MUST(errno == EINVAL);
    memkit_prof_opts bad[] = {{.reserved = {0, 0, 0, 0, 1}},
                              {.label_threads = 2},
                              {.sample_bytes = SIZE_MAX},
                              {.max_bytes = SIZE_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        MUST(GIVES(memkit_prof_start(&bad[i]), EINVAL));
    MUST(GIVES(memkit_prof_start(&(memkit_prof_opts){.max_bytes = 1}), ENOMEM));
    MUST(memkit_prof_running() == 0);
    MUST(memkit_prof_start(NULL) == 0 && memkit_prof_running() == 1);
    MUST(stats().sample_bytes == 512 * 1024 && stats().max_bytes == 64 << 20);
    MUST(GIVES(memkit_prof_start(NULL), EBUSY));
    MUST(GIVES(memkit_prof_set_rate(SIZE_MAX), EINVAL));
    MUST(memkit_prof_set_rate(4711) == 0 && stats().sample_bytes == 4711);
    MUST(memkit_prof_set_rate(0) == 0 && stats().sample_bytes == 512 * 1024);
    const memkit_prof_kind heap = MEMKIT_PROF_HEAP;
    MUST(GIVES(memkit_prof_write(NULL, heap, MEMKIT_FMT_TEXT, NULL), EINVAL));
    MUST(GIVES(memkit_prof_write(out, (memkit_prof_kind)9, MEMKIT_FMT_TEXT, NULL), EINVAL));
    MUST(GIVES(memkit_prof_write(out, heap, (memkit_prof_format)9, NULL), EINVAL));
    MUST(GIVES(memkit__prof_write_type(out, heap, MEMKIT_FMT_TEXT, NULL, "no_type"), EINVAL));
    memkit_prof_snap *snap = memkit_prof_snapshot();
    MUST(snap != NULL);
    MUST(GIVES(memkit_prof_write(out, MEMKIT_PROF_CPU, MEMKIT_FMT_TEXT, snap), EINVAL));
    memkit_prof_snap_free(snap);
    memkit_prof_snap_free(NULL);
    MUST(strcmp(out->data, "as it was") == 0);
    MUST(memkit_prof_write(out, heap, MEMKIT_FMT_TEXT, NULL) == 0 && out->len > 9);
    MUST(memkit_prof_stop() == 0 && memkit_prof_running() == 0);
    return NULL;
}

static void wrong_calls_get_their_errors_and_change_nothing(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_errors);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static const char *try_little_memory(void)
{
    enum { N = 100000 };
    static void *p[N];
    const size_t most = 1 << 20;
    MUST(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1, .max_bytes = most}) == 0);
    for (int full = 0; full < 2; full++) { /* one stack, which was there before */
        uint64_t dropped = stats().dropped;
        for (int i = 0; i < 1000; i++)
            free(allocate(20));
        MUST(stats().dropped == dropped);
        for (int i = 0; i < N; i++)
            p[i] = allocate(20);
        memkit_prof_stats_t st = stats();
        MUST(st.dropped > N / 2 && st.live_samples > 1000);
        MUST(st.own_bytes <= most && st.max_bytes == most);
        for (int i = 0; i < N; i++)
            free(p[i]);
        MUST(stats().live_samples < 100);
    }
    MUST(memkit_prof_stop() == 0);
    return NULL;
}

static void what_finds_no_room_is_counted_and_nothing_breaks(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_little_memory);
}

static const char *try_default(void)
{
    MUST(memkit_prof_start(NULL) == 0);
    for (int i = 0; i < 200000; i++) {
        void *p = allocate(4000);
        if (i % 2 == 0)
            free(p);
    }
    memkit_prof_stats_t st = stats();
    MUST(st.samples > 1000 && st.dropped == 0 && st.own_bytes < 3 << 20);
    return NULL;
}

static void sampling_at_the_default_rate_takes_less_than_3_mib(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_default);
}

/* ---- at any time ----------------------------------------------------------------------------- */

#define SHARED_BLOCKS 20000

static _Atomic(void *) shared_blocks[SHARED_BLOCKS];
static atomic_bool enough;

static void *loads(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    while (!enough) {
        size_t n = (size_t)rand_r(&seed) % 3000;
        void *p =
            atomic_exchange(&shared_blocks[(unsigned)rand_r(&seed) % SHARED_BLOCKS], allocate(n));
        if (n % 7 == 0)
            p = realloc(p, n + 1);
        free(p);
    }
    return NULL;
}

static void start_load(pthread_t threads[4])
{
    enough = false;
    for (uintptr_t i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, loads, (void *)(i + 1)) != 0)
            abort();
}

static void end_load(pthread_t threads[4])
{
    enough = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void free_all(void)
{
    for (int i = 0; i < SHARED_BLOCKS; i++)
        free(atomic_exchange(&shared_blocks[i], NULL));
}

/* All that was ever recorded of the load is freed: what is left is the threads' own. */
static const char *nothing_is_left(void)
{
    figures f = figures_of(0, NULL);
    memkit_prof_stats_t st = stats();
    MUST(st.dropped == 0 && st.samples > 10000);
    MUST(f.v[MEMKIT__ALLOC_OBJECTS] - f.v[MEMKIT__FREED_OBJECTS] == f.v[MEMKIT__INUSE_OBJECTS]);
    MUST(st.live_samples <= 8 && f.v[MEMKIT__INUSE_SPACE] < 100000);
    MUST(memkit__blocks_count() == st.live_samples);
    return NULL;
}

static const char *try_toggling(void)
{
    static const size_t rates[] = {1, 524288, 512, 16384};
    pthread_t threads[4];
    start_load(threads);
    for (unsigned i = 0; i < 100; i++) {
        MUST(start_at(rates[i % 4]) == 0);
        usleep(3000);
        MUST(memkit_prof_set_rate(rates[(i + 1) % 4]) == 0);
        usleep(3000);
        MUST(memkit_prof_stop() == 0);
        usleep(1000);
    }
    end_load(threads);
    free_all();
    return nothing_is_left();
}

static void toggled_100_times_under_load_it_does_not_drift(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_toggling);
}

static const char *try_stop(void)
{
    MUST(start_at(1) == 0);
    free(allocate(10));
    MUST(memkit_prof_stop() == 0);
    uint64_t samples = stats().samples;
    void *unseen = allocate(100);
    for (int i = 0; i < 1000; i++)
        free(allocate(100));
    MUST(stats().samples == samples);
    MUST(start_at(1) == 0);
    int64_t inuse = figures_of(0, NULL).v[MEMKIT__INUSE_SPACE];
    free(unseen);
    MUST(figures_of(0, NULL).v[MEMKIT__INUSE_SPACE] == inuse);
    free(allocate(10));
    MUST(stats().samples == samples + 1);
    return NULL;
}

static void what_is_allocated_while_stopped_is_in_no_profile(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_stop);
}

static bool says(const char *part)
{
    memkit_buf *out = memkit_buf_new(0);
    bool said = memkit_prof_write(out, MEMKIT_PROF_ALLOCS, MEMKIT_FMT_TEXT, NULL) == 0 &&
                strstr(out->data, part) != NULL;
    memkit_buf_free(out);
    return said;
}

static const char *try_two_rates(void)
{
    MUST(start_at(1) == 0);
    free(allocate(10));
    MUST(says("exact, in requested bytes"));
    MUST(memkit_prof_set_rate(10000) == 0);
    for (int i = 0; i < 1000; i++)
        free(allocate(1000));
    MUST(memkit_prof_set_rate(1) == 0);
    MUST(says("not exact") && !says("exact, in requested bytes"));
    return NULL;
}

static void what_was_once_sampled_is_not_called_exact(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_two_rates);
}

/* ---- names of threads ------------------------------------------------------------------------ */

static void *allocates_by_name(void *name)
{
    prctl(PR_SET_NAME, name);
    for (int i = 0; i < 20; i++) {
        void *volatile left = allocate(1000); /* also once it has a block */
        (void)left;
    }
    return NULL;
}

static const char *try_names(void)
{
    MUST(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1, .label_threads = 1}) == 0);
    static char names[2][16] = {"ant", "bee"};
    for (int i = 0; i < 2; i++) {
        pthread_t t;
        MUST(pthread_create(&t, NULL, allocates_by_name, names[i]) == 0);
        pthread_join(t, NULL);
    }
    MUST(memkit_prof_stop() == 0);
    int64_t bytes[2] = {0};
    memkit__scratch s = {0};
    memkit__profile *p = memkit__heap_profile(MEMKIT_PROF_HEAP, NULL, &s);
    MUST(p != NULL);
    for (uint32_t i = 0; i < p->n_samples; i++)
        for (int k = 0; k < 2; k++)
            if (p->samples[i].thread != NULL && strcmp(p->samples[i].thread, names[k]) == 0)
                bytes[k] += p->samples[i].values[MEMKIT__INUSE_SPACE];
    memkit__scratch_free(&s);
    MUST(bytes[0] == 20000 && bytes[1] == 20000);
    return NULL;
}

static void stacks_are_told_apart_by_the_threads_name_on_request(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_names);
}

/* ---- forks ----------------------------------------------------------------------------------- */

#define HELD 2000

static void *held[HELD];

static const char *child_of_a_load(void)
{
    figures f = figures_of(0, NULL);
    MUST(f.v[MEMKIT__INUSE_OBJECTS] >= HELD);
    MUST(memkit_prof_running() == 1 && memkit_prof_stop() == 0 && start_at(1) == 0);
    memkit_prof_stats_t before = stats();
    for (int i = 0; i < HELD; i++)
        free(held[i]);
    MUST(stats().live_samples == before.live_samples - HELD);
    pthread_t threads[4];
    start_load(threads);
    while (stats().samples < before.samples + 1000) /* the machine may be busy; alarm ends it */
        usleep(1000);
    end_load(threads);
    MUST(stats().dropped == 0);
    f = figures_of(0, NULL);
    MUST(f.v[MEMKIT__ALLOC_OBJECTS] - f.v[MEMKIT__FREED_OBJECTS] == f.v[MEMKIT__INUSE_OBJECTS]);
    return NULL;
}

static const char *try_forks(void)
{
    MUST(start_at(1) == 0);
    for (int i = 0; i < HELD; i++)
        held[i] = allocate(100);
    pthread_t threads[4];
    start_load(threads);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
            alarm(30);
            const char *wrong = child_of_a_load();
            if (wrong != NULL)
                fprintf(stderr, "in the child: %s\n", wrong);
            _exit(wrong != NULL);
        }
        int status;
        MUST(waitpid(pid, &status, 0) == pid && status == 0);
    }
    end_load(threads);
    free_all();
    for (int i = 0; i < HELD; i++)
        free(held[i]);
    return nothing_is_left();
}

static void a_child_forked_under_load_has_all_records_and_can_go_on(void **state)
{
    (void)state;
    NEEDS_HOOK();
    in_a_child(try_forks);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void a_handler_that_allocates_is_recorded_wherever_it_comes(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
#if !defined(__x86_64__)
    skip(); /* three instructions to a count elsewhere */
#endif
    char list[8192];
    snprintf(list, sizeof list, "%s:%s", in_build("libmemkit-prof.so.0"),
             in_build("tests/lib_plain_malloc.so"));
    preload_list = list;
    static const char *const rates[] = {"1", "100", "5000"};
    for (int i = 0; i < 3; i++)
        assert_ran(RUN(true, NULL, in_build("tests/prog_prof_signals"), rates[i]), 0);
    preload_list = NULL;
}

int main(void)
{
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_calls_get_their_errors_and_change_nothing),
        cmocka_unit_test(what_finds_no_room_is_counted_and_nothing_breaks),
        cmocka_unit_test(sampling_at_the_default_rate_takes_less_than_3_mib),
        cmocka_unit_test(toggled_100_times_under_load_it_does_not_drift),
        cmocka_unit_test(what_is_allocated_while_stopped_is_in_no_profile),
        cmocka_unit_test(what_was_once_sampled_is_not_called_exact),
        cmocka_unit_test(stacks_are_told_apart_by_the_threads_name_on_request),
        cmocka_unit_test(a_child_forked_under_load_has_all_records_and_can_go_on),
        cmocka_unit_test(a_handler_that_allocates_is_recorded_wherever_it_comes),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
