/* pool.c - pool of byte buffers: get and put. Life and figures are in pool_life.c.
 *
 *     thread A             thread B             a buffer: header (pool's slab) -> block (malloc)
 *     +--------------+     +--------------+
 *     | cache        |     | cache        |     get: bin; else the depot, a batch; else malloc
 *     | bin 0   64 B |     | bin 0        |     put: bin; and where max_thread_bytes is reached,
 *     | bin 1   80 B |     | ...          |          half of the bin's to the depot
 *     | ...          |     |              |
 *     | quota        |     | quota        |     reserved = depot bytes + quotas of all caches
 *     +--------------+     +--------------+              <= max_held_bytes, always
 *             |      lock         |             held     <= reserved
 *     +-----------------------------------+
 *     | depot   bin 0, 1, ... by age      |
 *     | free headers, uses, retired counts|
 *     +-----------------------------------+
 *
 * A bin holds buffers whose blocks have exactly the class's size, so a block is found without a
 * search; growth of a pooled buffer stays within the classes. Blocks larger than max_buf_bytes are
 * never held.
 *
 * Who may touch what: a cache, its owner on the fast path (busy set, no lock) or whoever holds the
 * pool's lock and has claimed it; all else of a pool, under its lock. See pool_cache.c.
 *
 * Invariants (memkit__pool_check): a bin's count and bytes are its list's; held <= quota; reserved
 * as above; every header is out, in one bin, in one depot bin or free (or lost, see pool_fork.c).
 */
#include <memkit/pool.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "core/pool.h"
#include "core/track.h"

enum {
    QUOTA_STEP = 64 << 10,   /* reserved at a time */
    LOOK_EVERY = 16,         /* puts between two looks at the clock */
    LOOK_ALWAYS = 64 << 10,  /* bytes in a cache from which each call looks */
    REFILL_BYTES = 32 << 10, /* most that a batch from the depot brings */
    REFILL = 16,
    CALIBRATE_EVERY = 256 /* puts of a thread until the pool hears of them */
};

static const struct memkit__buf_ops pooled_ops;

/* ---- fast path ---- */

/* False where another thread wants the cache: then the way is through the lock. */
static inline bool enter(memkit__cache *c)
{
    atomic_store_explicit(&c->busy, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst); /* the fence proper is the claimer's membarrier */
    if (MEMKIT_LIKELY(atomic_load_explicit(&c->claimed, memory_order_acquire) == 0)) {
        memkit__after(&c->claimed);
        return true;
    }
    atomic_store_explicit(&c->busy, 0, memory_order_release);
    return false;
}

static inline void leave(memkit__cache *c)
{
    memkit__before(&c->busy);
    atomic_store_explicit(&c->busy, 0, memory_order_release);
}

/* Out of the pool's hands, empty, and all its room usable. */
static inline memkit_buf *hand_out(memkit_buf *b)
{
    b->cap = b->held_cap;
    b->state = memkit__buf_state(b, MEMKIT__BUF_LIVE);
    memkit__take(b->pool, b->data, b->cap + 1);
    b->data[0] = '\0';
    return b;
}

/* Into the pool's hands. len and cap 0: see buf.c on a buffer that is used after its put. */
static inline void take_in(memkit_buf *b)
{
    b->state = memkit__buf_state(b, MEMKIT__BUF_HELD);
    memkit__give(b->pool, b->data, b->cap + 1);
    b->held_cap = b->cap;
    b->len = b->cap = b->peak_len = b->max_len = 0;
}

/* Caches of threads that make no call any more: nobody else would give their memory back. */
static void sweep_the_still(memkit_pool *p, memkit__cache *own, uint64_t now)
{
    bool any = false;
    for (memkit__cache *c = p->caches; c != NULL && !any; c = c->next_in_pool)
        any = c != own && memkit__read(&c->held) > 0 &&
              now - memkit__read(&c->last_look) >= p->idle_ms;
    if (!any)
        return;
    memkit__caches_claim(p, own);
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool)
        if (c != own && memkit__cache_owned(c, own))
            memkit__sweep(p, c, now);
    memkit__caches_unclaim(p, own);
}

