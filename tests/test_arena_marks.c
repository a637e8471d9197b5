/* test_arena_marks.c - going back: marks, rewinds, and what is deferred until then. */
#include "test_arena.h"

static char order[16];

static void note(void *arg)
{
    size_t n = strlen(order);
    order[n] = *(char *)arg;
    order[n + 1] = '\0';
}

static void defers_run_last_first_and_once(void **state)
{
    (void)state;
    char a1[] = "a", b1[] = "b", c1[] = "c";
    memkit_arena *a = memkit_arena_new(NULL);
    order[0] = '\0';
    assert_int_equal(memkit_arena_defer(a, note, a1), 0);
    memkit_arena_mark m = memkit_arena_save(a);
    memkit_arena_defer(a, note, b1);
    memkit_arena_defer(a, note, c1);
    memkit_arena_rewind(a, m);
    assert_string_equal(order, "cb");
    memkit_arena_reset(a);
    assert_string_equal(order, "cba");
    memkit_arena_defer(a, note, b1);
    memkit_arena_free(a);
    assert_string_equal(order, "cbab");
}

typedef struct {
    memkit_arena *arena;
    char *data;
} deferred;

static void look_and_defer_more(void *arg)
{
    deferred *d = arg;
    assert_string_equal(d->data, "alive"); /* what came before the defer is still there */
    static char z[] = "z";
    assert_int_equal(memkit_arena_defer(d->arena, note, z), 0);
}

static void a_defer_may_use_the_arena(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    order[0] = '\0';
    deferred *d = memkit_arena_alloc(a, sizeof *d);
    *d = (deferred){a, memkit_arena_strdup(a, "alive")};
    memkit_arena_defer(a, look_and_defer_more, d);
    memkit_arena_reset(a);
    assert_string_equal(order, "z");
    check(a, NULL);
    memkit_arena_free(a);
}

typedef struct {
    memkit_arena *arena;
    memkit_arena_mark mark;
    bool whole;
} further;

static void go_further_back(void *arg)
{
    further *f = arg;
    if (f->whole)
        memkit_arena_reset(f->arena);
    else
        memkit_arena_rewind(f->arena, f->mark);
}

static void a_defer_may_go_further_back_than_its_rewind(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        memkit_arena *a = memkit_arena_new(NULL);
        further f = {a, memkit_arena_save(a), whole};
        for (int i = 0; i < 200; i++)
            memkit_arena_alloc(a, 100);
        memkit_arena_mark inner = memkit_arena_save(a);
        memkit_arena_defer(a, go_further_back, &f);
        for (int i = 0; i < 200; i++)
            memkit_arena_alloc(a, 100);
        memkit_arena_rewind(a, inner);
        check(a, NULL);
        assert_int_equal(used(a), 0);
        memkit_arena_free(a);
    }
}

/* Then the outer rewind has nothing left to run: what is older than both marks stays. */
static void defers_older_than_both_marks_do_not_run(void **state)
{
    (void)state;
    char a1[] = "a", b1[] = "b";
    memkit_arena *a = memkit_arena_new(NULL);
    order[0] = '\0';
    memkit_arena_defer(a, note, a1);
    further f = {a, memkit_arena_save(a), false};
    memkit_arena_defer(a, note, b1);
    memkit_arena_mark inner = memkit_arena_save(a);
    memkit_arena_defer(a, go_further_back, &f);
    memkit_arena_rewind(a, inner);
    assert_string_equal(order, "b");
    memkit_arena_free(a);
    assert_string_equal(order, "ba");
}

static void rewind_takes_back_chunks_and_big_blocks(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.keep_bytes = 1});
    char *kept = memkit_arena_strdup(a, "kept");
    memkit_arena_alloc(a, 50000);
    uint64_t used_before = used(a), held_before = held(a);
    memkit_arena_mark m = memkit_arena_save(a);
    for (int again = 0; again < 3; again++) { /* one mark serves more than once */
        for (int i = 0; i < 1000; i++)
            check(a, memkit_arena_alloc(a, 100));
        memkit_arena_alloc(a, 200000);
        memkit_arena_rewind(a, m);
        check(a, NULL);
        assert_int_equal(used(a), used_before);
        assert_int_equal(held(a), held_before);
    }
    assert_string_equal(kept, "kept");
    memkit_arena_free(a);
}

static void marks_nest(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    memkit_arena_mark outer = memkit_arena_save(a);
    uint64_t at_outer = used(a);
    memkit_arena_alloc(a, 10000);
    memkit_arena_mark inner = memkit_arena_save(a);
    uint64_t at_inner = used(a);
    memkit_arena_alloc(a, 10000);
    memkit_arena_rewind(a, inner);
    assert_int_equal(used(a), at_inner);
    memkit_arena_rewind(a, outer);
    assert_int_equal(used(a), at_outer);
    memkit_arena_free(a);
}

static void a_mark_that_was_passed_is_a_fault(void **state)
{
    (void)state;
    catch_faults();
    memkit_arena *a = memkit_arena_new(NULL), *other = memkit_arena_new(NULL);
    memkit_arena_mark outer = memkit_arena_save(a);
    memkit_arena_alloc(a, 100);
    memkit_arena_mark inner = memkit_arena_save(a);
    memkit_arena_rewind(a, outer);
    memkit_arena_alloc(a, 1000);
    uint64_t now = used(a);
    assert_faults(memkit_arena_rewind(a, inner), "passed");
    assert_faults(memkit_arena_rewind(other, outer), "not of arena");
    assert_faults(memkit_arena_rewind(a, (memkit_arena_mark){0}), "not of arena");
    assert_int_equal(used(a), now);
    memkit_arena_reset(a);
    assert_faults(memkit_arena_rewind(a, outer), "passed");
    memkit_arena_free(a);
    memkit_arena_free(other);
    memkit_set_fault_handler(NULL);
}

static void what_is_older_than_a_mark_survives_its_rewind_whole(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(NULL);
    char *p = memkit_arena_alloc(a, 100);
    memkit_arena_mark m = memkit_arena_save(a);
    assert_ptr_equal(memkit_arena_realloc(a, p, 100, 10), p);
    memkit_arena_rewind(a, m); /* its place is still there: no fault (the default handler aborts) */
    char *grown = memkit_arena_realloc(a, p, 10, 200);
    assert_ptr_not_equal(grown, p); /* in place, a rewind would cut it */
    memkit_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defers_run_last_first_and_once),
        cmocka_unit_test(a_defer_may_use_the_arena),
        cmocka_unit_test(a_defer_may_go_further_back_than_its_rewind),
        cmocka_unit_test(defers_older_than_both_marks_do_not_run),
        cmocka_unit_test(rewind_takes_back_chunks_and_big_blocks),
        cmocka_unit_test(marks_nest),
        cmocka_unit_test(a_mark_that_was_passed_is_a_fault),
        cmocka_unit_test(what_is_older_than_a_mark_survives_its_rewind_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
