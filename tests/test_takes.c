/* test_takes.c - what the core tells an attached profiler of its pools, caches and arenas
 * (core/takes.h): this program is the profiler, and writes everything down.
 */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/attach.h"
#include "core/lru.h"
#include "core/pool.h"

/* ---- the profiler ---- */

typedef struct {
    const void *function;
    size_t bytes;
    uint64_t objects;
    bool whole, open;
} token_row;

enum { TOKENS = 100000 };
static token_row tokens[TOKENS];
static uint32_t n_tokens;

static const memkit__core_table *core;
static _Atomic uint32_t epoch;
static _Atomic int64_t rate_room; /* what each countdown is given */
static _Atomic size_t rate_mean = 1;
static int calls, owned, side_fails;
static bool one_token; /* all takes of one function have the same */
static size_t side_bytes;
static memkit__taking last;
static int takes;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static int hooked(void)
{
    return 0;
}

static void no_counts(memkit__counts *out)
{
    *out = (memkit__counts){0};
}

static void detach(const memkit__core_table *c)
{
    (void)c;
}

static bool times(memkit__times *out)
{
    (void)out;
    return false;
}

static uint32_t takes_epoch(void)
{
    return epoch;
}

static void own(const void *p)
{
    pthread_mutex_lock(&log_lock);
    assert_non_null(p);
    calls++;
    owned++;
    pthread_mutex_unlock(&log_lock);
}

static int64_t take_room(size_t *mean)
{
    *mean = rate_mean;
    return rate_room;
}

static uint64_t take(const memkit__taking *t)
{
    pthread_mutex_lock(&log_lock);
    calls++;
    takes++;
    last = *t;
    uint64_t token = 0;
    if (t->stocked) {
        token = one_token ? 1 : ++n_tokens;
        assert_true(token < TOKENS);
        token_row *row = &tokens[token];
        if (!one_token || !row->open)
            *row = (token_row){.function = t->function, .whole = t->whole, .open = true};
        row->bytes += t->bytes;
        row->objects++;
    }
    pthread_mutex_unlock(&log_lock);
    return token;
}

static uint64_t retake(uint64_t token, size_t old_bytes, size_t bytes, bool whole)
{
    pthread_mutex_lock(&log_lock);
    calls++;
    token_row *row = &tokens[token];
    assert_true(row->open && row->bytes >= old_bytes && row->whole == whole);
    row->bytes += bytes - old_bytes;
    pthread_mutex_unlock(&log_lock);
    return token;
}

static void give(uint64_t token, size_t bytes, uint64_t objects, bool whole)
{
    pthread_mutex_lock(&log_lock);
    calls++;
    token_row *row = &tokens[token];
    assert_true(row->open && row->bytes >= bytes && row->objects >= objects);
    assert_int_equal(row->whole, whole);
    row->bytes -= bytes;
    row->objects -= objects;
    row->open = row->objects > 0;
    assert_true(row->open || row->bytes == 0);
    pthread_mutex_unlock(&log_lock);
}

static void *side(void *p, size_t old_bytes, size_t bytes)
{
    if (bytes > 0 && side_fails > 0) {
        side_fails--;
        return NULL;
    }
    side_bytes += bytes - old_bytes;
    if (bytes > 0)
        return realloc(p, bytes);
    free(p);
    return NULL;
}

static const memkit__prof_table prof = {
    .abi = MEMKIT__ATTACH_ABI,
    .size = sizeof prof,
    .hooked = hooked,
    .thread_counts = no_counts,
    .process_counts = no_counts,
    .detach = detach,
    .times = times,
    .takes_epoch = takes_epoch,
    .own = own,
    .take_room = take_room,
    .take = take,
    .retake = retake,
    .give = give,
    .side = side,
};

const memkit__prof_table *memkit_prof_attach(const memkit__core_table *c)
{
    core = c;
    return &prof;
}

