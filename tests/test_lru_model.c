/* test_lru_model.c - the cache against a naive model: a million random steps.
 *
 * The model is an array of keys, most recent first, with what was stored under each. After every
 * operation the cache's invariants are walked and its order is compared with the model's: what the
 * cache has evicted must be the tail of the model, in order, and nothing else. Half of the caches
 * report through on_evict, and then the reasons are compared, too.
 * MEMKIT_TEST_OPS: operations for each cache; less than the default is for slow tools.
 */
#include <inttypes.h>

#include "test_lru.h"

enum { KEYS = 150, REFS = 6, LONGEST = 200 << 10, PLACES = 4093 };

typedef struct {
    const char *name;
    unsigned shards;
    size_t max_entries, max_bytes;
    bool calls;
    uint64_t ttl_ms;
    bool large; /* values up to 200 KiB */
} setup;

typedef struct {
    unsigned key;
    size_t len;
    uint32_t seed;
    uint64_t expiry;
} stored;

typedef struct {
    memkit_lru_ref ref;
    size_t len;
    uint32_t seed;
} held;

static struct {
    const setup *set_up;
    memkit_lru *cache;
    stored order[KEYS]; /* most recent first */
    size_t count;
    held refs[REFS];
    size_t ref_count;
    uint64_t now;
    uint64_t told[6];
    unsigned setting; /* the key that is being set; KEYS: none */
} m;
static size_t steps; /* of all caches */

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)((rng_state >> 20) % below);
}

/* Fewer where every step costs ten times as much. */
static size_t ops_wanted(size_t otherwise)
{
    const char *s = getenv("MEMKIT_TEST_OPS");
    return s != NULL ? (size_t)strtoul(s, NULL, 10) : SANITIZED ? otherwise / 10 : otherwise;
}

/* Keys of lengths 0 to 70, some of them longer than a value. */
static size_t key_of(unsigned key, char *out)
{
    size_t len = key == 0 ? 0 : 1 + key % 70;
    memset(out, 'k', len);
    if (len > 0)
        out[0] = (char)key;
    if (len > 1)
        out[len - 1] = (char)(key >> 4);
    return len;
}

static unsigned key_from(const void *p, size_t len)
{
    return len == 0 ? 0 : *(const unsigned char *)p;
}

/* A value is a piece of one long random text; its seed says where that begins. */
static char text[LONGEST + PLACES];

static void write_text(void)
{
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)next_random(&seed);
}

static bool filled(const void *p, size_t len, uint32_t seed)
{
    return memcmp(p, text + seed % PLACES, len) == 0;
}

static size_t find(unsigned key)
{
    for (size_t i = 0; i < m.count; i++)
        if (m.order[i].key == key)
            return i;
    return KEYS;
}

static void forget(size_t at)
{
    memmove(&m.order[at], &m.order[at + 1], (m.count - at - 1) * sizeof m.order[0]);
    m.count--;
}

static void to_front(size_t at)
{
    stored s = m.order[at];
    memmove(&m.order[1], &m.order[0], at * sizeof m.order[0]);
    m.order[0] = s;
}

static uint64_t clock_ms(void *arg)
{
    (void)arg;
    return m.now;
}

static bool expired(const stored *s)
{
    return m.set_up->ttl_ms != 0 && s->expiry <= m.now;
}

static void told(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                 memkit_lru_reason reason)
{
    assert_ptr_equal(arg, &m);
    size_t at = find(key_from(key, klen));
    assert_int_not_equal(at, KEYS); /* told twice, or never stored */
    assert_int_equal(vlen, m.order[at].len);
    assert_true(filled(val, vlen, m.order[at].seed));
    m.told[reason]++;
    bool one_order = m.set_up->shards == 0 || m.set_up->shards == MEMKIT_LRU_UNLOCKED;
    if (reason == MEMKIT_LRU_EVICTED || reason == MEMKIT_LRU_RESIZED) {
        /* The least recent one, but for the one that is being replaced. */
        size_t last = m.count - 1;
        if (last > 0 && m.order[last].key == m.setting)
            last--;
        if (one_order)
            assert_int_equal(at, last);
    } else if (reason == MEMKIT_LRU_EXPIRED) {
        assert_true(expired(&m.order[at]));
    } else if (reason == MEMKIT_LRU_REPLACED) {
        assert_int_equal(m.order[at].key, m.setting);
    }
    forget(at);
}

static int compare_next(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    size_t *at = arg;
    while (*at < m.count && expired(&m.order[*at]))
        ++*at;
    assert_true(*at < m.count);
    const stored *s = &m.order[*at];
    char expected[128];
    assert_int_equal(klen, key_of(s->key, expected));
    assert_memory_equal(key, expected, klen);
    assert_int_equal(vlen, s->len);
    if (!m.set_up->large || *at == 0)
        assert_true(filled(val, vlen, s->seed));
    ++*at;
    return 0;
}

/* Invariants, bounds, figures; and with one shard the order. `may_evict`: the model's tail that
 * the cache does not have any more is forgotten; else there must be none. */
