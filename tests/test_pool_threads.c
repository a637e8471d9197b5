/* test_pool_threads.c - the pool among threads: bounds, exits, foreign puts, claims. */
#include <pthread.h>
#include <time.h>

#include "support.h"

#include "core/pool.h"

enum { THREADS = 8, ROUNDS = 20000 };

static void check(memkit_pool *p)
{
    const char *broken = memkit__pool_check(p);
    if (broken != NULL)
        fail_msg("%s", broken);
}

static void run(void *(*body)(void *), void *arg, int n)
{
    pthread_t threads[64];
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, arg), 0);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void *use(void *arg)
{
    memkit_pool *p = arg;
    memkit_buf *held[16] = {0};
    uint64_t seed = (uintptr_t)&seed;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t r = next_random(&seed);
        memkit_buf **slot = &held[r % 16];
        if (*slot != NULL) {
            /* whoever else had this buffer would have overwritten its mark */
            if (strncmp((*slot)->data, "mark", 4) != 0)
                abort();
            memkit_pool_put(p, *slot);
            *slot = NULL;
        } else {
            *slot = memkit_pool_get(p, r % 5 == 0 ? 0 : (r >> 20) % 4000);
            memkit_buf_append_str(*slot, "mark");
            memkit_buf_reserve(*slot, (r >> 40) % 3000);
        }
    }
    for (int i = 0; i < 16; i++)
        memkit_pool_put(p, held[i]);
    return NULL;
}

static void threads_share_a_pool(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    run(use, p, THREADS);
    check(p);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    assert_int_equal(s.gets, s.puts);
    assert_int_equal(s.live_bytes, 0);
    memkit_pool_free(p);
}

/* A bounded pool, watched and trimmed from outside while its threads work. */
typedef struct {
    memkit_pool *pool;
    atomic_bool stop;
    uint64_t most_held;
    uint64_t trimmed;
    atomic_uint samples;
    bool broken;
} watched;

static void *watch(void *arg)
{
    watched *w = arg;
    while (!atomic_load(&w->stop)) {
        memkit_pool_stats_t s;
        memkit_pool_stats(w->pool, &s);
        if (s.held_bytes > w->most_held)
            w->most_held = s.held_bytes;
        w->trimmed += memkit_pool_trim(w->pool, 30000);
        sched_yield();
    }
    return NULL;
}

static void the_bound_holds_over_all_threads_while_they_work(void **state)
{
    (void)state;
    watched w = {.pool = memkit_pool_new(&(memkit_pool_opts){
                     .max_held_bytes = 100000, .max_thread_bytes = 40000, .idle_ms = 5})};
    pthread_t watcher;
    pthread_create(&watcher, NULL, watch, &w);
    run(use, w.pool, THREADS);
    atomic_store(&w.stop, true);
    pthread_join(watcher, NULL);
    check(w.pool);
    memkit_pool_stats_t s;
    memkit_pool_stats(w.pool, &s);
    /* A read sums threads one after the other: a buffer that moves meanwhile may be seen twice. */
    assert_true(w.most_held <= 100000 + 4 * 5120 * THREADS);
    assert_true(s.held_bytes <= 100000 && s.peak_held_bytes <= 100000);
    assert_true(w.trimmed > 0);
    memkit_pool_free(w.pool);
}

/* ---- the bound, at every moment ---- */

/* Looks at every cache with the pool's lock held: what threads reserved does not change then, and
 * what they hold must lie within it although they go on. */
static void *sample(void *arg)
{
    watched *w = arg;
    memkit_pool *p = w->pool;
    while (!atomic_load(&w->stop)) {
        pthread_mutex_lock(&p->lock);
        size_t quotas = 0, held = p->depot_bytes;
        for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool) {
            size_t now = memkit__read(&c->held);
            if (now > c->quota || c->quota > p->max_thread)
                w->broken = true;
            quotas += c->quota;
            held += now;
        }
        if (p->depot_bytes + quotas != p->reserved || p->reserved > p->max_held)
            w->broken = true;
        if (held > w->most_held)
            w->most_held = held;
        atomic_fetch_add(&w->samples, 1);
        pthread_mutex_unlock(&p->lock);
        sched_yield();
    }
    return NULL;
}

static void what_threads_hold_lies_within_what_they_reserved_at_every_moment(void **state)
{
    (void)state;
    watched w = {.pool = memkit_pool_new(
                     &(memkit_pool_opts){.max_held_bytes = 100000, .max_thread_bytes = 40000})};
    pthread_t sampler;
    pthread_create(&sampler, NULL, sample, &w);
    while (atomic_load(&w.samples) < 200)
        run(use, w.pool, THREADS);
    atomic_store(&w.stop, true);
    pthread_join(sampler, NULL);
    assert_false(w.broken);
    assert_true(w.most_held > 50000 && w.most_held <= 100000); /* near the bound, never above */
    check(w.pool);
    memkit_pool_free(w.pool);
}

