/* test_buf.c - the growable byte buffer. */
#include <wchar.h>

#include "support.h"

static void an_empty_buffer_is_a_string_and_takes_no_block(void **state)
{
    (void)state;
    fail_malloc(0, false);
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(mallocs_seen, 1);
    assert_string_equal(b->data, "");
    assert_int_equal(b->len, 0);
    assert_int_equal(b->cap, 0);
    memkit_buf_reset(b);
    assert_string_equal(b->data, "");
    memkit_buf_free(b);
    memkit_buf_free(NULL);
}

static void new_has_the_room_that_was_asked(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(100);
    fail_malloc(0, false);
    assert_true(b->cap >= 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(memkit_buf_append_byte(b, (unsigned char)i), 0);
    assert_int_equal(mallocs_seen, 0);
    memkit_buf_free(b);
}

static void appends_add_up_and_stay_terminated(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(memkit_buf_append(b, "ab\0c", 4), 0);
        assert_int_equal(memkit_buf_append_str(b, "xyz"), 0);
        assert_int_equal(memkit_buf_append_byte(b, '!'), 0);
        assert_int_equal(b->data[b->len], '\0');
    }
    assert_int_equal(b->len, 8000);
    for (int i = 0; i < 1000; i++)
        assert_memory_equal(b->data + 8 * i, "ab\0cxyz!", 8);
    memkit_buf_free(b);
}

static void growth_is_amortized(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    fail_malloc(0, false);
    for (int i = 0; i < 1 << 20; i++)
        memkit_buf_append_byte(b, 'x');
    assert_true(mallocs_seen <= 16);
    while (b->len < 16u << 20)
        memkit_buf_append(b, b->data, 1 << 20);
    assert_true(b->cap <= b->len + b->len / 4 + 64); /* a large buffer is at most a quarter spare */
    memkit_buf_free(b);
}

static void a_buffer_can_be_appended_to_itself(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    memkit_buf_append_str(b, "abc");
    for (int i = 0; i < 12; i++)
        assert_int_equal(memkit_buf_append(b, b->data, b->len), 0);
    assert_int_equal(b->len, 3 << 12);
    for (size_t i = 0; i < b->len; i++)
        assert_int_equal(b->data[i], "abc"[i % 3]);
    /* a part from the middle, where growing moves the block */
    size_t spare = b->cap - b->len;
    assert_int_equal(memkit_buf_append(b, b->data + 3, spare < 9000 ? 9000 : spare + 1), 0);
    assert_memory_equal(b->data + (3 << 12), "abcabcabc", 9);
    memkit_buf_free(b);
}

static void appendf_formats_with_and_without_room(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_appendf(b, "%s", ""), 0);
    assert_int_equal(b->len, 0);
    for (int i = 0; i < 500; i++)
        assert_int_equal(memkit_buf_appendf(b, "%03d,", i), 0);
    assert_int_equal(b->len, 2000);
    assert_memory_equal(b->data + 4 * 123, "123,", 4);
    assert_int_equal(memkit_buf_appendf(b, "%*s", 10000, "z"), 0);
    assert_int_equal(b->len, 12000);
    assert_int_equal(b->data[11999], 'z');
    memkit_buf_free(b);
}

static void an_impossible_format_leaves_the_buffer_alone(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(64);
    memkit_buf_append_str(b, "kept");
    /* 0xd800, a surrogate, is no character in any locale's encoding */
    assert_int_equal(memkit_buf_appendf(b, "12%lc", (wint_t)0xd800), -1);
    assert_string_equal(b->data, "kept");
    assert_int_equal(b->len, 4);
    memkit_buf_free(b);
}

static void reserve_makes_room_and_reset_keeps_it(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_reserve(b, 5000), 0);
    assert_true(b->cap - b->len >= 5000);
    memset(b->data, 'q', 5000);
    b->len = 5000;
    b->data[5000] = '\0';
    size_t cap = b->cap;
    memkit_buf_reset(b);
    assert_int_equal(b->len, 0);
    assert_int_equal(b->cap, cap);
    assert_string_equal(b->data, "");
    memkit_buf_free(b);
}

static void detach_gives_a_block_for_free(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    size_t len = 99;
    char *out = memkit_buf_detach(b, &len); /* of nothing: an empty string */
    assert_string_equal(out, "");
    assert_int_equal(len, 0);
    free(out);
    memkit_buf_append_str(b, "hello");
    char *data = b->data;
    out = memkit_buf_detach(b, &len);
    assert_ptr_equal(out, data); /* no copy */
    assert_int_equal(len, 5);
    assert_string_equal(b->data, "");
    assert_int_equal(memkit_buf_append_str(b, "again"), 0);
    assert_string_equal(b->data, "again");
    assert_string_equal(out, "hello");
    free(out);
    memkit_buf_free(b);
}

static void a_limit_bounds_what_a_buffer_holds(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    memkit_buf_append_str(b, "12345");
    assert_errno(memkit_buf_limit(b, 4), -1, EINVAL);
    assert_int_equal(memkit_buf_limit(b, 8), 0);
    assert_errno(memkit_buf_append(b, "6789", 4), -1, EMSGSIZE);
    assert_errno(memkit_buf_appendf(b, "%d", 6789), -1, EMSGSIZE);
    assert_errno(memkit_buf_reserve(b, 4), -1, EMSGSIZE);
    assert_string_equal(b->data, "12345");
    assert_int_equal(memkit_buf_append(b, "678", 3), 0);
    assert_errno(memkit_buf_append_byte(b, '9'), -1, EMSGSIZE);
    assert_int_equal(memkit_buf_limit(b, 0), 0);
    assert_int_equal(memkit_buf_append_byte(b, '9'), 0);
    assert_string_equal(b->data, "123456789");
    memkit_buf_free(b);
}

