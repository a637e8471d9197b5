/* prof_workload.c - allocations as a service makes them, for comparing profilers.
 *
 *     request:  step -> step -> ... -> leaf    190 ways, 10 to 30 calls deep, through 64 functions
 *                                       |      each of which calls on from two places
 *                                       +-- malloc, malloc, ...   at 10 places
 *
 * - 190 ways to 10 places make WORKLOAD_STACKS distinct stacks. The descent is shared by 10 pairs,
 *   so that it is a small part of the time.
 * - Sizes: exp of a bell curve, 16 B to 16 KiB, half of them below 128 B. Each block is written to
 *   once in a cache line.
 * - Three in four blocks end with their request, in reverse order; the fourth takes the place of
 *   one in the thread's live set.
 * - Nothing depends on addresses: all runs of the same length have the same checksum.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof_workload.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"

#define WAYS   190
#define PLACES 10
#define LIVE   4096
#define SIZES  4096
#define DEPTH  30

typedef struct {
    uint64_t *live[LIVE];
    uint32_t sizes[SIZES];
    uint64_t count; /* of pairs done */
    uint64_t sum;
    /* timing */
    pthread_barrier_t *gate;
    uint64_t pairs;
    double wall_ns, cpu_ns;
    pthread_t id;
} worker;

/* A way: for each step the function (upper bits) and the place it calls on from (lowest bit); then
 * the leaf. */
static unsigned char ways[WAYS][DEPTH + 1];

typedef void (*step_fn)(worker *w, const unsigned char *way);
static const step_fn steps[64], leaves[10];

/* ---- a leaf: ten places that allocate ---- */

BENCH_INLINE uint64_t *filled(uint64_t *p, uint32_t size, uint64_t value)
{
    if (p == NULL)
        abort();
    for (uint32_t i = 0; i < size / 8; i += 8)
        p[i] = value + i;
    return p;
}

BENCH_INLINE uint64_t *stored(worker *w, uint64_t *p, uint32_t size)
{
    const uint64_t n = w->count++;
    filled(p, size, n);
    if (n % 4 != 3)
        return p; /* the request's own */
    uint64_t **slot = &w->live[n * 0x9e3779b97f4a7c15u >> 52];
    if (*slot != NULL) {
        w->sum = (w->sum ^ **slot) * 31;
        free(*slot);
    }
    *slot = p;
    return NULL;
}

BENCH_INLINE uint32_t next_size(const worker *w)
{
    return w->sizes[(w->count * 7) % SIZES];
}

#define PLACE(i)                           \
    const uint32_t size##i = next_size(w); \
    uint64_t *const p##i = stored(w, malloc(size##i), size##i);
