/* test_fork.c - forks of a process with threads: both sides use everything at once. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

#include "core/arena.h"
#include "core/lru.h"
#include "core/pool.h"

enum { HANGS_AFTER = 60 };

/* TSan refuses a thread in the child of a process that had threads; the rest is run under it. */
#if UNDER_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

static memkit_pool *pool, *swept;
static memkit_lru *cache, *told;

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

/* ---- what a child does ---- */

#define MUST(condition)                                                    \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "child, line %d: %s\n", __LINE__, #condition); \
            return 1;                                                      \
        }                                                                  \
    } while (0)

static int whole(const char *broken)
{
    if (broken != NULL)
        fprintf(stderr, "child: %s\n", broken);
    return broken == NULL;
}

static int use_pool(memkit_pool *p)
{
    memkit_buf *b[30];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 30; i++) {
            MUST((b[i] = memkit_pool_get(p, i % 3 == 0 ? 0 : (size_t)i * 300)) != NULL);
            MUST(memkit_buf_appendf(b[i], "%d", i) == 0);
        }
        for (int i = 0; i < 30; i++) {
            MUST(atoi(b[i]->data) == i);
            memkit_pool_put(p, b[i]);
        }
    }
    MUST(whole(memkit__pool_check(p)));
    MUST(p->caches == NULL || p->caches->next_in_pool == NULL); /* nobody else's are left */
    memkit_pool_trim(p, 1000);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    MUST(s.held_bytes <= 1000);
    MUST(whole(memkit__pool_check(p)));
    return 0;
}

static int use_cache(memkit_lru *c)
{
    char key[16], val[64];
    for (int i = 0; i < 300; i++) {
        int n = snprintf(key, sizeof key, "child%d", i);
        MUST(memkit_lru_set(c, key, (size_t)n, key, (size_t)n) == 0);
        size_t len;
        MUST(memkit_lru_get_into(c, key, (size_t)n, val, sizeof val, &len) == 1);
        MUST(len == (size_t)n && memcmp(key, val, len) == 0);
    }
    MUST(whole(memkit__lru_check(c)));
    return 0;
}

static int count(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key, (void)klen, (void)val, (void)vlen;
    ++*(int *)arg;
    return 0;
}

static void *get_and_put(void *arg)
{
    for (int i = 0; i < 100; i++)
        memkit_pool_put(arg, memkit_pool_get(arg, 100));
    return NULL;
}

static int use_all(void *unused)
{
    (void)unused;
    MUST(use_pool(pool) == 0 && use_pool(swept) == 0 && use_pool(memkit_pool_default()) == 0);
    MUST(use_cache(cache) == 0 && use_cache(told) == 0);
    int entries = 0;
    MUST(memkit_lru_each(cache, count, &entries) == 0 && entries > 0);
    MUST(memkit_lru_resize(cache, 900, 0) == 0);
    memkit_lru_clear(told);
    memkit_buf *text = memkit_buf_new(0);
    MUST(memkit_metrics_write(text) == 0 && strstr(text->data, "{pool=\"forked\"") != NULL);
    memkit_buf_free(text);
    memkit_pool *fresh = memkit_pool_new(NULL);
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "child's"});
    MUST(fresh != NULL && a != NULL && use_pool(fresh) == 0);
    memkit_pool_free(fresh);
    memkit_arena_free(a);
    pthread_t thread;
    if (!UNDER_TSAN) {
        MUST(pthread_create(&thread, NULL, get_and_put, pool) == 0);
        pthread_join(thread, NULL);
        MUST(whole(memkit__pool_check(pool)));
    }
    return 0;
}

static int exit_code(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A child that runs fn(arg) and must return 0; one that hangs is killed by its alarm. */
static int forked(int (*fn)(void *), void *arg)
{
    pid_t child = fork();
    if (child == 0) {
        alarm(HANGS_AFTER);
        _exit(fn(arg));
    }
    return exit_code(child);
}

/* ---- threads that are at everything ---- */

static atomic_bool stop;
static atomic_uint turns[8];

static void hear(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                 memkit_lru_reason reason)
{
    (void)arg, (void)key, (void)klen, (void)val, (void)vlen, (void)reason;
}

static void *fast_paths(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 1000; i++)
            memkit_pool_put(pool, memkit_pool_get(pool, 500));
        atomic_fetch_add(&turns[0], 1);
    }
    return NULL;
}

