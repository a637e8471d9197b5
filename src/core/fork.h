/* fork.h - what lets the child of a fork use everything at once, whatever other threads were doing.
 *
 * A fork copies the memory of all threads and one thread. So before it (pthread_atfork's prepare)
 * the forking thread takes every lock of the core and claims every thread's cache; then no other
 * thread is within anything of ours, and the copy is whole. After it both processes give all of
 * that back, and the child takes apart what threads that it has not got left behind.
 *
 * Order, which is the order of all locks of the core: gate (fork.c), attach's, the registry's, then
 * a kind's objects in the order of memkit__kind: the pools' link lock and each pool's; each cache's
 * resize lock and shards.
 *
 * The forking thread never waits for the user's code: where that runs under a lock of ours (in
 * memkit_lru_each, in a resize's on_evict), the lock is marked open, and what it covers is whole. A
 * fork passes by such a lock; who closes it waits until the fork is over. So a fork may be made
 * from within the user's code, too, and with any lock of the user's held.
 *
 * vfork and posix_spawn run no handlers: their children share the memory and do not use it.
 */
#ifndef MEMKIT_CORE_FORK_H
#define MEMKIT_CORE_FORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/registry.h"

/* One kind of object. Both are called with the registry held; see memkit__each_held. */
typedef struct {
    void (*hold)(void);
    void (*let_go)(bool in_child);
} memkit__fork_ops;

/* From now on forks hold the objects of that kind (ops NULL: only the registry), too. For every
 * call that makes an object. 0, or -1 with ENOMEM. */
int memkit__fork_ready(memkit__kind kind, const memkit__fork_ops *ops);

/* Beside a lock under which the user's code may run: 0; or who does, plus 1 where a fork has passed
 * by. Set with the lock held; what the lock covers is whole, and stays as it is, until clear. */
typedef _Atomic uintptr_t memkit__open;

void memkit__open_set(memkit__open *open);
void memkit__open_clear(memkit__open *open);

/* For hold: takes the lock, or passes by. For let_go: gives it back. True where in the child the
 * lock is one that a thread which is no more would have to give back: to be made anew. */
void memkit__fork_lock(pthread_mutex_t *lock, memkit__open *open);
bool memkit__fork_unlock(pthread_mutex_t *lock, memkit__open *open, bool in_child);

#endif
