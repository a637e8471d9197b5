/* test_prof_folded.c - folded stacks: lines that flamegraph.pl reads. */
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
    assert_int_equal(memkit__folded_write(p, type, b), 0);
    return b;
}

/* Dropped, merged, made harmless, sorted, the thread first: all that is to be seen in one. */
static void a_line_a_stack(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    assert_string_equal(b->data,
                        "[memkit held] 65536\n"
                        "main;read_all 8096\n"
                        "main;read_all;odd:name of ?  300\n"
                        "worker 1;main;server+0x2999;std::vector<char, std::allocator<char> "
                        ">::push_back(char&&) \"x\" 1048576\n");
    memkit_buf_free(b);
}

static void a_row_of_nothing_is_left_out(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    assert_null(strstr(b->data, "0xdeadbeef"));
    memkit_buf_free(b);
    b = written(small_profile(&scratch), MEMKIT__ALLOC_SPACE);
    assert_non_null(strstr(b->data, "main;read_all;0xdeadbeef 1000\n"));
    memkit_buf_free(b);
}

static void what_is_not_dropped_by_name_stays(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->drop_frames = NULL;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, "main;read_all;malloc 8096\n"));
    memkit_buf_free(b);
}

/* As pprof: frames are dropped only towards the leaf of one that is not. */
static void a_stack_of_nothing_but_dropped_frames_stays(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->drop_frames = "main|malloc|read_all";
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, "main;read_all;malloc 8096\n"));
    assert_non_null(strstr(b->data, "main;read_all;odd:name of ?  300\n"));
    assert_non_null(strstr(b->data, "worker 1;main;server+0x2999;std"));
    memkit_buf_free(b);
}

static void what_is_dropped_takes_all_towards_the_leaf_along(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->drop_frames = "read_all";
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, "\nmain 8396\n"));
    assert_null(strstr(b->data, "malloc"));
    assert_null(strstr(b->data, "odd"));
    memkit_buf_free(b);
}

static void the_sum_of_the_lines_is_the_profile_s(void **state)
{
    (void)state;
    memkit__profile *p = service_profile(&scratch, 1900, 3);
    for (uint32_t type = 0; type < p->n_types; type++) {
        memkit_buf *b = written(p, type);
        int64_t sum = 0;
        const char *before = NULL;
        for (char *line = b->data, *end; *line != '\0'; line = end + 1) {
            end = strchr(line, '\n');
            assert_non_null(end);
            *end = '\0';
            const char *value = strrchr(line, ' ');
            assert_non_null(value);
            sum += atoll(value + 1);
            assert_true(before == NULL || strcmp(before, line) != 0);
            before = line;
        }
        assert_true(sum == profile_total(p, type));
        memkit_buf_free(b);
    }
}

static void a_sum_beyond_what_a_value_holds_stays_at_the_most(void **state)
{
    (void)state;
    memkit__profile *p = cpu_profile(&scratch);
    static const int64_t most[] = {1, INT64_MAX};
    p->samples[0].values = p->samples[4].values = most;
    memkit_buf *b = written(p, 1);
    assert_non_null(strstr(b->data, "main;read_all 9223372036854775807\n"));
    memkit_buf_free(b);
}

static void an_empty_profile_is_no_line(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->n_samples = 0;
    memkit_buf *b = written(p, 0);
    assert_int_equal(b->len, 0);
    memkit_buf_free(b);
}

static void a_sample_without_a_stack_says_so(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    p->samples[0].depth = 0;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, "[no stack] 4096\n"));
    memkit_buf_free(b);
}

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = memkit_buf_new(0);
    assert_errno(memkit__folded_write(p, p->n_types, b), -1, EINVAL);
    assert_errno(memkit__folded_write(p, 0, NULL), -1, EINVAL);
    p->samples[1].locations = NULL;
    assert_errno(memkit__folded_write(p, 0, b), -1, EINVAL);
    assert_int_equal(b->len, 0);
    memkit_buf_free(b);
}

static void a_limited_buffer_stays_as_it_was(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_append_str(b, "before"), 0);
    assert_int_equal(memkit_buf_limit(b, 60), 0);
    assert_errno(memkit__folded_write(small_profile(&scratch), 0, b), -1, EMSGSIZE);
    assert_string_equal(b->data, "before");
    memkit_buf_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_line_a_stack, tear_down),
        cmocka_unit_test_teardown(a_row_of_nothing_is_left_out, tear_down),
        cmocka_unit_test_teardown(what_is_not_dropped_by_name_stays, tear_down),
        cmocka_unit_test_teardown(a_stack_of_nothing_but_dropped_frames_stays, tear_down),
        cmocka_unit_test_teardown(what_is_dropped_takes_all_towards_the_leaf_along, tear_down),
        cmocka_unit_test_teardown(the_sum_of_the_lines_is_the_profile_s, tear_down),
        cmocka_unit_test_teardown(a_sum_beyond_what_a_value_holds_stays_at_the_most, tear_down),
        cmocka_unit_test_teardown(an_empty_profile_is_no_line, tear_down),
        cmocka_unit_test_teardown(a_sample_without_a_stack_says_so, tear_down),
        cmocka_unit_test_teardown(what_is_not_there_is_refused, tear_down),
        cmocka_unit_test_teardown(a_limited_buffer_stays_as_it_was, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