static void *slow_paths(void *arg)
{
    (void)arg;
    uint64_t seed = 7;
    memkit_buf *b[40];
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 40; i++) {
            b[i] = memkit_pool_get(pool, next_random(&seed) % 9000);
            memkit_buf_reserve(b[i], next_random(&seed) % 9000);
        }
        for (int i = 0; i < 40; i++)
            memkit_pool_put(pool, b[i]);
        memkit_pool_put(swept, memkit_pool_get(swept, 3000));
        memkit_pool_put(memkit_pool_default(), memkit_pool_get(memkit_pool_default(), 0));
        memkit_pool_trim(pool, 5000);
        atomic_fetch_add(&turns[1], 1);
    }
    return NULL;
}

static void *cache_calls(void *arg)
{
    (void)arg;
    uint64_t seed = 3;
    char val[200] = "";
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 100; i++) {
            uint64_t key = next_random(&seed) % 2000;
            memkit_lru_set(cache, &key, sizeof key, val, key % sizeof val);
            memkit_lru_set(told, &key, sizeof key, val, key % sizeof val);
            key = next_random(&seed) % 2000;
            memkit_lru_ref ref;
            if (memkit_lru_get(cache, &key, sizeof key, &ref) == 1)
                memkit_lru_release(cache, &ref);
        }
        memkit_lru_resize(cache, 500 + next_random(&seed) % 1000, 0);
        atomic_fetch_add(&turns[2], 1);
    }
    return NULL;
}

static void *readers(void *arg)
{
    (void)arg;
    memkit_buf *text = memkit_buf_new(0);
    while (!atomic_load(&stop)) {
        int entries = 0;
        memkit_buf_reset(text);
        if (memkit_metrics_write(text) != 0 || memkit_lru_each(cache, count, &entries) != 0)
            abort();
        atomic_fetch_add(&turns[3], 1);
    }
    memkit_buf_free(text);
    return NULL;
}

static void *lives(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.background = !UNDER_TSAN});
        memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "short"});
        memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 10, .shards = 4});
        pthread_t thread;
        pthread_create(&thread, NULL, get_and_put, pool);
        memkit_pool_put(p, memkit_pool_get(p, 100));
        memkit_lru_set(c, "k", 1, "v", 1);
        pthread_join(thread, NULL);
        memkit_arena_free(a);
        memkit_lru_free(c);
        memkit_pool_free(p);
        atomic_fetch_add(&turns[4], 1);
    }
    return NULL;
}

static void make_objects(void)
{
    pool = memkit_pool_new(&(memkit_pool_opts){
        .name = "forked", .max_held_bytes = 300000, .max_thread_bytes = 60000, .idle_ms = 20});
    swept = memkit_pool_new(&(memkit_pool_opts){.background = !UNDER_TSAN, .idle_ms = 10});
    cache = memkit_lru_new(&(memkit_lru_opts){.max_entries = 1000, .shards = 8});
    told = memkit_lru_new(&(memkit_lru_opts){.max_entries = 200, .on_evict = hear});
    assert_true(pool != NULL && swept != NULL && cache != NULL && told != NULL);
}

static void free_objects(void)
{
    memkit_pool_free(pool);
    memkit_pool_free(swept);
    memkit_lru_free(cache);
    memkit_lru_free(told);
}

