/* test_compare_chart.c - a curve as SVG: where points lie, and what the axes say. */
#define _GNU_SOURCE

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../examples/service/compare_chart.h"

/* The chart of that one line; free it. */
static char *drawn(const chart_point *p, size_t n, bool log_y)
{
    chart c = {.title = "T", .x_label = "x", .y_label = "y", .lines = 1, .log_y = log_y};
    c.line[0] = (chart_line){.name = "n", .css = "before", .p = p, .n = n};
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    assert_true(chart_has_points(&c));
    chart_svg(f, &c, "one");
    assert_int_equal(fclose(f), 0);
    return text;
}

static void a_point_lies_where_its_value_is(void **state)
{
    (void)state;
    const chart_point p[] = {{0, 0}, {5, 50}, {10, 100}};
    char *text = drawn(p, 3, false);
    assert_non_null(strstr(text, " d=\"M54.0 176.0L188.0 100.0L322.0 24.0\""));
    assert_non_null(strstr(text, "n: first 0.00, last 100.00, at most 100.00."));
    free(text);
    const chart_point q[] = {{0, 1}, {5, 100}, {10, 10000}};
    text = drawn(q, 3, true);
    assert_non_null(strstr(text, " d=\"M54.0 176.0L188.0 100.0L322.0 24.0\""));
    free(text);
}

static void what_has_no_value_is_a_gap(void **state)
{
    (void)state;
    const chart_point p[] = {{0, 10}, {5, NAN}, {10, 20}, {10, INFINITY}, {10, -1}};
    char *text = drawn(p, 5, false);
    assert_non_null(strstr(text, " d=\"M54.0 100.0M322.0 24.0\""));
    free(text);
    const chart_point zero[] = {{0, 10}, {5, 0}, {10, 20}}; /* which a log scale has no place for */
    text = drawn(zero, 3, true);
    assert_non_null(strstr(text, " d=\"M54.0 176.0M322.0 24.0\""));
    free(text);
    const chart_point last[] = {{0, 0}, {5, 100}, {10, NAN}}; /* the axis goes on to it */
    text = drawn(last, 3, false);
    assert_non_null(strstr(text, " d=\"M54.0 176.0L188.0 24.0\""));
    free(text);
    chart none = {.lines = 1, .log_y = true, .line = {{.p = zero + 1, .n = 1}}};
    assert_false(chart_has_points(&none));
}

static void a_point_without_neighbours_is_marked(void **state)
{
    (void)state;
    chart_point p[40];
    for (size_t i = 0; i < 40; i++)
        p[i] = (chart_point){(double)i, i == 20 || i == 22 ? NAN : 5};
    char *text = drawn(p, 40, false);
    char *mark = strstr(text, "<circle");
    assert_non_null(mark); /* the one between the gaps; a line of 40 has no other */
    assert_null(strstr(mark + 1, "<circle"));
    free(text);
}

static void ticks_are_round(void **state)
{
    (void)state;
    static const struct {
        double max, step;
        size_t n;
    } want[] = {{100, 20, 6}, {99, 20, 6}, {101, 50, 4},   {0.7, 0.2, 5},
                {5, 1, 6},    {31, 10, 5}, {1e12, 2e11, 6}};
    double tick[CHART_TICKS_MAX];
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        size_t n = chart_ticks(want[i].max, 5, tick);
        if (n != want[i].n || fabs(tick[1] - want[i].step) > 1e-9 * want[i].step)
            fail_msg("%g: %zu ticks, each %g", want[i].max, n, tick[1]);
        assert_true(tick[n - 1] >= want[i].max * (1 - 1e-9));
    }
    assert_true(chart_ticks(0, 5, tick) >= 2); /* an axis has a length */
}

/* The texts of the ticks of the chart's y axis, from below. */
static void log_ticks_are(double low, double high, const char *want)
{
    const chart_point p[] = {{0, low}, {1, high}};
    char got[400] = "", *text = drawn(p, 2, true);
    for (const char *at = text; (at = strstr(at, "class=\"tick y\"")) != NULL;) {
        at = strchr(at, '>') + 1;
        snprintf(got + strlen(got), sizeof got - strlen(got), "%.*s ", (int)strcspn(at, "<"), at);
    }
    free(text);
    assert_string_equal(got, want);
}

static void a_log_scale_has_round_ticks_whatever_it_spans(void **state)
{
    (void)state;
    log_ticks_are(10.3, 15, "10 12 14 16 18 20 ");
    log_ticks_are(10, 10, "10 12 14 16 18 20 ");
    log_ticks_are(11, 180, "10 20 50 100 200 ");
    log_ticks_are(0.03, 2500, "0.01 0.1 1 10 100 1,000 10,000 ");
    log_ticks_are(0.4, 0.41, "0.20 0.25 0.30 0.35 0.40 0.45 0.50 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_point_lies_where_its_value_is),
        cmocka_unit_test(what_has_no_value_is_a_gap),
        cmocka_unit_test(a_point_without_neighbours_is_marked),
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(a_log_scale_has_round_ticks_whatever_it_spans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
