/* memkit/arena.h - bump allocator for what dies together; one owner at a time.
 *
 *     memkit_arena *a = memkit_arena_new(NULL);
 *     for (;;) {
 *         request *r = memkit_arena_calloc(a, 1, sizeof *r);   // no free: it goes with the arena
 *         r->name = memkit_arena_strdup(a, name);
 *         serve(r);
 *         memkit_arena_reset(a);                               // all of it, at once
 *     }
 *     memkit_arena_free(a);
 *
 * Chunk policy: the first chunk has first_chunk_bytes, each further one twice the last up to
 * max_chunk_bytes; a request larger than a quarter of the next chunk gets a chunk of its own size.
 * Chunks come from malloc. An arena is used by one thread at a time.
 */
#ifndef MEMKIT_ARENA_H
#define MEMKIT_ARENA_H

#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* What the inline path reads, frozen: [ptr, end) is free, both aligned to MEMKIT_ARENA_ALIGN. The
 * rest of the object lies behind and is private. */
typedef struct memkit_arena {
    char *ptr;
    char *end;
} memkit_arena;

#define MEMKIT_ARENA_ALIGN _Alignof(max_align_t)
#ifdef __cplusplus
#undef MEMKIT_ARENA_ALIGN
#define MEMKIT_ARENA_ALIGN alignof(max_align_t)
#endif

/* Zero in a field means its default. */
typedef struct {
    const char
        *name; /* label in the metrics, its first 47 bytes copied; NULL: not in the metrics */
    size_t first_chunk_bytes; /* default 4 KiB */
    size_t max_chunk_bytes;   /* default 1 MiB */
    size_t keep_bytes; /* reset keeps at most so much for the next request; default 64 KiB; the
                          caller's memory is always kept */
    size_t
        max_bytes; /* chunks of more than this in all are refused with ENOMEM; default: no limit */
    uint64_t reserved[6]; /* zero */
} memkit_arena_opts;

typedef struct {
    uint64_t used_bytes; /* given out and not taken back, alignment included, the arena's own defers
                            too */
    uint64_t held_bytes; /* taken from malloc, chunk headers included; the caller's memory not */
    uint64_t peak_held_bytes; /* the most of that */
    uint64_t chunks;          /* in held_bytes */
    uint64_t resets;          /* memkit_arena_reset calls */
    uint64_t reserved[6];     /* zeroed */
} memkit_arena_stats_t;

/* A place to go back to. Private inside; a value, to be kept anywhere. */
typedef struct {
    const memkit_arena *arena;
    void *chunk;
    char *ptr;
    void *defers;
    uint64_t bigs;
    uint64_t serial;
} memkit_arena_mark;

/* A new arena; opts NULL: all defaults. Allocates its control block, no chunk yet. Free it with
 * memkit_arena_free. NULL: ENOMEM; EINVAL (reserved not zero, first_chunk_bytes no size or above
 * max_chunk_bytes). */
MEMKIT_API MEMKIT_NODISCARD memkit_arena *memkit_arena_new(const memkit_arena_opts *opts);

/* An arena that lives in the caller's memory first, its control block (at most 512 bytes) included:
 * no malloc until that is full. mem needs no alignment, stays the caller's, and must outlive the
 * arena, which still wants memkit_arena_free (it runs the defers and gives back added chunks).
 * NULL: EINVAL (mem NULL, size too small or none that an object has, or as memkit_arena_new). */
MEMKIT_API MEMKIT_NODISCARD memkit_arena *memkit_arena_init(void *mem, size_t size,
                                                            const memkit_arena_opts *opts);

/* Runs the defers, last first, and ends the arena and all it gave out. NULL is allowed. */
MEMKIT_API void memkit_arena_free(memkit_arena *a);

/* The slow path of memkit_arena_alloc, for it alone. */
MEMKIT_API void *memkit_arena_alloc_slow(memkit_arena *a, size_t n);

/* n bytes, not cleared, aligned to max_align_t; n = 0 gives a valid pointer to no bytes.
 * NULL: EINVAL (a NULL), ENOMEM; nothing is lost. */
