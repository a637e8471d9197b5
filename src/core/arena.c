/* arena.c - bump allocator: chunks, big blocks, marks, defers.
 *
 *     struct arena                    chunk (malloc)                 chunk
 *     +-----------+                   +--------+------------------+  +--------+------------- - -
 *     | ptr, end  -- into current --> | header | taken | free     |  | header | taken
 *     | chunk     ------------------> | prev ------------------------> prev --> first (in arena)
 *     | bigs      ---> big block ---> older big block ---> NULL
 *     | spares    ---> chunks kept for the next request
 *     | defers    ---> nodes inside the arena's own memory, last registered first
 *     +-----------+
 *
 * `first` is a chunk header inside the control block: the caller's memory behind the control block,
 * or nothing. A request larger than a quarter of the next chunk gets a big block, so that it wastes
 * no chunk's tail. Both lists are stacks: a mark is a depth in each, and a rewind pops down to it.
 *
 * Where Valgrind or ASan looks on (track.h), only what was asked is addressable, with a gap behind
 * each block; what is free, spare or taken back is not.
 *
 * Invariants: ptr and end are multiples of the alignment within the current chunk; held_bytes is
 * the sum over chunks, spares and bigs; used_before is the sum of what was taken in all chunks but
 * the current one. Locking: none, one owner at a time; `shown_*` alone are read by other threads.
 */
#include <memkit/arena.h>

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena_impl.h"
#include "core/fork.h"
#include "core/metrics.h"

enum { DEFAULT_FIRST = 4096, DEFAULT_MAX = 1 << 20, DEFAULT_KEEP = 64 << 10 };

static size_t used_bytes(const arena *a)
{
    return a->used_before + (size_t)(a->pub.ptr - a->chunk->base) + a->big_used;
}

void memkit__arena_show(arena *a)
{
    if (!a->named)
        return;
    atomic_store_explicit(&a->shown_live, used_bytes(a), memory_order_relaxed);
    atomic_store_explicit(&a->shown_held, a->held_bytes, memory_order_relaxed);
}

void memkit__arena_row(const memkit__node *node, uint64_t *live_bytes, uint64_t *held_bytes)
{
    const arena *a = node->object;
    uint64_t live = atomic_load_explicit(&a->shown_live, memory_order_relaxed);
    uint64_t held = atomic_load_explicit(&a->shown_held, memory_order_relaxed);
    *live_bytes = live;
    *held_bytes = held;
}

/* ---- memory from malloc and back ---------------------------------------------------------------
 */

static void give_back(arena *a, void *block, size_t bytes)
{
    a->held_bytes -= bytes;
    a->chunks--;
    free(block);
}

/* True where `bytes` more are too many beside what is held but for `less` of it. */
static bool over_limit(const arena *a, size_t bytes, size_t less)
{
    return a->max_bytes != 0 &&
           (bytes > a->max_bytes || a->held_bytes - less > a->max_bytes - bytes);
}

/* What is kept for the next request gives way to what this one asks. */
static void drop_spares(arena *a)
{
    while (a->spares != NULL) {
        chunk *c = a->spares;
        a->spares = c->prev;
        a->spare_bytes -= c->bytes;
        give_back(a, c, c->bytes);
    }
}

bool memkit__arena_make_room(arena *a, size_t bytes)
{
    if (over_limit(a, bytes, a->spare_bytes)) { /* they stay, as they would not help */
        errno = ENOMEM;
        return false;
    }
    if (over_limit(a, bytes, 0))
        drop_spares(a);
    return true;
}

static void *take(arena *a, size_t bytes, bool *stocked)
{
    if (!memkit__arena_make_room(a, bytes))
        return NULL;
    uint32_t epoch = memkit__takes_now();
    void *block = malloc(bytes);
    if (block == NULL)
        return NULL;
    *stocked = memkit__own(block, epoch);
    a->held_bytes += bytes;
    if (a->held_bytes > a->peak_held)
        a->peak_held = a->held_bytes;
    a->chunks++;
    return block;
}

static void enter_chunk(arena *a, chunk *c)
{
    a->chunk->ptr = a->pub.ptr;
    a->used_before += (size_t)(a->pub.ptr - a->chunk->base);
    c->prev = a->chunk;
    a->chunk = c;
    free_from(a, c->base);
}

static chunk *spare_chunk(arena *a, size_t need)
{
    for (chunk **link = &a->spares; *link != NULL; link = &(*link)->prev) {
        chunk *c = *link;
        if ((size_t)(c->end - c->base) < need)
            continue;
        *link = c->prev;
        a->spare_bytes -= c->bytes;
        return c;
    }
    return NULL;
}

