/* compare_chart.h - one curve or more over common axes, as SVG within a page. Knows nothing of what
 * is drawn.
 *
 *     const chart_point p[] = {{1, 12.5}, {2, 13}};
 *     chart c = {.title = "RSS", .y_label = "MiB", .x_label = "seconds", .lines = 1,
 *                .line = {{.name = "before", .css = "before", .p = p, .n = 2}}};
 *     chart_svg(f, &c, "rss");
 */
#ifndef COMPARE_CHART_H
#define COMPARE_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CHART_LINES_MAX 2
#define CHART_TICKS_MAX 16

/* A y that is not finite, or on a log scale not above 0, is a gap in the line. */
typedef struct {
    double x, y;
} chart_point;

typedef struct {
    const char *name;
    const char *css; /* its class, and the page's style has its colour and dashes */
    const chart_point *p;
    size_t n;
} chart_line;

typedef struct {
    const char *title;
    const char *x_label, *y_label;
    const char *const *x_name; /* names of x = 0, 1, ...; NULL: x is a number from 0 on */
    size_t x_names;
    bool log_y;
    size_t lines;
    chart_line line[CHART_LINES_MAX];
} chart;

/* Whether any of the lines has a point to draw; chart_svg must not be called without. */
bool chart_has_points(const chart *c);
/* `id` is unique in the page; all of the texts are escaped. */
void chart_svg(FILE *f, const chart *c, const char *id);

/* Round ticks from 0 on, at most `most` steps, of which the last is not below `max`. Returns how
 * many ticks there are. */
size_t chart_ticks(double max, int most, double tick[CHART_TICKS_MAX]);

#endif