static void children_of_a_busy_process_use_everything_and_so_does_it(void **state)
{
    (void)state;
    if (UNDER_ASAN)
        skip(); /* until LLVM 17 its malloc may stay locked in the child: nothing of ours */
    void *(*const bodies[])(void *) = {fast_paths,  fast_paths, slow_paths,
                                       cache_calls, readers,    lives};
    enum { BODIES = sizeof bodies / sizeof bodies[0] };
    make_objects();
    pthread_t threads[BODIES];
    for (int i = 0; i < BODIES; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], NULL), 0);
    int forks = (int)model_steps(120);
    for (int i = 0; i < forks; i++) {
        assert_int_equal(forked(use_all, NULL), 0);
        if (i % 8 == 0)
            sleep_ms(1); /* at another moment of the threads' */
    }
    unsigned before[5];
    for (int i = 0; i < 5; i++)
        before[i] = atomic_load(&turns[i]);
    for (int i = 0; i < 5; i++)
        for (int waited = 0; atomic_load(&turns[i]) == before[i]; waited++) {
            assert_true(waited < HANGS_AFTER * 100); /* nobody was left behind a lock */
            sleep_ms(10);
        }
    atomic_store(&stop, true);
    for (int i = 0; i < BODIES; i++)
        pthread_join(threads[i], NULL);
    assert_null(memkit__pool_check(pool));
    assert_null(memkit__lru_check(cache));
    assert_int_equal(use_all(NULL), 0);
    free_objects();
    atomic_store(&stop, false);
}

/* ---- forks from within the user's code ---- */

static int use_in_child(void *arg)
{
    MUST(use_all(NULL) == 0);
    return forked(use_all, arg); /* and its children as well */
}

static int callback_codes;

static void fork_when_told(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                           memkit_lru_reason reason)
{
    (void)key, (void)klen, (void)val, (void)vlen, (void)reason;
    if (arg == NULL || *(int *)arg == 0)
        return;
    *(int *)arg = 0;
    callback_codes = forked(use_in_child, NULL);
}

static int fork_while_walking(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key, (void)klen, (void)val, (void)vlen;
    pid_t child = fork();
    if (child == 0) {
        alarm(HANGS_AFTER);
        memkit_pool_put(pool, memkit_pool_get(pool, 100)); /* not the cache it walks: as ever */
        *(bool *)arg = true;
        return 1;
    }
    callback_codes = exit_code(child);
    return 1;
}

static void a_fork_may_be_made_in_a_callback(void **state)
{
    (void)state;
    int due = 1;
    make_objects();
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.max_entries = 50, .on_evict = fork_when_told, .arg = &due});
    callback_codes = -1;
    for (int i = 0; i < 60; i++)
        memkit_lru_set(c, &i, sizeof i, "v", 1);
    assert_int_equal(due, 0);
    assert_int_equal(callback_codes, 0);
    callback_codes = -1, due = 1;
    assert_int_equal(memkit_lru_resize(c, 20, 0), 0);
    assert_int_equal(callback_codes, 0);
    memkit_lru_set(cache, "k", 1, "v", 1);
    callback_codes = -1;
    bool in_child = false;
    int result = memkit_lru_each(cache, fork_while_walking, &in_child);
    if (in_child)
        _exit(result == 1 && use_all(NULL) == 0 ? 0 : 1);
    assert_int_equal(callback_codes, 0);
    memkit_lru_free(c);
    assert_int_equal(use_all(NULL), 0);
    free_objects();
}

typedef struct {
    pthread_barrier_t begun, forked;
    int entries;
} slow_walk;

static int wait_for_fork(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key, (void)klen, (void)val, (void)vlen;
    slow_walk *w = arg;
    if (w->entries++ == 0) {
        pthread_barrier_wait(&w->begun);
        pthread_barrier_wait(&w->forked);
    }
    return 0;
}

static void *walk_slowly(void *arg)
{
    memkit_lru_each(cache, wait_for_fork, arg);
    return NULL;
}

/* Waits for the shard that is walked, and has the registry locked meanwhile. */
static void *write_metrics(void *text)
{
    if (memkit_metrics_write(text) != 0)
        abort();
    return NULL;
}

