/* compare_curves.c - see compare_curves.h. What is drawn is what report.json holds: `samples` for
 * memory and allocations, `seconds` for answers and latency.
 *
 * Where one service broke down its curves say little of the code and much of the queue, so that is
 * said beside them, in words.
 */
#include "compare_curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare_emit.h"

#define ROWS_MOST 120 /* of a table: a run of an hour has 3,600 seconds */
#define APART_S   0.4 /* moments of two runs less than this apart share a row */
#define PART_S    0.5

typedef enum { Y_BYTES, Y_COUNT, Y_MS } quantity;

static const struct {
    const char *key, *title, *per; /* per: added to the unit */
    quantity y;
    bool log_y;
    bool queued; /* a service that breaks down shows in it */
} curves[CURVE_COUNT] = {
    [CURVE_RSS] = {"rss", "RSS over time", "", Y_BYTES, false, false},
    [CURVE_LATENCY] = {"latency", "Latency by percentile", "", Y_MS, true, true},
    [CURVE_P99] = {"p99", "Latency p99 of each second", "", Y_MS, true, true},
    [CURVE_ALLOCATIONS] = {"allocations", "Allocations", " a second", Y_COUNT, false, true},
    [CURVE_ALLOCATED] = {"allocated", "Bytes allocated", " a second", Y_BYTES, false, true},
    [CURVE_RATE] = {"rate", "Requests answered", " a second", Y_COUNT, false, true},
};

static const double percentile[] = {0.5, 0.9, 0.99, 0.999, 1};
static const char *const percentile_name[] = {"p50", "p90", "p99", "p99.9", "max"};
enum { PERCENTILES = sizeof percentile / sizeof *percentile };

/* ---- points ---- */

size_t cmp_curve_room(const cmp_run *run)
{
    size_t n = run->samples > run->load.seconds ? run->samples : run->load.seconds;
    return n > PERCENTILES ? n : PERCENTILES;
}

static size_t latency_points(const cmp_run *run, chart_point *p)
{
    if (!run->ran || run->load.latency.count == 0)
        return 0;
    for (size_t i = 0; i < PERCENTILES; i++) {
        uint64_t ns = percentile[i] < 1 ? load_latency(&run->load, percentile[i], NULL)
                                        : run->load.latency.max;
        p[i] = (chart_point){(double)i, (double)ns / 1e6};
    }
    return PERCENTILES;
}

/* A counter at moments of the run. A rate over a small part of a second, such as the last one has,
 * would say more of chance than of the service: it is taken over the second before it as well. */
typedef struct {
    double t[2], n[2]; /* of the last point and the one before */
    size_t points;
} meter;

static double meter_rate(meter *m, double t, double n)
{
    int from = m->points > 0 && t - m->t[0] < PART_S ? 1 : 0;
    double dt = t - m->t[from], rate = dt > 0 ? (n - m->n[from]) / dt : NAN;
    m->t[1] = m->t[0];
    m->n[1] = m->n[0];
    m->t[0] = t;
    m->n[0] = n;
    m->points++;
    return rate;
}

/* Of samples with counters, the scrapes' own allocations taken off. */
static size_t allocation_points(const cmp_run *run, bool bytes, chart_point *p)
{
    size_t n = 0;
    const cmp_counters *start = &run->start, *cost = &run->scrape_cost;
    meter m = {0};
    for (size_t i = 0; i < run->samples && start->ok && start->hooked; i++) {
        const cmp_sample *s = &run->sample[i];
        if (!s->c.ok || !s->c.hooked)
            continue;
        double grown =
            bytes ? cmp_grown((double)start->total_alloc_bytes, (double)s->c.total_alloc_bytes,
                              (double)cost->total_alloc_bytes, s->scrapes)
                  : cmp_grown((double)start->mallocs, (double)s->c.mallocs, (double)cost->mallocs,
                              s->scrapes);
        p[n++] = (chart_point){s->t_s, meter_rate(&m, s->t_s, grown)};
    }
    return n;
}

static size_t second_points(const cmp_run *run, bool p99, chart_point *p)
{
    meter m = {0};
    double answered = 0;
    for (size_t i = 0; i < run->load.seconds; i++) {
        const load_second *s = &run->load.second[i];
        answered += (double)s->answered;
        bool part = i > 0 && s->t_s - m.t[0] < PART_S; /* its few answers have no p99 */
        double rate = meter_rate(&m, s->t_s, answered);
        double latency = s->answered > 0 && !part ? (double)s->p99_ns / 1e6 : NAN;
        p[i] = (chart_point){s->t_s, p99 ? latency : rate};
    }
    return run->load.seconds;
}

