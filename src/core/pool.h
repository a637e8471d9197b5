/* pool.h - the inside of a pool, shared by pool.c (get, put), pool_life.c, pool_cache.c (threads'
 * caches) and pool_depot.c (what lies behind them). The drawing is at the head of pool.c.
 */
#ifndef MEMKIT_CORE_POOL_H
#define MEMKIT_CORE_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include <memkit/pool.h>

#include "core/counter.h"
#include "core/fork.h"
#include "core/internal.h"
#include "core/registry.h"
#include "core/takes.h"

/* ---- size classes: 64 bytes, then four to a doubling up to 1 GiB ---- */

enum { MEMKIT__CLASSES = 97, MEMKIT__NO_CLASS = 0xffff };

#define MEMKIT__MAX_CLASS_BYTES ((size_t)1 << 30)

/* The smallest class whose blocks have n bytes; n from 1 to MEMKIT__MAX_CLASS_BYTES. */
static inline unsigned memkit__class_of(size_t n)
{
    if (n <= 64)
        return 0;
    /* 4..7 in the top three bits of n - 1, and four classes for each bit below. */
    unsigned e = 63u ^ (unsigned)__builtin_clzll((unsigned long long)(n - 1));
    return e * 4 + (unsigned)((n - 1) >> (e - 2)) - 27;
}

static inline size_t memkit__class_bytes(unsigned class_index)
{
    if (class_index == 0)
        return 64;
    return ((size_t)16 << ((class_index - 1) / 4)) * (5 + (class_index - 1) % 4);
}

/* ---- one thread's cache ---- */

typedef struct {
    memkit__counter gets, misses, puts;
} memkit__pool_counts;

typedef struct memkit__cache {
    /* The owner sets `busy` for the length of a fast path and backs off into the lock where
     * `claimed` is set. Whoever holds the pool's lock sets `claimed`, makes every thread see it by
     * membarrier(2), waits for `busy` to be 0, and then owns the cache until it clears `claimed`.
     */
    atomic_int busy, claimed;
    unsigned countdown;                    /* puts until the next look at the clock */
    memkit__counter last_look, last_sweep; /* ms */
    size_t quota;         /* reserved of the pool's max_held_bytes: never less than held */
    memkit__counter held; /* bytes in the bins */
    memkit__pool_counts counts;
    memkit__countdown takes;
    struct memkit_pool *pool;
    struct memkit__cache *next_in_pool, **prev_in_pool;     /* under the pool's lock */
    struct memkit__cache *next_in_thread, **prev_in_thread; /* under the link lock */
    struct {
        memkit_buf *first;
        uint32_t count;
        uint32_t low; /* least count since the last sweep: so many were not needed */
    } bins[MEMKIT__CLASSES];
    uint32_t uses[MEMKIT__CLASSES]; /* buffers put, by the class their content needed */
    uint32_t uses_total;
} memkit__cache;

static inline memkit_buf *memkit__bin_pop(memkit__cache *c, unsigned class_index)
{
    memkit_buf *b = c->bins[class_index].first;
    if (b == NULL)
        return NULL;
    c->bins[class_index].first = b->next;
    if (--c->bins[class_index].count < c->bins[class_index].low)
        c->bins[class_index].low = c->bins[class_index].count;
    memkit__bump(&c->held, -(uint64_t)(b->held_cap + 1));
    return b;
}

static inline void memkit__bin_push(memkit__cache *c, unsigned class_index, memkit_buf *b)
{
    b->next = c->bins[class_index].first;
    c->bins[class_index].first = b;
    c->bins[class_index].count++;
    memkit__bump(&c->held, b->held_cap + 1);
}

/* ---- the pool ---- */

typedef struct memkit__headers {
    struct memkit__headers *next;
    memkit_buf buffers[39]; /* with the link a little under 4 KiB */
} memkit__headers;

typedef struct {
    memkit_buf *first, *last; /* most recent first, by next and prev */
    size_t count;
} memkit__depot_bin;

struct memkit_pool {
    /* Read by every call, hardly ever written. */
    uint64_t id; /* never used twice in a process: a thread's stale entry matches no later pool */
    const struct memkit__pool_ops *ops; /* the creator's */
    atomic_uint calibrated_class;
    unsigned max_class;         /* of max_buf_bytes */
    atomic_bool depot_filled;   /* it holds enough to be worth a look at the clock at each call */
    _Atomic uint64_t depot_due; /* ms: when something in it will have been idle for idle_ms */
    memkit__counter
        others_swept; /* ms: when caches of threads that stand still were last looked for */
    size_t max_held, max_thread;
    uint64_t idle_ms;

    pthread_mutex_t lock __attribute__((aligned(64))); /* for all below */
    memkit__depot_bin depot[MEMKIT__CLASSES];
    size_t depot_bytes, depot_buffers;
    size_t reserved; /* depot_bytes + every cache's quota: the bound is on this */
    size_t peak_reserved;
    uint64_t trimmed;
    /* Every block there is, out or waiting, and their bytes: what is out is this less what waits,
     * so that a get and a put need not count it. */
    size_t blocks, block_bytes;
    memkit__cache *caches;
    memkit__headers *headers;
    memkit_buf *free_headers;
    size_t lost_headers;         /* in a fork: in caches that could not be claimed */
    memkit__pool_counts retired; /* of threads that ended, and of calls without a cache */
    memkit__countdown takes;     /* of those calls, and of growth */
    uint64_t uses[MEMKIT__CLASSES], uses_total; /* halved now and then, so the recent weigh more */

    pthread_t sweeper; /* opts.background */
    pthread_cond_t sweeper_wakes;
    bool has_sweeper, stopping;
    atomic_bool sweeper_lost; /* in a fork: the next look at the clock starts another */

