/* test_lru_resize.c - new bounds and clear: what stays, what goes, and how much at a time.
 *
 * The program stands in front of pthread_mutex_lock and _unlock. So it counts what a call does
 * under one hold of a shard's lock, and it is the other thread that comes in whenever the lock is
 * free: always, and always at the same places.
 */
#include "test_lru.h"

#include <pthread.h>

/* -- what is done under one hold -- */

enum { STEP = 64, MOST_SLOTS = STEP * 8 };

static struct {
    memkit__lru_shard *shard;
    void (*between)(void); /* called when the lock has been given up */
    bool inside;
    size_t entries, moved, slots; /* when the lock was taken */
    unsigned frees;
    size_t most_left, most_frees, most_moved, holds;
} watch;

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);

static bool watched(const pthread_mutex_t *m)
{
    return watch.shard != NULL && !watch.inside && m == &watch.shard->mutex;
}

static size_t old_slots(const memkit__lru_shard *s)
{
    return s->index.old.slots == NULL ? 0 : (size_t)s->index.old.homes + s->index.old.spill;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    int result = __real_pthread_mutex_lock(m);
    if (watched(m)) {
        watch.entries = watch.shard->count + watch.shard->cleared_count;
        watch.slots = old_slots(watch.shard);
        watch.moved = watch.shard->index.moved;
        watch.frees = frees_seen;
    }
    return result;
}

static void note(size_t *most, size_t n)
{
    *most = n > *most ? n : *most;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    bool mine = watched(m);
    if (mine) {
        const memkit__lru_shard *s = watch.shard;
        size_t entries = s->count + s->cleared_count;
        watch.holds++;
        note(&watch.most_left, entries < watch.entries ? watch.entries - entries : 0);
        note(&watch.most_frees, frees_seen - watch.frees);
        if (old_slots(s) == watch.slots)
            note(&watch.most_moved, s->index.moved - watch.moved);
        else
            note(&watch.most_moved, watch.slots == 0 ? s->index.moved : watch.slots - watch.moved);
    }
    int result = __real_pthread_mutex_unlock(m);
    if (mine && watch.between != NULL) {
        watch.inside = true;
        watch.between();
        watch.inside = false;
    }
    return result;
}

static void watch_over(memkit_lru *c, void (*between)(void))
{
    memset(&watch, 0, sizeof watch);
    watch.shard = memkit__lru_shard_at(c, 0);
    watch.between = between;
}

/* Ends the watch; nothing was done in one go. */
static void assert_small_steps(const char *what, size_t least_holds)
{
    watch.shard = NULL;
    print_message("%s: %zu holds of the lock, in each at most %zu entries left, %zu blocks freed, "
                  "%zu slots moved\n",
                  what, watch.holds, watch.most_left, watch.most_frees, watch.most_moved);
    assert_true(watch.most_left <= STEP);
    assert_true(watch.most_frees <= STEP + 1);
    assert_true(watch.most_moved <= MOST_SLOTS);
    assert_true(watch.holds >= least_holds);
}

static void fill(memkit_lru *c, uint64_t from, uint64_t to, size_t vlen)
{
    for (; from < to; from++)
        assert_int_equal(set_number(c, from, vlen), 0);
}

enum { MANY = 50000 };

static void a_shrink_does_little_at_a_time(void **state)
{
    (void)state;
    const struct {
        const char *name;
        size_t entries, bytes, vlen, to_entries, to_bytes;
    } cases[] = {{"by entries", MANY, 0, 100, 10, 0},
                 {"by bytes", 0, 16 << 20, 100, 0, 256 << 10},
                 {"to a small index", 0, 4 << 20, 0, 0, 1 << 20},
                 {"large entries", 0, 64 << 20, 20000, 0, 1 << 20},
                 {"from entries to bytes", MANY, 0, 40, 0, 100 << 10}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = cases[i].entries,
                                                          .max_bytes = cases[i].bytes,
                                                          .expect_entry_bytes = cases[i].vlen + 8});
        assert_non_null(c);
        fill(c, 0, cases[i].vlen == 20000 ? 3200 : MANY, cases[i].vlen);
        size_t before = stats_of(c).entries;
        watch_over(c, NULL);
        assert_int_equal(memkit_lru_resize(c, cases[i].to_entries, cases[i].to_bytes), 0);
        size_t left = before - stats_of(c).entries;
        assert_true(left > 1000);
        assert_small_steps(cases[i].name, left / STEP);
        sound(c);
        memkit_lru_free(c);
    }
}

