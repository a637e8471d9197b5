/* unwind.c - what one stack of depth 20 costs: ours, a frame pointer walk, glibc's backtrace(), and
 * libunwind's unw_backtrace where it is there. All take turns in one run, so that ratios mean
 * something on a busy machine; each figure is the best of its rounds.
 *
 *     unwind               the table
 *     unwind KIND N        N stacks of one kind alone, for callgrind: same changing sharing
 *                          partly new cold
 *
 * same: one stack again and again. changing: each level of 16 is one of two functions, at random,
 * so that stacks share some outer frames with the one before. sharing: the innermost 4 to 9 levels
 * are, as in a program at work: of all frames 60 to 80 % are those of the stack before. new: the
 * rules of the stack before thrown away, and partly: those of its 4 innermost frames. cold: all of
 * them, 512 KiB, which also leaves little of the unwind tables in the processor's caches.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "prof/unwind.h"
#include "prof/unwind_impl.h"

#if __has_include(<libunwind.h>)
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#define HAVE_LIBUNWIND 1
#else
#define HAVE_LIBUNWIND 0
#endif

enum { DEPTH = 16, PATTERNS = 1024, ROUNDS = 7 };

static uint64_t frames[128];
static void *pointers[128];
static unsigned depth;

static __attribute__((noinline)) void by_memkit(void)
{
    bool cut;
    depth = memkit__unwind_here(frames, 128, &cut);
    __asm__ volatile("" ::: "memory");
}

static __attribute__((noinline)) void by_frame_pointer(void)
{
    void **bp = __builtin_frame_address(0);
    depth = 0;
    while (depth < 128) {
        void **next = bp[0];
        pointers[depth++] = bp[1];
        if (next <= bp || next > bp + 4096)
            break;
        bp = next;
    }
    __asm__ volatile("" ::: "memory");
}

/* libc's own: libunwind exports one by that name, too. */
static int (*glibc_backtrace)(void **, int);

static __attribute__((noinline)) void by_backtrace(void)
{
    depth = (unsigned)glibc_backtrace(pointers, 128);
    __asm__ volatile("" ::: "memory");
}

#if HAVE_LIBUNWIND
static __attribute__((noinline)) void by_libunwind(void)
{
    depth = (unsigned)unw_backtrace(pointers, 128);
    __asm__ volatile("" ::: "memory");
}
#endif

static void (*take)(void);
static long taken;
static long long spent;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static __attribute__((noinline)) void innermost(long n)
{
    long long before = now();
    for (long i = 0; i < n; i++)
        take();
    spent += now() - before;
    taken += n;
}

/* Sixteen levels of two functions each. */
#define LEVEL(k, way, next_a, next_b)                                           \
    static __attribute__((noinline)) void level_##k##way(unsigned bits, long n) \
    {                                                                           \
        if ((bits >> (k)&1) != 0)                                               \
            next_a;                                                             \
        else                                                                    \
            next_b;                                                             \
        __asm__ volatile("" ::: "memory");                                      \
    }
