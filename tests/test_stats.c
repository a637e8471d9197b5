/* test_stats.c - what the core says without libmemkit-prof: that nothing is counted; and /proc's
 * figures. (With it: test_hook.c.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/attach.h"

#define MIB ((uint64_t)1 << 20)

static void thread_allocs_says_that_nothing_is_counted(void **state)
{
    (void)state;
    memkit_thread_allocs_t t;
    memset(&t, 0xff, sizeof t);
    errno = 4711;
    assert_int_equal(memkit_thread_allocs(&t), 0);
    assert_int_equal(errno, 4711);
    memkit_thread_allocs_t zero = {0};
    assert_memory_equal(&t, &zero, sizeof t);
    void *volatile p = malloc(100);
    free(p);
    assert_int_equal(memkit_thread_allocs(&t), 0);
    assert_memory_equal(&t, &zero, sizeof t);
}

static void null_is_refused(void **state)
{
    (void)state;
    assert_errno(memkit_thread_allocs(NULL), -1, EINVAL);
    errno = 0;
    memkit_memstats(NULL);
    assert_int_equal(errno, EINVAL);
}

static void memstats_without_the_hook_has_proc_figures_only(void **state)
{
    (void)state;
    memkit_memstats_t m;
    memset(&m, 0xff, sizeof m);
    errno = 4711;
    memkit_memstats(&m);
    assert_int_equal(errno, 4711);
    assert_false(m.hooked);
    assert_int_equal(m.alloc_bytes, 0);
    assert_int_equal(m.total_alloc_bytes, 0);
    assert_int_equal(m.mallocs, 0);
    assert_int_equal(m.frees, 0);
    assert_int_equal(m.peak_alloc_bytes, 0);
    for (size_t i = 0; i < sizeof m.reserved / sizeof m.reserved[0]; i++)
        assert_int_equal(m.reserved[i], 0);
    assert_true(m.rss_bytes > 100000);
    assert_true(m.peak_rss_bytes >= m.rss_bytes);
    assert_true(m.sys_bytes > 10000);
}

/* 32 MiB that come and go: mapped, then touched, then unmapped. */
static void rss_and_sys_follow_a_mapping(void **state)
{
    (void)state;
    memkit_memstats_t m0, mapped, touched, gone;
    memkit_memstats(&m0);
    char *p = mmap(NULL, 32 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    memkit_memstats(&mapped);
    for (size_t i = 0; i < 32 * MIB; i += 4096)
        p[i] = 1;
    memkit_memstats(&touched);
    munmap(p, 32 * MIB);
    memkit_memstats(&gone);
    assert_true(mapped.sys_bytes >= m0.sys_bytes + 32 * MIB);
    assert_true(mapped.sys_bytes < m0.sys_bytes + 34 * MIB);
    assert_true(mapped.rss_bytes < m0.rss_bytes + 4 * MIB);
    assert_true(touched.rss_bytes >= m0.rss_bytes + 31 * MIB);
    if (!SANITIZED) /* their shadow is touched along */
        assert_true(touched.rss_bytes < m0.rss_bytes + 36 * MIB);
    assert_true(gone.rss_bytes + 28 * MIB < touched.rss_bytes);
    assert_true(gone.sys_bytes < touched.sys_bytes);
    assert_true(gone.peak_rss_bytes + MIB >= touched.rss_bytes); /* the kernel counts in batches */
}

/* A figure read from the file itself, in another way. */
static void figures_are_those_of_proc_status(void **state)
{
    (void)state;
    memkit_memstats_t m;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    char line[4096];
    unsigned long long rss = 0, hwm = 0, data = 0;
    memkit_memstats(&m); /* before fgets: stdio's buffer is read afterwards */
    while (fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "VmRSS: %llu", &rss);
        sscanf(line, "VmHWM: %llu", &hwm);
        sscanf(line, "VmData: %llu", &data);
    }
    fclose(f);
    assert_true(rss > 0 && hwm > 0 && data > 0);
    assert_true(m.sys_bytes / 1024 <= data + 1024 && m.sys_bytes / 1024 + 1024 >= data);
    assert_true(m.rss_bytes / 1024 <= rss + 1024 && m.rss_bytes / 1024 + 1024 >= rss);
    assert_true(m.peak_rss_bytes / 1024 <= hwm + 1024 && m.peak_rss_bytes / 1024 + 1024 >= hwm);
}

static void *asks(void *arg)
{
    memkit_thread_allocs_t t;
    memkit_memstats_t m;
    for (int i = 0; i < 200; i++) {
        memkit_memstats(&m);
        if (memkit_thread_allocs(&t) != 0 || m.hooked || m.rss_bytes == 0)
            *(int *)arg = 1;
    }
    return NULL;
}

static void threads_may_ask_at_once(void **state)
{
    (void)state;
    pthread_t t[4];
    int wrong[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, asks, &wrong[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wrong[i], 0);
}

static void memstats_leaves_no_descriptor_open(void **state)
{
    (void)state;
    memkit_memstats_t m;
    int before = open("/dev/null", O_RDONLY);
    assert_true(before >= 0);
    close(before);
    for (int i = 0; i < 50; i++)
        memkit_memstats(&m);
    int after = open("/dev/null", O_RDONLY);
    close(after);
    assert_int_equal(after, before);
}

/* Another library's constructor may ask before ours ran: the answer is the same. */
static int early_answer = -2;

__attribute__((constructor(101))) static void ask_early(void)
{
    memkit_thread_allocs_t t;
    early_answer = memkit_thread_allocs(&t);
}

static void it_may_be_asked_before_any_constructor(void **state)
{
    (void)state;
    assert_int_equal(early_answer, 0);
    assert_null(memkit__prof());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_allocs_says_that_nothing_is_counted),
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(memstats_without_the_hook_has_proc_figures_only),
        cmocka_unit_test(rss_and_sys_follow_a_mapping),
        cmocka_unit_test(figures_are_those_of_proc_status),
        cmocka_unit_test(threads_may_ask_at_once),
        cmocka_unit_test(memstats_leaves_no_descriptor_open),
        cmocka_unit_test(it_may_be_asked_before_any_constructor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
