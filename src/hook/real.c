/* real.c - finds the allocator under the hook, and feeds those who allocate meanwhile.
 *
 *      before            the first call              afterwards
 *   real.malloc --> first_malloc --> resolve() --> libc's malloc (or the next one's)
 *                        |               |
 *                        |             dlsym, which may itself allocate (glibc < 2.34 does)
 *                        |               |
 *                        +--- boot_take <+         a small static arena, never given back
 *
 * - The first call may come before any constructor ran: ld.so itself allocates through us.
 * - No lock and no waiting: a thread that allocates while it resolves is served out of the arena;
 *   two threads that resolve at once both do it and store the same values.
 * - malloc_usable_size is a fifth of what a counted pair costs, so where the allocator is glibc's
 * own its answer is read from the block's header instead: only after trying that both agree.
 * - A block of the arena may reach free, realloc and malloc_usable_size later. Only if one was ever
 *   given out do these go through a guard that knows the arena's addresses; else they go straight.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/internal.h"
#include "hook/real.h"
#include "hook/timing.h"

#define BOOT_BYTES ((size_t)16384)
#define BOOT_ALIGN ((size_t)16)

static _Alignas(64) unsigned char boot[BOOT_BYTES];
static atomic_size_t boot_top;
static atomic_bool boot_used;

static atomic_bool resolved;
static MEMKIT__TLS volatile bool resolving;

/* The functions found, before it is decided who goes through a guard. */
static memkit__real_table found;

static bool in_boot(const void *p)
{
    return (uintptr_t)p - (uintptr_t)boot < sizeof boot;
}

/* Each block has its size in the word before it. */
static size_t boot_size(const void *p)
{
    size_t n;
    memcpy(&n, (const char *)p - sizeof n, sizeof n);
    return n;
}

static void *guard_realloc(void *p, size_t n);

static void guard_free(void *p)
{
    if (!in_boot(p))
        found.free(p);
}

static size_t guard_usable(void *p)
{
    return in_boot(p) ? boot_size(p) : found.usable(p);
}

/* Whoever makes the second of the two facts true (resolved, arena used) sees both. */
static void install(void)
{
    bool guarded = atomic_load(&boot_used);
    memkit__real_table next = found;
    if (guarded) {
        next.free = guard_free;
        next.realloc = guard_realloc;
        next.usable = guard_usable;
        next.headers = false;
    }
    if (memkit__timing)
        memkit__timing_cover(&next);
    memkit__real = next;
    atomic_store(&resolved, true);
    if (!guarded && atomic_load(&boot_used))
        install();
}

static void *boot_take(size_t n, size_t align)
{
    if (align < BOOT_ALIGN)
        align = BOOT_ALIGN;
    if (n > BOOT_BYTES || align > BOOT_BYTES || (align & (align - 1)) != 0) {
        errno = ENOMEM;
        return NULL;
    }
    if (!atomic_exchange(&boot_used, true) && atomic_load(&resolved))
        install();
    n = (n + BOOT_ALIGN - 1) & ~(BOOT_ALIGN - 1);
    /* What is taken covers the header and the worst of the alignment: one add, no loop. */
    size_t need = n + align + BOOT_ALIGN;
    size_t at = atomic_fetch_add(&boot_top, need);
    if (at > BOOT_BYTES || need > BOOT_BYTES - at) {
        errno = ENOMEM;
        return NULL;
    }
    uintptr_t mem = ((uintptr_t)(boot + at) + BOOT_ALIGN + align - 1) & ~(align - 1);
    void *p = boot + (mem - (uintptr_t)boot);
    memcpy((char *)p - sizeof n, &n, sizeof n);
    return p; /* cleared: nothing of the arena is used twice */
}

static void *guard_realloc(void *p, size_t n)
{
    if (!in_boot(p))
        return found.realloc(p, n);
    if (n == 0)
        return NULL; /* as glibc does it: freed */
    size_t old = boot_size(p);
    void *q = found.malloc(n);
    if (q != NULL)
        memcpy(q, p, old < n ? old : n);
    return q;
}

