/* lru_slab.c - the cache's memory: slabs of chunks, blocks for big entries, and what they weigh.
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
 * borrow a chunk of one of the two classes above its own when that is free: classes are 1/16 apart,
 * so it costs little, and chunks that lie idle because the mix of sizes has moved find a use. A
 * slab that is empty leaves its class, and serves the next that wants one. Big blocks wait in a
 * small stash for an entry of nearly their size. All of it counts in s->bytes, malloc's overhead
 * too.
 *
 * Whether an entry could fit at all is known beforehand without a search (memkit__lru_can_fit),
 * since units count their pinned chunks: when everything that is not pinned has gone, a unit
 * without pins is empty. Locking: the shard's.
 */
#include <stdlib.h>

#include "core/lru.h"

enum {
    CLASSES_A_DOUBLING = 16,
    SLACK_PARTS = 8,
    BIG_ROUND = 64,
    STASH_MAX = 1 << 20,
    LEAST_UNITS = 4
};

/* -- classes -- */

void memkit__lru_geometry_init(memkit__lru_geometry *geo, size_t slab_bytes)
{
    geo->slab_bytes = slab_bytes;
    geo->granules = (uint32_t)(slab_bytes / MEMKIT__LRU_GRANULE) - 2;
    geo->max_granules = (uint32_t)(slab_bytes / MEMKIT__LRU_GRANULE / 4);
    geo->class_count = 0;
    uint32_t next = 0; /* the first size that has no class yet */
    for (uint32_t size = 2; next <= geo->max_granules;) {
        /* As many bytes as so many chunks a slab leave: a slab has no useless end. */
        uint32_t chunks = geo->granules / size, i = geo->class_count++;
        size = geo->granules / chunks;
        if (geo->size != NULL) {
            geo->size[i] = (uint16_t)size;
            geo->chunks[i] = (uint16_t)chunks;
        }
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

static inline bool is_small(const memkit__lru_geometry *geo, size_t entry_bytes)
{
    return entry_bytes <= (size_t)geo->max_granules * MEMKIT__LRU_GRANULE;
}

/* The largest class an entry of class `cls` may borrow from. */
static inline uint32_t last_choice(const memkit__lru_geometry *geo, uint32_t cls)
{
    uint32_t last = cls + MEMKIT__LRU_NEIGHBOURS;
    return last < geo->class_count ? last : geo->class_count - 1;
}

/* -- units -- */

static size_t unit_table_bytes(uint32_t units)
{
    return units * sizeof(memkit__lru_unit);
}

static uint32_t next_unit_room(const memkit__lru_shard *s)
{
    uint32_t room = s->unit_room + s->unit_room / 2;
    return room < MEMKIT__LRU_MAX_UNITS ? room : MEMKIT__LRU_MAX_UNITS;
}

/* Bytes that one more unit costs in the table itself. */
static size_t unit_growth(const memkit__lru_shard *s)
{
    if (s->unused_unit != 0 || s->unit_count < s->unit_room)
        return 0;
    return unit_table_bytes(next_unit_room(s)) - unit_table_bytes(s->unit_room);
}

static bool ensure_unit(memkit__lru_shard *s)
{
    if (s->unused_unit != 0 || s->unit_count < s->unit_room)
        return true;
    uint32_t room = next_unit_room(s);
    memkit__lru_unit *units =
        room > s->unit_room ? realloc(s->units, unit_table_bytes(room)) : NULL;
    if (units == NULL)
        return false;
    s->units = units;
    s->bytes += unit_growth(s);
    s->unit_room = room;
    return true;
}

/* Only after ensure_unit. */
static uint32_t take_unit(memkit__lru_shard *s)
{
    uint32_t id = s->unused_unit;
    if (id != 0) {
        s->unused_unit = s->units[id].next;
    } else {
        id = s->unit_count++;
        s->units[id].serial = 0;
    }
    return id;
}

static void drop_unit(memkit__lru_shard *s, uint32_t id)
{
    s->units[id].base = NULL;
    s->units[id].next = s->unused_unit;
    s->unused_unit = id;
}

static uint32_t trimmed_room(uint32_t units)
{
    return units < LEAST_UNITS ? LEAST_UNITS : units;
}

size_t memkit__lru_units_excess(const memkit__lru_shard *s)
{
    uint32_t last = s->unit_count - 1;
    while (last > 0 && (s->units[last].base == NULL || s->units[last].pinned == 0))
        last--;
    return unit_table_bytes(s->unit_room) - unit_table_bytes(trimmed_room(last + 1));
}

void memkit__lru_units_trim(memkit__lru_shard *s)
{
    if (s->units[s->unit_count - 1].base != NULL || s->unit_count == 1)
        return;
    while (s->unit_count > 1 && s->units[s->unit_count - 1].base == NULL)
        s->unit_count--;
    s->unused_unit = 0;
    for (uint32_t id = s->unit_count - 1; id > 0; id--)
        if (s->units[id].base == NULL)
            drop_unit(s, id);
    uint32_t room = trimmed_room(s->unit_count);
    memkit__lru_unit *units = realloc(s->units, unit_table_bytes(room));
    if (units == NULL) /* still the larger block */
        return;
    s->units = units;
    s->bytes -= unit_table_bytes(s->unit_room) - unit_table_bytes(room);
    s->unit_room = room;
}

int memkit__lru_slab_init(memkit__lru_shard *s)
{
    s->units = malloc(unit_table_bytes(LEAST_UNITS));
    if (s->units == NULL)
        return -1;
    s->unit_room = LEAST_UNITS;
    s->unit_count = 1;
    s->units[0] = (memkit__lru_unit){.base = (char *)&s->ends};
    s->bytes += unit_table_bytes(LEAST_UNITS) + MEMKIT__LRU_MALLOC_BYTES;
    return 0;
}

static char *slab_memory(const memkit__lru_shard *s, const memkit__lru_unit *u)
{
    return u->base - MEMKIT__LRU_SLAB_HEAD - (s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0);
}

void memkit__lru_slab_destroy(memkit__lru_shard *s)
{
    for (uint32_t id = 1; id < s->unit_count; id++) {
        memkit__lru_unit *u = &s->units[id];
        if (u->base != NULL)
            free(u->cls == s->big_class ? u->base - MEMKIT__LRU_BIG_HEAD : slab_memory(s, u));
    }
    free(s->units);
}

/* -- giving back -- */

static void free_empty_slab(memkit__lru_shard *s)
{
    uint32_t id = s->empty_slab;
    memkit__lru_unit *u = &s->units[id];
    s->empty_slab = u->next;
    free(slab_memory(s, u));
    s->slab_count--;
    s->bytes -= s->cache->geo.slab_bytes;
    drop_unit(s, id);
}

static size_t big_cost_of_room(size_t room)
{
    return room + MEMKIT__LRU_BIG_HEAD + MEMKIT__LRU_MALLOC_BYTES;
}

size_t memkit__lru_big_cost(const memkit__lru_entry *e)
{
    return big_cost_of_room(memkit__lru_big_of(e)->room);
}

static void free_big(memkit__lru_shard *s, uint32_t id)
{
    memkit__lru_unit *u = &s->units[id];
    size_t cost = memkit__lru_big_cost((memkit__lru_entry *)(void *)u->base);
    free(u->base - MEMKIT__LRU_BIG_HEAD);
    s->big_count--;
    s->big_bytes -= cost;
    s->bytes -= cost;
    drop_unit(s, id);
}

void memkit__lru_give_back(memkit__lru_shard *s, size_t target)
{
    for (uint32_t i = 0; i < MEMKIT__LRU_STASH && s->bytes > target; i++) {
        if (s->stash[i] != 0)
            free_big(s, s->stash[i]);
        s->stash[i] = 0;
    }
    while (s->empty_slab != 0 && s->bytes > target)
        free_empty_slab(s);
}

/* True where one more unit of `cost` bytes fits under the bound, after giving back what is idle
 * (which may leave a place in the table of units, so that it need not grow). */
static bool has_room(memkit__lru_shard *s, size_t cost)
{
    size_t more = cost + unit_growth(s);
    if (MEMKIT_UNLIKELY(more > s->max_bytes))
        return false;
    if (s->bytes > s->max_bytes - more) {
        memkit__lru_give_back(s, s->max_bytes - more);
        more = cost + unit_growth(s);
    }
    return s->bytes <= s->max_bytes - more;
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

static uint32_t take_chunk(memkit__lru_shard *s, uint32_t id)
{
    memkit__lru_unit *u = &s->units[id];
    const memkit__lru_geometry *geo = &s->cache->geo;
    uint32_t granule = u->free;
    memkit__lru_entry *e;
    if (granule != MEMKIT__LRU_NO_CHUNK) {
        e = memkit__lru_at(s, id << 12 | granule);
        u->free = (uint16_t)e->next;
    } else {
        granule = u->fresh;
        u->fresh = (uint16_t)(u->fresh + geo->size[u->cls]);
        e = memkit__lru_at(s, id << 12 | granule);
    }
    e->pins = 0;
    if (++u->used == geo->chunks[u->cls])
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
    u->serial++;
    s->classes[cls].slabs++;
    list_roomy(s, id);
}

static uint32_t new_slab(memkit__lru_shard *s, bool over)
{
    size_t slab_bytes = s->cache->geo.slab_bytes;
    if (!over && !has_room(s, slab_bytes)) {
        errno = ENOSPC;
        return 0;
    }
    char *memory = malloc(slab_bytes - MEMKIT__LRU_MALLOC_BYTES);
    if (memory == NULL || !ensure_unit(s)) {
        free(memory);
        errno = ENOMEM;
        return 0;
    }
    uint32_t id = take_unit(s);
    s->units[id].base = memory + MEMKIT__LRU_SLAB_HEAD + (s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0);
    s->slab_count++;
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
    if (id != 0)
        s->empty_slab = s->units[id].next;
    else if ((id = new_slab(s, over)) == 0)
        return 0;
    found_slab(s, id, cls);
    return take_chunk(s, id);
}

static void release_chunk(memkit__lru_shard *s, uint32_t handle)
{
    uint32_t id = handle >> 12;
    memkit__lru_unit *u = &s->units[id];
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    e->prev = MEMKIT__LRU_FREE;
    e->next = u->free;
    u->free = (uint16_t)(handle & 4095);
    if (u->used-- == s->cache->geo.chunks[u->cls])
        list_roomy(s, id);
    if (u->used == 0) {
        unlist_roomy(s, id);
        s->classes[u->cls].slabs--;
        u->cls = 0;
        u->serial++;
        u->next = s->empty_slab;
        s->empty_slab = id;
    }
}

/* -- big entries -- */

static size_t big_room_for(size_t entry_bytes)
{
    return (entry_bytes + BIG_ROUND - 1) & ~(size_t)(BIG_ROUND - 1);
}

static bool fits_well(size_t room, size_t entry_bytes)
{
    return entry_bytes <= room && room - entry_bytes <= room / SLACK_PARTS + BIG_ROUND;
}

static uint32_t take_stashed(memkit__lru_shard *s, size_t entry_bytes)
{
    for (uint32_t i = 0; i < MEMKIT__LRU_STASH; i++) {
        uint32_t id = s->stash[i];
        if (id == 0)
            continue;
        memkit__lru_entry *e = memkit__lru_at(s, id << 12);
        if (!fits_well(memkit__lru_big_of(e)->room, entry_bytes))
            continue;
        s->stash[i] = 0;
        s->units[id].used = 1;
        s->units[id].serial++;
        return id << 12;
    }
    return 0;
}

static uint32_t alloc_big(memkit__lru_shard *s, size_t entry_bytes, bool over)
{
    uint32_t handle = take_stashed(s, entry_bytes);
    if (handle != 0)
        return handle;
    size_t room = big_room_for(entry_bytes), cost = big_cost_of_room(room);
    if (!over && !has_room(s, cost)) {
        errno = ENOSPC;
        return 0;
    }
    char *memory = malloc(room + MEMKIT__LRU_BIG_HEAD);
    if (memory == NULL || !ensure_unit(s)) {
        free(memory);
        errno = ENOMEM;
        return 0;
    }
    uint32_t id = take_unit(s);
    memkit__lru_unit *u = &s->units[id];
    *u = (memkit__lru_unit){.base = memory + MEMKIT__LRU_BIG_HEAD,
                            .used = 1,
                            .serial = (uint16_t)(u->serial + 1),
                            .cls = s->big_class};
    memkit__lru_entry *e = memkit__lru_at(s, id << 12);
    memkit__lru_big_of(e)->room = room;
    e->pins = 0;
    s->big_count++;
    s->big_bytes += cost;
    s->bytes += cost;
    return id << 12;
}

static void release_big(memkit__lru_shard *s, uint32_t handle)
{
    uint32_t id = handle >> 12;
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    e->prev = MEMKIT__LRU_FREE;
    s->units[id].used = 0;
    if (memkit__lru_big_of(e)->room > STASH_MAX) {
        free_big(s, id);
        return;
    }
    uint32_t *place = &s->stash[s->stash_next++ % MEMKIT__LRU_STASH];
    if (*place != 0)
        free_big(s, *place);
    *place = id;
}

/* -- both -- */

uint32_t memkit__lru_alloc(memkit__lru_shard *s, size_t entry_bytes, bool over)
{
    return MEMKIT_LIKELY(is_small(&s->cache->geo, entry_bytes)) ? alloc_small(s, entry_bytes, over)
                                                                : alloc_big(s, entry_bytes, over);
}

void memkit__lru_release(memkit__lru_shard *s, uint32_t handle)
{
    if (MEMKIT_LIKELY(s->units[handle >> 12].cls != s->big_class))
        release_chunk(s, handle);
    else
        release_big(s, handle);
    /* A bound can be crossed for a moment (see lru_evict.c): then nothing idle is kept. */
    if (MEMKIT_UNLIKELY(s->bytes > s->max_bytes))
        memkit__lru_give_back(s, s->max_bytes);
}

bool memkit__lru_fits_in(const memkit__lru_shard *s, uint32_t handle, size_t entry_bytes)
{
    const memkit__lru_geometry *geo = &s->cache->geo;
    uint32_t cls = s->units[handle >> 12].cls;
    if (cls == s->big_class)
        return !is_small(geo, entry_bytes) &&
               fits_well(memkit__lru_big_of(memkit__lru_at(s, handle))->room, entry_bytes);
    if (!is_small(geo, entry_bytes))
        return false;
    uint32_t own = geo->class_of[granules_for(entry_bytes)];
    return own <= cls && cls <= last_choice(geo, own);
}

int memkit__lru_can_fit(const memkit__lru_shard *s, size_t entry_bytes)
{
    if (s->max_bytes == SIZE_MAX)
        return 0;
    const memkit__lru_geometry *geo = &s->cache->geo;
    bool small = is_small(geo, entry_bytes);
    size_t cost = small ? geo->slab_bytes : big_cost_of_room(big_room_for(entry_bytes));
    size_t fixed = s->bytes - s->slab_count * geo->slab_bytes - s->big_bytes, least;
    if (!memkit__add(fixed, cost, &least) || least > s->max_bytes)
        return E2BIG;
    if (MEMKIT_LIKELY(s->pinned == 0))
        return 0;
    if (small) {
        if (s->slab_count > s->pinned_slabs)
            return 0;
        uint32_t cls = geo->class_of[granules_for(entry_bytes)], last = last_choice(geo, cls);
        for (uint32_t i = cls; i <= last; i++)
            if (s->classes[i].pinned < s->classes[i].slabs * geo->chunks[i])
                return 0;
    }
    /* What the unit table must grow by, unless a unit without pins leaves its place in it. */
    size_t units = s->slab_count + s->big_count;
    size_t pinned_units = s->pinned_slabs + s->classes[s->big_class].pinned;
    if (units == pinned_units)
        cost += unit_growth(s);
    cost += s->pinned_slabs * geo->slab_bytes + s->pinned_big;
    return cost <= s->max_bytes - fixed ? 0 : EBUSY;
}
