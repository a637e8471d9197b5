/* test_hook_process.c - the hook in odd states of a process: in signal handlers, in forks while
 * threads allocate, loaded with dlopen; and how much static thread-local storage it takes.
 */
#include "test_hook.h"

/* A malloc that allows it lies underneath, so that it is the hook that is interrupted. */
static void a_handler_may_allocate_wherever_the_malloc_underneath_allows(void **state)
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
    const result *r = RUN(true, NULL, in_build("tests/prog_hook_signals"), "any");
    preload_list = NULL;
    assert_ran(r, 0);
}

static void a_handler_may_allocate_while_the_counters_are_read(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_signals"), "reads"), 0);
}

static void libmemkit_loaded_late_finds_the_counters(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const char *core = in_build("libmemkit.so.0");
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_core"), core, "hooked"), 0);
    assert_ran(RUN(false, NULL, in_build("tests/prog_hook_core"), core, "unhooked"), 0);
}

/* ---- forks ----------------------------------------------------------------------------------- */

static atomic_bool forking_done;

static void *allocates_meanwhile(void *arg)
{
    (void)arg;
    for (unsigned i = 0; !forking_done; i++) {
        void *volatile p = malloc(i % 5000);
        free(p);
    }
    return NULL;
}

/* In the child: it allocates, its threads do, and the counters are right. */
static int child_of_a_thread(void)
{
    start();
    void *p = got(malloc(hundred));
    if (!agreed())
        return 1;
    free(gone(p));
    pthread_t t;
    forking_done = true;
    if (!agreed() || pthread_create(&t, NULL, allocates_meanwhile, NULL) != 0)
        return 2;
    pthread_join(t, NULL);
    memkit__counts c;
    memkit__process_counts(&c);
    return c.frees <= c.mallocs && c.freed_bytes <= c.alloc_bytes &&
                   c.peak_bytes >= c.alloc_bytes - c.freed_bytes
               ? 0
               : 3;
}

static void *forks(void *arg)
{
    int *wrong = arg;
    for (int i = 0; i < 50; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(child_of_a_thread());
        int status = -1;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
            ++*wrong;
    }
    return NULL;
}

static void threads_may_fork_while_others_allocate(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* malloc is theirs, and TSan forbids threads in such a child */
    pthread_t busy[2], forking[2];
    int wrong[2] = {0, 0};
    forking_done = false;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&busy[i], NULL, allocates_meanwhile, NULL), 0);
        assert_int_equal(pthread_create(&forking[i], NULL, forks, &wrong[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(forking[i], NULL);
    forking_done = true;
    for (int i = 0; i < 2; i++)
        pthread_join(busy[i], NULL);
    assert_int_equal(wrong[0] + wrong[1], 0);
}

/* ---- thread-local storage -------------------------------------------------------------------- */

static void at_most_64_bytes_of_static_thread_local_storage_a_library(void **state)
{
    (void)state;
    if (!present("readelf"))
        skip();
    static const char *const libraries[] = {"libmemkit.so.0", "libmemkit-prof.so.0"};
    for (int i = 0; i < 2; i++) {
        const result *r =
            RUN(false, NULL, "sh", "-c", "readelf -lW \"$0\" | awk '$1 == \"TLS\" { print $6 }'",
                in_build(libraries[i]));
        assert_ran(r, 0);
        unsigned size = 0;
        assert_int_equal(sscanf(r->out, "%x", &size), 1);
        assert_true(size > 0 && size <= 64);
    }
}

int main(void)
{
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_may_allocate_wherever_the_malloc_underneath_allows),
        cmocka_unit_test(a_handler_may_allocate_while_the_counters_are_read),
        cmocka_unit_test(libmemkit_loaded_late_finds_the_counters),
        cmocka_unit_test(threads_may_fork_while_others_allocate),
        cmocka_unit_test(at_most_64_bytes_of_static_thread_local_storage_a_library),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
