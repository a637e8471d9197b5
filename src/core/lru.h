/* lru.h - what the files of the cache share: entry, shard, cache, and the inline steps of a hit.
 *
 * lru.c draws the whole and says who may touch what. Everything here needs the shard's lock, except
 * where a comment says that it does not.
 */
#ifndef MEMKIT_CORE_LRU_H
#define MEMKIT_CORE_LRU_H

#include <pthread.h>
#include <string.h>

#include <memkit/lru.h>

#include "core/fork.h"
#include "core/internal.h"
#include "core/lru_index.h"
#include "core/registry.h"
#include "core/siphash.h"
#include "core/takes.h"

/* An entry's header; the key follows at once, the value at the next multiple of 8. Headers lie at
 * addresses that are 4 modulo 8, so that a key of 4 bytes (12, 20 ...) costs no padding. The time
 * at which an entry expires lies in the 8 bytes before the header, in caches that have a ttl. */
typedef struct {
    uint32_t prev, next; /* handles, the shard's sentinel is 0; prev of others: the states below */
    uint32_t tag;        /* in the index: its hash; gone: the memkit_lru_reason */
    uint32_t vlen;       /* UINT32_MAX: see memkit__lru_big */
    uint16_t klen;       /* UINT16_MAX: see memkit__lru_big */
    uint16_t pins;       /* references out; 0 in a free chunk */
} memkit__lru_entry;

/* `prev` of what is not in the list. A gone entry waits for its last reference; a held one also for
 * its callback, and then `next` chains those that wait for the same one. */
#define MEMKIT__LRU_GONE 0xffffffffu
#define MEMKIT__LRU_HELD 0xfffffffeu
#define MEMKIT__LRU_FREE 0xfffffffdu

/* Precedes an entry that has a block of its own. */
typedef struct {
    size_t room; /* bytes from the entry's header to the end of the block */
    size_t klen, vlen;
} memkit__lru_big;
enum {
    MEMKIT__LRU_TTL_BYTES = 8,
    MEMKIT__LRU_SLAB_HEAD = 12,    /* gives headers their phase; the first 4: lru_takes.c */
    MEMKIT__LRU_BIG_HEAD = 36,     /* memkit__lru_big, 4 for lru_takes.c, room for the ttl word */
    MEMKIT__LRU_MALLOC_BYTES = 16, /* what an allocator adds to a block, counted as held */
    MEMKIT__LRU_GRANULE = 16,
    MEMKIT__LRU_STASH = 32,
    MEMKIT__LRU_NEIGHBOURS = 1, /* larger classes an entry may borrow from: more drift upwards */
    MEMKIT__LRU_MAX_UNITS = (1 << 20) - 2
};

/* A unit of memory: a slab of chunks of one size, an empty slab, or the block of one big entry.
 * Handles name it by its index in the shard's array; index 0 is the list's sentinel. */
typedef struct {
    char *base;          /* header of the entry at granule 0; NULL: descriptor not in use */
    uint32_t prev, next; /* slabs with room of a class; empty slabs (next); unused descriptors */
    uint16_t used;       /* chunks taken */
    uint16_t pinned;     /* of those, pinned or held */
    uint16_t free;       /* granule of the first free chunk, MEMKIT__LRU_NO_CHUNK: none */
    uint16_t fresh;      /* granule of the first chunk that was never taken */
    uint16_t granules;   /* of a slab, for chunks */
    uint16_t chunks;     /* of a slab, while it is of a class */
    uint16_t serial;     /* counts what the descriptor stood for: a stale reference is seen */
    uint8_t cls;         /* class; the cache's class_count for a big block */
    uint8_t era;         /* of a slab: the shard's when it was last current */
} memkit__lru_unit;
#define MEMKIT__LRU_NO_CHUNK 0xffffu

typedef struct {
    uint32_t roomy;  /* first slab with a free chunk; 0: none */
    uint32_t slabs;  /* slabs of the class */
    uint32_t chunks; /* in those of the size made now, free ones too */
    uint32_t pinned; /* chunks pinned or held */
} memkit__lru_class;

