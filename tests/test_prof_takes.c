/* test_prof_takes.c - pools, caches and arenas in the heap profile: who has the memory that memkit
 * manages, what it holds idle, and that the rows' sum is what malloc gave.
 *
 * Linked with --wrap: what the core and this program ask of malloc is written down, in bytes asked
 * for.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <memkit/prof.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#include "core/lru.h"
#include "prof/chance.h"
#include "prof/heap.h"
#include "prof/quiet.h"
#include "prof/sampler.h"
#include "prof/takes.h"

/* ---- malloc's truth ---- */

enum { SLOTS = 1 << 16 };
static struct {
    uintptr_t p;
    size_t bytes;
} book[SLOTS];
static uint64_t truth; /* bytes asked for and not freed, since the profiler was started */
static bool writing;
static pthread_mutex_t book_lock = PTHREAD_MUTEX_INITIALIZER;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
void __wrap_free(void *p);

static size_t *place(uintptr_t p, bool make)
{
    size_t i = (size_t)(p >> 4) * 0x9e3779b97f4a7c15u >> 48;
    while (book[i].p != p && !(make && (book[i].p == 0 || book[i].p == 1))) {
        if (book[i].p == 0)
            return NULL;
        i = (i + 1) % SLOTS;
    }
    book[i].p = make ? p : 1;
    return &book[i].bytes;
}

static void *note(void *p, size_t n)
{
    pthread_mutex_lock(&book_lock);
    if (p != NULL && writing) {
        *place((uintptr_t)p, true) = n;
        truth += n;
    }
    pthread_mutex_unlock(&book_lock);
    return p;
}

static void forget(void *p)
{
    pthread_mutex_lock(&book_lock);
    size_t *bytes = p != NULL ? place((uintptr_t)p, false) : NULL;
    if (bytes != NULL)
        truth -= *bytes;
    pthread_mutex_unlock(&book_lock);
}

void *__wrap_malloc(size_t n)
{
    return note(__real_malloc(n), n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return note(__real_calloc(n, size), n * size);
}

void *__wrap_realloc(void *p, size_t n)
{
    forget(p);
    return note(__real_realloc(p, n), n); /* none fails here */
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return note(__real_aligned_alloc(align, n), n);
}

void __wrap_free(void *p)
{
    forget(p);
    __real_free(p);
}

/* ---- reading the profile ---- */

typedef struct {
    int64_t v[MEMKIT__HEAP_TYPE_COUNT];
    double variance[MEMKIT__HEAP_TYPE_COUNT];
} figures;

/* At an address of 256 bytes of its own, by which its stacks are told. */
#define USER __attribute__((noinline, aligned(256)))

#define OF(function) ((uintptr_t)(function))

/* Of stacks that begin with `leaf` and whose caller is in `user`; 0: any. */
static figures read_rows(uintptr_t leaf, uintptr_t user, const char *name)
{
    figures f = {0};
    memkit__scratch s = {0};
    memkit__quiet_begin();
    memkit__profile *p = memkit__heap_profile(MEMKIT_PROF_HEAP, NULL, &s);
    for (uint32_t i = 0; p != NULL && i < p->n_samples; i++) {
        const memkit__sample *x = &p->samples[i];
        if (name != NULL ? x->name == NULL || strcmp(x->name, name) != 0
                         : x->name != NULL && (leaf != 0 || user != 0))
            continue;
        if (leaf != 0 && memkit__frame_pc(x->frames[0]) != leaf + 1)
            continue;
        if (user != 0 && (x->depth < 2 || memkit__frame_pc(x->frames[1]) - user >= 256))
            continue;
        for (unsigned t = 0; t < MEMKIT__HEAP_TYPE_COUNT; t++) {
            f.v[t] += x->values[t];
            f.variance[t] += x->variance != NULL ? x->variance[t] : 0;
        }
    }
    memkit__scratch_free(&s);
    memkit__quiet_end();
    return f;
}

static int64_t inuse(uintptr_t leaf, uintptr_t user)
{
    return read_rows(leaf, user, NULL).v[MEMKIT__INUSE_SPACE];
}

static int64_t held(void)
{
    return read_rows(0, 0, MEMKIT__HELD_NAME).v[MEMKIT__INUSE_SPACE];
}

static int64_t others; /* what is not written down: cmocka's and stdio's */

static void begin_sum(void)
{
    others = inuse(0, 0) - (int64_t)truth;
}

static void assert_true_sum(void)
{
    assert_int_equal(inuse(0, 0), (int64_t)truth + others);
}

static int begin(void **state)
{
    (void)state;
    if (SANITIZED)
        return 0;
    writing = true;
    return memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1});
}