static void growing_does_nothing_at_once(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 0);
    fill(c, 0, 10000, 40);
    size_t before = stats_of(c).entries;
    watch_over(c, NULL);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 20), 0);
    assert_true(watch.holds <= 4);
    assert_small_steps("growing", 1);
    assert_int_equal(watch.most_left + watch.most_moved + watch.most_frees, 0);
    assert_int_equal(stats_of(c).entries, before);
    sound(c);
    watch_over(c, NULL); /* and no set pays for it */
    fill(c, 10000, 60000, 40);
    watch.shard = NULL;
    assert_true(watch.most_moved <= 32);
    assert_int_equal(stats_of(c).entries, before + 50000);
    /* The same when all memory is idle, and in slabs of another size. */
    memkit_lru_clear(c);
    assert_int_equal(memkit_lru_resize(c, 0, 1 << 20), 0);
    fill(c, 0, 10000, 40);
    memkit_lru_clear(c);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 20), 0);
    watch_over(c, NULL);
    fill(c, 0, 10000, 40);
    watch.shard = NULL;
    assert_true(watch.most_frees > 0 && watch.most_frees <= 8);
    sound(c);
    memkit_lru_free(c);
}

/* -- what comes in between -- */

static struct {
    memkit_lru *cache;
    uint64_t next;    /* what is stored next */
    uint64_t ceiling; /* bytes that are never exceeded */
    size_t calls;
    uint64_t first; /* of those a clear must not touch */
    memkit_lru_ref refs[600];
    size_t ref_count;
} others;

static void others_use_the_cache(void)
{
    memkit_lru *c = others.cache;
    uint64_t n = others.next++, before = n - 1;
    memkit_lru_ref ref;
    assert_int_equal(set_number(c, n, 60), 0);
    assert_int_equal(memkit_lru_get(c, &n, 8, &ref), 1);
    assert_int_equal(*(const unsigned char *)ref.data, n & 255);
    memkit_lru_release(c, &ref);
    if (memkit_lru_peek(c, &before, 8, &ref) == 1)
        memkit_lru_release(c, &ref);
    if (others.calls++ % 50 == 0)
        sound(c);
    if (others.calls % 7 == 0)
        memkit_lru_del(c, &before, 8);
    assert_true(stats_of(c).bytes <= others.ceiling);
}

static void others_go_on_while_it_shrinks(void **state)
{
    (void)state;
    const size_t bounds[][2] = {{16 << 20, 128 << 10}, {16 << 20, 8 << 20}};
    for (size_t i = 0; i < 2; i++) {
        memkit_lru *c = make(0, bounds[i][0], 0);
        fill(c, 0, 100000, 120);
        memset(&others, 0, sizeof others);
        others.cache = c;
        others.next = 200000;
        others.ceiling = bounds[i][0];
        watch_over(c, others_use_the_cache);
        assert_int_equal(memkit_lru_resize(c, 0, bounds[i][1]), 0);
        watch.shard = NULL;
        assert_true(others.calls > 100);
        sound(c);
        assert_true(stats_of(c).bytes <= bounds[i][1]);
        assert_true(has_number(c, others.next - 1)); /* the last in is the last out */
        memkit_lru_free(c);
    }
}

static void others_go_on_while_it_clears(void **state)
{
    (void)state;
    for (int full = 0; full < 2; full++) { /* of entries or of bytes */
        memkit_lru *c = full ? make(0, 8 << 20, 0) : make(MANY, 0, 0);
        fill(c, 0, full ? 60000 : MANY, 100);
        memset(&others, 0, sizeof others);
        others.cache = c;
        others.next = 200000;
        others.ceiling = full ? 8 << 20 : UINT64_MAX;
        watch_over(c, others_use_the_cache);
        memkit_lru_clear(c);
        watch.shard = NULL;
        assert_small_steps("clear", 500);
        sound(c);
        for (uint64_t n = 0; n < 60000; n++)
            assert_false(has_number(c, n)); /* what was there has gone */
        uint64_t entries = stats_of(c).entries;
        assert_true(entries > 400 && entries < others.calls); /* what came has not */
        assert_true(has_number(c, others.next - 1));
        memkit_lru_free(c);
    }
}