static void *need(const char *name)
{
    void *fn = dlsym(RTLD_NEXT, name);
    if (fn == NULL) {
        static const char text[] = "memkit: no such function under the hook: ";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        ignored = write(STDERR_FILENO, name, strlen(name));
        ignored = write(STDERR_FILENO, "\n", 1);
        (void)ignored;
        abort();
    }
    return fn;
}

static bool same_object(const void *a, const void *b)
{
    Dl_info x, y;
    return dladdr(a, &x) != 0 && dladdr(b, &y) != 0 && x.dli_fbase == y.dli_fbase;
}

/* An allocator may set itself up in its first calls, and allocate by operator new for that:
 * tcmalloc does in malloc_usable_size. Better now, while nothing is counted, than within the
 * counting. */
static void prime(void)
{
    memkit__real_table t = found;
    void *p = t.malloc(1);
    if (p != NULL)
        (void)t.usable(p);
    t.free(p);
}

/* Whether a block's header tells its usable size. Asks for the smallest block first: glibc alone
 * makes 24 bytes of 1. valgrind and the sanitizers say 1, other allocators 8 or 16, and the word
 * before one of their blocks may not even be read. None is large: freeing a mapping would move
 * glibc's threshold for the next. */
static bool has_headers(void)
{
#if defined(__x86_64__) && defined(__LP64__)
    static const size_t sizes[] = {1, 24, 25, 500, 1033, 5000};
    memkit__real_table t = found;
    void *fns[] = {0, 0, 0};
    memcpy(&fns[0], &t.malloc, sizeof fns[0]);
    memcpy(&fns[1], &t.usable, sizeof fns[1]);
    fns[2] = dlsym(RTLD_NEXT, "gnu_get_libc_version");
    if (fns[2] == NULL || !same_object(fns[0], fns[2]) || !same_object(fns[1], fns[2]))
        return false;
    bool agree = true;
    for (size_t i = 0; agree && i < sizeof sizes / sizeof sizes[0]; i++) {
        void *p = t.malloc(sizes[i]);
        if (p == NULL)
            return false;
        size_t usable = t.usable(p);
        if (i == 0 && usable != 24) {
            agree = false;
        } else {
            size_t head = ((const size_t *)p)[-1];
            size_t said = (head & ~(size_t)7) - sizeof head;
            agree = (head & 2) != 0 ? said - sizeof head == usable : said == usable;
        }
        t.free(p);
    }
    return agree;
#else
    return false;
#endif
}

/* jemalloc has no pvalloc. libc's would give a block that jemalloc's free does not know, nor its
 * malloc_usable_size. */
static void *pvalloc_by_memalign(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (n > SIZE_MAX - (page - 1)) {
        errno = ENOMEM;
        return NULL;
    }
    size_t pages = (n + page - 1) & ~(page - 1);
    return found.memalign(page, pages != 0 ? pages : page);
}

static void *valloc_by_memalign(size_t n)
{
    return found.memalign((size_t)sysconf(_SC_PAGESIZE), n);
}

/* A function that is not of the object whose malloc_usable_size would be asked about its blocks is
 * made of memalign, if that one is. */
static void mend_mixture(void)
{
    memkit__real_table t = found;
    void *usable, *memalign, *valloc, *pvalloc;
    memcpy(&usable, &t.usable, sizeof usable);
    memcpy(&memalign, &t.memalign, sizeof memalign);
    memcpy(&valloc, &t.valloc, sizeof valloc);
    memcpy(&pvalloc, &t.pvalloc, sizeof pvalloc);
    if (!same_object(usable, memalign))
        return;
    if (!same_object(usable, valloc))
        found.valloc = valloc_by_memalign;
    if (!same_object(usable, pvalloc))
        found.pvalloc = pvalloc_by_memalign;
}