static int end(void **state)
{
    (void)state;
    writing = false;
    memkit_prof_stop();
    return 0;
}

#define NEEDS_HOOK()   \
    do {               \
        if (SANITIZED) \
            skip();    \
    } while (0)

/* ---- exact ---- */

static USER memkit_buf *leaker(memkit_pool *p, size_t n)
{
    memkit_buf *b = memkit_pool_get(p, n);
    __asm__ volatile("" : : "r"(b) : "memory");
    return b;
}

static USER memkit_buf *other_user(memkit_pool *p, size_t n)
{
    memkit_buf *b = memkit_pool_get(p, n);
    __asm__ volatile("" : : "r"(b) : "memory");
    return b;
}

static void a_leak_of_pooled_buffers_shows_under_who_got_them(void **state)
{
    (void)state;
    NEEDS_HOOK();
    begin_sum();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *leaked[50];
    /* The blocks are made for another, who gives them back. */
    for (int i = 0; i < 50; i++)
        leaked[i] = other_user(p, 1000);
    int64_t room = (int64_t)leaked[0]->cap + 1;
    assert_int_equal(inuse(OF(memkit_pool_get), OF(other_user)), 50 * room);
    int64_t idle = held();
    for (int i = 0; i < 50; i++)
        memkit_pool_put(p, leaked[i]);
    assert_int_equal(inuse(OF(memkit_pool_get), OF(other_user)), 0);
    assert_int_equal(held(), idle + 50 * room);
    for (int i = 0; i < 50; i++)
        leaked[i] = leaker(p, 1000);
    figures f = read_rows(OF(memkit_pool_get), OF(leaker), NULL);
    assert_int_equal(f.v[MEMKIT__INUSE_SPACE], 50 * room);
    assert_int_equal(f.v[MEMKIT__INUSE_OBJECTS], 50);
    assert_int_equal(f.v[MEMKIT__TAKE_OBJECTS], 50);
    assert_int_equal(f.v[MEMKIT__TAKE_SPACE], 50 * room);
    assert_int_equal(f.v[MEMKIT__ALLOC_OBJECTS], 0); /* no allocation of its own */
    assert_int_equal(held(), idle);
    assert_true_sum();
    memkit_buf_appendf(leaked[0], "%9000d", 1);
    assert_int_equal(inuse(OF(memkit_pool_get), OF(leaker)),
                     49 * room + (int64_t)leaked[0]->cap + 1);
    assert_true_sum();
    for (int i = 0; i < 50; i++)
        memkit_pool_put(p, leaked[i]);
    memkit_pool_free(p);
    assert_int_equal(inuse(OF(memkit_pool_get), OF(leaker)), 0);
    assert_true_sum();
}

static USER int setter(memkit_lru *c, int key, size_t n)
{
    static char value[100000];
    int result = memkit_lru_set(c, &key, sizeof key, value, n);
    __asm__ volatile("" : : "r"(result) : "memory");
    return result;
}

static USER void *requester(memkit_arena *a, size_t n)
{
    void *p = memkit_arena_alloc(a, n);
    __asm__ volatile("" : : "r"(p) : "memory");
    return p;
}

static void entries_and_arenas_show_under_who_filled_them(void **state)
{
    (void)state;
    NEEDS_HOOK();
    begin_sum();
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 100});
    size_t one = 0;
    for (int i = 0; i < 1000; i++)
        setter(c, i, 200);
    assert_true(memkit__lru_entry_bytes(c, sizeof(int), 200, &one));
    assert_int_equal(inuse(OF(memkit_lru_set), OF(setter)), 100 * one);
    assert_true_sum();
    memkit_arena *a = memkit_arena_new(NULL);
    for (int i = 0; i < 500; i++)
        requester(a, 100);
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    assert_int_equal(inuse(0, OF(requester)), s.used_bytes);
    assert_true_sum();
    memkit_arena_reset(a);
    assert_int_equal(inuse(0, OF(requester)), 0);
    assert_true_sum();
    memkit_arena_free(a);
    memkit_lru_free(c);
    assert_int_equal(inuse(OF(memkit_lru_set), OF(setter)), 0);
    assert_true_sum();
}

