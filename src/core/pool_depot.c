/* pool_depot.c - what lies behind the threads' caches: headers, depot, the bound, idleness,
 * calibration. Everything here runs with the pool's lock held; the drawing is in pool.c.
 *
 * A depot bin is a list in the order of arrival: get takes the most recent, which is warm; idleness
 * and the bound take the oldest. Headers are never freed while the pool lives, so that a second put
 * of a buffer always finds a state to look at; 104 bytes for each buffer that was ever out at once.
 */
#include <stdlib.h>
#include <time.h>

#include "core/buf.h"
#include "core/pool.h"

enum {
    CALIBRATE_EVERY = 1024, /* uses between two choices of the calibrated size */
    FILLED = 64 << 10       /* bytes in the depot from which each call looks at the clock */
};

uint64_t memkit__now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- headers ---- */

memkit_buf *memkit__header_new(memkit_pool *p)
{
    if (p->free_headers == NULL) {
        uint32_t epoch = memkit__takes_now();
        memkit__headers *slab = calloc(1, sizeof *slab);
        if (slab == NULL)
            return NULL;
        memkit__own(slab, epoch);
        slab->next = p->headers;
        p->headers = slab;
        for (size_t i = sizeof slab->buffers / sizeof slab->buffers[0]; i-- > 0;) {
            slab->buffers[i].pool = p;
            memkit__header_free(p, &slab->buffers[i]);
        }
    }
    memkit_buf *b = p->free_headers;
    p->free_headers = b->next;
    return b;
}

void memkit__header_free(memkit_pool *p, memkit_buf *b)
{
    b->state = memkit__buf_state(b, MEMKIT__BUF_HELD);
    b->data = b->empty;
    b->len = b->cap = b->held_cap = 0;
    b->next = p->free_headers;
    p->free_headers = b;
}

void memkit__buffer_drop(memkit_pool *p, memkit_buf *b)
{
    p->blocks--;
    p->block_bytes -= b->held_cap + 1;
    free(b->data);
    memkit__header_free(p, b);
}

/* ---- the bound ---- */

static size_t drop_oldest(memkit_pool *p);

size_t memkit__reserve(memkit_pool *p, size_t need, size_t want)
{
    if (need > p->max_held)
        return 0;
    while (p->max_held - p->reserved < need)
        if (drop_oldest(p) == 0)
            return 0;
    size_t left = p->max_held - p->reserved;
    size_t got = want < left ? want : left;
    p->reserved += got;
    if (p->reserved > p->peak_reserved)
        p->peak_reserved = p->reserved;
    return got;
}

void memkit__unreserve(memkit_pool *p, size_t bytes)
{
    p->reserved -= bytes;
}

size_t memkit__held_bytes(memkit_pool *p)
{
    size_t held = p->depot_bytes;
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool)
        held += memkit__read(&c->held);
    return held;
}

/* ---- the depot ---- */

static void depot_changed(memkit_pool *p)
{
    atomic_store_explicit(&p->depot_filled, p->depot_bytes > FILLED, memory_order_relaxed);
}

void memkit__depot_push(memkit_pool *p, memkit_buf *b, uint64_t now)
{
    memkit__depot_bin *bin = &p->depot[b->class_index];
    b->held_since = now;
    b->prev = NULL;
    b->next = bin->first;
    if (bin->first != NULL)
        bin->first->prev = b;
    else
        bin->last = b;
    bin->first = b;
    bin->count++;
    p->depot_bytes += b->held_cap + 1;
    p->depot_buffers++;
    if (p->depot_buffers == 1)
        atomic_store_explicit(&p->depot_due, now + p->idle_ms, memory_order_relaxed);
    depot_changed(p);
}

static void depot_unlink(memkit_pool *p, memkit_buf *b)
{
    memkit__depot_bin *bin = &p->depot[b->class_index];
    if (b->prev != NULL)
        b->prev->next = b->next;
    else
        bin->first = b->next;
    if (b->next != NULL)
        b->next->prev = b->prev;
    else
        bin->last = b->prev;
    bin->count--;
    p->depot_bytes -= b->held_cap + 1;
    p->depot_buffers--;
    depot_changed(p);
}

memkit_buf *memkit__depot_pop(memkit_pool *p, unsigned class_index)
{
    memkit_buf *b = p->depot[class_index].first;
    if (b != NULL)
        depot_unlink(p, b);
    return b;
}

static size_t depot_drop(memkit_pool *p, memkit_buf *b)
{
    size_t bytes = b->held_cap + 1;
    depot_unlink(p, b);
    memkit__buffer_drop(p, b);
    memkit__unreserve(p, bytes);
    p->trimmed += bytes;
    return bytes;
}