static void compare(bool may_evict)
{
    const char *broken = memkit__lru_check(m.cache);
    if (broken != NULL)
        fail_msg("%s: %s", m.set_up->name, broken);
    memkit_lru_stats_t st;
    memkit_lru_stats(m.cache, &st);
    if (m.set_up->max_bytes != 0)
        assert_true(st.bytes <= st.max_bytes);
    assert_true(st.pinned_bytes <= st.bytes);
    assert_true((st.pinned_bytes != 0) == (m.ref_count != 0));
    if (may_evict && !m.set_up->calls) {
        assert_true(st.entries <= m.count);
        m.count = st.entries;
    }
    assert_int_equal(st.entries, m.count);
    if (m.set_up->shards == 0 || m.set_up->shards == MEMKIT_LRU_UNLOCKED) {
        size_t at = 0;
        assert_int_equal(memkit_lru_each(m.cache, compare_next, &at), 0);
        while (at < m.count && expired(&m.order[at]))
            at++;
        assert_int_equal(at, m.count);
    }
}

static char scratch[LONGEST];

static size_t random_length(void)
{
    uint32_t kind = rnd(100);
    if (m.set_up->large && kind < 4)
        return rnd(LONGEST);
    if (kind < 10)
        return rnd(6000);
    return kind < 15 ? 0 : rnd(300);
}

/* A value for `key` goes in; from a held reference, now and then, which may be the key's own. */
static void do_set(unsigned key)
{
    char k[128];
    size_t klen = key_of(key, k), len = random_length();
    uint32_t seed = rnd(1000000);
    const void *val = scratch;
    if (m.ref_count > 0 && rnd(4) == 0) {
        const held *h = &m.refs[rnd((uint32_t)m.ref_count)];
        val = h->ref.data;
        len = h->len;
        seed = h->seed;
    } else {
        memcpy(scratch, text + seed % PLACES, len);
    }
    size_t before = m.count;
    size_t at = find(key);
    bool was_expired = at != KEYS && expired(&m.order[at]);
    m.setting = key;
    int result = memkit_lru_set(m.cache, k, klen, val, len);
    m.setting = KEYS;
    if (result != 0) {
        assert_true(errno == EBUSY || errno == E2BIG);
        if (was_expired && !m.set_up->calls)
            forget(at);
        assert_int_equal(m.count, before - was_expired);
        compare(false);
        return;
    }
    at = find(key);
    if (m.set_up->calls)
        assert_int_equal(at, KEYS); /* the old value was reported, as replaced or expired */
    else if (at != KEYS)
        forget(at);
    memmove(&m.order[1], &m.order[0], m.count * sizeof m.order[0]);
    m.order[0] = (stored){key, len, seed, m.now + m.set_up->ttl_ms};
    m.count++;
    compare(true);
    assert_true(m.count > 0 && m.order[0].key == key); /* the newest is always there */
}

static void do_get(unsigned key, bool peek)
{
    char k[128];
    size_t klen = key_of(key, k), at = find(key);
    bool gone = at == KEYS || expired(&m.order[at]);
    if (m.ref_count == REFS || rnd(2) == 0) {
        size_t len = 12345;
        memset(scratch, 0, 64);
        assert_int_equal(memkit_lru_get_into(m.cache, k, klen, scratch, 64, &len), !gone);
        if (!gone) {
            assert_int_equal(len, m.order[at].len);
            assert_true(filled(scratch, len < 64 ? len : 64, m.order[at].seed));
        }
        peek = false;
    } else {
        memkit_lru_ref ref;
        int hit =
            peek ? memkit_lru_peek(m.cache, k, klen, &ref) : memkit_lru_get(m.cache, k, klen, &ref);
        assert_int_equal(hit, !gone);
        if (hit) {
            assert_int_equal(ref.len, m.order[at].len);
            m.refs[m.ref_count++] = (held){ref, m.order[at].len, m.order[at].seed};
        } else {
            assert_null(ref.data);
        }
    }
    if (gone && at != KEYS && !m.set_up->calls)
        forget(at);
    if (!gone && !peek)
        to_front(at);
    compare(false);
}

static void do_release(void)
{
    if (m.ref_count == 0)
        return;
    held *h = &m.refs[rnd((uint32_t)m.ref_count)];
    assert_true(filled(h->ref.data, h->len, h->seed)); /* whatever has become of the key */
    assert_int_equal((uintptr_t)h->ref.data % 8, 0);
    memkit_lru_release(m.cache, &h->ref);
    assert_null(h->ref.data);
    *h = m.refs[--m.ref_count];
    compare(false);
}

static void do_del(unsigned key)
{
    char k[128];
    size_t klen = key_of(key, k), at = find(key);
    bool gone = at == KEYS || expired(&m.order[at]);
    assert_int_equal(memkit_lru_del(m.cache, k, klen), !gone);
    if (at != KEYS && !m.set_up->calls)
        forget(at);
    assert_int_equal(find(key), KEYS);
    compare(false);
}

