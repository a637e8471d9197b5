/* lru_slab.c - the cache's memory: slabs of chunks in size classes, and who fits where.
 *
 *     slab (malloc)   |12 unused| chunk | chunk | chunk | ...        chunks of one size, 16 n bytes
 *     chunk           [ttl 8, where used][header 20][key][pad < 8][value]
 *     big block       [memkit__lru_big 24][4][ttl 8][header 20][key][pad][value]
 *     handle          unit << 12 | granule                           granule: 16 bytes of a slab
 *
 * Units (slabs and big blocks) are named by their place in s->units, which may move as it grows:
 * nobody keeps a pointer into it. Entries never move.
 *
 * Each class lists its slabs that have room; a chunk freed is the next one taken. An entry may
 * borrow a chunk of the class above its own when that is free: classes are 1/16 apart, so it costs
 * little, and chunks that lie idle because the mix of sizes has moved find a use. (Measured: to
 * borrow from further up does harm, since whoever is robbed robs the next.) A slab that is empty
 * leaves its class, and serves the next that wants one. Entries too large for a slab have blocks of
 * their own (lru_unit.c). All of it counts in s->bytes, malloc's overhead too.
 *
 * Whether an entry could fit is known beforehand without a search (memkit__lru_can_fit; where the
 * index or the table of units is in the way, lru_way.c), since units count their pinned chunks:
 * when everything that is not pinned has gone, a unit without pins is empty. Locking: the shard's.
 */
#include <stdlib.h>

#include "core/lru_track.h"
#include "core/lru_unit.h"

/* ERAS: half of those that a unit's byte can tell apart; AGED: units that are aged in one call;
 * MISFITS: empty slabs of another size that one allocation gives back. */
enum { CLASSES_A_DOUBLING = 16, ERAS = 128, AGED = 256, MISFITS = 4 };

/* -- classes -- */

void memkit__lru_geometry_init(memkit__lru_geometry *geo, size_t slab_bytes)
{
    geo->slab_bytes = slab_bytes;
    geo->granules = memkit__lru_slab_granules(slab_bytes);
    geo->max_granules = (uint32_t)(slab_bytes / MEMKIT__LRU_GRANULE / 4);
    geo->class_count = 0;
    uint32_t next = 0; /* the first size that has no class yet */
    for (uint32_t size = 2; next <= geo->max_granules;) {
        /* As many bytes as so many chunks a slab leave: a slab has no useless end. */
        uint32_t chunks = geo->granules / size, i = geo->class_count++;
        size = geo->granules / chunks;
        if (geo->size != NULL)
            geo->size[i] = (uint16_t)size;
        for (; next <= size && next <= geo->max_granules; next++)
            if (geo->class_of != NULL)
                geo->class_of[next] = (uint8_t)i;
        size += size < 2 * CLASSES_A_DOUBLING
                    ? 1
                    : (1u << (31 - __builtin_clz(size))) / CLASSES_A_DOUBLING;
    }
}

bool memkit__lru_entry_bytes(const memkit_lru *c, size_t klen, size_t vlen, size_t *out)
{
    size_t n;
    if (!memkit__add(klen, 64, &n)) /* more than any padding */
        return false;
    n = memkit__lru_value_offset(klen) + (c->ttl_ms != 0 ? MEMKIT__LRU_TTL_BYTES : 0);
    size_t spare;
    return memkit__add(n, vlen, out) && memkit__add(*out, 256, &spare);
}

static inline uint32_t granules_for(size_t entry_bytes)
{
    return (uint32_t)((entry_bytes + MEMKIT__LRU_GRANULE - 1) / MEMKIT__LRU_GRANULE);
}

/* At least four to a slab of those made now, and a class for them. */
static inline bool is_small(const memkit__lru_shard *s, size_t entry_bytes)
{
    uint32_t most = (s->slab_granules + 2) / 4, classed = s->cache->geo.max_granules;
    return entry_bytes <= (size_t)(most < classed ? most : classed) * MEMKIT__LRU_GRANULE;
}

/* The largest class an entry of class `cls` may borrow from. */
static inline uint32_t last_choice(const memkit__lru_geometry *geo, uint32_t cls)
{
    uint32_t last = cls + MEMKIT__LRU_NEIGHBOURS;
    return last < geo->class_count ? last : geo->class_count - 1;
}

/* -- chunks -- */

static void list_roomy(memkit__lru_shard *s, uint32_t id)
{
    memkit__lru_unit *u = &s->units[id];
    memkit__lru_class *cls = &s->classes[u->cls];
    u->prev = 0;
    u->next = cls->roomy;
    if (u->next != 0)
        s->units[u->next].prev = id;
    cls->roomy = id;
}

static void unlist_roomy(memkit__lru_shard *s, uint32_t id)
{
    memkit__lru_unit *u = &s->units[id];
    if (u->next != 0)
        s->units[u->next].prev = u->prev;
    if (u->prev != 0)
        s->units[u->prev].next = u->next;
    else
        s->classes[u->cls].roomy = u->next;
}

