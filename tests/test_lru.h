/* test_lru.h - what the tests of the cache share: short calls that walk the invariants after each
 * step, and a callback that keeps count and uses the cache.
 */
#ifndef MEMKIT_TESTS_TEST_LRU_H
#define MEMKIT_TESTS_TEST_LRU_H

#include "support.h"

#include "core/lru.h"

static inline void sound(memkit_lru *c)
{
    const char *broken = memkit__lru_check(c);
    if (broken != NULL)
        fail_msg("%s", broken);
}

static inline memkit_lru_stats_t stats_of(memkit_lru *c)
{
    memkit_lru_stats_t st;
    memkit_lru_stats(c, &st);
    return st;
}

static inline memkit_lru *make(size_t max_entries, size_t max_bytes, unsigned shards)
{
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.max_entries = max_entries, .max_bytes = max_bytes, .shards = shards});
    assert_non_null(c);
    sound(c);
    return c;
}

static inline int set(memkit_lru *c, const char *key, const char *val)
{
    int result = memkit_lru_set(c, key, strlen(key), val, strlen(val));
    int reason = errno;
    sound(c);
    errno = reason;
    return result;
}

static inline memkit_lru_ref get(memkit_lru *c, const char *key)
{
    memkit_lru_ref ref;
    assert_int_equal(memkit_lru_get(c, key, strlen(key), &ref), 1);
    return ref;
}

static inline bool has(memkit_lru *c, const char *key, const char *val)
{
    memkit_lru_ref ref;
    if (memkit_lru_peek(c, key, strlen(key), &ref) != 1)
        return false;
    bool same = ref.len == strlen(val) && memcmp(ref.data, val, ref.len) == 0;
    memkit_lru_release(c, &ref);
    return same;
}

static inline int set_number(memkit_lru *c, uint64_t n, size_t vlen)
{
    static char val[300 << 10];
    memset(val, (int)(n & 255), vlen);
    return memkit_lru_set(c, &n, sizeof n, val, vlen);
}

static inline bool has_number(memkit_lru *c, uint64_t n)
{
    return memkit_lru_get_into(c, &n, sizeof n, NULL, 0, NULL) == 1;
}

typedef struct {
    memkit_lru *cache;
    int told[6];
    char last[32];
    int depth, mode;
    uint64_t stored; /* by the callback, in mode 2 */
} witness;

static inline void testify(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
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
        w->stored += memkit_lru_set(w->cache, key, klen, val, vlen) == 0;
    w->depth--;
}

static inline memkit_lru *make_told(witness *w, size_t max_entries, size_t max_bytes,
                                    uint64_t ttl_ms)
{
    w->cache = memkit_lru_new(&(memkit_lru_opts){.max_entries = max_entries,
                                                 .max_bytes = max_bytes,
                                                 .ttl_ms = ttl_ms,
                                                 .on_evict = testify,
                                                 .arg = w});
    assert_non_null(w->cache);
    return w->cache;
}

#endif