static void bad_arguments_are_einval_and_change_nothing(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    memkit_buf_append_str(b, "x");
    assert_errno(memkit_buf_append(NULL, "a", 1), -1, EINVAL);
    assert_errno(memkit_buf_append(b, NULL, 1), -1, EINVAL);
    assert_int_equal(memkit_buf_append(b, NULL, 0), 0);
    assert_errno(memkit_buf_append_str(NULL, "a"), -1, EINVAL);
    assert_errno(memkit_buf_append_str(b, NULL), -1, EINVAL);
    assert_errno(memkit_buf_append_byte(NULL, 1), -1, EINVAL);
    assert_errno(memkit_buf_appendf(NULL, "a"), -1, EINVAL);
    assert_errno(memkit_buf_reserve(NULL, 1), -1, EINVAL);
    assert_errno(memkit_buf_limit(NULL, 1), -1, EINVAL);
    assert_errno((memkit_buf_reset(NULL), 0), 0, EINVAL);
    assert_errno(memkit_buf_detach(NULL, NULL), NULL, EINVAL);
    assert_string_equal(b->data, "x");
    memkit_buf_free(b);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1, (size_t)PTRDIFF_MAX};
    memkit_buf *b = memkit_buf_new(0);
    memkit_buf_append_str(b, "x");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_errno(memkit_buf_new(sizes[i]), NULL, EOVERFLOW);
        assert_errno(memkit_buf_append(b, b->data, sizes[i]), -1, EOVERFLOW);
        assert_errno(memkit_buf_reserve(b, sizes[i]), -1, EOVERFLOW);
    }
    assert_string_equal(b->data, "x");
    assert_int_equal(b->len, 1);
    memkit_buf_free(b);
}

static void running_out_of_memory_loses_nothing(void **state)
{
    (void)state;
    static const char big[4096];
    long before = blocks_out;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
        for (unsigned nth = 1; nth <= 2; nth++) {
            fail_malloc(nth, from_then_on);
            assert_errno(memkit_buf_new(10), NULL, ENOMEM);
            fail_malloc(0, false);
        }
        memkit_buf *b = memkit_buf_new(0);
        memkit_buf_append_str(b, "kept");
        fail_malloc(1, from_then_on);
        assert_errno(memkit_buf_append(b, big, sizeof big), -1, ENOMEM);
        fail_malloc(1, from_then_on);
        assert_errno(memkit_buf_appendf(b, "%500d", 1), -1, ENOMEM);
        assert_string_equal(b->data, "kept");
        fail_malloc(0, false);
        assert_int_equal(memkit_buf_appendf(b, "%500d", 1), 0);
        memkit_buf_free(b);
        b = memkit_buf_new(0);
        fail_malloc(1, from_then_on);
        assert_errno(memkit_buf_detach(b, NULL), NULL, ENOMEM);
        fail_malloc(0, false);
        memkit_buf_free(b);
    }
    assert_int_equal(blocks_out, before);
}

static void what_is_no_buffer_is_a_fault(void **state)
{
    (void)state;
    catch_faults();
    memkit_buf stray;
    memset(&stray, 0, sizeof stray);
    stray.data = stray.empty;
    assert_faults(memkit_buf_free(&stray), "not a memkit buffer");
    assert_faults(memkit_buf_reset(&stray), "not a memkit buffer");
    assert_faults(assert_int_equal(memkit_buf_append(&stray, "a", 1), -1), "not a memkit buffer");
    assert_faults(assert_null(memkit_buf_detach(&stray, NULL)), "not a memkit buffer");
    memkit_buf *b = memkit_buf_new(0);
    memkit_buf copy = *b; /* a copied struct is no buffer either: its state word is its address's */
    copy.data = copy.empty;
    assert_faults(memkit_buf_free(&copy), "not a memkit buffer");
    memkit_buf_free(b);
    memkit_set_fault_handler(NULL);
}

static void the_fault_handler_can_be_set_and_restored(void **state)
{
    (void)state;
    assert_null(memkit_set_fault_handler(NULL));
    catch_faults();
    memkit_fault_fn ours = memkit_set_fault_handler(NULL);
    assert_non_null(ours);
    assert_null(memkit_set_fault_handler(NULL));
    assert_string_equal(memkit_version(), MEMKIT_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_buffer_is_a_string_and_takes_no_block),
        cmocka_unit_test(new_has_the_room_that_was_asked),
        cmocka_unit_test(appends_add_up_and_stay_terminated),
        cmocka_unit_test(growth_is_amortized),
        cmocka_unit_test(a_buffer_can_be_appended_to_itself),
        cmocka_unit_test(appendf_formats_with_and_without_room),
        cmocka_unit_test(an_impossible_format_leaves_the_buffer_alone),
        cmocka_unit_test(reserve_makes_room_and_reset_keeps_it),
        cmocka_unit_test(detach_gives_a_block_for_free),
        cmocka_unit_test(a_limit_bounds_what_a_buffer_holds),
        cmocka_unit_test(bad_arguments_are_einval_and_change_nothing),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(running_out_of_memory_loses_nothing),
        cmocka_unit_test(what_is_no_buffer_is_a_fault),
        cmocka_unit_test(the_fault_handler_can_be_set_and_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
