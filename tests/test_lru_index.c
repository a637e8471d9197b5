/* test_lru_index.c - how a key is found: hash, table, and how that grows. */
#include "test_lru.h"

#include "core/lru_find.h"

/* -- the hash -- */

static void siphash_gives_the_published_vectors(void **state)
{
    (void)state;
    /* SipHash-2-4, key 00..0f, input 00..(n-1): vectors.h of the reference implementation. */
    static const struct {
        size_t len;
        uint64_t hash;
    } vectors[] = {{0, 0x726fdb47dd0e0e31u}, {1, 0x74f839c593dc67fdu}, {2, 0x0d6c8009d9a94f5au},
                   {3, 0x85676696d7fb7e2du}, {7, 0xab0200f58b01d137u}, {8, 0x93f5f5799a932462u},
                   {15, 0xa129ca6149be45e5u}};
    memkit__sip_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    unsigned char in[64];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        assert_int_equal(memkit__siphash(&key, in, vectors[i].len, 2, 4), vectors[i].hash);
    /* 1-3 over the same bytes, as Rust's core::hash tests have it. */
    assert_int_equal(memkit__siphash(&key, in, 0, 1, 3), 0xabac0158050fc4dcu);
    assert_int_equal(memkit__siphash(&key, in, 1, 1, 3), 0xc9f49bf37d57ca93u);
}

/* -- hash table -- */

static void equal_tags_do_not_confuse(void **state)
{
    (void)state;
    /* Entries of one tag, and more of them with near ones: all in one run of the table. */
    memkit__lru_index ix = {0};
    assert_int_equal(memkit__lru_table_init(&ix.now, 200), 0);
    for (uint32_t h = 1; h <= 30; h++)
        assert_true(memkit__lru_index_insert(&ix, 77, h));
    for (uint32_t h = 31; h <= 60; h++)
        assert_true(memkit__lru_index_insert(&ix, 77 + h, h));
    for (uint32_t h = 1; h <= 30; h += 2)
        assert_true(memkit__lru_index_remove(&ix, 77, h));
    assert_false(memkit__lru_index_remove(&ix, 77, 1));
    assert_false(memkit__lru_index_remove(&ix, 76, 2));
    for (uint32_t h = 2; h <= 30; h += 2)
        assert_true(memkit__lru_index_replace(&ix, 77, h, h + 100));
    for (uint32_t h = 31; h <= 60; h++)
        assert_true(memkit__lru_index_remove(&ix, 77 + h, h));
    for (uint32_t h = 102; h <= 130; h += 2)
        assert_true(memkit__lru_index_remove(&ix, 77, h));
    for (size_t i = 0; i < memkit__lru_table_bytes(&ix.now) / 8; i++)
        assert_int_equal(ix.now.slots[i], 0);
    /* A run that fills the spill is refused, and nothing is lost by it. */
    uint32_t n = 0;
    while (n < 200 && memkit__lru_index_insert(&ix, 1, n + 1))
        n++;
    assert_true(n >= 64 && n < 200);
    for (uint32_t h = 1; h <= n; h++)
        assert_true(memkit__lru_index_remove(&ix, 1, h));
    memkit__lru_table_free(&ix.now);
}

static void each_cache_has_its_own_key(void **state)
{
    (void)state;
    memkit_lru *a = make(10, 0, 0), *b = make(10, 0, 0);
    assert_memory_not_equal(&a->key, &b->key, sizeof a->key);
    assert_true(a->cookie != b->cookie);
    memkit_lru_free(a);
    memkit_lru_free(b);
}

/* -- keys that somebody crafted -- */

enum { CRAFTED = 400 };

/* Slots that a look-up of each of these keys passes, all told. */
static size_t probes(memkit_lru *c, const uint64_t *keys, size_t n)
{
    const memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    const memkit__lru_table *t = &s->index.now;
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t tag;
        memkit__lru_locate(c, &keys[i], sizeof keys[i], &tag);
        size_t home = memkit__lru_home(t, tag);
        for (const uint64_t *p = t->slots + home; *p >> 32 > tag; p++)
            sum++;
        for (const uint64_t *p = memkit__lru_seek(t, tag, home); *p >> 32 == tag; p++)
            sum++;
    }
    return sum;
}

/* Keys with one home in the cache they were crafted for, by somebody who knows its key: there they
 * are a long run. In any other cache, whose key nobody knows, they are keys like others. */
