/* test_pool.c - the pool of byte buffers, in one thread. test_pool_threads.c has the rest. */
#include <time.h>
#include <unistd.h>

#include "support.h"

#include "core/pool.h"

static memkit_pool_stats_t stats_of(memkit_pool *p)
{
    const char *broken = memkit__pool_check(p);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_pool_stats_t s;
    memset(&s, 0xff, sizeof s);
    memkit_pool_stats(p, &s);
    for (size_t i = 0; i < sizeof s.reserved / sizeof s.reserved[0]; i++)
        assert_int_equal(s.reserved[i], 0);
    return s;
}

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static void a_class_fits_and_is_at_most_a_quarter_larger(void **state)
{
    (void)state;
    for (size_t n = 1; n < (size_t)1 << 21; n += n < 5000 ? 1 : n / 97) {
        size_t block = memkit__class_bytes(memkit__class_of(n));
        assert_true(block >= n);
        assert_true(n <= 64 || block <= n + n / 4);
        assert_int_equal(memkit__class_of(block), memkit__class_of(n));
    }
    assert_int_equal(memkit__class_of(MEMKIT__MAX_CLASS_BYTES), MEMKIT__CLASSES - 1);
    assert_int_equal(memkit__class_bytes(MEMKIT__CLASSES - 1), MEMKIT__MAX_CLASS_BYTES);
}

static void get_gives_an_empty_buffer_with_the_room_asked(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    for (size_t hint = 0; hint < 300000; hint = hint * 3 / 2 + 1) {
        memkit_buf *b = memkit_pool_get(p, hint);
        assert_true(b->cap >= hint && b->cap > 0);
        assert_int_equal(b->len, 0);
        assert_string_equal(b->data, "");
        memset(b->data, 'x', b->cap);
        b->len = b->cap;
        b->data[b->len] = '\0';
        memkit_pool_put(p, b);
    }
    stats_of(p);
    memkit_pool_free(p);
}

static void what_was_put_is_got_again_without_malloc(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *first = memkit_pool_get(p, 500);
    memkit_pool_put(p, first);
    fail_malloc(0, false);
    for (int i = 0; i < 10000; i++) {
        memkit_buf *b = memkit_pool_get(p, 500);
        assert_ptr_equal(b, first);
        assert_int_equal(b->len, 0);
        memkit_buf_append_str(b, "some text");
        memkit_pool_put(p, b);
    }
    assert_int_equal(mallocs_seen, 0);
    memkit_pool_stats_t s = stats_of(p);
    assert_int_equal(s.gets, 10001);
    assert_int_equal(s.hits, 10000);
    assert_int_equal(s.misses, 1);
    assert_int_equal(s.puts, 10001);
    assert_int_equal(s.live_buffers, 0);
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.held_buffers, 1);
    memkit_pool_free(p);
}

static void figures_follow_what_is_out_and_what_waits(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b[10];
    uint64_t room = 0;
    for (int i = 0; i < 10; i++) {
        b[i] = memkit_pool_get(p, 1000);
        room += b[i]->cap + 1;
    }
    memkit_pool_stats_t s = stats_of(p);
    assert_int_equal(s.live_buffers, 10);
    assert_int_equal(s.live_bytes, room);
    assert_int_equal(s.held_bytes, 0);
    size_t cap = b[0]->cap;
    memkit_buf_reserve(b[0], 5000);
    room += b[0]->cap - cap;
    assert_int_equal(stats_of(p).live_bytes, room);
    for (int i = 0; i < 10; i++)
        memkit_buf_free(b[i]); /* the same as put */
    s = stats_of(p);
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.held_buffers, 10);
    assert_int_equal(s.held_bytes, room);
    assert_true(s.peak_held_bytes >= room);
    memkit_pool_free(p);
}

static void a_steady_mix_of_lengths_costs_no_malloc(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    uint64_t seed = 5;
    for (int i = 0; i < 40000; i++) {
        if (i == 20000)
            fail_malloc(0, false);
        memkit_buf *b = memkit_pool_get(p, 0);
        size_t n = 100 + next_random(&seed) % (next_random(&seed) % 50 == 0 ? 6000 : 700);
        for (size_t k = 0; k < n; k += 100)
            memkit_buf_append(b,
                              "0123456789012345678901234567890123456789"
                              "012345678901234567890123456789012345678901234567890123456789",
                              100);
        memkit_pool_put(p, b);
    }
    assert_true(mallocs_seen < 40); /* of 20,000 uses: what grows stays and is found again */
    stats_of(p);
    memkit_pool_free(p);
}

