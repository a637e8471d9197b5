/* registry.h - the list of living pools, caches and named arenas, for metrics, the attach table and
 * what a fork has to hold.
 *
 * An object embeds a memkit__node and registers it when it is complete, unregisters it before it
 * dies. The registry's lock is taken before an object's own lock, never after: an object must not
 * register, nor unregister, with its own lock held.
 */
#ifndef MEMKIT_CORE_REGISTRY_H
#define MEMKIT_CORE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { MEMKIT__POOL, MEMKIT__LRU, MEMKIT__ARENA, MEMKIT__KINDS } memkit__kind;

typedef struct memkit__node {
    struct memkit__node *prev, *next;
    struct memkit__registry *home; /* of the copy of the core that registered it */
    void *object;                  /* memkit_pool *, memkit_lru *, memkit_arena * */
    /* The object's bytes in use and waiting. A pointer, so that a program that has pools alone does
     * not draw caches and arenas in. */
    void (*row)(const struct memkit__node *node, uint64_t *live_bytes, uint64_t *held_bytes);
    const struct memkit__families
        *families;    /* what it publishes: metrics.h; a pointer, as row is */
    const char *name; /* the object's own copy */
    unsigned id;      /* set at registration; tells objects of one name apart */
} memkit__node;

void memkit__register(memkit__kind kind, memkit__node *node);
void memkit__unregister(memkit__kind kind, memkit__node *node);

/* Calls fn for each object of a kind, oldest first, with the registry locked. */
void memkit__each(memkit__kind kind, void (*fn)(void *arg, const memkit__node *node), void *arg);

/* For fork.c: nothing changes from hold to let_go. memkit__each_held is memkit__each between the
 * two. */
void memkit__registry_hold(void);
void memkit__registry_let_go(bool in_child);
void memkit__each_held(memkit__kind kind, void (*fn)(void *arg, const memkit__node *node),
                       void *arg);

#endif
