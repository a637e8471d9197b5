/* lru_unit.h - between lru_unit.c and lru_slab.c: the table of units, the bound, big blocks. */
#ifndef MEMKIT_CORE_LRU_UNIT_H
#define MEMKIT_CORE_LRU_UNIT_H

#include "core/lru.h"

/* A new unit: first ensure a place for it (false: no memory), then take that. */
bool memkit__lru_ensure_unit(memkit__lru_shard *s);
uint32_t memkit__lru_take_unit(memkit__lru_shard *s);

/* What malloc gave for a slab. */
static inline char *memkit__lru_slab_memory(const memkit__lru_shard *s, const memkit__lru_unit *u)
{
    return u->base - MEMKIT__LRU_SLAB_HEAD - (s->has_ttl ? MEMKIT__LRU_TTL_BYTES : 0);
}

/* Gives the first of the empty slabs, of which there is one, back to malloc. */
void memkit__lru_free_empty_slab(memkit__lru_shard *s);

/* Bytes that one more unit costs in the table itself. */
size_t memkit__lru_unit_growth(const memkit__lru_shard *s);

/* What the table of units weighs; and what it weighs at least once it ends with `last`, the last
 * pinned one, and an entry has come that needs a unit. `full`: all up to `last` are pinned. */
size_t memkit__lru_units_bytes(const memkit__lru_shard *s);
size_t memkit__lru_units_bytes_least(uint32_t last, bool full);

/* True where one more unit of `cost` bytes fits under the bound, after giving back what is idle
 * (which may leave a place in the table of units, so that it need not grow). */
bool memkit__lru_has_room(memkit__lru_shard *s, size_t cost);

/* As memkit__lru_alloc and its kin, for entries too large for a slab. */
uint32_t memkit__lru_big_alloc(memkit__lru_shard *s, size_t entry_bytes, bool over);
void memkit__lru_big_release(memkit__lru_shard *s, uint32_t handle);
bool memkit__lru_big_fits(const memkit__lru_entry *e, size_t entry_bytes);
size_t memkit__lru_big_cost_for(size_t entry_bytes);

#endif
