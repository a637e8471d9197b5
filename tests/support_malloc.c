/* support_malloc.c - the --wrap'ed allocation functions: count, and fail on demand. */
#include <malloc.h>

#include "support.h"

unsigned mallocs_seen, mallocs_failed, frees_seen;
long blocks_out, bytes_out;
static unsigned failing;
static bool keep_failing;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
void __wrap_free(void *p);

void fail_malloc(unsigned nth, bool from_then_on)
{
    failing = nth;
    keep_failing = from_then_on;
    mallocs_seen = mallocs_failed = 0;
}

static bool fails(void)
{
    unsigned seen = __atomic_add_fetch(&mallocs_seen, 1, __ATOMIC_RELAXED);
    if (failing == 0 || (keep_failing ? seen < failing : seen != failing))
        return false;
    __atomic_add_fetch(&mallocs_failed, 1, __ATOMIC_RELAXED);
    errno = ENOMEM;
    return true;
}

static void weigh(void *p, long sign)
{
    long bytes = (long)(malloc_usable_size(p) + sizeof(size_t));
    __atomic_add_fetch(&bytes_out, sign * bytes, __ATOMIC_RELAXED);
    __atomic_add_fetch(&blocks_out, sign, __ATOMIC_RELAXED);
}

static void *count(void *p)
{
    if (p != NULL)
        weigh(p, 1);
    return p;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : count(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : count(__real_calloc(n, size));
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : count(__real_aligned_alloc(align, n));
}

void *__wrap_realloc(void *p, size_t n)
{
    if (fails())
        return NULL;
    if (p != NULL)
        weigh(p, -1);
    void *moved = __real_realloc(p, n);
    if (moved == NULL && p != NULL)
        weigh(p, 1);
    return count(moved);
}

void __wrap_free(void *p)
{
    if (p != NULL)
        weigh(p, -1);
    __atomic_add_fetch(&frees_seen, 1, __ATOMIC_RELAXED);
    __real_free(p);
}
