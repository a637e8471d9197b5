/* test_prof_exact.c - with a rate of 1 the profile is exact, to the byte, per place that allocates:
 * held against what a program notes of itself while its threads allocate in all ways, grow and give
 * each other's blocks back.
 *
 *     slots[100,000] --> block: [ head: site, bytes, thread | ... ]     who takes a block out of
 * its slot owns it
 */
#include "test_prof.h"

#include <limits.h>
#include <malloc.h>
#include <stdlib.h>

#define SLOTS   100000
#define OPS     30000
#define THREADS 8

/* Not tail calls, or the caller would be another. */
#define SITE(name, expression)                            \
    static __attribute__((noinline)) void *name(size_t n) \
    {                                                     \
        void *volatile p = (expression);                  \
        return p;                                         \
    }

extern void *new_of_cxx(size_t n) __asm__("_Znwm");
extern void delete_of_cxx(void *p) __asm__("_ZdlPv");

static void *by_posix_memalign(size_t n)
{
    void *p = NULL;
    return posix_memalign(&p, 64, n) == 0 ? p : NULL;
}

SITE(site_malloc, malloc(n))
SITE(site_calloc, calloc(n, 1))
SITE(site_calloc_product, calloc(2, n / 2))
static void *volatile nothing; /* or the compiler makes malloc of it */
SITE(site_realloc_of_nothing, realloc(nothing, n))
SITE(site_memalign, memalign(256, n))
SITE(site_posix_memalign, by_posix_memalign(n))
SITE(site_aligned_alloc, aligned_alloc(32, n))
SITE(site_valloc, valloc(n))
SITE(site_reallocarray, reallocarray(nothing, 2, n / 2))
SITE(site_new, new_of_cxx(n))

typedef struct {
    void *(*fn)(size_t);
    uint64_t leaf; /* of the function that it calls, as a frame word */
    uintptr_t caller;
} site;

static void *grow_block(void *p, size_t n);

enum { PLAIN_SITES = 10, GROWN = PLAIN_SITES, SITES };
static site sites[SITES] = {
    {site_malloc, 0, 0},
    {site_calloc, 0, 0},
    {site_calloc_product, 0, 0},
    {site_realloc_of_nothing, 0, 0},
    {site_memalign, 0, 0},
    {site_posix_memalign, 0, 0},
    {site_aligned_alloc, 0, 0},
    {site_valloc, 0, 0},
    {site_reallocarray, 0, 0},
    {site_new, 0, 0},
    {NULL, 0, 0} /* grow_block */
};

typedef struct {
    uint64_t bytes;
    uint32_t site, thread;
} head;

typedef struct {
    int64_t v[TYPES];
} tally;

typedef struct {
    unsigned number;
    uint64_t random;
    head *last; /* the thread's last allocation */
    tally truth[SITES];
} worker;

static _Atomic(head *) slots[SLOTS];
static worker workers[THREADS + 1];

static __attribute__((noinline)) void *grow_block(void *p, size_t n)
{
    void *volatile q = realloc(p, n);
    return q;
}

static void *grow_new_block(size_t n)
{
    void *p = malloc(n / 2);
    return grow_block(p, n);
}

static uint64_t draw(worker *w)
{
    w->random = w->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return w->random >> 33;
}

static head *note_new(worker *w, void *p, uint32_t at, size_t n)
{
    head *h = p;
    tally *t = &w->truth[at];
    *h = (head){n, at, w->number};
    t->v[MEMKIT__ALLOC_OBJECTS]++;
    t->v[MEMKIT__ALLOC_SPACE] += (int64_t)n;
    t->v[MEMKIT__INUSE_OBJECTS]++;
    t->v[MEMKIT__INUSE_SPACE] += (int64_t)n;
    w->last = h;
    return h;
}

