/* pool_life.c - making and ending a pool, trimming it, reading its figures.
 *
 * All of it is rare and runs with the pool's lock held; the drawing is in pool.c, the locks in
 * pool_cache.c.
 */
#include <memkit/pool.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "core/metrics.h"
#include "core/pool.h"
#include "core/track.h"

enum {
    DEFAULT_HELD = 64 << 20,
    DEFAULT_BUF = 1 << 20,
    DEFAULT_THREAD = 1 << 20,
    DEFAULT_IDLE_MS = 1000,
    FIRST_CALIBRATED = 1024, /* block bytes, before anything is known */
};

static const struct memkit__pool_ops own_ops;

/* ---- trim, stats ---- */

static size_t trim(memkit_pool *p, size_t keep_bytes)
{
    memkit__cache *own = memkit__cache_last(p);
    pthread_mutex_lock(&p->lock);
    uint64_t trimmed = p->trimmed;
    memkit__caches_claim(p, own);
    uint64_t now = memkit__now_ms();
    memkit__sweep(p, own, now);
    memkit__shrink(p, own, keep_bytes);
    memkit__caches_unclaim(p, own);
    trimmed = p->trimmed - trimmed;
    pthread_mutex_unlock(&p->lock);
    return (size_t)trimmed;
}

size_t memkit_pool_trim(memkit_pool *p, size_t keep_bytes)
{
    if (p == NULL) {
        errno = EINVAL;
        return 0;
    }
    return p->ops->trim(p, keep_bytes);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void stats(memkit_pool *p, memkit_pool_stats_t *out)
{
    *out = (memkit_pool_stats_t){0};
    pthread_mutex_lock(&p->lock);
    out->gets = memkit__read(&p->retired.gets);
    out->misses = memkit__read(&p->retired.misses);
    out->puts = memkit__read(&p->retired.puts);
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool) {
        out->puts += memkit__read(&c->counts.puts);
        out->gets += memkit__read(&c->counts.gets);
        out->misses += memkit__read(&c->counts.misses);
    }
    out->held_bytes = memkit__held_bytes(p);
    size_t blocks = p->blocks, block_bytes = p->block_bytes;
    out->peak_held_bytes = p->peak_reserved;
    out->trimmed_bytes = p->trimmed;
    out->calibrated_size = memkit__class_bytes(p->calibrated_class) - 1;
    pthread_mutex_unlock(&p->lock);
    /* Threads went on working while their figures were read one by one: nothing below zero. */
    out->hits = less(out->gets, out->misses);
    out->live_buffers = less(out->gets, out->puts);
    out->live_bytes = less(block_bytes, out->held_bytes);
    out->held_buffers = less(blocks, out->live_buffers);
}

void memkit_pool_stats(memkit_pool *p, memkit_pool_stats_t *out)
{
    if (p == NULL || out == NULL) {
        errno = EINVAL;
        return;
    }
    p->ops->stats(p, out);
}

/* ---- life ---- */

static _Atomic(memkit_pool *) default_pool;

/* opts.background: gives back what is idle also when nobody calls. */
static void *sweeper_main(void *arg)
{
    memkit_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + (p->idle_ms % 1000) * 1000000u;
        until.tv_sec += (time_t)(p->idle_ms / 1000 + ns / 1000000000u);
        until.tv_nsec = (long)(ns % 1000000000u);
        pthread_cond_timedwait(&p->sweeper_wakes, &p->lock, &until);
        memkit__caches_claim(p, NULL);
        uint64_t now = memkit__now_ms();
        memkit__sweep(p, NULL, now);
        for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool)
            if (memkit__cache_owned(c, NULL))
                memkit__sweep(p, c, now);
        memkit__caches_unclaim(p, NULL);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int start_sweeper(memkit_pool *p)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->sweeper_wakes, &attr);
    pthread_condattr_destroy(&attr);
    int error = pthread_create(&p->sweeper, NULL, sweeper_main, p);
    p->has_sweeper = error == 0;
    return error;
}

void memkit__sweeper_restart(memkit_pool *p)
{
    pthread_mutex_lock(&p->lock);
    /* Where no thread can be had, calls go on giving back what is idle, and ask again. */
    if (atomic_load(&p->sweeper_lost) && start_sweeper(p) == 0)
        atomic_store(&p->sweeper_lost, false);
    pthread_mutex_unlock(&p->lock);
}

static bool options_ok(const memkit_pool_opts *opts)
{
    return MEMKIT__RESERVED_OK(opts) && opts->background <= 1 &&
           opts->max_buf_bytes <= MEMKIT__MAX_CLASS_BYTES && opts->max_held_bytes <= PTRDIFF_MAX &&
           opts->max_thread_bytes <= PTRDIFF_MAX;
}

/* The class whose blocks a bound still allows. */
static unsigned largest_class_within(size_t bytes)
{
    if (bytes < 64)
        return 0;
    unsigned class_index = memkit__class_of(bytes);
    return memkit__class_bytes(class_index) > bytes ? class_index - 1 : class_index;
}

