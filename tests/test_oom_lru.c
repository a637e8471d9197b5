/* test_oom_lru.c - caches while malloc fails, at each of their allocations. */
#include "support_matrix.h"

#include "core/lru.h"

static memkit_lru_ref ref;
static memkit_buf *buf;
static char big_value[100000];

static void sound(memkit_lru *c)
{
    const char *broken = memkit__lru_check(c);
    if (broken != NULL)
        fail_msg("%s", broken);
}

/* What a call without memory must leave alone: everything. */
static int note_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    note_bytes(arg, key, klen);
    note_bytes(arg, val, vlen);
    return 0;
}

static void record_all(const void *object, record *r)
{
    memkit_lru *c = (memkit_lru *)(uintptr_t)object;
    sound(c);
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    note(r, "entries %llu sets %llu evictions %llu pinned %llu bounds %llu %llu\n",
         (unsigned long long)s.entries, (unsigned long long)s.sets, (unsigned long long)s.evictions,
         (unsigned long long)s.pinned_bytes, (unsigned long long)s.max_entries,
         (unsigned long long)s.max_bytes);
    assert_int_equal(memkit_lru_each(c, note_entry, r), 0);
    if (buf != NULL)
        note_bytes(r, buf->data, buf->len);
}

/* The same but for other entries, which a set may have evicted: the key itself is as it was. */
static void record_key(const void *object, record *r)
{
    memkit_lru *c = (memkit_lru *)(uintptr_t)object;
    sound(c);
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    note(r, "sets %llu pinned %llu\n", (unsigned long long)s.sets,
         (unsigned long long)s.pinned_bytes);
    memkit_lru_ref here;
    if (memkit_lru_peek(c, "key", 3, &here) == 1) {
        note_bytes(r, here.data, here.len);
        memkit_lru_release(c, &here);
    }
    if (ref.data != NULL)
        note_bytes(r, ref.data, ref.len);
}

/* ---- objects ---- */

static void told(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                 memkit_lru_reason reason)
{
    (void)arg;
    (void)reason;
    assert_true((key != NULL || klen == 0) && (val != NULL || vlen == 0));
}

static memkit_lru *make(const memkit_lru_opts *opts)
{
    memkit_lru *c = memkit_lru_new(opts);
    assert_non_null(c);
    memset(&ref, 0, sizeof ref);
    buf = NULL;
    return c;
}

static void *make_empty(void)
{
    return make(&(memkit_lru_opts){.max_entries = 1000});
}

static void fill(memkit_lru *c, int from, int n, size_t vlen)
{
    for (int i = from; i < from + n; i++)
        assert_int_equal(memkit_lru_set(c, &i, sizeof i, big_value, vlen), 0);
}

static void *make_with_key(void)
{
    memkit_lru *c = make_empty();
    fill(c, 0, 20, 100);
    assert_int_equal(memkit_lru_set(c, "key", 3, "old value", 9), 0);
    return c;
}

static void *make_with_pinned_key(void)
{
    memkit_lru *c = make_with_key();
    assert_int_equal(memkit_lru_get(c, "key", 3, &ref), 1);
    return c;
}

static void *make_told(void)
{
    memkit_lru *c = make(&(memkit_lru_opts){
        .max_entries = 30, .max_bytes = 64 << 10, .on_evict = told, .ttl_ms = 1000000});
    fill(c, 0, 40, 200);
    return c;
}

/* Slabs are full, and so is the table that names them. */
static void *make_with_full_slabs(void)
{
    memkit_lru *c = make_empty();
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    for (int i = 0; s->unit_count < s->unit_room || s->classes[s->units[1].cls].roomy != 0; i++)
        fill(c, i, 1, 500);
    return c;
}

/* The next set of a new key wants a larger index. */
static void *make_with_full_index(void)
{
    memkit_lru *c = make(&(memkit_lru_opts){.max_bytes = 1 << 20, .expect_entry_bytes = 10000});
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    for (int i = 0; s->count < memkit__lru_table_room(&s->index.now); i++)
        fill(c, i, 1, 10);
    return c;
}

/* An index that has grown: a clear makes a small one again. */
static void *make_with_grown_index(void)
{
    memkit_lru *c = make(&(memkit_lru_opts){.max_bytes = 1 << 20, .expect_entry_bytes = 10000});
    fill(c, 0, 9000, 10);
    return c;
}

static void *make_large(void)
{
    memkit_lru *c = make(&(memkit_lru_opts){.max_bytes = 1 << 20});
    fill(c, 0, 5000, 20);
    return c;
}

/* Whose index, grown for some thousands of small entries, is in the way of a heavy one. */
static void *make_with_heavy_index(void)
{
    memkit_lru *c = make(&(memkit_lru_opts){.max_bytes = 256 << 10});
    fill(c, 0, 20000, 0);
    assert_int_equal(memkit_lru_set(c, "key", 3, "old value", 9), 0);
    return c;
}

