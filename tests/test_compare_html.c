/* test_compare_html.c - report.html of made-up comparisons: that it is well-formed and complete,
 * draws what report.json holds, and comes through runs that have nothing to draw.
 */
#define _GNU_SOURCE

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../examples/service/compare.h"
#include "../examples/service/compare_curves.h"
#include "../examples/service/compare_emit.h"

#define MIB 0x1p20

static cmp_report report;
static char *page;

/* n seconds of a load of 1,000 requests a second, with RSS and rates that differ by side. */
static void fill_run(cmp_run *run, const cmp_population *p, int side, size_t n)
{
    *run = (cmp_run){
        .side = side, .population = p, .rate = 1000, .counters = true, .ran = true, .samples = n};
    run->start = (cmp_counters){.ok = true, .hooked = true};
    run->proc_start = run->proc_end =
        (cmp_proc){.ok = true, .rss_bytes = 9 << 20, .peak_rss_bytes = 9 << 20};
    run->sample = calloc(n + 1, sizeof *run->sample);
    run->load.second = calloc(n + 1, sizeof *run->load.second);
    assert_true(run->sample != NULL && run->load.second != NULL);
    run->load.seconds = n;
    run->load.answered = run->load.due = n * 1000;
    run->load.rate_reached = 1000;
    load_hist_reset(&run->load.latency);
    for (uint64_t i = 0; i < n; i++) {
        run->sample[i] =
            (cmp_sample){.t_s = (double)i + 1,
                         .answered = (i + 1) * 1000,
                         .rss_bytes = (i + 1) << (side == CMP_BEFORE ? 22 : 20),
                         .c = {.ok = true,
                               .hooked = true,
                               .mallocs = (i + 1) * (side == CMP_BEFORE ? 10000 : 4000),
                               .total_alloc_bytes = (i + 1) * 3000000}};
        run->load.second[i] =
            (load_second){.t_s = (double)i + 1, .answered = 1000, .p99_ns = 12000000 + i};
        for (uint64_t k = 1; k <= 100; k++)
            load_hist_record(&run->load.latency, 10000000 + k * 20000);
    }
    run->end = n > 0 ? run->sample[n - 1].c : run->start;
}

static void fill(size_t seconds)
{
    memset(&report, 0, sizeof report);
    report.o = (cmp_opts){
        .seconds = 5, .rate = 1000, .ids = 10, .price_per_gib = 3, .program = {"b", "a"}};
    report.populations = 3;
    snprintf(report.machine.cpu, sizeof report.machine.cpu, "A CPU");
    for (size_t i = 0; i < 3; i++) {
        cmp_population *p = &report.population[i];
        snprintf(p->name, sizeof p->name, "Population %zu", i);
        for (int s = 0; s < CMP_SIDES; s++)
            fill_run(&report.run[i][s], p, s, seconds);
    }
    for (int s = 0; s < CMP_SIDES; s++) {
        fill_run(&report.saturation[s], &report.population[0], s, seconds);
        fill_run(&report.bare[s], &report.population[0], s, seconds);
        fill_run(&report.timing[s], &report.population[0], s, seconds);
        report.timing[s].timing = true;
    }
}

static int tear_down(void **state)
{
    (void)state;
    for (int s = 0; s < CMP_SIDES; s++) {
        for (size_t i = 0; i < 3; i++)
            cmp_run_free(&report.run[i][s]);
        cmp_run_free(&report.saturation[s]);
        cmp_run_free(&report.bare[s]);
        cmp_run_free(&report.timing[s]);
    }
    free(page);
    page = NULL;
    return 0;
}

static char *written(cmp_write_fn write_fn)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(write_fn(f, &report), 0);
    assert_int_equal(fclose(f), 0);
    return text;
}

static const char *html(void)
{
    free(page);
    page = written(cmp_write_html);
    return page;
}