static size_t charged(const void *function)
{
    size_t bytes = 0;
    for (uint32_t i = 1; i <= n_tokens + one_token; i++)
        if (tokens[i].open && (function == NULL || tokens[i].function == function))
            bytes += tokens[i].bytes;
    return bytes;
}

#define OF(function) ((const void *)(uintptr_t)(function))

static void set_rate(int64_t room, size_t mean)
{
    rate_room = room;
    rate_mean = mean;
    epoch = (epoch | 1) + 2;
    core->takes(epoch);
}

static void begin(void)
{
    set_rate(0, 1);
}

static void stop(void)
{
    epoch = (epoch | 1) + 1;
    core->takes(epoch);
}

static int fresh(void **state)
{
    (void)state;
    memset(tokens, 0, sizeof tokens[0] * (n_tokens + 2));
    n_tokens = 0;
    calls = owned = takes = 0;
    one_token = false;
    last = (memkit__taking){0};
    return 0;
}

static int over(void **state)
{
    (void)state;
    stop();
    assert_int_equal(charged(NULL), 0);
    assert_int_equal(side_bytes, 0);
    return 0;
}

/* ---- pool ---- */

static __attribute__((noinline)) memkit_buf *user_gets(memkit_pool *p, size_t n)
{
    memkit_buf *b = memkit_pool_get(p, n);
    __asm__ volatile("" : : "r"(b) : "memory"); /* no tail call */
    return b;
}

static void nothing_is_told_while_nobody_wants_it(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 8});
    memkit_arena *a = memkit_arena_new(NULL);
    for (int i = 0; i < 200; i++) {
        memkit_buf *b = memkit_pool_get(p, (size_t)i * 40);
        memkit_buf_appendf(b, "%10000d", i);
        memkit_lru_set(c, &i, sizeof i, b->data, b->len % 500);
        memkit_arena_mark m = memkit_arena_save(a);
        memkit_arena_memdup(a, b->data, b->len % 3000);
        if (i % 3 == 0)
            memkit_arena_rewind(a, m);
        memkit_pool_put(p, b);
    }
    memkit_arena_reset(a);
    memkit_arena_free(a);
    memkit_lru_free(c);
    memkit_pool_free(p);
    assert_int_equal(calls, 0);
}

static void a_buffer_is_charged_to_its_getter_with_all_its_room(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = user_gets(p, 500);
    assert_int_equal(takes, 1);
    assert_true(owned >= 2); /* the block and the headers at least */
    assert_ptr_equal(last.function, OF(memkit_pool_get));
    uintptr_t in = (uintptr_t)last.from - (uintptr_t)user_gets;
    assert_true(in > 0 && in < 200);
    assert_int_equal(last.bytes, b->cap + 1);
    assert_true(last.stocked && last.whole && last.old_bytes == 0);
    assert_int_equal(charged(NULL), b->cap + 1);
    memkit_pool_put(p, b);
    assert_int_equal(charged(NULL), 0);
    int before = owned;
    b = user_gets(p, 500); /* the fast path */
    in = (uintptr_t)last.from - (uintptr_t)user_gets;
    assert_true(in > 0 && in < 200);
    assert_int_equal(takes, 2);
    assert_int_equal(owned, before);
    assert_int_equal(charged(OF(memkit_pool_get)), b->cap + 1);
    memkit_buf_free(b);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
}

static void a_charged_buffer_that_grows_keeps_its_token(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    memkit_buf_appendf(b, "%5000d", 7);
    assert_int_equal(takes, 1);
    assert_int_equal(charged(OF(memkit_pool_get)), b->cap + 1);
    memkit_buf_reset(b);
    size_t len;
    char *copy = memkit_buf_detach(b, &len); /* a copy: the buffer stays out */
    assert_int_equal(charged(NULL), b->cap + 1);
    memkit_buf_appendf(b, "%50000d", 7);
    assert_int_equal(charged(NULL), b->cap + 1);
    free(copy);
    memkit_pool_put(p, b);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
}

