/* test_lru_memory.c - the parts below: hash, table, memory, and what happens when malloc fails.
 *
 * The program defines malloc over glibc's own, to count calls and to make the n-th one fail. Under
 * a sanitizer, elsewhere than on glibc, and with -DMEMKIT_TEST_NO_HOOK (for valgrind), it does not,
 * and the tests that need it are skipped by name.
 */
#include "test_lru.h"

#include "core/lru_find.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(MEMKIT_TEST_NO_HOOK)
#define HOOKED 1
#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef HOOKED
#define HOOKED 0
#endif
#endif
#else
#define HOOKED 0
#endif

static size_t mallocs, live_blocks;
static size_t fail_after; /* 1: the next call fails; 0: none does */
static bool fail_for_good;

#if HOOKED
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

static bool fails(void)
{
    mallocs++;
    if (fail_after == 0 || --fail_after > 0)
        return false;
    if (fail_for_good)
        fail_after = 1;
    errno = ENOMEM;
    return true;
}

static void *counted(void *p)
{
    live_blocks += p != NULL;
    return p;
}

void *malloc(size_t n)
{
    return fails() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
    if (fails())
        return NULL;
    void *q = __libc_realloc(p, n);
    live_blocks += p == NULL && q != NULL;
    return q;
}

void *aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : counted(__libc_memalign(align, n));
}

void free(void *p)
{
    live_blocks -= p != NULL;
    __libc_free(p);
}
#endif

/* -- the hash -- */

static void siphash_gives_the_published_vectors(void **state)
{
    (void)state;
    /* SipHash-2-4, key 00..0f, input 00..(n-1): vectors.h of the reference implementation. */
    static const struct {
        size_t len;
        uint64_t hash;
    } vectors[] = {{0, 0x726fdb47dd0e0e31u}, {1, 0x74f839c593dc67fdu}, {2, 0x0d6c8009d9a94f5au},
                   {3, 0x85676696d7fb7e2du}, {7, 0xab0200f58b01d137u}, {8, 0x93f5f5799a932462u},
                   {15, 0xa129ca6149be45e5u}};
    memkit__sip_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    unsigned char in[64];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        assert_int_equal(memkit__siphash(&key, in, vectors[i].len, 2, 4), vectors[i].hash);
    /* 1-3 over the same bytes, as Rust's core::hash tests have it. */
    assert_int_equal(memkit__siphash(&key, in, 0, 1, 3), 0xabac0158050fc4dcu);
    assert_int_equal(memkit__siphash(&key, in, 1, 1, 3), 0xc9f49bf37d57ca93u);
}

/* -- hash table -- */

static void equal_tags_do_not_confuse(void **state)
{
    (void)state;
    /* Entries of one tag, and more of them with near ones: all in one run of the table. */
    memkit__lru_index ix = {0};
    assert_int_equal(memkit__lru_table_init(&ix.now, 200), 0);
    for (uint32_t h = 1; h <= 30; h++)
        assert_true(memkit__lru_index_insert(&ix, 77, h));
    for (uint32_t h = 31; h <= 60; h++)
        assert_true(memkit__lru_index_insert(&ix, 77 + h, h));
    for (uint32_t h = 1; h <= 30; h += 2)
        assert_true(memkit__lru_index_remove(&ix, 77, h));
    assert_false(memkit__lru_index_remove(&ix, 77, 1));
    assert_false(memkit__lru_index_remove(&ix, 76, 2));
    for (uint32_t h = 2; h <= 30; h += 2)
        assert_true(memkit__lru_index_replace(&ix, 77, h, h + 100));
    for (uint32_t h = 31; h <= 60; h++)
        assert_true(memkit__lru_index_remove(&ix, 77 + h, h));
    for (uint32_t h = 102; h <= 130; h += 2)
        assert_true(memkit__lru_index_remove(&ix, 77, h));
    for (size_t i = 0; i < memkit__lru_table_bytes(&ix.now) / 8; i++)
        assert_int_equal(ix.now.slots[i], 0);
    /* A run that fills the spill is refused, and nothing is lost by it. */
    uint32_t n = 0;
    while (n < 200 && memkit__lru_index_insert(&ix, 1, n + 1))
        n++;
    assert_true(n >= 64 && n < 200);
    for (uint32_t h = 1; h <= n; h++)
        assert_true(memkit__lru_index_remove(&ix, 1, h));
    memkit__lru_table_free(&ix.now);
}

/* Keys that collide in an unkeyed hash do nothing here; the worst that a keyed one can meet is met
 * by giving all keys one tag, above. This shows that each cache draws a key of its own. */