static void set_options(memkit_pool *p, const memkit_pool_opts *opts)
{
    size_t max_buf = opts->max_buf_bytes != 0 ? opts->max_buf_bytes : DEFAULT_BUF;
    p->max_held = opts->max_held_bytes != 0 ? opts->max_held_bytes : DEFAULT_HELD;
    p->max_thread = opts->max_thread_bytes != 0 ? opts->max_thread_bytes : DEFAULT_THREAD;
    p->max_class = largest_class_within(max_buf);
    p->idle_ms = opts->idle_ms != 0 ? opts->idle_ms : DEFAULT_IDLE_MS;
    unsigned calibrated = memkit__class_of(FIRST_CALIBRATED);
    p->calibrated_class = calibrated < p->max_class ? calibrated : p->max_class;
}

/* Starts at a place that another copy of the core does not start at. */
static uint64_t next_id(void)
{
    static _Atomic uint64_t count;
    return ((uint64_t)(uintptr_t)&count << 20) + atomic_fetch_add(&count, 1) + 1;
}

static void destroy(memkit_pool *p)
{
    memkit__group_end(p);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void row(const memkit__node *node, uint64_t *live_bytes, uint64_t *held_bytes)
{
    memkit_pool_stats_t s;
    stats(node->object, &s);
    *live_bytes = s.live_bytes;
    *held_bytes = s.held_bytes;
}

memkit_pool *memkit_pool_new(const memkit_pool_opts *opts)
{
    static const memkit_pool_opts defaults;
    if (opts == NULL)
        opts = &defaults;
    if (!options_ok(opts)) {
        errno = EINVAL;
        return NULL;
    }
    if (memkit__fork_ready(MEMKIT__POOL, &memkit__pool_fork) != 0)
        return NULL;
    memkit__caches_prepare();
    const char *name = opts->name != NULL ? opts->name : "pool";
    size_t bytes = (sizeof(memkit_pool) + strlen(name) + 1 + 63) & ~(size_t)63;
    memkit_pool *p = aligned_alloc(64, bytes);
    if (p == NULL)
        return NULL;
    memset(p, 0, bytes);
    memcpy(p->name, name, strlen(name) + 1);
    p->ops = &own_ops;
    p->id = next_id();
    p->depot_due = UINT64_MAX;
    set_options(p, opts);
    pthread_mutex_init(&p->lock, NULL);
    memkit__group_new(p);
    memkit__unordered(&p->calibrated_class, sizeof p->calibrated_class);
    memkit__unordered(&p->depot_filled, sizeof p->depot_filled);
    memkit__unordered(&p->depot_due, sizeof p->depot_due);
    memkit__unordered(&p->others_swept, sizeof p->others_swept);
    memkit__unordered(&p->sweeper_lost, sizeof p->sweeper_lost);
    int error = opts->background ? start_sweeper(p) : 0;
    if (error != 0) {
        destroy(p);
        errno = error;
        return NULL;
    }
    p->node.object = p;
    p->node.row = row;
    p->node.families = &memkit__pool_families;
    p->node.name = p->name;
    memkit__register(MEMKIT__POOL, &p->node);
    return p;
}

static void stop_sweeper(memkit_pool *p)
{
    if (!p->has_sweeper)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_signal(&p->sweeper_wakes);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->sweeper, NULL);
    pthread_cond_destroy(&p->sweeper_wakes);
}

static void free_held(memkit_pool *p)
{
    memkit__shrink(p, NULL, 0);
    while (p->headers != NULL) {
        memkit__headers *slab = p->headers;
        p->headers = slab->next;
        free(slab);
    }
}

static void pool_free(memkit_pool *p)
{
    memkit_pool_stats_t now;
    stats(p, &now);
    bool is_default = p == atomic_load(&default_pool);
    if (now.live_buffers != 0 || is_default) {
        memkit__fault(is_default ? "memkit_pool_free: \"%s\" is the default pool"
                                 : "memkit_pool_free: buffers of pool \"%s\" are still out",
                      p->name);
        return;
    }
    stop_sweeper(p);
    memkit__caches_free(p);
    /* Only now, so that a fork never finds a cache linked whose pool it does not hold. */
    memkit__unregister(MEMKIT__POOL, &p->node);
    free_held(p);
    destroy(p);
}

void memkit_pool_free(memkit_pool *p)
{
    if (p != NULL)
        p->ops->free(p);
}

/* No lock and no pthread_once, which a fork might leave taken, or begun, in the child. */
static memkit_pool *make_default(void)
{
    memkit_pool *mine = memkit_pool_new(&(memkit_pool_opts){.name = "default"}), *first = NULL;
    if (mine == NULL || atomic_compare_exchange_strong(&default_pool, &first, mine))
        return mine;
    pool_free(mine); /* another thread was faster */
    return first;
}

memkit_pool *memkit_pool_default(void)
{
    memkit_pool *p = atomic_load_explicit(&default_pool, memory_order_acquire);
    return MEMKIT_LIKELY(p != NULL) ? p : make_default();
}

static const struct memkit__pool_ops own_ops = {memkit__pool_get, memkit__pool_put, trim, stats,
                                                pool_free};
