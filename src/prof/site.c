/* site.c - distinct stacks: a tree to find them, a list to go through them.
 *
 *     heads[hash & 4095] --> site --+--> site      four ways on at each site, by the next two bits
 *                                   +--> site      of its hash: with few sites one step, with a
 *                                   |              hundred thousand some three more
 *                                   +--> site
 *
 *     list[0] = [64 sites]  list[1] = [64]  list[2] = [128]  list[3] = [256] ...    by id
 *
 * - A site is put where a search for it ends, by one compare-and-swap of NULL, and is never taken
 *   away; so the same stack is never there twice, nothing waits, and a search that a signal handler
 *   makes in the middle of an add finds a whole tree.
 * - Then it goes to the end of the list: a swap of NULL there, too, which gives the id; the count
 *   is raised after it, by anybody who finds it behind. A fork may fall between tree and list: the
 *   child looks for such sites.
 * - Memory is kept memory. A site that loses the race to its place is used for nothing: rare.
 */
#include "prof/site.h"

#include <stddef.h>
#include <string.h>

#include "core/internal.h"
#include "prof/mem.h"
#include "prof/site_table.h"
#include "prof/sums.h"

#define HEADS        4096u
#define HEAD_BITS    12
#define WAYS         4u
#define FIRST_PART   64u
#define NO_ID        UINT32_MAX
#define MOST_AT_ONCE 1000u /* adds of new sites */

typedef struct node {
    _Alignas(16) _Atomic(struct node *) next[WAYS];
    /* then the site, and behind its frames its sums */
} node;

static memkit__site *site_of(node *n)
{
    return (memkit__site *)(void *)(n + 1);
}

struct memkit__sites {
    _Atomic(_Atomic(node *) *) heads;
    _Atomic uint32_t count;
    uint32_t sums_bytes;
    _Atomic(_Atomic(memkit__site *) *) list[MEMKIT__SITE_PARTS];
};

memkit__sites memkit__heap_sites = {.sums_bytes = sizeof(memkit__site_sums)};
memkit__sites memkit__cpu_sites = {.sums_bytes = MEMKIT__CPU_SUMS_BYTES};

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Two frames a multiplication, two of these under way at once. */
static uint64_t hash_of(const uint64_t *frames, unsigned depth, bool cut, uint32_t label)
{
    uint64_t a = UINT64_C(0xa0761d6478bd642f) ^ depth ^ (uint64_t)cut << 32;
    uint64_t b = UINT64_C(0xe7037ed1a0b428db) ^ label;
    unsigned i = 0;
    for (; i + 4 <= depth; i += 4) {
        a = fold(a ^ frames[i], frames[i + 1] ^ UINT64_C(0x8ebc6af09c88c6e3));
        b = fold(b ^ frames[i + 2], frames[i + 3] ^ UINT64_C(0x589965cc75374cc3));
    }
    for (; i < depth; i++)
        a = fold(a ^ frames[i], UINT64_C(0x1d8e4e27c47d124f));
    return fold(a ^ UINT64_C(0x9e3779b97f4a7c15), b ^ UINT64_C(0xd6e8feb86659fd93));
}

static bool same(const memkit__site *s, uint64_t hash, const uint64_t *frames, unsigned depth,
                 bool cut, uint32_t label)
{
    if (s->hash != hash || s->depth != depth || s->cut != cut || s->label != label)
        return false;
    for (unsigned i = 0; i < depth; i++)
        if (s->frames[i] != frames[i])
            return false;
    return true;
}

/* ---- the list -------------------------------------------------------------------------------- */

/* Of an id: which part of the list, and where in it. Parts but the first double. */
static unsigned part_of(uint32_t id, uint32_t *at, uint32_t *size)
{
    if (id < FIRST_PART) {
        *at = id;
        *size = FIRST_PART;
        return 0;
    }
    unsigned log = 31u - (unsigned)__builtin_clz(id);
    *size = UINT32_C(1) << log;
    *at = id - *size;
    return log - 5;
}

/* NULL: no room. */
static _Atomic(memkit__site *) *make_part(_Atomic(_Atomic(memkit__site *) *) *part, size_t bytes)
{
    _Atomic(memkit__site *) *more = memkit__kept_map(bytes), *none = NULL;
    if (more == NULL || atomic_compare_exchange_strong(part, &none, more))
        return more;
    memkit__kept_unmap(more, bytes);
    return none;
}

static _Atomic(memkit__site *) *entry(memkit__sites *t, uint32_t id, bool make)
{
    uint32_t at, size;
    _Atomic(_Atomic(memkit__site *) *) *part = &t->list[part_of(id, &at, &size)];
    _Atomic(memkit__site *) *sites = atomic_load_explicit(part, memory_order_acquire);
    if (sites == NULL && make) {
        bool entered = memkit__kept_enter();
        sites = atomic_load(part);
        if (sites == NULL)
            sites = make_part(part, size * sizeof *sites);
        if (entered)
            memkit__kept_leave();
    }
    return sites != NULL ? sites + at : NULL;
}

