/* blocks.c - the table of sampled blocks.
 *
 *     tables[0]   [ line | line | ... ]  [ records ]      the oldest, the smallest
 *     tables[1]   [ line | line | line | line | ... ]  [ records ]
 *     ...
 *     newest      a line: [ spilled | key | key | key | key | key | key | key ]   64 bytes
 *
 *     key: the block's address; 0: empty; RESERVED: being written; bit 0: in the filter
 *
 * - A block has four lines where it may lie: two beside each other, and two elsewhere. `spilled` of
 *   the first says how many of them were ever needed, so that most searches read one line.
 * - Who finds no place in the newest table maps one four times as large, and nothing is ever moved:
 *   what lives long stays in an older one, what comes and goes is in the newest, where a search
 *   begins. Near the bound smaller tables are tried, then places in the older ones. A quarter of it
 *   is left to new stacks: a block without a place is one block less, a stack without one all of
 * its.
 * - A place is taken by a compare-and-swap to RESERVED, filled, and published by the store of the
 *   key; given up by a compare-and-swap to 0. So what a signal handler, or a fork's child, finds
 *   half done is a place that is not free, and nothing else. The child frees these.
 * - The filter is kept while sampling is sparse. While it is dense it would be written all the time
 *   by all threads, and hardly anything would fail it: then all pass. Going back, blocks that are
 * not in the filter are brought in: `dense` is read after a place is reserved, so that who walks
 * the table after writing it either sees the place reserved, and waits for the key, or is seen.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/blocks.h"

#include <errno.h>
#include <sched.h>

#include "prof/mem.h"

#define KEYS         7u
#define CANDIDATES   4u
#define MAX_TABLES   24u
#define DENSE_LINES  ((size_t)16384)
#define SPARSE_LINES ((size_t)256)
#define LEAST_LINES  ((size_t)64)
#define GROWTH       4u

#define IN_FILTER UINT64_C(1)
#define RESERVED  UINT64_C(2)
#define FLAGS     UINT64_C(7)

typedef struct {
    _Alignas(64) _Atomic uint64_t spilled;
    _Atomic uint64_t keys[KEYS];
} line;

typedef struct {
    size_t mask; /* lines - 1 */
    memkit__record *records;
    line *lines;
} table;

#define TABLE_BYTES(lines) ((lines) * (sizeof(line) + KEYS * sizeof(memkit__record)))

#define WATCH_CELLS (1u << MEMKIT__WATCH_BITS)
static _Atomic uint8_t filter[WATCH_CELLS];
const _Atomic uint8_t memkit__watch_all;
_Atomic(const _Atomic uint8_t *) memkit__watch;
static atomic_bool dense;

static _Atomic(table *) tables[MAX_TABLES];
static atomic_uint n_tables;
static _Atomic(const table *) newest; /* the last of them, or the one before */
static atomic_bool
    full; /* there was no room for another: not tried again before the next prepare */

/* ---- the filter ------------------------------------------------------------------------------ */

/* A cell that is full stays so. */
static void filter_add(const void *p, int by)
{
    _Atomic uint8_t *cell = &filter[memkit__watch_index(p)];
    uint8_t now = atomic_load(cell);
    while (now != UINT8_MAX && !atomic_compare_exchange_weak(cell, &now, (uint8_t)(now + by))) {
    }
}

/* ---- lines ----------------------------------------------------------------------------------- */

static uint64_t hash_of(const void *p)
{
    uint64_t h = ((uint64_t)(uintptr_t)p >> 3) * UINT64_C(0xd6e8feb86659fd93);
    h ^= h >> 32;
    return h * UINT64_C(0xd6e8feb86659fd93);
}

static line *candidate(const table *t, uint64_t hash, unsigned i)
{
    size_t at = (size_t)((i < 2 ? hash >> 40 : hash >> 16) & t->mask);
    return &t->lines[at ^ (i & 1)];
}

static memkit__record *record_of(const table *t, const line *l, unsigned k)
{
    return &t->records[(size_t)(l - t->lines) * KEYS + k];
}

static inline bool reserve(const table *t, line *l, const void *p, memkit__place *place)
{
    for (unsigned k = 0; k < KEYS; k++) {
        uint64_t empty = 0;
        if (atomic_load_explicit(&l->keys[k], memory_order_relaxed) != 0 ||
            !atomic_compare_exchange_strong(&l->keys[k], &empty, RESERVED))
            continue;
        place->record = record_of(t, l, k);
        place->at = &l->keys[k];
        place->key = (uint64_t)(uintptr_t)p;
        if (!atomic_load(&dense)) {
            filter_add(p, 1);
            place->key |= IN_FILTER;
        }
        return true;
    }
    return false;
}