size_t cmp_curve_points(const cmp_run *run, cmp_curve which, chart_point *p)
{
    switch (which) {
    case CURVE_RSS:
        for (size_t i = 0; i < run->samples; i++) {
            uint64_t rss = run->sample[i].rss_bytes; /* 0: it was gone */
            p[i] = (chart_point){run->sample[i].t_s, rss > 0 ? (double)rss : NAN};
        }
        return run->samples;
    case CURVE_LATENCY:
        return latency_points(run, p);
    case CURVE_P99:
    case CURVE_RATE:
        return second_points(run, which == CURVE_P99, p);
    case CURVE_ALLOCATIONS:
    case CURVE_ALLOCATED:
        return allocation_points(run, which == CURVE_ALLOCATED, p);
    case CURVE_COUNT:
        break;
    }
    return 0;
}

/* ---- units ---- */

/* What the axis shows, so that its numbers are short. Returns what a value is divided by. */
static double scale(quantity y, double most, const char **unit)
{
    static const char *const bytes[] = {"bytes", "KiB", "MiB", "GiB"};
    static const char *const counts[] = {"", "thousand", "million"};
    size_t i = 0;
    double by = 1;
    if (y == Y_MS) {
        *unit = "ms, log scale";
        return 1;
    }
    if (y == Y_BYTES) {
        for (; i < 3 && most >= 1024 * by; i++)
            by *= 1024;
        *unit = bytes[i];
        return by;
    }
    for (; i < 2 && most >= 20000 * by; i++)
        by *= 1000;
    *unit = counts[i];
    return by;
}

static void rescale(cmp_curve which, chart *c, chart_point *points[CMP_SIDES], char *label,
                    size_t cap)
{
    double most = 0;
    const char *unit;
    for (size_t s = 0; s < c->lines; s++)
        for (size_t k = 0; k < c->line[s].n; k++)
            most = fmax(most, points[s][k].y); /* NAN loses */
    double by = scale(curves[which].y, most, &unit);
    for (size_t s = 0; s < c->lines; s++)
        for (size_t k = 0; k < c->line[s].n; k++)
            points[s][k].y /= by;
    const char *per = curves[which].per;
    snprintf(label, cap, "%s%s", unit, *unit == '\0' && *per == ' ' ? per + 1 : per);
    c->y_label = label;
}

/* ---- the page ---- */

static void cell(FILE *f, double v)
{
    char buf[40];
    if (!isfinite(v))
        fputs("<td>n/a</td>", f);
    else
        fprintf(f, "<td>%s</td>",
                cmp_number(buf, sizeof buf, v,
                           v == 0 || v >= 1000 ? 0
                           : v >= 10           ? 1
                                               : 3));
}

/* The two lines side by side: a row for what both have at a moment, or for what one has. */
static void rows(FILE *f, const chart *c)
{
    const chart_line *b = &c->line[CMP_BEFORE], *a = &c->line[CMP_AFTER];
    size_t longest = b->n > a->n ? b->n : a->n, every = longest / (ROWS_MOST + 1) + 1;
    for (size_t i = 0, k = 0, row = 0; i < b->n || k < a->n; row++) {
        double tb = i < b->n ? b->p[i].x : INFINITY, ta = k < a->n ? a->p[k].x : INFINITY;
        bool has_b = tb <= ta + APART_S, has_a = ta <= tb + APART_S;
        double x = fmin(tb, ta);
        if (row % every == 0) {
            fputs("<tr><th scope=\"row\">", f);
            if (c->x_name != NULL)
                cmp_html_text(f, c->x_name[(size_t)x]);
            else
                fprintf(f, "%.1f", x);
            fputs("</th>", f);
            cell(f, has_b ? b->p[i].y : NAN);
            cell(f, has_a ? a->p[k].y : NAN);
            fputs("</tr>\n", f);
        }
        i += has_b;
        k += has_a;
    }
}

