/* test_lru_refs.c - who holds an entry: references, what pins keep, and misuse. */
#include "test_lru.h"

static void a_pinned_entry_stays_readable(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        memkit_lru *c = make(2, 0, 0);
        set(c, "a", "the value");
        memkit_lru_ref ref = get(c, "a");
        uint64_t pinned = stats_of(c).pinned_bytes;
        assert_true(pinned >= 9);
        if (how == 0)
            assert_int_equal(memkit_lru_del(c, "a", 1), 1);
        else if (how == 1)
            set(c, "a", "another");
        else if (how == 2)
            memkit_lru_clear(c);
        else
            for (uint64_t n = 0; n < 100; n++)
                assert_int_equal(set_number(c, n, 9), 0);
        sound(c);
        assert_false(has(c, "a", "the value"));
        assert_int_equal(has(c, "a", "another"), how == 1);
        set_number(c, 1000, 9); /* does not get its memory */
        assert_memory_equal(ref.data, "the value", 9);
        assert_int_equal(stats_of(c).pinned_bytes, pinned);
        memkit_lru_release(c, &ref);
        assert_null(ref.data);
        sound(c);
        assert_int_equal(stats_of(c).pinned_bytes, 0);
        memkit_lru_release(c, &ref); /* cleared: does nothing */
        memkit_lru_free(c);
    }
}

static void set_may_take_what_get_gave(void **state)
{
    (void)state;
    const size_t lengths[] = {10, 100, 40000};
    for (size_t i = 0; i < 3; i++) {
        memkit_lru *c = make(2, 256 << 10, 0);
        static char val[40000];
        for (size_t j = 0; j < lengths[i]; j++)
            val[j] = (char)(j * 13);
        assert_int_equal(memkit_lru_set(c, "a", 1, val, lengths[i]), 0);
        memkit_lru_ref ref = get(c, "a");
        assert_int_equal(memkit_lru_set(c, "a", 1, ref.data, ref.len), 0);
        assert_int_equal(memkit_lru_set(c, "a", 1, (const char *)ref.data + 1, ref.len - 1), 0);
        assert_int_equal(memkit_lru_set(c, ref.data, 8, ref.data, ref.len), 0);
        assert_int_equal(memkit_lru_set(c, "c", 1, ref.data, ref.len), 0); /* evicts the a's heir */
        sound(c);
        memkit_lru_ref copy = get(c, "c");
        assert_int_equal(copy.len, lengths[i]);
        assert_memory_equal(copy.data, val, lengths[i]);
        memkit_lru_release(c, &copy);
        memkit_lru_release(c, &ref);
        sound(c);
        memkit_lru_free(c);
    }
}

static void everything_pinned_is_ebusy(void **state)
{
    (void)state;
    memkit_lru *c = make(2, 0, 0);
    set(c, "a", "1");
    set(c, "b", "2");
    memkit_lru_ref a = get(c, "a"), b = get(c, "b");
    errno = 0;
    assert_int_equal(set(c, "c", "3"), -1);
    assert_int_equal(errno, EBUSY);
    assert_true(has(c, "a", "1") && has(c, "b", "2"));
    assert_int_equal(set(c, "a", "4"), 0); /* a replacement needs nobody to go */
    assert_int_equal(memkit_lru_resize(c, 1, 0), 0);
    memkit_lru_release(c, &a);
    memkit_lru_release(c, &b);
    sound(c);
    memkit_lru_free(c);
}

/* At every bound: just where the last slab, or the table of units, does not fit any more. */
static void pins_fill_any_bound_with_ebusy(void **state)
{
    (void)state;
    for (size_t bound = 6 << 10; bound < 12 << 10; bound += 40)
        for (size_t len = 0; len < 400; len += 130) {
            memkit_lru *c = make(0, bound, MEMKIT_LRU_UNLOCKED);
            memkit_lru_ref refs[400];
            uint64_t n = 0;
            for (; set_number(c, n, len) == 0; n++)
                assert_int_equal(memkit_lru_get(c, &n, sizeof n, &refs[n]), 1);
            assert_int_equal(errno, EBUSY);
            assert_int_equal(stats_of(c).entries, n);
            sound(c);
            for (uint64_t i = 0; i < n; i++)
                memkit_lru_release(c, &refs[i]);
            memkit_lru_free(c);
        }
}

static void bytes_full_of_pins_are_ebusy_and_nothing_goes(void **state)
{
    (void)state;
    const size_t lengths[] = {20, 400, 9000};
    for (size_t i = 0; i < 3; i++) {
        memkit_lru *c = make(0, 64 << 10, 0);
        static memkit_lru_ref refs[4000];
        size_t pinned = 0;
        uint64_t n = 0;
        for (; set_number(c, n, lengths[i]) == 0; n++)
            assert_int_equal(memkit_lru_get(c, &n, sizeof n, &refs[pinned++]), 1);
        assert_int_equal(errno, EBUSY);
        sound(c);
        memkit_lru_stats_t before = stats_of(c);
        assert_int_equal(before.entries, pinned);
        assert_int_equal(before.evictions, 0);
        errno = 0;
        assert_int_equal(memkit_lru_resize(c, 0, 16 << 10), -1);
        assert_int_equal(errno, EBUSY);
        assert_int_equal(stats_of(c).entries, pinned);
        /* One reference less, and it goes: not before everything older has. */
        memkit_lru_release(c, &refs[pinned / 2]);
        assert_int_equal(set_number(c, n, lengths[i]), 0);
        assert_true(has_number(c, n));
        assert_false(has_number(c, pinned / 2));
        sound(c);
        for (size_t r = 0; r < pinned; r++) {
            if (r != pinned / 2)
                assert_int_equal(*(const unsigned char *)refs[r].data, r & 255);
            memkit_lru_release(c, &refs[r]);
        }
        sound(c);
        assert_int_equal(stats_of(c).pinned_bytes, 0);
        memkit_lru_free(c);
    }
}