/* False when this very thread is resolving already: the call came out of dlsym. */
static bool resolve(void)
{
    if (atomic_load(&resolved))
        return true;
    if (resolving)
        return false;
    int saved = errno;
    resolving = true;
    /* POSIX's own way round C's ban on void * as a function; memcpy keeps strict aliasing. */
    struct {
        const char *name;
        void *to;
    } list[] = {
        {"malloc", &found.malloc},
        {"free", &found.free},
        {"malloc_usable_size", &found.usable},
        {"calloc", &found.calloc},
        {"realloc", &found.realloc},
        {"posix_memalign", &found.posix_memalign},
        {"aligned_alloc", &found.aligned_alloc},
        {"memalign", &found.memalign},
        {"valloc", &found.valloc},
        {"pvalloc", &found.pvalloc},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        void *fn = need(list[i].name);
        memcpy(list[i].to, &fn, sizeof fn);
    }
    mend_mixture();
    prime();
    found.headers = has_headers();
    install();
    resolving = false;
    errno = saved;
    return true;
}

void memkit__real_install(void)
{
    if (resolve())
        install();
}

bool memkit__real_known(void)
{
    return resolve();
}

/* Where malloc does not reach us nobody may have called yet; threads that do so together later, out
 * of what is ours alone, would all resolve, and write the same. With libc itself in front there is
 * nothing underneath, and nobody who calls. */
__attribute__((constructor)) static void begin(void)
{
    if (dlsym(RTLD_NEXT, "malloc") != NULL)
        (void)resolve();
}

bool memkit__beside_real_malloc(const void *fn)
{
    void *real;
    memcpy(&real, &found.malloc, sizeof real);
    return same_object(fn, real);
}

static void *first_malloc(size_t n)
{
    return resolve() ? memkit__real.malloc(n) : boot_take(n, 1);
}

static void first_free(void *p)
{
    /* While resolving nothing but the arena's blocks can be anybody's. */
    if (!in_boot(p) && resolve())
        memkit__real.free(p);
}

static size_t first_usable(void *p)
{
    if (in_boot(p))
        return boot_size(p);
    return resolve() ? memkit__real.usable(p) : 0;
}

static void *first_calloc(size_t n, size_t size)
{
    if (resolve())
        return memkit__real.calloc(n, size);
    size_t bytes;
    if (memkit__mul(n, size, &bytes))
        return boot_take(bytes, 1);
    errno = ENOMEM;
    return NULL;
}

static void *first_realloc(void *p, size_t n)
{
    if (resolve())
        return memkit__real.realloc(p, n);
    if (n == 0 && p != NULL)
        return NULL;
    void *q = boot_take(n, 1);
    if (q != NULL && p != NULL) {
        size_t old = in_boot(p) ? boot_size(p) : 0;
        memcpy(q, p, old < n ? old : n);
    }
    return q;
}

static int first_posix_memalign(void **out, size_t align, size_t n)
{
    if (resolve())
        return memkit__real.posix_memalign(out, align, n);
    int saved = errno;
    void *p = boot_take(n, align);
    errno = saved;
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

static void *first_aligned_alloc(size_t align, size_t n)
{
    return resolve() ? memkit__real.aligned_alloc(align, n) : boot_take(n, align);
}

static void *first_memalign(size_t align, size_t n)
{
    return resolve() ? memkit__real.memalign(align, n) : boot_take(n, align);
}

static void *first_valloc(size_t n)
{
    return resolve() ? memkit__real.valloc(n) : boot_take(n, 4096);
}

static void *first_pvalloc(size_t n)
{
    return resolve() ? memkit__real.pvalloc(n) : boot_take(n, 4096);
}

_Alignas(64) memkit__real_table memkit__real = {
    .malloc = first_malloc,
    .free = first_free,
    .usable = first_usable,
    .calloc = first_calloc,
    .realloc = first_realloc,
    .posix_memalign = first_posix_memalign,
    .aligned_alloc = first_aligned_alloc,
    .memalign = first_memalign,
    .valloc = first_valloc,
    .pvalloc = first_pvalloc,
};
