/* test_lru.c - what the cache does: options, storing and finding, order, bounds. */
#include "test_lru.h"

/* -- making one -- */

static void refuses_bad_options(void **state)
{
    (void)state;
    const struct {
        memkit_lru_opts opts;
        int error;
    } bad[] = {
        {{0}, EINVAL},
        {{.max_entries = 1, .policy = MEMKIT_POLICY_S3FIFO}, ENOTSUP},
        {{.max_entries = 1, .policy = (memkit_lru_policy)7}, EINVAL},
        {{.max_entries = 1, .shards = 1025}, EINVAL},
        {{.max_entries = 1, .reserved = {0, 0, 0, 0, 0, 1}}, EINVAL},
        {{.max_entries = SIZE_MAX}, EINVAL},
        {{.max_entries = ((size_t)1 << 31) + 1}, EINVAL},
        {{.max_bytes = 1}, EINVAL},
        {{.max_bytes = 1000}, EINVAL},
        {{.max_bytes = 16 << 10, .shards = 1024}, EINVAL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        assert_null(memkit_lru_new(&bad[i].opts));
        assert_int_equal(errno, bad[i].error);
    }
    errno = 0;
    assert_null(memkit_lru_new(NULL));
    assert_int_equal(errno, EINVAL);
    memkit_lru_free(NULL);
}

static void takes_extreme_bounds(void **state)
{
    (void)state;
    const memkit_lru_opts extreme[] = {
        {.max_bytes = SIZE_MAX},
        {.max_bytes = SIZE_MAX - 1},
        {.max_entries = (size_t)1 << 31},
        {.max_entries = 1000, .max_bytes = (size_t)1 << 50, .expect_entry_bytes = SIZE_MAX},
        {.max_entries = 1, .shards = 1024, .ttl_ms = UINT64_MAX},
        {.max_bytes = 4096, .expect_entry_bytes = 1},
    };
    for (size_t i = 0; i < sizeof extreme / sizeof extreme[0]; i++) {
        memkit_lru *c = memkit_lru_new(&extreme[i]);
        assert_non_null(c);
        assert_int_equal(set(c, "key", "value"), 0);
        assert_true(has(c, "key", "value"));
        memkit_lru_free(c);
    }
}

static void copies_its_name(void **state)
{
    (void)state;
    char name[] = "sessions";
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = name, .max_entries = 1});
    assert_non_null(c);
    memset(name, 'x', 3);
    assert_string_equal(c->node.name, "sessions");
    memkit_lru_free(c);
}

static void refuses_bad_arguments(void **state)
{
    (void)state;
    memkit_lru *c = make(4, 0, 0);
    memkit_lru_ref ref;
    size_t len;
    char b[4];
    memkit_buf *out = memkit_buf_new(0);
#define REFUSED(call)                    \
    do {                                 \
        errno = 0;                       \
        assert_int_equal(call, -1);      \
        assert_int_equal(errno, EINVAL); \
    } while (0)
    REFUSED(memkit_lru_set(NULL, "k", 1, "v", 1));
    REFUSED(memkit_lru_set(c, NULL, 1, "v", 1));
    REFUSED(memkit_lru_set(c, "k", 1, NULL, 1));
    REFUSED(memkit_lru_get(NULL, "k", 1, &ref));
    REFUSED(memkit_lru_get(c, NULL, 1, &ref));
    REFUSED(memkit_lru_get(c, "k", 1, NULL));
    REFUSED(memkit_lru_peek(c, "k", 1, NULL));
    REFUSED(memkit_lru_get_into(NULL, "k", 1, b, sizeof b, &len));
    REFUSED(memkit_lru_get_into(c, "k", 1, NULL, 1, &len));
    REFUSED(memkit_lru_get_buf(c, "k", 1, NULL));
    REFUSED(memkit_lru_get_buf(c, NULL, 1, out));
    REFUSED(memkit_lru_del(NULL, "k", 1));
    REFUSED(memkit_lru_del(c, NULL, 1));
    REFUSED(memkit_lru_resize(NULL, 1, 1));
    REFUSED(memkit_lru_resize(c, 0, 0));
    REFUSED(memkit_lru_resize(c, 0, 10));
    REFUSED(memkit_lru_each(c, NULL, NULL));
    REFUSED(memkit_lru_each(NULL, NULL, NULL));
#undef REFUSED
    memkit_lru_release(c, NULL);
    memkit_lru_release(NULL, &ref);
    memkit_lru_clear(NULL);
    memkit_lru_stats_t st = {.hits = 7};
    memkit_lru_stats(NULL, &st);
    memkit_lru_stats(c, NULL);
    assert_int_equal(st.hits, 7);
    assert_int_equal(stats_of(c).misses, 0);
    memkit_buf_free(out);
    memkit_lru_free(c);
}

/* -- storing and finding -- */

