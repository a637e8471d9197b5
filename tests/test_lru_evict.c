/* test_lru_evict.c - how entries leave: on_evict, what it may do, and expiry. */
#include "test_lru.h"

static void on_evict_is_told_once_with_the_reason(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        witness w = {.mode = mode};
        memkit_lru *c = make_told(&w, 3, 0, 0);
        set(c, "a", "1");
        set(c, "b", "2");
        set(c, "c", "3");
        set(c, "d", "4");
        assert_string_equal(w.last, "a=1");
        assert_int_equal(w.told[MEMKIT_LRU_EVICTED], 1);
        set(c, "b", "5");
        assert_string_equal(w.last, "b=2");
        assert_int_equal(w.told[MEMKIT_LRU_REPLACED], 1);
        memkit_lru_ref ref = get(c, "c");
        assert_int_equal(memkit_lru_del(c, "c", 1), 1); /* told when it leaves ... */
        assert_string_equal(w.last, "c=3");
        memkit_lru_release(c, &ref); /* ... and not when its memory goes */
        assert_int_equal(w.told[MEMKIT_LRU_DELETED], 1);
        assert_int_equal(memkit_lru_resize(c, 1, 0), 0);
        assert_string_equal(w.last, "d=4");
        assert_int_equal(w.told[MEMKIT_LRU_RESIZED], 1);
        memkit_lru_clear(c);
        assert_string_equal(w.last, "b=5");
        set(c, "e", "6");
        memkit_lru_free(c);
        assert_string_equal(w.last, "e=6");
        assert_int_equal(w.told[MEMKIT_LRU_CLEARED], 2);
        assert_int_equal(w.told[MEMKIT_LRU_EVICTED], 1);
    }
}

static void on_evict_may_store(void **state)
{
    (void)state;
    const size_t bounds[][2] = {{3, 0}, {0, 16 << 10}, {1, 0}};
    for (size_t i = 0; i < 3; i++) {
        witness w = {.mode = 2};
        memkit_lru *c = make_told(&w, bounds[i][0], bounds[i][1], 0);
        for (uint64_t n = 0; n < 1000; n++) {
            assert_int_equal(set_number(c, n, (size_t)(n * 37 % 600)), 0);
            sound(c);
            memkit_lru_stats_t st = stats_of(c);
            assert_true(st.max_entries == 0 || st.entries <= st.max_entries);
        }
        memkit_lru_stats_t st = stats_of(c);
        assert_true(w.told[MEMKIT_LRU_EVICTED] > 900);
        assert_int_equal(st.evictions, w.told[MEMKIT_LRU_EVICTED]);
        memkit_lru_free(c);
    }
}

/* -- time -- */

static uint64_t fake_now;

static uint64_t fake_clock(void *arg)
{
    assert_ptr_equal(arg, &fake_now);
    return fake_now;
}

static void entries_expire(void **state)
{
    (void)state;
    fake_now = UINT64_MAX / 2;
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){
        .max_entries = 10, .ttl_ms = 100, .now_ms = fake_clock, .now_arg = &fake_now});
    assert_non_null(c);
    set(c, "a", "1");
    fake_now += 60;
    set(c, "b", "2");
    memkit_lru_ref ref = get(c, "a"); /* a read does not prolong */
    fake_now += 40;
    assert_false(has(c, "a", "1"));
    assert_true(has(c, "b", "2"));
    assert_memory_equal(ref.data, "1", 1); /* expired while pinned */
    memkit_lru_release(c, &ref);
    sound(c);
    assert_int_equal(stats_of(c).expirations, 1);
    assert_int_equal(stats_of(c).misses, 1);
    assert_int_equal(stats_of(c).entries, 1);
    fake_now += 59;
    set(c, "b", "3"); /* a set does */
    fake_now += 99;
    assert_true(has(c, "b", "3"));
    fake_now += 1;
    assert_int_equal(memkit_lru_del(c, "b", 1), 0);
    assert_int_equal(stats_of(c).expirations, 2);
    sound(c);
    memkit_lru_free(c);
}

