/* arena_impl.h - the inside of an arena, for the files that know of its chunks: arena.c,
 * arena_resize.c, arena_check.c. The drawing is in arena.c.
 */
#ifndef MEMKIT_CORE_ARENA_IMPL_H
#define MEMKIT_CORE_ARENA_IMPL_H

#include <stdatomic.h>

#include <memkit/arena.h>

#include "core/arena.h"
#include "core/internal.h"
#include "core/track.h"

#define ALIGN MEMKIT_ARENA_ALIGN

enum { MIN_CHUNK = 256, NAME_BYTES = 48 };

typedef struct chunk {
    struct chunk *prev;
    char *base; /* first byte to give out */
    char *end;
    char *ptr;    /* where giving out stopped when another chunk became the current one */
    size_t bytes; /* the whole malloc block; 0 for `first` */
} chunk;

typedef struct big {
    struct big *prev;
    size_t bytes; /* the whole malloc block */
    size_t used;
} big;

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

/* The free rest of the current chunk begins at ptr. Where a tool looks on, the inline path sees
 * none of it: the program may be compiled without knowing of the tool, and it could not be told. */
static inline void free_from(arena *a, char *ptr)
{
    a->pub.ptr = ptr;
    a->pub.end = MEMKIT__TRACKED ? ptr : a->chunk->end;
}

#define CHUNK_HEADER ((sizeof(chunk) + ALIGN - 1) & ~(size_t)(ALIGN - 1))
#define BIG_HEADER   ((sizeof(big) + ALIGN - 1) & ~(size_t)(ALIGN - 1))

/* So many bytes more are within max_bytes, once the spares are given up where they are in the way.
 * False: ENOMEM, and nothing changed. */
bool memkit__arena_make_room(arena *a, size_t bytes);

/* The figures that other threads read, of a named arena. */
void memkit__arena_show(arena *a);

#endif