static void stores_and_finds(void **state)
{
    (void)state;
    const unsigned modes[] = {0, 1, 5, MEMKIT_LRU_UNLOCKED};
    for (size_t i = 0; i < 4; i++) {
        memkit_lru *c = make(100, 0, modes[i]);
        assert_int_equal(set(c, "a", "one"), 0);
        assert_int_equal(set(c, "b", "two"), 0);
        assert_int_equal(set(c, "a", "three, which is longer"), 0);
        assert_true(has(c, "a", "three, which is longer") && has(c, "b", "two"));
        assert_false(has(c, "c", ""));
        assert_int_equal(memkit_lru_del(c, "a", 1), 1);
        assert_int_equal(memkit_lru_del(c, "a", 1), 0);
        assert_false(has(c, "a", "three, which is longer"));
        memkit_lru_stats_t st = stats_of(c);
        assert_int_equal(st.entries, 1);
        assert_int_equal(st.sets, 3);
        assert_int_equal(st.hits, 2);
        assert_int_equal(st.misses, 2);
        assert_int_equal(st.evictions, 0);
        assert_int_equal(st.max_entries, 100);
        memkit_lru_free(c);
    }
}

static void keys_and_values_are_any_bytes_of_any_length(void **state)
{
    (void)state;
    memkit_lru *c = make(1000, 0, 0);
    assert_int_equal(memkit_lru_set(c, NULL, 0, NULL, 0), 0);
    assert_int_equal(memkit_lru_set(c, "\0", 1, "\0\0", 2), 0);
    memkit_lru_ref ref;
    assert_int_equal(memkit_lru_get(c, "", 0, &ref), 1);
    assert_non_null(ref.data);
    assert_int_equal(ref.len, 0);
    memkit_lru_release(c, &ref);
    /* Lengths about where the header's 16 bits for the key end, and where slabs do. */
    const size_t lengths[] = {1, 7, 8, 9, 63, 64, 65, 255, 256, 4096, 65534, 65535, 65536, 200000};
    char *key = malloc(200000), *val = malloc(200000);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t n = lengths[i];
        memset(key, 'k', n);
        memset(val, (int)('A' + i), n);
        assert_int_equal(memkit_lru_set(c, key, n, val, n), 0);
        sound(c);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t n = lengths[i];
        memset(key, 'k', n);
        memset(val, (int)('A' + i), n);
        assert_int_equal(memkit_lru_get(c, key, n, &ref), 1);
        assert_int_equal(ref.len, n);
        assert_memory_equal(ref.data, val, n);
        assert_int_equal((uintptr_t)ref.data % 8, 0);
        memkit_lru_release(c, &ref);
        key[n - 1] = 'x'; /* the last byte counts */
        assert_int_equal(memkit_lru_get(c, key, n, &ref), 0);
        key[n - 1] = 'k';
    }
    free(key);
    free(val);
    memkit_lru_free(c);
}

static void impossible_lengths_are_e2big(void **state)
{
    (void)state;
    memkit_lru *c = make(10, 64 << 10, 0);
    assert_int_equal(set(c, "k", "v"), 0);
    const size_t huge[] = {64 << 10, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 64, SIZE_MAX};
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        errno = 0;
        assert_int_equal(memkit_lru_set(c, "k", 1, "v", huge[i]), -1);
        assert_int_equal(errno, E2BIG);
    }
    assert_true(has(c, "k", "v"));
    memkit_lru_free(c);
    c = make(10, 0, 0); /* no bound on bytes: still no size */
    errno = 0;
    assert_int_equal(memkit_lru_set(c, "k", 1, "v", SIZE_MAX - 8), -1);
    assert_int_equal(errno, E2BIG);
    memkit_lru_free(c);
}

static void get_into_cuts_and_tells_the_length(void **state)
{
    (void)state;
    memkit_lru *c = make(10, 0, 0);
    set(c, "k", "0123456789");
    char b[16] = "................";
    size_t len = 99;
    assert_int_equal(memkit_lru_get_into(c, "k", 1, b, 4, &len), 1);
    assert_int_equal(len, 10);
    assert_memory_equal(b, "0123....", 8);
    assert_int_equal(memkit_lru_get_into(c, "k", 1, NULL, 0, NULL), 1);
    len = 99;
    assert_int_equal(memkit_lru_get_into(c, "x", 1, b, 4, &len), 0);
    assert_int_equal(len, 99);
    memkit_lru_free(c);
}

static void get_buf_appends(void **state)
{
    (void)state;
    memkit_lru *c = make(10, 0, 0);
    set(c, "k", "value");
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_lru_get_buf(c, "k", 1, b), 1); /* has to grow */
    assert_int_equal(memkit_lru_get_buf(c, "k", 1, b), 1); /* has room */
    assert_int_equal(memkit_lru_get_buf(c, "x", 1, b), 0);
    assert_string_equal(b->data, "valuevalue");
    assert_int_equal(memkit_buf_limit(b, 12), 0);
    errno = 0;
    assert_int_equal(memkit_lru_get_buf(c, "k", 1, b), -1);
    assert_int_equal(errno, EMSGSIZE);
    assert_string_equal(b->data, "valuevalue");
    assert_int_equal(stats_of(c).pinned_bytes, 0);
    memkit_buf_free(b);
    memkit_lru_free(c);
}