static void a_second_put_of_a_charged_buffer_is_a_fault(void **state)
{
    (void)state;
    catch_faults();
    begin();
    memkit_pool *p = memkit_pool_new(NULL), *q = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    assert_faults(memkit_pool_put(q, b), "is not of pool");
    assert_faults(memkit_pool_free(p), "still out");
    assert_int_equal(charged(NULL), b->cap + 1);
    memkit_pool_put(p, b);
    assert_faults(memkit_pool_put(p, b), "already put");
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
    memkit_pool_free(q);
}

static void *putter(void *arg)
{
    memkit_buf *b = arg;
    memkit_buf_free(b);
    return NULL;
}

static void another_thread_may_put_it(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, putter, b), 0);
    pthread_join(t, NULL);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
}

static void memory_from_before_the_start_is_charged_to_nobody(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 500), *c;
    begin();
    memkit_pool_put(p, b);
    assert_int_equal(takes, 0);
    b = memkit_pool_get(p, 500);
    assert_int_equal(takes, 1); /* counted */
    assert_false(last.stocked);
    assert_int_equal(charged(NULL), 0);
    c = memkit_pool_get(p, 500);
    assert_int_equal(charged(NULL), c->cap + 1);
    memkit_buf_appendf(b, "%5000d", 1); /* a block of its own: now there is something to charge */
    assert_int_equal(last.old_bytes + 1 > 1, 1);
    assert_int_equal(charged(NULL), c->cap + 1 + b->cap + 1);
    memkit_pool_put(p, b);
    memkit_pool_put(p, c);
    memkit_pool_free(p);
}

static void a_put_after_the_stop_is_seen(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 500), *c = memkit_pool_get(p, 500);
    stop();
    memkit_pool_put(p, b);
    assert_int_equal(charged(NULL), c->cap + 1);
    memkit_buf_appendf(c, "%5000d", 1); /* its block now is one that the profile knows nothing of */
    assert_int_equal(charged(NULL), 0);
    int before = calls;
    memkit_pool_put(p, c);
    b = memkit_pool_get(p, 500);
    memkit_pool_put(p, b);
    memkit_pool_free(p);
    assert_int_equal(calls, before);
}

static void samples_are_where_the_countdown_of_bytes_runs_out(void **state)
{
    (void)state;
    set_rate(1000, 1001);
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *out[20];
    size_t left = 1000;
    int expected = 0;
    for (int i = 0; i < 20; i++) {
        out[i] = memkit_pool_get(p, 63 + (size_t)i * 20);
        if (out[i]->cap + 1 > left) {
            expected++;
            left = 1000;
            assert_int_equal(last.bytes, out[i]->cap + 1);
            assert_int_equal(last.mean, 1001);
        } else {
            left -= out[i]->cap + 1;
        }
        assert_int_equal(takes, expected);
    }
    assert_true(expected > 2 && expected < 10);
    for (int i = 0; i < 20; i++)
        memkit_pool_put(p, out[i]);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
}

static void a_new_rate_counts_at_once_and_old_charges_stay(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    set_rate(1 << 20, 1 << 20);
    memkit_buf *c = memkit_pool_get(p, 100);
    assert_int_equal(takes, 1);
    begin();
    memkit_buf *d = memkit_pool_get(p, 100);
    assert_int_equal(takes, 2);
    assert_int_equal(charged(NULL), b->cap + 1 + d->cap + 1);
    memkit_pool_put(p, b);
    memkit_pool_put(p, c);
    memkit_pool_put(p, d);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(p);
}

/* ---- cache ---- */

static size_t entry_bytes(const memkit_lru *c, size_t klen, size_t vlen)
{
    size_t n = 0;
    assert_true(memkit__lru_entry_bytes(c, klen, vlen, &n));
    return n;
}

static __attribute__((noinline)) int user_sets(memkit_lru *c, int key, size_t vlen)
{
    static char value[200000];
    int result = memkit_lru_set(c, &key, sizeof key, value, vlen);
    __asm__ volatile("" : : "r"(result) : "memory");
    return result;
}