static bool reserve_in(const table *t, const void *p, memkit__place *place, uint64_t hash)
{
    line *home = candidate(t, hash, 0);
    for (unsigned i = 0; i < CANDIDATES; i++) {
        line *l = candidate(t, hash, i);
        uint64_t spilled = atomic_load_explicit(&home->spilled, memory_order_relaxed);
        while (spilled < i &&
               !atomic_compare_exchange_weak(&home->spilled, &spilled, (uint64_t)i)) {
        }
        if (reserve(t, l, p, place))
            return true;
    }
    return false;
}

static bool put_in(const table *t, const void *p, const memkit__record *r, uint64_t hash)
{
    memkit__place place;
    if (!reserve_in(t, p, &place, hash))
        return false;
    *place.record = *r;
    memkit__blocks_publish(&place);
    return true;
}

/* What take_line found. LOST: freed twice at once, and the other was faster. */
typedef enum { NOT_HERE, TAKEN, LOST } found;

static inline found take_line(const table *t, line *l, const void *p, memkit__record *r)
{
    for (unsigned k = 0; k < KEYS; k++) {
        uint64_t key = atomic_load_explicit(&l->keys[k], memory_order_acquire);
        if ((key & ~FLAGS) != (uint64_t)(uintptr_t)p)
            continue;
        *r = *record_of(t, l, k);
        while (!atomic_compare_exchange_weak(&l->keys[k], &key, 0))
            if ((key & ~FLAGS) != (uint64_t)(uintptr_t)p)
                return LOST;
        if (MEMKIT_UNLIKELY((key & IN_FILTER) != 0))
            filter_add(p, -1);
        return TAKEN;
    }
    return NOT_HERE;
}

static bool take_from(const table *t, const void *p, memkit__record *r, uint64_t hash)
{
    uint64_t spilled = atomic_load_explicit(&candidate(t, hash, 0)->spilled, memory_order_relaxed);
    found f = NOT_HERE;
    for (unsigned i = 0; f == NOT_HERE && i <= spilled; i++)
        f = take_line(t, candidate(t, hash, i), p, r);
    return f == TAKEN;
}