static void use_with_length(memkit_pool *p, size_t n, int times)
{
    while (times-- > 0) {
        memkit_buf *b = memkit_pool_get(p, 0);
        memkit_buf_reserve(b, n);
        memset(b->data, 'x', n);
        b->data[b->len = n] = '\0';
        memkit_pool_put(p, b);
    }
}

static void the_calibrated_size_is_what_most_uses_needed(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    for (int round = 0; round < 40; round++) {
        use_with_length(p, 3000, 97);
        use_with_length(p, 200000, 3);
    }
    uint64_t size = stats_of(p).calibrated_size;
    assert_true(size >= 3000 && size < 3000 * 5 / 4 + 64); /* 3 % of giants do not move it */
    memkit_buf *b = memkit_pool_get(p, 0);
    assert_true(b->cap >= size);
    memkit_pool_put(p, b);
    use_with_length(p, 20000, 6000); /* a load that changes is followed */
    assert_true(stats_of(p).calibrated_size >= 20000);
    use_with_length(p, 100, 8000);
    assert_true(stats_of(p).calibrated_size < 200);
    use_with_length(p, 1000000, 1);
    assert_true(stats_of(p).calibrated_size < 200);
    memkit_pool_free(p);
}

static void the_calibrated_size_is_the_95th_percentile(void **state)
{
    (void)state;
    for (int large = 0; large <= 10; large++) { /* in 100 */
        memkit_pool *p = memkit_pool_new(NULL);
        for (int round = 0; round < 60; round++) {
            use_with_length(p, 500, 100 - large);
            use_with_length(p, 30000, large);
        }
        uint64_t size = stats_of(p).calibrated_size;
        if (large <= 4)
            assert_true(size >= 500 && size < 700);
        if (large >= 6)
            assert_true(size >= 30000 && size < 38000);
        memkit_pool_free(p);
    }
}

static void one_giant_message_moves_nothing(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = 1 << 20});
    use_with_length(p, 500, 3000);
    uint64_t size = stats_of(p).calibrated_size;
    use_with_length(p, 50 << 20, 1);
    use_with_length(p, 500, 300);
    memkit_pool_stats_t s = stats_of(p);
    assert_int_equal(s.calibrated_size, size);
    assert_true(s.held_bytes < 10000); /* nor does it wait */
    memkit_pool_free(p);
}

static void a_reset_within_a_use_does_not_hide_what_it_needed(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    for (int i = 0; i < 3000; i++) {
        memkit_buf *b = memkit_pool_get(p, 0);
        memkit_buf_reserve(b, 9000);
        b->data[b->len = 9000] = '\0';
        memkit_buf_reset(b);
        memkit_buf_append_str(b, "short");
        memkit_pool_put(p, b);
    }
    assert_true(stats_of(p).calibrated_size >= 9000);
    memkit_pool_free(p);
}

static void it_never_holds_more_than_its_bounds(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){
        .max_held_bytes = 200000, .max_thread_bytes = 50000, .max_buf_bytes = 30000});
    static memkit_buf *b[2000];
    uint64_t seed = 3;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2000; i++)
            b[i] = memkit_pool_get(p, next_random(&seed) % 3000);
        for (int i = 0; i < 2000; i++) {
            memkit_pool_put(p, b[i]);
            if (i % 100 == 0)
                assert_true(stats_of(p).held_bytes <= 200000);
        }
    }
    memkit_pool_stats_t s = stats_of(p);
    assert_true(s.held_bytes > 100000 && s.held_bytes <= 200000);
    assert_true(s.peak_held_bytes <= 200000);
    memkit_buf *large = memkit_pool_get(p, 40000); /* over max_buf_bytes: goes back at put */
    uint64_t trimmed = s.trimmed_bytes, held_before = stats_of(p).held_bytes;
    memkit_pool_put(p, large);
    s = stats_of(p);
    assert_true(s.held_bytes <= held_before && s.trimmed_bytes >= trimmed + 40000);
    memkit_pool_free(p);
}

static void a_pool_may_hold_next_to_nothing(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.max_held_bytes = 1});
    for (int i = 0; i < 100; i++)
        memkit_pool_put(p, memkit_pool_get(p, 10));
    assert_int_equal(stats_of(p).held_bytes, 0);
    memkit_pool_free(p);
    p = memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = 1, .max_thread_bytes = 1});
    for (int i = 0; i < 100; i++)
        memkit_pool_put(p, memkit_pool_get(p, 1000));
    assert_int_equal(stats_of(p).held_bytes, 0);
    memkit_pool_free(p);
}

