/* lru_admin.c - the calls that look at the cache as a whole: resize, clear, each, stats.
 *
 * Resize: first every shard says whether the new bounds can hold, and allocates the smaller index
 * it may need; only then does any shard change. Resizes are one at a time (resize_lock, which also
 * covers `resized`). Entries leave as in lru_evict.c, one a round where there is a callback.
 */
#include "core/lru.h"

enum { SPARE_ROUNDS = 64 };

static size_t index_bytes(const memkit__lru_shard *s)
{
    return memkit__lru_table_bytes(&s->index.now) + memkit__lru_table_bytes(&s->index.old);
}

/* 0, or why the shard cannot take the bounds. */
static int prepare(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    size_t pinned = s->pinned - s->gone_pinned;
    if (pinned > entries)
        return EBUSY;
    if (bytes == SIZE_MAX)
        return 0;
    size_t least = s->bytes - s->slab_bytes - s->big_bytes - memkit__lru_units_excess(s) +
                   s->pinned_slab_bytes + s->pinned_big;
    /* An index that weighs more than a quarter of the new bound is made anew. */
    size_t room = memkit__lru_wanted_index(s->cache, entries, bytes);
    if (room < pinned)
        room = pinned;
    size_t smaller = memkit__lru_table_bytes_for(room);
    if (index_bytes(s) > bytes / 4 && smaller < index_bytes(s)) {
        if (memkit__lru_table_init(&s->resized, room) != 0)
            return ENOMEM;
        least = least - index_bytes(s) + smaller;
    }
    return least <= bytes ? 0 : EBUSY;
}

static size_t weight(const memkit__lru_shard *s)
{
    if (s->resized.slots == NULL)
        return s->bytes;
    return s->bytes - index_bytes(s) + memkit__lru_table_bytes(&s->resized);
}

static bool is_over(memkit__lru_shard *s)
{
    if (s->count > s->max_entries)
        return true;
    if (s->resized.slots != NULL && s->count > memkit__lru_table_room(&s->resized))
        return true;
    if (weight(s) > s->max_bytes) {
        memkit__lru_give_back(s, 0);
        memkit__lru_units_trim(s);
    }
    return weight(s) > s->max_bytes;
}

/* Puts the smaller index in the place of the one there is. */
static void exchange_index(memkit__lru_shard *s, memkit__lru_leavers *leavers)
{
    s->bytes =
        weight(s) - (s->index.old.slots != NULL ? (size_t)MEMKIT__LRU_MALLOC_BYTES : (size_t)0);
    memkit__lru_table_free(&s->index.now);
    memkit__lru_table_free(&s->index.old);
    s->index = (memkit__lru_index){.now = s->resized};
    s->resized = (memkit__lru_table){NULL, 0, 0};
    for (uint32_t handle = s->ends.next; handle != 0;) {
        const memkit__lru_entry *e = memkit__lru_at(s, handle);
        uint32_t next = e->next;
        if (!memkit__lru_index_insert(&s->index, e->tag, handle))
            memkit__lru_leave_list(s, handle, MEMKIT_LRU_RESIZED, leavers);
        handle = next;
    }
}

static void apply(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    memkit__lru_leavers leavers = {0, 0, NULL};
    memkit__lru_lock(s);
    s->max_entries = entries;
    s->max_bytes = bytes;
    memkit__lru_set_slab_granules(
        s, memkit__lru_slab_granules(memkit__lru_slab_bytes_for(s->cache, entries, bytes)));
    for (size_t rounds = s->count + SPARE_ROUNDS; is_over(s) && s->count > 0 && rounds > 0;
         rounds--) {
        memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_RESIZED, &leavers);
        if (leavers.first != 0) {
            memkit__lru_unlock(s);
            memkit__lru_tell(s, &leavers);
            memkit__lru_lock(s);
            memkit__lru_let_go(s, &leavers);
        }
    }
    if (s->resized.slots != NULL)
        exchange_index(s, &leavers);
    memkit__lru_unlock(s);
    memkit__lru_part(s, &leavers);
}

