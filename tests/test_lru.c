/* test_lru.c - the cache's behaviours, one by one, and what it does when malloc fails.
 *
 * The program defines malloc over glibc's own, to count calls and to make the n-th one fail. Under
 * a sanitizer, elsewhere than on glibc, and with -DMEMKIT_TEST_NO_HOOK (for valgrind), it does not,
 * and the tests that need it are skipped by name.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <memkit/memkit.h>

#include "core/lru.h"

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

static char fault_text[256];
static int faults;

static void note_fault(const char *message)
{
    faults++;
    snprintf(fault_text, sizeof fault_text, "%s", message);
}

static void sound(memkit_lru *c)
{
    const char *broken = memkit__lru_check(c);
    if (broken != NULL)
        fail_msg("%s", broken);
}

static memkit_lru_stats_t stats_of(memkit_lru *c)
{
    memkit_lru_stats_t st;
    memkit_lru_stats(c, &st);
    return st;
}

static memkit_lru *make(size_t max_entries, size_t max_bytes, unsigned shards)
{
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.max_entries = max_entries, .max_bytes = max_bytes, .shards = shards});
    assert_non_null(c);
    sound(c);
    return c;
}

static int set(memkit_lru *c, const char *key, const char *val)
{
    int result = memkit_lru_set(c, key, strlen(key), val, strlen(val));
    int reason = errno;
    sound(c);
    errno = reason;
    return result;
}

static memkit_lru_ref get(memkit_lru *c, const char *key)
{
    memkit_lru_ref ref;
    assert_int_equal(memkit_lru_get(c, key, strlen(key), &ref), 1);
    return ref;
}

static bool has(memkit_lru *c, const char *key, const char *val)
{
    memkit_lru_ref ref;
    if (memkit_lru_peek(c, key, strlen(key), &ref) != 1)
        return false;
    bool same = ref.len == strlen(val) && memcmp(ref.data, val, ref.len) == 0;
    memkit_lru_release(c, &ref);
    return same;
}

static int set_number(memkit_lru *c, uint64_t n, size_t vlen)
{
    static char val[300 << 10];
    memset(val, (int)(n & 255), vlen);
    return memkit_lru_set(c, &n, sizeof n, val, vlen);
}

static bool has_number(memkit_lru *c, uint64_t n)
{
    return memkit_lru_get_into(c, &n, sizeof n, NULL, 0, NULL) == 1;
}

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

static void the_index_grows_in_steps(void **state)
{
    (void)state;
    /* Far more entries than expect_entry_bytes lets expect. */
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.max_bytes = 4 << 20, .expect_entry_bytes = 4000, .shards = 1});
    assert_non_null(c);
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    size_t first = memkit__lru_table_room(&s->index.now), between = 0;
    for (uint64_t n = 0; n < 60000; n++) {
        assert_int_equal(set_number(c, n, 4), 0);
        between += s->index.old.slots != NULL;
        if (n % 997 == 0)
            sound(c);
        /* All that should be there is found in the middle of a move, too. */
        if (s->index.old.slots != NULL && n % 10 == 0)
            for (uint64_t back = 0; back < 20; back++)
                assert_true(has_number(c, n - back * (s->count - 1) / 20));
    }
    sound(c);
    assert_true(memkit__lru_table_room(&s->index.now) > 8 * first);
    assert_true(between > 100); /* it was not done in one stop */
    assert_true(s->count > 40000);
    memkit_lru_free(c);
}

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

/* -- references -- */

static void a_pinned_entry_stays_readable(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        memkit_lru *c = make(2, 0, 0);
        set(c, "a", "the value");
        memkit_lru_ref ref = get(c, "a");
        uint64_t pinned = stats_of(c).pinned_bytes;
        assert_true(pinned >= 9);
        if (how == 0)
            assert_int_equal(memkit_lru_del(c, "a", 1), 1);
        else if (how == 1)
            set(c, "a", "another");
        else if (how == 2)
            memkit_lru_clear(c);
        else
            for (uint64_t n = 0; n < 100; n++)
                assert_int_equal(set_number(c, n, 9), 0);
        sound(c);
        assert_false(has(c, "a", "the value"));
        assert_int_equal(has(c, "a", "another"), how == 1);
        set_number(c, 1000, 9); /* does not get its memory */
        assert_memory_equal(ref.data, "the value", 9);
        assert_int_equal(stats_of(c).pinned_bytes, pinned);
        memkit_lru_release(c, &ref);
        assert_null(ref.data);
        sound(c);
        assert_int_equal(stats_of(c).pinned_bytes, 0);
        memkit_lru_release(c, &ref); /* cleared: does nothing */
        memkit_lru_free(c);
    }
}

