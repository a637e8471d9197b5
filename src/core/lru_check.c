/* lru_check.c - the cache's invariants as code: walks list, index and memory, and counts everything
 * anew. Tests run it after every step; it is O(n) and holds each shard's lock while it looks.
 */
#include "core/lru_find.h"

#define MUST(condition, what) \
    do {                      \
        if (!(condition))     \
            return what;      \
    } while (0)

/* What the walk over the units adds up to. */
typedef struct {
    size_t slabs, slab_bytes, pinned_slab_bytes, big_bytes, bigs, listed, gone, pinned, gone_pinned,
        pinned_slabs, pinned_big;
} sums;

static bool handle_ok(const memkit__lru_shard *s, uint32_t handle)
{
    uint32_t id = handle >> 12, granule = handle & 4095;
    if (id == 0 || id >= s->unit_count || s->units[id].base == NULL)
        return false;
    const memkit__lru_unit *u = &s->units[id];
    if (u->cls == s->big_class)
        return granule == 0;
    return granule % s->cache->geo.size[u->cls] == 0 && granule < u->fresh;
}

static const char *check_table(const memkit__lru_table *t, size_t from, size_t *count)
{
    size_t end = (size_t)t->homes + t->spill;
    MUST(t->slots[end] == 0, "index: the last slot is taken");
    for (size_t i = 0; i < from; i++)
        MUST(t->slots[i] == 0, "index: a slot below `moved` is taken");
    for (size_t i = from; i < end; i++) {
        uint64_t slot = t->slots[i];
        if (slot == 0)
            continue;
        size_t home = memkit__lru_home(t, (uint32_t)(slot >> 32));
        MUST(home <= i, "index: a slot lies before its home");
        if (home < i && i > from) {
            uint64_t before = t->slots[i - 1];
            MUST(before != 0, "index: a gap between a slot and its home");
            MUST(before >> 32 >= slot >> 32, "index: tags rise");
        }
        ++*count;
    }
    return NULL;
}

static const char *check_list(const memkit__lru_shard *s)
{
    const memkit_lru *c = s->cache;
    size_t n = 0;
    uint32_t before = 0;
    for (uint32_t handle = s->ends.next; handle != 0; n++) {
        MUST(handle_ok(s, handle), "list: a link leads nowhere");
        const memkit__lru_entry *e = memkit__lru_at(s, handle);
        MUST(n < s->count, "list: longer than the count");
        MUST(e->prev == before, "list: prev is not who came before");
        uint32_t tag;
        const char *key = memkit__lru_key(e);
        size_t klen = memkit__lru_klen(e);
        MUST(memkit__lru_locate(c, key, klen, &tag) == s, "entry: in the wrong shard");
        MUST(tag == e->tag, "entry: the tag is not its key's");
        MUST(memkit__lru_find(s, tag, key, klen) == handle, "entry: the index does not find it");
        MUST((uintptr_t)memkit__lru_value(e) % 8 == 0, "entry: the value is not aligned");
        before = handle;
        handle = e->next;
    }
    MUST(s->ends.prev == before, "list: the last entry is not the sentinel's prev");
    MUST(n == s->count, "list: shorter than the count");
    return NULL;
}

/* Entries that a clear took out, and that nobody has freed yet. */
static const char *check_cleared(const memkit__lru_shard *s)
{
    size_t n = 0;
    for (uint32_t handle = s->cleared; handle != 0; n++) {
        MUST(handle_ok(s, handle) && n < s->cleared_count, "cleared: a link leads nowhere");
        const memkit__lru_entry *e = memkit__lru_at(s, handle);
        MUST(!memkit__lru_is_gone(e) && e->prev != MEMKIT__LRU_FREE, "cleared: gone already");
        handle = e->prev;
    }
    MUST(n == s->cleared_count, "cleared: shorter than its count");
    return NULL;
}

static const char *check_entry(const memkit__lru_shard *s, uint32_t handle, bool *free,
                               bool *pinned, sums *sum)
{
    const memkit__lru_entry *e = memkit__lru_at(s, handle);
    *free = e->prev == MEMKIT__LRU_FREE;
    *pinned = !*free && (e->pins > 0 || e->prev == MEMKIT__LRU_HELD);
    if (*free) {
        MUST(e->pins == 0, "memory: a free chunk is pinned");
        return NULL;
    }
    bool gone = memkit__lru_is_gone(e);
    MUST(!gone || *pinned, "entry: gone, and nothing holds it");
    sum->listed += !gone;
    sum->gone += gone;
    sum->pinned += *pinned;
    sum->gone_pinned += gone;
    return NULL;
}

