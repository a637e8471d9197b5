/* lru_way.c - a way for an entry that what the shard holds beside its entries leaves no room for.
 *
 *     bound  |------------------------------------------------|
 *     held   |control|  index  |units| slabs and big blocks   |     small entries: a heavy index
 *     held   |control|ix|u|            the entry              |     a heavy one: a light index
 *
 * The index and the table of units grow with the number of entries and do not shrink with it, since
 * what was there once will most likely come again. A heavy entry may need their room. It would push
 * most others out anyhow: so here all leave at once, the table of units ends with the last unit
 * that a pin keeps, and an index of the size that a new shard of these bounds has replaces a larger
 * one. That costs O(n) for the n that leave, and an allocation.
 *
 * What does not fit then does not fit ever (E2BIG), or as long as the pins last (EBUSY); this is
 * known beforehand, and then nothing leaves. Locking: the shard's.
 */
#include "core/lru_unit.h"

static size_t wanted_room(const memkit__lru_shard *s)
{
    return memkit__lru_wanted_index(s->cache, s->max_entries, s->max_bytes);
}

static size_t least_index_bytes(const memkit__lru_shard *s)
{
    size_t now = memkit__lru_table_bytes(&s->index.now);
    size_t wanted = memkit__lru_table_bytes_for(wanted_room(s));
    return wanted < now ? wanted : now;
}

/* What the shard holds at least with an entry of such a cost, when all that can go has gone, `last`
 * is the last pinned unit and `pinned` of those up to it are. SIZE_MAX: no size. */
static size_t least_with(const memkit__lru_shard *s, size_t cost, uint32_t last, uint32_t pinned)
{
    size_t units = memkit__lru_units_bytes(s), sum;
    size_t fixed = s->bytes - s->slab_bytes - s->big_bytes - memkit__lru_index_bytes(s) - units +
                   least_index_bytes(s) + memkit__lru_units_bytes_least(last, last == pinned);
    return memkit__add(fixed, cost, &sum) ? sum : SIZE_MAX;
}

static uint32_t last_pinned_unit(const memkit__lru_shard *s)
{
    uint32_t last = s->unit_count - 1;
    while (last > 0 && (s->units[last].base == NULL || s->units[last].pinned == 0))
        last--;
    return last;
}

/* From the least recent on, but for `old`, which is the most recent now. */
static void evict_all(memkit__lru_shard *s, uint32_t old, memkit__lru_leavers *leavers)
{
    while (s->cleared != 0)
        memkit__lru_leave_cleared(s, leavers);
    while (s->ends.prev != old)
        memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_EVICTED, leavers);
}

/* The index holds nothing but `old`. False: no memory for another. */
static bool lighten_index(memkit__lru_shard *s, uint32_t old)
{
    size_t before = memkit__lru_index_bytes(s);
    if (before == least_index_bytes(s))
        return true;
    if (memkit__lru_table_bytes(&s->index.now) == least_index_bytes(s)) {
        memkit__lru_move_index(s, SIZE_MAX); /* it was growing: that ends now */
        return true;
    }
    memkit__lru_table fresh;
    uint32_t epoch = memkit__takes_now();
    if (memkit__lru_table_init(&fresh, wanted_room(s)) != 0)
        return false;
    memkit__own(fresh.slots, epoch);
    memkit__lru_table_free(&s->index.now);
    memkit__lru_table_free(&s->index.old);
    s->index = (memkit__lru_index){.now = fresh};
    if (old != 0)
        memkit__lru_index_insert(&s->index, memkit__lru_at(s, old)->tag, old);
    s->bytes -= before - memkit__lru_index_bytes(s);
    return true;
}

/* A pin that was in the way of a resize may be released by now: what it kept goes. */
static void shorten_units(memkit__lru_shard *s)
{
    memkit__lru_give_back(s, 0);
    memkit__lru_units_trim(s, UINT32_MAX);
}

int memkit__lru_make_way(memkit__lru_shard *s, size_t entry_bytes, uint32_t old,
                         memkit__lru_leavers *leavers)
{
    size_t cost = memkit__lru_cost_for(s, entry_bytes);
    bool never = least_with(s, cost, 0, 0) > s->max_bytes;
    if (never && !s->resizing)
        return E2BIG;
    shorten_units(s);
    if (memkit__lru_can_fit(s, entry_bytes))
        return 0;
    if (s->resizing) /* which counts on the index as it is */
        return EBUSY;
    if (cost <= s->max_bytes - (s->bytes - s->slab_bytes - s->big_bytes))
        return EBUSY; /* nothing but pins is in the way: pinned entries stay findable */
    size_t kept = s->pinned_slab_bytes + s->pinned_big;
    if (!memkit__add(cost, kept, &cost) ||
        least_with(s, cost, last_pinned_unit(s), memkit__lru_pinned_units(s)) > s->max_bytes)
        return EBUSY;
    if (old != 0)
        memkit__lru_touch(s, old, memkit__lru_at(s, old));
    evict_all(s, old, leavers);
    if (!lighten_index(s, old))
        return ENOMEM;
    shorten_units(s);
    memkit__lru_lowest_unit_first(s);
    return 0;
}