/* ---- no lock on the fast path, batches behind it ---- */

static void a_get_and_put_of_what_waits_takes_no_lock(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.idle_ms = 60000});
    memkit_buf *b[4];
    for (int i = 0; i < 4; i++)
        b[i] = memkit_pool_get(p, 500);
    for (int i = 0; i < 4; i++)
        memkit_pool_put(p, b[i]);
    pthread_mutex_lock(&p->lock);              /* who wanted it now would wait for ever */
    for (int round = 0; round < 50; round++) { /* fewer uses than it takes to tell the pool */
        for (int i = 0; i < 4; i++)
            b[i] = memkit_pool_get(p, 500);
        for (int i = 0; i < 4; i++)
            memkit_pool_put(p, b[i]);
    }
    pthread_mutex_unlock(&p->lock);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    assert_int_equal(s.hits, 200);
    assert_int_equal(s.misses, 4);
    check(p);
    memkit_pool_free(p);
}

enum { BATCHED = 64 };

static void *leave_many(void *arg)
{
    memkit_buf *b[BATCHED];
    for (int i = 0; i < BATCHED; i++)
        b[i] = memkit_pool_get(arg, 900);
    for (int i = 0; i < BATCHED; i++)
        memkit_pool_put(arg, b[i]);
    return NULL;
}

static void the_depot_is_met_in_batches(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.idle_ms = 60000});
    run(leave_many, p, 1);
    assert_int_equal(p->depot_buffers, BATCHED);
    memkit_buf *b[BATCHED];
    unsigned n = 0;
    b[n++] = memkit_pool_get(p, 900);
    unsigned batch = BATCHED - 1 - (unsigned)p->depot_buffers;
    assert_int_equal(batch, 16);
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < batch; i++)
        b[n++] = memkit_pool_get(p, 900); /* without the lock */
    pthread_mutex_unlock(&p->lock);
    assert_int_equal(p->depot_buffers, BATCHED - 1 - batch);
    while (n < BATCHED)
        b[n++] = memkit_pool_get(p, 900);
    assert_int_equal(p->depot_buffers, 0);
    while (n > 0)
        memkit_pool_put(p, b[--n]);
    check(p);
    memkit_pool_free(p);
}

static void a_full_cache_gives_half_a_bin_to_the_depot(void **state)
{
    (void)state;
    enum { ROOM = 16 };
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){
        .max_thread_bytes = ROOM * memkit__class_bytes(memkit__class_of(901)), .idle_ms = 60000});
    memkit_buf *b[ROOM + ROOM / 2];
    for (int i = 0; i < ROOM + ROOM / 2; i++)
        b[i] = memkit_pool_get(p, 900);
    for (int i = 0; i < ROOM; i++)
        memkit_pool_put(p, b[i]);
    assert_int_equal(p->depot_buffers, 0);
    memkit_pool_put(p, b[ROOM]);
    assert_int_equal(p->depot_buffers, ROOM / 2);
    for (int i = ROOM + 1; i < ROOM + ROOM / 2; i++) {
        memkit_pool_put(p, b[i]);
        assert_int_equal(p->depot_buffers, ROOM / 2); /* room again for the other half */
    }
    check(p);
    memkit_pool_free(p);
}

static void *put_arg(void *b)
{
    memkit_buf_free(b);
    return NULL;
}

static void a_second_put_is_found_from_another_thread_too(void **state)
{
    (void)state;
    catch_faults();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    run(put_arg, b, 1);
    assert_faults(memkit_pool_put(p, b), "already put");
    assert_faults(run(put_arg, b, 1), "already put");
    check(p);
    memkit_pool_free(p);
    memkit_set_fault_handler(NULL);
}

/* ---- got in one thread, put in another ---- */

typedef struct {
    memkit_pool *pool;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    memkit_buf *queue[64];
    int n;
    bool done;
} handover;