static void do_resize(void)
{
    const setup *u = m.set_up;
    size_t entries =
        u->max_entries == 0 ? 0 : u->max_entries / 4 + 1 + rnd((uint32_t)u->max_entries);
    size_t bytes = u->max_bytes == 0 ? 0 : u->max_bytes / 4 + rnd((uint32_t)u->max_bytes);
    int result = memkit_lru_resize(m.cache, entries, bytes);
    if (result != 0)
        assert_int_equal(errno, EBUSY);
    compare(result == 0);
}

static void step(void)
{
    /* A hot quarter of the keys, so that order matters. */
    unsigned key = rnd(2) == 0 ? rnd(KEYS / 4) : rnd(KEYS);
    uint32_t what = rnd(1000);
    if (what < 400)
        do_set(key);
    else if (what < 750)
        do_get(key, what < 480);
    else if (what < 900)
        do_release();
    else if (what < 980)
        do_del(key);
    else if (what < 990)
        m.now += rnd(40);
    else if (what < 998)
        do_resize();
    else if (what == 998 && rnd(10) == 0) {
        memkit_lru_clear(m.cache);
        if (!m.set_up->calls)
            m.count = 0;
        compare(false);
    }
}

static const setup setups[] = {
    {"entries, unlocked", MEMKIT_LRU_UNLOCKED, 64, 0, false, 0, false},
    {"entries, locked, callback", 0, 64, 0, true, 0, false},
    {"entries, 4 shards, callback", 4, 64, 0, true, 0, false},
    {"one entry, locked", 0, 1, 0, false, 0, false},
    {"two entries, unlocked, callback", MEMKIT_LRU_UNLOCKED, 2, 0, true, 0, false},
    {"entries, ttl, unlocked", MEMKIT_LRU_UNLOCKED, 80, 0, false, 50, false},
    {"entries, ttl, locked, callback", 0, 80, 0, true, 50, false},
    {"bytes, unlocked", MEMKIT_LRU_UNLOCKED, 0, 32 << 10, false, 0, false},
    {"bytes, locked, callback", 0, 0, 32 << 10, true, 0, false},
    {"bytes, 3 shards, callback, ttl", 3, 0, 90 << 10, true, 50, false},
    {"both, locked", 0, 60, 48 << 10, false, 0, false},
    {"bytes, large values, unlocked", MEMKIT_LRU_UNLOCKED, 0, 1 << 20, false, 0, true},
    {"bytes, large values, locked, callback", 0, 0, 1 << 20, true, 0, true},
};

static void agrees_with_the_model(void **state)
{
    (void)state;
    uint64_t sum[6] = {0};
    write_text();
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        const setup *u = &setups[i];
        memset(&m, 0, sizeof m);
        m.set_up = u;
        m.setting = KEYS;
        m.now = 1000;
        rng_state = 0x9e3779b97f4a7c15u + i;
        memkit_lru_opts opts = {.max_entries = u->max_entries,
                                .max_bytes = u->max_bytes,
                                .shards = u->shards,
                                .ttl_ms = u->ttl_ms,
                                .now_ms = clock_ms,
                                .on_evict = u->calls ? told : NULL,
                                .arg = &m};
        m.cache = memkit_lru_new(&opts);
        assert_non_null(m.cache);
        size_t ops = ops_wanted(u->large ? 60000 : 90000);
        steps += ops;
        for (size_t n = 0; n < ops; n++)
            step();
        while (m.ref_count > 0)
            do_release();
        memkit_lru_stats_t st;
        memkit_lru_stats(m.cache, &st);
        assert_true(st.hits > 0 && st.misses > 0 && st.sets > 0 && st.evictions > 0);
        if (u->calls) {
            assert_int_equal(st.evictions, m.told[MEMKIT_LRU_EVICTED] + m.told[MEMKIT_LRU_RESIZED]);
            assert_int_equal(st.expirations, m.told[MEMKIT_LRU_EXPIRED]);
        }
        size_t left = m.count;
        uint64_t cleared = m.told[MEMKIT_LRU_CLEARED];
        memkit_lru_free(m.cache);
        if (u->calls) {
            assert_int_equal(m.count, 0);
            assert_int_equal(m.told[MEMKIT_LRU_CLEARED], cleared + left);
        }
        for (int r = 0; r < 6; r++)
            sum[r] += m.told[r];
    }
    print_message(
        "%zu steps over %zu caches; left: %" PRIu64 " evicted, %" PRIu64 " replaced, %" PRIu64
        " deleted, %" PRIu64 " expired, %" PRIu64 " cleared, %" PRIu64 " resized\n",
        steps, sizeof setups / sizeof setups[0], sum[0], sum[1], sum[2], sum[3], sum[4], sum[5]);
    if (getenv("MEMKIT_TEST_OPS") == NULL)
        for (int r = 0; r < 6; r++)
            assert_true(sum[r] > 100); /* every way to leave was gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
