/* test_oom_pool.c - pools while malloc fails, at each of their allocations; and while pthread has
 * no key, no place for a thread's value, or no thread. */
#include <limits.h>
#include <pthread.h>

#include "support_matrix.h"

#include "core/pool.h"

/* ---- pthread functions that fail ---- */

static int no_key, no_value, no_thread;

int __real_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __real_pthread_setspecific(pthread_key_t key, const void *value);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);

int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    return no_key ? EAGAIN : __real_pthread_key_create(key, destructor);
}

int __wrap_pthread_setspecific(pthread_key_t key, const void *value)
{
    return no_value ? ENOMEM : __real_pthread_setspecific(key, value);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    return no_thread ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

/* ---- objects ---- */

static memkit_buf *out; /* of the pool, with content */

static void sound(memkit_pool *p)
{
    const char *broken = memkit__pool_check(p);
    if (broken != NULL)
        fail_msg("%s", broken);
}

static void record_pool(const void *object, record *r)
{
    memkit_pool *p = (memkit_pool *)(uintptr_t)object;
    sound(p);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    note(r, "gets %llu misses %llu puts %llu live %llu %llu held %llu %llu trimmed %llu\n",
         (unsigned long long)s.gets, (unsigned long long)s.misses, (unsigned long long)s.puts,
         (unsigned long long)s.live_buffers, (unsigned long long)s.live_bytes,
         (unsigned long long)s.held_buffers, (unsigned long long)s.held_bytes,
         (unsigned long long)s.trimmed_bytes);
    if (out != NULL)
        note_bytes(r, out->data, out->len);
}

static void *make_unused(void)
{
    out = NULL;
    return memkit_pool_new(NULL);
}

static void *make_used(void)
{
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.idle_ms = UINT_MAX});
    out = memkit_pool_get(p, 100);
    memkit_buf_append_str(out, "kept");
    memkit_pool_put(p, memkit_pool_get(p, 3000));
    return p;
}

static void *get_one(void *p)
{
    return memkit_pool_get(p, 100);
}

/* What is out was got in another thread: this one has no cache yet. */
static void *make_with_a_buffer_from_elsewhere(void)
{
    memkit_pool *p = memkit_pool_new(NULL);
    pthread_t thread;
    void *got;
    assert_int_equal(pthread_create(&thread, NULL, get_one, p), 0);
    pthread_join(thread, &got);
    out = got;
    return p;
}

/* As many out as one slab has headers for. */
static memkit_buf *all[39];
static void *make_without_headers(void)
{
    memkit_pool *p = memkit_pool_new(NULL);
    assert_int_equal(LENGTH(all), LENGTH(((memkit__headers *)0)->buffers));
    for (size_t i = 0; i < LENGTH(all); i++)
        all[i] = memkit_pool_get(p, 10);
    out = NULL;
    return p;
}

static void end(void *object)
{
    memkit_pool *p = object;
    sound(p);
    memkit_pool_put(p, out);
    memkit_pool_free(p);
}

static void end_all(void *p)
{
    for (size_t i = 0; i < LENGTH(all); i++)
        memkit_pool_put(p, all[i]);
    end(p);
}

/* ---- calls ---- */

static int make_and_free(const memkit_pool_opts *opts)
{
    memkit_pool *p = memkit_pool_new(opts);
    if (p == NULL)
        return errno;
    memkit_pool_free(p);
    return 0;
}

static int new_default(void *unused)
{
    (void)unused;
    return make_and_free(NULL);
}

static int new_named(void *unused)
{
    (void)unused;
    return make_and_free(&(memkit_pool_opts){.name = strange_names[2]});
}

static int new_with_background(void *unused)
{
    (void)unused;
    return make_and_free(&(memkit_pool_opts){.background = 1});
}

static int get_of(memkit_pool *p, size_t hint)
{
    memkit_buf *b = memkit_pool_get(p, hint);
    if (b == NULL)
        return errno;
    bool good = b->cap >= hint && b->len == 0 && b->data[0] == '\0';
    memkit_pool_put(p, b);
    return good ? 0 : EPROTO;
}

