/* test_arena.c - the bump allocator. */
#include "test_arena.h"

static void what_it_gives_is_aligned_and_apart(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    char *last = NULL;
    for (size_t n = 0; n < 3000; n++) {
        char *p = check(a, memkit_arena_alloc(a, n));
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        memset(p, (int)n, n);
        if (last != NULL && n > 1)
            assert_int_equal(last[n - 2], (char)(n - 1)); /* not overwritten */
        last = p;
    }
    memkit_arena_free(a);
}

static void no_bytes_have_an_address_from_the_start(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    assert_non_null(memkit_arena_alloc(a, 0));
    assert_int_equal(held(a), 0); /* and cost nothing */
    memkit_arena_free(a);
}

static void a_new_arena_allocates_its_control_block_only(void **state)
{
    (void)state;
    fail_malloc(0, false);
    memkit_arena *a = memkit_arena_new(NULL);
    assert_int_equal(mallocs_seen, 1);
    for (int i = 0; i < 4000 / (64 + GAP); i++)
        assert_non_null(memkit_arena_alloc(a, 64));
    assert_int_equal(mallocs_seen, 2); /* one chunk of 4 KiB */
    memkit_arena_free(a);
}

/* The bytes of each of the next n chunks that blocks of `block` bytes take. */
static void chunk_sizes(memkit_arena *a, size_t block, uint64_t *sizes, size_t n)
{
    for (uint64_t before = held(a); n > 0;) {
        assert_non_null(check(a, memkit_arena_alloc(a, block)));
        uint64_t now = held(a);
        if (now != before)
            *sizes++ = now - before, n--;
        before = now;
    }
}

static void chunks_double_up_to_the_stated_size(void **state)
{
    (void)state;
    memkit_arena *a =
        memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 1024, .max_chunk_bytes = 8192});
    uint64_t sizes[11];
    chunk_sizes(a, 16, sizes, 8);
    const uint64_t expected[8] = {1024, 2048, 4096, 8192, 8192, 8192, 8192, 8192};
    assert_memory_equal(sizes, expected, sizeof expected);
    memkit_arena_free(a);
    a = memkit_arena_new(NULL);
    chunk_sizes(a, 500, sizes, 11);
    for (int i = 0; i < 11; i++)
        assert_int_equal(sizes[i], i < 8 ? 4096u << i : 1u << 20);
    memkit_arena_free(a);
    a = memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 3000, .max_chunk_bytes = 10000});
    chunk_sizes(a, 16, sizes, 4); /* not a power of two: twice the last, and then the most */
    const uint64_t odd[4] = {3000, 6000, 10000, 10000};
    assert_memory_equal(sizes, odd, sizeof odd);
    memkit_arena_free(a);
}

static void a_request_over_a_quarter_of_the_next_chunk_has_one_of_its_own(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL); /* the next chunk: 4 KiB */
    uint64_t size;
    chunk_sizes(a, 1024 - GAP, &size, 1);
    assert_int_equal(size, 4096);
    memkit_arena_reset(a);
    memkit_arena_free(a);
    a = memkit_arena_new(NULL);
    for (size_t n = 1025; n < 3000000; n = n * 3 / 2) {
        chunk_sizes(a, n, &size, 1);
        assert_true(size >= n && size <= n + 15 + 32 + GAP); /* itself and a header */
        assert_int_equal(used(a) % 16, 0);
    }
    chunk_sizes(a, 1, &size, 1);
    assert_int_equal(size, 4096); /* none of them made the next chunk larger */
    memkit_arena_free(a);
}

static void a_big_request_wastes_no_chunk(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    char *small = memkit_arena_alloc(a, 16);
    uint64_t before = held(a);
    char *big = check(a, memkit_arena_alloc(a, 100000));
    memset(big, 1, 100000);
    assert_true(held(a) - before < 100000 + 128);
    char *next = memkit_arena_alloc(a, 16);
    assert_ptr_equal(next, small + 16 + GAP); /* the chunk goes on where it was */
    memkit_arena_free(a);
}

static void reset_keeps_what_the_next_request_needs(void **state)
{
    (void)state;
    long before = blocks_out;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.keep_bytes = 64 << 10});
    for (int request = 0; request < 50; request++) {
        if (request == 10)
            fail_malloc(0, false);
        for (int i = 0; i < 300; i++)
            memset(check(a, memkit_arena_alloc(a, 100)), i, 100);
        memkit_arena_reset(a);
        check(a, NULL);
        assert_int_equal(used(a), 0);
        assert_true(held(a) <= 64 << 10);
    }
    assert_int_equal(mallocs_seen, 0);
    for (int i = 0; i < 100000; i++)
        assert_non_null(memkit_arena_alloc(a, 100));
    memkit_arena_reset(a);
    assert_true(held(a) <= 64 << 10);
    memkit_arena_free(a);
    assert_int_equal(blocks_out, before);
}