static head *make(worker *w)
{
    uint32_t at = (uint32_t)(draw(w) % PLAIN_SITES);
    size_t n = sizeof(head) + (draw(w) % 100 == 0 ? 200000 : draw(w) % 600) / 2 * 2;
    void *p = sites[at].fn(n);
    assert_non_null(p);
    return note_new(w, p, at, n);
}

static void note_end(worker *w, const head *h)
{
    tally *t = &w->truth[h->site];
    t->v[MEMKIT__INUSE_OBJECTS]--;
    t->v[MEMKIT__INUSE_SPACE] -= (int64_t)h->bytes;
    t->v[MEMKIT__FREED_OBJECTS]++;
    t->v[MEMKIT__FOREIGN_FREED_OBJECTS] += h->thread != w->number;
    t->v[MEMKIT__TEMPORARY_OBJECTS] += h == w->last && h->thread == w->number;
}

static void drop(worker *w, head *h)
{
    if (h == NULL)
        return;
    note_end(w, h);
    if (h->site == 9)
        delete_of_cxx(h);
    else
        free(h);
}

/* Also into less, and in vain: then nothing changes. */
static head *regrow(worker *w, head *h)
{
    if (h == NULL)
        return NULL;
    if (draw(w) % 10 == 0) {
        assert_null(grow_block(h, SIZE_MAX / 4));
        return h;
    }
    size_t n = sizeof(head) + draw(w) % 3000;
    note_end(w, h);
    h = grow_block(h, n);
    assert_non_null(h);
    w->truth[GROWN].v[MEMKIT__REALLOC_OBJECTS]++;
    return note_new(w, h, GROWN, n);
}

static void *works(void *arg)
{
    worker *w = arg;
    for (int i = 0; i < OPS; i++) {
        _Atomic(head *) *slot = &slots[draw(w) % SLOTS];
        uint64_t what = draw(w) % 10;
        if (what < 2)
            drop(w, make(w)); /* temporary */
        else if (what < 4)
            drop(w, atomic_exchange(slot, regrow(w, atomic_exchange(slot, NULL))));
        else
            drop(w, atomic_exchange(slot, make(w)));
    }
    return NULL;
}

static void find_callers(void)
{
    for (unsigned i = 0; i < PLAIN_SITES; i++)
        sites[i].caller = caller_of(sites[i].fn, &sites[i].leaf);
    sites[GROWN].caller = caller_of(grow_new_block, &sites[GROWN].leaf);
    for (unsigned i = 0; i < SITES; i++)
        for (unsigned j = 0; j < i; j++)
            assert_true(sites[i].caller != sites[j].caller);
}

static void compare(const memkit_prof_snap *before, int64_t inuse_before[SITES][2])
{
    static const unsigned types[] = {MEMKIT__ALLOC_OBJECTS,     MEMKIT__ALLOC_SPACE,
                                     MEMKIT__INUSE_OBJECTS,     MEMKIT__INUSE_SPACE,
                                     MEMKIT__REALLOC_OBJECTS,   MEMKIT__FREED_OBJECTS,
                                     MEMKIT__TEMPORARY_OBJECTS, MEMKIT__FOREIGN_FREED_OBJECTS};
    for (unsigned i = 0; i < SITES; i++) {
        figures f = figures_of(sites[i].caller, before);
        f.v[MEMKIT__INUSE_OBJECTS] -= inuse_before[i][0];
        f.v[MEMKIT__INUSE_SPACE] -= inuse_before[i][1];
        tally truth = {0};
        for (unsigned w = 0; w <= THREADS; w++)
            for (unsigned t = 0; t < TYPES; t++)
                truth.v[t] += workers[w].truth[i].v[t];
        assert_true(truth.v[MEMKIT__ALLOC_OBJECTS] > 100);
        for (unsigned k = 0; k < sizeof types / sizeof types[0]; k++)
            if (f.v[types[k]] != truth.v[types[k]])
                fail_msg("site %u, type %u: %lld, and it is %lld", i, types[k],
                         (long long)f.v[types[k]], (long long)truth.v[types[k]]);
        int64_t lives = 0;
        for (unsigned t = MEMKIT__LIFE_1US; t <= MEMKIT__LIFE_LONGER; t++)
            lives += f.v[t];
        assert_int_equal(lives, truth.v[MEMKIT__FREED_OBJECTS]);
        assert_true(f.variance[MEMKIT__ALLOC_SPACE] <= 0);
    }
}

