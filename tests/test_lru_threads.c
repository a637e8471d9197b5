/* test_lru_threads.c - the cache under threads: values are whole, counts add up, and each entry is
 * told of once. Built for the thread sanitizer, too.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "test_lru.h"

enum { THREADS = 8, OPS = SANITIZED ? 8000 : 30000 };

typedef struct {
    memkit_lru *cache;
    unsigned id;
    size_t ops;
    uint64_t sets, looks, hits;
    const char *broken;
} worker;

static _Atomic uint64_t left_count;

static void count_left(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                       memkit_lru_reason reason)
{
    (void)key;
    (void)reason;
    (void)val;
    (void)vlen;
    memkit_lru *c = *(memkit_lru **)arg;
    /* A callback may use the cache: here it looks for another key. */
    char k = 'x';
    size_t len;
    if (klen == 8)
        memkit_lru_get_into(c, &k, 1, NULL, 0, &len);
    atomic_fetch_add(&left_count, 1);
}

/* A value says which key it is of, in every byte: a torn or foreign one is seen. */
static bool value_fits(const void *p, size_t len, uint64_t key)
{
    const unsigned char *v = p;
    for (size_t i = 0; i < len; i++)
        if (v[i] != (unsigned char)(key * 37))
            return false;
    return len == 100 + key % 50 || len == 30;
}

static void *work(void *arg)
{
    worker *w = arg;
    uint64_t rng = 88172645463325252u + w->id * 7919;
    unsigned char val[160];
    for (size_t i = 0; i < w->ops && w->broken == NULL; i++) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        uint64_t key = (rng >> 10) % 2000, what = rng % 16;
        if (what < 5) {
            memset(val, (unsigned char)(key * 37), sizeof val);
            size_t len = what == 0 ? 30 : 100 + key % 50;
            if (memkit_lru_set(w->cache, &key, sizeof key, val, len) != 0)
                w->broken = "set failed";
            w->sets++;
        } else if (what < 10) {
            memkit_lru_ref ref;
            w->looks++;
            if (memkit_lru_get(w->cache, &key, sizeof key, &ref) == 1) {
                w->hits++;
                if (!value_fits(ref.data, ref.len, key))
                    w->broken = "a pinned value is wrong";
                memkit_lru_release(w->cache, &ref);
            }
        } else if (what < 14) {
            size_t len;
            w->looks++;
            if (memkit_lru_get_into(w->cache, &key, sizeof key, val, sizeof val, &len) == 1) {
                w->hits++;
                if (!value_fits(val, len, key))
                    w->broken = "a copied value is wrong";
            }
        } else if (what == 14) {
            memkit_lru_del(w->cache, &key, sizeof key);
        } else if (i % 64 == 0) {
            memkit_lru_stats_t st;
            memkit_lru_stats(w->cache, &st);
            if (st.max_bytes != 0 && st.bytes > st.max_bytes)
                w->broken = "over the bound";
        }
    }
    return NULL;
}

static void hammer(unsigned shards, size_t max_entries, size_t max_bytes, bool calls)
{
    memkit_lru *c = NULL;
    memkit_lru_opts opts = {.shards = shards,
                            .max_entries = max_entries,
                            .max_bytes = max_bytes,
                            .on_evict = calls ? count_left : NULL,
                            .arg = &c};
    c = memkit_lru_new(&opts);
    assert_non_null(c);
    atomic_store(&left_count, 0);
    worker w[THREADS];
    pthread_t t[THREADS];
    const char *wanted = getenv("MEMKIT_TEST_OPS"); /* for slow tools */
    size_t ops = wanted != NULL ? (size_t)strtoul(wanted, NULL, 10) : OPS;
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (worker){.cache = c, .id = i, .ops = ops};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    uint64_t sets = 0, looks = 0, hits = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
        if (w[i].broken != NULL)
            fail_msg("%s", w[i].broken);
        sets += w[i].sets;
        looks += w[i].looks;
        hits += w[i].hits;
    }
    const char *broken = memkit__lru_check(c);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_lru_stats_t st;
    memkit_lru_stats(c, &st);
    assert_int_equal(st.sets, sets);
    assert_int_equal(st.pinned_bytes, 0);
    assert_true(hits > 0 && st.evictions > 0);
    if (!calls) {
        assert_int_equal(st.hits, hits);
        assert_int_equal(st.hits + st.misses, looks);
    }
    memkit_lru_free(c);
    if (calls)
        assert_int_equal(atomic_load(&left_count), sets); /* whoever came in has left, once */
}

static void one_locked_shard_serves_8_threads(void **state)
{
    (void)state;
    hammer(0, 700, 0, false);
    hammer(0, 0, 128 << 10, false);
}

static void shards_serve_8_threads(void **state)
{
    (void)state;
    hammer(8, 800, 0, false);
    hammer(4, 0, 256 << 10, false);
}

static void callbacks_run_outside_the_lock(void **state)
{
    (void)state;
    hammer(0, 700, 0, true);
    hammer(4, 0, 256 << 10, true);
}

enum { MOST_BYTES = 512 << 10 };

/* -- the calls for the cache as a whole -- */

static _Atomic bool stop;

