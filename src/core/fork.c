/* fork.c - the handlers of pthread_atfork: what is held over a fork, in which order. See fork.h.
 *
 * Registered when the first object is made, and so later than the handlers of any malloc, which are
 * then still to run: who holds a lock of ours may be in malloc. A program that has no object pays
 * nothing. Each copy of the core in a process has handlers of its own, for its own locks; none of
 * them waits for anything that another copy may hold.
 */
#include "core/fork.h"

#include <errno.h>
#include <sched.h>

#include "core/attach.h"
#include "core/internal.h"

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* from before a fork till after it */
static atomic_bool registered;
static _Atomic(const memkit__fork_ops *) kinds[MEMKIT__KINDS]; /* set with the gate held */
static _Atomic uintptr_t forking;                              /* who holds the gate over a fork */
static unsigned again; /* under the gate: calls of handlers that are registered twice */

/* ---- open locks ---- */

/* A number of the calling thread's, even, and the same in the child of its fork. */
static uintptr_t self(void)
{
    return (uintptr_t)&errno;
}

void memkit__open_set(memkit__open *open)
{
    atomic_store_explicit(open, self(), memory_order_release);
}

void memkit__open_clear(memkit__open *open)
{
    uintptr_t me = self();
    while (!atomic_compare_exchange_strong(open, &me, 0)) {
        me = self();
        pthread_mutex_lock(&gate); /* a fork is under way, and counts on nothing changing */
        pthread_mutex_unlock(&gate);
    }
}

void memkit__fork_lock(pthread_mutex_t *lock, memkit__open *open)
{
    while (pthread_mutex_trylock(lock) != 0) {
        uintptr_t who = atomic_load(open);
        if (who != 0 && atomic_compare_exchange_strong(open, &who, who | 1))
            return;
        sched_yield();
    }
}

bool memkit__fork_unlock(pthread_mutex_t *lock, memkit__open *open, bool in_child)
{
    uintptr_t who = atomic_load(open);
    if ((who & 1) == 0) {
        pthread_mutex_unlock(lock);
        return false;
    }
    who &= ~(uintptr_t)1;
    bool lost = in_child && who != self();
    atomic_store(open, lost ? 0 : who);
    return lost;
}

/* ---- the handlers ---- */

static void prepare(void)
{
    if (atomic_load(&forking) == self()) {
        again++;
        return;
    }
    pthread_mutex_lock(&gate);
    atomic_store(&forking, self());
    memkit__attach_hold();
    memkit__registry_hold();
    for (int kind = 0; kind < MEMKIT__KINDS; kind++) {
        const memkit__fork_ops *ops = atomic_load(&kinds[kind]);
        if (ops != NULL)
            ops->hold();
    }
}

static void let_go(bool in_child)
{
    if (again > 0) {
        again--;
        return;
    }
    for (int kind = MEMKIT__KINDS; kind-- > 0;) {
        const memkit__fork_ops *ops = atomic_load(&kinds[kind]);
        if (ops != NULL)
            ops->let_go(in_child);
    }
    memkit__registry_let_go(in_child);
    memkit__attach_let_go();
    atomic_store(&forking, 0);
    pthread_mutex_unlock(&gate); /* last: whoever waits in memkit__open_clear looks again */
}

static void in_parent(void)
{
    let_go(false);
}

static void in_child(void)
{
    let_go(true);
}

int memkit__fork_ready(memkit__kind kind, const memkit__fork_ops *ops)
{
    if (MEMKIT_LIKELY(atomic_load_explicit(&registered, memory_order_acquire) &&
                      (ops == NULL || atomic_load(&kinds[kind]) == ops)))
        return 0;
    if (!atomic_load(&registered)) {
        /* With no lock held, as libc waits here for a fork under way, in whose child the lock would
         * stay taken. Two threads may both register, which does no harm: see `again`. */
        int error = pthread_atfork(prepare, in_parent, in_child);
        if (error != 0) {
            errno = error;
            return -1;
        }
        atomic_store(&registered, true);
    }
    if (ops != NULL) {
        pthread_mutex_lock(&gate); /* a fork under way lets go of what it held, and of no more */
        atomic_store(&kinds[kind], ops);
        pthread_mutex_unlock(&gate);
    }
    return 0;
}
