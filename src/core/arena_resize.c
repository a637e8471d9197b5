/* arena_resize.c - memkit_arena_realloc: in place where p was the last thing given out, else a
 * copy. */
#include <stdlib.h>
#include <string.h>

#include "core/arena_impl.h"

/* p in place with n bytes, where p is the last thing the current chunk gave out. Not where a mark
 * was saved since: a rewind to it would cut p's new end off, or find its own place gone. */
static bool resize_last(arena *a, char *p, size_t old_n, size_t n)
{
    if (a->fence > a->chunk->base && a->fence <= a->chunk->end && p < a->fence)
        return false;
    size_t room = (size_t)(a->chunk->end - a->chunk->base);
    if (old_n > room || p < a->chunk->base || p > a->pub.ptr ||
        p + block_bytes(old_n) != a->pub.ptr || block_bytes(n) > (size_t)(a->chunk->end - p))
        return false;
    char *old_ptr = a->pub.ptr;
    free_from(a, p + block_bytes(n));
    if (is_watched(a) || MEMKIT_UNLIKELY(a->charges != NULL))
        memkit__arena_resized(a, p, block_bytes(old_n), block_bytes(n), old_ptr);
    return true;
}

/* True where p may be older than a mark: a rewind brings its bytes back as they were, so that no
 * tool may call them gone. */
static bool may_return(const arena *a, const char *p)
{
    bool newer = a->fence >= a->chunk->base && a->fence <= p && p < a->chunk->end;
    return a->fence != NULL && !newer;
}

/* Tells the tools of a block that stayed where it is. */
static void resized(const arena *a, char *p, size_t old_n, size_t n)
{
    if (n <= old_n && !may_return(a, p))
        memkit__hide(p + n, round_up(old_n) - n);
    else if (n > old_n)
        memkit__fresh(p + old_n, n - old_n);
}

/* The same for the last big block, where no mark was saved since: malloc may extend it, and at
 * worst moves it without leaving a hole behind. NULL with errno where it fails. */
static void *resize_big(arena *a, size_t old_n, size_t n)
{
    big *b = a->bigs;
    size_t need = block_bytes(n), bytes = need + BIG_HEADER;
    if (bytes > b->bytes && !memkit__arena_make_room(a, bytes - b->bytes))
        return NULL;
    uint32_t epoch = memkit__takes_now();
    big *moved = realloc(b, bytes);
    if (moved == NULL)
        return NULL;
    size_t old_need = moved->used;
    moved->stocked = memkit__own(moved, epoch);
    a->held_bytes = a->held_bytes - moved->bytes + bytes;
    if (a->held_bytes > a->peak_held)
        a->peak_held = a->held_bytes;
    a->big_used = a->big_used - moved->used + need;
    moved->bytes = bytes;
    moved->used = need;
    a->bigs = moved;
    if (is_watched(a) || MEMKIT_UNLIKELY(a->charges != NULL))
        memkit__arena_big_resized(a, moved, old_need);
    memkit__arena_show(a);
    char *p = (char *)moved + BIG_HEADER;
    resized(a, p, old_n, n);
    memkit__hide(p + n, need - n);
    return p;
}

void *memkit_arena_realloc(memkit_arena *pub, void *p, size_t old_n, size_t n)
{
    if (pub == NULL || (p == NULL && old_n > 0)) {
        errno = EINVAL;
        return NULL;
    }
    if (p == NULL)
        return memkit_arena_alloc(pub, n);
    if (n > PTRDIFF_MAX - 2 * MIN_CHUNK) {
        errno = ENOMEM;
        return NULL;
    }
    arena *a = (arena *)pub;
    if (resize_last(a, p, old_n, n) || n <= old_n) {
        resized(a, p, old_n, n);
        return p;
    }
    if (a->big_count > a->fence_bigs && p == (char *)a->bigs + BIG_HEADER)
        return resize_big(a, old_n, n);
    bool gone = !may_return(a, p);
    void *copy = memkit_arena_alloc(pub, n);
    if (copy == NULL)
        return NULL;
    memcpy(copy, p, old_n);
    if (gone)
        memkit__hide(p, old_n);
    return copy;
}