static void a_fork_does_not_wait_for_the_users_code(void **state)
{
    (void)state;
    make_objects();
    slow_walk w = {.entries = 0};
    pthread_barrier_init(&w.begun, NULL, 2);
    pthread_barrier_init(&w.forked, NULL, 2);
    for (int i = 0; i < 100; i++)
        memkit_lru_set(cache, &i, sizeof i, "v", 1);
    pthread_t thread, writer;
    memkit_buf *text = memkit_buf_new(0);
    pthread_create(&thread, NULL, walk_slowly, &w);
    pthread_barrier_wait(&w.begun);
    pthread_create(&writer, NULL, write_metrics, text);
    sleep_ms(50);
    alarm(HANGS_AFTER);
    assert_int_equal(forked(use_all, NULL), 0); /* the shard that is walked, too */
    alarm(0);
    pthread_barrier_wait(&w.forked);
    pthread_join(thread, NULL);
    pthread_join(writer, NULL);
    assert_int_equal(w.entries, 100);
    assert_non_null(strstr(text->data, "memkit_lru_entries{cache="));
    memkit_buf_free(text);
    assert_int_equal(use_all(NULL), 0);
    pthread_barrier_destroy(&w.begun);
    pthread_barrier_destroy(&w.forked);
    free_objects();
}

/* ---- what the threads left that the child has not got ---- */

typedef struct {
    pthread_barrier_t used, done;
} waiting;

static void *use_and_wait(void *arg)
{
    waiting *w = arg;
    memkit_buf *b[20];
    for (int i = 0; i < 20; i++)
        b[i] = memkit_pool_get(pool, 2000);
    for (int i = 0; i < 20; i++)
        memkit_pool_put(pool, b[i]);
    pthread_barrier_wait(&w->used);
    pthread_barrier_wait(&w->done);
    memkit_pool_put(pool, memkit_pool_get(pool, 2000)); /* the cache is still the thread's own */
    return NULL;
}

static int find_what_was_left(void *unused)
{
    (void)unused;
    MUST(whole(memkit__pool_check(pool)));
    MUST(pool->caches == NULL && pool->reserved == pool->depot_bytes);
    memkit_buf *b[20];
    memkit_pool_stats_t before, after;
    memkit_pool_stats(pool, &before);
    MUST(before.held_buffers == 20 && before.gets == 20 && before.live_buffers == 0);
    for (int i = 0; i < 20; i++)
        b[i] = memkit_pool_get(pool, 2000);
    memkit_pool_stats(pool, &after);
    MUST(after.misses == before.misses && after.held_buffers == 0);
    for (int i = 0; i < 20; i++)
        memkit_pool_put(pool, b[i]);
    return use_pool(pool);
}

static int find_what_was_lost(void *unused)
{
    (void)unused;
    MUST(whole(memkit__pool_check(pool)));
    MUST(pool->caches == NULL && pool->reserved == 0 && pool->lost_headers == 20);
    memkit_pool_stats_t s;
    memkit_pool_stats(pool, &s);
    MUST(s.held_bytes == 0 && s.live_bytes == 0 && s.live_buffers == 0 && s.held_buffers == 0);
    MUST(use_pool(pool) == 0);
    memkit_pool_free(pool);
    return 0;
}

static void what_other_threads_held_is_the_childs_unless_it_was_caught_at_work(void **state)
{
    (void)state;
    make_objects();
    waiting w;
    pthread_barrier_init(&w.used, NULL, 2);
    pthread_barrier_init(&w.done, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, use_and_wait, &w);
    pthread_barrier_wait(&w.used);
    assert_int_equal(forked(find_what_was_left, NULL), 0);
    memkit__cache *c = pool->caches;
    assert_int_equal(c->claimed, 0); /* given back to its owner */
    assert_int_equal(c->held, 20 * memkit__class_bytes(memkit__class_of(2001)));
    atomic_store(&c->busy, 1); /* as if it stood within a get or put */
    assert_int_equal(forked(find_what_was_lost, NULL), 0);
    atomic_store(&c->busy, 0);
    pthread_barrier_wait(&w.done);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&w.used);
    pthread_barrier_destroy(&w.done);
    assert_int_equal(use_all(NULL), 0);
    free_objects();
}

