/* pool_check.c - the invariants of pool.c, walked in full. For tests: no call may be under way. */
#include "core/buf.h"
#include "core/pool.h"

typedef struct {
    size_t bytes, buffers;
} sum;

static const char *check_buffer(const memkit_pool *p, const memkit_buf *b, unsigned class_index)
{
    if (b->pool != p || b->state != memkit__buf_state(b, MEMKIT__BUF_HELD))
        return "a waiting buffer is not marked so";
    if (b->class_index != class_index || b->held_cap + 1 != memkit__class_bytes(class_index))
        return "a buffer waits in the wrong class";
    return NULL;
}

static const char *check_cache(const memkit_pool *p, memkit__cache *c, sum *total)
{
    sum mine = {0, 0};
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        uint32_t count = 0;
        for (memkit_buf *b = c->bins[i].first; b != NULL; b = b->next, count++) {
            const char *broken = check_buffer(p, b, i);
            if (broken != NULL)
                return broken;
        }
        if (count != c->bins[i].count)
            return "a bin's count is not its list's";
        if (c->bins[i].low > count)
            return "a bin's low watermark is above its count";
        mine.buffers += count;
        mine.bytes += count * memkit__class_bytes(i);
    }
    if (mine.bytes != memkit__read(&c->held))
        return "a cache's held bytes are not its bins'";
    if (mine.bytes > c->quota || c->quota > p->max_thread)
        return "a cache holds more than its quota, or its quota is above max_thread_bytes";
    total->bytes += c->quota;
    total->buffers += mine.buffers;
    return NULL;
}

static const char *check_depot(const memkit_pool *p, sum *total)
{
    sum mine = {0, 0};
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        const memkit_buf *prev = NULL;
        size_t count = 0;
        for (const memkit_buf *b = p->depot[i].first; b != NULL; prev = b, b = b->next, count++) {
            const char *broken = check_buffer(p, b, i);
            if (broken != NULL)
                return broken;
            if (b->prev != prev)
                return "a depot list is broken backwards";
            if (prev != NULL && prev->held_since < b->held_since)
                return "a depot list is not in order of age";
        }
        if (p->depot[i].last != prev || p->depot[i].count != count)
            return "a depot bin's end or count is wrong";
        mine.buffers += count;
        mine.bytes += count * memkit__class_bytes(i);
    }
    if (mine.bytes != p->depot_bytes || mine.buffers != p->depot_buffers)
        return "the depot's bytes are not its lists'";
    total->bytes += mine.bytes;
    total->buffers += mine.buffers;
    return NULL;
}

static size_t headers_in_all(const memkit_pool *p)
{
    size_t n = 0;
    for (const memkit__headers *slab = p->headers; slab != NULL; slab = slab->next)
        n += sizeof slab->buffers / sizeof slab->buffers[0];
    return n;
}

const char *memkit__pool_check(memkit_pool *p)
{
    sum total = {0, 0};
    const char *broken = check_depot(p, &total);
    for (memkit__cache *c = p->caches; c != NULL && broken == NULL; c = c->next_in_pool)
        broken = check_cache(p, c, &total);
    if (broken != NULL)
        return broken;
    if (total.bytes != p->reserved || p->reserved > p->max_held)
        return "reserved is not depot + quotas, or above max_held_bytes";
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    if (total.buffers != s.held_buffers || p->blocks != s.held_buffers + s.live_buffers)
        return "blocks there are is not those out and those waiting";
    size_t free_headers = 0;
    for (const memkit_buf *b = p->free_headers; b != NULL; b = b->next)
        free_headers++;
    if (free_headers + total.buffers + s.live_buffers + p->lost_headers != headers_in_all(p))
        return "a header is neither out, nor waiting, nor free, nor lost in a fork";
    return NULL;
}