static unsigned occurrences(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

/* ---- a small check of XML ---- */

/* Attributes up to the end of the tag: name="value", the value without markup. */
static const char *attributes(const char *p)
{
    while (isspace((unsigned char)*p)) {
        p += strspn(p, " \n");
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-:");
        if (n == 0)
            break;
        p += n;
        if (strncmp(p, "=\"", 2) != 0)
            fail_msg("an attribute without a value: %.60s", p);
        p += 2 + strcspn(p + 2, "\"<");
        if (*p++ != '"')
            fail_msg("an attribute is not closed: %.60s", p - 1);
    }
    return p;
}

static void well_formed(const char *text)
{
    static const char type[] = "<!DOCTYPE html>";
    const char *open[64];
    size_t depth = 0, tags = 0;
    assert_memory_equal(text, type, sizeof type - 1);
    for (const char *p = text + sizeof type - 1; *p != '\0';) {
        unsigned char c = (unsigned char)*p;
        if (c == '&' && strspn(p + 2, "0123456789") == strcspn(p + 2, ";") && p[1] == '#')
            p += strcspn(p, ";");
        else if (c == '&' || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            fail_msg("not text: %.60s", p);
        else if (c == '<') {
            bool end = p[1] == '/';
            const char *name = p + 1 + end;
            size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz123456");
            assert_true(n > 0 && depth < 64);
            p = attributes(name + n);
            bool empty = *p == '/';
            p += empty;
            if (*p != '>')
                fail_msg("a tag is not closed: %.60s", name);
            if (end && (depth == 0 || strncmp(open[--depth], name, n + 1) != 0))
                fail_msg("</%.*s> ends <%.20s>", (int)n, name, open[depth]);
            static char names[64][24];
            if (!end && !empty) {
                snprintf(names[depth], sizeof *names, "%.*s>", (int)n, name);
                open[depth] = names[depth];
                depth++;
            }
            tags++;
        }
        p++;
    }
    if (depth != 0)
        fail_msg("<%s is not ended", open[depth - 1]);
    assert_true(tags > 50);
}

/* What is drawn has numbers only: no "nan", "inf", "-inf", nothing of another locale. */
static void numbers_only(const char *text)
{
    static const char *const name[] = {" d=\"", " x=\"", " y=\"", " cx=\"", " cy=\""};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        for (const char *p = text; (p = strstr(p, name[i])) != NULL; p++) {
            const char *v = p + strlen(name[i]);
            if (strspn(v, "0123456789.-MLHv ") != strcspn(v, "\""))
                fail_msg("not a place: %.60s", p);
        }
    }
}

/* ---- the tests ---- */

static void the_page_holds_every_population_and_needs_nothing_else(void **state)
{
    (void)state;
    fill(5);
    html();
    well_formed(page);
    numbers_only(page);
    assert_int_equal(occurrences(page, "<svg class=\"chart\""), 3 * CURVE_COUNT);
    assert_int_equal(occurrences(page, "role=\"img\""), 3 * CURVE_COUNT);
    assert_int_equal(occurrences(page, "<details>"), 3 * CURVE_COUNT);
    for (int i = 0; i < 3; i++) {
        char heading[40];
        snprintf(heading, sizeof heading, "<h2>Population %d</h2>", i);
        assert_int_equal(occurrences(page, heading), 1);
    }
    static const char *const outside[] = {
        "http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<img"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_null(strstr(page, outside[i]));
    /* Each id once: the names of what is drawn refer to them. */
    assert_int_equal(occurrences(page, " id=\"rss-0-title\""), 1);
    assert_int_equal(occurrences(page, " id=\"rss-2-title\""), 1);
    assert_int_equal(occurrences(page, " id=\""), 2 * 3 * CURVE_COUNT);
}

/* Points of the line of that class in the chart of that id. */
static size_t points(const char *id, const char *css)
{
    char start[64];
    snprintf(start, sizeof start, "aria-labelledby=\"%s-title", id);
    const char *p = strstr(page, start);
    assert_non_null(p);
    const char *end = strstr(p, "</svg>");
    snprintf(start, sizeof start, "<path class=\"curve %s\" d=\"", css);
    p = strstr(p, start);
    if (p == NULL || p > end)
        return 0;
    size_t n = 0;
    for (p += strlen(start); *p != '"'; p++)
        n += *p == 'M' || *p == 'L';
    return n;
}

/* How often the key is in that array of the first population's run. */
static size_t in_json(const char *json, const char *side, const char *array, const char *key)
{
    char what[40];
    snprintf(what, sizeof what, "\"%s\": {", side);
    const char *p = strstr(strstr(json, "\"populations\": ["), what);
    assert_non_null(p);
    snprintf(what, sizeof what, "\"%s\": [", array);
    p = strstr(p, what);
    assert_non_null(p);
    char *part = strndup(p, (size_t)(strchr(p, ']') - p));
    assert_non_null(part);
    size_t n = occurrences(part, key);
    free(part);
    return n;
}

static void a_curve_has_the_points_that_the_json_has(void **state)
{
    static const struct {
        const char *id, *array, *key;
    } curves[] = {{"rss-0", "samples", "\"rss_bytes\": "},
                  {"allocations-0", "samples", "\"mallocs_total\": "},
                  {"allocated-0", "samples", "\"allocated_bytes_total\": "},
                  {"rate-0", "seconds", "\"answered\": "},
                  {"p99-0", "seconds", "\"latency_p99_ms\": 12"}};
    for (size_t n = 1; n <= 40; n += 13) {
        fill(n);
        report.run[0][CMP_AFTER].samples = report.run[0][CMP_AFTER].load.seconds = n - 1;
        if (n > 3) {
            report.run[0][CMP_BEFORE].sample[2].c = (cmp_counters){0}; /* not scraped in time */
            report.run[0][CMP_BEFORE].load.second[3].answered = 0;
        }
        html();
        char *json = written(cmp_write_json);
        for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
            size_t gap = n > 3 && (i == 1 || i == 2 || i == 4);
            for (int s = 0; s < CMP_SIDES; s++) {
                size_t want = in_json(json, cmp_side_name[s], curves[i].array, curves[i].key);
                assert_int_equal(want, s == CMP_AFTER ? n - 1 : n - gap);
                assert_int_equal(points(curves[i].id, cmp_side_name[s]), want);
            }
        }
        assert_int_equal(points("latency-0", "before"), 5);
        free(json);
        tear_down(state);
    }
}

static void a_part_of_a_second_is_not_taken_for_a_whole_one(void **state)
{
    (void)state;
    fill(3);
    cmp_run *run = &report.run[0][CMP_BEFORE];
    chart_point p[8];
    run->sample[2].t_s = 2.25; /* 10,000 more of 12,000 in 1.25 s */
    run->sample[2].c.mallocs = 22000;
    run->load.second[2] = (load_second){.t_s = 2.25, .answered = 200, .p99_ns = 9};
    assert_int_equal(cmp_curve_points(run, CURVE_ALLOCATIONS, p), 3);
    assert_true(fabs(p[1].y - 10000) < 1e-6 && fabs(p[2].y - 12000 / 1.25) < 1e-6);
    assert_int_equal(cmp_curve_points(run, CURVE_RATE, p), 3);
    assert_true(fabs(p[0].y - 1000) < 1e-6 && fabs(p[2].y - 1200 / 1.25) < 1e-6);
    assert_int_equal(cmp_curve_points(run, CURVE_P99, p), 3);
    assert_true(p[1].y > 0 && isnan(p[2].y)); /* there is no p99 of it */
    run->scrape_cost.mallocs = 100;           /* each sample's own scrape is not the load's */
    for (size_t i = 0; i < 3; i++)
        run->sample[i].scrapes = i + 1;
    assert_int_equal(cmp_curve_points(run, CURVE_ALLOCATIONS, p), 3);
    assert_true(fabs(p[0].y - 9900) < 1e-6 && fabs(p[1].y - 9900) < 1e-6);
}

static void names_cannot_break_the_page(void **state)
{
    (void)state;
    fill(2);
    static const char bad[] = "<script>&amp; \"q\" 'a' \x01\xff\xc3";
    snprintf(report.population[0].name, sizeof report.population[0].name, "%s", bad);
    snprintf(report.machine.cpu, sizeof report.machine.cpu, "%s", bad);
    snprintf(report.machine.work_ms, sizeof report.machine.work_ms, "</li><b>");
    snprintf(report.run[1][CMP_AFTER].error, sizeof report.run[1][CMP_AFTER].error, "%s", bad);
    report.run[1][CMP_AFTER].ran = false;
    html();
    well_formed(page);
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "<b>"));
    assert_non_null(strstr(page, "&#60;script&#62;&#38;amp; &#34;q&#34; &#39;a&#39; ???"));
    assert_non_null(strstr(page, "WORK_MS &#60;/li&#62;&#60;b&#62;"));
}

