/* memkit/lru.h - bounded cache of byte-string keys and values: O(1) hash and recency list.
 *
 *     memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){ .max_bytes = 64 << 20 });
 *     memkit_lru_set(c, key, klen, val, vlen);
 *
 *     memkit_lru_ref ref;
 *     if (memkit_lru_get(c, key, klen, &ref) == 1) {
 *         use(ref.data, ref.len);               // no copy: the entry is pinned meanwhile
 *         memkit_lru_release(c, &ref);
 *     }
 *
 * Keys and values are bytes: any bytes, any length that fits, also none. A cache is thread-safe
 * unless made with MEMKIT_LRU_UNLOCKED; memkit_lru_free wants the caller to be the last user.
 */
#ifndef MEMKIT_LRU_H
#define MEMKIT_LRU_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

typedef struct memkit_lru memkit_lru;

/* Who leaves first. MEMKIT_POLICY_S3FIFO is not there yet: memkit_lru_new refuses it with ENOTSUP.
 */
typedef enum { MEMKIT_POLICY_LRU = 0, MEMKIT_POLICY_S3FIFO } memkit_lru_policy;

/* Why an entry left the cache. */
typedef enum {
    MEMKIT_LRU_EVICTED = 0, /* the bound wanted room for another */
    MEMKIT_LRU_REPLACED,    /* a set of the same key */
    MEMKIT_LRU_DELETED,     /* memkit_lru_del */
    MEMKIT_LRU_EXPIRED,     /* its time to live had passed */
    MEMKIT_LRU_CLEARED,     /* memkit_lru_clear, memkit_lru_free */
    MEMKIT_LRU_RESIZED      /* memkit_lru_resize lowered the bound */
} memkit_lru_reason;

/* Told of each entry that leaves, exactly once, outside every lock: it may call back into the
 * cache. key and val are valid during the call only. */
typedef void (*memkit_lru_evict_fn)(void *arg, const void *key, size_t klen, const void *val,
                                    size_t vlen, memkit_lru_reason reason);

/* Visits an entry; anything but 0 ends the walk. */
typedef int (*memkit_lru_each_fn)(void *arg, const void *key, size_t klen, const void *val,
                                  size_t vlen);

/* A pinned entry: its bytes stay where and as they are until memkit_lru_release. */
typedef struct {
    const void *data; /* the value, aligned to 8; never NULL while pinned, also when len is 0 */
    size_t len;
    /* private */
    uint64_t priv[2];
} memkit_lru_ref;

/* shards: 0 = one, locked: thread-safe and exactly LRU; N (at most 1024) = N locked shards, each
 * exactly LRU and each bounded by its share of the bounds (of entries rounded up, of bytes down);
 * MEMKIT_LRU_UNLOCKED = one, without a lock, for one thread. */
#define MEMKIT_LRU_UNLOCKED ((unsigned)-1)

/* Zero in a field means its default; one of the two bounds is needed. */
typedef struct {
    const char
        *name; /* label in the metrics, copied; NULL: "lru"; an unlocked cache is not shown */
    size_t max_entries;        /* 0: bounded by bytes only */
    size_t max_bytes;          /* all bytes, overhead too; 0: bounded by entries only. Counted as
                                * asked of malloc, and 16 bytes a block: what malloc rounds up and
                                * leaves between blocks is not known here (README, Limits) */
    size_t expect_entry_bytes; /* key + value of a usual entry: sizes the table; default 128 */
    unsigned shards;           /* see above */
    uint64_t ttl_ms;           /* an entry lives so long after its set; 0: for ever */
    memkit_lru_evict_fn on_evict;
    void *arg;                  /* for on_evict */
    memkit_lru_policy policy;   /* default MEMKIT_POLICY_LRU */
    uint64_t (*now_ms)(void *); /* clock for ttl_ms; NULL: CLOCK_MONOTONIC_COARSE */
    void *now_arg;              /* for now_ms */
    uint64_t reserved[6];       /* zero */
} memkit_lru_opts;