static void callers_memory_comes_first(void **state)
{
    (void)state;
    static char mem[4096 + 1];
    fail_malloc(0, false);
    long before = blocks_out;
    memkit_arena *a = memkit_arena_init(mem + 1, 4096, NULL); /* misaligned on purpose */
    assert_non_null(a);
    assert_true((char *)a > mem && (char *)a < mem + 64);
    char *p = NULL;
    for (int i = 0; i < 40; i++)
        p = check(a, memkit_arena_alloc(a, 64));
    assert_true(p > mem && p < mem + sizeof mem);
    assert_int_equal(mallocs_seen, 0);
    for (int i = 0; i < 50; i++)
        check(a, memkit_arena_alloc(a, 64));
    assert_true(mallocs_seen > 0);
    memkit_arena_reset(a);
    p = memkit_arena_alloc(a, 64); /* and again the caller's */
    assert_true(p > mem && p < mem + sizeof mem);
    memkit_arena_free(a);
    assert_int_equal(blocks_out, before);
    assert_errno(memkit_arena_init(mem, 64, NULL), NULL, EINVAL);
    assert_errno(memkit_arena_init(NULL, 4096, NULL), NULL, EINVAL);
    a = memkit_arena_init(mem, 512, NULL); /* the promised size of the control block */
    assert_non_null(a);
    memkit_arena_free(a);
}

static void realloc_is_in_place_for_the_last(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    char *p = memkit_arena_realloc(a, NULL, 0, 10);
    memcpy(p, "123456789", 10);
    assert_ptr_equal(memkit_arena_realloc(a, p, 10, 500), p);
    assert_ptr_equal(memkit_arena_realloc(a, p, 500, 20), p); /* and gives back */
    char *next = memkit_arena_alloc(a, 1);
    assert_ptr_equal(next, p + 32 + GAP);
    char *moved = memkit_arena_realloc(a, p, 20, 200); /* no longer the last */
    assert_ptr_not_equal(moved, p);
    assert_string_equal(moved, "123456789");
    assert_ptr_equal(memkit_arena_realloc(a, p, 20, 5), p); /* smaller is always in place */
    assert_errno(memkit_arena_realloc(a, moved, 200, SIZE_MAX), NULL, ENOMEM);
    assert_errno(memkit_arena_realloc(a, NULL, 5, 5), NULL, EINVAL);
    assert_string_equal(moved, "123456789");
    check(a, NULL);
    memkit_arena_free(a);
}

static void a_growing_big_block_has_the_room_that_was_only_kept(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 4096,
                                                            .max_chunk_bytes = 4096,
                                                            .keep_bytes = 65536,
                                                            .max_bytes = 32768});
    for (int i = 0; i < 12; i++)
        assert_non_null(memkit_arena_alloc(a, 1000));
    memkit_arena_reset(a);
    char *p = memkit_arena_alloc(a, 10000);
    assert_non_null(p);
    memset(p, 'p', 10000);
    assert_null(memkit_arena_realloc(a, p, 10000, 32768));
    p = memkit_arena_realloc(a, p, 10000, 25000);
    assert_non_null(p);
    assert_int_equal(p[9999], 'p');
    check(a, NULL);
    memkit_arena_free(a);
}

static void a_growing_big_block_leaves_no_hole(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    size_t n = 50000;
    char *p = memkit_arena_alloc(a, n);
    memset(p, 'x', n);
    for (; n < 2000000; n += 50000) {
        p = check(a, memkit_arena_realloc(a, p, n, n + 50000));
        assert_int_equal(p[n - 1], 'x');
        memset(p + n, 'x', 50000);
    }
    assert_true(held(a) < n + 4096);
    memkit_arena_free(a);
}

static void any_alignment_is_kept_up_to_a_gibibyte(void **state)
{
    (void)state;
    const size_t most = SANITIZED ? (size_t)1 << 26 : (size_t)1 << 30; /* its shadow is touched */
    for (size_t align = 1; align <= most; align *= 2) {
        memkit_arena *a = memkit_arena_new(NULL);
        for (size_t n = 0; n < (align <= 1 << 20 ? 200 : 34); n += 33) {
            char *p = check(a, memkit_arena_alloc_aligned(a, n, align));
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            memset(p, 1, n);
        }
        memkit_arena_free(a);
    }
}