static void what_is_utf_8_stays(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    cmp_html_text(f, "caf\xc3\xa9 \xf0\x9f\x90\x9f \xed\xa0\x80 \xef\xbf\xbf \x7f\t\n");
    fclose(f);
    assert_string_equal(text, "caf\xc3\xa9 \xf0\x9f\x90\x9f ??? ??? ?\t\n");
    free(text);
}

static void runs_without_data_come_through(void **state)
{
    for (int way = 0; way < 8; way++) {
        fill(way == 1 ? 1 : way == 0 ? 0 : 4);
        for (int s = 0; s < CMP_SIDES; s++) {
            cmp_run *run = &report.run[0][s];
            for (size_t i = 0; i < run->samples; i++) {
                if (way == 2) /* nothing at all happened */
                    run->sample[i] = (cmp_sample){0}, run->load.second[i] = (load_second){0};
                else if (way == 3) /* the clock stood still */
                    run->sample[i].t_s = run->load.second[i].t_s = 1;
                else if (way == 4) /* all equal */
                    run->sample[i].rss_bytes = 1 << 20;
                else if (way == 5) /* counters went back: another process? */
                    run->sample[i].c.mallocs = 10 - i;
                else if (way == 6) /* huge */
                    run->sample[i].rss_bytes = run->load.second[i].p99_ns = UINT64_MAX;
            }
            if (way == 7) /* it was not run: an interrupt, or the one before failed */
                run->ran = false, run->samples = run->load.seconds = 0;
            if (way == 0 || way == 2)
                load_hist_reset(&run->load.latency);
        }
        html();
        well_formed(page);
        numbers_only(page);
        unsigned drawn = occurrences(page, "<svg class=\"chart\"");
        assert_int_equal(drawn, way == 0 ? 0 : way == 2 ? 12 : way == 7 ? 12 : 18);
        if (way == 0)
            assert_int_equal(occurrences(page, "No figures were taken."), 18);
        if (way == 1) /* a line of one point cannot be seen without its mark */
            assert_non_null(strstr(page, "<circle class=\"mark before\""));
        char *json = written(cmp_write_json);
        static const char *const no_json[] = {": nan", ": -nan", ": inf", ": -inf"};
        for (size_t i = 0; i < 4; i++)
            assert_null(strstr(json, no_json[i]));
        free(json);
        tear_down(state);
    }
}

