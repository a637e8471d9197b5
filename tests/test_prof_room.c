/* test_prof_room.c - the bound of the profiler's own memory, shared by the table of blocks and the
 * stacks: that the one cannot starve the other. Addresses are made up: nothing is read through
 * them.
 */
#include "support.h"

#include <errno.h>

#include "prof/blocks.h"
#include "prof/mem.h"
#include "prof/site.h"

#define BOUND ((size_t)8 << 20)

static memkit__site *stack(uint64_t number)
{
    uint64_t frames[20];
    for (unsigned i = 0; i < 20; i++)
        frames[i] = 0x400000 + number * 64 + i;
    return memkit__site_find(&memkit__heap_sites, frames, 20, false, 0);
}

static bool put(memkit__site *site, uintptr_t number)
{
    memkit__record r = {.site = site, .bytes = 100, .weight = 1};
    return memkit__blocks_put((const void *)(0x10000000 + number * 16), &r);
}

/* As a CPU profile alone has it: nobody has set a bound. */
static void before_any_start_the_bound_is_the_default(void **state)
{
    (void)state;
    const size_t piece = (size_t)1 << 20, kept = memkit__kept_bytes();
    void *pieces[65];
    unsigned n = 0;
    while (n < 65 && (pieces[n] = memkit__kept_map(piece)) != NULL)
        n++;
    const size_t most = memkit__kept_bytes();
    const int error = errno;
    for (unsigned i = 0; i < n; i++)
        memkit__kept_unmap(pieces[i], piece);
    assert_true(n < 65);
    assert_int_equal(error, ENOMEM);
    assert_true(most <= (size_t)64 << 20 && most > (size_t)62 << 20);
    assert_int_equal(memkit__kept_bytes(), kept);
}

static void a_full_table_takes_no_more_memory(void **state)
{
    (void)state;
    uintptr_t n = 0;
    memkit__kept_limit(BOUND);
    assert_true(memkit__blocks_prepare(true));
    memkit__site *site = stack(0);
    assert_non_null(site);
    while (put(site, n))
        n++;
    assert_true(n > 50000);
    size_t kept = memkit__kept_bytes();
    assert_true(kept <= BOUND);
    unsigned refused = 0;
    for (uintptr_t i = 1; i <= 100000; i++)
        refused += !put(site, n + i);
    print_message("%zu blocks, then %u of 100,000 refused\n", (size_t)n, refused);
    assert_true(refused > 10000);
    assert_int_equal(memkit__kept_bytes(), kept);
}

static void new_stacks_have_room_beside_a_full_table(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 1000; i++)
        assert_non_null(stack(i));
    assert_true(memkit__kept_bytes() <= BOUND);
}

/* As a start with a higher bound does. */
static void a_higher_bound_lets_the_table_grow_again(void **state)
{
    (void)state;
    memkit__site *site = stack(0);
    memkit__kept_limit(4 * BOUND);
    assert_true(memkit__blocks_prepare(true));
    for (uintptr_t i = 0; i < 50000; i++)
        assert_true(put(site, 10000000 + i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_any_start_the_bound_is_the_default),
        cmocka_unit_test(a_full_table_takes_no_more_memory),
        cmocka_unit_test(new_stacks_have_room_beside_a_full_table),
        cmocka_unit_test(a_higher_bound_lets_the_table_grow_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