static void trim_gives_back_down_to_what_is_kept(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    static memkit_buf *b[1000];
    for (int i = 0; i < 1000; i++)
        b[i] = memkit_pool_get(p, 10000);
    long out = blocks_out;
    for (int i = 0; i < 1000; i++)
        memkit_pool_put(p, b[i]);
    uint64_t held = stats_of(p).held_bytes;
    assert_true(held >= 10000000);
    size_t trimmed = memkit_pool_trim(p, 100000);
    memkit_pool_stats_t s = stats_of(p);
    assert_int_equal(trimmed, held - s.held_bytes);
    assert_true(s.held_bytes <= 100000 && s.held_bytes > 50000);
    assert_true(memkit_pool_trim(p, 0) > 0);
    assert_int_equal(stats_of(p).held_bytes, 0);
    assert_int_equal(memkit_pool_trim(p, 0), 0);
    assert_true(out - blocks_out >= 1000); /* they are malloc's again */
    memkit_pool_free(p);
}

static void what_was_idle_goes_back_at_a_later_call(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.idle_ms = 50});
    static memkit_buf *b[200];
    for (int i = 0; i < 200; i++)
        b[i] = memkit_pool_get(p, 10000);
    for (int i = 0; i < 200; i++)
        memkit_pool_put(p, b[i]);
    assert_true(stats_of(p).held_bytes > 2000000);
    sleep_ms(120);
    memkit_pool_put(p, memkit_pool_get(p, 100)); /* the next call */
    assert_true(stats_of(p).held_bytes < 16384);
    for (int i = 0; i < 200; i++)
        b[i] = memkit_pool_get(p, 10000);
    for (int i = 0; i < 200; i++)
        memkit_pool_put(p, b[i]);
    sleep_ms(120);
    memkit_buf *large =
        memkit_pool_get(p, 300000); /* a get is one too, where it is not answered at once */
    assert_true(stats_of(p).held_bytes < 16384);
    memkit_pool_put(p, large);
    memkit_pool_free(p);
}

static void a_background_thread_gives_back_without_a_call(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.idle_ms = 20, .background = 1});
    memkit_buf *b[50];
    for (int i = 0; i < 50; i++)
        b[i] = memkit_pool_get(p, 10000);
    for (int i = 0; i < 50; i++)
        memkit_pool_put(p, b[i]);
    memkit_pool_stats_t s;
    for (int waited = 0; waited < 5000; waited += 20) {
        sleep_ms(20);
        memkit_pool_stats(p, &s);
        if (s.held_bytes == 0)
            break;
    }
    assert_int_equal(s.held_bytes, 0);
    memkit_pool_free(p);
}

static void misuse_is_found_and_changes_nothing(void **state)
{
    (void)state;
    catch_faults();
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "mine"});
    memkit_pool *other = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100), *plain = memkit_buf_new(10);
    memkit_buf_append_str(plain, "kept");
    assert_faults(memkit_pool_put(p, plain), "not of pool \"mine\"");
    assert_string_equal(plain->data, "kept");
    assert_faults(memkit_pool_put(other, b), "not of pool");
    assert_int_equal(stats_of(p).live_buffers, 1);
    memkit_pool_put(p, b);
    assert_faults(memkit_pool_put(p, b), "already put");
    assert_faults(memkit_buf_free(b), "already put");
    assert_faults(assert_int_equal(memkit_buf_append_str(b, "x"), -1), "already put");
    assert_faults(assert_int_equal(memkit_buf_appendf(b, "x"), -1), "already put");
    assert_faults(assert_int_equal(memkit_buf_append(b, "x", 0), -1), "already put");
    memkit_pool_trim(p, 0); /* also when its block is gone */
    assert_faults(memkit_pool_put(p, b), "already put");
    memkit_pool_stats_t s = stats_of(p);
    assert_int_equal(s.puts, 1);
    assert_int_equal(s.gets, 1);
    memkit_buf_free(plain);
    memkit_pool_free(p);
    memkit_pool_free(other);
    memkit_set_fault_handler(NULL);
}

static void a_pool_with_buffers_out_is_not_freed(void **state)
{
    (void)state;
    catch_faults();
    long before = blocks_out;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    memkit_buf_append_str(b, "alive");
    assert_faults(memkit_pool_free(p), "still out");
    assert_string_equal(b->data, "alive");
    memkit_pool_put(p, b);
    memkit_pool_free(p);
    assert_int_equal(blocks_out, before);
    assert_faults(memkit_pool_free(memkit_pool_default()), "default pool");
    memkit_set_fault_handler(NULL);
}

static void detach_copies_and_leaves_the_buffer_pooled(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    memkit_buf_append_str(b, "text");
    size_t len;
    char *out = memkit_buf_detach(b, &len);
    assert_string_equal(out, "text");
    assert_int_equal(len, 4);
    assert_string_equal(b->data, "");
    memkit_buf_append_str(b, "more");
    memkit_pool_put(p, b);
    free(out);
    stats_of(p);
    memkit_pool_free(p);
}