static memkit_lru_ref released_by_callback;

static void release_and_look(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                             memkit_lru_reason reason)
{
    (void)key;
    (void)klen;
    memkit_lru *c = *(memkit_lru **)arg;
    if (reason != MEMKIT_LRU_DELETED)
        return;
    memkit_lru_release(c, &released_by_callback);
    for (uint64_t n = 0; n < 20; n++) /* would take its memory, were it free */
        set_number(c, n, vlen);
    assert_memory_equal(val, "the value", 9);
    sound(c);
}

static void the_last_release_in_the_callback_frees_nothing_yet(void **state)
{
    (void)state;
    memkit_lru *c = NULL;
    c = memkit_lru_new(
        &(memkit_lru_opts){.max_entries = 4, .on_evict = release_and_look, .arg = &c});
    assert_non_null(c);
    set(c, "a", "the value");
    released_by_callback = get(c, "a");
    assert_int_equal(memkit_lru_del(c, "a", 1), 1);
    sound(c);
    assert_int_equal(stats_of(c).pinned_bytes, 0);
    memkit_lru_free(c);
}

/* Small entries that the callback puts back, each in the place of another small one: a larger entry
 * finds room all the same. */
static void set_gets_its_room_from_a_callback_that_puts_back(void **state)
{
    (void)state;
    witness w = {.mode = 2};
    memkit_lru *c = make_told(&w, 0, 16 << 10, 0);
    for (uint64_t n = 0; n < 1000; n++)
        assert_int_equal(set_number(c, n, 0), 0);
    for (uint64_t n = 1000; n < 1020; n++) {
        assert_int_equal(set_number(c, n, n % 2 == 0 ? 60 : 3000), 0);
        assert_true(has_number(c, n));
        sound(c);
    }
    memkit_lru_free(c);
}

static void what_a_callback_stores_while_the_cache_ends_is_refused(void **state)
{
    (void)state;
    witness w = {.mode = 2};
    memkit_lru *c = make_told(&w, 8, 0, 0);
    for (uint64_t n = 0; n < 8; n++)
        set_number(c, n, 8);
    uint64_t sets = stats_of(c).sets;
    memkit_lru_free(c);
    assert_int_equal(w.told[MEMKIT_LRU_CLEARED], sets);
    assert_int_equal(w.stored, 0);
}

/* -- every call, from every reason -- */

enum { IDS = 4000 };

static struct {
    memkit_lru *cache;
    unsigned told[IDS]; /* how often each id was told of */
    unsigned reasons[6], inner;
    uint64_t stored; /* ids given out: each is stored once, or was refused */
    unsigned depth;
    uint64_t now;
} all;

static uint64_t all_clock(void *arg)
{
    (void)arg;
    return all.now;
}

/* A key is an id in 8 bytes, or that and a byte, under which ids follow each other. */
static int store(uint64_t id, bool shared_key)
{
    static const char shared[9] = "shared it";
    int result = shared_key ? memkit_lru_set(all.cache, shared, 9, &id, 8)
                            : memkit_lru_set(all.cache, &id, 8, &id, 8);
    all.told[id] += result != 0 ? 100u : 0u; /* so that it may not be told of */
    return result;
}

static int visit(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key;
    (void)klen;
    (void)val;
    *(size_t *)arg += vlen;
    return 0;
}