/* False: no room for the list. */
static bool enlist(memkit__sites *t, memkit__site *s)
{
    for (;;) {
        uint32_t id = atomic_load(&t->count);
        _Atomic(memkit__site *) *e = entry(t, id, true);
        if (e == NULL)
            return false;
        memkit__site *none = NULL;
        bool done = atomic_compare_exchange_strong(e, &none, s);
        if (done)
            s->id = id;
        atomic_compare_exchange_strong(&t->count, &id, id + 1);
        if (done)
            return true;
    }
}

/* ---- the tree -------------------------------------------------------------------------------- */

static _Atomic(node *) *heads_of(memkit__sites *t)
{
    _Atomic(node *) *heads = atomic_load_explicit(&t->heads, memory_order_acquire);
    if (heads != NULL)
        return heads;
    bool entered = memkit__kept_enter();
    heads = atomic_load(&t->heads);
    _Atomic(node *) *made = heads == NULL ? memkit__kept_map(HEADS * sizeof *made) : NULL;
    if (made != NULL && atomic_compare_exchange_strong(&t->heads, &heads, made))
        heads = made;
    else
        memkit__kept_unmap(made, HEADS * sizeof *made);
    if (entered)
        memkit__kept_leave();
    return heads;
}

static node *make_node(const memkit__sites *t, uint64_t hash, const uint64_t *frames,
                       unsigned depth, bool cut, uint32_t label)
{
    size_t head =
        (sizeof(node) + sizeof(memkit__site) + depth * sizeof frames[0] + 15) & ~(size_t)15;
    node *n = memkit__kept_alloc(head + t->sums_bytes);
    if (n == NULL)
        return NULL;
    memkit__site *site = site_of(n);
    site->hash = hash;
    site->id = NO_ID;
    site->depth = (uint16_t)depth;
    site->cut = cut;
    site->label = label;
    site->sums = (char *)n + head;
    memcpy(site->frames, frames, depth * sizeof frames[0]);
    return n;
}

memkit__site *memkit__site_find(memkit__sites *t, const uint64_t *frames, unsigned depth, bool cut,
                                uint32_t label)
{
    uint64_t hash = hash_of(frames, depth, cut, label), bits = hash >> HEAD_BITS;
    _Atomic(node *) *at = heads_of(t);
    node *made = NULL;
    if (at == NULL)
        return NULL;
    at += hash & (HEADS - 1);
    for (;; bits = bits >> 2 | bits << 62) {
        node *n = atomic_load_explicit(at, memory_order_acquire);
        if (n == NULL) {
            /* Room in the list first, for all who may be here: what is in the tree is listed. */
            uint32_t count = atomic_load(&t->count);
            if (made == NULL &&
                (entry(t, count, true) == NULL || entry(t, count + MOST_AT_ONCE, true) == NULL ||
                 (made = make_node(t, hash, frames, depth, cut, label)) == NULL))
                return NULL;
            if (atomic_compare_exchange_strong(at, &n, made)) {
                enlist(t, site_of(made));
                return site_of(made);
            }
        }
        if (same(site_of(n), hash, frames, depth, cut, label))
            return site_of(n);
        at = &n->next[bits & (WAYS - 1)];
    }
}

uint32_t memkit__site_count(const memkit__sites *t)
{
    return atomic_load(&t->count);
}

memkit__site *memkit__site_at(const memkit__sites *t, uint32_t id)
{
    uint32_t at, size;
    unsigned part = part_of(id, &at, &size);
    _Atomic(memkit__site *) *sites = atomic_load_explicit(&t->list[part], memory_order_acquire);
    return sites != NULL ? atomic_load_explicit(sites + at, memory_order_acquire) : NULL;
}

/* ---- fork ------------------------------------------------------------------------------------ */

static bool listed(const memkit__sites *t, const memkit__site *s)
{
    uint32_t n = atomic_load(&t->count);
    for (uint32_t id = n; id-- > 0;) /* lost ones are the newest */
        if (memkit__site_at(t, id) == s)
            return true;
    return false;
}

static void enlist_lost(memkit__sites *t, node *n)
{
    if (n == NULL)
        return;
    if (site_of(n)->id == NO_ID && !listed(t, site_of(n)))
        enlist(t, site_of(n));
    for (unsigned i = 0; i < WAYS; i++)
        enlist_lost(t, atomic_load(&n->next[i]));
}

void memkit__sites_in_child(memkit__sites *t)
{
    _Atomic(node *) *heads = atomic_load(&t->heads);
    for (unsigned i = 0; heads != NULL && i < HEADS; i++)
        enlist_lost(t, atomic_load(&heads[i]));
}
