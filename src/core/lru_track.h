/* lru_track.h - what the cache lets memcheck and ASan see (track.h): nothing costs anything in a
 * build without them.
 *
 *     |header 20| key | pad | value | rest of the chunk |
 *       visible  vis.   hid.   (1)        hidden           an entry
 *       visible <------------ hidden ------------------>   a free chunk, a stashed big block
 *      <------------------- hidden -------------------->   what no entry ever lay in
 *
 * (1) The value is visible while somebody may read it: as long as a reference or a callback holds
 * the entry, and to the core for the moment in which it copies. So a read through a reference that
 * was released is seen at once, not only when the memory serves another entry, and one past a
 * value's end always. ASan keeps account of 8 bytes at a time: the last 4 bytes of a chunk share
 * their 8 with the next header, and stay visible. Locking: the shard's.
 */
#ifndef MEMKIT_CORE_LRU_TRACK_H
#define MEMKIT_CORE_LRU_TRACK_H

#include "core/lru.h"
#include "core/track.h"

static inline void memkit__lru_hide_value(const memkit__lru_entry *e)
{
    if (MEMKIT__TRACKED)
        memkit__hide(memkit__lru_value(e), memkit__lru_vlen(e));
}

static inline void memkit__lru_show_value(const memkit__lru_entry *e)
{
    if (MEMKIT__TRACKED)
        memkit__show(memkit__lru_value(e), memkit__lru_vlen(e));
}

/* After a moment's look at the value: hidden again, where no reference holds it. */
static inline void memkit__lru_looked(const memkit__lru_entry *e)
{
    if (MEMKIT__TRACKED && e->pins == 0)
        memkit__lru_hide_value(e);
}

/* All behind the header of an entry that ends, `room` bytes from its header to the chunk's end. */
static inline void memkit__lru_hide_body(const memkit__lru_entry *e, size_t room)
{
    if (MEMKIT__TRACKED)
        memkit__hide(e + 1, room - sizeof *e);
}

#endif