static const char *check_slab(const memkit__lru_shard *s, uint32_t id, sums *sum)
{
    const memkit__lru_geometry *geo = &s->cache->geo;
    const memkit__lru_unit *u = &s->units[id];
    uint32_t size = geo->size[u->cls], used = 0, pinned_here = 0, free_here = 0;
    MUST(u->chunks == u->granules / size, "slab: `chunks` is wrong");
    MUST(u->fresh <= size * u->chunks, "slab: more chunks than there is room for");
    for (uint32_t g = 0; g < u->fresh; g += size) {
        bool free, pinned;
        const char *broken = check_entry(s, id << 12 | g, &free, &pinned, sum);
        MUST(broken == NULL, broken);
        used += !free;
        free_here += free;
        pinned_here += pinned;
    }
    MUST(used == u->used, "slab: `used` is wrong");
    MUST(pinned_here == u->pinned, "slab: `pinned` is wrong");
    uint32_t listed = 0;
    for (uint32_t g = u->free; g != MEMKIT__LRU_NO_CHUNK; listed++) {
        MUST(g < u->fresh && g % size == 0 && listed < free_here, "slab: free list leads astray");
        const memkit__lru_entry *e = memkit__lru_at(s, id << 12 | g);
        MUST(e->prev == MEMKIT__LRU_FREE, "slab: a taken chunk is in the free list");
        g = e->next;
    }
    MUST(listed == free_here, "slab: a free chunk is not in the free list");
    sum->slabs++;
    sum->slab_bytes += memkit__lru_slab_cost(u->granules);
    sum->pinned_slabs += pinned_here > 0;
    sum->pinned_slab_bytes += pinned_here > 0 ? memkit__lru_slab_cost(u->granules) : 0;
    return NULL;
}

static const char *check_big(const memkit__lru_shard *s, uint32_t id, sums *sum)
{
    const memkit__lru_unit *u = &s->units[id];
    const memkit__lru_entry *e = memkit__lru_at(s, id << 12);
    bool free, pinned, stashed = false;
    const char *broken = check_entry(s, id << 12, &free, &pinned, sum);
    MUST(broken == NULL, broken);
    for (int i = 0; i < MEMKIT__LRU_STASH; i++)
        stashed |= s->stash[i] == id;
    MUST(stashed == free && u->used == !free, "big block: stashed and in use, or neither");
    MUST(u->pinned == pinned, "big block: `pinned` is wrong");
    sum->bigs++;
    sum->big_bytes += memkit__lru_big_cost(e);
    sum->pinned_big += pinned ? memkit__lru_big_cost(e) : 0;
    return NULL;
}

/* Lists of units: who has room is listed once in its class, empty slabs are listed as such. */
static const char *check_lists(const memkit__lru_shard *s, size_t *empty)
{
    const memkit__lru_geometry *geo = &s->cache->geo;
    size_t roomy = 0, unused = 0;
    *empty = 0;
    for (uint32_t cls = 0; cls < geo->class_count; cls++) {
        uint32_t before = 0;
        for (uint32_t id = s->classes[cls].roomy; id != 0; id = s->units[id].next, roomy++) {
            MUST(id < s->unit_count && roomy < s->unit_count, "class: its list leads astray");
            const memkit__lru_unit *u = &s->units[id];
            MUST(u->base != NULL && u->cls == cls && u->prev == before, "class: list is broken");
            MUST(u->used > 0 && u->used < u->chunks, "class: full or empty slab listed");
            MUST(u->granules == s->slab_granules && u->era == s->era,
                 "class: a slab of before a resize is listed");
            before = id;
        }
    }
    for (uint32_t id = s->empty_slab; id != 0; id = s->units[id].next)
        MUST(id < s->unit_count && ++*empty < s->unit_count && s->units[id].base != NULL &&
                 s->units[id].used == 0,
             "empty slabs: the list leads astray");
    for (uint32_t id = s->unused_unit, before = 0; id != 0; before = id, id = s->units[id].next)
        MUST(id < s->unit_count && ++unused < s->unit_count && s->units[id].base == NULL &&
                 s->units[id].prev == before,
             "unused units: the list leads astray");
    for (uint32_t id = 1; id < s->unit_count; id++) {
        const memkit__lru_unit *u = &s->units[id];
        if (u->base == NULL)
            unused--;
        else if (u->cls != s->big_class && u->used > 0 && u->used < u->chunks && u->era == s->era)
            roomy--;
    }
    MUST(roomy == 0, "class: a slab with room is not listed");
    MUST(unused == 0, "units: an unused one is not listed");
    return NULL;
}

