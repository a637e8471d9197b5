/* malloc.c - the malloc family as the program and its libc see it: the real one, counted.
 *
 *     malloc -> real.malloc -> usable size -> count -> is a sample due? -> return
 *     free   -> usable size -> count -> was it sampled? -> real.free
 *
 * An allocation is counted after it succeeded, a free before, while p is still ours.
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
#include "prof/sampler.h"

/* Unversioned, see libmemkit-prof.map. */
#define EXPORT __attribute__((visibility("default")))

/* The functions out of line are jumped to, last thing, so that the ones they come from need to save
 * no register for them. */
__attribute__((noinline)) static void *counted_slowly(void *p, size_t bytes, size_t n, uintptr_t fn,
                                                      const void *caller)
{
    memkit__count_slow(bytes, 0, 1, 0);
    return memkit__on_alloc(p, bytes, n, fn, caller);
}

__attribute__((noinline)) static void *counted_by_call(void *p, size_t n, uintptr_t fn,
                                                       const void *caller)
{
    size_t bytes = memkit__real.usable(p);
    return memkit__count_malloc(bytes) ? memkit__on_alloc(p, bytes, n, fn, caller) : p;
}

__attribute__((noinline)) static void free_watched(void *p)
{
    if (memkit__perhaps_sampled(p))
        memkit__on_free(p);
    memkit__real.free(p);
}

__attribute__((noinline)) static void free_slowly(void *p, size_t bytes)
{
    memkit__count_slow(0, bytes, 0, 1);
    if (memkit__perhaps_sampled(p))
        memkit__on_free(p);
    memkit__real.free(p);
}

__attribute__((noinline)) static void free_by_call(void *p)
{
    memkit__count_free(memkit__real.usable(p));
    if (memkit__perhaps_sampled(p))
        memkit__on_free(p);
    memkit__real.free(p);
}

/* Inlined at any cost: the return address is that of the function around it, and read only where
 * it is needed. `fn` is that function, n the bytes it was asked for. */
__attribute__((always_inline)) static inline void *counted(void *p, size_t n, uintptr_t fn)
{
    size_t bytes = 0; /* gcc -Og does not see that it is always set */
    if (MEMKIT_UNLIKELY(p == NULL))
        return NULL;
    if (MEMKIT_UNLIKELY(!memkit__read_usable(p, &bytes)))
        return counted_by_call(p, n, fn, __builtin_return_address(0));
    if (MEMKIT_UNLIKELY(!memkit__try_count_malloc(bytes)))
        return counted_slowly(p, bytes, n, fn, __builtin_return_address(0));
    if (memkit__sample_due())
        return memkit__on_alloc(p, bytes, n, fn, __builtin_return_address(0));
    return p;
}

EXPORT void *malloc(size_t n)
{
    return counted(memkit__real.malloc(n), n, (uintptr_t)malloc);
}

EXPORT void *calloc(size_t n, size_t size)
{
    /* A product that overflows is asked for in vain. */
    return counted(memkit__real.calloc(n, size), n * size, (uintptr_t)calloc);
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
    if (memkit__ever_sampled()) {
        free_watched(p);
        return;
    }
    memkit__real.free(p);
}

/* What is known of the old block is taken out before, while the address is ours, and put back where
 * there is no new one. */
EXPORT void *realloc(void *p, size_t n)
{
    if (p == NULL)
        return counted(memkit__real.realloc(NULL, n), n, (uintptr_t)realloc);
    size_t old = memkit__usable(p);
    memkit__record record;
    bool known = memkit__perhaps_sampled(p) && memkit__sample_take(p, &record);
    void *q = memkit__real.realloc(p, n);
    if (MEMKIT_LIKELY(q != NULL)) {
        if (known)
            memkit__sample_freed(&record);
        size_t bytes = memkit__usable(q);
        if (memkit__count_realloc(old, bytes))
            memkit__on_realloc(q, bytes, n, (uintptr_t)realloc, __builtin_return_address(0));
    } else if (n == 0) { /* glibc's: freed, and NULL is no failure */
        if (known)
            memkit__sample_freed(&record);
        memkit__count_free(old);
    } else if (known) {
        memkit__sample_put_back(p, &record);
    }
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
        counted(*out, n, (uintptr_t)posix_memalign);
    return error;
}

EXPORT void *aligned_alloc(size_t align, size_t n)
{
    return counted(memkit__real.aligned_alloc(align, n), n, (uintptr_t)aligned_alloc);
}

EXPORT void *memalign(size_t align, size_t n)
{
    return counted(memkit__real.memalign(align, n), n, (uintptr_t)memalign);
}

EXPORT void *valloc(size_t n)
{
    return counted(memkit__real.valloc(n), n, (uintptr_t)valloc);
}

EXPORT void *pvalloc(size_t n)
{
    return counted(memkit__real.pvalloc(n), n, (uintptr_t)pvalloc);
}

/* A program that links the archive refers to malloc alone: draws the rest of the hook in. */
__attribute__((used)) static const memkit__prof_table *(*const attach)(const memkit__core_table *) =
    memkit_prof_attach;
