/* track.h - what the core tells Valgrind or AddressSanitizer about memory it hands out itself.
 *
 * Those tools see malloc's blocks; a buffer that waits in a pool, an entry's place in a slab and
 * the free end of an arena's chunk lie inside one, and look valid to them. Three builds:
 *
 * - with AddressSanitizer (found by itself): hidden bytes are poisoned;
 * - with MEMKIT_TRACK=valgrind (make's variable): hidden bytes are unaddressable to memcheck, and
 *   blocks handed out are mempool blocks, so that memcheck and massif know who took them;
 * - else everything here is nothing, and costs nothing.
 *
 * MEMKIT__TRACKED is 1 in the first two: there, fast paths that cannot tell the tool what they hand
 * out are kept closed.
 *
 *   memkit__hide(p, n)       nobody may touch these bytes
 *   memkit__show(p, n)       the core may, and their content counts as written
 *   memkit__fresh(p, n)      the caller may write; reading what is not written is an error
 *   memkit__group_new(g), memkit__group_end(g)
 *                            a pool, an arena: g is any address of its own
 *   memkit__take(g, p, n)    p is handed out: from now on it is the caller's block (and fresh)
 *   memkit__give(g, p, n)    p came back: hidden until shown
 *   memkit__retake(g, p, old_n, n)   its size changed; its content stays
 *
 * Groups are for blocks that somebody gives back one by one. An arena's go together and need not be
 * remembered: memcheck would call each of them lost. They are shown and hidden, and no more.
 *
 * For helgrind, which does not see the order that two plain accesses and a membarrier make:
 *
 *   memkit__before(p), memkit__after(p)    what came before the first comes before the second
 *   memkit__unordered(p, n)                atomics, which need no order
 */
#ifndef MEMKIT_CORE_TRACK_H
#define MEMKIT_CORE_TRACK_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMKIT__ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define MEMKIT__ASAN 1
#endif

#if defined(MEMKIT__ASAN)

#include <sanitizer/asan_interface.h>

#define MEMKIT__TRACKED 1

static inline void memkit__hide(const void *p, size_t n)
{
    __asan_poison_memory_region(p, n);
}

static inline void memkit__show(const void *p, size_t n)
{
    __asan_unpoison_memory_region(p, n);
}

static inline void memkit__fresh(const void *p, size_t n)
{
    memkit__show(p, n);
}

static inline void memkit__group_new(const void *group)
{
    (void)group;
}

static inline void memkit__group_end(const void *group)
{
    (void)group;
}

static inline void memkit__take(const void *group, const void *p, size_t n)
{
    (void)group;
    memkit__show(p, n);
}

static inline void memkit__give(const void *group, const void *p, size_t n)
{
    (void)group;
    memkit__hide(p, n);
}

static inline void memkit__retake(const void *group, const void *p, size_t old_n, size_t n)
{
    (void)group;
    if (n < old_n)
        memkit__hide((const char *)p + n, old_n - n);
    memkit__show(p, n);
}

#define memkit__before(p)       ((void)(p))
#define memkit__after(p)        ((void)(p))
#define memkit__unordered(p, n) ((void)(p), (void)(n))

#elif defined(MEMKIT_TRACK_VALGRIND)

#include <valgrind/helgrind.h>
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>

#define MEMKIT__TRACKED 1

static inline void memkit__hide(const void *p, size_t n)
{
    VALGRIND_MAKE_MEM_NOACCESS(p, n);
}

static inline void memkit__show(const void *p, size_t n)
{
    VALGRIND_MAKE_MEM_DEFINED(p, n);
}

static inline void memkit__fresh(const void *p, size_t n)
{
    VALGRIND_MAKE_MEM_UNDEFINED(p, n);
}

static inline void memkit__group_new(const void *group)
{
    VALGRIND_CREATE_MEMPOOL(group, 0, 0);
}

static inline void memkit__group_end(const void *group)
{
    VALGRIND_DESTROY_MEMPOOL(group);
}

static inline void memkit__take(const void *group, const void *p, size_t n)
{
    VALGRIND_MEMPOOL_ALLOC(group, p, n);
}

static inline void memkit__give(const void *group, const void *p, size_t n)
{
    VALGRIND_MEMPOOL_FREE(group, p);
    VALGRIND_MAKE_MEM_NOACCESS(p, n);
}

static inline void memkit__retake(const void *group, const void *p, size_t old_n, size_t n)
{
    (void)old_n;
    VALGRIND_MEMPOOL_CHANGE(group, p, p, n);
}

static inline void memkit__before(const volatile void *p)
{
    ANNOTATE_HAPPENS_BEFORE(p);
}

static inline void memkit__after(const volatile void *p)
{
    ANNOTATE_HAPPENS_AFTER(p);
}

static inline void memkit__unordered(const volatile void *p, size_t n)
{
    VALGRIND_HG_DISABLE_CHECKING(p, n);
}

#else

#define MEMKIT__TRACKED 0

#define memkit__hide(p, n)         ((void)(p), (void)(n))
#define memkit__show(p, n)         ((void)(p), (void)(n))
#define memkit__fresh(p, n)        ((void)(p), (void)(n))
#define memkit__group_new(g)       ((void)(g))
#define memkit__group_end(g)       ((void)(g))
#define memkit__take(g, p, n)      ((void)(g), (void)(p), (void)(n))
#define memkit__give(g, p, n)      ((void)(g), (void)(p), (void)(n))
#define memkit__retake(g, p, o, n) ((void)(g), (void)(p), (void)(o), (void)(n))
#define memkit__before(p)          ((void)(p))
#define memkit__after(p)           ((void)(p))
#define memkit__unordered(p, n)    ((void)(p), (void)(n))

#endif
#endif