/* A slab of another era is of the bounds before a resize, and in no list: nothing new goes into it,
 * so that it empties, and goes. Where its size has become the right one again it is taken up with
 * the next chunk that is freed in it. */
static inline bool is_current(const memkit__lru_shard *s, const memkit__lru_unit *u)
{
    return MEMKIT_LIKELY(u->era == s->era);
}

static uint8_t next_era(const memkit__lru_shard *s)
{
    return s->era == UINT8_MAX ? 1 : (uint8_t)(s->era + 1);
}

/* Eras come round: before each half of them is used anew, units that bear one are marked as of no
 * era at all. */
bool memkit__lru_age_slabs(memkit__lru_shard *s, uint32_t *id)
{
    if (next_era(s) != 1 && next_era(s) != ERAS)
        return true;
    for (uint32_t end = *id + AGED; *id < end && *id < s->unit_count; ++*id)
        if (!is_current(s, &s->units[*id]))
            s->units[*id].era = 0;
    return *id >= s->unit_count;
}

void memkit__lru_set_slab_granules(memkit__lru_shard *s, uint32_t granules)
{
    if (granules == s->slab_granules)
        return;
    s->slab_granules = granules;
    s->era = next_era(s);
    for (uint32_t i = 0; i < s->big_class; i++)
        s->classes[i].roomy = s->classes[i].chunks = 0;
}

static uint32_t take_chunk(memkit__lru_shard *s, uint32_t id)
{
    memkit__lru_unit *u = &s->units[id];
    uint32_t granule = u->free;
    memkit__lru_entry *e;
    if (granule != MEMKIT__LRU_NO_CHUNK) {
        e = memkit__lru_at(s, id << 12 | granule);
        u->free = (uint16_t)e->next;
    } else {
        granule = u->fresh;
        u->fresh = (uint16_t)(u->fresh + s->cache->geo.size[u->cls]);
        e = memkit__lru_at(s, id << 12 | granule);
        const size_t before = s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0;
        memkit__fresh((char *)e - before, before + sizeof *e);
    }
    e->pins = 0;
    if (++u->used == u->chunks)
        unlist_roomy(s, id);
    return id << 12 | granule;
}

/* An empty slab, listed or new, becomes one of class `cls`. */
static void found_slab(memkit__lru_shard *s, uint32_t id, uint32_t cls)
{
    memkit__lru_unit *u = &s->units[id];
    u->used = u->pinned = u->fresh = 0;
    u->free = MEMKIT__LRU_NO_CHUNK;
    u->cls = (uint8_t)cls;
    u->chunks = (uint16_t)(u->granules / s->cache->geo.size[cls]);
    u->era = s->era;
    u->serial++;
    memkit__hide(memkit__lru_slab_memory(s, u),
                 memkit__lru_slab_cost(u->granules) - MEMKIT__LRU_MALLOC_BYTES);
    s->classes[cls].slabs++;
    s->classes[cls].chunks += u->chunks;
    list_roomy(s, id);
}

static __attribute__((noinline)) uint32_t new_slab(memkit__lru_shard *s, bool over)
{
    size_t slab_bytes = memkit__lru_slab_cost(s->slab_granules);
    if (!over && !memkit__lru_has_room(s, slab_bytes)) {
        errno = ENOSPC;
        return 0;
    }
    uint32_t epoch = memkit__takes_now();
    char *memory = malloc(slab_bytes - MEMKIT__LRU_MALLOC_BYTES);
    if (memory == NULL || !memkit__lru_ensure_unit(s)) {
        int reason = memory == NULL ? ENOMEM : errno;
        free(memory);
        errno = reason;
        return 0;
    }
    uint32_t id = memkit__lru_take_unit(s);
    s->units[id].base = memory + MEMKIT__LRU_SLAB_HEAD + (s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0);
    s->units[id].granules = (uint16_t)s->slab_granules;
    s->units[id].cls = 0;
    memkit__lru_set_stocked(s, id, memkit__own(memory, epoch));
    s->slab_count++;
    s->slab_bytes += slab_bytes;
    s->bytes += slab_bytes;
    return id;
}

static uint32_t alloc_small(memkit__lru_shard *s, size_t entry_bytes, bool over)
{
    const memkit__lru_geometry *geo = &s->cache->geo;
    uint32_t cls = geo->class_of[granules_for(entry_bytes)], last = last_choice(geo, cls);
    for (uint32_t i = cls; i <= last; i++)
        if (s->classes[i].roomy != 0)
            return take_chunk(s, s->classes[i].roomy);
    uint32_t id = s->empty_slab;
    for (int i = 0; i < MISFITS && id != 0 && s->units[id].granules != s->slab_granules; i++) {
        memkit__lru_free_empty_slab(s); /* of the bounds before a resize */
        id = s->empty_slab;
    }
    if (id != 0 && s->units[id].granules == s->slab_granules)
        s->empty_slab = s->units[id].next;
    else if ((id = new_slab(s, over)) == 0)
        return 0;
    found_slab(s, id, cls);
    return take_chunk(s, id);
}

