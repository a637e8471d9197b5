/* bench.h - what the benches share: who registers what, three mallocs to run the same work with,
 * random numbers.
 *
 * A row is named component/task/who. `memkit` is ours; `malloc` is the same work with malloc as a
 * program calls it, counted by the hook, which costs it some ns; `glibc` is that again with the
 * hook left out, and so has no counts. Ratios are to `glibc`: nobody should look faster for our
 * having counted the others.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "gbench.h"

void bench_arena(void);
void bench_counters(void);
void bench_lru(void);
void bench_pool(void);
void bench_process(void);

/* Do the ways to do this work give the same results? NULL: yes; else what differs. Called before
 * the first run of the first row that has this check, and once; where it says no, all of them fail.
 */
typedef const char *(*bench_check)(void);

/* gbench_add of a row whose results are checked first. */
gbench *bench_add(const char *name, gbench_fn fn, bench_check check);

/* Work that takes an allocator is always inlined, with a constant one: no call is indirect. */
#define BENCH_INLINE static inline __attribute__((always_inline))

typedef struct {
    void *(*alloc)(size_t);
    void *(*resize)(void *, size_t);
    void (*give)(void *);
} bench_malloc;

void *__libc_malloc(size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

#define BENCH_MALLOC ((bench_malloc){malloc, realloc, free})
#define BENCH_GLIBC  ((bench_malloc){__libc_malloc, __libc_realloc, __libc_free})

/* Defines rows NAME_malloc and NAME_glibc of one call that has a gbench_state *s and a malloc m. */
#define BENCH_BOTH(name, call)                 \
    static void name##_malloc(gbench_state *s) \
    {                                          \
        const bench_malloc m = BENCH_MALLOC;   \
        call;                                  \
    }                                          \
    static void name##_glibc(gbench_state *s)  \
    {                                          \
        const bench_malloc m = BENCH_GLIBC;    \
        gbench_uncounted(s);                   \
        call;                                  \
    }

/* splitmix64: the same numbers in every run. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1). */
static inline double bench_uniform(uint64_t *state)
{
    return ((double)(bench_random(state) >> 11) + 0.5) / 9007199254740992.0;
}

/* Memory for a bench's tables, which live as long as the program. */
static inline void *bench_table(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL)
        abort();
    return p;
}

#endif