static void a_limit_is_forgotten_at_put(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(p, 100);
    memkit_buf_limit(b, 2);
    assert_errno(memkit_buf_append_str(b, "123"), -1, EMSGSIZE);
    memkit_pool_put(p, b);
    assert_ptr_equal(memkit_pool_get(p, 100), b);
    assert_int_equal(memkit_buf_append_str(b, "123"), 0);
    memkit_pool_put(p, b);
    memkit_pool_free(p);
}

static void bad_arguments_are_einval(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(NULL);
    memkit_pool_stats_t s;
    assert_errno(memkit_pool_get(NULL, 1), NULL, EINVAL);
    memkit_pool_put(p, NULL);
    memkit_buf *b = memkit_pool_get(p, 1);
    assert_errno((memkit_pool_put(NULL, b), 0), 0, EINVAL);
    memkit_pool_put(p, b);
    assert_errno(memkit_pool_trim(NULL, 0), 0, EINVAL);
    assert_errno((memkit_pool_stats(NULL, &s), 0), 0, EINVAL);
    assert_errno((memkit_pool_stats(p, NULL), 0), 0, EINVAL);
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2 + 1, (size_t)PTRDIFF_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        assert_errno(memkit_pool_get(p, sizes[i]), NULL, EOVERFLOW);
    assert_errno(memkit_pool_new(&(memkit_pool_opts){.reserved = {1}}), NULL, EINVAL);
    assert_errno(memkit_pool_new(&(memkit_pool_opts){.background = 2}), NULL, EINVAL);
    assert_errno(memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = SIZE_MAX}), NULL, EINVAL);
    assert_errno(memkit_pool_new(&(memkit_pool_opts){.max_held_bytes = SIZE_MAX}), NULL, EINVAL);
    memkit_pool_free(NULL);
    memkit_pool_free(p);
}

static void running_out_of_memory_loses_nothing(void **state)
{
    (void)state;
    long before = blocks_out;
    for (unsigned nth = 1; nth <= 5; nth++)
        for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
            fail_malloc(nth, from_then_on);
            memkit_pool *p = memkit_pool_new(NULL);
            if (p == NULL) {
                assert_int_equal(errno, ENOMEM);
                continue;
            }
            for (int i = 0; i < 4; i++) {
                errno = 0;
                memkit_buf *b = memkit_pool_get(p, 100);
                if (b == NULL) {
                    assert_int_equal(errno, ENOMEM);
                    continue;
                }
                memkit_buf_append_str(b, "x");
                if (memkit_buf_reserve(b, 10000) != 0) {
                    assert_int_equal(errno, ENOMEM);
                    assert_string_equal(b->data, "x");
                }
                memkit_pool_put(p, b);
            }
            fail_malloc(0, false);
            memkit_buf *b = memkit_pool_get(p, 100);
            assert_non_null(b);
            memkit_pool_put(p, b);
            memkit_pool_stats_t s = stats_of(p);
            assert_int_equal(s.gets, s.puts);
            memkit_pool_free(p);
        }
    assert_int_equal(blocks_out, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_class_fits_and_is_at_most_a_quarter_larger),
        cmocka_unit_test(get_gives_an_empty_buffer_with_the_room_asked),
        cmocka_unit_test(what_was_put_is_got_again_without_malloc),
        cmocka_unit_test(figures_follow_what_is_out_and_what_waits),
        cmocka_unit_test(a_steady_mix_of_lengths_costs_no_malloc),
        cmocka_unit_test(the_calibrated_size_is_what_most_uses_needed),
        cmocka_unit_test(the_calibrated_size_is_the_95th_percentile),
        cmocka_unit_test(one_giant_message_moves_nothing),
        cmocka_unit_test(a_reset_within_a_use_does_not_hide_what_it_needed),
        cmocka_unit_test(it_never_holds_more_than_its_bounds),
        cmocka_unit_test(a_pool_may_hold_next_to_nothing),
        cmocka_unit_test(trim_gives_back_down_to_what_is_kept),
        cmocka_unit_test(what_was_idle_goes_back_at_a_later_call),
        cmocka_unit_test(a_background_thread_gives_back_without_a_call),
        cmocka_unit_test(misuse_is_found_and_changes_nothing),
        cmocka_unit_test(a_pool_with_buffers_out_is_not_freed),
        cmocka_unit_test(detach_copies_and_leaves_the_buffer_pooled),
        cmocka_unit_test(a_limit_is_forgotten_at_put),
        cmocka_unit_test(bad_arguments_are_einval),
        cmocka_unit_test(running_out_of_memory_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