/* A charged entry (takes.h). handle 0: no entry's slot. */
typedef struct {
    uint32_t handle;
    size_t bytes;
    uint64_t token;
} memkit__lru_charge;

typedef struct memkit__lru_shard {
    pthread_mutex_t mutex;
    memkit__open open; /* memkit_lru_each is running the user's code under the mutex */
    bool locked;       /* never changes */
    bool has_ttl;
    bool resizing; /* a resize is under way, and the index stays what it counts on */
    bool sinking;  /* it evicts, and each set evicts one for the one it stores */
    uint8_t big_class;
    uint8_t era; /* slabs of another one are of the bounds before a resize; 0 is never current */
    memkit__lru_unit *units;
    memkit__lru_index index;
    memkit__lru_entry ends; /* next: most recent, prev: least recent entry */
    size_t count;           /* entries in the index, which are those of the list */
    uint64_t hits, misses, sets, evictions, expirations;

    size_t max_entries;     /* SIZE_MAX: none */
    size_t max_bytes;       /* SIZE_MAX: none */
    size_t bytes;           /* all that is held */
    size_t slab_count;      /* with the empty ones */
    size_t slab_bytes;      /* cost of those; they may be of several sizes, after a resize */
    uint32_t slab_granules; /* of the slabs made now */
    size_t big_bytes;       /* cost of all big blocks, stashed ones too */
    size_t big_count;       /* and their number */
    size_t pinned;          /* entries pinned or held, gone ones too */
    size_t gone_pinned;     /* of those, not in the index any more */
    size_t pinned_slabs, pinned_slab_bytes;
    size_t pinned_big; /* cost of pinned big blocks */
    uint32_t unit_count, unit_room, unused_unit;
    uint32_t empty_slab; /* first of the list */
    uint32_t cleared;    /* entries a clear took out, least recent, linked by prev */
    size_t cleared_count;
    uint32_t stash[MEMKIT__LRU_STASH]; /* free big blocks that wait for an entry of their size */
    uint32_t stash_next;
    memkit_lru *cache;
    memkit__countdown takes;     /* lru_takes.c, and all the next four */
    memkit__lru_charge *charges; /* by handle; NULL: none yet */
    uint32_t charge_slots, charge_count;
    memkit__lru_table resized;   /* resize_lock: the smaller index, allocated beforehand */
    memkit__lru_class classes[]; /* class_count + 1: the last is for big blocks */
} memkit__lru_shard;

/* Size classes, the same for all shards; written once, for slabs of the size that suits the first
 * bounds. Slabs of another size, made after a resize, have the same classes. */
typedef struct {
    size_t slab_bytes;     /* cost of a slab, its malloc overhead too */
    uint32_t granules;     /* in a slab */
    uint32_t class_count;  /* at most 255 */
    uint32_t max_granules; /* of a chunk; larger entries are big */
    uint16_t *size;        /* of a class's chunks, granules */
    uint8_t *class_of;     /* by granules, 0 to max_granules */
} memkit__lru_geometry;

struct memkit_lru {
    memkit__sip_key key;
    uint64_t cookie; /* marks this cache's references */
    uint32_t shard_count;
    bool locked, closing;
    size_t shard_stride;
    char *shards;
    uint64_t ttl_ms;
    uint64_t (*now_ms)(void *);
    void *now_arg;
    memkit_lru_evict_fn on_evict;
    void *arg;
    pthread_mutex_t resize_lock;
    _Atomic uintptr_t resizer; /* thread whose resize is under way; 0: none */
    memkit__open resize_open;  /* the resize lock is held: a fork does not wait for its end */
    _Atomic size_t max_entries, max_bytes; /* as asked */
    size_t expect_entry_bytes;
    size_t control_bytes; /* of this block, a shard's share */
    memkit__node node;
    const char *name;
    memkit__lru_geometry geo;
};

/* Entries that left in the course of one call and whose callback is due. */
typedef struct {
    uint32_t first, last;
    memkit__lru_entry *entry; /* the first: units may move once the lock is given up */
} memkit__lru_leavers;