static chunk *fresh_chunk(arena *a, size_t need)
{
    size_t bytes = a->next_bytes;
    if (bytes < need + CHUNK_HEADER)
        bytes = need + CHUNK_HEADER;
    bool stocked;
    chunk *c = take(a, bytes, &stocked);
    if (c == NULL && bytes > need + CHUNK_HEADER) {
        bytes = need + CHUNK_HEADER; /* near the limit: what was asked, and no more */
        c = take(a, bytes, &stocked);
    }
    if (c == NULL)
        return NULL;
    c->bytes = bytes;
    c->stocked = stocked;
    c->base = (char *)c + CHUNK_HEADER;
    c->end = c->base + ((bytes - CHUNK_HEADER) & ~(size_t)(ALIGN - 1));
    memkit__hide(c->base, (size_t)(c->end - c->base));
    a->next_bytes = a->next_bytes <= a->max_chunk / 2 ? a->next_bytes * 2 : a->max_chunk;
    return c;
}

static void *big_alloc(arena *a, size_t n)
{
    size_t need = block_bytes(n);
    bool stocked;
    big *b = take(a, need + BIG_HEADER, &stocked);
    if (b == NULL)
        return NULL;
    b->stocked = stocked;
    b->charge = 0;
    b->bytes = need + BIG_HEADER;
    b->used = need;
    b->prev = a->bigs;
    a->bigs = b;
    a->big_used += need;
    a->big_count++;
    memkit__arena_show(a);
    memkit__hide((char *)b + BIG_HEADER + n, need - n);
    return (char *)b + BIG_HEADER;
}

static void *give_out(arena *a, size_t need, size_t n)
{
    char *p = a->pub.ptr;
    free_from(a, p + need);
    memkit__fresh(p, n);
    return p;
}

static void *alloc(arena *a, size_t need, size_t n)
{
    if (need <= (size_t)(a->chunk->end - a->pub.ptr)) /* the inline path was not shown all of it */
        return give_out(a, need, n);
    chunk *c = spare_chunk(a, need);
    if (c == NULL) {
        if (need > a->next_bytes / 4)
            return big_alloc(a, n);
        c = fresh_chunk(a, need);
        if (c == NULL)
            return NULL;
    }
    enter_chunk(a, c);
    memkit__arena_show(a);
    return give_out(a, need, n);
}

static __attribute__((noinline)) void *alloc_watched(arena *a, size_t need, size_t n,
                                                     const void *from)
{
    count_inline(a);
    bool due = memkit__take_due(&a->takes, need);
    void *p = alloc(a, need, n);
    if (p == NULL) {
        a->takes.room += (int64_t)need;
        set_end(a);
    } else if (due) {
        memkit__arena_charge(a, p, need, from);
    }
    return p;
}

void *memkit_arena_alloc_slow(memkit_arena *pub, size_t n)
{
    if (pub == NULL) {
        errno = EINVAL;
        return NULL;
    }
    arena *a = (arena *)pub;
    if (n > PTRDIFF_MAX - 2 * MIN_CHUNK) {
        errno = ENOMEM;
        return NULL;
    }
    size_t need = block_bytes(n);
    memkit__arena_sync(a);
    if (is_watched(a))
        return alloc_watched(a, need, n, MEMKIT__RETURNS_TO);
    return alloc(a, need, n);
}

/* ---- life ---------------------------------------------------------------------------------------
 */

/* A chunk doubles once before the limit is looked at: both sums stay sizes. */
static bool options_ok(const memkit_arena_opts *opts)
{
    return MEMKIT__RESERVED_OK(opts) && opts->first_chunk_bytes <= PTRDIFF_MAX / 2 &&
           (opts->max_chunk_bytes == 0 || opts->first_chunk_bytes <= opts->max_chunk_bytes);
}

static void set_options(arena *a, const memkit_arena_opts *opts)
{
    a->first_bytes = opts->first_chunk_bytes != 0 ? opts->first_chunk_bytes : DEFAULT_FIRST;
    a->max_chunk = opts->max_chunk_bytes != 0 ? opts->max_chunk_bytes : DEFAULT_MAX;
    if (a->max_chunk < MIN_CHUNK)
        a->max_chunk = MIN_CHUNK;
    if (a->max_chunk > PTRDIFF_MAX) /* as good as no limit */
        a->max_chunk = PTRDIFF_MAX;
    if (a->max_chunk < a->first_bytes && opts->max_chunk_bytes == 0)
        a->max_chunk = a->first_bytes;
    if (a->first_bytes > a->max_chunk)
        a->first_bytes = a->max_chunk;
    if (a->first_bytes < MIN_CHUNK)
        a->first_bytes = MIN_CHUNK;
    a->keep_bytes = opts->keep_bytes != 0 ? opts->keep_bytes : DEFAULT_KEEP;
    a->max_bytes = opts->max_bytes;
    a->next_bytes = a->first_bytes;
    if (opts->name != NULL) {
        snprintf(a->name, sizeof a->name, "%s", opts->name);
        a->named = true;
        a->node.object = a;
        a->node.row = memkit__arena_row;
        a->node.families = &memkit__arena_families;
        a->node.name = a->name;
    }
}

