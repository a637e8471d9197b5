/* lru.c - bounded cache: the whole in a drawing, how one is made, and how it ends.
 *
 *     memkit_lru (one block: control, classes, name, shards)
 *       shard 0 ---> index: slots [tag|handle] in falling order of tags      lru_index.c
 *         |                            |
 *         |                            v
 *         +--------> units: slab, slab, big block, ...                       lru_slab.c
 *         |                   [ header | key | value ]
 *         |                      |  ^
 *         +--------> ends <------+--+  circular list by handles, most recent first;
 *       shard 1 ...                    `ends` is its sentinel, and handle 0
 *
 *     key --SipHash-1-3, the cache's own key--> 64 bits: upper half chooses the shard, lower is tag
 *
 * An entry is: in the index and in the list (both or neither); or gone (evicted, replaced, deleted
 * ... while pinned), in neither, and freed by the last release; or held, gone and on its way to
 * on_evict (lru_evict.c). A pinned entry of the index keeps its place in the order and may be
 * evicted as any other; its memory then stays until it is released.
 *
 * Bounds. Entries: what the index holds. Bytes: everything, this block's share, index, unit table,
 * slabs whole, big blocks, gone entries, malloc's own 16 bytes a block; crossed only within a call.
 *
 * Locking: a shard's mutex covers all of the shard; entries' keys and values are written before
 * they can be found, and read without it by whoever holds a pin. What memkit_lru itself holds is
 * written by memkit_lru_new, but for the bounds (resize_lock) and `closing` (memkit_lru_free, alone
 * by contract). No shard's mutex is held while another one is taken, nor while the user's code
 * runs, but for memkit_lru_each. MEMKIT_LRU_UNLOCKED caches skip the locks.
 *
 * Invariants as code: lru_check.c.
 */
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "core/lru.h"
#include "core/metrics.h"

enum {
    DEFAULT_EXPECT = 128,
    MAX_SHARDS = 1024,
    LEAST_SLAB = 512,
    MOST_SLAB = 65536,
    MAX_FIRST_INDEX = 1 << 20, /* more entries than that are grown into */
    LINE = 64
};
static const size_t max_expect = (size_t)1 << 40;

