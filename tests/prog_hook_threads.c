/* prog_hook_threads.c - as prog_hook_family.c, with threads: no call is lost, none counted twice,
 * and each thread sees its own.
 *
 * What creating and joining threads allocates is the creator's, so in every check here
 *
 *     the process's difference = this thread's difference + what the threads say they did
 */
#ifndef INCLUDED_BY_A_TEST
#define INCLUDED_BY_A_TEST
#define MAIN_OF_THREADS
#endif
#include "prog_hook_family.c"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_uint broken; /* threads that found their own counters wrong */
static atomic_ullong sum_mallocs, sum_frees, sum_bytes, sum_freed;

static void threads_start(void)
{
    broken = 0;
    sum_mallocs = sum_frees = sum_bytes = sum_freed = 0;
    start();
}

static int threads_agreed(void)
{
    memkit__counts own, all;
    prof->thread_counts(&own);
    prof->process_counts(&all);
    mine.mallocs = own.mallocs - own0.mallocs + sum_mallocs;
    mine.frees = own.frees - own0.frees + sum_frees;
    mine.alloc_bytes = own.alloc_bytes - own0.alloc_bytes + sum_bytes;
    mine.freed_bytes = own.freed_bytes - own0.freed_bytes + sum_freed;
    return agree(&all, &all0);
}

/* A thread's own truth, against its counters, which begin at 0. */
static void thread_says(const memkit__counts *truth)
{
    memkit__counts own;
    prof->thread_counts(&own);
    if (own.mallocs != truth->mallocs || own.frees != truth->frees ||
        own.alloc_bytes != truth->alloc_bytes || own.freed_bytes != truth->freed_bytes)
        broken++;
    sum_mallocs += truth->mallocs;
    sum_frees += truth->frees;
    sum_bytes += truth->alloc_bytes;
    sum_freed += truth->freed_bytes;
}

static void *take(memkit__counts *truth, size_t n)
{
    void *p = malloc(n);
    truth->mallocs++;
    truth->alloc_bytes += malloc_usable_size(p);
    return p;
}

static void give(memkit__counts *truth, void *p)
{
    truth->frees++;
    truth->freed_bytes += malloc_usable_size(p);
    free(p);
}

/* ---- 8 threads, 100,000 rounds each ---------------------------------------------------------- */

static void *busy(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    memkit__counts truth = {0};
    void *kept[16] = {NULL};
    for (int i = 0; i < 100000; i++) {
        seed = seed * 1664525u + 1013904223u;
        void **slot = &kept[seed >> 28];
        size_t n = seed >> 8 & 4095;
        if (*slot != NULL && (seed & 1) != 0) {
            truth.frees++;
            truth.freed_bytes += malloc_usable_size(*slot);
            *slot = realloc(*slot, n + 1);
            truth.mallocs++;
            truth.alloc_bytes += malloc_usable_size(*slot);
            continue;
        }
        if (*slot != NULL)
            give(&truth, *slot);
        *slot = take(&truth, n);
    }
    for (int i = 0; i < 16; i++)
        if (kept[i] != NULL)
            give(&truth, kept[i]);
    thread_says(&truth);
    return NULL;
}