static inline void memkit__lru_lock(memkit__lru_shard *s)
{
    if (s->locked)
        pthread_mutex_lock(&s->mutex);
}

static inline void memkit__lru_unlock(memkit__lru_shard *s)
{
    if (s->locked)
        pthread_mutex_unlock(&s->mutex);
}

/* Needs no lock. */
static inline memkit__lru_shard *memkit__lru_shard_at(const memkit_lru *c, uint32_t i)
{
    return (memkit__lru_shard *)(void *)(c->shards + i * c->shard_stride);
}

static inline memkit__lru_entry *memkit__lru_at(const memkit__lru_shard *s, uint32_t handle)
{
    char *p = s->units[handle >> 12].base + ((handle & 4095u) << 4);
    return (memkit__lru_entry *)(void *)p;
}

static inline memkit__lru_big *memkit__lru_big_of(const memkit__lru_entry *e)
{
    return (memkit__lru_big *)(void *)((char *)(uintptr_t)e - MEMKIT__LRU_BIG_HEAD);
}

/* What a slab costs, its head and malloc's overhead too; and the granules of one that may cost so.
 */
static inline size_t memkit__lru_slab_cost(uint32_t granules)
{
    return ((size_t)granules + 2) * MEMKIT__LRU_GRANULE;
}

static inline uint32_t memkit__lru_slab_granules(size_t cost)
{
    return (uint32_t)(cost / MEMKIT__LRU_GRANULE) - 2;
}

static inline size_t memkit__lru_klen(const memkit__lru_entry *e)
{
    return MEMKIT_LIKELY(e->klen != UINT16_MAX) ? e->klen : memkit__lru_big_of(e)->klen;
}

static inline size_t memkit__lru_vlen(const memkit__lru_entry *e)
{
    return MEMKIT_LIKELY(e->vlen != UINT32_MAX) ? e->vlen : memkit__lru_big_of(e)->vlen;
}

static inline char *memkit__lru_key(const memkit__lru_entry *e)
{
    return (char *)(uintptr_t)e + sizeof *e;
}

/* Where the value lies, from the header: the next multiple of 8 behind the key. */
static inline size_t memkit__lru_value_offset(size_t klen)
{
    return ((klen + sizeof(memkit__lru_entry) + 4 + 7) & ~(size_t)7) - 4;
}

static inline char *memkit__lru_value(const memkit__lru_entry *e)
{
    return (char *)(uintptr_t)e + memkit__lru_value_offset(memkit__lru_klen(e));
}

static inline uint64_t memkit__lru_expiry(const memkit__lru_entry *e)
{
    uint64_t t;
    memcpy(&t, (const char *)e - MEMKIT__LRU_TTL_BYTES, sizeof t);
    return t;
}

static inline void memkit__lru_set_expiry(memkit__lru_entry *e, uint64_t t)
{
    memcpy((char *)e - MEMKIT__LRU_TTL_BYTES, &t, sizeof t);
}

/* The list. The sentinel has a handle of its own, 0, so that nothing here asks for an end. */
static inline void memkit__lru_unlink(memkit__lru_shard *s, const memkit__lru_entry *e)
{
    memkit__lru_at(s, e->prev)->next = e->next;
    memkit__lru_at(s, e->next)->prev = e->prev;
}

static inline void memkit__lru_link_first(memkit__lru_shard *s, uint32_t handle,
                                          memkit__lru_entry *e)
{
    uint32_t first = s->ends.next;
    e->prev = 0;
    e->next = first;
    memkit__lru_at(s, first)->prev = handle;
    s->ends.next = handle;
}

static inline void memkit__lru_touch(memkit__lru_shard *s, uint32_t handle, memkit__lru_entry *e)
{
    if (s->ends.next != handle) {
        memkit__lru_unlink(s, e);
        memkit__lru_link_first(s, handle, e);
    }
}

static inline bool memkit__lru_is_gone(const memkit__lru_entry *e)
{
    return e->prev == MEMKIT__LRU_GONE || e->prev == MEMKIT__LRU_HELD;
}

/* lru_slab.c - memory */