static void *make_with_buf(void)
{
    memkit_lru *c = make_empty();
    assert_int_equal(memkit_lru_set(c, "key", 3, big_value, 5000), 0);
    buf = memkit_buf_new(0);
    memkit_buf_append_str(buf, "kept");
    return c;
}

static void end(void *object)
{
    memkit_lru *c = object;
    sound(c);
    memkit_lru_release(c, &ref);
    memkit_buf_free(buf);
    memkit_lru_free(c);
}

/* ---- calls ---- */

static int make_and_free(const memkit_lru_opts *opts)
{
    memkit_lru *c = memkit_lru_new(opts);
    if (c == NULL)
        return errno;
    memkit_lru_free(c);
    return 0;
}

static int new_one(void *unused)
{
    (void)unused;
    return make_and_free(&(memkit_lru_opts){.max_entries = 10});
}

static int new_sharded(void *unused)
{
    (void)unused;
    return make_and_free(&(memkit_lru_opts){
        .max_bytes = 1 << 20, .shards = 5, .name = strange_names[2], .ttl_ms = 5});
}

static int new_unlocked(void *unused)
{
    (void)unused;
    return make_and_free(&(memkit_lru_opts){.max_bytes = 1 << 20, .shards = MEMKIT_LRU_UNLOCKED});
}

/* Stores, and looks whether it did. */
static int set_of(memkit_lru *c, size_t vlen)
{
    if (memkit_lru_set(c, "key", 3, big_value, vlen) != 0)
        return errno;
    size_t len = 0;
    return memkit_lru_get_into(c, "key", 3, NULL, 0, &len) == 1 && len == vlen ? 0 : EPROTO;
}

static int set_small(void *c)
{
    return set_of(c, 300);
}

static int set_500(void *c)
{
    return set_of(c, 500);
}

static int set_10(void *c)
{
    return set_of(c, 10);
}

static int set_big(void *c)
{
    return set_of(c, sizeof big_value / 4);
}

static int set_heavy(void *c)
{
    static char heavy[220000];
    return memkit_lru_set(c, "key", 3, heavy, sizeof heavy) == 0 ? 0 : errno;
}

static int get_buf(void *c)
{
    int found = memkit_lru_get_buf(c, "key", 3, buf);
    return found == 1 ? 0 : found == 0 ? EPROTO : errno;
}

static int get(void *c)
{
    memkit_lru_ref here;
    char byte;
    if (memkit_lru_get(c, "key", 3, &here) != 1)
        return EPROTO;
    memkit_lru_release(c, &here);
    if (memkit_lru_peek(c, "key", 3, &here) != 1)
        return EPROTO;
    memkit_lru_release(c, &here);
    return memkit_lru_get_into(c, "key", 3, &byte, 1, NULL) == 1 ? 0 : EPROTO;
}

static int del(void *c)
{
    return memkit_lru_del(c, "key", 3) == 1 ? 0 : EPROTO;
}

static int resize_down(void *c)
{
    return memkit_lru_resize(c, 0, 64 << 10) == 0 ? 0 : errno;
}

static int resize_entries(void *c)
{
    return memkit_lru_resize(c, 5, 0) == 0 ? 0 : errno;
}

static int clear(void *c)
{
    memkit_lru_stats_t s;
    memkit_lru_clear(c);
    memkit_lru_stats(c, &s);
    return s.entries == 0 ? 0 : EPROTO;
}

static int each(void *c)
{
    static record r;
    r.len = 0;
    return memkit_lru_each(c, note_entry, &r) == 0 && r.len > 0 ? 0 : EPROTO;
}

static int stats(void *c)
{
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    return s.entries > 0 ? 0 : EPROTO;
}

static int free_new(void *c)
{
    memkit_lru_free(c);
    return 0;
}

/* ---- a cache's life ---- */

/* Values say which key and which length they are of; what is found must be right. */
static size_t length_of(int key, int version)
{
    return (size_t)(key * 37 + version * 101) % (key % 16 == 3 ? 9000u : 300u);
}

static bool right(int key, const memkit_lru_ref *found)
{
    for (int version = 0; version < 3; version++)
        if (found->len == length_of(key, version) &&
            (found->len == 0 || memcmp(found->data, big_value + key, found->len) == 0))
            return true;
    return false;
}