/* The control block at `a`, `spare` bytes of the owner's memory behind it. */
static memkit_arena *start(arena *a, char *behind, size_t spare, const memkit_arena_opts *opts)
{
    static const memkit_arena_opts defaults;
    memset(a, 0, sizeof *a);
    set_options(a, opts != NULL ? opts : &defaults);
    a->first.base = behind;
    a->first.end = behind + (spare & ~(size_t)(ALIGN - 1));
    a->chunk = &a->first;
    memkit__hide(a->first.base, (size_t)(a->first.end - a->first.base));
    free_from(a, a->first.base);
    memkit__arena_sync(a);
    a->serial = 1;
    if (a->named)
        memkit__register(MEMKIT__ARENA, &a->node);
    return &a->pub;
}

#define CONTROL ((sizeof(arena) + ALIGN - 1) & ~(size_t)(ALIGN - 1))

/* A named arena is registered, and a fork has to hold the registry. */
static bool may_be_named(const memkit_arena_opts *opts)
{
    return opts == NULL || opts->name == NULL || memkit__fork_ready(MEMKIT__ARENA, NULL) == 0;
}

memkit_arena *memkit_arena_new(const memkit_arena_opts *opts)
{
    if (opts != NULL && !options_ok(opts)) {
        errno = EINVAL;
        return NULL;
    }
    if (!may_be_named(opts))
        return NULL;
    arena *a = malloc(CONTROL);
    if (a == NULL)
        return NULL;
    /* An empty `first` one past the block: never read, and not NULL, as 0 bytes need an address. */
    return start(a, (char *)a + CONTROL, 0, opts);
}

memkit_arena *memkit_arena_init(void *mem, size_t size, const memkit_arena_opts *opts)
{
    _Static_assert(CONTROL + ALIGN <= 512, "the header promises 512 bytes");
    size_t pad = mem != NULL ? (size_t)(-(uintptr_t)mem & (ALIGN - 1)) : 0;
    if (mem == NULL || size > PTRDIFF_MAX || size < CONTROL + pad ||
        (opts != NULL && !options_ok(opts))) {
        errno = EINVAL;
        return NULL;
    }
    if (!may_be_named(opts))
        return NULL;
    char *at = (char *)mem + pad;
    arena *a = (arena *)(void *)at;
    memkit_arena *pub = start(a, at + CONTROL, size - pad - CONTROL, opts);
    a->callers_memory = true;
    return pub;
}

/* ---- giving back --------------------------------------------------------------------------------
 */

static bool mark_alive(const arena *a, const memkit_arena_mark *m);

/* Those since the mark, NULL: all; or fewer, where one of them rewinds past the mark, and has run
 * the rest. */
static void run_defers(arena *a, const memkit_arena_mark *m)
{
    while (a->defers != NULL && (m == NULL || (a->defers != m->defers && mark_alive(a, m)))) {
        defer *d = a->defers;
        a->defers = d->prev; /* first, so that a defer may register another */
        d->fn(d->arg);
    }
}

static void pop_bigs(arena *a, size_t count)
{
    while (a->big_count > count) {
        big *b = a->bigs;
        a->bigs = b->prev;
        a->big_count--;
        a->big_used -= b->used;
        give_back(a, b, b->bytes);
    }
}

/* The current chunk goes to the spares as far as keep_bytes allows, and the one before is current.
 */
static void pop_chunk(arena *a, size_t keep)
{
    chunk *c = a->chunk;
    a->chunk = c->prev;
    a->used_before -= (size_t)(a->chunk->ptr - a->chunk->base);
    free_from(a, a->chunk->ptr);
    memkit__hide(c->base, (size_t)(c->end - c->base));
    if (c->bytes <= keep && a->spare_bytes <= keep - c->bytes) {
        c->prev = a->spares;
        a->spares = c;
        a->spare_bytes += c->bytes;
        return;
    }
    give_back(a, c, c->bytes);
}

/* All that the current chunk gave out from `ptr` on. */
static void take_back(arena *a, char *ptr)
{
    memkit__hide(ptr, (size_t)(a->pub.ptr - ptr));
    free_from(a, ptr);
}

void memkit_arena_free(memkit_arena *pub)
{
    if (pub == NULL)
        return;
    arena *a = (arena *)pub;
    run_defers(a, NULL);
    memkit__arena_give(a, 0);
    memkit__arena_forget(a);
    if (a->named)
        memkit__unregister(MEMKIT__ARENA, &a->node);
    pop_bigs(a, 0);
    while (a->chunk != &a->first)
        pop_chunk(a, 0);
    drop_spares(a);
    memkit__fresh(a->first.base, (size_t)(a->first.end - a->first.base)); /* the caller's again */
    a->pub.ptr = a->pub.end = NULL;
    if (!a->callers_memory)
        free(a);
}