/* Works out the classes for slabs of 2^n bytes: their number, and the arrays that are not NULL. */
void memkit__lru_geometry_init(memkit__lru_geometry *geo, size_t slab_bytes);

/* Bytes an entry asks of memkit__lru_alloc; false where that is no size. Needs no lock. */
bool memkit__lru_entry_bytes(const memkit_lru *c, size_t klen, size_t vlen, size_t *out);

/* True where an entry of that size fits once every entry that can go has gone, with index and table
 * of units as they are. And what it costs, where it needs a slab or a block. */
bool memkit__lru_can_fit(const memkit__lru_shard *s, size_t entry_bytes);
size_t memkit__lru_cost_for(const memkit__lru_shard *s, size_t entry_bytes);

/* Takes memory for an entry: handle, or 0 with ENOSPC (the bound is in the way: evict, and try
 * again) or ENOMEM. With `over` it may cross the bound. Content is undefined, pins is 0. */
uint32_t memkit__lru_alloc(memkit__lru_shard *s, size_t entry_bytes, bool over);
void memkit__lru_release(memkit__lru_shard *s, uint32_t handle);

/* True where an entry of that size fits well in the memory of another. */
bool memkit__lru_fits_in(const memkit__lru_shard *s, uint32_t handle, size_t entry_bytes);

/* Frees what no entry uses, until the shard holds at most `target` bytes; or one piece of it, and
 * false where there is none. */
void memkit__lru_give_back(memkit__lru_shard *s, size_t target);
bool memkit__lru_give_back_one(memkit__lru_shard *s);

/* Bytes a pinned entry accounts for. */
size_t memkit__lru_big_cost(const memkit__lru_entry *e);

/* lru_unit.c - the table of units, big blocks, and what goes back to malloc */

/* Shortens the table of units by at most `most` at its end that are not in use; false where there
 * is none. And what it saves to have no unit behind `last` in it. */
bool memkit__lru_units_trim(memkit__lru_shard *s, uint32_t most);
size_t memkit__lru_units_excess(const memkit__lru_shard *s, uint32_t last);

/* The next unit taken is the first that is not in use: the table can end early then. */
void memkit__lru_lowest_unit_first(memkit__lru_shard *s);

/* Frees all memory of a shard. */
void memkit__lru_slab_destroy(memkit__lru_shard *s);

/* From now on slabs are made of so many granules. Before that, where it would change something, age
 * is called with *id = 0 until it returns true: some units a call, most times none. */
void memkit__lru_set_slab_granules(memkit__lru_shard *s, uint32_t granules);
bool memkit__lru_age_slabs(memkit__lru_shard *s, uint32_t *id);

/* Prepares units[0], the sentinel. -1: ENOMEM. */
int memkit__lru_slab_init(memkit__lru_shard *s);

/* What the index weighs; without malloc's bytes for `now`, which is always there. */
static inline size_t memkit__lru_index_bytes(const memkit__lru_shard *s)
{
    size_t now = memkit__lru_table_bytes(&s->index.now);
    return s->index.old.slots == NULL
               ? now
               : now + memkit__lru_table_bytes(&s->index.old) + MEMKIT__LRU_MALLOC_BYTES;
}

static inline uint32_t memkit__lru_pinned_units(const memkit__lru_shard *s)
{
    return (uint32_t)s->pinned_slabs + s->classes[s->big_class].pinned;
}

/* Bookkeeping of an entry that becomes pinned or held, or stops being so. */
static inline void memkit__lru_account_pin(memkit__lru_shard *s, uint32_t handle)
{
    memkit__lru_unit *u = &s->units[handle >> 12];
    s->pinned++;
    s->classes[u->cls].pinned++;
    if (u->pinned++ == 0) {
        if (MEMKIT_LIKELY(u->cls != s->big_class)) {
            s->pinned_slabs++;
            s->pinned_slab_bytes += memkit__lru_slab_cost(u->granules);
        } else {
            s->pinned_big += memkit__lru_big_cost(memkit__lru_at(s, handle));
        }
    }
}