static void set_may_take_what_get_gave(void **state)
{
    (void)state;
    const size_t lengths[] = {10, 100, 40000};
    for (size_t i = 0; i < 3; i++) {
        memkit_lru *c = make(2, 256 << 10, 0);
        static char val[40000];
        for (size_t j = 0; j < lengths[i]; j++)
            val[j] = (char)(j * 13);
        assert_int_equal(memkit_lru_set(c, "a", 1, val, lengths[i]), 0);
        memkit_lru_ref ref = get(c, "a");
        assert_int_equal(memkit_lru_set(c, "a", 1, ref.data, ref.len), 0);
        assert_int_equal(memkit_lru_set(c, "a", 1, (const char *)ref.data + 1, ref.len - 1), 0);
        assert_int_equal(memkit_lru_set(c, ref.data, 8, ref.data, ref.len), 0);
        assert_int_equal(memkit_lru_set(c, "c", 1, ref.data, ref.len), 0); /* evicts the a's heir */
        sound(c);
        memkit_lru_ref copy = get(c, "c");
        assert_int_equal(copy.len, lengths[i]);
        assert_memory_equal(copy.data, val, lengths[i]);
        memkit_lru_release(c, &copy);
        memkit_lru_release(c, &ref);
        sound(c);
        memkit_lru_free(c);
    }
}

static void everything_pinned_is_ebusy(void **state)
{
    (void)state;
    memkit_lru *c = make(2, 0, 0);
    set(c, "a", "1");
    set(c, "b", "2");
    memkit_lru_ref a = get(c, "a"), b = get(c, "b");
    errno = 0;
    assert_int_equal(set(c, "c", "3"), -1);
    assert_int_equal(errno, EBUSY);
    assert_true(has(c, "a", "1") && has(c, "b", "2"));
    assert_int_equal(set(c, "a", "4"), 0); /* a replacement needs nobody to go */
    assert_int_equal(memkit_lru_resize(c, 1, 0), 0);
    memkit_lru_release(c, &a);
    memkit_lru_release(c, &b);
    sound(c);
    memkit_lru_free(c);
}

static void bytes_full_of_pins_are_ebusy_and_nothing_goes(void **state)
{
    (void)state;
    const size_t lengths[] = {20, 400, 9000};
    for (size_t i = 0; i < 3; i++) {
        memkit_lru *c = make(0, 64 << 10, 0);
        static memkit_lru_ref refs[4000];
        size_t pinned = 0;
        uint64_t n = 0;
        for (; set_number(c, n, lengths[i]) == 0; n++)
            assert_int_equal(memkit_lru_get(c, &n, sizeof n, &refs[pinned++]), 1);
        assert_int_equal(errno, EBUSY);
        sound(c);
        memkit_lru_stats_t before = stats_of(c);
        assert_int_equal(before.entries, pinned);
        assert_int_equal(before.evictions, 0);
        errno = 0;
        assert_int_equal(memkit_lru_resize(c, 0, 16 << 10), -1);
        assert_int_equal(errno, EBUSY);
        assert_int_equal(stats_of(c).entries, pinned);
        /* One reference less, and it goes: not before everything older has. */
        memkit_lru_release(c, &refs[pinned / 2]);
        assert_int_equal(set_number(c, n, lengths[i]), 0);
        assert_true(has_number(c, n));
        assert_false(has_number(c, pinned / 2));
        sound(c);
        for (size_t r = 0; r < pinned; r++) {
            if (r != pinned / 2)
                assert_int_equal(*(const unsigned char *)refs[r].data, r & 255);
            memkit_lru_release(c, &refs[r]);
        }
        sound(c);
        assert_int_equal(stats_of(c).pinned_bytes, 0);
        memkit_lru_free(c);
    }
}

static void references_have_a_limit(void **state)
{
    (void)state;
    memkit_lru *c = make(2, 0, MEMKIT_LRU_UNLOCKED);
    set(c, "a", "1");
    memkit_lru_ref first = get(c, "a");
    for (int i = 1; i < UINT16_MAX; i++)
        get(c, "a");
    memkit_lru_ref more;
    errno = 0;
    assert_int_equal(memkit_lru_get(c, "a", 1, &more), -1);
    assert_int_equal(errno, EAGAIN);
    assert_null(more.data);
    memkit_buf *b = memkit_buf_new(0); /* needs none */
    assert_int_equal(memkit_lru_get_buf(c, "a", 1, b), 1);
    memkit_buf_free(b);
    for (int i = 0; i < UINT16_MAX; i++) {
        memkit_lru_ref copy = first;
        memkit_lru_release(c, &copy);
    }
    assert_int_equal(stats_of(c).pinned_bytes, 0);
    sound(c);
    memkit_lru_free(c);
}