typedef struct {
    uint64_t entries;      /* in the index at this moment */
    uint64_t bytes;        /* held for entries, overhead and index included, pinned ones too */
    uint64_t pinned_bytes; /* of those, in entries that are referenced */
    uint64_t hits;         /* get, get_into, get_buf, peek that found */
    uint64_t misses;       /* and that did not */
    uint64_t sets;         /* that succeeded */
    uint64_t evictions;    /* entries that left to make room, or by resize */
    uint64_t expirations;  /* entries that left because of their age */
    uint64_t max_entries;  /* the bounds in force; 0: none */
    uint64_t max_bytes;
    uint64_t reserved[6]; /* zeroed */
} memkit_lru_stats_t;

/* A new cache; copies opts. Free it with memkit_lru_free. NULL: ENOMEM; EINVAL (opts NULL, no
 * bound, reserved not zero, policy unknown, more than 1024 shards, more entries than 2^31 a shard,
 * bounds too small for one entry a shard); ENOTSUP (MEMKIT_POLICY_S3FIFO). */
MEMKIT_API MEMKIT_NODISCARD memkit_lru *memkit_lru_new(const memkit_lru_opts *opts);

/* Ends the cache; every entry is told to on_evict as cleared. Live references are a fault, and then
 * nothing is freed. No other call may be under way. NULL is allowed. */
MEMKIT_API void memkit_lru_free(memkit_lru *c);

/* Stores a copy of key and val, as the most recent entry; replaces the value of a key that is
 * there. key and val may lie in an entry of this cache that the caller has pinned, also the one
 * replaced. 0, or -1: EINVAL (c NULL, or a pointer NULL with a length); E2BIG (no size, or heavier
 * than what a new cache of these bounds could hold: its share of max_bytes less its empty index);
 * EBUSY (what would have to go is pinned, or held by an on_evict under way; or, hardly ever, a
 * resize is in the way); ENOMEM. After an error the cache holds what it held, the old value of the
 * key too; only for ENOMEM may other entries have been evicted. So it is ENOMEM, too, where room
 * for the entry was being made, with on_evict, and others - its callbacks, other threads - took or
 * pinned it.
 *
 * O(1), and for what it evicts. No malloc once the cache is full: the memory of what leaves serves
 * what comes, for entries up to a quarter of a slab (slabs are 1/64 of max_bytes, 512 bytes to
 * 64 KiB). Larger ones have blocks of their own, recycled where one of nearly the size has just
 * become free. The index grows with the number of entries and counts in max_bytes; where a heavy
 * entry needs its room all others of the shard are evicted, and it starts small again. on_evict is
 * told of the value replaced with both still held, which may cross max_bytes meanwhile. */
MEMKIT_API int memkit_lru_set(memkit_lru *c, const void *key, size_t klen, const void *val,
                              size_t vlen);

/* Finds an entry, makes it the most recent and pins it. 1: hit, *ref is filled, and the caller
 * releases it; 0: miss; -1: EINVAL; EOVERFLOW (klen is no size); EAGAIN (2^16 - 1 references to it
 * are out). *ref is cleared for 0 and -1, so that a release of it does nothing. */
MEMKIT_API int memkit_lru_get(memkit_lru *c, const void *key, size_t klen, memkit_lru_ref *ref);

/* Unpins, from any thread, and clears *ref, so that a second release does nothing. A reference into
 * another cache, or what is none, is a fault; so is a copy of one that was released already, found
 * as long as nothing else pins the entry. *ref stays as it is then. EINVAL for NULL. */
MEMKIT_API void memkit_lru_release(memkit_lru *c, memkit_lru_ref *ref);

/* Finds an entry, makes it the most recent and copies at most cap bytes of its value to dst (which
 * may be NULL with cap 0). *len (where not NULL) is the whole length, larger than cap where the
 * copy is cut. 1: hit; 0: miss; -1: EINVAL, EOVERFLOW. dst and *len are untouched for 0 and -1. */
