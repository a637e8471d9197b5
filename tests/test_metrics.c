/* test_metrics.c - Prometheus text of the process and of every pool, cache and named arena. */
#include <regex.h>

#include "support.h"

static memkit_buf *text;

static int fresh(void **state)
{
    (void)state;
    text = memkit_buf_new(0);
    return 0;
}

static int drop(void **state)
{
    (void)state;
    memkit_buf_free(text);
    return 0;
}

static const char *written(void)
{
    memkit_buf_reset(text);
    assert_int_equal(memkit_metrics_write(text), 0);
    return text->data;
}

static void every_line_is_of_the_text_format(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "p"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "c", .max_entries = 10});
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "a"});
    regex_t line;
    assert_int_equal(
        regcomp(&line,
                "^(# HELP memkit_[a-z_]+ [A-Z].*|# TYPE memkit_[a-z_]+ (gauge|counter)|"
                "memkit_[a-z_]+(\\{(pool|cache|arena)=\"[^\"]*\",id=\"[0-9]+\"\\})? [0-9]+)$",
                REG_EXTENDED | REG_NOSUB),
        0);
    char *copy = strdup(written());
    int lines = 0;
    for (char *next = copy, *end; (end = strchr(next, '\n')) != NULL; next = end + 1, lines++) {
        *end = '\0';
        if (regexec(&line, next, 0, NULL, 0) != 0)
            fail_msg("not in the format: %s", next);
    }
    assert_true(lines > 60);
    assert_int_equal(text->data[text->len - 1], '\n');
    free(copy);
    regfree(&line);
    memkit_arena_free(a);
    memkit_lru_free(c);
    memkit_pool_free(p);
}

static void a_family_is_announced_once_and_its_samples_stand_together(void **state)
{
    (void)state;
    memkit_pool *p[3];
    for (int i = 0; i < 3; i++)
        p[i] = memkit_pool_new(&(memkit_pool_opts){.name = "same"});
    written();
    const char *type = strstr(text->data, "# TYPE memkit_pool_gets_total counter\n");
    assert_non_null(type);
    assert_null(strstr(type + 1, "# TYPE memkit_pool_gets_total"));
    const char *next = strchr(type, '\n') + 1;
    char *series[3];
    for (int i = 0; i < 3; i++) {
        const char *end = strchr(next, ' ');
        series[i] = strndup(next, (size_t)(end - next));
        assert_memory_equal(next, "memkit_pool_gets_total{pool=\"same\",id=\"", 39);
        next = strchr(next, '\n') + 1;
    }
    assert_string_not_equal(series[0], series[1]); /* two equal series would void the scrape */
    assert_string_not_equal(series[1], series[2]);
    for (int i = 0; i < 3; i++) {
        free(series[i]);
        memkit_pool_free(p[i]);
    }
}

static void values_are_the_objects_own(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "values"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "values", .max_entries = 77});
    for (int i = 0; i < 5; i++)
        memkit_pool_put(p, memkit_pool_get(p, 100));
    memkit_lru_set(c, "k", 1, "v", 1);
    assert_int_equal(memkit_lru_get_into(c, "k", 1, NULL, 0, NULL), 1);
    assert_int_equal(memkit_lru_get_into(c, "x", 1, NULL, 0, NULL), 0);
    written();
    const char *expected[] = {"memkit_pool_gets_total{pool=\"values\",id=\"",
                              "memkit_lru_entries{cache=\"values\",id=\""};
    for (size_t i = 0; i < 2; i++)
        assert_non_null(strstr(text->data, expected[i]));
    assert_int_equal(strtoul(strchr(strstr(text->data, expected[0]), ' '), NULL, 10), 5);
    assert_int_equal(strtoul(strchr(strstr(text->data, expected[1]), ' '), NULL, 10), 1);
    assert_int_equal(
        strtoul(strchr(strstr(text->data, "memkit_lru_max_entries{cache"), ' '), NULL, 10), 77);
    assert_non_null(strstr(text->data, "memkit_lru_hits_total{cache=\"values\""));
    assert_true(strtoul(strstr(text->data, "\nmemkit_process_resident_bytes ") + 31, NULL, 10) >
                100000);
    memkit_lru_free(c);
    memkit_pool_free(p);
    assert_null(strstr(written(), "\"values\"")); /* a freed object is gone from the metrics */
}