static void figures(FILE *f, const chart *c)
{
    fprintf(f,
            "<details><summary>Figures</summary><div class=\"wide\"><table>\n<thead><tr>"
            "<th scope=\"col\">%s</th>",
            c->x_name != NULL ? "" : "seconds");
    for (size_t s = 0; s < c->lines; s++)
        fprintf(f, "<th scope=\"col\">%s, %s</th>", c->line[s].name, c->y_label);
    fputs("</tr></thead>\n<tbody>\n", f);
    rows(f, c);
    fputs("</tbody></table></div></details>\n", f);
}

/* The line as it is drawn, and its name. */
static void legend(FILE *f, const chart *c)
{
    fputs("<p class=\"legend\">", f);
    for (size_t s = 0; s < c->lines; s++)
        fprintf(f,
                "<span><svg class=\"key\" viewBox=\"0 0 30 8\" aria-hidden=\"true\">"
                "<path class=\"stroke %s\" d=\"M1 4H29\"/></svg> %s%s</span> ",
                c->line[s].css, c->line[s].name, c->line[s].n > 0 ? "" : " (no figures)");
    fputs("</p>\n", f);
}

/* Why a curve looks as it does, where the service is to blame and not its code's speed. */
static void finding(FILE *f, const cmp_run *run, bool queued)
{
    char reached[40], wanted[40], text[320];
    const char *name = cmp_side_name[run->side];
    if (!run->ran)
        snprintf(text, sizeof text, "%s was not measured here.", name);
    else if (run->died)
        snprintf(text, sizeof text, "%s died under this load: its curve ends there.", name);
    else if (queued && cmp_broke_down(run))
        snprintf(text, sizeof text,
                 "%s broke down here: it answered %s of %s requests a second in time; the others "
                 "waited in a queue, and were answered late or never.",
                 name, cmp_number(reached, sizeof reached, run->load.rate_reached, 0),
                 cmp_number(wanted, sizeof wanted, run->rate, 0));
    else
        return;
    fputs("<p class=\"finding\"><strong>!</strong> ", f);
    cmp_html_text(f, text);
    fputs("</p>\n", f);
}

static void figure(FILE *f, cmp_curve which, const cmp_run run[CMP_SIDES], chart *c, const char *id)
{
    fputs("<figure>\n<figcaption><h3>", f);
    cmp_html_text(f, c->title);
    fputs("</h3>\n", f);
    legend(f, c);
    for (int s = 0; s < CMP_SIDES; s++)
        finding(f, &run[s], curves[which].queued);
    fputs("</figcaption>\n", f);
    if (chart_has_points(c)) {
        chart_svg(f, c, id);
        figures(f, c);
    } else {
        fputs("<p>No figures were taken.</p>\n", f);
    }
    fputs("</figure>\n", f);
}

static int curve_html(FILE *f, cmp_curve which, const cmp_run run[CMP_SIDES], size_t population)
{
    chart_point *p[CMP_SIDES] = {NULL, NULL};
    chart c = {.title = curves[which].title, .x_label = "seconds since the start"};
    char label[48], id[48];
    int rc = -1;
    for (int s = 0; s < CMP_SIDES; s++) {
        p[s] = calloc(cmp_curve_room(&run[s]), sizeof *p[s]);
        if (p[s] == NULL)
            goto done;
        c.line[s] = (chart_line){.name = cmp_side_name[s],
                                 .css = cmp_side_name[s],
                                 .p = p[s],
                                 .n = cmp_curve_points(&run[s], which, p[s])};
    }
    c.lines = CMP_SIDES;
    c.log_y = curves[which].log_y;
    if (which == CURVE_LATENCY) {
        c.x_name = percentile_name;
        c.x_names = PERCENTILES;
        c.x_label = "percentile of all requests";
    }
    rescale(which, &c, p, label, sizeof label);
    snprintf(id, sizeof id, "%s-%zu", curves[which].key, population);
    figure(f, which, run, &c, id);
    rc = 0;
done:
    for (int s = 0; s < CMP_SIDES; s++)
        free(p[s]);
    return rc;
}

int cmp_curves_html(FILE *f, const cmp_report *r, size_t i)
{
    if (!r->run[i][CMP_BEFORE].ran && !r->run[i][CMP_AFTER].ran)
        return 0;
    fputs("<div class=\"curves\">\n", f);
    for (int k = 0; k < CURVE_COUNT; k++)
        if (curve_html(f, (cmp_curve)k, r->run[i], i) != 0)
            return -1;
    fputs("</div>\n", f);
    return 0;
}