__attribute__((malloc, alloc_size(2))) static inline void *memkit_arena_alloc(memkit_arena *a,
                                                                              size_t n)
{
    /* What is left is a multiple of the alignment, so if n fits, n rounded up fits: no overflow. */
    if (MEMKIT_LIKELY(a != NULL) && MEMKIT_LIKELY(n <= (size_t)(a->end - a->ptr))) {
        char *p = a->ptr;
        a->ptr = p + ((n + (MEMKIT_ARENA_ALIGN - 1)) & ~(size_t)(MEMKIT_ARENA_ALIGN - 1));
        return p;
    }
    return memkit_arena_alloc_slow(a, n);
}

/* As memkit_arena_alloc at any alignment that is a power of two, else EINVAL. It may take align -
 * 16 bytes more than asked; one that no memory has is ENOMEM. */
MEMKIT_API void *memkit_arena_alloc_aligned(memkit_arena *a, size_t n, size_t align);

/* n objects of `size` bytes, cleared. NULL: EINVAL, EOVERFLOW (n * size is no size), ENOMEM. */
MEMKIT_API void *memkit_arena_calloc(memkit_arena *a, size_t n, size_t size);

/* p, of which old_n bytes were asked, with n bytes: in place when p was the last allocation and
 * there is room, or when n <= old_n; else a copy, and p's bytes stay lost until a rewind. What is
 * older than the latest mark is copied to grow, so that a rewind finds p as it was. p NULL with
 * old_n 0: as memkit_arena_alloc. The alignment is that of memkit_arena_alloc. NULL: EINVAL (also p
 * NULL with old_n > 0), ENOMEM, and p is as it was. */
MEMKIT_API void *memkit_arena_realloc(memkit_arena *a, void *p, size_t old_n, size_t n);

/* Copies. EINVAL for NULL (p may be NULL with n = 0); memkit_arena_strndup reads at most n bytes of
 * s; memkit_arena_printf formats once where the result fits in what is left of the chunk. NULL:
 * EINVAL, ENOMEM, and vsnprintf's own; nothing is given out then. */
MEMKIT_API char *memkit_arena_strdup(memkit_arena *a, const char *s);
MEMKIT_API char *memkit_arena_strndup(memkit_arena *a, const char *s, size_t n);
MEMKIT_API char *memkit_arena_printf(memkit_arena *a, const char *fmt, ...) MEMKIT_PRINTF(2, 3);
MEMKIT_API void *memkit_arena_memdup(memkit_arena *a, const void *p, size_t n);

/* The present place, to rewind to. EINVAL for NULL, and the mark is empty. */
MEMKIT_API memkit_arena_mark memkit_arena_save(memkit_arena *a);

/* Takes back all that was given out since the mark, after running the defers since then, last
 * first; of the chunks that came since, up to keep_bytes are kept. A mark may be gone back to more
 * than once. A mark of another arena is a fault, and so is one that a reset, or the latest rewind,
 * has passed. */
MEMKIT_API void memkit_arena_rewind(memkit_arena *a, memkit_arena_mark m);

/* Takes back everything, after running the defers, and keeps up to keep_bytes of chunks (and the
 * caller's memory) for the next request. */
MEMKIT_API void memkit_arena_reset(memkit_arena *a);

/* Has fn(arg) called at the rewind, reset or free that takes this moment back; last first. fn may
 * read what the arena gave out before the defer, and may use the arena. 0; -1: EINVAL, ENOMEM. */
MEMKIT_API int memkit_arena_defer(memkit_arena *a, void (*fn)(void *), void *arg);

/* Reads the figures. O(1). EINVAL for NULL, and *out is untouched. Same thread as the owner; the
 * metrics read a named arena's figures as of the last chunk it took or gave back. */
MEMKIT_API void memkit_arena_stats(const memkit_arena *a, memkit_arena_stats_t *out);

MEMKIT_END_DECLS

#endif