    memkit__node node;
    char name[];
};

/* A pool passed to another copy of the core is worked on by the code of the copy that made it. */
struct memkit__pool_ops {
    memkit_buf *(*get)(memkit_pool *, size_t, const void *from); /* where the caller goes on */
    void (*put)(memkit_pool *, memkit_buf *);
    size_t (*trim)(memkit_pool *, size_t);
    void (*stats)(memkit_pool *, memkit_pool_stats_t *);
    void (*free)(memkit_pool *);
};

/* ---- pool.c: the whole way of a get and a put, for any pool of this copy of the core ---- */

memkit_buf *memkit__pool_get(memkit_pool *p, size_t hint, const void *from);
void memkit__pool_put(memkit_pool *p, memkit_buf *b);

/* ---- pool_takes.c: while takes are wanted, or were ---- */

/* b was just handed out. Takes the pool's lock where the thread has no cache. Returns b. */
memkit_buf *memkit__pool_charge(memkit_pool *p, memkit_buf *b, const void *from);
/* A charged buffer comes back, or the memory it has now is not known to the profile. */
void memkit__pool_uncharge(memkit_buf *b);
/* b's block of `old` bytes was replaced by data of `block` bytes; `epoch` from before that. Under
 * the pool's lock; b is as it was, but for data. */
void memkit__pool_grown(memkit_pool *p, memkit_buf *b, size_t old, size_t block, uint32_t epoch);

/* ---- pool_cache.c ---- */

typedef struct {
    uint64_t pool_id;
    memkit__cache *cache;
} memkit__cache_entry;

/* The pool this thread used last: what the fast path looks at. */
extern MEMKIT__TLS memkit__cache_entry memkit__last_cache __attribute__((visibility("hidden")));

/* This thread's cache, where the pool is the one it used last. An id is of one pool of one copy of
 * the core, so a match says also that the pool is ours to work on. */
static inline memkit__cache *memkit__cache_last(const memkit_pool *p)
{
    return MEMKIT_LIKELY(memkit__last_cache.pool_id == p->id) ? memkit__last_cache.cache : NULL;
}

/* This thread's cache in the pool, made where there is none; NULL where memory is short. Takes
 * locks; the pool's must not be held. */
memkit__cache *memkit__cache_find(memkit_pool *p);

/* With the pool's lock held: makes the caller owner of every cache it can claim but `own`, which is
 * the calling thread's (or NULL); and gives them back. A cache not claimed is left alone. */
void memkit__caches_claim(memkit_pool *p, memkit__cache *own);
void memkit__caches_unclaim(memkit_pool *p, memkit__cache *own);
bool memkit__cache_owned(const memkit__cache *c, const memkit__cache *own);

/* Before the first cache, and best before the process has threads: with those, registering for
 * membarrier(2) waits for a grace period of the kernel's, some 20 ms. */
void memkit__caches_prepare(void);

/* For pool_fork.c: the link lock, and with it and the pool's lock held, in a child: takes apart
 * what threads left that are no more. Those not claimed are let go of as they are. */
void memkit__links_hold(void);
void memkit__links_let_go(bool in_child);
void memkit__caches_orphaned(memkit_pool *p);

/* Drops what every cache holds, unlinks and frees it. Takes the locks: no call is under way, but
 * threads may be ending. */
void memkit__caches_free(memkit_pool *p);

/* ---- pool_depot.c: all with the pool's lock held ---- */

uint64_t memkit__now_ms(void);
memkit_buf *memkit__header_new(memkit_pool *p);
void memkit__header_free(memkit_pool *p, memkit_buf *b);
/* Frees the block of a buffer that nothing lists and its header. */
void memkit__buffer_drop(memkit_pool *p, memkit_buf *b);
memkit_buf *memkit__depot_pop(memkit_pool *p, unsigned class_index); /* its bytes stay reserved */
/* Takes bytes of the bound, `want` at most and at least `need`, dropping the oldest in the depot
 * where that helps; 0 where there are not even those. */
size_t memkit__reserve(memkit_pool *p, size_t need, size_t want);
void memkit__unreserve(memkit_pool *p, size_t bytes);
/* A buffer out of, or into, a bin of a cache that the caller owns. The quota is the caller's
 * affair. */
/* Moves n buffers of a cache's bin to the depot, their quota with them; or drops them. */
void memkit__cache_spill(memkit_pool *p, memkit__cache *c, unsigned class_index, uint32_t n);
size_t memkit__cache_drop(memkit_pool *p, memkit__cache *c, unsigned class_index, uint32_t n);
void memkit__depot_push(memkit_pool *p, memkit_buf *b,
                        uint64_t now); /* its bytes are reserved already */
/* Gives back what was idle for idle_ms in the depot and in c (NULL: none). */
void memkit__sweep(memkit_pool *p, memkit__cache *c, uint64_t now);
/* Gives back what waits until keep_bytes wait, in the depot and in the owned caches. Returns bytes.
 */
size_t memkit__shrink(memkit_pool *p, memkit__cache *own, size_t keep_bytes);
size_t memkit__held_bytes(memkit_pool *p);
/* Takes over a cache's record of uses and, with enough of them, chooses the calibrated size. */
void memkit__calibrate(memkit_pool *p, memkit__cache *c);

/* pool_life.c - in the child of a fork: starts the pool's own thread again, where it can. */
void memkit__sweeper_restart(memkit_pool *p);

/* pool_fork.c - what a fork holds of every pool */
extern const memkit__fork_ops memkit__pool_fork;

/* NULL when every invariant holds, else what is broken. No call may be under way. For tests. */
const char *memkit__pool_check(memkit_pool *p);

#endif
