/* bench_counters.c - what counting costs a malloc and its free, and what reading the counters does.
 */
#include <string.h>

#include <memkit/memkit.h>

#include "bench.h"

BENCH_INLINE void pair_with(gbench_state *s, bench_malloc m)
{
    size_t n = (size_t)gbench_arg(s, 0);
    GBENCH_LOOP(s)
    {
        void *p = m.alloc(n);
        GBENCH_KEEP(p);
        m.give(p);
    }
}

BENCH_BOTH(pair, pair_with(s, m))

static void read_thread(gbench_state *s)
{
    memkit_thread_allocs_t t;
    GBENCH_LOOP(s)
    {
        memkit_thread_allocs(&t);
        GBENCH_KEEP(&t);
    }
}

static void read_process(gbench_state *s)
{
    memkit_memstats_t m;
    GBENCH_LOOP(s)
    {
        memkit_memstats(&m);
        GBENCH_KEEP(&m);
    }
}

/* The counters count what comes through malloc, and what goes to glibc past it they do not. */
static const char *miscounted(void)
{
    memkit_thread_allocs_t before, after;
    if (memkit_thread_allocs(&before) != 1)
        return "malloc is not counted";
    for (int i = 0; i < 1000; i++) {
        void *p = malloc(64), *q = __libc_malloc(64);
        GBENCH_KEEP(p);
        GBENCH_KEEP(q);
        free(p);
        __libc_free(q);
    }
    memkit_thread_allocs(&after);
    bool exact = after.mallocs - before.mallocs == 1000 && after.frees - before.frees == 1000;
    return exact ? NULL : "a thousand allocations were not counted as a thousand";
}

static void add_pair(const char *name, gbench_fn fn, const char *beside, const char *target)
{
    gbench *b = bench_add(name, fn, miscounted);
    gbench_add_args(b, 1, (const int64_t[]){64});
    gbench_add_args(b, 1, (const int64_t[]){512});
    gbench_add_threads(b, 1);
    gbench_add_threads(b, 2);
    if (beside != NULL)
        gbench_compare(b, beside, target);
}

void bench_counters(void)
{
    add_pair("counters/pair/malloc", pair_malloc, "counters/pair/glibc",
             "+ 3 ns, and as much in two threads");
    add_pair("counters/pair/glibc", pair_glibc, NULL, NULL);
    gbench_compare(bench_add("counters/read/thread", read_thread, miscounted), NULL, "<= 3 ns");
    gbench_compare(bench_add("counters/read/process", read_process, miscounted), NULL, NULL);
}
