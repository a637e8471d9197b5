/* test_prof_text.c - the profile for people: its figures, its columns, its stacks. */
#include "support.h"
#include "support_profile.h"

static memkit__scratch scratch;

static int tear_down(void **state)
{
    (void)state;
    memkit__scratch_free(&scratch);
    return 0;
}

static memkit_buf *written(const memkit__profile *p, uint32_t type)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_non_null(b);
    assert_int_equal(memkit__text_write(p, type, b), 0);
    return b;
}

#define assert_says(b, part) assert_non_null(strstr((b)->data, part))

static void the_head_says_what_it_is(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    const char head[] = "memkit profile for people, in a format of its own: inuse_space, bytes\n\n"
                        "taken    2025-11-24 16:00:00 UTC\n"
                        "over     12.5 s\n"
                        "rate     one sample in 512 KiB\n"
                        "total    1.07 MiB +- 1000 B (1,122,508 bytes), 5 stacks\n"
                        "note     dropped: 0\n"
                        "note     own memory: 1.2 MiB\n";
    assert_memory_equal(b->data, head, strlen(head));
    memkit_buf_free(b);
}

static void every_allocation_is_said_to_be_exact(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->period = 1;
    p->samples[1].variance = NULL;
    memkit_buf *b = written(p, MEMKIT__INUSE_OBJECTS);
    assert_says(b, "rate     every allocation\n");
    assert_says(b, "total    15 (15 count, exact), 5 stacks\n");
    for (const char *at = b->data; (at = strstr(at, "+- ")) != NULL; at++)
        assert_int_equal(at[3], ' '); /* the column alone */
    memkit_buf_free(b);
}

static void rows_come_largest_first_with_all_their_figures(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    const char *table = strstr(b->data, "   # ");
    assert_non_null(table);
    const char want[] =
        "   #    value       +-     %  cum% objects     mean temp% other median  function < "
        "callers\n"
        "   1 1.00 MiB   1000 B  93.4  93.4       2  512 KiB   5.6   5.6    <1s  "
        "std::vector<char, std::al...\n"
        "   2 64.0 KiB    exact   5.8  99.3       4 16.0 KiB   8.3   2.8    <1s  [memkit held]\n"
        "   3 7.91 KiB    exact   0.7 100.0       6 1.32 KiB   7.4   3.7    <1s  read_all < main\n"
        "   4    300 B    exact   0.0 100.0       3    100 B   7.4   3.7    <1s  "
        "odd;name?of ?? < read_all...\n"
        "   5      0 B    exact   0.0 100.0       0        -   8.3   1.7    <1s  "
        "0xdeadbeef < read_all < main\n";
    if (strncmp(table, want, strlen(want)) != 0)
        fail_msg("%.800s", table);
    memkit_buf_free(b);
}

static void errors_of_many_samples_add_up_as_variances(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    double nine[MEMKIT__HEAP_TYPE_COUNT] = {0}, sixteen[MEMKIT__HEAP_TYPE_COUNT] = {0};
    nine[MEMKIT__INUSE_OBJECTS] = 9;
    sixteen[MEMKIT__INUSE_OBJECTS] = 16;
    p->samples[0].variance = nine; /* both are main, read_all */
    p->samples[4].variance = sixteen;
    memkit_buf *b = written(p, MEMKIT__INUSE_OBJECTS);
    assert_says(b, "\n   1        6        5  40.0  40.0 ");
    memkit_buf_free(b);
}