static void keys_crafted_without_the_caches_key_do_no_harm(void **state)
{
    (void)state;
    memkit_lru *known = make(4096, 0, 0), *other = make(4096, 0, 0);
    const memkit__lru_table *t = &memkit__lru_shard_at(known, 0)->index.now;
    static uint64_t crafted[CRAFTED];
    size_t n = 0;
    for (uint64_t key = 0; n < CRAFTED; key++) {
        uint32_t tag;
        memkit__lru_locate(known, &key, sizeof key, &tag);
        if (memkit__lru_home(t, tag) / 64 == 20)
            crafted[n++] = key;
    }
    memkit_lru *caches[] = {known, other};
    size_t passed[2];
    for (int i = 0; i < 2; i++) {
        for (n = 0; n < CRAFTED; n++)
            assert_int_equal(memkit_lru_set(caches[i], &crafted[n], 8, "v", 1), 0);
        sound(caches[i]);
        passed[i] = probes(caches[i], crafted, CRAFTED);
        for (n = 0; n < CRAFTED; n++)
            assert_true(has_number(caches[i], crafted[n]));
    }
    print_message(
        "slots passed for %d crafted keys: %zu where they were crafted for, %zu elsewhere\n",
        CRAFTED, passed[0], passed[1]);
    assert_true(passed[0] > 100 * CRAFTED);
    assert_true(passed[1] < 3 * CRAFTED);
    memkit_lru_free(known);
    memkit_lru_free(other);
}

static void keys_are_compared_to_the_last_byte(void **state)
{
    (void)state;
    char a[140], b[140];
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = (char)(i * 31);
    for (size_t n = 0; n <= sizeof a; n++) {
        memcpy(b, a, sizeof a);
        assert_true(memkit__lru_same(a, b, n));
        for (size_t i = 0; i < n; i++) {
            b[i] ^= 4;
            assert_false(memkit__lru_same(a, b, n));
            b[i] ^= 4;
        }
        if (n < sizeof a) {
            b[n] ^= 4; /* and no further */
            assert_true(memkit__lru_same(a, b, n));
        }
    }
}

static void the_index_grows_in_steps(void **state)
{
    (void)state;
    /* Far more entries than expect_entry_bytes lets expect. */
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.max_bytes = 4 << 20, .expect_entry_bytes = 4000, .shards = 1});
    assert_non_null(c);
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    size_t first = memkit__lru_table_room(&s->index.now), between = 0, moved = 0, left = 0;
    size_t most = 0;
    const uint64_t *old = NULL;
    for (uint64_t n = 0; n < 60000; n++) {
        assert_int_equal(set_number(c, n, 4), 0);
        between += s->index.old.slots != NULL;
        /* So many slots a set, and no rest that is moved at once, be it for the next table. */
        size_t work = s->index.old.slots == old ? s->index.moved - moved : left;
        most = work > most ? work : most;
        assert_in_range(work, 0, 32);
        old = s->index.old.slots;
        moved = s->index.moved;
        left = old == NULL ? 0 : (size_t)s->index.old.homes + s->index.old.spill - moved;
        if (n % 997 == 0)
            sound(c);
        /* All that should be there is found in the middle of a move, too. */
        if (s->index.old.slots != NULL && n % 10 == 0)
            for (uint64_t back = 0; back < 20; back++)
                assert_true(has_number(c, n - back * (s->count - 1) / 20));
    }
    sound(c);
    assert_true(memkit__lru_table_room(&s->index.now) > 8 * first);
    assert_true(between > 1000); /* it was not done in one stop */
    assert_true(s->count > 40000);
    print_message(
        "60,000 sets, the index grew from %zu places to %zu: at most %zu slots moved in one"
        " set\n",
        first, memkit__lru_table_room(&s->index.now), most);
    memkit_lru_free(c);
}

/* Bounds that rise while the index still grows: a set evicts sooner than move all the rest. */
static void a_bound_that_rises_all_the_time_moves_no_more(void **state)
{
    (void)state;
    memkit_lru *c = make(2000, 0, 0);
    memkit__lru_shard *s = memkit__lru_shard_at(c, 0);
    for (uint64_t n = 0; n < 2000; n++)
        assert_int_equal(set_number(c, n, 8), 0);
    for (uint64_t n = 2000; n < 3000; n++) {
        assert_int_equal(memkit_lru_resize(c, n + 1, 0), 0);
        const uint64_t *old = s->index.old.slots;
        size_t moved = s->index.moved;
        size_t left = old == NULL ? 0 : (size_t)s->index.old.homes + s->index.old.spill - moved;
        assert_int_equal(set_number(c, n, 8), 0);
        assert_in_range(s->index.old.slots == old ? s->index.moved - moved : left, 0, 32);
        assert_true(has_number(c, n));
        sound(c);
    }
    assert_true(stats_of(c).evictions < 900); /* it did grow */
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_gives_the_published_vectors),
        cmocka_unit_test(equal_tags_do_not_confuse),
        cmocka_unit_test(each_cache_has_its_own_key),
        cmocka_unit_test(keys_crafted_without_the_caches_key_do_no_harm),
        cmocka_unit_test(keys_are_compared_to_the_last_byte),
        cmocka_unit_test(the_index_grows_in_steps),
        cmocka_unit_test(a_bound_that_rises_all_the_time_moves_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