static int eight_busy_threads_are_counted_exactly(void)
{
    pthread_t t[8];
    unsigned seeds[8];
    threads_start();
    for (unsigned i = 0; i < 8; i++) {
        seeds[i] = i * 7919 + 1;
        CHECK(pthread_create(&t[i], NULL, busy, &seeds[i]) == 0);
    }
    for (unsigned i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    CHECK(sum_mallocs > 700000);
    CHECK(broken == 0);
    CHECK(threads_agreed());
    return 1;
}

/* ---- 10,000 short ones ----------------------------------------------------------------------- */

static void (*short_thread_seen)(void); /* called at the end of each, if set */

static void *brief(void *arg)
{
    memkit__counts truth = {0};
    unsigned rounds = *(unsigned *)arg;
    for (unsigned i = 0; i < rounds; i++)
        give(&truth, take(&truth, 10 + 50 * i));
    thread_says(&truth);
    if (short_thread_seen != NULL)
        short_thread_seen();
    return NULL;
}

static int ten_thousand_short_threads_leave_no_drift(void)
{
    unsigned rounds[8];
    threads_start();
    for (unsigned i = 0; i < 10000; i += 8) {
        pthread_t t[8];
        for (unsigned k = 0; k < 8; k++) {
            rounds[k] = (i / 8 + k) % 20; /* some never need a block of their own */
            CHECK(pthread_create(&t[k], NULL, brief, &rounds[k]) == 0);
        }
        for (unsigned k = 0; k < 8; k++)
            pthread_join(t[k], NULL);
    }
    CHECK(sum_mallocs > 80000);
    CHECK(broken == 0);
    CHECK(threads_agreed());
    return 1;
}

/* ---- allocated here, freed there ------------------------------------------------------------- */

#define HANDED 20000
static void *handed[HANDED];

static void *consume(void *arg)
{
    (void)arg;
    memkit__counts truth = {0};
    for (int i = 0; i < HANDED; i++)
        give(&truth, handed[i]);
    thread_says(&truth);
    return NULL;
}

static int frees_of_another_threads_blocks_are_the_freeing_threads(void)
{
    pthread_t t;
    threads_start();
    for (int i = 0; i < HANDED; i++)
        handed[i] = malloc(1000);
    CHECK(pthread_create(&t, NULL, consume, NULL) == 0);
    pthread_join(t, NULL);
    CHECK(sum_frees == HANDED);
    CHECK(broken == 0);
    CHECK(threads_agreed());
    return 1;
}

/* ---- allocations while a thread dies --------------------------------------------------------- */

static pthread_key_t keys[4];
static atomic_uint destroyed;
static int busy_before_its_end;

/* Holds a block across rounds, each of which replaces it; the last frees it. */
static void at_end(void *arg)
{
    memkit__counts truth = {0};
    unsigned i, round = ++destroyed;
    for (i = 0; i < 4; i++)
        if (pthread_getspecific(keys[i]) == NULL)
            break;
    give(&truth, arg);
    for (unsigned k = 0; k < 5; k++)
        give(&truth, take(&truth, 100 * round));
    sum_mallocs += truth.mallocs;
    sum_frees += truth.frees;
    sum_bytes += truth.alloc_bytes;
    sum_freed += truth.freed_bytes;
    if (round % PTHREAD_DESTRUCTOR_ITERATIONS != 0 && i < 4) {
        void *next = malloc(10);
        sum_mallocs++;
        sum_bytes += malloc_usable_size(next);
        pthread_setspecific(keys[i], next);
    }
}

static void *dies_busily(void *arg)
{
    (void)arg;
    memkit__counts truth = {0};
    for (int i = 0; busy_before_its_end && i < 20; i++)
        give(&truth, take(&truth, 64));
    void *held[4];
    for (int i = 0; i < 4; i++)
        held[i] = take(&truth, 10);
    thread_says(&truth);
    for (int i = 0; i < 4; i++)
        pthread_setspecific(keys[i], held[i]);
    return NULL;
}

static int calls_from_key_destructors_are_counted(void)
{
    for (int i = 0; i < 4; i++)
        CHECK(pthread_key_create(&keys[i], at_end) == 0);
    for (busy_before_its_end = 0; busy_before_its_end < 2; busy_before_its_end++) {
        threads_start();
        for (int i = 0; i < 100; i++) {
            pthread_t t;
            destroyed = 0;
            CHECK(pthread_create(&t, NULL, dies_busily, NULL) == 0);
            pthread_join(t, NULL);
            CHECK(destroyed >= 4);
        }
        CHECK(broken == 0);
        CHECK(threads_agreed());
    }
    for (int i = 0; i < 4; i++)
        pthread_key_delete(keys[i]);
    return 1;
}

static const struct {
    const char *name;
    int (*run)(void);
} threaded[] = {
    {"eight_busy_threads_are_counted_exactly", eight_busy_threads_are_counted_exactly},
    {"ten_thousand_short_threads_leave_no_drift", ten_thousand_short_threads_leave_no_drift},
    {"frees_of_another_threads_blocks_are_the_freeing_threads",
     frees_of_another_threads_blocks_are_the_freeing_threads},
    {"calls_from_key_destructors_are_counted", calls_from_key_destructors_are_counted},
};

#define THREAD_CHECKS (sizeof threaded / sizeof threaded[0])

#ifdef MAIN_OF_THREADS
int main(void)
{
    if (!attach_by_name(RTLD_DEFAULT)) {
        fprintf(stderr, "there is no memkit_prof_attach\n");
        return 2;
    }
    int failed = 0;
    for (size_t i = 0; i < THREAD_CHECKS; i++)
        if (!threaded[i].run()) {
            fprintf(stderr, "failed: %s\n", threaded[i].name);
            failed++;
        }
    return failed == 0 ? 0 : 1;
}
#endif