static void a_break_down_is_said_beside_the_curves(void **state)
{
    (void)state;
    fill(4);
    cmp_run *run = &report.run[2][CMP_BEFORE];
    assert_null(strstr(html(), "class=\"finding\""));
    run->load.rate_reached = 400;
    run->load.due = 4000;
    run->load.unsent = 2000;
    html();
    well_formed(page);
    /* In the five that the queue shows in. */
    assert_int_equal(occurrences(page, "before broke down here: it answered 400 of 1,000 "
                                       "requests a second"),
                     5);
    run->died = true;
    assert_int_equal(occurrences(html(), "before died under this load"), CURVE_COUNT);
    run->ran = false;
    assert_int_equal(occurrences(html(), "before was not measured here"), CURVE_COUNT);
    report.run[2][CMP_AFTER].ran = false; /* neither: no curves */
    assert_null(strstr(html(), "id=\"rss-2-title\""));
}

static void a_long_run_has_a_table_of_bounded_length(void **state)
{
    (void)state;
    fill(1000);
    html();
    const char *table = strstr(strstr(page, "rss-0-title"), "<details>");
    char *part = strndup(table, (size_t)(strstr(table, "</details>") - table));
    unsigned rows = occurrences(part, "<th scope=\"row\">");
    free(part);
    assert_in_range(rows, 60, 120);
    assert_int_equal(points("rss-0", "before"), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_page_holds_every_population_and_needs_nothing_else,
                                  tear_down),
        cmocka_unit_test_teardown(a_curve_has_the_points_that_the_json_has, tear_down),
        cmocka_unit_test_teardown(a_part_of_a_second_is_not_taken_for_a_whole_one, tear_down),
        cmocka_unit_test_teardown(names_cannot_break_the_page, tear_down),
        cmocka_unit_test(what_is_utf_8_stays),
        cmocka_unit_test_teardown(runs_without_data_come_through, tear_down),
        cmocka_unit_test_teardown(a_break_down_is_said_beside_the_curves, tear_down),
        cmocka_unit_test_teardown(a_long_run_has_a_table_of_bounded_length, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