static void labels_are_escaped(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "a\"b\\c\nd"});
    assert_non_null(strstr(written(), "{pool=\"a\\\"b\\\\c\\nd\",id="));
    memkit_pool_free(p);
}

static void what_is_no_utf_8_does_not_void_the_scrape(void **state)
{
    (void)state;
    const char *const names[][2] = {{"caf\xc3\xa9", "caf\xc3\xa9"},
                                    {"a\xc3", "a?"},
                                    {"\xc0\xaf", "??"},
                                    {"\xed\xa0\x80x", "???x"},
                                    {"\xf0\x9f\x90\x9f", "\xf0\x9f\x90\x9f"},
                                    {"\xf5\x80\x80\x80", "????"},
                                    {"\x80z", "?z"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = names[i][0]});
        char expected[64];
        snprintf(expected, sizeof expected, "gets_total{pool=\"%s\",", names[i][1]);
        assert_non_null(strstr(written(), expected));
        memkit_pool_free(p);
    }
}

static void an_unlocked_cache_is_not_shown(void **state)
{
    (void)state;
    memkit_lru *c = memkit_lru_new(
        &(memkit_lru_opts){.name = "mine", .max_entries = 9, .shards = MEMKIT_LRU_UNLOCKED});
    assert_null(strstr(written(), "\"mine\"")); /* its figures are its thread's alone */
    memkit_lru_free(c);
}

static void only_named_arenas_are_shown_as_of_their_last_chunk(void **state)
{
    (void)state;
    memkit_arena *unnamed = memkit_arena_new(NULL);
    assert_non_null(memkit_arena_alloc(unnamed, 100));
    assert_null(strstr(written(), "memkit_arena"));
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "req"});
    assert_non_null(memkit_arena_alloc(a, 100000));
    written();
    const char *row = strstr(text->data, "memkit_arena_held_bytes{arena=\"req\"");
    assert_non_null(row);
    assert_true(strtoul(strchr(row, ' '), NULL, 10) >= 100000);
    memkit_arena_free(a);
    memkit_arena_free(unnamed);
    assert_null(strstr(written(), "memkit_arena"));
}

static void counters_are_left_out_where_malloc_is_not_hooked(void **state)
{
    (void)state;
    assert_non_null(strstr(written(), "\nmemkit_malloc_hooked 0\n"));
    assert_null(strstr(text->data, "memkit_mallocs_total"));
}

static void it_appends_and_changes_nothing_on_an_error(void **state)
{
    (void)state;
    assert_errno(memkit_metrics_write(NULL), -1, EINVAL);
    memkit_buf_append_str(text, "mine\n");
    for (unsigned nth = 1; nth <= 4; nth++) {
        fail_malloc(nth, true);
        int result = memkit_metrics_write(text);
        int reason = errno;
        unsigned failed = mallocs_failed;
        fail_malloc(0, false);
        if (failed == 0) {
            assert_int_equal(result, 0);
            break;
        }
        assert_int_equal(result, -1);
        assert_int_equal(reason, ENOMEM);
        assert_string_equal(text->data, "mine\n");
    }
    memkit_buf_reset(text);
    assert_int_equal(memkit_buf_limit(text, 10), 0);
    memkit_buf_append_str(text, "mine\n");
    assert_errno(memkit_metrics_write(text), -1, EMSGSIZE);
    assert_string_equal(text->data, "mine\n");
    memkit_buf_limit(text, 0);
    assert_int_equal(memkit_metrics_write(text), 0);
    assert_memory_equal(text->data, "mine\n# HELP", 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_line_is_of_the_text_format, fresh, drop),
        cmocka_unit_test_setup_teardown(a_family_is_announced_once_and_its_samples_stand_together,
                                        fresh, drop),
        cmocka_unit_test_setup_teardown(values_are_the_objects_own, fresh, drop),
        cmocka_unit_test_setup_teardown(labels_are_escaped, fresh, drop),
        cmocka_unit_test_setup_teardown(what_is_no_utf_8_does_not_void_the_scrape, fresh, drop),
        cmocka_unit_test_setup_teardown(an_unlocked_cache_is_not_shown, fresh, drop),
        cmocka_unit_test_setup_teardown(only_named_arenas_are_shown_as_of_their_last_chunk, fresh,
                                        drop),
        cmocka_unit_test_setup_teardown(counters_are_left_out_where_malloc_is_not_hooked, fresh,
                                        drop),
        cmocka_unit_test_setup_teardown(it_appends_and_changes_nothing_on_an_error, fresh, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