/* Fills, replaces, pins, resizes, clears while memory is short. Returns allocations that failed. */
static unsigned live(const memkit_lru_opts *opts, unsigned nth, bool from_then_on)
{
    memkit_lru_ref held[4] = {{NULL, 0, {0, 0}}};
    uint64_t stored = 0;
    fail_malloc(nth, from_then_on);
    memkit_lru *c = memkit_lru_new(opts);
    assert_true(c != NULL || errno == ENOMEM);
    for (int step = 0; c != NULL && step < 260; step++) {
        int key = step * 7 % 97, k = step % 4;
        memkit_lru_release(c, &held[k]);
        if (memkit_lru_set(c, &key, sizeof key, big_value + key, length_of(key, step % 3)) == 0)
            stored++;
        else
            assert_int_equal(errno, ENOMEM);
        int other = step * 5 % 97;
        if (memkit_lru_get(c, &other, sizeof other, &held[k]) == 1)
            assert_true(right(other, &held[k]));
        if (step % 90 == 60 && memkit_lru_resize(c, 100 - (size_t)step / 3, opts->max_bytes) != 0)
            assert_int_equal(errno, ENOMEM);
        if (step % 120 == 110)
            memkit_lru_clear(c);
        sound(c);
    }
    unsigned failed = mallocs_failed;
    fail_malloc(0, false);
    if (c == NULL)
        return failed;
    for (int i = 0; i < 4; i++)
        memkit_lru_release(c, &held[i]);
    for (int key = 0; key < 30; key++)
        assert_int_equal(memkit_lru_set(c, &key, sizeof key, big_value, 50), 0);
    sound(c);
    memkit_lru_stats_t s;
    memkit_lru_stats(c, &s);
    assert_int_equal(s.sets, stored + 30);
    assert_int_equal(s.pinned_bytes, 0);
    memkit_lru_free(c);
    return failed;
}

static void lives_with_little_memory(void **state)
{
    (void)state;
    const memkit_lru_opts opts[] = {{.max_entries = 60},
                                    {.max_bytes = 256 << 10, .expect_entry_bytes = 5000},
                                    {.max_entries = 90, .max_bytes = 256 << 10, .on_evict = told},
                                    {.max_entries = 60, .shards = 3, .ttl_ms = 1000000}};
    for (size_t i = 0; i < LENGTH(opts); i++)
        for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
            unsigned nth = 1;
            while (live(&opts[i], nth, from_then_on) > 0)
                nth++;
            assert_true(nth > 8);
        }
}

int main(void)
{
    for (size_t i = 0; i < sizeof big_value; i++)
        big_value[i] = (char)(i * 31 >> 3);
    const oom_row rows[] = {
        {"memkit_lru_new", NULL, 3, NULL, new_one, NULL, NULL},
        {"memkit_lru_new", "of five shards", 11, NULL, new_sharded, NULL, NULL},
        {"memkit_lru_new", "without a lock", 3, NULL, new_unlocked, NULL, NULL},
        {"memkit_lru_set", "the first", 1, make_empty, set_small, record_key, end},
        {"memkit_lru_set", "a big one", 1, make_empty, set_big, record_key, end},
        {"memkit_lru_set", "in the place of another", 1, make_with_key, set_small, record_key, end},
        {"memkit_lru_set", "in the place of a small one", 1, make_with_key, set_big, record_key,
         end},
        {"memkit_lru_set", "in the place of a pinned one", 1, make_with_pinned_key, set_big,
         record_key, end},
        {"memkit_lru_set", "with a callback", 1, make_told, set_big, record_key, end},
        {"memkit_lru_set", "with one more slab", 2, make_with_full_slabs, set_500, record_key, end},
        {"memkit_lru_set", "with a larger index", 1, make_with_full_index, set_10, record_key, end},
        {"memkit_lru_set", "in the place of the index", 2, make_with_heavy_index, set_heavy,
         record_key, end},
        {"memkit_lru_get", NULL, 0, make_with_key, get, record_all, end},
        {"memkit_lru_peek", NULL, 0, make_with_key, get, record_all, end},
        {"memkit_lru_get_into", NULL, 0, make_with_key, get, record_all, end},
        {"memkit_lru_release", NULL, 0, make_with_key, get, record_all, end},
        {"memkit_lru_get_buf", NULL, 1, make_with_buf, get_buf, record_all, end},
        {"memkit_lru_del", NULL, 0, make_with_key, del, NULL, end},
        {"memkit_lru_resize", "to a smaller index", 1, make_large, resize_down, record_key, end},
        {"memkit_lru_resize", "to fewer entries", 0, make_with_key, resize_entries, NULL, end},
        {"memkit_lru_clear", NULL, 0, make_with_key, clear, NULL, end},
        {"memkit_lru_clear", "of a grown index", 1, make_with_grown_index, clear, NULL, end},
        {"memkit_lru_each", NULL, 0, make_with_key, each, record_all, end},
        {"memkit_lru_stats", NULL, 0, make_with_key, stats, record_all, end},
        {"memkit_lru_free", NULL, 0, make_with_key, free_new, NULL, NULL},
    };
    const struct CMUnitTest more[] = {more_test(lives_with_little_memory)};
    return run_oom("memkit_lru_", rows, LENGTH(rows), more, LENGTH(more));
}
