/* pool_cache.c - the threads' caches: how a thread finds its own, how another gets hold of it, what
 * happens when a thread or a pool ends.
 *
 *     thread A: last_cache -> { pool 7, cache }        pool 7: caches -> cache(A) -> cache(B)
 *               caches_of  -> cache(7) -> cache(9)     pool 9: caches -> cache(A)
 *
 * Locks, in the order they are taken: the link lock (one a process: which threads and pools are
 * linked by a cache, so that neither ends while the other unlinks), then a pool's lock. A fork
 * takes them all (pool_fork.c).
 *
 * A cache's owner takes no lock on its fast path, and no fence: membarrier(2) lets the one who
 * wants the cache pay for both (the asymmetric Dekker of "biased" locks). Where the kernel has
 * none, or the owner does not leave its fast path, the cache is let be.
 */
#include <limits.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/track.h"

MEMKIT__TLS memkit__cache_entry memkit__last_cache;
static MEMKIT__TLS memkit__cache *caches_of_thread;
static MEMKIT__TLS unsigned exit_rounds; /* of key destructors that this thread went through */

static pthread_mutex_t link_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t exit_key;
static bool prepared, have_membarrier; /* set under the link lock */
static atomic_bool have_key;           /* until the library is unloaded, or the process ends */

static void unlink_cache(memkit__cache *c)
{
    *c->prev_in_pool = c->next_in_pool;
    if (c->next_in_pool != NULL)
        c->next_in_pool->prev_in_pool = c->prev_in_pool;
    *c->prev_in_thread = c->next_in_thread;
    if (c->next_in_thread != NULL)
        c->next_in_thread->prev_in_thread = c->prev_in_thread;
}

static void retire_counts(memkit_pool *p, memkit__cache *c)
{
    memkit__bump(&p->retired.gets, memkit__read(&c->counts.gets));
    memkit__bump(&p->retired.misses, memkit__read(&c->counts.misses));
    memkit__bump(&p->retired.puts, memkit__read(&c->counts.puts));
}

/* What a thread holds that is no more goes to the depot, where the next thread finds it. */
static void take_apart(memkit_pool *p, memkit__cache *c)
{
    for (unsigned i = 0; i < MEMKIT__CLASSES; i++)
        memkit__cache_spill(p, c, i, c->bins[i].count);
    memkit__unreserve(p, c->quota);
    memkit__calibrate(p, c);
    retire_counts(p, c);
}

static void thread_exit(void *unused)
{
    (void)unused;
    exit_rounds++;
    pthread_mutex_lock(&link_lock);
    memkit__cache *next;
    for (memkit__cache *c = caches_of_thread; c != NULL; c = next) {
        next = c->next_in_thread;
        memkit_pool *p = c->pool;
        pthread_mutex_lock(&p->lock);
        take_apart(p, c);
        unlink_cache(c);
        pthread_mutex_unlock(&p->lock);
        free(c);
    }
    caches_of_thread = NULL;
    memkit__last_cache = (memkit__cache_entry){0, NULL};
    pthread_mutex_unlock(&link_lock);
}

static bool register_membarrier(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void memkit__caches_prepare(void)
{
    pthread_mutex_lock(&link_lock);
    if (!prepared) {
        have_key = pthread_key_create(&exit_key, thread_exit) == 0;
        have_membarrier = register_membarrier();
        prepared = true;
    }
    pthread_mutex_unlock(&link_lock);
}

/* A plugin's own copy of the core may be unloaded before its threads end: no destructor then. */
__attribute__((destructor)) static void forget_key(void)
{
    if (atomic_exchange(&have_key, false))
        pthread_key_delete(exit_key);
}

static memkit__cache *make_cache(memkit_pool *p)
{
    /* Where no destructor will run, a thread's end would leave the cache behind: then rather none.
     * So it is in the last round of a thread's destructors, for those of other keys. */
    if (!have_key || exit_rounds >= PTHREAD_DESTRUCTOR_ITERATIONS - 1 ||
        pthread_setspecific(exit_key, &exit_key) != 0)
        return NULL;
    uint32_t epoch = memkit__takes_now();
    memkit__cache *c = aligned_alloc(64, (sizeof *c + 63) & ~(size_t)63);
    if (c == NULL)
        return NULL;
    memkit__own(c, epoch);
    *c = (memkit__cache){.countdown = 1, .pool = p};
    memkit__unordered(&c->busy, sizeof c->busy);
    memkit__unordered(&c->claimed, sizeof c->claimed);
    memkit__unordered(&c->last_look, sizeof c->last_look);
    memkit__unordered(&c->last_sweep, sizeof c->last_sweep);
    memkit__unordered(&c->held, sizeof c->held);
    memkit__unordered(&c->counts, sizeof c->counts);
    c->last_look = c->last_sweep = memkit__now_ms();
    pthread_mutex_lock(&link_lock);
    c->next_in_thread = caches_of_thread;
    c->prev_in_thread = &caches_of_thread;
    if (caches_of_thread != NULL)
        caches_of_thread->prev_in_thread = &c->next_in_thread;
    caches_of_thread = c;
    pthread_mutex_lock(&p->lock);
    c->next_in_pool = p->caches;
    c->prev_in_pool = &p->caches;
    if (p->caches != NULL)
        p->caches->prev_in_pool = &c->next_in_pool;
    p->caches = c;
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&link_lock);
    return c;
}