static void look(memkit_pool *p, memkit__cache *c)
{
    if (MEMKIT_UNLIKELY(atomic_load_explicit(&p->sweeper_lost, memory_order_relaxed)))
        memkit__sweeper_restart(p);
    uint64_t now = memkit__now_ms();
    bool others = now - memkit__read(&p->others_swept) >= p->idle_ms;
    bool sweep = others || now - memkit__read(&c->last_look) >= p->idle_ms ||
                 now - memkit__read(&c->last_sweep) >= p->idle_ms;
    /* What is held beyond LOOK_ALWAYS came through the slow path, and so through here. */
    bool much = memkit__read(&c->held) > LOOK_ALWAYS ||
                atomic_load_explicit(&p->depot_filled, memory_order_relaxed);
    c->countdown = much ? 1 : LOOK_EVERY;
    if (!sweep && c->uses_total < CALIBRATE_EVERY &&
        now < atomic_load_explicit(&p->depot_due, memory_order_relaxed)) {
        atomic_store_explicit(&c->last_look, now, memory_order_relaxed);
        return;
    }
    pthread_mutex_lock(&p->lock);
    memkit__calibrate(p, c);
    memkit__sweep(p, c, now);
    if (others) {
        atomic_store_explicit(&p->others_swept, now, memory_order_relaxed);
        sweep_the_still(p, c, now);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- get ---- */

/* A bin above the wanted one: a buffer somewhat too large is better than a new one. The calibrated
 * size may be exceeded eightfold, since its buffers are those that grew; a size asked for, twofold.
 */
static memkit_buf *take_larger(memkit_pool *p, memkit__cache *c, unsigned class_index,
                               unsigned span)
{
    for (unsigned i = class_index + 1; i <= class_index + span && i < MEMKIT__CLASSES; i++) {
        memkit_buf *b = c != NULL ? memkit__bin_pop(c, i) : NULL;
        if (b != NULL)
            return b;
        b = memkit__depot_pop(p, i);
        if (b != NULL) {
            memkit__unreserve(p, b->held_cap + 1);
            return b;
        }
    }
    return NULL;
}

/* One buffer to use, and a batch to the cache, so that the lock is taken once for many. */
static memkit_buf *take_from_depot(memkit_pool *p, memkit__cache *c, unsigned class_index)
{
    memkit_buf *b = memkit__depot_pop(p, class_index);
    if (b == NULL)
        return NULL;
    size_t bytes = memkit__class_bytes(class_index);
    memkit__unreserve(p, bytes);
    for (unsigned i = 0; c != NULL && i < REFILL && (i + 1) * bytes <= REFILL_BYTES; i++) {
        if (c->quota + bytes > p->max_thread)
            break;
        memkit_buf *more = memkit__depot_pop(p, class_index);
        if (more == NULL)
            break;
        c->quota += bytes;
        memkit__bin_push(c, class_index, more);
    }
    return b;
}

static memkit_buf *make_buffer(memkit_pool *p, size_t block)
{
    uint32_t epoch = memkit__takes_now();
    char *data = malloc(block);
    memkit_buf *b = data != NULL ? memkit__header_new(p) : NULL;
    if (b == NULL) {
        free(data);
        errno = ENOMEM;
        return NULL;
    }
    p->blocks++;
    p->block_bytes += block;
    b->ops = &pooled_ops;
    b->data = data;
    b->stocked = memkit__own(data, epoch);
    b->held_cap = block - 1;
    b->len = b->peak_len = b->max_len = 0;
    b->class_index =
        (uint16_t)(block <= MEMKIT__MAX_CLASS_BYTES ? memkit__class_of(block) : MEMKIT__NO_CLASS);
    return b;
}

/* The whole way: any pool, any thread, any size; and the fast path's when its bin is empty. */
memkit_buf *memkit__pool_get(memkit_pool *p, size_t hint, const void *from)
{
    memkit__cache *c = memkit__cache_last(p);
    if (c == NULL)
        c = memkit__cache_find(p);
    memkit__pool_counts *counts = c != NULL ? &c->counts : &p->retired;
    size_t block = hint + 1;
    if (hint == 0)
        block =
            memkit__class_bytes(atomic_load_explicit(&p->calibrated_class, memory_order_relaxed));
    memkit_buf *b = NULL;
    pthread_mutex_lock(&p->lock);
    if (block <= MEMKIT__MAX_CLASS_BYTES) {
        unsigned class_index = memkit__class_of(block);
        block = memkit__class_bytes(class_index);
        b = c != NULL ? memkit__bin_pop(c, class_index) : NULL;
        if (b == NULL)
            b = take_from_depot(p, c, class_index);
        if (b == NULL)
            b = take_larger(p, c, class_index, hint == 0 ? 12 : 4);
    }
    bool hit = b != NULL;
    if (!hit)
        b = make_buffer(p, block);
    if (b != NULL) {
        memkit__bump(&counts->gets, 1);
        memkit__bump(&counts->misses, !hit);
    }
    pthread_mutex_unlock(&p->lock);
    if (b == NULL)
        return NULL;
    hand_out(b);
    if (memkit__takes_wanted())
        memkit__pool_charge(p, b, from);
    if (c != NULL)
        look(p, c);
    return b;
}

static __attribute__((noinline)) memkit_buf *get_slow(memkit_pool *p, size_t hint, const void *from)
{
    if (p == NULL) {
        errno = EINVAL;
        return NULL;
    }
    if (hint >= PTRDIFF_MAX) {
        errno = EOVERFLOW;
        return NULL;
    }
    return p->ops->get(p, hint, from);
}

memkit_buf *memkit_pool_get(memkit_pool *p, size_t hint)
{
    memkit__cache *c;
    if (MEMKIT_UNLIKELY(p == NULL || hint >= MEMKIT__MAX_CLASS_BYTES ||
                        (c = memkit__cache_last(p)) == NULL))
        return get_slow(p, hint, MEMKIT__RETURNS_TO);
    unsigned class_index = hint != 0
                               ? memkit__class_of(hint + 1)
                               : atomic_load_explicit(&p->calibrated_class, memory_order_relaxed);
    if (MEMKIT_UNLIKELY(!enter(c)))
        return get_slow(p, hint, MEMKIT__RETURNS_TO);
    memkit_buf *b = memkit__bin_pop(c, class_index);
    if (MEMKIT_UNLIKELY(b == NULL)) {
        leave(c);
        return get_slow(p, hint, MEMKIT__RETURNS_TO);
    }
    memkit__bump(&c->counts.gets, 1);
    leave(c);
    hand_out(b);
    if (memkit__takes_wanted())
        return memkit__pool_charge(p, b, MEMKIT__RETURNS_TO);
    return b;
}

/* ---- put ---- */

/* Room in the cache for `bytes` more, at most max_thread; other buffers go to the depot for it,
 * half a bin at a time, this class's first. False where the pool's bound leaves none. */
static bool make_quota(memkit_pool *p, memkit__cache *c, unsigned class_index, size_t bytes)
{
    unsigned from = class_index;
    for (unsigned next = MEMKIT__CLASSES; memkit__read(&c->held) + bytes > p->max_thread;) {
        memkit__cache_spill(p, c, from, (c->bins[from].count + 1) / 2);
        if (c->bins[from].count == 0)
            from = --next;
    }
    size_t wanted = memkit__read(&c->held) + bytes;
    if (wanted <= c->quota)
        return true;
    size_t need = wanted - c->quota, most = p->max_thread - c->quota;
    size_t want = most > QUOTA_STEP ? QUOTA_STEP : most;
    size_t got = memkit__reserve(p, need, want < need ? need : want);
    c->quota += got;
    return got != 0;
}

static void put_locked(memkit_pool *p, memkit__cache *c, memkit_buf *b)
{
    size_t block = b->held_cap + 1;
    if (b->class_index > p->max_class) {
        /* too large to wait */
    } else if (c != NULL && block <= p->max_thread) {
        if (make_quota(p, c, b->class_index, block)) {
            memkit__bin_push(c, b->class_index, b);
            return;
        }
    } else if (memkit__reserve(p, block, block) != 0) {
        memkit__depot_push(p, b, memkit__now_ms());
        return;
    }
    p->trimmed += block;
    memkit__buffer_drop(p, b);
}

static bool may_be_put(memkit_pool *p, memkit_buf *b)
{
    if (!memkit__buf_live(b, "memkit_pool_put"))
        return false;
    if (b->pool == p)
        return true;
    memkit__fault("memkit_pool_put: buffer %p is not of pool \"%s\"", (void *)b, p->name);
    return false;
}

static inline unsigned class_needed(const memkit_buf *b)
{
    size_t used = b->len > b->peak_len ? b->len : b->peak_len;
    return MEMKIT_LIKELY(used < MEMKIT__MAX_CLASS_BYTES) ? memkit__class_of(used + 1)
                                                         : (unsigned)MEMKIT__CLASSES - 1;
}

void memkit__pool_put(memkit_pool *p, memkit_buf *b)
{
    if (!may_be_put(p, b))
        return;
    memkit__cache *c = memkit__cache_last(p);
    if (c == NULL)
        c = memkit__cache_find(p);
    unsigned needed = class_needed(b);
    memkit__pool_uncharge(b);
    take_in(b);
    pthread_mutex_lock(&p->lock);
    if (c != NULL) {
        c->uses[needed]++;
        c->uses_total++;
    }
    memkit__bump(c != NULL ? &c->counts.puts : &p->retired.puts, 1);
    put_locked(p, c, b);
    pthread_mutex_unlock(&p->lock);
    if (c != NULL)
        look(p, c);
}

static __attribute__((noinline)) void put_slow(memkit_pool *p, memkit_buf *b)
{
    if (b == NULL)
        return;
    if (p == NULL) {
        errno = EINVAL;
        return;
    }
    p->ops->put(p, b);
}

void memkit_pool_put(memkit_pool *p, memkit_buf *b)
{
    memkit__cache *c;
    if (MEMKIT_UNLIKELY(b == NULL || p == NULL || (c = memkit__cache_last(p)) == NULL ||
                        b->pool != p || b->state != memkit__buf_state(b, MEMKIT__BUF_LIVE) ||
                        b->class_index > p->max_class || !enter(c))) {
        put_slow(p, b);
        return;
    }
    if (MEMKIT_UNLIKELY(memkit__read(&c->held) + b->cap + 1 > c->quota)) {
        leave(c);
        put_slow(p, b);
        return;
    }
    c->uses[class_needed(b)]++;
    c->uses_total++;
    take_in(b);
    memkit__bin_push(c, b->class_index, b);
    memkit__bump(&c->counts.puts, 1);
    leave(c);
    if (MEMKIT_UNLIKELY(--c->countdown == 0))
        look(p, c);
}

/* ---- a pooled buffer's own operations ---- */

/* A tool must hear of the old block's end before another thread may have that memory. */
static char *resize_block(memkit_buf *b, size_t block)
{
    if (!MEMKIT__TRACKED)
        return realloc(b->data, block);
    char *data = malloc(block);
    if (data == NULL)
        return NULL;
    memcpy(data, b->data, b->cap + 1);
    memkit__take(b->pool, data, block);
    memkit__show(data, b->cap + 1);
    memkit__give(b->pool, b->data, b->cap + 1);
    free(b->data);
    return data;
}

static int pooled_grow(memkit_buf *b, size_t cap_wanted)
{
    size_t block;
    if (!memkit__add(cap_wanted, 1, &block)) {
        errno = EOVERFLOW;
        return -1;
    }
    uint32_t class_index = MEMKIT__NO_CLASS;
    if (block <= MEMKIT__MAX_CLASS_BYTES) {
        class_index = memkit__class_of(block);
        block = memkit__class_bytes(class_index);
    }
    uint32_t epoch = memkit__takes_now();
    char *data = resize_block(b, block);
    if (data == NULL)
        return -1;
    pthread_mutex_lock(&b->pool->lock);
    b->pool->block_bytes += block - (b->cap + 1);
    b->data = data;
    memkit__pool_grown(b->pool, b, b->cap + 1, block, epoch);
    pthread_mutex_unlock(&b->pool->lock);
    b->cap = block - 1;
    b->class_index = (uint16_t)class_index;
    return 0;
}

static void pooled_release(memkit_buf *b)
{
    memkit__pool_put(b->pool, b);
}

static const struct memkit__buf_ops pooled_ops = {pooled_grow, pooled_release};