static void an_entry_is_charged_to_its_setter_until_it_goes(void **state)
{
    (void)state;
    begin();
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 3});
    int key = 1;
    assert_int_equal(user_sets(c, 1, 100), 0);
    assert_ptr_equal(last.function, OF(memkit_lru_set));
    uintptr_t in = (uintptr_t)last.from - (uintptr_t)user_sets;
    assert_true(in > 0 && in < 200);
    assert_true(last.stocked && !last.whole);
    size_t one = entry_bytes(c, sizeof key, 100);
    assert_int_equal(charged(NULL), one);
    user_sets(c, 1, 101); /* in place: another's now */
    assert_int_equal(takes, 2);
    assert_int_equal(charged(NULL), one + 1);
    user_sets(c, 1, 5000); /* elsewhere */
    size_t large = entry_bytes(c, sizeof key, 5000);
    assert_int_equal(charged(NULL), large);
    for (int k = 2; k <= 4; k++) /* the last evicts the large one */
        user_sets(c, k, 100);
    assert_int_equal(charged(NULL), 3 * one);
    key = 3;
    assert_int_equal(memkit_lru_del(c, &key, sizeof key), 1);
    assert_int_equal(charged(NULL), 2 * one);
    memkit_lru_clear(c);
    assert_int_equal(charged(NULL), 0);
    user_sets(c, 5, 100);
    assert_int_equal(charged(OF(memkit_lru_set)), one);
    memkit_lru_free(c);
    assert_int_equal(charged(NULL), 0);
}

static void a_pinned_entry_is_charged_until_its_last_release(void **state)
{
    (void)state;
    begin();
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 2});
    int key = 1;
    memkit_lru_ref r1, r2;
    size_t one = entry_bytes(c, sizeof key, 100);
    user_sets(c, 1, 100);
    assert_int_equal(memkit_lru_get(c, &key, sizeof key, &r1), 1);
    assert_int_equal(memkit_lru_get(c, &key, sizeof key, &r2), 1);
    user_sets(c, 1, 100); /* replaced, and still there for the references */
    assert_int_equal(charged(NULL), 2 * one);
    memkit_lru_del(c, &key, sizeof key);
    assert_int_equal(charged(NULL), one);
    stop();
    memkit_lru_release(c, &r1);
    assert_int_equal(charged(NULL), one);
    memkit_lru_release(c, &r2);
    assert_int_equal(charged(NULL), 0);
    memkit_lru_free(c);
}

static void large_entries_and_a_time_to_live(void **state)
{
    (void)state;
    begin();
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_bytes = 1 << 20, .ttl_ms = 1000000});
    user_sets(c, 1, 150000);
    user_sets(c, 2, 190000);
    user_sets(c, 3, 10);
    assert_int_equal(charged(NULL), entry_bytes(c, sizeof(int), 150000) +
                                        entry_bytes(c, sizeof(int), 190000) +
                                        entry_bytes(c, sizeof(int), 10));
    for (int i = 4; i < 3000; i++)
        user_sets(c, i, 1000);
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    assert_int_equal(charged(NULL), s.entries * entry_bytes(c, sizeof(int), 1000));
    assert_null(memkit__lru_check(c));
    memkit_lru_free(c);
}

static void no_memory_to_remember_is_no_charge(void **state)
{
    (void)state;
    begin();
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = 100});
    memkit_arena *a = memkit_arena_new(NULL);
    side_fails = 2;
    user_sets(c, 1, 100);
    assert_non_null(memkit_arena_alloc(a, 100));
    assert_int_equal(side_fails, 0);
    assert_int_equal(takes, 2);
    assert_int_equal(charged(NULL), 0);
    user_sets(c, 2, 100);
    assert_int_equal(charged(NULL), entry_bytes(c, sizeof(int), 100));
    memkit_arena_free(a);
    memkit_lru_free(c);
}

/* ---- arena ---- */

static size_t used(const memkit_arena *a)
{
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    return s.used_bytes;
}

