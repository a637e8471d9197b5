/* lru_admin.c - the calls that look at the cache as a whole: each, stats. Each shard is locked
 * while it is looked at, one after the other.
 */
#include "core/lru_track.h"

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
        memkit__open_set(&s->open); /* the walk changes nothing */
        for (uint32_t handle = s->ends.next; handle != 0 && result == 0;) {
            const memkit__lru_entry *e = memkit__lru_at(s, handle);
            if (!s->has_ttl || memkit__lru_expiry(e) > now) {
                memkit__lru_show_value(e);
                result = fn(arg, memkit__lru_key(e), memkit__lru_klen(e), memkit__lru_value(e),
                            memkit__lru_vlen(e));
                memkit__lru_looked(e);
            }
            handle = e->next;
        }
        memkit__open_clear(&s->open);
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