static void with_threads(unsigned n)
{
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    find_callers();
    memset(workers, 0, sizeof workers);
    int64_t inuse[SITES][2];
    for (unsigned i = 0; i < SITES; i++) {
        figures f = figures_of(sites[i].caller, NULL);
        inuse[i][0] = f.v[MEMKIT__INUSE_OBJECTS];
        inuse[i][1] = f.v[MEMKIT__INUSE_SPACE];
    }
    memkit_prof_snap *before = memkit_prof_snapshot();
    assert_non_null(before);
    for (unsigned i = 0; i <= THREADS; i++)
        workers[i] = (worker){.number = i, .random = i * 77 + n};
    worker *own = &workers[THREADS];
    for (unsigned i = 0; i < SLOTS; i++)
        atomic_store(&slots[i], make(own));
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, works, &workers[i]), 0);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    compare(before, inuse);
    memkit_prof_stats_t st;
    memkit_prof_stats(&st);
    assert_int_equal(st.dropped, 0);
    assert_true(st.live_samples >= SLOTS - OPS && st.own_bytes <= st.max_bytes);
    assert_int_equal(memkit_prof_stop(), 0);
    for (unsigned i = 0; i < SLOTS; i++) /* seen, though nothing is sampled any more */
        drop(own, atomic_exchange(&slots[i], NULL));
    compare(before, inuse);
    memkit_prof_snap_free(before);
}

static void one_thread_is_exact_in_all_types(void **state)
{
    (void)state;
    NEEDS_HOOK();
    with_threads(1);
}

static void eight_threads_that_free_each_others_blocks_are_exact(void **state)
{
    (void)state;
    NEEDS_HOOK();
    with_threads(THREADS);
}

static void stacks_begin_with_the_function_that_was_called(void **state)
{
    (void)state;
    NEEDS_HOOK();
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    find_callers();
    assert_int_equal(memkit_prof_stop(), 0);
    uintptr_t want[SITES] = {
        (uintptr_t)malloc,        (uintptr_t)calloc,   (uintptr_t)calloc,
        (uintptr_t)realloc,       (uintptr_t)memalign, (uintptr_t)posix_memalign,
        (uintptr_t)aligned_alloc, (uintptr_t)valloc,   (uintptr_t)realloc,
        (uintptr_t)malloc,        (uintptr_t)realloc};
    for (unsigned i = 0; i < SITES; i++)
        assert_int_equal(memkit__frame_pc(sites[i].leaf), want[i] + 1);
    /* And the caller is in the function that called. */
    assert_true(sites[0].caller > (uintptr_t)site_malloc &&
                sites[0].caller < (uintptr_t)site_malloc + 200);
}

static void what_fails_is_no_sample_and_malloc_0_is_one_of_no_bytes(void **state)
{
    (void)state;
    NEEDS_HOOK();
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    find_callers();
    figures before = figures_of(sites[0].caller, NULL);
    assert_null(site_malloc(SIZE_MAX / 4));
    figures after = figures_of(sites[0].caller, NULL);
    assert_int_equal(after.v[MEMKIT__ALLOC_OBJECTS], before.v[MEMKIT__ALLOC_OBJECTS]);
    void *p = site_malloc(0);
    after = figures_of(sites[0].caller, NULL);
    assert_int_equal(after.v[MEMKIT__ALLOC_OBJECTS], before.v[MEMKIT__ALLOC_OBJECTS] + 1);
    assert_int_equal(after.v[MEMKIT__ALLOC_SPACE], before.v[MEMKIT__ALLOC_SPACE]);
    assert_null(realloc(p, 0)); /* glibc's: that frees */
    after = figures_of(sites[0].caller, NULL);
    assert_int_equal(after.v[MEMKIT__INUSE_OBJECTS], before.v[MEMKIT__INUSE_OBJECTS]);
    assert_int_equal(memkit_prof_stop(), 0);
}

