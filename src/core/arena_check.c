/* arena_check.c - the invariants of arena.c, walked in full. For tests. */
#include "core/arena_impl.h"

const char *memkit__arena_check(const memkit_arena *pub)
{
    const arena *a = (const arena *)pub;
    size_t held = 0, blocks = 0, before = 0, bigs = 0, big_used = 0, spare = 0;
    const char *end = MEMKIT__TRACKED ? a->pub.ptr : a->chunk->end;
    if (a->pub.ptr < a->chunk->base || a->pub.ptr > a->chunk->end ||
        (is_watched(a) ? a->pub.end < a->pub.ptr || a->pub.end > end : a->pub.end != end))
        return "ptr or end outside the current chunk";
    if (((uintptr_t)a->pub.ptr | (uintptr_t)a->pub.end) & (ALIGN - 1))
        return "ptr or end not aligned";
    for (const chunk *c = a->chunk; c != &a->first; c = c->prev) {
        held += c->bytes;
        blocks++;
        before += (size_t)(c->prev->ptr - c->prev->base);
    }
    for (const chunk *c = a->spares; c != NULL; c = c->prev) {
        spare += c->bytes;
        blocks++;
    }
    for (const big *b = a->bigs; b != NULL; b = b->prev) {
        held += b->bytes;
        big_used += b->used;
        bigs++;
    }
    if (held + spare != a->held_bytes || spare != a->spare_bytes || blocks + bigs != a->chunks)
        return "held bytes are not the sum over chunks";
    if (before != a->used_before || big_used != a->big_used || bigs != a->big_count)
        return "used bytes are not the sum over chunks";
    if (spare > a->keep_bytes)
        return "more kept than keep_bytes";
    return NULL;
}