enum { BUFFERS = 16 };
typedef struct {
    memkit_pool *pool;
    memkit_lru *lru;
    memkit_arena *arena;
    memkit_buf *out[BUFFERS];
    memkit_arena_mark mark;
    bool marked;
    uint64_t random;
} world;

static void make_world(world *w)
{
    *w = (world){.pool = memkit_pool_new(&(memkit_pool_opts){.max_held_bytes = 200000}),
                 .lru = memkit_lru_new(&(memkit_lru_opts){.max_bytes = 300000}),
                 .arena = memkit_arena_new(NULL),
                 .random = 11};
}

static void end_world(world *w)
{
    for (int i = 0; i < BUFFERS; i++)
        memkit_pool_put(w->pool, w->out[i]);
    memkit_arena_free(w->arena);
    memkit_lru_free(w->lru);
    memkit_pool_free(w->pool);
}

static void step(world *w)
{
    uint64_t r = next_random(&w->random);
    size_t n = (size_t)(next_random(&w->random) % 5000);
    unsigned i = (unsigned)(r >> 8) % BUFFERS;
    int key = (int)((r >> 16) % 500);
    static char value[5000];
    switch (r % 9) {
    case 0:
        if (w->out[i] == NULL)
            w->out[i] = leaker(w->pool, n);
        break;
    case 1:
        memkit_pool_put(w->pool, w->out[i]);
        w->out[i] = NULL;
        break;
    case 2:
        if (w->out[i] != NULL)
            memkit_buf_append(w->out[i], value, n);
        break;
    case 3:
    case 4:
        setter(w->lru, key, n * (1 + (r >> 30) % 50 / 45 * 8));
        break;
    case 5:
        memkit_lru_del(w->lru, &key, sizeof key);
        break;
    case 6:
        requester(w->arena, n);
        break;
    case 7:
        if (w->marked)
            memkit_arena_rewind(w->arena, w->mark);
        else
            w->mark = memkit_arena_save(w->arena);
        w->marked = !w->marked;
        break;
    default:
        if ((r >> 8) % 5 == 0) {
            memkit_arena_reset(w->arena);
            memkit_pool_trim(w->pool, 1000);
            w->marked = false;
        }
    }
}

static void the_sum_is_mallocs_after_each_step(void **state)
{
    (void)state;
    NEEDS_HOOK();
    world w;
    unsigned steps = model_steps(3000);
    begin_sum();
    make_world(&w);
    for (unsigned i = steps; i > 0; i--) {
        step(&w);
        assert_true_sum();
    }
    assert_true(held() > 0);
    end_world(&w);
    assert_true_sum();
    assert_int_equal(inuse(0, OF(leaker)) + inuse(0, OF(setter)) + inuse(0, OF(requester)), 0);
}

static void the_sum_is_mallocs_through_starts_and_stops(void **state)
{
    (void)state;
    NEEDS_HOOK();
    world w;
    unsigned steps = model_steps(3000);
    begin_sum();
    make_world(&w);
    for (unsigned i = steps; i > 0; i--) {
        if (i % 100 == 50) {
            memkit_prof_stop();
            writing = false;
        } else if (i % 100 == 0) {
            memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1});
            writing = true;
        }
        step(&w);
        assert_true_sum();
    }
    memkit_prof_stop();
    end_world(&w);
    assert_true_sum();
    assert_int_equal(inuse(0, OF(leaker)) + inuse(0, OF(setter)) + inuse(0, OF(requester)), 0);
}

static void *put_it(void *b)
{
    memkit_buf_free(b);
    return NULL;
}

static void other_threads_and_children_give_back(void **state)
{
    (void)state;
    NEEDS_HOOK();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = leaker(p, 1000), *c = leaker(p, 1000);
    int64_t room = (int64_t)b->cap + 1;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, put_it, b), 0);
    pthread_join(t, NULL);
    assert_int_equal(inuse(OF(memkit_pool_get), OF(leaker)), room);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        memkit_pool_put(p, c);
        bool gone = inuse(OF(memkit_pool_get), OF(leaker)) == 0;
        leaker(p, 1000);
        _exit(gone && inuse(OF(memkit_pool_get), OF(leaker)) == room ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(inuse(OF(memkit_pool_get), OF(leaker)), room);
    memkit_pool_put(p, c);
    memkit_pool_free(p);
}