uint64_t memkit__lru_now(const memkit_lru *c)
{
    if (MEMKIT_LIKELY(c->ttl_ms == 0))
        return 0;
    if (c->now_ms != NULL)
        return c->now_ms(c->now_arg);
#ifdef CLOCK_MONOTONIC_COARSE
    clockid_t clock = CLOCK_MONOTONIC_COARSE;
#else
    clockid_t clock = CLOCK_MONOTONIC;
#endif
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* -- sizes -- */

/* What a usual entry weighs in a slab. */
static size_t usual_bytes(const memkit_lru *c)
{
    size_t n = c->expect_entry_bytes + sizeof(memkit__lru_entry) + 4 +
               (c->ttl_ms != 0 ? MEMKIT__LRU_TTL_BYTES : 0);
    n = (n + MEMKIT__LRU_GRANULE - 1) & ~(size_t)(MEMKIT__LRU_GRANULE - 1);
    return n < 32 ? 32 : n;
}

size_t memkit__lru_wanted_index(const memkit_lru *c, size_t shard_entries, size_t shard_bytes)
{
    size_t n = shard_entries < MAX_FIRST_INDEX ? shard_entries : MAX_FIRST_INDEX;
    if (shard_bytes != SIZE_MAX) {
        size_t by_bytes = shard_bytes / (usual_bytes(c) + 10) + 1;
        if (by_bytes < n)
            n = by_bytes;
    }
    return n;
}

/* A slab is at most 1/64 of a bound in bytes, so that a few half-empty ones do not matter. */
size_t memkit__lru_slab_bytes_for(const memkit_lru *c, size_t shard_entries, size_t shard_bytes)
{
    size_t least = LEAST_SLAB, wanted;
    if (shard_bytes != SIZE_MAX) {
        wanted = shard_bytes / 64;
    } else {
        least = 4096;
        if (!memkit__mul(shard_entries, usual_bytes(c) / 16, &wanted))
            wanted = MOST_SLAB;
    }
    size_t slab = least;
    while (slab < MOST_SLAB && slab * 2 <= wanted)
        slab *= 2;
    return slab;
}

bool memkit__lru_shares(const memkit_lru *c, size_t max_entries, size_t max_bytes,
                        size_t *shard_entries, size_t *shard_bytes)
{
    if (max_entries == 0 && max_bytes == 0)
        return false;
    size_t n = c->shard_count;
    *shard_entries = max_entries == 0 ? SIZE_MAX : max_entries / n + (max_entries % n != 0);
    *shard_bytes = max_bytes == 0 ? SIZE_MAX : max_bytes / n; /* down: the sum is a true bound */
    if (max_entries != 0 && *shard_entries > (size_t)1 << 31)
        return false;
    if (max_bytes == 0 || c->shards == NULL)
        return true;
    size_t index = memkit__lru_wanted_index(c, *shard_entries, *shard_bytes);
    size_t least = c->control_bytes + memkit__lru_table_bytes_for(index) +
                   memkit__lru_slab_bytes_for(c, *shard_entries, *shard_bytes) +
                   4 * sizeof(memkit__lru_unit) + 2 * MEMKIT__LRU_MALLOC_BYTES;
    return least <= *shard_bytes;
}

/* -- life -- */

static void shard_destroy(memkit__lru_shard *s)
{
    memkit__lru_give_all(s);
    memkit__lru_slab_destroy(s);
    memkit__lru_table_free(&s->index.now);
    memkit__lru_table_free(&s->index.old);
    pthread_mutex_destroy(&s->mutex);
}

void memkit__lru_mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
#ifdef __GLIBC__
    /* Critical sections are some 100 ns: spinning beats sleeping. */
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

static int shard_init(memkit_lru *c, memkit__lru_shard *s, size_t entries, size_t bytes)
{
    memset(s, 0, c->shard_stride);
    s->cache = c;
    s->locked = c->locked;
    s->has_ttl = c->ttl_ms != 0;
    s->big_class = (uint8_t)c->geo.class_count;
    s->max_entries = entries;
    s->max_bytes = bytes;
    s->era = 1;
    s->slab_granules = memkit__lru_slab_granules(memkit__lru_slab_bytes_for(c, entries, bytes));
    size_t index = memkit__lru_wanted_index(c, entries, bytes);
    if (memkit__lru_table_init(&s->index.now, index) != 0)
        return -1;
    s->bytes = c->control_bytes + memkit__lru_table_bytes(&s->index.now) + MEMKIT__LRU_MALLOC_BYTES;
    if (memkit__lru_slab_init(s) != 0) {
        memkit__lru_table_free(&s->index.now);
        return -1;
    }
    memkit__lru_mutex_init(&s->mutex);
    return 0;
}

static void draw_key(memkit_lru *c)
{
    uint64_t random[3] = {0, 0, 0};
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        /* No kernel of ours comes here; better a guessable key than no cache. */
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        random[0] = (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u ^ (uintptr_t)c;
        random[1] = (uint64_t)t.tv_sec * 0xc2b2ae3d27d4eb4fu ^ (uintptr_t)&t;
        random[2] = random[0] * 0x165667b19e3779f9u ^ random[1];
    }
    c->key = (memkit__sip_key){random[0], random[1]};
    c->cookie = random[2];
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* One block: the control struct, the classes' arrays, the name, and the shards on lines of their
 * own. `draft` is filled in but for what lies in the block. */
static memkit_lru *alloc_control(const memkit_lru *draft, const char *name)
{
    memkit__lru_geometry geo = draft->geo;
    size_t classes = geo.class_count, name_bytes = strlen(name) + 1, bytes;
    size_t stride = round_up(
        offsetof(memkit__lru_shard, classes) + (classes + 1) * sizeof(memkit__lru_class), LINE);
    size_t arrays = classes * sizeof(uint16_t) + geo.max_granules + 1;
    if (!memkit__add(sizeof *draft + arrays, name_bytes, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    size_t head = round_up(bytes, LINE);
    bytes = head + stride * draft->shard_count;
    memkit_lru *c = aligned_alloc(LINE, bytes);
    if (c == NULL)
        return NULL;
    *c = *draft;
    char *p = (char *)(c + 1);
    c->geo.size = (uint16_t *)(void *)p;
    c->geo.class_of = (uint8_t *)(c->geo.size + classes);
    memkit__lru_geometry_init(&c->geo, geo.slab_bytes);
    c->name = memcpy(c->geo.class_of + geo.max_granules + 1, name, name_bytes);
    c->shards = (char *)c + head;
    c->shard_stride = stride;
    c->control_bytes = (bytes + MEMKIT__LRU_MALLOC_BYTES + c->shard_count - 1) / c->shard_count;
    return c;
}

static int check_opts(const memkit_lru_opts *opts)
{
    if (opts == NULL || !MEMKIT__RESERVED_OK(opts) ||
        (opts->shards > MAX_SHARDS && opts->shards != MEMKIT_LRU_UNLOCKED))
        return EINVAL;
    if (opts->policy == MEMKIT_POLICY_S3FIFO)
        return ENOTSUP;
    return opts->policy == MEMKIT_POLICY_LRU ? 0 : EINVAL;
}

/* What a cache holds is in use: its entries. */
static void row(const memkit__node *node, uint64_t *live_bytes, uint64_t *held_bytes)
{
    memkit_lru_stats_t s;
    memkit_lru_stats(node->object, &s);
    *live_bytes = s.bytes;
    *held_bytes = 0;
}

memkit_lru *memkit_lru_new(const memkit_lru_opts *opts)
{
    int error = check_opts(opts);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    bool locked = opts->shards != MEMKIT_LRU_UNLOCKED;
    if (locked && memkit__fork_ready(MEMKIT__LRU, &memkit__lru_fork) != 0)
        return NULL;
    size_t expect = opts->expect_entry_bytes == 0 ? DEFAULT_EXPECT : opts->expect_entry_bytes;
    memkit_lru draft = {.shard_count = locked && opts->shards > 0 ? opts->shards : 1,
                        .locked = locked,
                        .ttl_ms = opts->ttl_ms,
                        .now_ms = opts->now_ms,
                        .now_arg = opts->now_arg,
                        .on_evict = opts->on_evict,
                        .arg = opts->arg,
                        .max_entries = opts->max_entries,
                        .max_bytes = opts->max_bytes,
                        .expect_entry_bytes = expect < max_expect ? expect : max_expect};
    size_t entries, bytes;
    if (!memkit__lru_shares(&draft, opts->max_entries, opts->max_bytes, &entries, &bytes)) {
        errno = EINVAL;
        return NULL;
    }
    memkit__lru_geometry_init(&draft.geo, memkit__lru_slab_bytes_for(&draft, entries, bytes));
    memkit_lru *c = alloc_control(&draft, opts->name != NULL ? opts->name : "lru");
    if (c == NULL)
        return NULL;
    draw_key(c);
    error =
        memkit__lru_shares(c, opts->max_entries, opts->max_bytes, &entries, &bytes) ? 0 : EINVAL;
    uint32_t made = 0;
    for (; error == 0 && made < c->shard_count; made++)
        if (shard_init(c, memkit__lru_shard_at(c, made), entries, bytes) != 0) {
            error = ENOMEM;
            break;
        }
    if (error != 0) {
        while (made-- > 0)
            shard_destroy(memkit__lru_shard_at(c, made));
        free(c);
        errno = error;
        return NULL;
    }
    pthread_mutex_init(&c->resize_lock, NULL);
    c->node.object = c;
    c->node.row = row;
    c->node.families = &memkit__lru_families;
    c->node.name = c->name;
    if (c->locked) /* one without a lock cannot be read by another thread */
        memkit__register(MEMKIT__LRU, &c->node);
    return c;
}

static size_t live_references(memkit_lru *c)
{
    size_t live = 0;
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_lock(s);
        live += s->pinned;
        memkit__lru_unlock(s);
    }
    return live;
}

void memkit_lru_free(memkit_lru *c)
{
    if (c == NULL)
        return;
    size_t live = live_references(c);
    if (live != 0) {
        memkit__fault("memkit_lru_free: cache \"%s\": %zu entries are still referenced", c->name,
                      live);
        return;
    }
    /* A callback may look, but what it stored now would be told to nobody. */
    c->closing = true;
    if (c->on_evict != NULL)
        memkit_lru_clear(c);
    if ((live = live_references(c)) != 0) {
        c->closing = false;
        memkit__fault("memkit_lru_free: cache \"%s\": on_evict kept %zu references", c->name, live);
        return;
    }
    if (c->locked)
        memkit__unregister(MEMKIT__LRU, &c->node);
    for (uint32_t i = 0; i < c->shard_count; i++)
        shard_destroy(memkit__lru_shard_at(c, i));
    pthread_mutex_destroy(&c->resize_lock);
    free(c);
}