static void use_every_call(memkit_lru_reason reason)
{
    memkit_lru *c = all.cache;
    uint64_t id = all.stored++, other = id - 1;
    memkit_lru_ref ref;
    memkit_lru_stats_t st;
    memkit_buf *b = memkit_buf_new(0);
    size_t sum = 0;
    assert_int_equal(store(id, false), 0);
    assert_int_equal(memkit_lru_get(c, &id, 8, &ref), 1);
    assert_int_equal(store(all.stored++, true), 0);
    assert_int_equal(memkit_lru_peek(c, "no", 2, &(memkit_lru_ref){0}), 0);
    assert_int_equal(memkit_lru_get_buf(c, &id, 8, b), 1);
    memkit_lru_del(c, &other, 8);
    assert_int_equal(memkit_lru_each(c, visit, &sum), 0);
    memkit_lru_stats(c, &st);
    assert_int_equal(sum, st.entries * 8);
    errno = 0;
    int resized = memkit_lru_resize(c, 5 + id % 3, 0);
    assert_int_equal(resized, reason == MEMKIT_LRU_RESIZED ? -1 : 0);
    assert_int_equal(errno, reason == MEMKIT_LRU_RESIZED ? EDEADLK : 0);
    memkit_lru_clear(c);
    memkit_lru_stats(c, &st);
    assert_int_equal(st.entries, 0);
    assert_memory_equal(ref.data, &id, 8);
    memkit_lru_release(c, &ref);
    assert_int_equal(store(all.stored++, true), 0);
    memkit_buf_free(b);
    sound(c);
    all.inner++;
}

static void told_of_one(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                        memkit_lru_reason reason)
{
    (void)key;
    (void)arg;
    uint64_t id;
    assert_true((klen == 8 || klen == 9) && vlen == 8);
    memcpy(&id, val, 8);
    assert_true(id < all.stored);
    assert_int_equal(all.told[id], 0);
    all.told[id]++;
    all.reasons[reason]++;
    if (all.depth > 0 || all.cache == NULL)
        return;
    all.depth++;
    use_every_call(reason);
    all.depth--;
    assert_memory_equal(val, &id, 8); /* still there, whatever was done meanwhile */
}

static void on_evict_may_use_every_call_for_every_reason(void **state)
{
    (void)state;
    const unsigned modes[] = {0, MEMKIT_LRU_UNLOCKED};
    for (size_t i = 0; i < 2; i++) {
        memset(&all, 0, sizeof all);
        all.cache = memkit_lru_new(&(memkit_lru_opts){.max_entries = 6,
                                                      .shards = modes[i],
                                                      .ttl_ms = 1000,
                                                      .now_ms = all_clock,
                                                      .on_evict = told_of_one});
        assert_non_null(all.cache);
        for (int round = 0; round < 60; round++) {
            uint64_t first = all.stored;
            for (int n = 0; n < 12; n++) /* evicted, and replaced */
                assert_int_equal(store(all.stored++, n == 0 || n == 11), 0);
            if (round % 5 == 0) {
                uint64_t id = all.stored++;
                assert_int_equal(store(id, false), 0);
                assert_int_equal(memkit_lru_del(all.cache, &id, 8), 1);
            } else if (round % 5 == 1) {
                memkit_lru_clear(all.cache);
            } else if (round % 5 == 2) {
                assert_int_equal(memkit_lru_resize(all.cache, 1, 0), 0);
                assert_int_equal(memkit_lru_resize(all.cache, 6, 0), 0);
            } else if (round % 5 == 3) {
                all.now += 2000;
                for (; first < all.stored; first++)
                    assert_false(has_number(all.cache, first));
            }
            sound(all.cache);
        }
        memkit_lru *c = all.cache;
        for (int r = 0; r < 6; r++)
            assert_true(all.reasons[r] >= 5);
        assert_true(all.inner > 60);
        all.cache = NULL;
        memkit_lru_free(c);
        for (uint64_t id = 0; id < all.stored; id++)
            if (all.told[id] % 100 != (all.told[id] < 100)) /* once, or refused and never */
                fail_msg("id %u was told of %u times", (unsigned)id, all.told[id]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_evict_is_told_once_with_the_reason),
        cmocka_unit_test(on_evict_may_store),
        cmocka_unit_test(entries_expire),
        cmocka_unit_test(the_last_release_in_the_callback_frees_nothing_yet),
        cmocka_unit_test(set_gets_its_room_from_a_callback_that_puts_back),
        cmocka_unit_test(what_a_callback_stores_while_the_cache_ends_is_refused),
        cmocka_unit_test(on_evict_may_use_every_call_for_every_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