static __attribute__((noinline)) void *user_allocs(memkit_arena *a, size_t n)
{
    void *p = memkit_arena_alloc(a, n);
    __asm__ volatile("" : : "r"(p) : "memory");
    return p;
}

static void an_arena_charges_what_it_gave_out_until_it_is_taken_back(void **state)
{
    (void)state;
    begin();
    memkit_arena *a = memkit_arena_new(NULL);
    user_allocs(a, 100);
    uintptr_t in = (uintptr_t)last.from - (uintptr_t)user_allocs;
    assert_true(in > 0 && in < 200);
    assert_true(last.stocked && !last.whole);
    assert_int_equal(charged(last.function), used(a));
    memkit_arena_mark m = memkit_arena_save(a);
    size_t before = used(a);
    for (size_t i = 0; i < 300; i++)
        user_allocs(a, i * 7);
    user_allocs(a, 100000); /* a block of its own */
    memkit_arena_strdup(a, "name");
    memkit_arena_printf(a, "%400d", 1);
    memkit_arena_alloc_aligned(a, 100, 256);
    assert_int_equal(charged(NULL), used(a));
    memkit_arena_rewind(a, m);
    assert_int_equal(used(a), before);
    assert_int_equal(charged(NULL), before);
    user_allocs(a, 50);
    memkit_arena_reset(a);
    assert_int_equal(charged(NULL), 0);
    user_allocs(a, 3000);
    assert_int_equal(charged(NULL), used(a));
    assert_null(memkit__arena_check(a));
    memkit_arena_free(a);
    assert_int_equal(charged(NULL), 0);
}

static void blocks_of_one_stack_are_one_charge(void **state)
{
    (void)state;
    one_token = true;
    begin();
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 64 << 10});
    size_t side_before = 0;
    for (int i = 0; i < 1000; i++) {
        user_allocs(a, 16);
        if (i == 0)
            side_before = side_bytes;
    }
    assert_int_equal(side_bytes, side_before);
    assert_int_equal(tokens[1].objects, 1000);
    assert_int_equal(charged(NULL), used(a));
    memkit_arena_mark m = memkit_arena_save(a);
    size_t before = used(a);
    user_allocs(a, 16);
    memkit_arena_rewind(a, m); /* does not take back what came before it */
    assert_int_equal(tokens[1].objects, 1000);
    assert_int_equal(charged(NULL), before);
    memkit_arena_free(a);
    one_token = false;
}

static void a_resized_block_is_charged_with_its_size(void **state)
{
    (void)state;
    begin();
    memkit_arena *a = memkit_arena_new(NULL);
    void *big = user_allocs(a, 50000);
    void *p = user_allocs(a, 100);
    p = memkit_arena_realloc(a, p, 100, 300);
    assert_int_equal(charged(NULL), used(a));
    p = memkit_arena_realloc(a, p, 300, 20);
    assert_int_equal(charged(NULL), used(a));
    big = memkit_arena_realloc(a, big, 50000, 90000);
    assert_int_equal(charged(NULL), used(a));
    p = memkit_arena_realloc(a, p, 20, 200); /* with a big block since */
    assert_int_equal(charged(NULL), used(a));
    assert_int_equal(takes, 2);
    stop();
    big = memkit_arena_realloc(a, big, 90000, 400000); /* moved while nobody looked */
    assert_true(charged(NULL) < 1000 && charged(NULL) > 0);
    assert_non_null(big);
    assert_non_null(p);
    memkit_arena_free(a);
}

static void the_callers_memory_is_charged_to_nobody(void **state)
{
    (void)state;
    begin();
    _Alignas(16) char memory[2048];
    memkit_arena *a = memkit_arena_init(memory, sizeof memory, NULL);
    user_allocs(a, 100);
    assert_int_equal(takes, 1);
    assert_int_equal(owned, 0);
    assert_false(last.stocked);
    assert_int_equal(charged(NULL), 0);
    size_t before = used(a);
    user_allocs(a, 2000);
    assert_int_equal(charged(NULL), used(a) - before);
    memkit_arena_free(a);
}

