/* pool_fork.c - pools over a fork (fork.h): every lock, and every thread's cache claimed, so that
 * no bin is copied half changed. A cache is the one thing that changes without a lock, and a fork
 * does not copy memory at one moment.
 *
 * In the child the forking thread's own caches are as they were. Those of the other threads go to
 * the depot, as if those threads had ended. One that could not be claimed - the kernel has no
 * membarrier(2), or its owner did not get out of its fast path, which is some 30 instructions - is
 * dropped: what it holds, at most max_thread_bytes, is lost to the child, and no longer counted.
 * Buffers that other threads had out stay out.
 */
#include "core/pool.h"

static void hold(void *unused, const memkit__node *node)
{
    (void)unused;
    memkit_pool *p = node->object;
    pthread_mutex_lock(&p->lock);
    memkit__caches_claim(p, NULL);
}

static void let_go(void *in_child, const memkit__node *node)
{
    memkit_pool *p = node->object;
    if (*(bool *)in_child) {
        memkit__caches_orphaned(p);
        if (p->has_sweeper && !p->stopping) {
            p->has_sweeper = false;
            atomic_store(&p->sweeper_lost, true);
        }
    }
    memkit__caches_unclaim(p, NULL);
    pthread_mutex_unlock(&p->lock);
}

static void hold_all(void)
{
    memkit__links_hold();
    memkit__each_held(MEMKIT__POOL, hold, NULL);
}

static void let_go_all(bool in_child)
{
    memkit__each_held(MEMKIT__POOL, let_go, &in_child);
    memkit__links_let_go(in_child);
}

const memkit__fork_ops memkit__pool_fork = {hold_all, let_go_all};