static inline __attribute__((always_inline)) void release_chunk(memkit__lru_shard *s,
                                                                uint32_t handle)
{
    uint32_t id = handle >> 12;
    memkit__lru_unit *u = &s->units[id];
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    e->prev = MEMKIT__LRU_FREE;
    e->next = u->free;
    u->free = (uint16_t)(handle & 4095);
    memkit__lru_hide_body(e, (size_t)s->cache->geo.size[u->cls] * MEMKIT__LRU_GRANULE -
                                 (s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0));
    bool current = is_current(s, u), full = u->used-- == u->chunks;
    if (MEMKIT_UNLIKELY(!current && u->granules == s->slab_granules)) {
        u->era = s->era;
        s->classes[u->cls].chunks += u->chunks;
        current = full = true; /* in no list before */
    }
    if (full && current)
        list_roomy(s, id);
    if (u->used == 0) {
        if (current) {
            unlist_roomy(s, id);
            s->classes[u->cls].chunks -= u->chunks;
        }
        s->classes[u->cls].slabs--;
        u->cls = 0;
        u->serial++;
        u->next = s->empty_slab;
        s->empty_slab = id;
    }
}

/* -- both -- */

uint32_t memkit__lru_alloc(memkit__lru_shard *s, size_t entry_bytes, bool over)
{
    return MEMKIT_LIKELY(is_small(s, entry_bytes)) ? alloc_small(s, entry_bytes, over)
                                                   : memkit__lru_big_alloc(s, entry_bytes, over);
}

static inline __attribute__((always_inline)) void release(memkit__lru_shard *s, uint32_t handle)
{
    if (MEMKIT_LIKELY(s->units[handle >> 12].cls != s->big_class))
        release_chunk(s, handle);
    else
        memkit__lru_big_release(s, handle);
    /* A bound can be crossed for a moment (see lru_evict.c): then nothing idle is kept. */
    if (MEMKIT_UNLIKELY(s->bytes > s->max_bytes)) {
        memkit__lru_give_back(s, s->max_bytes);
        if (s->bytes > s->max_bytes)
            memkit__lru_units_trim(s, UINT32_MAX);
    }
}

/* A copy of its own, so that the usual one has no call in the middle. */
static __attribute__((noinline)) void release_charged(memkit__lru_shard *s, uint32_t handle)
{
    memkit__lru_give(s, handle);
    release(s, handle);
}

void memkit__lru_release(memkit__lru_shard *s, uint32_t handle)
{
    if (MEMKIT_UNLIKELY(s->charge_count != 0))
        release_charged(s, handle);
    else
        release(s, handle);
}

bool memkit__lru_fits_in(const memkit__lru_shard *s, uint32_t handle, size_t entry_bytes)
{
    const memkit__lru_geometry *geo = &s->cache->geo;
    uint32_t cls = s->units[handle >> 12].cls;
    if (cls == s->big_class)
        return !is_small(s, entry_bytes) &&
               memkit__lru_big_fits(memkit__lru_at(s, handle), entry_bytes);
    if (!is_small(s, entry_bytes))
        return false;
    uint32_t own = geo->class_of[granules_for(entry_bytes)];
    return own <= cls && cls <= last_choice(geo, own);
}

size_t memkit__lru_cost_for(const memkit__lru_shard *s, size_t entry_bytes)
{
    return is_small(s, entry_bytes) ? memkit__lru_slab_cost(s->slab_granules)
                                    : memkit__lru_big_cost_for(entry_bytes);
}

bool memkit__lru_can_fit(const memkit__lru_shard *s, size_t entry_bytes)
{
    if (s->max_bytes == SIZE_MAX)
        return true;
    const memkit__lru_geometry *geo = &s->cache->geo;
    size_t cost = memkit__lru_cost_for(s, entry_bytes);
    size_t fixed = s->bytes - s->slab_bytes - s->big_bytes, least;
    if (!memkit__add(fixed, cost, &least) || MEMKIT_UNLIKELY(least > s->max_bytes))
        return false;
    if (MEMKIT_LIKELY(s->pinned == 0))
        return true;
    if (is_small(s, entry_bytes)) {
        uint32_t cls = geo->class_of[granules_for(entry_bytes)], last = last_choice(geo, cls);
        for (uint32_t i = cls; i <= last; i++)
            if (s->classes[i].pinned < s->classes[i].chunks)
                return true;
    }
    /* What the unit table must grow by, unless a unit without pins leaves its place in it. */
    if (s->slab_count + s->big_count == memkit__lru_pinned_units(s))
        cost += memkit__lru_unit_growth(s);
    cost += s->pinned_slab_bytes + s->pinned_big;
    return cost <= s->max_bytes - fixed;
}