/* The inline path is shown what is left to the next sample, and what it gives out is counted. */
static void the_inline_path_ends_at_the_next_sample(void **state)
{
    (void)state;
    set_rate(1000, 1001);
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 1 << 20});
    size_t left = 1000, need, before;
    int expected = 0;
    uint64_t random = 1;
    for (int i = 0; i < 3000; i++) {
        before = used(a);
        if (next_random(&random) % 50 == 0) {
            memkit_arena_reset(a);
            before = 0;
        }
        user_allocs(a, next_random(&random) % 200);
        need = used(a) - before;
        expected += need > left;
        left = need > left ? 1000 : left - need;
        assert_int_equal(takes, expected);
        assert_null(memkit__arena_check(a));
    }
    assert_true(expected > 100);
    stop();
    memkit_arena_reset(a);
    assert_int_equal(charged(NULL), 0);
    if (!SANITIZED)
        user_allocs(a, 10);
    assert_true(SANITIZED || a->end - a->ptr == 0 || a->end - a->ptr > 1000);
    memkit_arena_free(a);
}

/* ---- all of it ---- */

enum { BUFFERS = 12, KEYS = 40 };

typedef struct {
    memkit_pool *pool;
    memkit_lru *lru;
    memkit_arena *arena;
    memkit_buf *out[BUFFERS];
    memkit_lru_ref ref;
    memkit_arena_mark mark;
    bool marked;
    size_t vlen[KEYS];
    uint64_t random;
} world;

static void step(world *w)
{
    uint64_t r = next_random(&w->random);
    size_t n = (size_t)(next_random(&w->random) % 6000);
    unsigned i = (unsigned)(r >> 8) % BUFFERS;
    int key = (int)((r >> 16) % KEYS);
    static char value[6000];
    switch (r % 10) {
    case 0:
    case 1:
        if (w->out[i] == NULL)
            w->out[i] = memkit_pool_get(w->pool, n);
        break;
    case 2:
        memkit_pool_put(w->pool, w->out[i]);
        w->out[i] = NULL;
        break;
    case 3:
        if (w->out[i] != NULL)
            memkit_buf_append(w->out[i], value, n);
        break;
    case 4:
        assert_int_equal(memkit_lru_set(w->lru, &key, sizeof key, value, n), 0);
        w->vlen[key] = n + 1;
        break;
    case 5:
        memkit_lru_del(w->lru, &key, sizeof key);
        w->vlen[key] = 0;
        break;
    case 6:
    case 7:
        assert_non_null(memkit_arena_alloc(w->arena, n / (1 + (r >> 20) % 100)));
        break;
    case 8:
        if (w->marked)
            memkit_arena_rewind(w->arena, w->mark);
        else
            w->mark = memkit_arena_save(w->arena);
        w->marked = !w->marked;
        break;
    default:
        if ((r >> 8) % 4 == 0) {
            memkit_arena_reset(w->arena);
            w->marked = false;
        }
    }
}

static void charges_are_what_is_taken_after_each_step(void **state)
{
    (void)state;
    begin();
    world w = {.pool = memkit_pool_new(NULL),
               .lru = memkit_lru_new(&(memkit_lru_opts){.max_entries = 2 * KEYS}),
               .arena = memkit_arena_new(NULL),
               .random = 7};
    for (unsigned i = model_steps(20000); i > 0; i--) {
        step(&w);
        size_t out = 0, entries = 0;
        for (int k = 0; k < BUFFERS; k++)
            out += w.out[k] != NULL ? w.out[k]->cap + 1 : 0;
        for (int k = 0; k < KEYS; k++)
            entries += w.vlen[k] != 0 ? entry_bytes(w.lru, sizeof(int), w.vlen[k] - 1) : 0;
        assert_int_equal(charged(OF(memkit_pool_get)), out);
        assert_int_equal(charged(OF(memkit_lru_set)), entries);
        assert_int_equal(charged(NULL), out + entries + used(w.arena));
        if (n_tokens > TOKENS - 10 || n_tokens > 2000) { /* the table of the open ones alone */
            uint32_t kept = 0;
            for (uint32_t t = 1; t <= n_tokens; t++)
                kept += tokens[t].open;
            if (kept == 0)
                n_tokens = 0;
        }
    }
    assert_null(memkit__lru_check(w.lru));
    for (int k = 0; k < BUFFERS; k++)
        memkit_pool_put(w.pool, w.out[k]);
    assert_null(memkit__pool_check(w.pool));
    memkit_arena_free(w.arena);
    memkit_lru_free(w.lru);
    memkit_pool_free(w.pool);
}

