/* after.c - the service of before.c, mended with memkit. Once it has warmed up, none of this
 * allocates:
 *
 *   request object, id   an arena      handed out whole and reset whole: one per request under way
 *                                      (an id over 1 KiB lies in a pooled buffer that the arena
 *                                      gives back when it is reset)
 *   cache                memkit_lru    bounded, and really read: a hit is answered from the entry
 *                                      itself, which stays pinned until the last byte is sent
 *   answer of a miss     memkit_pool   the pooled buffer is the answer; sending it gives it back
 *
 *     free list of a worker        slot (one malloc, kept)
 *     +------+                     +------+---------------------------------+--------------+
 *     | head | ------------------> | slot | arena: control block, request, id | ... free ... |
 *     +------+                     +------+---------------------------------+--------------+
 *
 * A worker's list belongs to its thread: no lock. The cache and the pool are shared by all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <memkit/memkit.h>

#include "handler.h"

/* With malloc's own word a slot is 2 KiB: room for the arena's control block, a request, and an id
 * of ID_IN_ARENA bytes, so that the arena never has to ask for a chunk. */
#define SLOT_BYTES  2040
#define ID_IN_ARENA 1024
/* More wait in a worker's list only after a burst, and those go back to malloc. */
#define SLOTS_KEPT 1024
/* Two workers rarely meet in one of 16 shards; below 64 entries a shard, its bound is too coarse.
 * Shards share the entries evenly and round up: only a divisor makes CACHE_SIZE the bound. */
#define SHARDS        16
#define SHARD_ENTRIES 64

typedef struct slot {
    struct slot *next;
    memkit_arena *arena;
    _Alignas(max_align_t) char memory[];
} slot;

typedef struct {
    service_request base; /* first: the front's pointer is ours */
    memkit_lru_ref ref;   /* a hit's entry, until the answer is sent */
    slot *home;
} request;

typedef struct {
    _Alignas(64) slot *free; /* lines of their own: another worker's list is another thread's */
    unsigned count;
} slot_list;

static struct {
    memkit_lru *cache;
    memkit_pool *buffers;
    slot_list *slots;
    unsigned workers;
} service;

static slot *slot_new(void)
{
    slot *s = malloc(SLOT_BYTES);
    if (s == NULL)
        return NULL;
    s->arena = memkit_arena_init(s->memory, SLOT_BYTES - sizeof *s, NULL);
    if (s->arena == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

static void slot_free(slot *s)
{
    memkit_arena_free(s->arena);
    free(s);
}

static slot *slot_take(unsigned worker)
{
    slot_list *l = &service.slots[worker];
    slot *s = l->free;
    if (s == NULL)
        return slot_new();
    l->free = s->next;
    l->count--;
    return s;
}

static void slot_give(unsigned worker, slot *s)
{
    slot_list *l = &service.slots[worker];
    if (l->count == SLOTS_KEPT) {
        slot_free(s);
        return;
    }
    memkit_arena_reset(s->arena);
    s->next = l->free;
    l->free = s;
    l->count++;
}

static unsigned shards_for(size_t entries)
{
    size_t n = entries / SHARD_ENTRIES;
    n = n > SHARDS ? SHARDS : n;
    while (n > 1 && entries % n != 0)
        n--;
    return n > 0 ? (unsigned)n : 1;
}

int handler_init(const service_config *cfg)
{
    service.workers = cfg->workers;
    service.slots = aligned_alloc(_Alignof(slot_list), cfg->workers * sizeof *service.slots);
    service.buffers = memkit_pool_new(&(memkit_pool_opts){.name = "answers"});
    service.cache = memkit_lru_new(&(memkit_lru_opts){
        .name = "ids",
        .max_entries = cfg->cache_entries,
        .shards = shards_for(cfg->cache_entries),
    });
    if (service.slots == NULL || service.buffers == NULL || service.cache == NULL) {
        int err = errno;
        free(service.slots);
        service.slots = NULL;
        handler_finish();
        errno = err;
        return -1;
    }
    memset(service.slots, 0, cfg->workers * sizeof *service.slots);
    return 0;
}

void handler_finish(void)
{
    for (unsigned i = 0; service.slots != NULL && i < service.workers; i++)
        for (slot *s = service.slots[i].free, *next; s != NULL; s = next) {
            next = s->next;
            slot_free(s);
        }
    free(service.slots);
    memkit_lru_free(service.cache);
    memkit_pool_free(service.buffers);
    memset(&service, 0, sizeof service);
}

static void release_buffer(void *arg)
{
    memkit_pool_put(service.buffers, arg);
}

static char *room_for_id(memkit_arena *a, size_t id_len)
{
    if (id_len <= ID_IN_ARENA)
        return memkit_arena_alloc(a, id_len + 1);
    memkit_buf *b = memkit_pool_get(service.buffers, id_len);
    if (b == NULL || memkit_arena_defer(a, release_buffer, b) != 0) {
        memkit_pool_put(service.buffers, b);
        return NULL;
    }
    return b->data;
}

service_request *handler_begin(unsigned worker, size_t id_len)
{
    slot *s = slot_take(worker);
    if (s == NULL)
        return NULL;
    request *r = memkit_arena_calloc(s->arena, 1, sizeof *r);
    char *id = room_for_id(s->arena, id_len);
    if (r == NULL || id == NULL) {
        slot_give(worker, s);
        errno = ENOMEM;
        return NULL;
    }
    r->home = s;
    r->base.worker = worker;
    r->base.id = id;
    r->base.id_len = id_len;
    return &r->base;
}

static void release_entry(void *arg)
{
    request *r = arg;
    memkit_lru_release(service.cache, &r->ref);
}

int handler_process(service_request *base)
{
    request *r = (request *)base;
    if (memkit_lru_get(service.cache, base->id, base->id_len, &r->ref) == 1) {
        base->body = (service_body){
            .data = r->ref.data, .len = r->ref.len, .release = release_entry, .arg = r};
        return 0;
    }
    memkit_buf *answer = memkit_pool_get(service.buffers, base->id_len);
    if (answer == NULL || memkit_buf_append(answer, base->id, base->id_len) != 0) {
        memkit_pool_put(service.buffers, answer);
        errno = ENOMEM;
        return -1;
    }
    /* A cache that cannot take it (all of it pinned, or no memory) costs a later hit, not this
     * answer. */
    (void)memkit_lru_set(service.cache, base->id, base->id_len, answer->data, answer->len);
    base->body = (service_body){
        .data = answer->data, .len = answer->len, .release = release_buffer, .arg = answer};
    return 0;
}

void handler_end(service_request *base)
{
    slot_give(base->worker, ((request *)base)->home);
}