void memkit_arena_reset(memkit_arena *pub)
{
    if (pub == NULL) {
        errno = EINVAL;
        return;
    }
    arena *a = (arena *)pub;
    run_defers(a, NULL);
    a->resets++;
    a->reset_serial = a->serial;
    a->fence = NULL;
    a->fence_bigs = 0;
    memkit__arena_sync(a);
    if (MEMKIT_UNLIKELY(a->charges != NULL))
        memkit__arena_give(a, 0);
    size_t used = used_bytes(a);
    if (a->bigs == NULL && a->chunk->prev == &a->first && a->first.base == a->first.end &&
        a->chunk->bytes <= a->keep_bytes && a->spare_bytes <= a->keep_bytes - a->chunk->bytes) {
        take_back(a, a->chunk->base); /* the usual case: one chunk, kept, and it stays current */
    } else {
        pop_bigs(a, 0);
        while (a->chunk != &a->first)
            pop_chunk(a, a->keep_bytes);
        take_back(a, a->first.base);
    }
    /* A request that left the next chunk half empty was smaller than the arena had learned. */
    if (used < a->next_bytes / 4 && a->next_bytes / 2 >= a->first_bytes)
        a->next_bytes /= 2;
    memkit__arena_show(a);
}

/* ---- marks and defers ---------------------------------------------------------------------------
 */

memkit_arena_mark memkit_arena_save(memkit_arena *pub)
{
    if (pub == NULL) {
        errno = EINVAL;
        return (memkit_arena_mark){0};
    }
    arena *a = (arena *)pub;
    memkit__arena_sync(a);
    a->fence = a->pub.ptr;
    a->fence_bigs = a->big_count;
    return (memkit_arena_mark){.arena = pub,
                               .chunk = a->chunk,
                               .ptr = a->pub.ptr,
                               .defers = a->defers,
                               .bigs = a->big_count,
                               .serial = a->serial++};
}

static bool mark_alive(const arena *a, const memkit_arena_mark *m)
{
    if (m->arena != &a->pub || m->serial == 0 || m->serial < a->reset_serial ||
        m->serial >= a->serial || (m->serial > a->dead_after && m->serial <= a->dead_until) ||
        m->bigs > a->big_count)
        return false;
    const chunk *c = a->chunk;
    const char *taken_to = a->pub.ptr;
    while (c != m->chunk) {
        if (c == &a->first)
            return false;
        c = c->prev;
        taken_to = c->ptr;
    }
    return m->ptr >= c->base && m->ptr <= taken_to;
}

void memkit_arena_rewind(memkit_arena *pub, memkit_arena_mark m)
{
    if (pub == NULL) {
        errno = EINVAL;
        return;
    }
    arena *a = (arena *)pub;
    if (!mark_alive(a, &m)) {
        memkit__fault("memkit_arena_rewind: the mark is not of arena %p, or was passed by a rewind "
                      "or reset",
                      (void *)pub);
        return;
    }
    run_defers(a, &m);
    if (!mark_alive(a, &m)) /* a defer went back further, and all is done */
        return;
    memkit__arena_sync(a);
    memkit__arena_give(a, m.serial);
    pop_bigs(a, (size_t)m.bigs);
    while (a->chunk != m.chunk)
        pop_chunk(a, a->keep_bytes);
    take_back(a, m.ptr);
    a->fence = m.ptr;
    a->fence_bigs = a->big_count;
    a->dead_after = m.serial;
    a->dead_until = a->serial - 1;
    memkit__arena_show(a);
}

int memkit_arena_defer(memkit_arena *pub, void (*fn)(void *), void *arg)
{
    if (pub == NULL || fn == NULL) {
        errno = EINVAL;
        return -1;
    }
    arena *a = (arena *)pub;
    defer *d = memkit_arena_alloc(pub, sizeof *d);
    if (d == NULL)
        return -1;
    *d = (defer){a->defers, fn, arg};
    a->defers = d;
    return 0;
}

void memkit_arena_stats(const memkit_arena *pub, memkit_arena_stats_t *out)
{
    if (pub == NULL || out == NULL) {
        errno = EINVAL;
        return;
    }
    const arena *a = (const arena *)pub;
    *out = (memkit_arena_stats_t){.used_bytes = used_bytes(a),
                                  .held_bytes = a->held_bytes,
                                  .peak_held_bytes = a->peak_held,
                                  .chunks = a->chunks,
                                  .resets = a->resets};
}