static void an_alignment_that_cannot_be_loses_nothing(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.max_bytes = 1 << 20});
    char *kept = memkit_arena_strdup(a, "kept");
    uint64_t used_before = used(a), held_before = held(a);
    assert_errno(memkit_arena_alloc_aligned(a, 1, 0), NULL, EINVAL);
    assert_errno(memkit_arena_alloc_aligned(a, 1, 24), NULL, EINVAL);
    assert_errno(memkit_arena_alloc_aligned(a, SIZE_MAX, 4096), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc_aligned(a, SIZE_MAX / 2 + 1, 4096), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc_aligned(a, 1, (size_t)1 << 63), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc_aligned(a, 0, (size_t)1 << 63), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc_aligned(a, 1, (size_t)1 << 62), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc_aligned(a, 1, (size_t)1 << 30), NULL, ENOMEM); /* max_bytes */
    assert_int_equal(used(a), used_before);
    assert_int_equal(held(a), held_before);
    assert_string_equal(check(a, kept), "kept");
    memkit_arena_free(a);
}

static void calloc_clears_what_was_used_before(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    memset(memkit_arena_alloc(a, 1000), 0xff, 1000);
    memkit_arena_reset(a);
    const char *p = memkit_arena_calloc(a, 10, 100);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], 0);
    assert_errno(memkit_arena_calloc(a, SIZE_MAX / 2, 3), NULL, EOVERFLOW);
    assert_errno(memkit_arena_calloc(a, SIZE_MAX, 1), NULL, EOVERFLOW);
    memkit_arena_free(a);
}

static void strings_are_copied_and_printed(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    assert_string_equal(memkit_arena_strdup(a, ""), "");
    assert_string_equal(memkit_arena_strdup(a, "hello"), "hello");
    assert_string_equal(memkit_arena_strndup(a, "hello", 3), "hel");
    assert_string_equal(memkit_arena_strndup(a, "hello", SIZE_MAX), "hello");
    assert_memory_equal(memkit_arena_memdup(a, "a\0b", 3), "a\0b", 3);
    assert_non_null(memkit_arena_memdup(a, NULL, 0));
    for (int i = 0; i < 2000; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "%d-%*d", i, i % 40, 7);
        assert_string_equal(check(a, memkit_arena_printf(a, "%d-%*d", i, i % 40, 7)), expected);
    }
    const char *wide = memkit_arena_printf(a, "%*s", 100000, "x");
    assert_int_equal(strlen(wide), 100000);
    memkit_arena_free(a);
}

static void the_limit_is_enomem_and_loses_nothing(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.max_bytes = 100000});
    size_t got = 0;
    errno = 0;
    for (void *p; (p = memkit_arena_alloc(a, 1000)) != NULL; got += 1000)
        memset(p, 1, 1000);
    assert_int_equal(errno, ENOMEM);
    assert_true(got > 85000 && held(a) <= 100000); /* the end is taken in smaller chunks */
    assert_errno(memkit_arena_alloc(a, 200000), NULL, ENOMEM);
    assert_errno(memkit_arena_alloc(a, SIZE_MAX), NULL, ENOMEM);
    check(a, NULL);
    memkit_arena_reset(a);
    assert_non_null(memkit_arena_alloc(a, 20000));
    /* What is kept for the next request is no reason to refuse it. */
    memkit_arena_reset(a);
    for (int i = 0; i < 60; i++)
        assert_non_null(memkit_arena_alloc(a, 1000));
    memkit_arena_reset(a);
    assert_non_null(check(a, memkit_arena_alloc(a, 98000)));
    memkit_arena_free(a);
}

