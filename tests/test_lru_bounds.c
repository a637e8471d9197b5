/* test_lru_bounds.c - bounds that change: what stays and what goes with resize and clear. */
#include "test_lru.h"

static void resize_evicts_in_order(void **state)
{
    (void)state;
    memkit_lru *c = make(100, 0, 0);
    for (uint64_t n = 0; n < 100; n++)
        assert_int_equal(set_number(c, n, 50), 0);
    assert_int_equal(memkit_lru_resize(c, 10, 0), 0);
    sound(c);
    for (uint64_t n = 0; n < 100; n++)
        assert_int_equal(has_number(c, n), n >= 90);
    assert_int_equal(stats_of(c).evictions, 90);
    assert_int_equal(stats_of(c).max_entries, 10);
    assert_int_equal(memkit_lru_resize(c, 5000, 0), 0); /* more than the index was made for */
    for (uint64_t n = 0; n < 6000; n++)
        assert_int_equal(set_number(c, n, 50), 0);
    sound(c);
    assert_int_equal(stats_of(c).entries, 5000);
    assert_int_equal(memkit_lru_resize(c, 0, 60000), 0); /* from entries to bytes */
    sound(c);
    assert_true(stats_of(c).bytes <= 60000);
    assert_true(has_number(c, 5999));
    assert_int_equal(stats_of(c).max_entries, 0);
    assert_int_equal(memkit_lru_resize(c, 0, 1 << 20), 0);
    for (uint64_t n = 0; n < 6000; n++)
        assert_int_equal(set_number(c, n, 50), 0);
    sound(c);
    assert_true(stats_of(c).entries > 4000);
    memkit_lru_free(c);
}

static void a_large_cache_shrinks_to_a_small_one(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 16 << 20, 0);
    for (uint64_t n = 0; n < 100000; n++)
        assert_int_equal(set_number(c, n, 100), 0);
    assert_int_equal(memkit_lru_resize(c, 0, 200 << 10), 0);
    sound(c);
    memkit_lru_stats_t st = stats_of(c);
    assert_true(st.bytes <= 200 << 10 && st.entries > 0);
    assert_true(has_number(c, 99999));
    memkit_lru_free(c);
}

/* Slabs stay as small as they were made, so a cache that was large in between has a long table of
 * units: it must not be in the way of a small bound. */
static void a_small_cache_grows_and_shrinks_again(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 64 << 10, 0);
    assert_int_equal(memkit_lru_resize(c, 0, 16 << 20), 0);
    for (uint64_t n = 0; n < 100000; n++)
        assert_int_equal(set_number(c, n, 100), 0);
    sound(c);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 10), 0);
    sound(c);
    assert_true(stats_of(c).bytes <= 64 << 10);
    for (uint64_t n = 0; n < 1000; n++)
        assert_int_equal(set_number(c, n, 100), 0);
    sound(c);
    assert_true(stats_of(c).entries > 50);
    memkit_lru_free(c);
}

/* The most recent entry lies in the last of very many units: it must not keep their table alive. */
static void a_table_of_units_is_not_in_the_way(void **state)
{
    (void)state;
    for (size_t keep = 1; keep < 4; keep++) {
        memkit_lru *c = make(0, 40 << 10, 0);
        assert_int_equal(memkit_lru_resize(c, 0, 8 << 20), 0);
        for (uint64_t n = 0; n < 3000; n++)
            assert_int_equal(set_number(c, n, 2500), 0); /* the last ones in new units */
        for (uint64_t n = 0; n < 3000 - keep; n++)
            memkit_lru_del(c, &n, 8);
        sound(c);
        assert_int_equal(memkit_lru_resize(c, 0, 10 << 10), 0);
        sound(c);
        for (uint64_t n = 5000; n < 5050; n++) {
            assert_int_equal(set_number(c, n, 150), 0);
            assert_true(has_number(c, n));
        }
        sound(c);
        memkit_lru_free(c);
    }
}

static void clear_empties(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 3);
    for (uint64_t n = 0; n < 1000; n++)
        set_number(c, n, 100);
    uint64_t bytes = stats_of(c).bytes;
    memkit_lru_clear(c);
    sound(c);
    assert_int_equal(stats_of(c).entries, 0);
    assert_int_equal(stats_of(c).bytes, bytes); /* kept for the next ones */
    for (uint64_t n = 0; n < 1000; n++) {
        assert_false(has_number(c, n));
        assert_int_equal(set_number(c, n, 100), 0);
    }
    sound(c);
    assert_int_equal(stats_of(c).entries, 1000);
    memkit_lru_free(c);
}

/* An index that grew for many small entries is no reason to refuse a large one afterwards. */
static void clear_gives_a_grown_index_back(void **state)
{
    (void)state;
    static char large[850000];
    char key[16];
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_bytes = 1 << 20});
    assert_int_equal(memkit_lru_set(c, "k", 1, large, sizeof large), 0);
    for (int i = 0; i < 40000; i++) {
        int n = snprintf(key, sizeof key, "%d", i);
        assert_int_equal(memkit_lru_set(c, key, (size_t)n, NULL, 0), 0);
    }
    memkit_lru_clear(c);
    assert_null(memkit__lru_check(c));
    assert_int_equal(memkit_lru_set(c, "k", 1, large, sizeof large), 0);
    assert_null(memkit__lru_check(c));
    memkit_lru_free(c);
}

/* Fills the cache with values of 0 to 999 B, walking its invariants now and then. */
static size_t entries_when_full(memkit_lru *c, unsigned sets)
{
    static char value[1000];
    uint64_t seed = 3;
    for (unsigned i = 0; i < sets; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        assert_int_equal(memkit_lru_set(c, &i, sizeof i, value, (size_t)(seed >> 33) % 1000), 0);
        if (i % 1000 == 0)
            assert_null(memkit__lru_check(c));
    }
    memkit_lru_stats_t st;
    memkit_lru_stats(c, &st);
    assert_true(st.bytes <= st.max_bytes);
    return st.entries;
}

static void a_resized_cache_holds_what_a_new_one_would(void **state)
{
    (void)state;
    const size_t bounds[][2] = {{64 << 20, 100 << 10}, {64 << 20, 1 << 20}, {200 << 10, 8 << 20}};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        memkit_lru *fresh = memkit_lru_new(&(memkit_lru_opts){.max_bytes = bounds[i][1]});
        memkit_lru *resized = memkit_lru_new(&(memkit_lru_opts){.max_bytes = bounds[i][0]});
        entries_when_full(resized, 2000); /* slabs of the old size are there already */
        assert_int_equal(memkit_lru_resize(resized, 0, bounds[i][1]), 0);
        assert_null(memkit__lru_check(resized));
        size_t want = entries_when_full(fresh, 30000), got = entries_when_full(resized, 30000);
        print_message("%zu -> %zu: %zu entries, made so %zu\n", bounds[i][0], bounds[i][1], got,
                      want);
        assert_true(got >= want * 3 / 4);
        memkit_lru_free(fresh);
        memkit_lru_free(resized);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_evicts_in_order),
        cmocka_unit_test(a_large_cache_shrinks_to_a_small_one),
        cmocka_unit_test(a_small_cache_grows_and_shrinks_again),
        cmocka_unit_test(a_table_of_units_is_not_in_the_way),
        cmocka_unit_test(clear_empties),
        cmocka_unit_test(clear_gives_a_grown_index_back),
        cmocka_unit_test(a_resized_cache_holds_what_a_new_one_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