static const char *check_classes(const memkit__lru_shard *s)
{
    for (uint32_t cls = 0; cls <= s->big_class; cls++) {
        uint32_t slabs = 0, chunks = 0, pinned = 0;
        for (uint32_t id = 1; id < s->unit_count; id++) {
            const memkit__lru_unit *u = &s->units[id];
            if (u->base == NULL || u->used == 0 || u->cls != cls)
                continue;
            slabs++;
            chunks += u->era == s->era ? u->chunks : 0;
            pinned += u->pinned;
        }
        MUST(pinned == s->classes[cls].pinned, "class: `pinned` is wrong");
        MUST(cls == s->big_class || slabs == s->classes[cls].slabs, "class: `slabs` is wrong");
        MUST(cls == s->big_class || chunks == s->classes[cls].chunks, "class: `chunks` is wrong");
    }
    return NULL;
}

static const char *check_memory(const memkit__lru_shard *s)
{
    sums sum = {0};
    size_t empty;
    const char *broken = check_lists(s, &empty);
    MUST(broken == NULL, broken);
    for (uint32_t id = 1; id < s->unit_count; id++) {
        const memkit__lru_unit *u = &s->units[id];
        if (u->base == NULL || (u->used == 0 && u->cls != s->big_class))
            continue;
        broken = u->cls == s->big_class ? check_big(s, id, &sum) : check_slab(s, id, &sum);
        MUST(broken == NULL, broken);
    }
    MUST(sum.listed == s->count + s->cleared_count, "memory: entries are lost or doubled");
    MUST(sum.pinned == s->pinned, "shard: `pinned` is wrong");
    MUST(sum.gone_pinned == s->gone_pinned, "shard: `gone_pinned` is wrong");
    MUST(sum.pinned_slabs == s->pinned_slabs, "shard: `pinned_slabs` is wrong");
    MUST(sum.pinned_big == s->pinned_big, "shard: `pinned_big` is wrong");
    for (uint32_t id = s->empty_slab; id != 0; id = s->units[id].next)
        sum.slab_bytes += memkit__lru_slab_cost(s->units[id].granules);
    MUST(sum.slabs + empty == s->slab_count, "shard: `slab_count` is wrong");
    MUST(sum.slab_bytes == s->slab_bytes && sum.pinned_slab_bytes == s->pinned_slab_bytes,
         "shard: `slab_bytes` or `pinned_slab_bytes` is wrong");
    MUST(sum.bigs == s->big_count && sum.big_bytes == s->big_bytes, "shard: big blocks are wrong");
    size_t bytes = s->cache->control_bytes + s->slab_bytes + s->big_bytes +
                   s->unit_room * sizeof *s->units + MEMKIT__LRU_MALLOC_BYTES +
                   memkit__lru_table_bytes(&s->index.now) + MEMKIT__LRU_MALLOC_BYTES;
    if (s->index.old.slots != NULL)
        bytes += memkit__lru_table_bytes(&s->index.old) + MEMKIT__LRU_MALLOC_BYTES;
    MUST(bytes == s->bytes, "shard: `bytes` is not the sum of its parts");
    return check_classes(s);
}

static const char *check_shard(const memkit__lru_shard *s)
{
    size_t slots = 0;
    const char *broken = check_table(&s->index.now, 0, &slots);
    if (broken == NULL && s->index.old.slots != NULL)
        broken = check_table(&s->index.old, s->index.moved, &slots);
    MUST(broken == NULL, broken);
    MUST(slots == s->count, "index: slots are not as many as entries");
    MUST(s->count <= s->max_entries, "shard: more entries than the bound");
    MUST(s->bytes <= s->max_bytes, "shard: more bytes than the bound");
    broken = check_list(s);
    if (broken == NULL)
        broken = check_cleared(s);
    return broken != NULL ? broken : check_memory(s);
}

const char *memkit__lru_check(memkit_lru *c)
{
    const char *broken = NULL;
    for (uint32_t i = 0; broken == NULL && i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_lock(s);
        broken = check_shard(s);
        memkit__lru_unlock(s);
    }
    return broken;
}
