/* mem.c - the profiler's own memory: mappings, never malloc.
 *
 *     current --> chunk [head | piece | piece | ...        ]   kept pieces: 64 KiB mappings, never
 *                 chunk [head | piece | piece | piece | ...]   given back; older ones are only
 *                                                              pointed at from outside
 *
 * - Kept memory is counted in whole pages before it is mapped, so that the bound holds with any
 *   number of threads. A piece is had by one atomic add.
 * - One thread at a time maps (`mapper`), lest several that want the same at once be refused near
 *   the bound though one of them had room. It is no lock: who has waited long goes on without it,
 *   and a signal handler on top of the one that maps does at once. Then two may map for the same
 *   place, and one gives it back.
 * - Scratch is a list of chunks that double up to 1 MiB; it has one owner.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/mem.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/internal.h"

#define PAGE        ((size_t)4096)
#define CHUNK       ((size_t)64 * 1024)
#define SCRATCH_MIN ((size_t)64 * 1024)
#define SCRATCH_MAX ((size_t)1024 * 1024)
#define YIELDS      200u
#define NAPS        100u
#define NAP_NS      50000
#define ALIGN_UP(n) (((n) + 15) & ~(size_t)15)

typedef struct {
    _Alignas(16) atomic_size_t used;
} chunk;

typedef struct memkit__scratch_chunk {
    _Alignas(16) struct memkit__scratch_chunk *older;
    size_t bytes;
} scratch_chunk;

static atomic_size_t kept;
static atomic_size_t limit = MEMKIT__KEPT_LIMIT; /* also where no heap profile ever starts */
static _Atomic(chunk *) current;

static _Atomic uintptr_t mapper; /* the thread, by the address of its `here`; 0: none */
static MEMKIT__TLS char here;
static MEMKIT__TLS bool forking;

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

size_t memkit__kept_bound(void)
{
    return atomic_load(&limit);
}

size_t memkit__kept_bytes(void)
{
    return atomic_load(&kept);
}

/* ---- who maps -------------------------------------------------------------------------------- */

static bool try_enter(void)
{
    uintptr_t none = 0;
    return atomic_compare_exchange_strong(&mapper, &none, (uintptr_t)&here);
}

/* True: mapper. A thread of lower priority gets its turn only while this one sleeps. */
static bool wait_to_enter(unsigned times)
{
    for (unsigned i = 0; atomic_load(&mapper) != (uintptr_t)&here && i < times; i++) {
        if (try_enter())
            return true;
        if (i < YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, NAP_NS}, NULL);
    }
    return false;
}

bool memkit__kept_enter(void)
{
    if (try_enter())
        return true;
    int saved = errno;
    bool entered = wait_to_enter(YIELDS + NAPS);
    errno = saved;
    return entered;
}

void memkit__kept_leave(void)
{
    atomic_store(&mapper, 0);
}

void memkit__kept_before_fork(void)
{
    forking = memkit__kept_enter();
}

void memkit__kept_after_fork(void)
{
    if (forking)
        memkit__kept_leave();
    forking = false;
}

/* Who was waited for in vain is no more. A fork in a signal handler on top of one that maps: that
 * one goes on in the child. */
void memkit__kept_in_child(void)
{
    if (forking || atomic_load(&mapper) != (uintptr_t)&here)
        memkit__kept_leave();
    forking = false;
}

/* ---- kept ------------------------------------------------------------------------------------ */

static bool count(size_t pages, size_t bound)
{
    size_t before = atomic_load(&kept);
    do {
        if (before > bound || pages > bound - before)
            return false;
    } while (!atomic_compare_exchange_weak(&kept, &before, before + pages));
    return true;
}

static void *map_within(size_t bytes, size_t bound)
{
    size_t pages;
    void *p = NULL;
    bool entered = memkit__kept_enter();
    if (to_pages(bytes, &pages) && count(pages, bound)) {
        p = map(pages);
        if (p == NULL)
            atomic_fetch_sub(&kept, pages);
    }
    if (entered)
        memkit__kept_leave();
    if (p == NULL)
        errno = ENOMEM;
    return p;
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

/* After c, which is full. True also where another thread did. */
static bool add_chunk(chunk *c)
{
    bool entered = memkit__kept_enter();
    bool there = atomic_load(&current) != c;
    chunk *more = there ? NULL : memkit__kept_map(CHUNK);
    if (more != NULL) {
        there = true;
        atomic_store(&more->used, sizeof *more);
        if (!atomic_compare_exchange_strong(&current, &c, more))
            memkit__kept_unmap(more, CHUNK);
    }
    if (entered)
        memkit__kept_leave();
    return there;
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
        if (!add_chunk(c))
            return NULL;
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
