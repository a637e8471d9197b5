/* lru_find.h - from a key to its entry: the steps every call of the cache begins with. */
#ifndef MEMKIT_CORE_LRU_FIND_H
#define MEMKIT_CORE_LRU_FIND_H

#include "core/lru.h"

/* A hit is some 300 instructions: calls between its steps would be a tenth of them. */
#define MEMKIT__FORCE_INLINE inline __attribute__((always_inline))

/* The shard of a key, and its tag. Needs no lock. */
static MEMKIT__FORCE_INLINE memkit__lru_shard *
memkit__lru_locate(const memkit_lru *c, const void *key, size_t klen, uint32_t *tag)
{
    uint64_t hash = memkit__siphash(&c->key, key, klen, 1, 3);
    *tag = (uint32_t)hash + ((uint32_t)hash == 0); /* 0 is an empty slot's */
    return memkit__lru_shard_at(c, (uint32_t)(((hash >> 32) * c->shard_count) >> 32));
}

static inline uint64_t memkit__lru_word(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* memcmp == 0, in words: keys are short, and the call would cost more than the work. */
static MEMKIT__FORCE_INLINE bool memkit__lru_same(const char *a, const char *b, size_t n)
{
    if (MEMKIT_LIKELY(n >= 8)) {
        if (n > 64)
            return memcmp(a, b, n) == 0;
        for (size_t i = 0; i + 8 < n; i += 8)
            if (memkit__lru_word(a + i) != memkit__lru_word(b + i))
                return false;
        return memkit__lru_word(a + n - 8) == memkit__lru_word(b + n - 8);
    }
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

/* Compares the run of equal tags that begins at p: handle or 0. */
static MEMKIT__FORCE_INLINE uint32_t memkit__lru_match(const memkit__lru_shard *s,
                                                       const uint64_t *p, uint32_t tag,
                                                       const void *key, size_t klen)
{
    for (; MEMKIT_LIKELY(*p >> 32 == tag); p++) {
        uint32_t handle = (uint32_t)*p;
        const memkit__lru_entry *e = memkit__lru_at(s, handle);
        /* A hit will write to both: they come while the key is compared. */
        __builtin_prefetch(memkit__lru_at(s, e->prev), 1);
        __builtin_prefetch(memkit__lru_at(s, e->next), 1);
        if (MEMKIT_LIKELY(memkit__lru_klen(e) == klen &&
                          memkit__lru_same(memkit__lru_key(e), key, klen)))
            return handle;
    }
    return 0;
}

/* The same in the table that is being left, while one is (lru_get.c). */
uint32_t memkit__lru_find_old(const memkit__lru_shard *s, uint32_t tag, const void *key,
                              size_t klen);

/* Handle of the key's entry, or 0. */
static MEMKIT__FORCE_INLINE uint32_t memkit__lru_find(const memkit__lru_shard *s, uint32_t tag,
                                                      const void *key, size_t klen)
{
    const memkit__lru_table *t = &s->index.now;
    uint64_t *p = memkit__lru_seek(t, tag, memkit__lru_home(t, tag));
    uint32_t handle = memkit__lru_match(s, p, tag, key, klen);
    if (MEMKIT_UNLIKELY(handle == 0 && s->index.old.slots != NULL))
        handle = memkit__lru_find_old(s, tag, key, klen);
    return handle;
}

#endif