static void the_median_is_the_bucket_in_which_half_had_died(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    static const struct {
        int64_t under_1us, under_1ms, longer;
        const char *median;
    } cases[] = {{5, 5, 0, " <1us  "},
                 {4, 5, 1, " <1ms  "},
                 {1, 1, 3, ">=100s  "},
                 {0, 0, 0, "     -  "},
                 {0, 0, 1, ">=100s  "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v[MEMKIT__HEAP_TYPE_COUNT] = {0};
        v[MEMKIT__ALLOC_SPACE] = INT64_C(1) << 40;
        v[MEMKIT__LIFE_1US] = cases[i].under_1us;
        v[MEMKIT__LIFE_1MS] = cases[i].under_1ms;
        v[MEMKIT__LIFE_LONGER] = cases[i].longer;
        p->samples[3].values = v;
        memkit_buf *b = written(p, MEMKIT__ALLOC_SPACE);
        const char *row = strstr(b->data, "\n   1 ");
        assert_non_null(row);
        const char *name = strstr(row, "[memkit held]\n");
        assert_non_null(name);
        assert_memory_equal(name - strlen(cases[i].median), cases[i].median,
                            strlen(cases[i].median));
        memkit_buf_free(b);
    }
}

static void the_stacks_follow_in_full(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    assert_says(b, "\n#3\n"
                   "  alloc_objects                            60\n"
                   "  alloc_space                          18,192 17.8 KiB\n"
                   "  inuse_objects                             6\n"
                   "  inuse_space                           8,096 7.91 KiB\n"
                   "  frees                                    54\n"
                   "  temporary_frees                           4\n"
                   "  foreign_frees                             2\n"
                   "  lived <10us                               4 ###\n"
                   "  lived <1s                                50 "
                   "########################################\n"
                   "    read_all  (server)\n"
                   "    main  (server)\n"
                   "\n#4\n");
    assert_says(b, "    main  (server)\n    worker 1  ([thread])\n");
    memkit_buf_free(b);
}

static void no_row_is_wider_than_a_hundred_columns(void **state)
{
    (void)state;
    const unsigned wanted = SANITIZED ? 400 : 1900;
    memkit__profile *p = service_profile(&scratch, wanted, 1);
    for (uint32_t type = 0; type < 6; type++) {
        memkit_buf *b = written(p, type);
        unsigned rows = 0, full = 0;
        const char *end = strstr(b->data, "\n#1\n");
        assert_non_null(end);
        for (const char *at = strstr(b->data, "   # "); at < end; rows++) {
            size_t n = strcspn(at, "\n");
            assert_true(n <= 100);
            full += n == 100;
            at += n + 1;
        }
        unsigned stacks = 0;
        for (const char *at = b->data; (at = strstr(at, "\n#")) != NULL; at++)
            stacks++;
        assert_true(stacks >
                    wanted * 97 / 100); /* fewer than samples: calls on two lines of one function */
        assert_int_equal(rows, 1 + stacks);
        assert_true(full > wanted / 4); /* the room there is is used */
        memkit_buf_free(b);
    }
}

static void the_shares_come_to_a_hundred(void **state)
{
    (void)state;
    memkit_buf *b = written(service_profile(&scratch, 500, 1), MEMKIT__ALLOC_SPACE);
    char *last = strstr(b->data, "\n 500 ");
    assert_non_null(last);
    assert_memory_equal(last + 1 + 4 + 1 + 8 + 1 + 8 + 1 + 5 + 1, "100.0", 5);
    memkit_buf_free(b);
}

static void a_cpu_profile_has_no_columns_of_lifetimes(void **state)
{
    (void)state;
    memkit_buf *b = written(cpu_profile(&scratch), 1);
    assert_says(b, "rate     one sample in 10.0 ms of cpu\n");
    assert_says(b, "   #    value       +-     %  cum% samples  function < callers\n"
                   "   1  60.0 ms    exact  28.6  28.6       6  read_all < main\n"
                   "   2  60.0 ms    exact  28.6  57.1       6  0xdeadbeef < read_all < main\n");
    memkit_buf_free(b);
}

static void nothing_is_said_too(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->n_samples = 0;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_says(b, "total    0 B (0 bytes, exact), 0 stacks\n");
    memkit_buf_free(b);
}

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = memkit_buf_new(0);
    assert_errno(memkit__text_write(p, p->n_types, b), -1, EINVAL);
    assert_errno(memkit__text_write(p, 0, NULL), -1, EINVAL);
    assert_int_equal(memkit_buf_append_str(b, "before"), 0);
    assert_int_equal(memkit_buf_limit(b, 500), 0);
    assert_errno(memkit__text_write(p, 0, b), -1, EMSGSIZE);
    assert_string_equal(b->data, "before");
    memkit_buf_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_head_says_what_it_is, tear_down),
        cmocka_unit_test_teardown(every_allocation_is_said_to_be_exact, tear_down),
        cmocka_unit_test_teardown(rows_come_largest_first_with_all_their_figures, tear_down),
        cmocka_unit_test_teardown(errors_of_many_samples_add_up_as_variances, tear_down),
        cmocka_unit_test_teardown(the_median_is_the_bucket_in_which_half_had_died, tear_down),
        cmocka_unit_test_teardown(the_stacks_follow_in_full, tear_down),
        cmocka_unit_test_teardown(no_row_is_wider_than_a_hundred_columns, tear_down),
        cmocka_unit_test_teardown(the_shares_come_to_a_hundred, tear_down),
        cmocka_unit_test_teardown(a_cpu_profile_has_no_columns_of_lifetimes, tear_down),
        cmocka_unit_test_teardown(nothing_is_said_too, tear_down),
        cmocka_unit_test_teardown(what_is_not_there_is_refused, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