#define BOTH(k, next)                                               \
    LEVEL(k, a, level_##next##a(bits, n), level_##next##b(bits, n)) \
    LEVEL(k, b, level_##next##a(bits, n), level_##next##b(bits, n))
LEVEL(15, a, innermost(n), innermost(n))
LEVEL(15, b, innermost(n), innermost(n))
BOTH(14, 15)
BOTH(13, 14)
BOTH(12, 13)
BOTH(11, 12)
BOTH(10, 11)
BOTH(9, 10)
BOTH(8, 9)
BOTH(7, 8)
BOTH(6, 7)
BOTH(5, 6)
BOTH(4, 5)
BOTH(3, 4)
BOTH(2, 3)
BOTH(1, 2)
LEVEL(0, a, level_1a(bits, n), level_1b(bits, n))

static void same(long n)
{
    level_0a(0x5a5a, n);
}

static unsigned next_bits(void)
{
    static unsigned x = 1;
    static unsigned patterns[PATTERNS], at;
    if (patterns[0] == 0)
        for (unsigned i = 0; i < PATTERNS; i++) {
            x = x * 1664525 + 1013904223;
            patterns[i] = x >> 8 | 1u << 31;
        }
    return patterns[at++ % PATTERNS];
}

static void changing(long n)
{
    for (long i = 0; i < n; i++)
        level_0a(next_bits(), 1);
}

/* Level k is one of the innermost where bit k may change. */
static void sharing(long n)
{
    for (long i = 0; i < n; i++) {
        unsigned bits = next_bits(), changes = 4 + bits / 65536 % 6;
        level_0a((0x5a5au & ((1u << (DEPTH - changes)) - 1)) |
                     (bits & 0xffff & ~((1u << (DEPTH - changes)) - 1)),
                 1);
    }
}

static void anew(long n)
{
    for (long i = 0; i < n; i++) {
        memkit__unwind_forget(frames, depth);
        level_0a(next_bits(), 1);
    }
}

static void partly(long n)
{
    for (long i = 0; i < n; i++) {
        memkit__unwind_forget(frames, 4);
        level_0a(next_bits(), 1);
    }
}

static void cold(long n)
{
    for (long i = 0; i < n; i++) {
        memkit__unwind_forget(NULL, 0);
        level_0a(next_bits(), 1);
    }
}

static double ns(void (*way)(void), void (*kind)(long), long n)
{
    take = way;
    taken = 0;
    spent = 0;
    kind(n);
    return (double)spent / (double)taken;
}

static void nothing(void)
{
    __asm__ volatile("" ::: "memory");
}

static const struct {
    const char *name;
    void (*fn)(void);
    long n;
} ways[] = {{"memkit", by_memkit, 20000},
            {"frame pointers", by_frame_pointer, 20000},
#if HAVE_LIBUNWIND
            {"libunwind unw_backtrace", by_libunwind, 5000},
#endif
            {"glibc backtrace", by_backtrace, 500}};
enum { WAYS = sizeof ways / sizeof ways[0] };

static void table(const char *title, void (*kind)(long), unsigned n_ways, long divisor)
{
    double best[WAYS] = {0}, empty = 0;
    unsigned depths[WAYS] = {0};
    for (int r = 0; r < ROUNDS; r++) {
        double e = ns(nothing, kind, 20000 / divisor); /* the clock, and the call */
        empty = r == 0 || e < empty ? e : empty;
        for (unsigned i = 0; i < n_ways; i++) {
            double t = ns(ways[i].fn, kind, ways[i].n / divisor);
            depths[i] = depth;
            best[i] = r == 0 || t < best[i] ? t : best[i];
        }
    }
    printf("%s\n", title);
    for (unsigned i = 0; i < n_ways; i++)
        printf("  %-26s depth %2u  %9.1f ns  %7.2f x\n", ways[i].name, depths[i], best[i] - empty,
               (best[i] - empty) / (best[0] - empty));
}

int main(int argc, char **argv)
{
    if (memkit__unwind_prepare() != 0)
        return 3;
    void *libc = dlopen("libc.so.6", RTLD_LAZY);
    *(void **)&glibc_backtrace = libc != NULL ? dlsym(libc, "backtrace") : NULL;
    if (glibc_backtrace == NULL)
        return 4;
    if (argc == 3) {
        void (*kind)(long) = strcmp(argv[1], "same") == 0       ? same
                             : strcmp(argv[1], "changing") == 0 ? changing
                             : strcmp(argv[1], "sharing") == 0  ? sharing
                             : strcmp(argv[1], "partly") == 0   ? partly
                             : strcmp(argv[1], "cold") == 0     ? cold
                                                                : anew;
        ns(by_memkit, kind, strtol(argv[2], NULL, 10));
        return 0;
    }
    table("one stack again and again", same, WAYS, 1);
    table("stacks that change (a clock call each taken off)", changing, WAYS, 1);
    table("stacks that share their outer frames", sharing, WAYS, 1);
    table("stacks with 4 frames never seen", partly, 1, 20);
    table("stacks never seen", anew, 1, 20);
    table("stacks never seen, and nothing in the processor's caches", cold, 1, 20);
    return 0;
}