static int get(void *p)
{
    return get_of(p, 0);
}

static int get_large(void *p)
{
    return get_of(p, 50000);
}

static int put(void *p)
{
    memkit_pool_put(p, out); /* never fails: what finds no place goes back to malloc */
    out = NULL;
    return 0;
}

static int trim(void *p)
{
    memkit_pool_trim(p, 0);
    return 0;
}

static int stats(void *p)
{
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    return s.gets == 2 ? 0 : EPROTO;
}

static int free_used(void *p)
{
    memkit_pool_put(p, out);
    memkit_pool_free(p);
    return 0;
}

/* ---- threads ---- */

typedef struct {
    memkit_pool *pool;
    uint64_t seed;
    int got, refused, wrong;
} worker;

static void *work(void *arg)
{
    worker *w = arg;
    memkit_buf *b[8] = {NULL};
    for (int i = 0; i < (SANITIZED ? 300 : 2000); i++) {
        size_t k = next_random(&w->seed) % LENGTH(b), n = next_random(&w->seed) % 5000;
        if (b[k] != NULL) {
            size_t len = b[k]->len;
            if (memkit_buf_append(b[k], "and more", 8) != 0)
                w->wrong |= errno != ENOMEM || b[k]->len != len;
            memkit_pool_put(w->pool, b[k]);
            b[k] = NULL;
            continue;
        }
        b[k] = memkit_pool_get(w->pool, n);
        if (b[k] == NULL) {
            w->refused++;
            w->wrong |= errno != ENOMEM;
            continue;
        }
        w->got++;
        w->wrong |= b[k]->cap < n || b[k]->len != 0;
        memset(b[k]->data, 'x', n);
        b[k]->data[b[k]->len = n] = '\0';
    }
    for (size_t k = 0; k < LENGTH(b); k++)
        memkit_pool_put(w->pool, b[k]);
    return NULL;
}

/* Memory runs out in the middle of it, and nothing is lost: not a buffer, not a count. */
static void threads_share_a_pool_that_finds_no_memory(void **state)
{
    (void)state;
    int refused = 0;
    for (unsigned nth = 1; nth < 400; nth += nth < 12 ? 1 : 90) {
        memkit_pool *p = memkit_pool_new(NULL);
        pthread_t threads[3];
        worker w[3];
        fail_malloc(nth, true);
        int got = 0;
        for (unsigned i = 0; i < LENGTH(w); i++) {
            w[i] = (worker){.pool = p, .seed = nth * 10 + i};
            assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
        }
        for (size_t i = 0; i < LENGTH(w); i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(w[i].wrong, 0);
            got += w[i].got;
            refused += w[i].refused;
        }
        fail_malloc(0, false);
        sound(p);
        memkit_pool_stats_t s;
        memkit_pool_stats(p, &s);
        assert_int_equal(s.gets, got);
        assert_int_equal(s.puts, got);
        assert_int_equal(s.live_buffers, 0);
        assert_int_equal(get(p), 0);
        memkit_pool_free(p);
    }
    assert_true(refused > 0);
}

/* ---- what is done once a process ---- */

static int use_default(void)
{
    memkit_pool *p = memkit_pool_default();
    if (p == NULL || memkit_pool_default() != p)
        return 10;
    memkit_buf *b = memkit_pool_get(p, 100);
    if (b == NULL || memkit_buf_append_str(b, "text") != 0)
        return 11;
    memkit_pool_put(p, b);
    return memkit__pool_check(p) == NULL ? 0 : 12;
}

static int default_without_memory(int from_then_on)
{
    for (int times = 0; times < 3; times++) {
        fail_malloc(1, from_then_on);
        errno = 0;
        if (memkit_pool_default() != NULL || errno != ENOMEM)
            return 1;
    }
    fail_malloc(0, false);
    return use_default();
}

static void the_default_pool_is_made_once_there_is_memory(void **state)
{
    (void)state;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++)
        assert_int_equal(in_child(default_without_memory, from_then_on), 0);
}