static void running_out_of_memory_loses_nothing(void **state)
{
    (void)state;
    long before = blocks_out;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
        fail_malloc(1, from_then_on);
        assert_errno(memkit_arena_new(NULL), NULL, ENOMEM);
        fail_malloc(0, false);
        memkit_arena *a = memkit_arena_new(NULL);
        char *kept = memkit_arena_strdup(a, "kept");
        uint64_t now = used(a);
        fail_malloc(1, true);
        assert_errno(memkit_arena_alloc(a, 100000), NULL, ENOMEM);
        assert_errno(memkit_arena_printf(a, "%*d", 10000, 1), NULL, ENOMEM);
        assert_errno(memkit_arena_alloc_aligned(a, 100000, 65536), NULL, ENOMEM);
        assert_errno(memkit_arena_realloc(a, kept, 5, 100000), NULL, ENOMEM);
        int failed = 0;
        while (memkit_arena_defer(a, nothing, NULL) == 0)
            failed++;
        assert_true(failed > 10);
        assert_int_equal(errno, ENOMEM);
        fail_malloc(0, false);
        assert_string_equal(check(a, kept), "kept");
        assert_true(used(a) >= now);
        memkit_arena *fresh = memkit_arena_new(NULL);
        fail_malloc(1, from_then_on);
        if (from_then_on)
            assert_errno(memkit_arena_alloc(fresh, 10), NULL, ENOMEM);
        else /* no room for a whole chunk: one of the request's size is tried */
            assert_non_null(memkit_arena_alloc(fresh, 10));
        fail_malloc(0, false);
        assert_non_null(memkit_arena_alloc(fresh, 10));
        memkit_arena_free(fresh);
        memkit_arena_free(a);
    }
    assert_int_equal(blocks_out, before);
}

static void bad_arguments_are_einval(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    assert_errno(memkit_arena_alloc(NULL, 1), NULL, EINVAL);
    assert_errno(memkit_arena_alloc_aligned(NULL, 1, 8), NULL, EINVAL);
    assert_errno(memkit_arena_calloc(NULL, 1, 1), NULL, EINVAL);
    assert_errno(memkit_arena_realloc(NULL, NULL, 0, 1), NULL, EINVAL);
    assert_errno(memkit_arena_strdup(NULL, "x"), NULL, EINVAL);
    assert_errno(memkit_arena_strdup(a, NULL), NULL, EINVAL);
    assert_errno(memkit_arena_strndup(a, NULL, 1), NULL, EINVAL);
    assert_errno(memkit_arena_memdup(a, NULL, 1), NULL, EINVAL);
    assert_errno(memkit_arena_printf(NULL, "x"), NULL, EINVAL);
    assert_errno(memkit_arena_defer(NULL, nothing, NULL), -1, EINVAL);
    assert_errno(memkit_arena_defer(a, NULL, NULL), -1, EINVAL);
    assert_errno((memkit_arena_save(NULL).arena), NULL, EINVAL);
    assert_errno((memkit_arena_reset(NULL), 0), 0, EINVAL);
    assert_errno((memkit_arena_rewind(NULL, memkit_arena_save(a)), 0), 0, EINVAL);
    memkit_arena_stats_t s;
    assert_errno((memkit_arena_stats(NULL, &s), 0), 0, EINVAL);
    assert_errno((memkit_arena_stats(a, NULL), 0), 0, EINVAL);
    assert_errno(memkit_arena_new(&(memkit_arena_opts){.reserved = {0, 1}}), NULL, EINVAL);
    assert_errno(
        memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 9000, .max_chunk_bytes = 8000}),
        NULL, EINVAL);
    assert_errno(memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = SIZE_MAX}), NULL,
                 EINVAL);
    memkit_arena_free(NULL);
    memkit_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_gives_is_aligned_and_apart),
        cmocka_unit_test(no_bytes_have_an_address_from_the_start),
        cmocka_unit_test(a_new_arena_allocates_its_control_block_only),
        cmocka_unit_test(chunks_double_up_to_the_stated_size),
        cmocka_unit_test(a_request_over_a_quarter_of_the_next_chunk_has_one_of_its_own),
        cmocka_unit_test(a_big_request_wastes_no_chunk),
        cmocka_unit_test(reset_keeps_what_the_next_request_needs),
        cmocka_unit_test(callers_memory_comes_first),
        cmocka_unit_test(realloc_is_in_place_for_the_last),
        cmocka_unit_test(a_growing_big_block_leaves_no_hole),
        cmocka_unit_test(a_growing_big_block_has_the_room_that_was_only_kept),
        cmocka_unit_test(any_alignment_is_kept_up_to_a_gibibyte),
        cmocka_unit_test(an_alignment_that_cannot_be_loses_nothing),
        cmocka_unit_test(calloc_clears_what_was_used_before),
        cmocka_unit_test(strings_are_copied_and_printed),
        cmocka_unit_test(the_limit_is_enomem_and_loses_nothing),
        cmocka_unit_test(running_out_of_memory_loses_nothing),
        cmocka_unit_test(bad_arguments_are_einval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