typedef struct {
    memkit_pool *pool;
    memkit_lru *lru;
} shared;

static void *worker(void *arg)
{
    shared *s = arg;
    memkit_arena *a = memkit_arena_new(NULL);
    for (int i = 0; i < (SANITIZED ? 300 : 2000); i++) {
        memkit_buf *b = memkit_pool_get(s->pool, (size_t)(i % 50) * 20);
        memkit_buf_appendf(b, "%*d", i % 1500, i);
        memkit_lru_set(s->lru, &i, sizeof i, b->data, b->len);
        memkit_arena_memdup(a, b->data, b->len);
        memkit_pool_put(s->pool, b);
        if (i % 20 == 0)
            memkit_arena_reset(a);
    }
    memkit_arena_free(a);
    return NULL;
}

static void start_rate_and_stop_come_while_threads_are_at_work(void **state)
{
    (void)state;
    shared s = {memkit_pool_new(NULL), memkit_lru_new(&(memkit_lru_opts){.max_entries = 64})};
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, worker, &s), 0);
    for (int i = 0; i < 20; i++) {
        set_rate(i % 2 * 500, 1 + (size_t)i % 2 * 500);
        usleep(500);
        stop();
        usleep(200);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    memkit_lru_free(s.lru);
    assert_int_equal(charged(NULL), 0);
    memkit_pool_free(s.pool);
}

static void a_child_goes_on_with_the_charges(void **state)
{
    (void)state;
    begin();
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 500);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bool ok = charged(NULL) == b->cap + 1;
        memkit_pool_put(p, b);
        ok = ok && charged(NULL) == 0;
        b = memkit_pool_get(p, 500);
        ok = ok && charged(NULL) == b->cap + 1;
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(charged(NULL), b->cap + 1);
    memkit_pool_put(p, b);
    memkit_pool_free(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_told_while_nobody_wants_it),
        TEST(a_buffer_is_charged_to_its_getter_with_all_its_room),
        TEST(a_charged_buffer_that_grows_keeps_its_token),
        TEST(a_second_put_of_a_charged_buffer_is_a_fault),
        TEST(another_thread_may_put_it),
        TEST(memory_from_before_the_start_is_charged_to_nobody),
        TEST(a_put_after_the_stop_is_seen),
        TEST(samples_are_where_the_countdown_of_bytes_runs_out),
        TEST(a_new_rate_counts_at_once_and_old_charges_stay),
        TEST(an_entry_is_charged_to_its_setter_until_it_goes),
        TEST(a_pinned_entry_is_charged_until_its_last_release),
        TEST(large_entries_and_a_time_to_live),
        TEST(no_memory_to_remember_is_no_charge),
        TEST(an_arena_charges_what_it_gave_out_until_it_is_taken_back),
        TEST(blocks_of_one_stack_are_one_charge),
        TEST(a_resized_block_is_charged_with_its_size),
        TEST(the_callers_memory_is_charged_to_nobody),
        TEST(the_inline_path_ends_at_the_next_sample),
        TEST(charges_are_what_is_taken_after_each_step),
        TEST(start_rate_and_stop_come_while_threads_are_at_work),
        TEST(a_child_goes_on_with_the_charges),
    };
    return cmocka_run_group_tests_name("takes", tests, NULL, NULL);
}
