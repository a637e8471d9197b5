/* arena_impl.h - the inside of an arena, for the files that know of its chunks: arena.c,
 * arena_resize.c, arena_check.c. The drawing is in arena.c.
 */
#ifndef MEMKIT_CORE_ARENA_IMPL_H
#define MEMKIT_CORE_ARENA_IMPL_H

#include <stdatomic.h>

#include <memkit/arena.h>

#include "core/arena.h"
#include "core/internal.h"
#include "core/takes.h"
#include "core/track.h"

#define ALIGN MEMKIT_ARENA_ALIGN

enum { MIN_CHUNK = 256, NAME_BYTES = 48 };

typedef struct chunk {
    struct chunk *prev;
    char *base; /* first byte to give out */
    char *end;
    char *ptr;    /* where giving out stopped when another chunk became the current one */
    size_t bytes; /* the whole malloc block; 0 for `first` */
    bool stocked; /* see takes.h */
} chunk;

typedef struct big {
    struct big *prev;
    size_t bytes; /* the whole malloc block */
    size_t used;
    bool stocked;
    uint32_t charge; /* 1 + its index in the arena's charges, 0: none */
} big;

/* What was sampled of what the arena gave out (arena_takes.c). */
typedef struct {
    uint64_t token;
    size_t bytes;
    uint64_t objects; /* of one stack, one after the other: at a mean of 1 byte alone */
    uint64_t serial;  /* of the mark that comes next */
    char *end;        /* ptr after the latest; NULL: a big block */
} charge;

typedef struct defer {
    struct defer *prev;
    void (*fn)(void *);
    void *arg;
} defer;

typedef struct {
    memkit_arena pub; /* ptr, end: what the inline path sees */
    chunk *chunk;
    chunk *spares;
    big *bigs;
    defer *defers;
    char *fence; /* ptr at the latest mark: what lies below is older than it, and never resized in
                    place */
    size_t fence_bigs; /* and the same for so many big blocks */
    size_t used_before, big_used, big_count;
    size_t next_bytes; /* size of the next chunk */
    size_t first_bytes, max_chunk, keep_bytes, max_bytes;
    size_t held_bytes, peak_held, spare_bytes, chunks;
    uint64_t resets;
    uint64_t serial;                 /* of the next mark */
    uint64_t reset_serial;           /* marks before this one died at a reset */
    uint64_t dead_after, dead_until; /* marks in (after, until] died at the latest rewind */
    bool callers_memory;
    bool named;
    memkit__countdown takes; /* what it says is as of counted_to */
    char *counted_to;
    charge *charges; /* the latest last */
    uint32_t charge_count, charge_room;
    chunk first;
    memkit__node node;
    _Atomic uint64_t shown_live, shown_held;
    char name[NAME_BYTES];
} arena;

static inline size_t round_up(size_t n)
{
    return (n + (ALIGN - 1)) & ~(size_t)(ALIGN - 1);
}

/* Where a tool looks on, so many hidden bytes lie behind each block, and an overrun is seen. */
enum { REDZONE = MEMKIT__TRACKED ? 16 : 0 };

/* What a block of n bytes takes. */
static inline size_t block_bytes(size_t n)
{
    return round_up(n) + REDZONE;
}

static inline bool is_watched(const arena *a)
{
    return MEMKIT_UNLIKELY((a->takes.epoch & 1) != 0);
}

/* What the inline path gave out since comes off the countdown. */
static inline void count_inline(arena *a)
{
    a->takes.room -= a->pub.ptr - a->counted_to;
    a->counted_to = a->pub.ptr;
}

/* The inline path's end: the chunk's, or where the countdown runs out before. */
static inline void set_end(arena *a)
{
    char *ptr = a->pub.ptr;
    a->pub.end = MEMKIT__TRACKED ? ptr : a->chunk->end;
    if (is_watched(a) && a->takes.room < a->pub.end - ptr)
        a->pub.end = ptr + (a->takes.room > 0 ? a->takes.room & ~(int64_t)(ALIGN - 1) : 0);
}

/* The free rest of the current chunk begins at ptr. Where a tool looks on, the inline path sees
 * none of it: the program may be compiled without knowing of the tool, and it could not be told. */
static inline void free_from(arena *a, char *ptr)
{
    if (is_watched(a))
        count_inline(a);
    a->pub.ptr = a->counted_to = ptr;
    set_end(a);
}

#define CHUNK_HEADER ((sizeof(chunk) + ALIGN - 1) & ~(size_t)(ALIGN - 1))
#define BIG_HEADER   ((sizeof(big) + ALIGN - 1) & ~(size_t)(ALIGN - 1))

/* So many bytes more are within max_bytes, once the spares are given up where they are in the way.
 * False: ENOMEM, and nothing changed. */
bool memkit__arena_make_room(arena *a, size_t bytes);

/* arena_takes.c */

/* Takes have begun, ended or have another rate: for memkit__arena_sync. */
void memkit__arena_watch(arena *a);

/* The block at p, of `need` bytes, was given out, at a sample point: to who goes on at `from`. */
void memkit__arena_charge(arena *a, char *p, size_t need, const void *from);

/* The latest block of the current chunk, or the latest big one, has another size. */
void memkit__arena_resized(arena *a, char *p, size_t old_need, size_t need, char *old_ptr);
void memkit__arena_big_resized(arena *a, big *b, size_t old_need);

/* What was given out from the mark of that serial on comes back; 0: everything. */
void memkit__arena_give(arena *a, uint64_t serial);
void memkit__arena_forget(arena *a);

static inline void memkit__arena_sync(arena *a)
{
    if (MEMKIT_UNLIKELY(a->takes.epoch != memkit__takes_now()))
        memkit__arena_watch(a);
}

/* The figures that other threads read, of a named arena. */
void memkit__arena_show(arena *a);

#endif