static void references_have_a_limit(void **state)
{
    (void)state;
    memkit_lru *c = make(2, 0, MEMKIT_LRU_UNLOCKED);
    set(c, "a", "1");
    memkit_lru_ref first = get(c, "a");
    for (int i = 1; i < UINT16_MAX; i++)
        get(c, "a");
    memkit_lru_ref more;
    errno = 0;
    assert_int_equal(memkit_lru_get(c, "a", 1, &more), -1);
    assert_int_equal(errno, EAGAIN);
    assert_null(more.data);
    memkit_buf *b = memkit_buf_new(0); /* needs none */
    assert_int_equal(memkit_lru_get_buf(c, "a", 1, b), 1);
    memkit_buf_free(b);
    for (int i = 0; i < UINT16_MAX; i++) {
        memkit_lru_ref copy = first;
        memkit_lru_release(c, &copy);
    }
    assert_int_equal(stats_of(c).pinned_bytes, 0);
    sound(c);
    memkit_lru_free(c);
}

static void misuse_of_references_is_a_fault(void **state)
{
    (void)state;
    catch_faults();
    memkit_lru *c = make(64, 0, 0), *other = make(64, 0, 0);
    set(c, "a", "1");
    set(other, "a", "1");
    memkit_lru_ref ref = get(c, "a"), copy = ref, garbage = ref;
    memkit_lru_release(other, &copy); /* another cache's */
    assert_int_equal(faults, 1);
    garbage.priv[0] ^= 1u << 13;
    memkit_lru_release(c, &garbage);
    garbage = ref;
    garbage.data = (const char *)garbage.data + 8;
    memkit_lru_release(c, &garbage);
    memset(&garbage, 0x5a, sizeof garbage);
    memkit_lru_release(c, &garbage);
    assert_int_equal(faults, 4);
    assert_true(stats_of(c).pinned_bytes > 0);
    memkit_lru_free(c); /* a live reference: refused */
    assert_int_equal(faults, 5);
    assert_non_null(strstr(last_fault, "memkit_lru_free"));
    memkit_lru_release(c, &ref);
    assert_int_equal(faults, 5);
    memkit_lru_release(c, &copy); /* twice, through a copy */
    assert_int_equal(faults, 6);
    assert_non_null(strstr(last_fault, "already"));
    assert_true(has(c, "a", "1"));
    sound(c);

    /* The same when the memory has gone to others, or back to malloc. */
    ref = copy = get(c, "a");
    memkit_lru_release(c, &ref);
    memkit_lru_del(c, "a", 1);
    for (uint64_t n = 0; n < 3000; n++)
        set_number(c, n, n % 200);
    memkit_lru_release(c, &copy);
    assert_int_equal(faults, 7);
    memkit_lru_resize(c, 0, 64 << 10);
    memkit_lru_resize(c, 0, 32 << 10);
    memkit_lru_release(c, &copy);
    assert_int_equal(faults, 8);
    sound(c);
    memkit_lru_free(c);
    memkit_lru_free(other);
    assert_int_equal(faults, 8);
    memkit_set_fault_handler(NULL);
}

/* The memory of a released entry serves another, of the same length and at the same address, that
 * is pinned itself: the stale copy must not unpin that. */
static void a_stale_copy_does_not_unpin_another_entry(void **state)
{
    (void)state;
    catch_faults();
    memkit_lru *c = make(8, 0, 0);
    set(c, "a", "1");
    memkit_lru_ref ref = get(c, "a"), copy = ref;
    memkit_lru_release(c, &ref);
    memkit_lru_del(c, "a", 1);
    set(c, "b", "2");
    memkit_lru_ref other = get(c, "b");
    assert_ptr_equal(other.data, copy.data);
    memkit_lru_release(c, &copy);
    assert_int_equal(faults, 1);
    assert_true(stats_of(c).pinned_bytes > 0);
    memkit_lru_release(c, &other);
    assert_int_equal(faults, 1);
    memkit_lru_free(c);
    memkit_set_fault_handler(NULL);
}

static void a_bound_below_the_pinned_is_ebusy(void **state)
{
    (void)state;
    memkit_lru *c = make(3, 0, 0);
    set(c, "a", "1");
    set(c, "b", "2");
    set(c, "c", "3");
    memkit_lru_ref a = get(c, "a"), b = get(c, "b");
    errno = 0;
    assert_int_equal(memkit_lru_resize(c, 1, 0), -1);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(stats_of(c).entries, 3);
    assert_int_equal(stats_of(c).max_entries, 3);
    assert_int_equal(memkit_lru_resize(c, 2, 0), 0);
    assert_true(has(c, "a", "1") && has(c, "b", "2"));
    memkit_lru_release(c, &a);
    memkit_lru_release(c, &b);
    memkit_lru_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pinned_entry_stays_readable),
        cmocka_unit_test(set_may_take_what_get_gave),
        cmocka_unit_test(everything_pinned_is_ebusy),
        cmocka_unit_test(pins_fill_any_bound_with_ebusy),
        cmocka_unit_test(bytes_full_of_pins_are_ebusy_and_nothing_goes),
        cmocka_unit_test(references_have_a_limit),
        cmocka_unit_test(misuse_of_references_is_a_fault),
        cmocka_unit_test(a_stale_copy_does_not_unpin_another_entry),
        cmocka_unit_test(a_bound_below_the_pinned_is_ebusy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
