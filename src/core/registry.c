/* registry.c - see registry.h. One doubly linked list a kind, one mutex for all; no allocation.
 *
 * A walk holds the lock, and calls what waits for objects' locks, under which the user's code may
 * run; it changes nothing, so it marks the lock open, and a fork does not wait for it (fork.h).
 */
#include "core/registry.h"

#include "core/attach.h"
#include "core/fork.h"

#include <pthread.h>
#include <stddef.h>

struct memkit__registry {
    pthread_mutex_t lock;
    memkit__open open;
    struct {
        memkit__node *first, *last;
        unsigned count;
    } lists[MEMKIT__KINDS];
};

static struct memkit__registry registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

void memkit__register(memkit__kind kind, memkit__node *node)
{
    (void)memkit__prof(); /* a program that has objects is one that libmemkit-prof should know of */
    node->home = &registry;
    pthread_mutex_lock(&registry.lock);
    node->id = registry.lists[kind].count++;
    node->next = NULL;
    node->prev = registry.lists[kind].last;
    if (node->prev != NULL)
        node->prev->next = node;
    else
        registry.lists[kind].first = node;
    registry.lists[kind].last = node;
    pthread_mutex_unlock(&registry.lock);
}

void memkit__unregister(memkit__kind kind, memkit__node *node)
{
    struct memkit__registry *home = node->home;
    pthread_mutex_lock(&home->lock);
    if (node->prev != NULL)
        node->prev->next = node->next;
    else
        home->lists[kind].first = node->next;
    if (node->next != NULL)
        node->next->prev = node->prev;
    else
        home->lists[kind].last = node->prev;
    node->prev = node->next = NULL;
    pthread_mutex_unlock(&home->lock);
}

void memkit__each_held(memkit__kind kind, void (*fn)(void *arg, const memkit__node *node),
                       void *arg)
{
    for (const memkit__node *node = registry.lists[kind].first; node != NULL; node = node->next)
        fn(arg, node);
}

void memkit__each(memkit__kind kind, void (*fn)(void *arg, const memkit__node *node), void *arg)
{
    (void)memkit__fork_ready(kind, NULL); /* without, the lock might stay taken in a child */
    pthread_mutex_lock(&registry.lock);
    memkit__open_set(&registry.open);
    memkit__each_held(kind, fn, arg);
    memkit__open_clear(&registry.open);
    pthread_mutex_unlock(&registry.lock);
}

void memkit__registry_hold(void)
{
    memkit__fork_lock(&registry.lock, &registry.open);
}

void memkit__registry_let_go(bool in_child)
{
    if (memkit__fork_unlock(&registry.lock, &registry.open, in_child))
        pthread_mutex_init(&registry.lock, NULL);
}