static void misuse_of_references_is_a_fault(void **state)
{
    (void)state;
    memkit_set_fault_handler(note_fault);
    memkit_lru *c = make(64, 0, 0), *other = make(64, 0, 0);
    set(c, "a", "1");
    set(other, "a", "1");
    memkit_lru_ref ref = get(c, "a"), copy = ref, garbage = ref;
    faults = 0;
    memkit_lru_release(other, &copy); /* another cache's */
    assert_int_equal(faults, 1);
    garbage.priv[0] ^= 1u << 13;
    memkit_lru_release(c, &garbage);
    garbage = ref;
    garbage.data = (const char *)garbage.data + 8;
    memkit_lru_release(c, &garbage);
    memset(&garbage, 0x5a, sizeof garbage);
    memkit_lru_release(c, &garbage);
    assert_int_equal(faults, 4);
    assert_true(stats_of(c).pinned_bytes > 0);
    memkit_lru_free(c); /* a live reference: refused */
    assert_int_equal(faults, 5);
    assert_non_null(strstr(fault_text, "memkit_lru_free"));
    memkit_lru_release(c, &ref);
    assert_int_equal(faults, 5);
    memkit_lru_release(c, &copy); /* twice, through a copy */
    assert_int_equal(faults, 6);
    assert_non_null(strstr(fault_text, "already"));
    assert_true(has(c, "a", "1"));
    sound(c);

    /* The same when the memory has gone to others, or back to malloc. */
    ref = copy = get(c, "a");
    memkit_lru_release(c, &ref);
    memkit_lru_del(c, "a", 1);
    for (uint64_t n = 0; n < 3000; n++)
        set_number(c, n, n % 200);
    memkit_lru_release(c, &copy);
    assert_int_equal(faults, 7);
    memkit_lru_resize(c, 0, 64 << 10);
    memkit_lru_resize(c, 0, 32 << 10);
    memkit_lru_release(c, &copy);
    assert_int_equal(faults, 8);
    sound(c);
    memkit_lru_free(c);
    memkit_lru_free(other);
    assert_int_equal(faults, 8);
    memkit_set_fault_handler(NULL);
}

/* -- callbacks -- */

typedef struct {
    memkit_lru *cache;
    int told[6];
    char last[32];
    int depth, mode;
} witness;

static void testify(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                    memkit_lru_reason reason)
{
    witness *w = arg;
    w->told[reason]++;
    snprintf(w->last, sizeof w->last, "%.*s=%.*s", (int)klen, (const char *)key, (int)vlen,
             (const char *)val);
    if (w->mode == 0 || w->depth > 0)
        return;
    w->depth++;
    sound(w->cache); /* takes the lock: nobody holds it */
    memkit_lru_ref ref;
    assert_int_equal(memkit_lru_get(w->cache, key, klen, &ref) == 1,
                     reason == MEMKIT_LRU_REPLACED); /* it has left */
    if (reason == MEMKIT_LRU_REPLACED)
        memkit_lru_release(w->cache, &ref);
    memkit_lru_del(w->cache, "nobody", 6);
    if (w->mode == 2) /* key and value lie in the entry that leaves */
        memkit_lru_set(w->cache, key, klen, val, vlen);
    w->depth--;
}

static memkit_lru *make_told(witness *w, size_t max_entries, size_t max_bytes, uint64_t ttl_ms)
{
    w->cache = memkit_lru_new(&(memkit_lru_opts){.max_entries = max_entries,
                                                 .max_bytes = max_bytes,
                                                 .ttl_ms = ttl_ms,
                                                 .on_evict = testify,
                                                 .arg = w});
    assert_non_null(w->cache);
    return w->cache;
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_gives_the_published_vectors),
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
        cmocka_unit_test(the_index_grows_in_steps),
        cmocka_unit_test(resize_evicts_in_order),
        cmocka_unit_test(a_large_cache_shrinks_to_a_small_one),
        cmocka_unit_test(clear_empties),
        cmocka_unit_test(a_pinned_entry_stays_readable),
        cmocka_unit_test(set_may_take_what_get_gave),
        cmocka_unit_test(everything_pinned_is_ebusy),
        cmocka_unit_test(bytes_full_of_pins_are_ebusy_and_nothing_goes),
        cmocka_unit_test(references_have_a_limit),
        cmocka_unit_test(misuse_of_references_is_a_fault),
        cmocka_unit_test(on_evict_is_told_once_with_the_reason),
        cmocka_unit_test(on_evict_may_store),
        cmocka_unit_test(entries_expire),
        cmocka_unit_test(each_ends_when_told),
        cmocka_unit_test(equal_tags_do_not_confuse),
        cmocka_unit_test(each_cache_has_its_own_key),
        cmocka_unit_test(a_full_cache_does_not_allocate),
        cmocka_unit_test(nothing_is_leaked),
        cmocka_unit_test(survives_failing_malloc),
        cmocka_unit_test(overhead_is_what_we_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
