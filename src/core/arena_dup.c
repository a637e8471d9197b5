/* arena_dup.c - what is built on memkit_arena_alloc: aligned and cleared memory, copies, printf.
 *
 * Knows of an arena only the two public pointers; the chunks are arena.c's.
 */
#include <memkit/arena.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/internal.h"
#include "core/track.h"

void *memkit_arena_alloc_aligned(memkit_arena *a, size_t n, size_t align)
{
    if (a == NULL || align == 0 || (align & (align - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    if (align <= MEMKIT_ARENA_ALIGN)
        return memkit_arena_alloc(a, n);
    /* Compare what remains, never a raised pointer, which could wrap. */
    size_t room = (size_t)(a->end - a->ptr), pad = (size_t)(-(uintptr_t)a->ptr & (align - 1));
    if (pad <= room && n <= room - pad) {
        a->ptr += pad;
        return memkit_arena_alloc(a, n);
    }
    size_t padded;
    if (!memkit__add(n, align - MEMKIT_ARENA_ALIGN, &padded)) {
        errno = ENOMEM;
        return NULL;
    }
    char *p = memkit_arena_alloc(a, padded);
    if (p == NULL)
        return NULL;
    size_t before = (size_t)(-(uintptr_t)p & (align - 1));
    memkit__hide(p, before);
    memkit__hide(p + before + n, padded - before - n);
    return p + before;
}

void *memkit_arena_calloc(memkit_arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (a == NULL) {
        errno = EINVAL;
        return NULL;
    }
    if (!memkit__mul(n, size, &bytes)) {
        errno = EOVERFLOW;
        return NULL;
    }
    void *p = memkit_arena_alloc(a, bytes);
    return p == NULL ? NULL : memset(p, 0, bytes);
}

void *memkit_arena_memdup(memkit_arena *a, const void *p, size_t n)
{
    if (a == NULL || (p == NULL && n > 0)) {
        errno = EINVAL;
        return NULL;
    }
    void *copy = memkit_arena_alloc(a, n);
    return copy == NULL || n == 0 ? copy : memcpy(copy, p, n);
}

static char *dup_bytes(memkit_arena *a, const char *s, size_t len)
{
    char *copy = memkit_arena_alloc(a, len + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *memkit_arena_strdup(memkit_arena *a, const char *s)
{
    if (a == NULL || s == NULL) {
        errno = EINVAL;
        return NULL;
    }
    return dup_bytes(a, s, strlen(s));
}

char *memkit_arena_strndup(memkit_arena *a, const char *s, size_t n)
{
    if (a == NULL || s == NULL) {
        errno = EINVAL;
        return NULL;
    }
    return dup_bytes(a, s, strnlen(s, n));
}

char *memkit_arena_printf(memkit_arena *a, const char *fmt, ...)
{
    if (a == NULL || fmt == NULL) {
        errno = EINVAL;
        return NULL;
    }
    size_t room = (size_t)(a->end - a->ptr);
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(room > 0 ? a->ptr : NULL, room, fmt, ap);
    va_end(ap);
    if (len < 0)
        return NULL;
    bool fitted = (size_t)len < room;
    char *out = memkit_arena_alloc(a, (size_t)len + 1); /* where it fitted: these very bytes */
    if (out == NULL || fitted)
        return out;
    va_start(ap, fmt);
    vsnprintf(out, (size_t)len + 1, fmt, ap);
    va_end(ap);
    return out;
}