/* ---- sampled ---- */

typedef struct {
    double sum, variance;
} estimate;

static void add(estimate *e, const figures *now, const figures *before, unsigned type, double exact)
{
    e->sum += (double)(now->v[type] - before->v[type]) - exact;
    e->variance += now->variance[type] - before->variance[type];
}

/* Some of each is still out when it is read: mixed sizes, grown buffers, replaced entries. */
static void estimates_are_unbiased(void **state)
{
    (void)state;
    NEEDS_HOOK();
    memkit_prof_stop();
    writing = false;
    enum { SEEDS = 50, N = 300 };
    estimate taken[3] = {{0}}, used[3] = {{0}};
    for (int seed = 0; seed < SEEDS; seed++) {
        assert_int_equal(memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 8192}), 0);
        memkit__takes_seed((uint64_t)seed);
        memkit__sampler_seed((uint64_t)seed);
        const uintptr_t users[3] = {OF(leaker), OF(setter), OF(requester)};
        const uintptr_t leaves[3] = {OF(memkit_pool_get), OF(memkit_lru_set), 0};
        figures before[3];
        for (int k = 0; k < 3; k++)
            before[k] = read_rows(leaves[k], users[k], NULL);
        memkit_pool *p = memkit_pool_new(NULL);
        memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = N});
        memkit_arena *a = memkit_arena_new(NULL);
        memkit_buf *out[N];
        double rooms = 0, still = 0, entries = 0, kept = 0;
        for (int i = 0; i < N; i++) {
            size_t n = (size_t)(i * 37 % 3000) + 1, bytes = 0;
            out[i] = leaker(p, n);
            rooms += (double)out[i]->cap + 1;
            setter(c, i, n);
            memkit__lru_entry_bytes(c, sizeof(int), n, &bytes);
            entries += (double)bytes;
            kept += i % 2 ? (double)bytes : 0;
            requester(a, n);
        }
        for (int i = 0; i < N; i++) {
            if (i % 2)
                still += (double)out[i]->cap + 1;
            else
                memkit_pool_put(p, out[i]);
            if (i % 2 == 0)
                memkit_lru_del(c, &i, sizeof i);
        }
        memkit_arena_stats_t s;
        memkit_arena_stats(a, &s);
        const double all[3] = {rooms, entries, (double)s.used_bytes};
        const double now_out[3] = {still, kept, (double)s.used_bytes};
        for (int k = 0; k < 3; k++) {
            figures now = read_rows(leaves[k], users[k], NULL);
            add(&taken[k], &now, &before[k], MEMKIT__TAKE_SPACE, all[k]);
            add(&used[k], &now, &before[k], MEMKIT__INUSE_SPACE, now_out[k]);
        }
        memkit_prof_stop();
        for (int i = 1; i < N; i += 2)
            memkit_pool_put(p, out[i]);
        memkit_arena_free(a);
        memkit_lru_free(c);
        memkit_pool_free(p);
    }
    for (int k = 0; k < 3; k++) {
        print_message("%d: off by %.1f and %.1f standard errors\n", k,
                      taken[k].sum / sqrt(taken[k].variance), used[k].sum / sqrt(used[k].variance));
        assert_true(taken[k].variance > 0 && used[k].variance > 0);
        assert_true(fabs(taken[k].sum) < 4 * sqrt(taken[k].variance));
        assert_true(fabs(used[k].sum) < 4 * sqrt(used[k].variance));
    }
    assert_int_equal(inuse(0, OF(leaker)) + inuse(0, OF(setter)) + inuse(0, OF(requester)), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_leak_of_pooled_buffers_shows_under_who_got_them),
        TEST(entries_and_arenas_show_under_who_filled_them),
        TEST(the_sum_is_mallocs_after_each_step),
        TEST(the_sum_is_mallocs_through_starts_and_stops),
        TEST(other_threads_and_children_give_back),
        TEST(estimates_are_unbiased),
    };
    return cmocka_run_group_tests_name("prof_takes", tests, NULL, NULL);
}