static int resize(memkit_lru *c, size_t max_entries, size_t max_bytes)
{
    size_t entries, bytes;
    if (!memkit__lru_shares(c, max_entries, max_bytes, &entries, &bytes))
        return EINVAL;
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_lock(s);
        int error = prepare(s, entries, bytes);
        memkit__lru_unlock(s);
        if (error != 0) {
            for (uint32_t j = 0; j <= i; j++)
                memkit__lru_table_free(&memkit__lru_shard_at(c, j)->resized);
            return error;
        }
    }
    for (uint32_t i = 0; i < c->shard_count; i++)
        apply(memkit__lru_shard_at(c, i), entries, bytes);
    c->max_entries = max_entries;
    c->max_bytes = max_bytes;
    return 0;
}

int memkit_lru_resize(memkit_lru *c, size_t max_entries, size_t max_bytes)
{
    if (c == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (c->locked)
        pthread_mutex_lock(&c->resize_lock);
    int error = resize(c, max_entries, max_bytes);
    if (c->locked)
        pthread_mutex_unlock(&c->resize_lock);
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

/* An index that grew for many small entries would leave no room for large ones. The shard is empty.
 */
static void shrink_index(memkit__lru_shard *s)
{
    size_t room = memkit__lru_wanted_index(s->cache, s->max_entries, s->max_bytes);
    memkit__lru_table table;
    if (memkit__lru_table_bytes_for(room) >= memkit__lru_table_bytes(&s->index.now) ||
        memkit__lru_table_init(&table, room) != 0)
        return;
    s->bytes -= memkit__lru_table_bytes(&s->index.now) - memkit__lru_table_bytes(&table);
    memkit__lru_table_free(&s->index.now);
    s->index.now = table;
}

void memkit_lru_clear(memkit_lru *c)
{
    if (c == NULL) {
        errno = EINVAL;
        return;
    }
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_leavers leavers = {0, 0, NULL};
        memkit__lru_lock(s);
        size_t freed = memkit__lru_index_clear(&s->index);
        if (freed != 0)
            s->bytes -= freed + MEMKIT__LRU_MALLOC_BYTES;
        while (s->count > 0)
            memkit__lru_leave_list(s, s->ends.prev, MEMKIT_LRU_CLEARED, &leavers);
        shrink_index(s);
        memkit__lru_unlock(s);
        memkit__lru_part(s, &leavers);
    }
}

int memkit_lru_each(memkit_lru *c, memkit_lru_each_fn fn, void *arg)
{
    if (c == NULL || fn == NULL) {
        errno = EINVAL;
        return -1;
    }
    uint64_t now = memkit__lru_now(c);
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_lock(s);
        for (uint32_t handle = s->ends.next; handle != 0 && result == 0;) {
            const memkit__lru_entry *e = memkit__lru_at(s, handle);
            if (!s->has_ttl || memkit__lru_expiry(e) > now)
                result = fn(arg, memkit__lru_key(e), memkit__lru_klen(e), memkit__lru_value(e),
                            memkit__lru_vlen(e));
            handle = e->next;
        }
        memkit__lru_unlock(s);
    }
    return result;
}

static uint64_t pinned_bytes(const memkit__lru_shard *s)
{
    uint64_t sum = s->pinned_big;
    for (uint32_t i = 0; i < s->big_class; i++)
        sum += (uint64_t)s->classes[i].pinned * s->cache->geo.size[i] * MEMKIT__LRU_GRANULE;
    return sum;
}

void memkit_lru_stats(memkit_lru *c, memkit_lru_stats_t *out)
{
    if (c == NULL || out == NULL) {
        errno = EINVAL;
        return;
    }
    *out = (memkit_lru_stats_t){0};
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_lock(s);
        out->entries += s->count;
        out->bytes += s->bytes;
        out->pinned_bytes += pinned_bytes(s);
        out->hits += s->hits;
        out->misses += s->misses;
        out->sets += s->sets;
        out->evictions += s->evictions;
        out->expirations += s->expirations;
        memkit__lru_unlock(s);
    }
    out->max_entries = c->max_entries;
    out->max_bytes = c->max_bytes;
}
