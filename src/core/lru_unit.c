/* lru_unit.c - the table of units, what goes back to malloc, and the blocks of big entries.
 *
 *     units   [0: the list's sentinel][1: slab][2: big block][3: not in use] ...
 *
 * The table grows by half and moves then: nobody keeps a pointer into it. A unit's `serial` changes
 * whenever it becomes something else, so that a stale reference is told from a good one.
 *
 * Idle are empty slabs, and big blocks whose entry has gone: a few of those wait in a stash for an
 * entry of nearly their size, so that a cache of large values does not call malloc for each. Both
 * count in s->bytes, and go back to malloc as soon as the bound wants the room. Locking: the
 * shard's.
 */
#include <stdlib.h>

#include "core/lru_track.h"
#include "core/lru_unit.h"

/* Most that a block may be larger than what it serves, as a part of it; what sizes are rounded to;
 * the largest block worth keeping; the table's first size. */
enum { SLACK_PARTS = 4, BIG_ROUND = 64, STASH_MAX = 1 << 20, LEAST_UNITS = 4 };

static size_t unit_table_bytes(uint32_t units)
{
    return units * sizeof(memkit__lru_unit);
}

size_t memkit__lru_units_bytes(const memkit__lru_shard *s)
{
    return unit_table_bytes(s->unit_room);
}

static uint32_t next_unit_room(const memkit__lru_shard *s)
{
    uint32_t room = s->unit_room + s->unit_room / 2;
    return room < MEMKIT__LRU_MAX_UNITS ? room : MEMKIT__LRU_MAX_UNITS;
}

size_t memkit__lru_unit_growth(const memkit__lru_shard *s)
{
    if (s->unused_unit != 0 || s->unit_count < s->unit_room)
        return 0;
    return unit_table_bytes(next_unit_room(s)) - unit_table_bytes(s->unit_room);
}

bool memkit__lru_ensure_unit(memkit__lru_shard *s)
{
    errno = ENOMEM;
    if (s->unused_unit != 0 || s->unit_count < s->unit_room)
        return true;
    uint32_t room = next_unit_room(s);
    if (room == s->unit_room) { /* handles have no more bits: as full as can be */
        errno = ENOSPC;
        return false;
    }
    uint32_t epoch = memkit__takes_now();
    memkit__lru_unit *units = realloc(s->units, unit_table_bytes(room));
    if (units == NULL)
        return false;
    memkit__own(units, epoch);
    s->units = units;
    s->bytes += memkit__lru_unit_growth(s);
    s->unit_room = room;
    return true;
}

static void unlist_unused(memkit__lru_shard *s, uint32_t id)
{
    const memkit__lru_unit *u = &s->units[id];
    if (u->next != 0)
        s->units[u->next].prev = u->prev;
    if (u->prev != 0)
        s->units[u->prev].next = u->next;
    else
        s->unused_unit = u->next;
}

uint32_t memkit__lru_take_unit(memkit__lru_shard *s)
{
    uint32_t id = s->unused_unit;
    if (id != 0) {
        unlist_unused(s, id);
    } else {
        id = s->unit_count++;
        s->units[id].serial = 0;
    }
    return id;
}

static void drop_unit(memkit__lru_shard *s, uint32_t id)
{
    s->units[id].base = NULL;
    s->units[id].prev = 0;
    s->units[id].next = s->unused_unit;
    if (s->unused_unit != 0)
        s->units[s->unused_unit].prev = id;
    s->unused_unit = id;
}

static uint32_t trimmed_room(uint32_t units)
{
    return units < LEAST_UNITS ? LEAST_UNITS : units;
}

/* Where all are pinned the table grows by half, or has the entry that is replaced before the new
 * one: whatever is more. */
size_t memkit__lru_units_bytes_least(uint32_t last, bool full)
{
    uint32_t room = trimmed_room(last + 1), beside = last + 3;
    if (full && room == last + 1)
        room += room / 2;
    return unit_table_bytes(full && room < beside ? beside : room);
}

void memkit__lru_lowest_unit_first(memkit__lru_shard *s)
{
    uint32_t id = 1;
    while (id < s->unit_count && s->units[id].base != NULL)
        id++;
    if (id < s->unit_count) {
        unlist_unused(s, id);
        drop_unit(s, id);
    }
}

size_t memkit__lru_units_excess(const memkit__lru_shard *s, uint32_t last)
{
    uint32_t room = trimmed_room(last + 1);
    return room < s->unit_room ? unit_table_bytes(s->unit_room - room) : 0;
}

