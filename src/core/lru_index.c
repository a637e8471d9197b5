/* lru_index.c - the cache's hash table.
 *
 *     slots      [ tag | handle ][ tag | handle ][  0  ][ tag | handle ] ... [ spill ... ][ 0 ]
 *                <----------------------- homes ----------------------->
 *     home(tag) = ~tag * homes >> 32: homes rise as tags fall, and any number of homes will do
 *
 * Linear probing without a wrap, kept in falling order of tags. So a search ends at the first tag
 * that is not larger, found or not, and costs one compare a slot; a miss costs no more than a hit.
 * Runs that reach past the last home go on in the spill, which holds 64 slots: at 13/16 full, the
 * odds that a run needs more are below e^-25, and then the insert fails cleanly.
 *
 * Removal shifts the rest of the run back by one (a slot's home is computed from its tag): there
 * are no tombstones, and a table never ages.
 *
 * Growth: `now` is the larger table, `old` drains into it from its first slot on, a few slots at
 * each insert. Slots below `moved` are empty; a search of old begins there or at its home,
 * whichever is later. New entries go into `now` only.
 *
 * Invariants: tags fall; no slot lies before its home; no empty slot between a slot and its home
 * (or `moved`); the last slot is empty. Locking: the shard's.
 */
#include "core/lru_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"

enum { FULL_NUM = 13, FULL_DEN = 16, MAX_SPILL = 64 };

static inline uint64_t slot_of(uint32_t tag, uint32_t handle)
{
    return (uint64_t)tag << 32 | handle;
}

static size_t homes_for(size_t entries)
{
    return entries + entries * (FULL_DEN - FULL_NUM) / FULL_NUM + 1;
}

/* A table of n entries cannot spill n or more slots: small ones need no more than that. */
static size_t spill_for(size_t entries)
{
    return entries < MAX_SPILL ? entries : MAX_SPILL;
}

size_t memkit__lru_table_bytes_for(size_t entries)
{
    return (homes_for(entries) + spill_for(entries) + 1) * sizeof(uint64_t);
}

size_t memkit__lru_table_bytes(const memkit__lru_table *t)
{
    return t->slots == NULL ? 0 : ((size_t)t->homes + t->spill + 1) * sizeof(uint64_t);
}

size_t memkit__lru_table_room(const memkit__lru_table *t)
{
    return (size_t)(t->homes / FULL_DEN * FULL_NUM + t->homes % FULL_DEN * FULL_NUM / FULL_DEN);
}

int memkit__lru_table_init(memkit__lru_table *t, size_t entries)
{
    /* calloc: a large table comes as pages that cost nothing before they are touched. */
    uint64_t *slots = calloc(1, memkit__lru_table_bytes_for(entries));
    if (slots == NULL)
        return -1;
    *t = (memkit__lru_table){slots, homes_for(entries), spill_for(entries)};
    return 0;
}

void memkit__lru_table_free(memkit__lru_table *t)
{
    free(t->slots);
    *t = (memkit__lru_table){NULL, 0, 0};
}

void memkit__lru_table_clear(memkit__lru_table *t)
{
    memset(t->slots, 0, memkit__lru_table_bytes(t));
}

static bool table_insert(memkit__lru_table *t, uint32_t tag, uint32_t handle)
{
    /* The last slot but one is taken only by a run that filled the spill. */
    if (MEMKIT_UNLIKELY(t->slots[t->homes + t->spill - 1] != 0))
        return false;
    uint64_t *p = memkit__lru_seek(t, tag, memkit__lru_home(t, tag));
    uint64_t carried = slot_of(tag, handle);
    while (carried != 0) {
        uint64_t next = *p;
        *p++ = carried;
        carried = next;
    }
    return true;
}

static uint64_t *table_find(const memkit__lru_table *t, uint32_t tag, uint32_t handle, size_t from)
{
    size_t home = memkit__lru_home(t, tag);
    uint64_t *p = memkit__lru_seek(t, tag, home > from ? home : from);
    for (; *p >> 32 == tag; p++)
        if (*p == slot_of(tag, handle))
            return p;
    return NULL;
}

static uint64_t *index_find(const memkit__lru_index *ix, uint32_t tag, uint32_t handle,
                            const memkit__lru_table **table)
{
    *table = &ix->now;
    uint64_t *p = table_find(&ix->now, tag, handle, 0);
    if (p == NULL && ix->old.slots != NULL) {
        *table = &ix->old;
        p = table_find(&ix->old, tag, handle, ix->moved);
    }
    return p;
}

bool memkit__lru_index_insert(memkit__lru_index *ix, uint32_t tag, uint32_t handle)
{
    return table_insert(&ix->now, tag, handle);
}

bool memkit__lru_index_remove(memkit__lru_index *ix, uint32_t tag, uint32_t handle)
{
    const memkit__lru_table *t;
    uint64_t *p = index_find(ix, tag, handle, &t);
    if (p == NULL)
        return false;
    /* Whoever does not sit at home moves up by one. */
    for (;; p++) {
        uint64_t next = p[1];
        if (next == 0 || memkit__lru_home(t, (uint32_t)(next >> 32)) > (size_t)(p - t->slots))
            break;
        *p = next;
    }
    *p = 0;
    return true;
}

bool memkit__lru_index_replace(memkit__lru_index *ix, uint32_t tag, uint32_t handle, uint32_t by)
{
    const memkit__lru_table *t;
    uint64_t *p = index_find(ix, tag, handle, &t);
    if (p == NULL)
        return false;
    *p = slot_of(tag, by);
    return true;
}

void memkit__lru_index_grow(memkit__lru_index *ix, memkit__lru_table t)
{
    ix->old = ix->now;
    ix->now = t;
    ix->moved = 0;
}

size_t memkit__lru_index_move(memkit__lru_index *ix, size_t slots)
{
    if (ix->old.slots == NULL)
        return 0;
    size_t end = (size_t)ix->old.homes + ix->old.spill;
    for (; slots > 0 && ix->moved < end; slots--, ix->moved++) {
        uint64_t slot = ix->old.slots[ix->moved];
        if (slot == 0)
            continue;
        if (!table_insert(&ix->now, (uint32_t)(slot >> 32), (uint32_t)slot))
            return 0; /* stays in old, where it is found, and is tried again */
        ix->old.slots[ix->moved] = 0;
    }
    if (ix->moved < end)
        return 0;
    size_t bytes = memkit__lru_table_bytes(&ix->old);
    memkit__lru_table_free(&ix->old);
    ix->moved = 0;
    return bytes;
}
