/* bench_arena.c - the arena beside malloc and free: what a request allocates and then drops at
 * once, and a million small objects into a fresh one.
 */
#include <string.h>

#include <memkit/memkit.h>

#include "bench.h"

enum { OBJECTS = 100, MANY = 1000000, SMALL = 64 };

static unsigned char sizes[OBJECTS]; /* 8 to 256 bytes, less one */
static char first_chunk[64 << 10];

static inline size_t size_of(int i)
{
    return sizes[i] + 1u;
}

/* Both ends: what a program that fills its objects has to bring into the cache. */
static inline void touch(char *p, size_t n)
{
    p[0] = (char)n;
    p[n - 1] = (char)n;
    GBENCH_KEEP(p);
}

/* ---- 100 objects and a reset ---- */

static void inline_memkit(gbench_state *s)
{
    memkit_arena *a = memkit_arena_init(first_chunk, sizeof first_chunk, NULL);
    if (a == NULL)
        gbench_skip(s, "no arena");
    GBENCH_LOOP(s)
    {
        for (int i = 0; i < OBJECTS; i++)
            touch(memkit_arena_alloc(a, size_of(i)), size_of(i));
        memkit_arena_reset(a);
    }
    memkit_arena_free(a);
}

/* The header's inline function behind a call, as a binding of another language would have it. */
__attribute__((noinline)) static void *call_alloc(memkit_arena *a, size_t n)
{
    return memkit_arena_alloc(a, n);
}

static void call_memkit(gbench_state *s)
{
    memkit_arena *a = memkit_arena_init(first_chunk, sizeof first_chunk, NULL);
    if (a == NULL)
        gbench_skip(s, "no arena");
    GBENCH_LOOP(s)
    {
        for (int i = 0; i < OBJECTS; i++)
            touch(call_alloc(a, size_of(i)), size_of(i));
        memkit_arena_reset(a);
    }
    memkit_arena_free(a);
}

BENCH_INLINE void objects_with(gbench_state *s, bench_malloc m)
{
    void *out[OBJECTS];
    GBENCH_LOOP(s)
    {
        for (int i = 0; i < OBJECTS; i++) {
            out[i] = m.alloc(size_of(i));
            touch(out[i], size_of(i));
        }
        for (int i = 0; i < OBJECTS; i++)
            m.give(out[i]);
    }
}

/* ---- a million objects of 64 bytes, in a list, and all given back ---- */

typedef struct node {
    struct node *next;
    char rest[SMALL - sizeof(struct node *)];
} node;

static void million_memkit(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        memkit_arena *a = memkit_arena_new(NULL);
        node *last = NULL;
        for (int i = 0; i < MANY; i++) {
            node *n = memkit_arena_alloc(a, sizeof *n);
            if (n == NULL)
                abort();
            n->next = last;
            last = n;
        }
        GBENCH_KEEP(last);
        memkit_arena_free(a);
    }
}

BENCH_INLINE void million_with(gbench_state *s, bench_malloc m)
{
    GBENCH_LOOP(s)
    {
        node *last = NULL;
        for (int i = 0; i < MANY; i++) {
            node *n = m.alloc(sizeof *n);
            if (n == NULL)
                abort();
            n->next = last;
            last = n;
        }
        GBENCH_KEEP(last);
        for (node *n = last; n != NULL; n = last) {
            last = n->next;
            m.give(n);
        }
    }
}

BENCH_BOTH(objects, objects_with(s, m))
BENCH_BOTH(million, million_with(s, m))

/* Objects that overlap would spoil each other; a reset has to give the same room again. */
static const char *differ(void)
{
    char *ours[OBJECTS], *theirs[OBJECTS];
    const char *why = NULL;
    memkit_arena *a = memkit_arena_init(first_chunk, sizeof first_chunk, NULL);
    if (a == NULL)
        return "no arena";
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < OBJECTS; i++) {
            ours[i] = round == 0 ? memkit_arena_alloc(a, size_of(i)) : call_alloc(a, size_of(i));
            theirs[i] = malloc(size_of(i));
            memset(ours[i], i + round, size_of(i));
            memset(theirs[i], i + round, size_of(i));
        }
        for (int i = 0; i < OBJECTS; i++) {
            if (memcmp(ours[i], theirs[i], size_of(i)) != 0)
                why = "arena and malloc hold different bytes";
            free(theirs[i]);
        }
        memkit_arena_reset(a);
    }
    memkit_arena_stats_t stats;
    memkit_arena_stats(a, &stats);
    if (stats.held_bytes != 0 || stats.used_bytes != 0)
        why = "the arena needed more than its first chunk, or kept something";
    memkit_arena_free(a);
    return why;
}

void bench_arena(void)
{
    for (int i = 0; i < OBJECTS; i++)
        sizes[i] = (unsigned char)(7 + i * 97 % 249);
    gbench_compare(bench_add("arena/100_objects/memkit_inline", inline_memkit, differ),
                   "arena/100_objects/glibc", NULL);
    gbench_compare(bench_add("arena/100_objects/memkit_called", call_memkit, differ),
                   "arena/100_objects/glibc", NULL);
    bench_add("arena/100_objects/malloc", objects_malloc, differ);
    bench_add("arena/100_objects/glibc", objects_glibc, differ);

    gbench *b = bench_add("arena/million_of_64/memkit", million_memkit, differ);
    gbench_compare(b, "arena/million_of_64/glibc", NULL);
    gbench_use_unit(b, GBENCH_MS);
    gbench_use_unit(bench_add("arena/million_of_64/malloc", million_malloc, differ), GBENCH_MS);
    gbench_use_unit(bench_add("arena/million_of_64/glibc", million_glibc, differ), GBENCH_MS);
}