/* One thread of each kind beside those that work; each ends with what it saw broken, or NULL. */
static int look_at(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    uint64_t n;
    memcpy(&n, key, sizeof n);
    if (klen != sizeof n || !value_fits(val, vlen, n))
        *(const char **)arg = "each: a value is wrong";
    return 0;
}

static void *walk(void *arg)
{
    memkit_lru *c = arg;
    const char *broken = NULL;
    memkit_lru_stats_t st;
    while (!atomic_load(&stop) && broken == NULL) {
        memkit_lru_each(c, look_at, &broken);
        memkit_lru_stats(c, &st);
        if (st.max_bytes != 0 && st.bytes > MOST_BYTES)
            broken = "over the larger bound";
        else if (broken == NULL)
            broken = memkit__lru_check(c);
    }
    return (void *)(uintptr_t)broken;
}

static void *peek_around(void *arg)
{
    memkit_lru *c = arg;
    memkit_lru_ref refs[20];
    for (uint64_t n = 0; !atomic_load(&stop);) {
        size_t held = 0;
        for (int i = 0; i < 20; i++, n = (n + 7) % 2000)
            held += memkit_lru_peek(c, &n, sizeof n, &refs[held]) == 1;
        for (size_t i = 0; i < held; i++) {
            if (refs[i].len == 0)
                return (void *)(uintptr_t) "peek: an empty value";
            memkit_lru_release(c, &refs[i]);
        }
    }
    return NULL;
}

static void *clear_now_and_then(void *arg)
{
    while (!atomic_load(&stop)) {
        memkit_lru_clear(arg);
        for (int i = 0; i < 20; i++)
            sched_yield();
    }
    return NULL;
}

/* EBUSY: pins were in the way; then the bounds are what they were. */
static void *resize_to_and_fro(void *arg)
{
    static const size_t bounds[][2] = {{0, MOST_BYTES}, {300, 40 << 10}, {0, 64 << 10}, {500, 0}};
    for (unsigned n = 0; !atomic_load(&stop); n++)
        if (memkit_lru_resize(arg, bounds[n % 4][0], bounds[n % 4][1]) != 0 && errno != EBUSY)
            return (void *)(uintptr_t) "resize: neither done nor EBUSY";
    return NULL;
}

/* Sets may find everything pinned, for a moment. */
static void *store_until_stopped(void *arg)
{
    memkit_lru *c = arg;
    unsigned char val[160];
    uintptr_t sets = 0;
    for (uint64_t key = 0; !atomic_load(&stop); key = (key + 11) % 2000) {
        memset(val, (unsigned char)(key * 37), sizeof val);
        if (memkit_lru_set(c, &key, sizeof key, val, 100 + key % 50) == 0)
            sets++;
        else if (errno != EBUSY && errno != ENOMEM)
            return (void *)(uintptr_t)(errno << 1 | 1);
    }
    return (void *)(sets << 1);
}

static void whole_cache_under_threads(unsigned shards, bool calls)
{
    memkit_lru *c = NULL;
    c = memkit_lru_new(&(memkit_lru_opts){.shards = shards,
                                          .max_bytes = MOST_BYTES,
                                          .on_evict = calls ? count_left : NULL,
                                          .arg = &c});
    assert_non_null(c);
    atomic_store(&left_count, 0);
    atomic_store(&stop, false);
    void *(*const kinds[])(void *) = {
        store_until_stopped, store_until_stopped, peek_around,      walk,
        clear_now_and_then,  resize_to_and_fro,   resize_to_and_fro};
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    pthread_t t[KINDS];
    for (size_t i = 0; i < KINDS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, kinds[i], c), 0);
    nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
    atomic_store(&stop, true);
    uintptr_t sets = 0;
    for (size_t i = 0; i < KINDS; i++) {
        void *result;
        pthread_join(t[i], &result);
        if (i < 2) {
            if (((uintptr_t)result & 1) != 0)
                fail_msg("set: %s", strerror((int)((uintptr_t)result >> 1)));
            sets += (uintptr_t)result >> 1;
        } else if (result != NULL) {
            fail_msg("%s", (const char *)result);
        }
    }
    sound(c);
    memkit_lru_stats_t st = stats_of(c);
    assert_int_equal(st.sets, sets);
    assert_int_equal(st.pinned_bytes, 0);
    assert_true(st.max_bytes == 0 || st.bytes <= st.max_bytes);
    /* Nothing is left behind that only a thread held: all of it can go, and come again. */
    memkit_lru_clear(c);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 10), 0);
    assert_true(stats_of(c).bytes <= 64 << 10);
    sound(c);
    memkit_lru_free(c);
    if (calls)
        assert_int_equal(atomic_load(&left_count), sets);
}

static void each_peek_clear_and_resize_go_on_beside_each_other(void **state)
{
    (void)state;
    whole_cache_under_threads(0, false);
    whole_cache_under_threads(4, false);
}

static void and_tell_of_each_entry_once(void **state)
{
    (void)state;
    whole_cache_under_threads(0, true);
    whole_cache_under_threads(4, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_locked_shard_serves_8_threads),
        cmocka_unit_test(shards_serve_8_threads),
        cmocka_unit_test(callbacks_run_outside_the_lock),
        cmocka_unit_test(each_peek_clear_and_resize_go_on_beside_each_other),
        cmocka_unit_test(and_tell_of_each_entry_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