static inline void memkit__lru_account_unpin(memkit__lru_shard *s, uint32_t handle)
{
    memkit__lru_unit *u = &s->units[handle >> 12];
    s->pinned--;
    s->classes[u->cls].pinned--;
    if (--u->pinned == 0) {
        if (MEMKIT_LIKELY(u->cls != s->big_class)) {
            s->pinned_slabs--;
            s->pinned_slab_bytes -= memkit__lru_slab_cost(u->granules);
        } else {
            s->pinned_big -= memkit__lru_big_cost(memkit__lru_at(s, handle));
        }
    }
}

/* lru_evict.c - how an entry leaves, and room for a new one */

/* Takes an entry out of index and list; frees it, or keeps it until its callback (which is added to
 * `leavers`) and its last reference are done. */
void memkit__lru_leave(memkit__lru_shard *s, uint32_t handle, memkit_lru_reason reason,
                       memkit__lru_leavers *leavers);

/* The rest of what a clear began, for one entry of s->cleared, of which there is one. */
void memkit__lru_leave_cleared(memkit__lru_shard *s, memkit__lru_leavers *leavers);

/* Moves so many slots of the index, where it is growing or shrinking. */
void memkit__lru_move_index(memkit__lru_shard *s, size_t slots);

/* Calls on_evict for each leaver, without the lock; then let_go, with the lock, frees what nobody
 * pins and empties `leavers`. part does both, without the lock. */
void memkit__lru_tell(memkit__lru_shard *s, const memkit__lru_leavers *leavers);
void memkit__lru_let_go(memkit__lru_shard *s, memkit__lru_leavers *leavers);
void memkit__lru_part(memkit__lru_shard *s, memkit__lru_leavers *leavers);

/* One reference less. */
void memkit__lru_unpin(memkit__lru_shard *s, uint32_t handle, memkit__lru_entry *e);

/* lru_takes.c */

/* An entry was stored, by the function that goes on at `from`. */
void memkit__lru_take(memkit__lru_shard *s, uint32_t handle, size_t entry_bytes, const void *from);
/* It has gone, or is overwritten: called where any entry is charged. And all of them go. */
void memkit__lru_give(memkit__lru_shard *s, uint32_t handle);
void memkit__lru_give_all(memkit__lru_shard *s);

/* Notes in a unit's memory whether it is stock. */
void memkit__lru_set_stocked(memkit__lru_shard *s, uint32_t unit, bool stocked);

/* lru_way.c */

/* For an entry that cannot fit as things are: evicts all but `old` (0: none), and makes index and
 * table of units smaller. 0: it fits, where need be over the bound until `old` has gone. Or an
 * errno: E2BIG and EBUSY, and nothing has left; ENOMEM. */
int memkit__lru_make_way(memkit__lru_shard *s, size_t entry_bytes, uint32_t old,
                         memkit__lru_leavers *leavers);

/* lru.c - bounds and clock; need no lock */

/* A shard's shares of the bounds (SIZE_MAX: none). False where memkit_lru_new would refuse them. */
bool memkit__lru_shares(const memkit_lru *c, size_t max_entries, size_t max_bytes,
                        size_t *shard_entries, size_t *shard_bytes);

/* What a slab costs that suits a shard of these bounds. Needs no lock. */
size_t memkit__lru_slab_bytes_for(const memkit_lru *c, size_t shard_entries, size_t shard_bytes);

/* Entries that a shard with these bounds should have an index for at first. */
size_t memkit__lru_wanted_index(const memkit_lru *c, size_t shard_entries, size_t shard_bytes);

/* Milliseconds on the cache's clock; 0 without a ttl. Calls the user's clock. */
uint64_t memkit__lru_now(const memkit_lru *c);

/* lru_fork.c - what a fork holds of every cache that has locks */
extern const memkit__fork_ops memkit__lru_fork;

/* lru.c - a shard's mutex, of the kind that suits. */
void memkit__lru_mutex_init(pthread_mutex_t *mutex);

/* lru_check.c - walks everything. NULL, or what is broken. Takes the locks; O(n). For tests. */
const char *memkit__lru_check(memkit_lru *c);

#endif