/* ---- the first and the last calls of threads ------------------------------------------------- */

static pthread_key_t at_end;

static void allocates_at_the_end(void *rounds)
{
    free(site_malloc(100));
    void *volatile left = site_malloc(10); /* one by each round */
    (void)left;
    size_t n = (size_t)(uintptr_t)rounds;
    if (n > 1)
        pthread_setspecific(at_end, (void *)(uintptr_t)(n - 1));
}

static void *allocates_at_once(void *arg)
{
    free(site_malloc(100));
    pthread_setspecific(at_end, (void *)(uintptr_t)PTHREAD_DESTRUCTOR_ITERATIONS);
    return arg;
}

static void a_threads_first_and_last_calls_are_exact(void **state)
{
    (void)state;
    NEEDS_HOOK();
    enum { N = 300, CALLS = 1 + 2 * PTHREAD_DESTRUCTOR_ITERATIONS };
    assert_int_equal(pthread_key_create(&at_end, allocates_at_the_end), 0);
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    find_callers();
    figures before = figures_of(sites[0].caller, NULL);
    for (int i = 0; i < N; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, allocates_at_once, NULL), 0);
        pthread_join(t, NULL);
    }
    figures after = figures_of(sites[0].caller, NULL);
    assert_int_equal(memkit_prof_stop(), 0);
    int64_t made = after.v[MEMKIT__ALLOC_OBJECTS] - before.v[MEMKIT__ALLOC_OBJECTS];
    int64_t left = after.v[MEMKIT__INUSE_SPACE] - before.v[MEMKIT__INUSE_SPACE];
    assert_int_equal(made, N * CALLS);
    assert_int_equal(left, N * PTHREAD_DESTRUCTOR_ITERATIONS * 10);
    int64_t temporary = after.v[MEMKIT__TEMPORARY_OBJECTS] - before.v[MEMKIT__TEMPORARY_OBJECTS];
    assert_int_equal(temporary, N * (1 + PTHREAD_DESTRUCTOR_ITERATIONS));
}

static void quiet_allocations_are_in_no_figure(void **state)
{
    (void)state;
    NEEDS_HOOK();
    assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}), 0);
    find_callers();
    memkit_thread_allocs_t counted, counted_after;
    assert_int_equal(memkit_thread_allocs(&counted), 1);
    figures before = figures_of(0, NULL);
    memkit__quiet_begin();
    memkit__quiet_begin(); /* nests */
    void *p[1000];
    for (int i = 0; i < 1000; i++)
        p[i] = site_malloc(1000); /* more than the room that is counted ahead */
    memkit__quiet_end();
    for (int i = 0; i < 1000; i++)
        free(p[i]);
    memkit__quiet_end();
    figures after = figures_of(0, NULL);
    assert_int_equal(memkit_thread_allocs(&counted_after), 1);
    assert_memory_equal(&counted, &counted_after, sizeof counted);
    assert_memory_equal(after.v, before.v, sizeof after.v);
    free(site_malloc(10));
    assert_int_equal(memkit_thread_allocs(&counted_after), 1);
    assert_int_equal(counted_after.mallocs, counted.mallocs + 1);
    assert_int_equal(memkit_prof_stop(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stacks_begin_with_the_function_that_was_called),
        cmocka_unit_test(what_fails_is_no_sample_and_malloc_0_is_one_of_no_bytes),
        cmocka_unit_test(a_threads_first_and_last_calls_are_exact),
        cmocka_unit_test(quiet_allocations_are_in_no_figure),
        cmocka_unit_test(one_thread_is_exact_in_all_types),
        cmocka_unit_test(eight_threads_that_free_each_others_blocks_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
