/* pool_takes.c - pooled buffers in the profile (takes.h): a buffer's block is charged to whoever
 * got it, until it is put.
 *
 *     state:  LIVE --sampled--> CHARGED --put--> HELD         held_since: the token, while CHARGED
 *
 * A charged buffer has a state of its own, so that the fast path of a put, which looks for LIVE,
 * leaves it to the slow one and need not ask. `stocked` is of the block: malloc gave it while takes
 * were wanted. Locking: a cache's countdown is its thread's, the pool's is under its lock.
 */
#include "core/buf.h"
#include "core/pool.h"

static bool is_charged(const memkit_buf *b)
{
    return b->state == memkit__buf_state(b, MEMKIT__BUF_CHARGED);
}

static void set_token(memkit_buf *b, uint64_t token)
{
    b->held_since = token;
    b->state = memkit__buf_state(b, token != 0 ? MEMKIT__BUF_CHARGED : MEMKIT__BUF_LIVE);
}

static void charge(memkit__countdown *c, memkit_buf *b, const memkit__taking *t)
{
    if (memkit__take_due(c, t->bytes - t->old_bytes))
        set_token(b, memkit__charge(c, *t));
}

memkit_buf *memkit__pool_charge(memkit_pool *p, memkit_buf *b, const void *from)
{
    const memkit__taking t = {.function = (const void *)(uintptr_t)memkit_pool_get,
                              .from = from,
                              .bytes = b->cap + 1,
                              .stocked = b->stocked != 0,
                              .whole = true};
    memkit__cache *c = memkit__cache_last(p);
    if (c != NULL) {
        charge(&c->takes, b, &t);
        return b;
    }
    pthread_mutex_lock(&p->lock);
    charge(&p->takes, b, &t);
    pthread_mutex_unlock(&p->lock);
    return b;
}

void memkit__pool_uncharge(memkit_buf *b)
{
    if (!is_charged(b))
        return;
    memkit__uncharge(b->held_since, b->cap + 1, 1, true);
    set_token(b, 0);
}

void memkit__pool_grown(memkit_pool *p, memkit_buf *b, size_t old, size_t block, uint32_t epoch)
{
    b->stocked = memkit__own(b->data, epoch);
    if (is_charged(b)) {
        if (b->stocked)
            set_token(b, memkit__recharge(b->held_since, old, block, true));
        else
            memkit__pool_uncharge(b);
    } else if (memkit__takes_wanted()) {
        /* By whoever made it grow: the stack that got it was not sampled. */
        charge(&p->takes, b,
               &(memkit__taking){
                   .bytes = block, .old_bytes = old, .stocked = b->stocked != 0, .whole = true});
    }
}