static void *consume(void *arg)
{
    handover *h = arg;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (h->n == 0 && !h->done)
            pthread_cond_wait(&h->changed, &h->lock);
        if (h->n == 0)
            break;
        memkit_buf *b = h->queue[--h->n];
        pthread_cond_broadcast(&h->changed);
        pthread_mutex_unlock(&h->lock);
        memkit_pool_put(h->pool, b);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void buffers_put_elsewhere_come_back_and_do_not_pile_up(void **state)
{
    (void)state;
    handover h = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    h.pool = memkit_pool_new(&(memkit_pool_opts){.max_thread_bytes = 64 << 10});
    pthread_t consumer;
    pthread_create(&consumer, NULL, consume, &h);
    for (int i = 0; i < ROUNDS; i++) {
        memkit_buf *b = memkit_pool_get(h.pool, 1000);
        memkit_buf_append_str(b, "x");
        pthread_mutex_lock(&h.lock);
        while (h.n == 64)
            pthread_cond_wait(&h.changed, &h.lock);
        h.queue[h.n++] = b;
        pthread_cond_broadcast(&h.changed);
        pthread_mutex_unlock(&h.lock);
    }
    pthread_mutex_lock(&h.lock);
    h.done = true;
    pthread_cond_broadcast(&h.changed);
    pthread_mutex_unlock(&h.lock);
    pthread_join(consumer, NULL);
    check(h.pool);
    memkit_pool_stats_t s;
    memkit_pool_stats(h.pool, &s);
    assert_true(s.misses < 400); /* 64 in the queue, 64 KiB in the consumer's cache, and batches */
    assert_int_equal(s.gets, ROUNDS);
    memkit_pool_free(h.pool);
}

/* ---- ends ---- */

static void *put_one(void *arg)
{
    memkit_pool_put(arg, memkit_pool_get(arg, 4000));
    return NULL;
}

static void a_dying_thread_leaves_nothing_behind(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_pool_put(p, memkit_pool_get(p, 4000));
    put_one(p);
    long before = 0;
    for (int i = 0; i < 500; i++) {
        if (i == 10)
            before = blocks_out;
        run(put_one, p, 1);
        assert_null(p->caches->next_in_pool); /* this thread's alone */
    }
    assert_int_equal(blocks_out, before);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    assert_int_equal(s.gets, 502); /* the dead threads' counts are kept */
    assert_true(s.misses <= 3);    /* and what they held is found by the next */
    check(p);
    memkit_pool_free(p);
}

typedef struct {
    pthread_barrier_t used, freed;
    memkit_pool *pool, *next;
} two_pools;

static void *outlive(void *arg)
{
    two_pools *t = arg;
    put_one(t->pool);
    pthread_barrier_wait(&t->used);
    pthread_barrier_wait(&t->freed);
    for (int i = 0; i < 100; i++)
        put_one(t->next);
    return NULL;
}

static void a_thread_may_outlive_its_pool(void **state)
{
    (void)state;
    long before = blocks_out;
    two_pools t;
    pthread_barrier_init(&t.used, NULL, THREADS + 1);
    pthread_barrier_init(&t.freed, NULL, THREADS + 1);
    t.pool = memkit_pool_new(NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, outlive, &t);
    pthread_barrier_wait(&t.used);
    memkit_pool_free(t.pool);
    t.next = memkit_pool_new(NULL); /* may well lie where the other lay */
    pthread_barrier_wait(&t.freed);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    check(t.next);
    memkit_pool_free(t.next);
    pthread_barrier_destroy(&t.used);
    pthread_barrier_destroy(&t.freed);
    assert_int_equal(blocks_out, before);
}

typedef struct {
    pthread_barrier_t used, done;
    memkit_pool *pool;
} idler;

static void *use_and_wait(void *arg)
{
    idler *t = arg;
    memkit_buf *b[20];
    for (int i = 0; i < 20; i++)
        b[i] = memkit_pool_get(t->pool, 8000);
    for (int i = 0; i < 20; i++)
        memkit_pool_put(t->pool, b[i]);
    pthread_barrier_wait(&t->used);
    pthread_barrier_wait(&t->done);
    put_one(t->pool); /* the cache is still the thread's own */
    return NULL;
}

static void what_an_idle_thread_holds_can_be_given_back(void **state)
{
    (void)state;
    memkit_pool_stats_t s;
    for (int by_trim = 0; by_trim < 2; by_trim++) {
        idler t = {.pool = memkit_pool_new(&(memkit_pool_opts){.idle_ms = by_trim ? 60000 : 30})};
        pthread_barrier_init(&t.used, NULL, 2);
        pthread_barrier_init(&t.done, NULL, 2);
        put_one(t.pool);
        pthread_t thread;
        pthread_create(&thread, NULL, use_and_wait, &t);
        pthread_barrier_wait(&t.used);
        memkit_pool_stats(t.pool, &s);
        assert_true(s.held_bytes > 160000);
        if (by_trim) {
            memkit_pool_trim(t.pool, 0);
        } else {
            nanosleep(&(struct timespec){0, 100000000}, NULL);
            for (int i = 0; i < 17; i++)
                put_one(t.pool);
        }
        memkit_pool_stats(t.pool, &s);
        assert_true(s.held_bytes < 16000);
        check(t.pool);
        pthread_barrier_wait(&t.done);
        pthread_join(thread, NULL);
        check(t.pool);
        memkit_pool_free(t.pool);
        pthread_barrier_destroy(&t.used);
        pthread_barrier_destroy(&t.done);
    }
}

typedef struct {
    memkit_pool *pool;
    atomic_int used;
} short_lived;

static void *use_and_end(void *arg)
{
    short_lived *s = arg;
    memkit_buf *b[50];
    for (int i = 0; i < 50; i++)
        b[i] = memkit_pool_get(s->pool, 100);
    for (int i = 0; i < 50; i++)
        memkit_pool_put(s->pool, b[i]);
    atomic_fetch_add(&s->used, 1);
    return NULL;
}

static void a_pool_may_be_freed_while_its_threads_end(void **state)
{
    (void)state;
    long before = blocks_out;
    for (int round = 0; round < 200; round++) {
        short_lived s = {.pool = memkit_pool_new(NULL)};
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, use_and_end, &s);
        while (atomic_load(&s.used) < 4)
            sched_yield();
        memkit_pool_free(s.pool);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    assert_int_equal(blocks_out, before);
}

static pthread_key_t late_key;

/* Uses the pool in every round of destructors there is. */
static void use_late(void *arg)
{
    memkit_pool_put(arg, memkit_pool_get(arg, 100));
    pthread_setspecific(late_key, arg);
}

static void *set_late_key(void *arg)
{
    memkit_pool_put(arg, memkit_pool_get(arg, 100));
    pthread_setspecific(late_key, arg);
    return NULL;
}

static void a_pool_may_be_used_by_the_last_destructors_of_a_thread(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip();
    long before = blocks_out;
    memkit_pool *p = memkit_pool_new(NULL);
    pthread_key_create(&late_key, use_late);
    for (int i = 0; i < 20; i++)
        run(set_late_key, p, 1);
    pthread_key_delete(late_key);
    assert_null(p->caches); /* no thread left one behind */
    check(p);
    memkit_pool_free(p);
    assert_int_equal(blocks_out, before);
}

static void *put_hundred(void *arg)
{
    for (int i = 0; i < 100; i++)
        memkit_pool_put(arg, memkit_pool_get(arg, 100));
    return NULL;
}

static void threads_that_come_and_go_give_back_what_another_left_idle(void **state)
{
    (void)state;
    idler t = {.pool = memkit_pool_new(&(memkit_pool_opts){.idle_ms = 30})};
    pthread_barrier_init(&t.used, NULL, 2);
    pthread_barrier_init(&t.done, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, use_and_wait, &t);
    pthread_barrier_wait(&t.used);
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    run(put_hundred, t.pool, 1); /* a thread that never saw the pool before */
    memkit_pool_stats_t s;
    memkit_pool_stats(t.pool, &s);
    assert_true(s.held_bytes < 16000);
    pthread_barrier_wait(&t.done);
    pthread_join(thread, NULL);
    memkit_pool_free(t.pool);
    pthread_barrier_destroy(&t.used);
    pthread_barrier_destroy(&t.done);
}

static void *make_default(void *arg)
{
    *(memkit_pool **)arg = memkit_pool_default();
    return NULL;
}

static void the_default_pool_is_one(void **state)
{
    (void)state;
    memkit_pool *seen = NULL, *ours = memkit_pool_default();
    run(make_default, &seen, 1);
    assert_non_null(ours);
    assert_ptr_equal(seen, ours);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_pool),
        cmocka_unit_test(the_bound_holds_over_all_threads_while_they_work),
        cmocka_unit_test(what_threads_hold_lies_within_what_they_reserved_at_every_moment),
        cmocka_unit_test(a_get_and_put_of_what_waits_takes_no_lock),
        cmocka_unit_test(the_depot_is_met_in_batches),
        cmocka_unit_test(a_full_cache_gives_half_a_bin_to_the_depot),
        cmocka_unit_test(a_second_put_is_found_from_another_thread_too),
        cmocka_unit_test(buffers_put_elsewhere_come_back_and_do_not_pile_up),
        cmocka_unit_test(a_dying_thread_leaves_nothing_behind),
        cmocka_unit_test(a_thread_may_outlive_its_pool),
        cmocka_unit_test(what_an_idle_thread_holds_can_be_given_back),
        cmocka_unit_test(a_pool_may_be_freed_while_its_threads_end),
        cmocka_unit_test(a_pool_may_be_used_by_the_last_destructors_of_a_thread),
        cmocka_unit_test(threads_that_come_and_go_give_back_what_another_left_idle),
        cmocka_unit_test(the_default_pool_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
