/* test_lru_way.c - heavy entries in a cache that was full of light ones: its index and its table of
 * units are in the way, and give way. What a new cache takes, every cache of these bounds takes.
 */
#include "sanitized.h"
#include "test_lru.h"

enum { SMALL_BOUND = 64 << 10, SMALL_ENTRIES = 20000, BOUND = 1 << 20, HEAVY = 900000 };

static char heavy[BOUND];

static void fill(memkit_lru *c, uint32_t entries, size_t vlen)
{
    for (uint32_t n = 0; n < entries; n++)
        assert_int_equal(memkit_lru_set(c, &n, sizeof n, heavy, vlen), 0);
    sound(c);
}

static int set_heavy(memkit_lru *c, const char *key, size_t vlen)
{
    int error = memkit_lru_set(c, key, strlen(key), heavy, vlen) == 0 ? 0 : errno;
    sound(c);
    return error;
}

static size_t length_of(memkit_lru *c, const char *key)
{
    size_t len = SIZE_MAX;
    return memkit_lru_get_into(c, key, strlen(key), NULL, 0, &len) == 1 ? len : SIZE_MAX;
}

/* The largest value that a new cache takes. */
static size_t largest(size_t bound)
{
    memkit_lru *c = make(0, bound, 0);
    size_t least = 1, most = bound;
    while (most - least > 1) {
        size_t middle = least + (most - least) / 2;
        if (set_heavy(c, "k", middle) == 0)
            least = middle;
        else
            most = middle;
    }
    memkit_lru_free(c);
    return least;
}

static void a_full_cache_takes_what_a_new_one_takes(void **state)
{
    (void)state;
    size_t most = largest(SMALL_BOUND);
    assert_true(most > 46000);
    for (size_t n = 46000; n < SMALL_BOUND; n += SANITIZED ? 1500 : 250) {
        memkit_lru *c = make(0, SMALL_BOUND, 0);
        fill(c, SMALL_ENTRIES, 0);
        uint64_t entries = stats_of(c).entries;
        assert_int_equal(set_heavy(c, "k", n), n <= most ? 0 : E2BIG);
        if (n > most) /* and nothing had to go for nothing */
            assert_int_equal(stats_of(c).entries, entries);
        assert_true(length_of(c, "k") == (n <= most ? n : SIZE_MAX));
        assert_int_equal(set_heavy(c, "k", most), 0);
        assert_int_equal(set_heavy(c, "k", most + 1), E2BIG);
        assert_true(length_of(c, "k") == most);
        memkit_lru_free(c);
    }
}

static void a_grown_index_gives_way_to_a_heavy_value(void **state)
{
    (void)state;
    memkit_lru *c = make(0, BOUND, 0);
    assert_int_equal(set_heavy(c, "k", HEAVY), 0);
    for (int emptied = 0; emptied < 2; emptied++) {
        fill(c, 60000, 1);
        assert_true(stats_of(c).entries > 20000);
        for (uint32_t n = 0; emptied && n < 60000; n++)
            memkit_lru_del(c, &n, sizeof n);
        assert_int_equal(set_heavy(c, "k", HEAVY), 0);
        assert_true(length_of(c, "k") == HEAVY);
        assert_int_equal(stats_of(c).entries, 1);
    }
    fill(c, 60000, 1); /* the index grows again */
    assert_true(stats_of(c).entries > 20000);
    memkit_lru_free(c);
}

/* The entry replaced is the last that must stay, wherever in the table of units it lies. */
static void a_heavy_value_replaces_a_light_one(void **state)
{
    (void)state;
    size_t most = largest(SMALL_BOUND);
    for (uint32_t after = 0; after < 1400; after += SANITIZED ? 300 : 50) {
        memkit_lru *c = make(0, SMALL_BOUND, 0);
        fill(c, SMALL_ENTRIES, 0);
        assert_int_equal(set_heavy(c, "k", 1), 0);
        fill(c, after, 0);
        bool there = length_of(c, "k") == 1;
        assert_int_equal(set_heavy(c, "k", most + 1), E2BIG);
        assert_true(!there || length_of(c, "k") == 1);
        assert_int_equal(set_heavy(c, "k", most), 0);
        assert_true(length_of(c, "k") == most);
        assert_int_equal(stats_of(c).entries, 1);
        memkit_lru_free(c);
    }
}