static void *first_default(void *arg)
{
    (void)arg;
    return memkit_pool_default();
}

static int default_in_threads(int unused)
{
    (void)unused;
    pthread_t threads[4];
    void *got[4];
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, first_default, NULL) != 0)
            return 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], &got[i]);
    for (int i = 0; i < 4; i++)
        if (got[i] == NULL || got[i] != got[0])
            return 2;
    memkit_buf *text = memkit_buf_new(0);
    if (text == NULL || memkit_metrics_write(text) != 0)
        return 3;
    const char *row =
        strstr(text->data, "memkit_pool_gets_total{pool=\"default\""); /* and one only */
    int answer = row == NULL || strstr(row + 1, "memkit_pool_gets_total{pool=\"default\"") != NULL;
    memkit_buf_free(text);
    return answer;
}

static void threads_that_ask_first_at_once_get_one_default_pool(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(in_child(default_in_threads, 0), 0);
}

/* No cache for any thread then: each call takes the pool's lock, and all else is as ever. */
static int work_without_caches(int no_key_at_all)
{
    no_key = no_key_at_all;
    no_value = !no_key_at_all;
    memkit_pool *p = memkit_pool_new(NULL);
    if (p == NULL)
        return 1;
    worker w[2] = {{.pool = p, .seed = 1}, {.pool = p, .seed = 2}};
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, &w[0]) != 0)
        return 2;
    work(&w[1]);
    pthread_join(thread, NULL);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    if (w[0].wrong || w[1].wrong || w[0].refused || w[1].refused)
        return 3;
    if (s.gets != s.puts || s.hits == 0 || p->caches != NULL || memkit__pool_check(p) != NULL)
        return 4;
    memkit_pool_free(p);
    return 0;
}

static void a_process_without_a_thread_key_has_working_pools(void **state)
{
    (void)state;
    assert_int_equal(in_child(work_without_caches, true), 0);
    assert_int_equal(in_child(work_without_caches, false), 0);
}

static void no_thread_for_background_is_eagain(void **state)
{
    (void)state;
    no_thread = true;
    errno = 0;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.background = 1});
    int reason = errno;
    no_thread = false;
    assert_null(p);
    assert_int_equal(reason, EAGAIN);
    assert_int_equal(new_with_background(NULL), 0);
}

int main(void)
{
    const oom_row rows[] = {
        {"memkit_pool_new", NULL, 1, NULL, new_default, NULL, NULL},
        {"memkit_pool_new", "named", 1, NULL, new_named, NULL, NULL},
        {"memkit_pool_new", "with a thread", 1, NULL, new_with_background, NULL, NULL},
        {"memkit_pool_default", NULL, 0, NULL, NULL, NULL, NULL},
        {"memkit_pool_get", "the first", 3, make_unused, get, record_pool, end},
        {"memkit_pool_get", "of a new size", 1, make_used, get_large, record_pool, end},
        {"memkit_pool_get", "without a header", 2, make_without_headers, get_large, record_pool,
         end_all},
        {"memkit_pool_get", "of what waits", 0, make_used, get, NULL, end},
        {"memkit_pool_put", NULL, 0, make_used, put, NULL, end},
        {"memkit_pool_put", "the first of a thread", 1, make_with_a_buffer_from_elsewhere, put,
         NULL, end},
        {"memkit_pool_trim", NULL, 0, make_used, trim, NULL, end},
        {"memkit_pool_stats", NULL, 0, make_used, stats, record_pool, end},
        {"memkit_pool_free", NULL, 0, make_used, free_used, NULL, NULL},
    };
    const struct CMUnitTest more[] = {
        more_test(the_default_pool_is_made_once_there_is_memory),
        more_test(threads_that_ask_first_at_once_get_one_default_pool),
        more_test(a_process_without_a_thread_key_has_working_pools),
        more_test(no_thread_for_background_is_eagain),
        more_test(threads_share_a_pool_that_finds_no_memory),
    };
    return run_oom("memkit_pool_", rows, LENGTH(rows), more, LENGTH(more));
}
