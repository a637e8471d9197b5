/* malloc.c - the malloc family as the program and its libc see it: the real one, counted.
 *
 *     malloc -> real.malloc -> usable size -> count -> return       counted after it succeeded
 *     free   -> usable size -> count -> real.free                   before, while p is ours
 *
 * What counts is said in memkit/stats.h. Nothing here sets errno, so that what the caller sees is
 * what the real function left. malloc_usable_size itself is not replaced: what it says is true.
 * C++'s operators are in cxx.c.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "hook/counters.h"
#include "hook/real.h"

/* Unversioned, see libmemkit-prof.map. */
#define EXPORT __attribute__((visibility("default")))

/* The four functions out of line are jumped to, last thing, so that the ones they come from need to
 * save no register for them. */
__attribute__((noinline)) static void *counted_by_call(void *p)
{
    memkit__count_malloc(memkit__real.usable(p));
    return p;
}

__attribute__((noinline)) static void *counted_slowly(void *p, size_t bytes)
{
    memkit__count_slow(bytes, 0, 1, 0);
    return p;
}

__attribute__((noinline)) static void free_slowly(void *p, size_t bytes)
{
    memkit__count_slow(0, bytes, 0, 1);
    memkit__real.free(p);
}

__attribute__((noinline)) static void free_by_call(void *p)
{
    memkit__count_free(memkit__real.usable(p));
    memkit__real.free(p);
}

static inline void *counted(void *p)
{
    size_t bytes = 0; /* gcc -Og does not see that it is always set */
    if (MEMKIT_UNLIKELY(p == NULL))
        return NULL;
    if (MEMKIT_UNLIKELY(!memkit__read_usable(p, &bytes)))
        return counted_by_call(p);
    if (MEMKIT_UNLIKELY(!memkit__try_count_malloc(bytes)))
        return counted_slowly(p, bytes);
    return p;
}

EXPORT void *malloc(size_t n)
{
    return counted(memkit__real.malloc(n));
}

EXPORT void *calloc(size_t n, size_t size)
{
    return counted(memkit__real.calloc(n, size));
}

EXPORT void free(void *p)
{
    size_t bytes = 0; /* gcc -Og does not see that it is always set */
    if (p == NULL)
        return;
    if (MEMKIT_UNLIKELY(!memkit__read_usable(p, &bytes))) {
        free_by_call(p);
        return;
    }
    if (MEMKIT_UNLIKELY(!memkit__try_count_free(bytes))) {
        free_slowly(p, bytes);
        return;
    }
    memkit__real.free(p);
}

EXPORT void *realloc(void *p, size_t n)
{
    if (p == NULL)
        return counted(memkit__real.realloc(NULL, n));
    size_t old = memkit__usable(p);
    void *q = memkit__real.realloc(p, n);
    if (MEMKIT_LIKELY(q != NULL))
        memkit__count_realloc(old, memkit__usable(q));
    else if (n == 0)
        memkit__count_free(old); /* glibc's: freed, and NULL is no failure */
    return q;
}

/* Not the real one: glibc's calls realloc, ours, and would be counted twice. The realloc is the one
 * that the program sees, since that of another malloc in front knows its own blocks alone. */
EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
    static _Atomic(void *) seen;
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *fn = atomic_load_explicit(&seen, memory_order_relaxed);
    if (fn == NULL) {
        int saved = errno;
        fn = dlsym(RTLD_DEFAULT, "realloc");
        atomic_store_explicit(&seen, fn, memory_order_relaxed);
        errno = saved;
    }
    void *(*their_realloc)(void *, size_t) = realloc;
    if (fn != NULL)
        memcpy(&their_realloc, &fn, sizeof fn);
    return their_realloc(p, bytes);
}

EXPORT int posix_memalign(void **out, size_t align, size_t n)
{
    int error = memkit__real.posix_memalign(out, align, n);
    if (error == 0)
        counted(*out);
    return error;
}

EXPORT void *aligned_alloc(size_t align, size_t n)
{
    return counted(memkit__real.aligned_alloc(align, n));
}

EXPORT void *memalign(size_t align, size_t n)
{
    return counted(memkit__real.memalign(align, n));
}

EXPORT void *valloc(size_t n)
{
    return counted(memkit__real.valloc(n));
}

EXPORT void *pvalloc(size_t n)
{
    return counted(memkit__real.pvalloc(n));
}

/* A program that links the archive refers to malloc alone: draws the rest of the hook in. */
__attribute__((used)) static const memkit__prof_table *(*const attach)(const memkit__core_table *) =
    memkit_prof_attach;