static size_t drop_oldest(memkit_pool *p)
{
    memkit_buf *oldest = NULL;
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        memkit_buf *b = p->depot[i].last;
        if (b != NULL && (oldest == NULL || b->held_since < oldest->held_since))
            oldest = b;
    }
    return oldest != NULL ? depot_drop(p, oldest) : 0;
}

/* ---- caches ---- */

void memkit__cache_spill(memkit_pool *p, memkit__cache *c, unsigned class_index, uint32_t n)
{
    uint64_t now = memkit__now_ms();
    while (n-- > 0) {
        memkit_buf *b = memkit__bin_pop(c, class_index);
        c->quota -= b->held_cap + 1; /* goes with the buffer */
        memkit__depot_push(p, b, now);
    }
}

size_t memkit__cache_drop(memkit_pool *p, memkit__cache *c, unsigned class_index, uint32_t n)
{
    size_t dropped = 0;
    while (n-- > 0) {
        memkit_buf *b = memkit__bin_pop(c, class_index);
        size_t bytes = b->held_cap + 1;
        memkit__buffer_drop(p, b);
        dropped += bytes;
    }
    c->quota -= dropped;
    memkit__unreserve(p, dropped);
    p->trimmed += dropped;
    return dropped;
}

/* ---- idleness ---- */

static void sweep_depot(memkit_pool *p, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        memkit_buf *b;
        while ((b = p->depot[i].last) != NULL && now - b->held_since >= p->idle_ms)
            depot_drop(p, b);
        if (b != NULL && b->held_since + p->idle_ms < due)
            due = b->held_since + p->idle_ms;
    }
    atomic_store_explicit(&p->depot_due, due, memory_order_relaxed);
}

/* A bin's buffers have no time of their own, that would cost each put a clock. What the thread did
 * not touch since a sweep idle_ms ago, or while it made no call for idle_ms, was idle so long. */
static void sweep_cache(memkit_pool *p, memkit__cache *c, uint64_t now)
{
    bool stood_still = now - memkit__read(&c->last_look) >= p->idle_ms;
    atomic_store_explicit(&c->last_look, now, memory_order_relaxed);
    if (!stood_still && now - memkit__read(&c->last_sweep) < p->idle_ms)
        return;
    atomic_store_explicit(&c->last_sweep, now, memory_order_relaxed);
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        memkit__cache_drop(p, c, i, stood_still ? c->bins[i].count : c->bins[i].low);
        c->bins[i].low = c->bins[i].count;
    }
    size_t unused = c->quota - memkit__read(&c->held);
    c->quota -= unused;
    memkit__unreserve(p, unused);
}

void memkit__sweep(memkit_pool *p, memkit__cache *c, uint64_t now)
{
    sweep_depot(p, now);
    if (c != NULL)
        sweep_cache(p, c, now);
}

size_t memkit__shrink(memkit_pool *p, memkit__cache *own, size_t keep_bytes)
{
    size_t held = memkit__held_bytes(p), given_back = 0;
    while (held - given_back > keep_bytes) {
        size_t bytes = drop_oldest(p);
        if (bytes == 0)
            break;
        given_back += bytes;
    }
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool) {
        if (!memkit__cache_owned(c, own))
            continue;
        for (unsigned i = MEMKIT__CLASSES; i-- > 0;)
            while (c->bins[i].count > 0 && held - given_back > keep_bytes)
                given_back += memkit__cache_drop(p, c, i, 1);
    }
    return given_back;
}

/* ---- calibration ---- */

void memkit__calibrate(memkit_pool *p, memkit__cache *c)
{
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++) {
        p->uses[i] += c->uses[i];
        c->uses[i] = 0;
    }
    p->uses_total += c->uses_total;
    c->uses_total = 0;
    if (p->uses_total < CALIBRATE_EVERY / 4)
        return;
    uint64_t below = 0, wanted = p->uses_total - p->uses_total / 20; /* 95 % */
    unsigned chosen = 0;
    for (; chosen < p->max_class; chosen++)
        if ((below += p->uses[chosen]) >= wanted)
            break;
    atomic_store_explicit(&p->calibrated_class, chosen, memory_order_relaxed);
    if (p->uses_total < CALIBRATE_EVERY)
        return;
    /* What came before counts half from now on: a load that changes is followed in a few thousand
     * uses, and one giant message is one use in a thousand. */
    p->uses_total = 0;
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++)
        p->uses_total += p->uses[i] /= 2;
}
