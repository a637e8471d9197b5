/* lru_fork.c - caches over a fork (fork.h): each shard's lock, so that no shard is copied half
 * changed.
 *
 * A child goes on with the entries as they were. What only another thread would have done is not
 * done there: its references stay out, its callbacks are not called, and what they hold stays held.
 */
#include "core/lru.h"

static void hold(void *unused, const memkit__node *node)
{
    (void)unused;
    memkit_lru *c = node->object;
    memkit__fork_lock(&c->resize_lock, &c->resize_open);
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__fork_lock(&s->mutex, &s->open);
    }
}

/* In a child: the resize of a thread that is no more. What it allocated beforehand may be half
 * made, and is lost; each shard's bounds are the larger of those before and those it came to, which
 * hold all there is. */
static void end_resize(memkit_lru *c)
{
    pthread_mutex_init(&c->resize_lock, NULL);
    c->resizer = 0;
    size_t entries = 0, bytes = 0;
    memkit__lru_shares(c, c->max_entries, c->max_bytes, &entries, &bytes);
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        s->resized = (memkit__lru_table){NULL, 0, 0};
        s->resizing = s->sinking = false;
        if (s->max_entries < entries)
            s->max_entries = entries;
        if (s->max_bytes < bytes)
            s->max_bytes = bytes;
    }
}

static void let_go(void *in_child, const memkit__node *node)
{
    memkit_lru *c = node->object;
    bool child = *(bool *)in_child;
    if (memkit__fork_unlock(&c->resize_lock, &c->resize_open, child))
        end_resize(c);
    for (uint32_t i = c->shard_count; i-- > 0;) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        if (memkit__fork_unlock(&s->mutex, &s->open, child))
            memkit__lru_mutex_init(&s->mutex);
    }
}

static void hold_all(void)
{
    memkit__each_held(MEMKIT__LRU, hold, NULL);
}

static void let_go_all(bool in_child)
{
    memkit__each_held(MEMKIT__LRU, let_go, &in_child);
}

const memkit__fork_ops memkit__lru_fork = {hold_all, let_go_all};
