/* real.h - the allocator under the hook: the next definition of each function after ours. */
#ifndef MEMKIT_HOOK_REAL_H
#define MEMKIT_HOOK_REAL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/internal.h"

/* Until the first call every member is a stub that resolves all of them and goes on with the real
 * one, so that a caller never asks whether it may call. Written at that time, and at the start once
 * more for MEMKIT_TIMING; by whole words, and what they replace goes on working: readers take plain
 * loads. */
typedef struct {
    void *(*malloc)(size_t n);
    void (*free)(void *p);
    size_t (*usable)(void *p); /* malloc_usable_size */
    bool headers;              /* it may be read: see memkit__read_usable */
    void *(*calloc)(size_t n, size_t size);
    void *(*realloc)(void *p, size_t n);
    int (*posix_memalign)(void **out, size_t align, size_t n);
    void *(*aligned_alloc)(size_t align, size_t n);
    void *(*memalign)(size_t align, size_t n);
    void *(*valloc)(size_t n);
    void *(*pvalloc)(size_t n);
} memkit__real_table;

extern memkit__real_table memkit__real __attribute__((visibility("hidden")));

/* Puts the functions in place again, those of timing.c in front of them if it is on. */
void memkit__real_install(void) __attribute__((visibility("hidden")));

/* False while this very thread is finding the functions. */
bool memkit__real_known(void) __attribute__((visibility("hidden")));

/* Then: true when fn is of the same object as the malloc underneath. */
bool memkit__beside_real_malloc(const void *fn) __attribute__((visibility("hidden")));

/* True, and *size what malloc_usable_size(p) would say, where that was found to be readable
 * (real.c, has_headers). The word before a block of glibc is its chunk's size, with 1 for "the one
 * before is in use", 2 for "a mapping of its own", 4 for "not of the main arena"; of the chunk the
 * block has all but that word. */
static inline bool memkit__read_usable(const void *p, size_t *size)
{
    if (MEMKIT_UNLIKELY(!memkit__real.headers))
        return false;
    size_t head = ((const size_t *)p)[-1];
    if (MEMKIT_UNLIKELY((head & 2) != 0))
        return false; /* has a second word before it; and the call is nothing beside the mapping */
    *size = (head & ~(size_t)7) - sizeof head;
    return true;
}

static inline size_t memkit__usable(void *p)
{
    size_t size;
    return memkit__read_usable(p, &size) ? size : memkit__real.usable(p);
}

#endif