static void each_cache_has_its_own_key(void **state)
{
    (void)state;
    memkit_lru *a = make(10, 0, 0), *b = make(10, 0, 0);
    assert_memory_not_equal(&a->key, &b->key, sizeof a->key);
    assert_true(a->cookie != b->cookie);
    memkit_lru_free(a);
    memkit_lru_free(b);
}

/* -- memory -- */

static void a_full_cache_does_not_allocate(void **state)
{
    (void)state;
    if (!HOOKED)
        skip();
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
                before = mallocs;
                evicted = stats_of(c).evictions;
            }
            assert_int_equal(set_number(c, n, len), 0);
            assert_true(has_number(c, n));
        }
        assert_int_equal(stats_of(c).evictions - evicted > 15000, true);
        /* A mixture may still find its proportions: a slab now and then, no more. */
        assert_in_range(mallocs - before, 0, caches[i].mixed ? 20 : 0);
        memkit_lru_free(c);
    }
}

static void nothing_is_leaked(void **state)
{
    (void)state;
    if (!HOOKED)
        skip();
    size_t before = live_blocks;
    memkit_lru *c = make(0, 1 << 20, 4);
    for (uint64_t n = 0; n < 20000; n++)
        set_number(c, n, (size_t)(n * 7919 % 9000));
    memkit_lru_free(c);
    assert_int_equal(live_blocks, before);
}

/* A life of a cache in which the n-th allocation fails, once or from then on. Every call either
 * does what it should or says ENOMEM and loses nothing but, for a set, other entries. */
static bool life_under_failure(size_t nth, bool for_good, size_t max_bytes, bool calls)
{
    size_t before = live_blocks;
    bool failed = false;
    witness w = {0};
    fail_after = nth;
    fail_for_good = for_good;
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
    failed |= fail_after == 0; /* the table of units may fail to shrink, and nobody minds */
    fail_after = 0;
    fail_for_good = false;
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
    assert_int_equal(live_blocks, before);
    return failed;
}

static void survives_failing_malloc(void **state)
{
    (void)state;
    if (!HOOKED)
        skip();
    for (int variant = 0; variant < 8; variant++) {
        bool for_good = variant & 1, calls = variant & 2;
        size_t max_bytes = variant & 4 ? 128 << 10 : 0, nth = 1;
        while (life_under_failure(nth, for_good, max_bytes, calls))
            nth++;
        assert_true(nth > 10); /* there was something to fail */
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

static void keys_are_compared_to_the_last_byte(void **state)
{
    (void)state;
    char a[140], b[140];
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = (char)(i * 31);
    for (size_t n = 0; n <= sizeof a; n++) {
        memcpy(b, a, sizeof a);
        assert_true(memkit__lru_same(a, b, n));
        for (size_t i = 0; i < n; i++) {
            b[i] ^= 4;
            assert_false(memkit__lru_same(a, b, n));
            b[i] ^= 4;
        }
        if (n < sizeof a) {
            b[n] ^= 4; /* and no further */
            assert_true(memkit__lru_same(a, b, n));
        }
    }
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

/* Entries with blocks of their own: most of the time one that has just become free serves. */
static void large_entries_of_mixed_sizes_hardly_allocate(void **state)
{
    (void)state;
    if (!HOOKED)
        skip();
    static char value[6000];
    uint64_t seed = 1;
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 1000});
    for (unsigned i = 0; i < 30000; i++) {
        if (i == 10000)
            mallocs = 0;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        assert_int_equal(memkit_lru_set(c, &i, sizeof i, value, 2000 + (size_t)(seed >> 33) % 4001),
                         0);
    }
    print_message("mallocs in 20,000 sets of 2000 to 6000 B: %zu\n", mallocs);
    assert_true(mallocs < 3000);
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
        cmocka_unit_test(siphash_gives_the_published_vectors),
        cmocka_unit_test(equal_tags_do_not_confuse),
        cmocka_unit_test(each_cache_has_its_own_key),
        cmocka_unit_test(a_full_cache_does_not_allocate),
        cmocka_unit_test(nothing_is_leaked),
        cmocka_unit_test(survives_failing_malloc),
        cmocka_unit_test(overhead_is_what_we_say),
        cmocka_unit_test(keys_are_compared_to_the_last_byte),
        cmocka_unit_test(a_value_that_shrinks_gives_its_memory_back),
        cmocka_unit_test(clear_gives_a_grown_index_back),
        cmocka_unit_test(large_entries_of_mixed_sizes_hardly_allocate),
        cmocka_unit_test(a_resized_cache_holds_what_a_new_one_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