/* -- order and bounds -- */

static void evicts_the_least_recent(void **state)
{
    (void)state;
    memkit_lru *c = make(3, 0, 0);
    set(c, "a", "1");
    set(c, "b", "2");
    set(c, "c", "3");
    memkit_lru_ref ref = get(c, "a"); /* a becomes the most recent */
    memkit_lru_release(c, &ref);
    assert_true(has(c, "b", "2")); /* a peek does not move b */
    set(c, "d", "4");
    assert_false(has(c, "b", "2"));
    assert_true(has(c, "a", "1") && has(c, "c", "3") && has(c, "d", "4"));
    set(c, "c", "5"); /* a set of a resident key evicts nobody and moves it */
    assert_int_equal(stats_of(c).evictions, 1);
    set(c, "e", "6");
    assert_false(has(c, "a", "1"));
    assert_true(has(c, "c", "5"));
    memkit_lru_free(c);
}

static void one_entry_is_a_cache(void **state)
{
    (void)state;
    const unsigned modes[] = {0, MEMKIT_LRU_UNLOCKED};
    for (size_t i = 0; i < 2; i++) {
        memkit_lru *c = make(1, 0, modes[i]);
        char key[2] = "a";
        for (int n = 0; n < 50; n++, key[0]++) {
            assert_int_equal(set(c, key, key), 0);
            assert_true(has(c, key, key));
            assert_int_equal(stats_of(c).entries, 1);
        }
        memkit_lru_free(c);
    }
}

static void bytes_never_exceed_the_bound(void **state)
{
    (void)state;
    const size_t bounds[] = {4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
    const size_t mixes[] = {0, 40, 300, 3000, 60000};
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 5; j++) {
            memkit_lru *c = make(0, bounds[i], 0);
            size_t stored = 0;
            for (uint64_t n = 0; n < 2000; n++) {
                size_t len = mixes[j] == 0 ? 0 : (size_t)(n * 7919 % mixes[j]);
                int result = set_number(c, n, len);
                if (result != 0)
                    assert_int_equal(errno, E2BIG);
                else
                    assert_true(has_number(c, n));
                stored += result == 0;
                assert_true(stats_of(c).bytes <= bounds[i]);
                if (n % 64 == 0)
                    sound(c);
            }
            assert_true(stored > 100 || mixes[j] > bounds[i]);
            if (mixes[j] == 40 && i == 2) /* and what there is room for is used */
                assert_true(stats_of(c).entries > bounds[i] / 110);
            memkit_lru_free(c);
        }
}

/* Values that just fit into what is left evict nobody who need not go. */
static void large_values_share_the_bound(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 0);
    for (uint64_t n = 0; n < 4; n++)
        assert_int_equal(set_number(c, n, 200 << 10), 0);
    for (uint64_t n = 0; n < 4; n++)
        assert_true(has_number(c, n));
    assert_int_equal(set_number(c, 4, 250 << 10), 0);
    assert_false(has_number(c, 0));
    assert_true(has_number(c, 2) && has_number(c, 3) && has_number(c, 4));
    sound(c);
    memkit_lru_free(c);
}

static int count_one(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key;
    (void)klen;
    (void)val;
    (void)vlen;
    return ++*(int *)arg == 3 ? 42 : 0;
}

static void each_ends_when_told(void **state)
{
    (void)state;
    memkit_lru *c = make(10, 0, 2);
    for (uint64_t n = 0; n < 10; n++)
        set_number(c, n, 5);
    int n = 0;
    assert_int_equal(memkit_lru_each(c, count_one, &n), 42);
    assert_int_equal(n, 3);
    n = 100;
    assert_int_equal(memkit_lru_each(c, count_one, &n), 0);
    assert_int_equal(n, 100 + (int)stats_of(c).entries);
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_options),
        cmocka_unit_test(takes_extreme_bounds),
        cmocka_unit_test(copies_its_name),
        cmocka_unit_test(refuses_bad_arguments),
        cmocka_unit_test(stores_and_finds),
        cmocka_unit_test(keys_and_values_are_any_bytes_of_any_length),
        cmocka_unit_test(impossible_lengths_are_e2big),
        cmocka_unit_test(get_into_cuts_and_tells_the_length),
        cmocka_unit_test(get_buf_appends),
        cmocka_unit_test(evicts_the_least_recent),
        cmocka_unit_test(one_entry_is_a_cache),
        cmocka_unit_test(bytes_never_exceed_the_bound),
        cmocka_unit_test(large_values_share_the_bound),
        cmocka_unit_test(each_ends_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
