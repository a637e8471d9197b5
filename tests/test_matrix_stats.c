/* test_matrix_stats.c - counters, metrics, the fault handler and the version against bad input:
 * whatever of the core is not of a buffer, a pool, a cache or an arena. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_matrix.h"

#include "core/buf.h"

static void memstats_row(void **state)
{
    (void)state;
    refused_void(memkit_memstats(NULL), EINVAL);
    memkit_memstats_t m;
    memset(&m, 0x5a, sizeof m);
    memkit_memstats(&m);
    for (size_t i = 0; i < LENGTH(m.reserved); i++)
        assert_int_equal(m.reserved[i], 0);
}

static void thread_allocs_row(void **state)
{
    (void)state;
    refused(memkit_thread_allocs(NULL), -1, EINVAL);
    memkit_thread_allocs_t t;
    memset(&t, 0x5a, sizeof t);
    refused(memkit_thread_allocs(&t), 0, 0); /* nothing is hooked */
    for (size_t i = 0; i < LENGTH(t.reserved); i++)
        assert_int_equal(t.reserved[i], 0);
}

static void version_row(void **state)
{
    (void)state;
    int major, minor, patch;
    assert_string_equal(memkit_version(), MEMKIT_VERSION);
    assert_int_equal(sscanf(memkit_version(), "%d.%d.%d", &major, &minor, &patch), 3);
    assert_int_equal(major, MEMKIT_VERSION_MAJOR);
    assert_int_equal(minor, MEMKIT_VERSION_MINOR);
    assert_int_equal(patch, MEMKIT_VERSION_PATCH);
}

/* ---- metrics ---- */

static void record_text(const void *object, record *r)
{
    const memkit_buf *b = object;
    note(r, "len %zu cap %zu limit %zu\n", b->len, b->cap, b->max_len);
    if (b->state != memkit__buf_state(b, MEMKIT__BUF_HELD)) /* else nobody's to read */
        note_bytes(r, b->data, b->len + 1);
}

static void metrics_row(void **state)
{
    (void)state;
    refused(memkit_metrics_write(NULL), -1, EINVAL);
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *plain = memkit_buf_new(0), *pooled = memkit_pool_get(p, 10), stray;
    memkit_buf *const outs[] = {plain, pooled};
    for (size_t i = 0; i < LENGTH(outs); i++) {
        memkit_buf_append_str(outs[i], "mine\n");
        assert_int_equal(memkit_buf_limit(outs[i], 100), 0);
        watch(record_text, outs[i]);
        refused(memkit_metrics_write(outs[i]), -1, EMSGSIZE);
        assert_int_equal(memkit_buf_limit(outs[i], 0), 0);
        assert_int_equal(memkit_metrics_write(outs[i]), 0); /* also into a pool that is written */
        assert_memory_equal(outs[i]->data, "mine\n# HELP", 11);
    }
    memset(&stray, 0, sizeof stray);
    stray.data = stray.empty;
    watch(record_text, &stray);
    misused(assert_errno(memkit_metrics_write(&stray), -1, EINVAL), "is not a memkit buffer");
    memkit_pool_put(p, pooled);
    watch(record_text, pooled);
    misused(assert_errno(memkit_metrics_write(pooled), -1, EINVAL), "already put");
    memkit_buf_free(plain);
    memkit_pool_free(p);
}

/* Of a line: "name{label="...",id="n"} value", whatever the name of the object. */
static void assert_sample(const char *line, const char *end)
{
    const char *p = memchr(line, '"', (size_t)(end - line));
    assert_non_null(p);
    for (p++; p < end && *p != '"'; p++) {
        assert_true((unsigned char)*p != '\n');
        if (*p == '\\')
            assert_non_null(strchr("\\\"n", *++p));
    }
    assert_memory_equal(p, "\",id=\"", 6);
    p += 6;
    p += strspn(p, "0123456789");
    assert_memory_equal(p, "\"} ", 3);
    p += 3;
    assert_ptr_equal(p + strspn(p, "0123456789"), end);
}

static void metrics_of_any_name(void **state)
{
    (void)state;
    memkit_buf *out = memkit_buf_new(0);
    for (size_t i = 0; i < LENGTH(strange_names); i++) {
        memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = strange_names[i]});
        memkit_lru *c =
            memkit_lru_new(&(memkit_lru_opts){.name = strange_names[i], .max_entries = 5});
        memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = strange_names[i]});
        memkit_buf_reset(out);
        assert_int_equal(memkit_metrics_write(out), 0);
        int samples = 0;
        for (const char *line = out->data, *end; *line != '\0'; line = end + 1) {
            end = strchr(line, '\n');
            assert_non_null(end);
            bool labelled = *line != '#' && memchr(line, '{', (size_t)(end - line)) != NULL;
            assert_true(*line == '#' || strncmp(line, "memkit_", 7) == 0);
            if (labelled)
                assert_sample(line, end);
            samples += labelled;
        }
        assert_true(samples > 20);
        memkit_arena_free(a);
        memkit_lru_free(c);
        memkit_pool_free(p);
    }
    memkit_buf_free(out);
}

/* ---- faults ---- */

static void one(const char *message)
{
    (void)message;
}

static void another(const char *message)
{
    (void)message;
}

static void *exchange(void *arg)
{
    for (int i = 0; i < 1000; i++) {
        memkit_fault_fn before = memkit_set_fault_handler(i % 2 == 0 ? one : another);
        if (before != one && before != another)
            *(int *)arg = 1;
    }
    return NULL;
}

static void handler_row(void **state)
{
    (void)state;
    assert_non_null(memkit_set_fault_handler(NULL)); /* the one that counts, for all tests here */
    assert_null(memkit_set_fault_handler(NULL));
    assert_null(memkit_set_fault_handler(one));
    assert_true(memkit_set_fault_handler(another) == one);
    pthread_t threads[2];
    int wrong[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, exchange, &wrong[i]), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(wrong[i], 0);
    }
    memkit_set_fault_handler(NULL);
    assert_null(memkit_set_fault_handler(NULL));
}

/* Nobody set one: a line on standard error, and the process ends by SIGABRT. */
static void the_default_handler_aborts(void **state)
{
    (void)state;
    memkit_set_fault_handler(NULL);
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = strange_names[2]});
    memkit_buf *b = memkit_pool_get(p, 10);
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's, which would go on */
        dup2(ends[1], STDERR_FILENO);
        memkit_pool_free(p);
        _exit(0);
    }
    close(ends[1]);
    char text[4096];
    size_t n = 0;
    for (ssize_t got; (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    const char *line = strstr(text, "memkit: memkit_pool_free: buffers of pool \"nnn");
    assert_non_null(line);
    size_t length = strcspn(line, "\n");
    assert_true(length < 270 && line[length] == '\n'); /* a long name is cut */
    memkit_pool_put(p, b);
    memkit_pool_free(p);
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_memstats", NULL, memstats_row},
        {"memkit_thread_allocs", NULL, thread_allocs_row},
        {"memkit_version", NULL, version_row},
        {"memkit_metrics_write", NULL, metrics_row},
        {"memkit_metrics_write", "of any name", metrics_of_any_name},
        {"memkit_set_fault_handler", NULL, handler_row},
        {"memkit_set_fault_handler", "none is set", the_default_handler_aborts},
    };
    return run_matrix(NULL, rows, LENGTH(rows));
}