static int wait_for_sweeper(void *unused)
{
    (void)unused;
    memkit_buf *b[50];
    for (int i = 0; i < 50; i++)
        MUST((b[i] = memkit_pool_get(swept, 5000)) != NULL);
    for (int i = 0; i < 50; i++)
        memkit_pool_put(swept, b[i]);
    memkit_pool_stats_t s;
    for (int waited = 0; waited < HANGS_AFTER * 1000; waited += 5) {
        memkit_pool_stats(swept, &s);
        if (s.held_bytes == 0)
            break;
        sleep_ms(5);
    }
    MUST(s.held_bytes == 0);
    memkit_pool_free(swept); /* joins it */
    return 0;
}

static void a_pools_own_thread_is_there_in_the_child(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip(); /* no thread in a child */
    make_objects();
    memkit_pool_put(swept, memkit_pool_get(swept, 5000));
    assert_int_equal(forked(wait_for_sweeper, NULL), 0);
    assert_int_equal(wait_for_sweeper(NULL), 0);
    swept = NULL;
    free_objects();
}

/* ---- two copies of the core; children that are no copies ---- */

typedef struct {
    memkit_pool *(*make)(const memkit_pool_opts *);
    void (*end)(memkit_pool *);
    memkit_pool *pool;
} second_copy;

static int use_both(void *arg)
{
    second_copy *s = arg;
    memkit_pool_put(s->pool, memkit_pool_get(s->pool, 100)); /* by the code of the other copy */
    memkit_pool *fresh = s->make(NULL);
    MUST(fresh != NULL);
    s->end(fresh);
    return use_all(NULL);
}

static int do_nothing(void *unused)
{
    (void)unused;
    return 0;
}

static void *fast_paths_of(void *arg)
{
    while (!atomic_load(&stop))
        for (int i = 0; i < 100; i++)
            memkit_pool_put(arg, memkit_pool_get(arg, 500));
    return NULL;
}

static void two_copies_of_the_core_fork_as_one(void **state)
{
    (void)state;
    if (UNDER_ASAN)
        skip(); /* threads that allocate: as above */
    const char *build = getenv("MEMKIT_BUILD");
    assert_non_null(build);
    char path[1000];
    snprintf(path, sizeof path, "%s/libmemkit.so.0", build);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        fail_msg("%s", dlerror());
    second_copy s;
    void *fn[2] = {dlsym(so, "memkit_pool_new"), dlsym(so, "memkit_pool_free")};
    memcpy(&s.make, &fn[0], sizeof fn[0]);
    memcpy(&s.end, &fn[1], sizeof fn[1]);
    assert_true(s.make != memkit_pool_new); /* a copy of its own */
    make_objects();
    s.pool = s.make(NULL);
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, fast_paths_of, s.pool);
    pthread_create(&threads[1], NULL, fast_paths, NULL);
    int forks = (int)model_steps(50);
    for (int i = 0; i < forks; i++)
        assert_int_equal(forked(use_both, &s), 0);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stop, false);
    s.end(s.pool);
    free_objects();
    dlclose(so); /* its code stays, for the handlers and the threads' ends */
    assert_int_equal(forked(do_nothing, NULL), 0);
}

static void spawned_programs_are_not_delayed(void **state)
{
    (void)state;
    make_objects();
    char name[] = "true";
    char *args[] = {name, NULL}, *env[] = {NULL};
    pthread_mutex_lock(&pool->lock); /* a fork would wait for it */
    pid_t child;
    alarm(HANGS_AFTER);
    int error = posix_spawnp(&child, name, NULL, NULL, args, env);
    alarm(0);
    pthread_mutex_unlock(&pool->lock);
    assert_int_equal(error, 0);
    assert_int_equal(exit_code(child), 0);
    free_objects();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_of_a_busy_process_use_everything_and_so_does_it),
        cmocka_unit_test(a_fork_may_be_made_in_a_callback),
        cmocka_unit_test(a_fork_does_not_wait_for_the_users_code),
        cmocka_unit_test(what_other_threads_held_is_the_childs_unless_it_was_caught_at_work),
        cmocka_unit_test(a_pools_own_thread_is_there_in_the_child),
        cmocka_unit_test(two_copies_of_the_core_fork_as_one),
        cmocka_unit_test(spawned_programs_are_not_delayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