MEMKIT_API int memkit_lru_get_into(memkit_lru *c, const void *key, size_t klen, void *dst,
                                   size_t cap, size_t *len);

/* As get_into, appending to out, in which the key may lie. 1: hit; 0: miss; -1: EINVAL, EOVERFLOW
 * or memkit_buf_append's errors, and out is unchanged. */
MEMKIT_API int memkit_lru_get_buf(memkit_lru *c, const void *key, size_t klen, memkit_buf *out);

/* As memkit_lru_get, and the entry keeps its place in the order. */
MEMKIT_API int memkit_lru_peek(memkit_lru *c, const void *key, size_t klen, memkit_lru_ref *ref);

/* Removes an entry. 1: deleted; 0: was absent; -1: EINVAL, EOVERFLOW. A removed entry that is
 * pinned leaves the index at once and stays readable; its bytes count until it is released. */
MEMKIT_API int memkit_lru_del(memkit_lru *c, const void *key, size_t klen);

/* Sets new bounds, as in memkit_lru_new, and evicts what is over them, least recent first, told as
 * MEMKIT_LRU_RESIZED. 0; -1: EINVAL; ENOMEM (the smaller index could not be made); EBUSY (the
 * slabs and blocks in which pinned entries lie are over the bound, however small those entries are;
 * or on_evict stores without end what it is told of); EDEADLK
 * (called by the on_evict of a resize of this cache). After an error the old bounds stay; after
 * EBUSY entries may have left, where pins came in the way later.
 *
 * Growing is O(1); the index grows with later sets. Shrinking goes shard by shard, in steps of at
 * most 64 entries evicted or blocks freed (of one entry, with on_evict); the shard is locked for
 * one step at a time, and other calls go on in between. The bounds sink with the steps, so that
 * max_bytes is a bound at every moment: first the old one, at the end the new one; the figures show
 * the old ones until the end. While entries must go a set evicts one for the one it stores. Memory
 * is freed in the same steps, a slab when its last entry has left; when the kernel gets it is
 * malloc's affair (glibc: malloc_trim). Pinned memory that the new bound has room for stays.
 * What goes is whole slabs, and all entries of a slab before it: after a shrink there may be fewer
 * entries than the bound would hold until sets fill it again, and a few fewer even then than in a
 * new cache, whose slabs and index were made for that bound.
 *
 * Resizes are one at a time: a second one waits, then does what it would have done alone. It waits
 * for the other one's on_evict, too. */
MEMKIT_API int memkit_lru_resize(memkit_lru *c, size_t max_entries, size_t max_bytes);

/* Removes every entry, told as MEMKIT_LRU_CLEARED. What was there when it was called is not found
 * any more once it returns; what is set meanwhile stays. The entries of a shard leave the index all
 * at once, and then one by one in steps as memkit_lru_resize's, with other calls in between. The
 * memory is kept for the next ones. For an index of more than 64 KiB (some 6,500 entries a shard)
 * an empty one is made, and for a moment both are held; where there is no memory for it, the old
 * one is emptied under the lock, which is O(n). on_evict may call it, for whatever reason it is
 * told. */
MEMKIT_API void memkit_lru_clear(memkit_lru *c);

/* Calls fn for each entry, most recent first within a shard, expired ones left out, until fn
 * returns other than 0; returns that, or 0; -1 with EINVAL. The shard is locked meanwhile: fn must
 * not call into the cache, nor make or end a pool, a cache or a named arena; it may fork. O(n). */
MEMKIT_API int memkit_lru_each(memkit_lru *c, memkit_lru_each_fn fn, void *arg);

/* Reads the figures, a sum over the shards. EINVAL for NULL, and *out is untouched. */
MEMKIT_API void memkit_lru_stats(memkit_lru *c, memkit_lru_stats_t *out);

MEMKIT_END_DECLS

#endif