#define GIVE(i)                         \
    if (p##i != NULL) {                 \
        w->sum = (w->sum ^ *p##i) * 31; \
        free(p##i);                     \
    }

#define LEAF(name)                                                                            \
    __attribute__((noinline)) static void leaf_##name(worker *w, const unsigned char *way)    \
    {                                                                                         \
        (void)way;                                                                            \
        PLACE(0)                                                                              \
        PLACE(1)                                                                              \
        PLACE(2)                                                                              \
        PLACE(3)                                                                              \
        PLACE(4) PLACE(5) PLACE(6) PLACE(7) PLACE(8) PLACE(9) GIVE(9) GIVE(8) GIVE(7) GIVE(6) \
            GIVE(5) GIVE(4) GIVE(3) GIVE(2) GIVE(1) GIVE(0)                                   \
    }
#define TEN(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7) X(n##8) X(n##9)

LEAF(a)
LEAF(b)
LEAF(c)
LEAF(d)
LEAF(e) LEAF(f) LEAF(g) LEAF(h) LEAF(i) LEAF(j)

/* ---- steps ---- */

/* What is written behind each call keeps them apart, and keeps them from being jumps. */
#define STEP(name)                                                                         \
    __attribute__((noinline)) static void step_##name(worker *w, const unsigned char *way) \
    {                                                                                      \
        const step_fn next = way[2] == 0 ? leaves[way[1] - 1] : steps[way[1] >> 1];        \
        if ((way[0] & 1) != 0) {                                                           \
            next(w, way + 1);                                                              \
            w->sum += 1;                                                                   \
        } else {                                                                           \
            next(w, way + 1);                                                              \
            w->sum += 2;                                                                   \
        }                                                                                  \
    }

    TEN(STEP, ) TEN(STEP, 1) TEN(STEP, 2) TEN(STEP, 3) TEN(STEP, 4) TEN(STEP, 5) STEP(60) STEP(61)
        STEP(62) STEP(63)

#define NAME_OF_STEP(n) step_##n,
            static const step_fn steps[64] = {
                TEN(NAME_OF_STEP, ) TEN(NAME_OF_STEP, 1) TEN(NAME_OF_STEP, 2) TEN(NAME_OF_STEP, 3)
                    TEN(NAME_OF_STEP, 4) TEN(NAME_OF_STEP, 5) step_60,
                step_61, step_62, step_63};
static const step_fn leaves[10] = {leaf_a, leaf_b, leaf_c, leaf_d, leaf_e,
                                   leaf_f, leaf_g, leaf_h, leaf_i, leaf_j};

/* ---- preparation ---- */

/* Ways as a tree has them: each but the first shares the beginning of one before it. A byte that is
 * not 0 for each step and for the leaf, then a 0. */
static void make_ways(void)
{
    uint64_t seed = 42;
    for (unsigned i = 0; i < WAYS; i++) {
        /* With the leaf and four of libc's and the thread's: 10 to 30. */
        const unsigned depth = 5 + (unsigned)(bench_random(&seed) % 21);
        unsigned at = 0;
        if (i > 0) {
            const unsigned char *of = ways[bench_random(&seed) % i];
            for (unsigned shared = depth / 2; at < shared && of[at + 2] != 0; at++)
                ways[i][at] = of[at];
        }
        for (; at < depth; at++)
            ways[i][at] = (unsigned char)(2 + bench_random(&seed) % 126);
        ways[i][depth] = (unsigned char)(1 + i % 10);
    }
}

static void make_sizes(worker *w, uint64_t seed)
{
    for (unsigned i = 0; i < SIZES; i++) {
        double bell = -6; /* the sum of twelve: mean 0, deviation 1 */
        for (int k = 0; k < 12; k++)
            bell += bench_uniform(&seed);
        double size = 128; /* * 3.2 ^ bell */
        for (double left = bell; left > 0; left -= 0.25)
            size *= 1.3375;
        for (double left = bell; left < 0; left += 0.25)
            size /= 1.3375;
        w->sizes[i] = size < 16 ? 16 : size > 16384 ? 16384 : (uint32_t)size;
    }
}

/* ---- a thread ---- */

static double clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Both rounds from one place, or each stack would be there twice. */
static void *work(void *arg)
{
    worker *w = arg;
    for (int timed = 0; timed < 2; timed++) {
        pthread_barrier_wait(w->gate);
        const double wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        const uint64_t end = w->count + (timed ? w->pairs : w->pairs / 10);
        while (w->count < end) {
            const unsigned char *way = ways[w->count / PLACES * 7 % WAYS];
            steps[way[0] >> 1](w, way);
        }
        w->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
        w->wall_ns = clock_ns(CLOCK_MONOTONIC) - wall;
    }
    return NULL;
}

static worker *volatile workers; /* so that their live sets are no leaks */

workload_result workload_run(unsigned threads, uint64_t pairs)
{
    make_ways();
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, threads);
    worker *w = workers = bench_table(threads, sizeof *w);
    for (unsigned i = 0; i < threads; i++) {
        make_sizes(&w[i], 1 + i);
        w[i].gate = &gate;
        w[i].pairs = pairs;
        if (pthread_create(&w[i].id, NULL, work, &w[i]) != 0)
            abort();
    }
    workload_result r = {0};
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(w[i].id, NULL);
        r.wall_ns = w[i].wall_ns > r.wall_ns ? w[i].wall_ns : r.wall_ns;
        r.cpu_ns += w[i].cpu_ns / threads;
        r.checksum = r.checksum * 31 + w[i].sum;
    }
    r.wall_ns /= (double)pairs;
    r.cpu_ns /= (double)pairs;
    pthread_barrier_destroy(&gate);
    return r; /* the live set stays: it is what a profile at the end is of */
}