static void who_makes_way_is_told_of_once(void **state)
{
    (void)state;
    witness w = {0};
    memkit_lru *c = make_told(&w, 0, BOUND, 0);
    fill(c, 30000, 1);
    assert_int_equal(set_heavy(c, "old", 1), 0);
    int before = w.told[MEMKIT_LRU_EVICTED];
    uint64_t entries = stats_of(c).entries;
    assert_int_equal(set_heavy(c, "old", HEAVY), 0);
    assert_int_equal(w.told[MEMKIT_LRU_EVICTED] - before, (int)entries - 1);
    assert_int_equal(w.told[MEMKIT_LRU_REPLACED], 1);
    assert_true(length_of(c, "old") == HEAVY);
    memkit_lru_free(c);
}

/* It may be stored beside what comes back, or not; but the set ends, and soon. */
static void who_makes_way_may_be_stored_again(void **state)
{
    (void)state;
    witness w = {0};
    memkit_lru *c = make_told(&w, 0, SMALL_BOUND, 0);
    fill(c, SMALL_ENTRIES, 0);
    w.mode = 2;
    uint64_t entries = stats_of(c).entries;
    int before = w.told[MEMKIT_LRU_EVICTED];
    int error = set_heavy(c, "k", largest(SMALL_BOUND));
    assert_true(error == 0 || error == ENOMEM);
    assert_true(w.told[MEMKIT_LRU_EVICTED] - before < 20 * (int)entries);
    w.mode = 0;
    assert_int_equal(set_heavy(c, "k", largest(SMALL_BOUND)), 0);
    memkit_lru_free(c);
}

static void pins_in_the_way_are_busy_and_nothing_leaves(void **state)
{
    (void)state;
    memkit_lru *c = make(0, SMALL_BOUND, 0);
    size_t most = largest(SMALL_BOUND);
    fill(c, SMALL_ENTRIES, 0);
    uint32_t last = SMALL_ENTRIES - 1, first = last - 1000;
    memkit_lru_ref refs[2];
    assert_int_equal(memkit_lru_get(c, &first, sizeof first, &refs[0]), 1);
    assert_int_equal(memkit_lru_get(c, &last, sizeof last, &refs[1]), 1);
    uint64_t entries = stats_of(c).entries;
    assert_int_equal(set_heavy(c, "k", most), EBUSY);
    assert_int_equal(set_heavy(c, "k", most + 1), E2BIG); /* with pins or without */
    assert_int_equal(stats_of(c).entries, entries);
    /* Less than that it takes, beside the slabs that they keep. */
    assert_int_equal(set_heavy(c, "k", most - 4000), 0);
    assert_true(length_of(c, "k") == most - 4000);
    memkit_lru_release(c, &refs[0]);
    memkit_lru_release(c, &refs[1]);
    assert_int_equal(set_heavy(c, "k", most), 0);
    memkit_lru_free(c);
}

/* Sizes and pins as they come: whatever is said, the cache is sound, and EBUSY is due to a pin. */
static void busy_is_said_for_pins_alone(void **state)
{
    (void)state;
    memkit_lru *c = make(0, SMALL_BOUND, 0);
    size_t most = largest(SMALL_BOUND);
    uint64_t random = 7;
    memkit_lru_ref refs[8] = {0};
    int made[2] = {0, 0};
    for (int i = 0; i < (SANITIZED ? 300 : 3000); i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t dice = (uint32_t)(random >> 33), n = dice % 2000;
        if (i % 7 == 0)
            for (uint32_t k = 0; k < 2000; k++)
                (void)memkit_lru_set(c, &k, sizeof k, heavy, dice % 40);
        memkit_lru_ref *ref = &refs[dice % 8];
        if (ref->data != NULL)
            memkit_lru_release(c, ref);
        else if (i % 3 != 0)
            (void)memkit_lru_get(c, &n, sizeof n, ref);
        for (int k = 0; i % 5 == 4 && k < 8; k++)
            if (refs[k].data != NULL)
                memkit_lru_release(c, &refs[k]);
        int error = set_heavy(c, dice % 2 ? "k" : "l", most - dice % 5000);
        if (error != 0)
            assert_int_equal(error, EBUSY);
        if (error != 0)
            assert_true(stats_of(c).pinned_bytes > 0);
        made[error != 0]++;
    }
    assert_true(made[0] > 0 && made[1] > 0);
    for (int k = 0; k < 8; k++)
        if (refs[k].data != NULL)
            memkit_lru_release(c, &refs[k]);
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_cache_takes_what_a_new_one_takes),
        cmocka_unit_test(a_grown_index_gives_way_to_a_heavy_value),
        cmocka_unit_test(a_heavy_value_replaces_a_light_one),
        cmocka_unit_test(who_makes_way_is_told_of_once),
        cmocka_unit_test(who_makes_way_may_be_stored_again),
        cmocka_unit_test(pins_in_the_way_are_busy_and_nothing_leaves),
        cmocka_unit_test(busy_is_said_for_pins_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