static void others_pin_a_lot(void)
{
    memkit_lru *c = others.cache;
    if (others.calls++ != 40)
        return;
    for (uint64_t n = others.next; others.ref_count < 600; n--)
        if (memkit_lru_get(c, &n, 8, &others.refs[others.ref_count]) == 1)
            others.ref_count++;
}

/* Pins that come when the resize has begun: it ends with EBUSY, and everything is as it was but for
 * what has left. */
static void pins_that_come_in_between_are_ebusy(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 4 << 20, 0);
    fill(c, 0, 40000, 100);
    memset(&others, 0, sizeof others);
    others.cache = c;
    others.next = 39999;
    watch_over(c, others_pin_a_lot);
    assert_errno(memkit_lru_resize(c, 0, 64 << 10), -1, EBUSY);
    watch.shard = NULL;
    sound(c);
    assert_int_equal(stats_of(c).max_bytes, 4 << 20);
    assert_true(stats_of(c).entries >= 600);
    assert_int_equal(others.ref_count, 600);
    fill(c, 50000, 90000, 100); /* the old bound is in force again */
    assert_true(stats_of(c).entries > 20000);
    for (size_t i = 0; i < 600; i++) {
        assert_int_equal(others.refs[i].len, 100);
        memkit_lru_release(c, &others.refs[i]);
    }
    sound(c);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 10), 0);
    assert_true(stats_of(c).bytes <= 64 << 10);
    sound(c);
    memkit_lru_free(c);
}

static void others_clear(void)
{
    if (others.calls++ != 3)
        return;
    memkit_lru_clear(others.cache);
    assert_int_equal(stats_of(others.cache).entries, 0);
    fill(others.cache, 70000, 70010, 50);
}

static void a_clear_in_the_middle_of_a_shrink(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 4 << 20, 0);
    fill(c, 0, 40000, 100);
    memset(&others, 0, sizeof others);
    others.cache = c;
    watch_over(c, others_clear);
    assert_int_equal(memkit_lru_resize(c, 0, 64 << 10), 0);
    watch.shard = NULL;
    assert_true(others.calls > 4);
    sound(c);
    memkit_lru_stats_t st = stats_of(c);
    assert_true(st.bytes <= 64 << 10 && st.entries <= 10);
    for (uint64_t n = 0; n < 40000; n++)
        assert_false(has_number(c, n));
    fill(c, 0, 2000, 100);
    sound(c);
    memkit_lru_free(c);
}

/* -- on_evict -- */

static void everybody_is_told_once_of_a_resize(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        witness w = {.mode = mode};
        memkit_lru *c = make_told(&w, 0, 1 << 20, 0);
        fill(c, 0, 2000, 60);
        assert_int_equal(w.told[MEMKIT_LRU_EVICTED], 0);
        size_t before = stats_of(c).entries;
        assert_int_equal(memkit_lru_resize(c, 0, 64 << 10), 0);
        sound(c);
        assert_true(stats_of(c).bytes <= 64 << 10);
        assert_int_equal(w.told[MEMKIT_LRU_RESIZED], before - stats_of(c).entries);
        assert_int_equal(stats_of(c).evictions, w.told[MEMKIT_LRU_RESIZED]);
        /* No more left than had to: the next one would not have fit. */
        assert_true(stats_of(c).bytes > (64 << 10) * 3 / 4);
        memkit_lru_free(c);
        assert_int_equal(w.told[MEMKIT_LRU_RESIZED] + w.told[MEMKIT_LRU_CLEARED], before);
    }
}

/* on_evict stores all it is told of: the resize ends all the same, and the bound in force holds. */
static void a_resize_ends_when_on_evict_puts_everything_back(void **state)
{
    (void)state;
    const size_t bounds[][4] = {{500, 0, 1, 0}, {500, 0, 250, 0}, {0, 1 << 20, 0, 16 << 10}};
    for (size_t i = 0; i < 3; i++)
        for (size_t vlen = 60; vlen < 20000; vlen *= 40) {
            witness w = {.mode = 2};
            memkit_lru *c = make_told(&w, bounds[i][0], bounds[i][1], 0);
            fill(c, 0, 400, vlen);
            int result = memkit_lru_resize(c, bounds[i][2], bounds[i][3]);
            assert_true(result == 0 || errno == EBUSY);
            sound(c); /* entries and bytes within what is in force */
            memkit_lru_stats_t st = stats_of(c);
            if (result == 0)
                assert_true(st.max_entries == bounds[i][2] && st.max_bytes == bounds[i][3]);
            else
                assert_true(st.max_entries == bounds[i][0] && st.max_bytes == bounds[i][1]);
            memkit_lru_free(c);
            int told = 0;
            for (int r = 0; r < 6; r++)
                told += w.told[r];
            assert_int_equal(told, 400 + w.stored);
        }
}