bool memkit__lru_units_trim(memkit__lru_shard *s, uint32_t most)
{
    uint32_t before = s->unit_count;
    for (; most > 0 && s->unit_count > 1 && s->units[s->unit_count - 1].base == NULL; most--)
        unlist_unused(s, --s->unit_count);
    uint32_t room = trimmed_room(s->unit_count);
    if (room >= s->unit_room)
        return s->unit_count < before;
    uint32_t epoch = memkit__takes_now();
    memkit__lru_unit *units = realloc(s->units, unit_table_bytes(room));
    if (units == NULL) /* still the larger block */
        return s->unit_count < before;
    memkit__own(units, epoch);
    s->units = units;
    s->bytes -= unit_table_bytes(s->unit_room) - unit_table_bytes(room);
    s->unit_room = room;
    return true;
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

/* free() gets blocks that no part is hidden of. */
static void free_slab_memory(const memkit__lru_shard *s, const memkit__lru_unit *u)
{
    char *memory = memkit__lru_slab_memory(s, u);
    memkit__show(memory, memkit__lru_slab_cost(u->granules) - MEMKIT__LRU_MALLOC_BYTES);
    free(memory);
}

static void free_big_memory(const memkit__lru_unit *u)
{
    const memkit__lru_entry *e = (const memkit__lru_entry *)(const void *)u->base;
    memkit__show(u->base, memkit__lru_big_of(e)->room);
    free(u->base - MEMKIT__LRU_BIG_HEAD);
}

void memkit__lru_slab_destroy(memkit__lru_shard *s)
{
    for (uint32_t id = 1; id < s->unit_count; id++) {
        memkit__lru_unit *u = &s->units[id];
        if (u->base == NULL)
            continue;
        if (u->cls == s->big_class)
            free_big_memory(u);
        else
            free_slab_memory(s, u);
    }
    free(s->units);
}

/* -- giving back -- */

void memkit__lru_free_empty_slab(memkit__lru_shard *s)
{
    uint32_t id = s->empty_slab;
    memkit__lru_unit *u = &s->units[id];
    s->empty_slab = u->next;
    free_slab_memory(s, u);
    s->slab_count--;
    s->slab_bytes -= memkit__lru_slab_cost(u->granules);
    s->bytes -= memkit__lru_slab_cost(u->granules);
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
    free_big_memory(u);
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
        memkit__lru_free_empty_slab(s);
}

bool memkit__lru_give_back_one(memkit__lru_shard *s)
{
    for (uint32_t i = 0; i < MEMKIT__LRU_STASH; i++)
        if (s->stash[i] != 0) {
            free_big(s, s->stash[i]);
            s->stash[i] = 0;
            return true;
        }
    if (s->empty_slab == 0)
        return false;
    memkit__lru_free_empty_slab(s);
    return true;
}

bool memkit__lru_has_room(memkit__lru_shard *s, size_t cost)
{
    size_t more = cost + memkit__lru_unit_growth(s);
    if (MEMKIT_UNLIKELY(more > s->max_bytes))
        return false;
    if (s->bytes > s->max_bytes - more) {
        memkit__lru_give_back(s, s->max_bytes - more);
        more = cost + memkit__lru_unit_growth(s);
    }
    return s->bytes <= s->max_bytes - more;
}

/* -- big entries -- */

static size_t big_room_for(size_t entry_bytes)
{
    return (entry_bytes + BIG_ROUND - 1) & ~(size_t)(BIG_ROUND - 1);
}

size_t memkit__lru_big_cost_for(size_t entry_bytes)
{
    return big_cost_of_room(big_room_for(entry_bytes));
}

static bool fits_well(size_t room, size_t entry_bytes)
{
    return entry_bytes <= room && room - entry_bytes <= room / SLACK_PARTS + BIG_ROUND;
}

bool memkit__lru_big_fits(const memkit__lru_entry *e, size_t entry_bytes)
{
    return fits_well(memkit__lru_big_of(e)->room, entry_bytes);
}

/* The one of the stash that fits best: a larger one will serve a larger entry. */
static uint32_t take_stashed(memkit__lru_shard *s, size_t entry_bytes)
{
    uint32_t *best = NULL;
    size_t best_room = SIZE_MAX;
    for (uint32_t i = 0; i < MEMKIT__LRU_STASH; i++) {
        if (s->stash[i] == 0)
            continue;
        size_t room = memkit__lru_big_of(memkit__lru_at(s, s->stash[i] << 12))->room;
        if (room < best_room && fits_well(room, entry_bytes)) {
            best = &s->stash[i];
            best_room = room;
        }
    }
    if (best == NULL)
        return 0;
    uint32_t id = *best;
    *best = 0;
    s->units[id].used = 1;
    s->units[id].serial++;
    return id << 12;
}

uint32_t memkit__lru_big_alloc(memkit__lru_shard *s, size_t entry_bytes, bool over)
{
    uint32_t handle = take_stashed(s, entry_bytes);
    if (handle != 0)
        return handle;
    size_t room = big_room_for(entry_bytes), cost = big_cost_of_room(room);
    if (!over && !memkit__lru_has_room(s, cost)) {
        errno = ENOSPC;
        return 0;
    }
    uint32_t epoch = memkit__takes_now();
    char *memory = malloc(room + MEMKIT__LRU_BIG_HEAD);
    if (memory == NULL || !memkit__lru_ensure_unit(s)) {
        int reason = memory == NULL ? ENOMEM : errno;
        free(memory);
        errno = reason;
        return 0;
    }
    uint32_t id = memkit__lru_take_unit(s);
    memkit__lru_unit *u = &s->units[id];
    *u = (memkit__lru_unit){.base = memory + MEMKIT__LRU_BIG_HEAD,
                            .used = 1,
                            .serial = (uint16_t)(u->serial + 1),
                            .cls = s->big_class};
    memkit__lru_entry *e = memkit__lru_at(s, id << 12);
    memkit__lru_big_of(e)->room = room;
    memkit__lru_set_stocked(s, id, memkit__own(memory, epoch));
    e->pins = 0;
    memkit__lru_hide_body(e, room);
    s->big_count++;
    s->big_bytes += cost;
    s->bytes += cost;
    return id << 12;
}

void memkit__lru_big_release(memkit__lru_shard *s, uint32_t handle)
{
    uint32_t id = handle >> 12;
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    e->prev = MEMKIT__LRU_FREE;
    memkit__lru_hide_body(e, memkit__lru_big_of(e)->room);
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
