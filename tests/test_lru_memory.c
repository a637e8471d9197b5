/* test_lru_memory.c - the cache's memory: what it allocates, when malloc fails, what it weighs. */
#include "test_lru.h"

static void a_full_cache_does_not_allocate(void **state)
{
    (void)state;
    const struct {
        size_t entries, bytes, len;
        bool mixed;
    } caches[] = {{5000, 0, 100, false},   {0, 2 << 20, 100, false}, {5000, 0, 900, true},
                  {0, 2 << 20, 900, true}, {50, 0, 100000, false},   {0, 4 << 20, 100000, false},
                  {1, 0, 10, false}};
    for (size_t i = 0; i < sizeof caches / sizeof caches[0]; i++) {
        memkit_lru *c = make(caches[i].entries, caches[i].bytes, 0);
        size_t before = 0, evicted = 0;
        for (uint64_t n = 0; n < 60000; n++) {
            size_t len = caches[i].len;
            if (caches[i].mixed)
                len = (size_t)((n * 2654435761u >> 8) % len);
            if (n == 40000) {
                before = mallocs_seen;
                evicted = stats_of(c).evictions;
            }
            assert_int_equal(set_number(c, n, len), 0);
            assert_true(has_number(c, n));
        }
        assert_int_equal(stats_of(c).evictions - evicted > 15000, true);
        /* A mixture may still find its proportions: a slab now and then, no more. */
        assert_in_range(mallocs_seen - before, 0, caches[i].mixed ? 20 : 0);
        memkit_lru_free(c);
    }
}

static void nothing_is_leaked(void **state)
{
    (void)state;
    long before = blocks_out;
    memkit_lru *c = make(0, 1 << 20, 4);
    for (uint64_t n = 0; n < 20000; n++)
        set_number(c, n, (size_t)(n * 7919 % 9000));
    memkit_lru_free(c);
    assert_int_equal(blocks_out, before);
}

/* A life of a cache in which the n-th allocation fails, once or from then on. Every call either
 * does what it should or says ENOMEM and loses nothing but, for a set, other entries. */
static bool life_under_failure(size_t nth, bool for_good, size_t max_bytes, bool calls)
{
    long before = blocks_out;
    bool failed = false;
    witness w = {0};
    fail_malloc((unsigned)nth, for_good);
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 300,
                                                      .max_bytes = max_bytes,
                                                      .expect_entry_bytes = 3000,
                                                      .on_evict = calls ? testify : NULL,
                                                      .arg = &w});
    if (c == NULL) {
        assert_int_equal(errno, ENOMEM);
        failed = true;
    }
    uint64_t stored = 0;
    for (uint64_t n = 0; c != NULL && n < 500; n++) {
        size_t len = n % 50 == 7 ? 20000 : (size_t)(n * 37 % 400);
        uint64_t key = n % 400, entries = stats_of(c).entries;
        bool there = has_number(c, key);
        if (set_number(c, key, len) == 0) {
            stored++;
            assert_true(has_number(c, key));
        } else {
            assert_int_equal(errno, ENOMEM);
            failed = true;
            assert_int_equal(has_number(c, key), there);
            assert_true(stats_of(c).entries <= entries);
        }
        sound(c);
    }
    if (c != NULL && memkit_lru_resize(c, 100, max_bytes == 0 ? 0 : 16 << 10) != 0) {
        assert_int_equal(errno, ENOMEM);
        failed = true;
    }
    failed |= mallocs_failed > 0; /* the table of units may fail to shrink, and nobody minds */
    fail_malloc(0, false);
    if (c != NULL) {
        sound(c);
        assert_int_equal(stats_of(c).sets, stored);
        memkit_lru_free(c);
        if (calls) {
            int told = 0;
            for (int i = 0; i < 6; i++)
                told += w.told[i];
            assert_int_equal(told, stored);
        }
    }
    assert_int_equal(blocks_out, before);
    return failed;
}

static void survives_failing_malloc(void **state)
{
    (void)state;
    for (int variant = 0; variant < 8; variant++) {
        bool for_good = variant & 1, calls = variant & 2;
        size_t max_bytes = variant & 4 ? 128 << 10 : 0, nth = 1;
        while (life_under_failure(nth, for_good, max_bytes, calls))
            nth += SANITIZED ? 4 : 1; /* there, a sample */
        assert_true(nth > 10);        /* there was something to fail */
    }
}

static void overhead_is_what_we_say(void **state)
{
    (void)state;
    memkit_lru *c = make(100000, 0, 0);
    char key[32], val[100] = {0};
    for (unsigned n = 0; n < 100000; n++) {
        snprintf(key, sizeof key, "user:%016x", n);
        assert_int_equal(memkit_lru_set(c, key, 21, val, sizeof val), 0);
    }
    double over = (double)stats_of(c).bytes / 100000 - 121;
    print_message("bytes per entry over key + value, 100,000 of 21 + 100 B: %.2f\n", over);
    assert_true(over <= 36);
    memkit_lru_free(c);
}

static void a_value_that_shrinks_gives_its_memory_back(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 0);
    for (uint64_t n = 0; n < 1500; n++)
        assert_int_equal(set_number(c, n, 400), 0);
    memkit_lru_ref ref;
    for (uint64_t n = 0; n < 1500; n++) {
        assert_int_equal(set_number(c, n, 4), 0);
        assert_int_equal(memkit_lru_get(c, &n, sizeof n, &ref), 1);
        assert_in_range(stats_of(c).pinned_bytes, 32, 64);
        memkit_lru_release(c, &ref);
    }
    sound(c);
    memkit_lru_free(c);
}

/* Entries with blocks of their own: most of the time one that has just become free serves. */
static void large_entries_of_mixed_sizes_hardly_allocate(void **state)
{
    (void)state;
    static char value[6000];
    uint64_t seed = 1;
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 1000});
    for (unsigned i = 0; i < 30000; i++) {
        if (i == 10000)
            fail_malloc(0, false);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        assert_int_equal(memkit_lru_set(c, &i, sizeof i, value, 2000 + (size_t)(seed >> 33) % 4001),
                         0);
    }
    print_message("mallocs in 20,000 sets of 2000 to 6000 B: %u\n", mallocs_seen);
    assert_true(mallocs_seen < 3000);
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_cache_does_not_allocate),
        cmocka_unit_test(nothing_is_leaked),
        cmocka_unit_test(survives_failing_malloc),
        cmocka_unit_test(overhead_is_what_we_say),
        cmocka_unit_test(a_value_that_shrinks_gives_its_memory_back),
        cmocka_unit_test(large_entries_of_mixed_sizes_hardly_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