/* Wherever it is. */
static __attribute__((noinline)) bool take_any(const void *p, memkit__record *r)
{
    uint64_t hash = hash_of(p);
    for (unsigned i = atomic_load_explicit(&n_tables, memory_order_acquire); i-- > 0;)
        if (take_from(atomic_load_explicit(&tables[i], memory_order_relaxed), p, r, hash))
            return true;
    return false;
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* The lines first: what describes a table is never given back. */
static table *make_table(size_t lines)
{
    char *memory = memkit__kept_map_spare(TABLE_BYTES(lines));
    table *t = memory != NULL ? memkit__kept_alloc(sizeof *t) : NULL;
    if (t == NULL) {
        memkit__kept_unmap(memory, TABLE_BYTES(lines));
        return NULL;
    }
    t->mask = lines - 1;
    t->lines = (line *)(void *)memory;
    t->records = (memkit__record *)(void *)(memory + lines * sizeof(line));
    return t;
}

/* Adds a table where there were `known`, of at most so many lines. False: no room for any. True
 * also where another thread did. */
static bool add_table(unsigned known, size_t lines)
{
    if (atomic_load(&n_tables) > known)
        return true;
    if (known >= MAX_TABLES)
        return false;
    table *t = NULL;
    for (; t == NULL && lines >= LEAST_LINES; lines /= 2)
        t = make_table(lines);
    if (t == NULL)
        return false;
    table *none = NULL;
    if (!atomic_compare_exchange_strong(&tables[known], &none, t))
        memkit__kept_unmap(t->lines, TABLE_BYTES(t->mask + 1));
    if (atomic_compare_exchange_strong(&n_tables, &known, known + 1)) /* whoever comes first */
        atomic_store(&newest, atomic_load(&tables[known]));
    return true;
}

static bool grow(unsigned known)
{
    if (atomic_load_explicit(&full, memory_order_relaxed))
        return false;
    int saved = errno;
    size_t lines = known > 0 ? (atomic_load(&tables[known - 1])->mask + 1) * GROWTH : SPARSE_LINES;
    bool entered = memkit__kept_enter();
    bool grown = add_table(known, lines);
    if (!grown)
        atomic_store(&full, true);
    if (entered)
        memkit__kept_leave();
    errno = saved;
    return grown;
}

void memkit__blocks_expect(const void *p)
{
    const table *t = atomic_load_explicit(&newest, memory_order_acquire);
    if (MEMKIT_LIKELY(t != NULL))
        __builtin_prefetch(candidate(t, hash_of(p), 0), 1);
}

bool memkit__blocks_reserve(const void *p, memkit__place *place)
{
    const table *t = atomic_load_explicit(&newest, memory_order_acquire);
    if (MEMKIT_UNLIKELY(t == NULL || ((uintptr_t)p & FLAGS) != 0))
        return false;
    uint64_t hash = hash_of(p);
    return MEMKIT_LIKELY(reserve(t, candidate(t, hash, 0), p, place)) ||
           reserve_in(t, p, place, hash);
}

bool memkit__blocks_put(const void *p, const memkit__record *r)
{
    if (((uintptr_t)p & FLAGS) != 0)
        return false; /* no allocator that we know */
    uint64_t hash = hash_of(p);
    for (;;) {
        unsigned n = atomic_load(&n_tables);
        if (n > 0 && put_in(atomic_load(&tables[n - 1]), p, r, hash))
            return true;
        if (grow(n))
            continue;
        for (unsigned i = n; i-- > 1;)
            if (put_in(atomic_load(&tables[i - 1]), p, r, hash))
                return true;
        return false;
    }
}

bool memkit__blocks_take(const void *p, memkit__record *r)
{
    const table *t = atomic_load_explicit(&newest, memory_order_acquire);
    found f = NOT_HERE;
    if (MEMKIT_LIKELY(t != NULL))
        f = take_line(t, candidate(t, hash_of(p), 0), p, r);
    return f == NOT_HERE ? take_any(p, r) : f == TAKEN;
}

/* Calls fn for each place that is not empty. */
static void each_key(void (*fn)(_Atomic uint64_t *key, void *arg), void *arg)
{
    unsigned n = atomic_load(&n_tables);
    for (unsigned i = 0; i < n; i++) {
        const table *t = atomic_load(&tables[i]);
        for (size_t at = 0; at <= t->mask; at++)
            for (unsigned k = 0; k < KEYS; k++)
                if (atomic_load(&t->lines[at].keys[k]) != 0)
                    fn(&t->lines[at].keys[k], arg);
    }
}

static void bring_in(_Atomic uint64_t *key, void *unused)
{
    (void)unused;
    uint64_t now;
    while ((now = atomic_load(key)) == RESERVED)
        sched_yield();
    if (now == 0 || (now & IN_FILTER) != 0)
        return;
    const void *p = (const void *)(uintptr_t)now;
    filter_add(p, 1);
    if (!atomic_compare_exchange_strong(key, &now, now | IN_FILTER))
        filter_add(p, -1);
}

bool memkit__blocks_prepare(bool will_be_dense)
{
    size_t lines = will_be_dense ? DENSE_LINES : SPARSE_LINES;
    unsigned n = atomic_load(&n_tables);
    atomic_store(&full, false);
    if ((n == 0 || (will_be_dense && atomic_load(&tables[n - 1])->mask + 1 < lines)) &&
        !add_table(n, lines) && n == 0)
        return false;
    if (will_be_dense) {
        atomic_store(&memkit__watch, &memkit__watch_all); /* before: see memkit__perhaps_sampled */
        atomic_store(&dense, true);
        return true;
    }
    if (atomic_load(&dense)) {
        atomic_store(&dense, false);
        each_key(bring_in, NULL);
    }
    atomic_store(&memkit__watch, filter);
    return true;
}

static void count_key(_Atomic uint64_t *key, void *count)
{
    size_t *n = count;
    *n += atomic_load(key) != RESERVED;
}

size_t memkit__blocks_count(void)
{
    size_t n = 0;
    each_key(count_key, &n);
    return n;
}

static void free_reserved(_Atomic uint64_t *key, void *unused)
{
    (void)unused;
    uint64_t reserved = RESERVED;
    atomic_compare_exchange_strong(key, &reserved, 0);
}

/* The other threads are gone, and some may have been filling a place. */
void memkit__blocks_in_child(void)
{
    each_key(free_reserved, NULL);
}