/* -- sizes of slabs -- */

/* Slabs of one size and another, some of them kept by pins, over more changes than a byte counts.
 */
static void the_size_of_slabs_may_change_for_ever(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 0);
    memkit_lru_ref refs[10];
    uint64_t n = 0;
    for (int i = 0; i < 1200; i++) {
        assert_int_equal(memkit_lru_resize(c, 0, i % 2 == 0 ? 400 << 10 : 1 << 20), 0);
        for (int j = 0; j < 30; j++, n++)
            assert_int_equal(set_number(c, n, 100), 0);
        uint64_t last = n - 1;
        if (i >= 10)
            memkit_lru_release(c, &refs[i % 10]);
        assert_int_equal(memkit_lru_get(c, &last, 8, &refs[i % 10]), 1);
        sound(c);
    }
    for (int i = 0; i < 10; i++)
        memkit_lru_release(c, &refs[i]);
    sound(c);
    memkit_lru_free(c);
}

/* Bounds that go to and fro leave slabs of the right size behind: they are used again. */
static void slabs_of_the_right_size_are_taken_up_again(void **state)
{
    (void)state;
    memkit_lru *c = make(0, 1 << 20, 0);
    fill(c, 0, 5000, 100);
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    assert_int_equal(memkit_lru_resize(c, 0, 4 << 20), 0);
    assert_int_equal(memkit_lru_resize(c, 0, 1 << 20), 0);
    size_t slabs = s->slab_count;
    for (uint64_t n = 0; n < 5000; n += 2)
        memkit_lru_del(c, &n, 8);
    fill(c, 5000, 7000, 100);
    assert_true(s->slab_count <= slabs + 1);
    sound(c);
    memkit_lru_free(c);
}

/* -- without memory -- */

static void a_resize_without_memory_changes_nothing(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (unsigned nth = 1; nth < 6; nth++) {
        memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_bytes = 4 << 20, .shards = 2});
        assert_non_null(c);
        fill(c, 0, 30000, 20);
        memkit_lru_stats_t before = stats_of(c);
        fail_malloc(nth, false);
        int result = memkit_lru_resize(c, 0, 256 << 10), reason = errno;
        bool had_to_fail = nth <= 2; /* an index a shard */
        fail_malloc(0, false);
        sound(c);
        if (result != 0) {
            failed++;
            assert_int_equal(reason, ENOMEM);
            memkit_lru_stats_t st = stats_of(c);
            assert_int_equal(st.entries, before.entries);
            assert_int_equal(st.max_bytes, 4 << 20);
        }
        assert_int_equal(result != 0, had_to_fail);
        memkit_lru_free(c);
    }
    assert_int_equal(failed, 2);
}

static void a_clear_without_memory_clears(void **state)
{
    (void)state;
    memkit_lru *c = make(MANY, 0, 0);
    fill(c, 0, MANY, 10);
    fail_malloc(1, true);
    memkit_lru_clear(c);
    assert_true(mallocs_failed > 0);
    fail_malloc(0, false);
    sound(c);
    assert_int_equal(stats_of(c).entries, 0);
    fill(c, 0, MANY, 10);
    sound(c);
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shrink_does_little_at_a_time),
        cmocka_unit_test(growing_does_nothing_at_once),
        cmocka_unit_test(others_go_on_while_it_shrinks),
        cmocka_unit_test(others_go_on_while_it_clears),
        cmocka_unit_test(pins_that_come_in_between_are_ebusy),
        cmocka_unit_test(a_clear_in_the_middle_of_a_shrink),
        cmocka_unit_test(everybody_is_told_once_of_a_resize),
        cmocka_unit_test(a_resize_ends_when_on_evict_puts_everything_back),
        cmocka_unit_test(the_size_of_slabs_may_change_for_ever),
        cmocka_unit_test(slabs_of_the_right_size_are_taken_up_again),
        cmocka_unit_test(a_resize_without_memory_changes_nothing),
        cmocka_unit_test(a_clear_without_memory_clears),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
