/* mem.c - the profiler's own memory: mappings, never malloc.
 *
 *     current --> chunk [head | piece | piece | ...        ]   kept pieces: 64 KiB mappings, never
 *                 chunk [head | piece | piece | piece | ...]   given back; older ones are only
 *                                                              pointed at from outside
 *
 * - Kept memory is counted in whole pages before it is mapped, so that the bound holds with any
 *   number of threads. Nothing here takes a lock: a piece is had by one atomic add; threads that
 *   find a chunk full map one each, and all but one give it back.
 * - Scratch is a list of chunks that double up to 1 MiB; it has one owner.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "core/internal.h"

#define PAGE        ((size_t)4096)
#define CHUNK       ((size_t)64 * 1024)
#define SCRATCH_MIN ((size_t)64 * 1024)
#define SCRATCH_MAX ((size_t)1024 * 1024)
#define ALIGN_UP(n) (((n) + 15) & ~(size_t)15)

typedef struct {
    _Alignas(16) atomic_size_t used;
} chunk;

typedef struct memkit__scratch_chunk {
    _Alignas(16) struct memkit__scratch_chunk *older;
    size_t bytes;
} scratch_chunk;

static atomic_size_t kept;
static atomic_size_t limit = SIZE_MAX;
static _Atomic(chunk *) current;

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool to_pages(size_t bytes, size_t *pages)
{
    if (!memkit__add(bytes, PAGE - 1, pages))
        return false;
    *pages &= ~(PAGE - 1);
    return true;
}

void memkit__kept_limit(size_t max_bytes)
{
    atomic_store(&limit, max_bytes);
}

size_t memkit__kept_bytes(void)
{
    return atomic_load(&kept);
}

static void *map_within(size_t bytes, size_t bound)
{
    size_t pages;
    if (to_pages(bytes, &pages)) {
        size_t before = atomic_fetch_add(&kept, pages);
        void *p = before + pages <= bound ? map(pages) : NULL;
        if (p != NULL)
            return p;
        atomic_fetch_sub(&kept, pages);
    }
    errno = ENOMEM;
    return NULL;
}

void *memkit__kept_map(size_t bytes)
{
    return map_within(bytes, atomic_load(&limit));
}

void *memkit__kept_map_spare(size_t bytes)
{
    size_t bound = atomic_load(&limit);
    return map_within(bytes, bound - bound / 4);
}

void memkit__kept_unmap(void *p, size_t bytes)
{
    size_t pages;
    if (p == NULL || !to_pages(bytes, &pages))
        return;
    munmap(p, pages);
    atomic_fetch_sub(&kept, pages);
}

void *memkit__kept_alloc(size_t bytes)
{
    if (bytes > CHUNK / 4)
        return memkit__kept_map(bytes);
    bytes = ALIGN_UP(bytes);
    for (;;) {
        chunk *c = atomic_load(&current);
        if (c != NULL) {
            size_t at = atomic_fetch_add(&c->used, bytes);
            if (at + bytes <= CHUNK)
                return (char *)c + at;
        }
        chunk *more = memkit__kept_map(CHUNK);
        if (more == NULL)
            return NULL;
        atomic_store(&more->used, sizeof *more);
        if (!atomic_compare_exchange_strong(&current, &c, more))
            memkit__kept_unmap(more, CHUNK); /* another thread was faster */
    }
}

void *memkit__scratch_alloc(memkit__scratch *s, size_t bytes)
{
    size_t wanted;
    if (!memkit__add(bytes, sizeof(scratch_chunk) + 16, &wanted)) {
        errno = ENOMEM;
        return NULL;
    }
    bytes = ALIGN_UP(bytes);
    if (s->ptr == NULL || (size_t)(s->end - s->ptr) < bytes) {
        size_t size = s->newest == NULL ? SCRATCH_MIN : s->newest->bytes * 2;
        size = size > SCRATCH_MAX ? SCRATCH_MAX : size;
        if (size < wanted && !to_pages(wanted, &size)) {
            errno = ENOMEM;
            return NULL;
        }
        scratch_chunk *c = map(size);
        if (c == NULL) {
            errno = ENOMEM;
            return NULL;
        }
        c->older = s->newest;
        c->bytes = size;
        s->newest = c;
        s->ptr = (char *)(c + 1);
        s->end = (char *)c + size;
    }
    void *p = s->ptr;
    s->ptr += bytes;
    return p;
}

void *memkit__scratch_array(memkit__scratch *s, size_t n, size_t size)
{
    size_t bytes;
    if (!memkit__mul(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return memkit__scratch_alloc(s, bytes);
}

char *memkit__scratch_strndup(memkit__scratch *s, const char *text, size_t n)
{
    char *copy = memkit__scratch_alloc(s, n + 1);
    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

void memkit__scratch_free(memkit__scratch *s)
{
    for (scratch_chunk *c = s->newest; c != NULL;) {
        scratch_chunk *older = c->older;
        munmap(c, c->bytes);
        c = older;
    }
    *s = (memkit__scratch){0};
}
