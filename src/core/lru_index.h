/* lru_index.h - the cache's hash table: 32-bit tags to 32-bit handles. lru_index.c draws it. */
#ifndef MEMKIT_CORE_LRU_INDEX_H
#define MEMKIT_CORE_LRU_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A slot is tag << 32 | handle; 0 is an empty one. */
typedef struct {
    uint64_t *slots; /* NULL: no table */
    uint64_t homes;  /* slots that are some tag's home; `spill` more follow, and one always empty */
    size_t spill;
} memkit__lru_table;

typedef struct {
    memkit__lru_table now;
    memkit__lru_table old; /* while it moves to `now` */
    size_t moved;          /* old's slots below are empty: their content is in `now` */
} memkit__lru_index;

/* Slots fall from large tags to small ones, so homes do too. */
static inline size_t memkit__lru_home(const memkit__lru_table *t, uint32_t tag)
{
    return (size_t)(((uint64_t)~tag * t->homes) >> 32);
}

/* First slot whose tag is not larger than `tag`. One compare a step: an empty slot is smallest. */
static inline uint64_t *memkit__lru_seek(const memkit__lru_table *t, uint32_t tag, size_t from)
{
    uint64_t *p = t->slots + from;
    uint64_t last = (uint64_t)tag << 32 | UINT32_MAX;
    while (*p > last)
        p++;
    return p;
}

/* Entries a table takes, table for so many entries, and what it weighs. */
size_t memkit__lru_table_room(const memkit__lru_table *t);
size_t memkit__lru_table_bytes(const memkit__lru_table *t);
size_t memkit__lru_table_bytes_for(size_t entries);
/* An empty table. -1: ENOMEM. */
int memkit__lru_table_init(memkit__lru_table *t, size_t entries);
void memkit__lru_table_free(memkit__lru_table *t);
void memkit__lru_table_clear(memkit__lru_table *t); /* O(n) */

/* No tag is 0. insert: false where the table has no place (nothing changed). The others want the
 * pair to be there; false where it is not. */
bool memkit__lru_index_insert(memkit__lru_index *ix, uint32_t tag, uint32_t handle);
bool memkit__lru_index_remove(memkit__lru_index *ix, uint32_t tag, uint32_t handle);
bool memkit__lru_index_replace(memkit__lru_index *ix, uint32_t tag, uint32_t handle, uint32_t by);

/* Makes `t` the table to grow into; old must be empty. Then move(), until it returns 0, shifts up
 * to `slots` slots an operation; it returns the bytes of the old table when that was freed. */
void memkit__lru_index_grow(memkit__lru_index *ix, memkit__lru_table t);
size_t memkit__lru_index_move(memkit__lru_index *ix, size_t slots);

#endif