memkit__cache *memkit__cache_find(memkit_pool *p)
{
    memkit__cache *c;
    pthread_mutex_lock(&link_lock); /* a pool that ends unlinks its caches from this list */
    for (c = caches_of_thread; c != NULL && c->pool != p; c = c->next_in_thread)
        ;
    pthread_mutex_unlock(&link_lock);
    if (c == NULL)
        c = make_cache(p);
    if (c != NULL)
        memkit__last_cache = (memkit__cache_entry){p->id, c};
    return c;
}

void memkit__links_hold(void)
{
    pthread_mutex_lock(&link_lock);
}

void memkit__links_let_go(bool in_child)
{
    if (in_child && have_membarrier)
        have_membarrier =
            register_membarrier(); /* for this process; it has no thread to wait for */
    pthread_mutex_unlock(&link_lock);
}

static bool is_mine(const memkit__cache *c)
{
    const memkit__cache *mine = caches_of_thread;
    while (mine != NULL && mine != c)
        mine = mine->next_in_thread;
    return mine != NULL;
}

/* A cache that was caught at work: its figures are right but for the step that was under way, its
 * lists may not be. */
static void abandon(memkit_pool *p, memkit__cache *c)
{
    memkit__unreserve(p, c->quota);
    p->block_bytes -= memkit__read(&c->held);
    retire_counts(p, c);
}

/* Every block is waiting or out; those that are neither were in caches that were abandoned. */
static void count_lost(memkit_pool *p)
{
    size_t blocks = p->depot_buffers;
    uint64_t live = memkit__read(&p->retired.gets) - memkit__read(&p->retired.puts);
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool) {
        live += memkit__read(&c->counts.gets) - memkit__read(&c->counts.puts);
        for (unsigned i = 0; i < MEMKIT__CLASSES; i++)
            blocks += c->bins[i].count;
    }
    blocks += (size_t)live;
    p->lost_headers += p->blocks - blocks;
    p->blocks = blocks;
}

void memkit__caches_orphaned(memkit_pool *p)
{
    bool all = true;
    memkit__cache *next;
    for (memkit__cache *c = p->caches; c != NULL; c = next) {
        next = c->next_in_pool;
        if (is_mine(c)) {
            c->countdown = 1; /* to look soon: nobody else does, any more */
            continue;
        }
        bool whole = memkit__cache_owned(c, NULL);
        if (whole)
            take_apart(p, c);
        else
            abandon(p, c);
        all = all && whole;
        /* Not out of its thread's list, which was that thread's memory. */
        *c->prev_in_pool = next;
        if (next != NULL)
            next->prev_in_pool = c->prev_in_pool;
        free(c);
    }
    if (!all)
        count_lost(p);
}

bool memkit__cache_owned(const memkit__cache *c, const memkit__cache *own)
{
    return c == own || atomic_load_explicit(&c->claimed, memory_order_relaxed) != 0;
}

static bool left_fast_path(memkit__cache *c)
{
    for (int i = 0; i < 10000; i++) {
        if (atomic_load_explicit(&c->busy, memory_order_acquire) == 0) {
            memkit__after(&c->busy);
            return true;
        }
        if (i > 100)
            sched_yield();
    }
    return false;
}

void memkit__caches_claim(memkit_pool *p, memkit__cache *own)
{
    if (!have_membarrier)
        return;
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool)
        if (c != own)
            atomic_store_explicit(&c->claimed, 1, memory_order_relaxed);
    bool seen = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool)
        if (c != own && (!seen || !left_fast_path(c)))
            atomic_store_explicit(&c->claimed, 0, memory_order_release);
}

void memkit__caches_unclaim(memkit_pool *p, memkit__cache *own)
{
    for (memkit__cache *c = p->caches; c != NULL; c = c->next_in_pool) {
        if (c == own)
            continue;
        memkit__before(&c->claimed);
        atomic_store_explicit(&c->claimed, 0, memory_order_release);
    }
}

void memkit__caches_free(memkit_pool *p)
{
    /* Both locks: a thread that ends at this moment is taking its own cache apart. */
    pthread_mutex_lock(&link_lock);
    pthread_mutex_lock(&p->lock);
    while (p->caches != NULL) {
        memkit__cache *c = p->caches;
        for (unsigned i = 0; i < MEMKIT__CLASSES; i++)
            memkit__cache_drop(p, c, i, c->bins[i].count);
        unlink_cache(c);
        free(c);
    }
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&link_lock);
}
