/* test_matrix_lru.h - the kinds of caches that are tried, and what is looked at before and after.
 */
#ifndef MEMKIT_TESTS_TEST_MATRIX_LRU_H
#define MEMKIT_TESTS_TEST_MATRIX_LRU_H

#include "support_matrix.h"

#include "core/lru.h"

static inline int note_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    note_bytes(arg, key, klen);
    note_bytes(arg, val, vlen);
    return 0;
}

static inline void record_lru(const void *object, record *r)
{
    memkit_lru *c = (memkit_lru *)(uintptr_t)object;
    const char *broken = memkit__lru_check(c);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    note(r, "entries %llu bytes %llu pinned %llu hits %llu misses %llu sets %llu\n",
         (unsigned long long)s.entries, (unsigned long long)s.bytes,
         (unsigned long long)s.pinned_bytes, (unsigned long long)s.hits,
         (unsigned long long)s.misses, (unsigned long long)s.sets);
    note(r, "evictions %llu expirations %llu bounds %llu %llu\n", (unsigned long long)s.evictions,
         (unsigned long long)s.expirations, (unsigned long long)s.max_entries,
         (unsigned long long)s.max_bytes);
    assert_int_equal(memkit_lru_each(c, note_entry, r), 0);
}

static inline void ignore(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                          memkit_lru_reason reason)
{
    (void)arg;
    (void)key;
    (void)klen;
    (void)val;
    (void)vlen;
    (void)reason;
}

static const memkit_lru_opts kinds[] = {
    {.name = "mine", .max_entries = 50},
    {.name = "mine", .max_bytes = 64 << 10},
    {.name = "mine", .max_entries = 50, .max_bytes = 64 << 10, .on_evict = ignore},
    {.name = "mine", .max_entries = 60, .shards = 3, .ttl_ms = 1000000},
    {.name = "mine", .max_bytes = 64 << 10, .shards = MEMKIT_LRU_UNLOCKED},
    {.name = "mine", .max_bytes = SIZE_MAX, .ttl_ms = UINT64_MAX, .on_evict = ignore},
};
enum { KINDS = LENGTH(kinds) };

static inline memkit_lru *make(size_t kind)
{
    memkit_lru *c = memkit_lru_new(&kinds[kind]);
    assert_non_null(c);
    assert_int_equal(memkit_lru_set(c, "k", 1, "value", 5), 0);
    assert_int_equal(memkit_lru_set(c, "", 0, "", 0), 0);
    assert_int_equal(memkit_lru_set(c, "other", 5, NULL, 0), 0);
    watch(record_lru, c);
    return c;
}

static inline void end(memkit_lru *c)
{
    watch(NULL, NULL);
    memkit_lru_free(c);
}

#endif
