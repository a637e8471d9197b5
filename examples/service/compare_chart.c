/* compare_chart.c - see compare_chart.h.
 *
 * The drawing is 340 units wide, about as wide as it is shown in a column or on a phone, so that
 * its text is as large as the page's, whatever the screen. Colours, dashes and sizes of text are
 * the page's style; here are only places.
 *
 *     y_label
 *        |            plot: LEFT..RIGHT, TOP..BOTTOM
 *     tick-----------------------
 *        |   tick    tick     x_label
 */
#include "compare_chart.h"

#include <math.h>
#include <string.h>

#include "compare_emit.h"

#define WIDTH       340.0
#define HEIGHT      215.0
#define LEFT        54.0
#define RIGHT       322.0 /* half the last tick's text, such as 3,600, is beyond it */
#define TOP         24.0
#define BOTTOM      176.0
#define MARKED_MOST 12 /* points of a line up to which each is marked */

/* What the axes span, with their ticks. */
typedef struct {
    const chart *c;
    double x_max, y_min, y_max; /* y: logarithms, on a log scale */
    double log_step;            /* between its ticks, where that is the same for all; else 0 */
    double x_tick[CHART_TICKS_MAX], y_tick[CHART_TICKS_MAX];
    size_t x_ticks, y_ticks;
} axes;

static bool drawn(const chart *c, chart_point p)
{
    return isfinite(p.x) && isfinite(p.y) && p.x >= 0 && p.y >= 0 && (!c->log_y || p.y > 0);
}

bool chart_has_points(const chart *c)
{
    for (size_t i = 0; i < c->lines; i++)
        for (size_t k = 0; k < c->line[i].n; k++)
            if (drawn(c, c->line[i].p[k]))
                return true;
    return false;
}

/* The least of 1, 2 and 5 times a power of ten that is not below v. */
static double round_up(double v)
{
    double power = pow(10, floor(log10(v)));
    for (int i = 0; i < 3; i++) {
        double step = power * (i == 0 ? 1 : i == 1 ? 2 : 5);
        if (step >= v * (1 - 1e-9))
            return step;
    }
    return 10 * power;
}

size_t chart_ticks(double max, int most, double tick[CHART_TICKS_MAX])
{
    size_t n = 0;
    double step = isfinite(max) && max > 1e-300 ? round_up(max / most) : 1.0 / most;
    double last = max > 1e-300 ? max : 1;
    do {
        tick[n] = step * (double)n;
    } while (tick[n] < last * (1 - 1e-9) && ++n < CHART_TICKS_MAX);
    return n < CHART_TICKS_MAX ? n + 1 : CHART_TICKS_MAX;
}

/* 1, 2 or 5 times a power of ten, not above v. */
static double round_down(double v)
{
    double up = round_up(v);
    if (up <= v * (1 + 1e-9))
        return up;
    double lead = up / pow(10, floor(log10(up) + 1e-9));
    return lead > 4 ? up * 0.4 : up / 2;
}

static void add_log_tick(axes *a, double v)
{
    if (a->y_ticks < CHART_TICKS_MAX)
        a->y_tick[a->y_ticks++] = log10(v);
}

/* Round values that lie evenly enough: decades over a wide range, 1-2-5 over two, and within one
 * of them equal steps, which are then far apart on a log scale too. The scale spans a factor of two
 * at least, or a hair's breadth of a difference would fill it. */
static void log_ticks(axes *a, double min, double max)
{
    double low = round_down(min), high = round_up(max);
    if (high <= low * (1 + 1e-9))
        high = round_up(low * 1.5);
    double decades = log10(high / low), step = 0;
    if (decades > 2.5) {
        low = pow(10, floor(log10(low) + 1e-9));
        high = pow(10, ceil(log10(high) - 1e-9));
        double each = pow(10, ceil(log10(high / low) / 7 - 1e-9));
        for (double v = low; v <= high * (1 + 1e-9); v *= each)
            add_log_tick(a, v);
    } else if (decades > 0.75) {
        for (double v = low; v <= high * (1 + 1e-9); v = round_up(v * 1.5))
            add_log_tick(a, v);
    } else {
        step = round_up((high - low) / 6);
        for (double v = low; v <= high + step / 2; v += step)
            add_log_tick(a, v);
    }
    a->log_step = step;
    a->y_min = log10(low);
    a->y_max = fmax(log10(high), a->y_tick[a->y_ticks - 1]);
}

static void span(axes *a, const chart *c)
{
    double x = 0, min = INFINITY, max = 0;
    memset(a, 0, sizeof *a);
    a->c = c;
    for (size_t i = 0; i < c->lines; i++) {
        for (size_t k = 0; k < c->line[i].n; k++) {
            chart_point p = c->line[i].p[k];
            if (isfinite(p.x)) /* also of a gap: charts of one run have the same axis */
                x = fmax(x, p.x);
            if (!drawn(c, p))
                continue;
            min = fmin(min, p.y);
            max = fmax(max, p.y);
        }
    }
    if (c->log_y) {
        log_ticks(a, min, max);
    } else {
        a->y_ticks = chart_ticks(max, 5, a->y_tick);
        a->y_max = a->y_tick[a->y_ticks - 1];
    }
    a->x_max = c->x_name != NULL ? (double)c->x_names : x > 0 ? x : 1;
    a->x_ticks = chart_ticks(a->x_max, 6, a->x_tick);
    while (a->x_tick[a->x_ticks - 1] > a->x_max * 1.02)
        a->x_ticks--;
}

/* Named places lie in the middle of their share of the axis. */
static double at_x(const axes *a, double x)
{
    double v = (a->c->x_name != NULL ? x + 0.5 : x) / a->x_max;
    return LEFT + fmin(v, 1) * (RIGHT - LEFT);
}

static double at_y(const axes *a, double y)
{
    return BOTTOM - (y - a->y_min) / (a->y_max - a->y_min) * (BOTTOM - TOP);
}

static double place(const axes *a, double y)
{
    return at_y(a, a->c->log_y ? log10(y) : y);
}

static void text(FILE *f, const char *css, double x, double y, const char *s)
{
    fprintf(f, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", css, x, y);
    cmp_html_text(f, s);
    fputs("</text>\n", f);
}

/* As many decimals as the step between ticks has, or on a log scale the tick itself. */
static const char *tick_text(char *buf, size_t cap, double v, double step)
{
    int decimals = step >= 1 || v == 0 ? 0 : (int)ceil(-log10(step) - 1e-9);
    if (v >= 1e9 || (v > 0 && decimals > 6)) {
        snprintf(buf, cap, "%.0e", v);
        return buf;
    }
    return cmp_number(buf, cap, v, decimals);
}

static void axis_y(FILE *f, const axes *a)
{
    char buf[40];
    for (size_t i = 0; i < a->y_ticks; i++) {
        double v = a->c->log_y ? pow(10, a->y_tick[i]) : a->y_tick[i];
        double y = at_y(a, a->y_tick[i]);
        fprintf(f, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", LEFT, y, RIGHT);
        double step = !a->c->log_y ? a->y_tick[1] : a->log_step > 0 ? a->log_step : v;
        text(f, "tick y", LEFT - 6, y + 4, tick_text(buf, sizeof buf, v, step));
    }
    text(f, "label", 4, 12, a->c->y_label);
}

static void axis_x(FILE *f, const axes *a)
{
    char buf[40];
    fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>\n", LEFT, BOTTOM, RIGHT);
    if (a->c->x_name != NULL) {
        for (size_t i = 0; i < a->c->x_names; i++)
            text(f, "tick x", at_x(a, (double)i), BOTTOM + 16, a->c->x_name[i]);
    } else {
        for (size_t i = 0; i < a->x_ticks; i++) {
            double x = at_x(a, a->x_tick[i]);
            fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", x, BOTTOM);
            text(f, "tick x", x, BOTTOM + 16,
                 tick_text(buf, sizeof buf, a->x_tick[i], a->x_tick[1]));
        }
    }
    text(f, "label end", RIGHT, BOTTOM + 34, a->c->x_label);
}

/* Whether nothing would be drawn of point k but for a mark: it has no neighbour. */
static bool alone(const chart *c, const chart_line *l, size_t k)
{
    return (k == 0 || !drawn(c, l->p[k - 1])) && (k + 1 == l->n || !drawn(c, l->p[k + 1]));
}

static void marks(FILE *f, const axes *a, const chart_line *l)
{
    for (size_t k = 0; k < l->n; k++) {
        if (drawn(a->c, l->p[k]) && (l->n <= MARKED_MOST || alone(a->c, l, k)))
            fprintf(f, "<circle class=\"mark %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", l->css,
                    at_x(a, l->p[k].x), place(a, l->p[k].y));
    }
}

static void curve(FILE *f, const axes *a, const chart_line *l)
{
    bool pen_down = false, any = false;
    for (size_t k = 0; k < l->n; k++) {
        if (!drawn(a->c, l->p[k])) {
            pen_down = false;
            continue;
        }
        if (!any)
            fprintf(f, "<path class=\"curve %s\" d=\"", l->css);
        fprintf(f, "%c%.1f %.1f", pen_down ? 'L' : 'M', at_x(a, l->p[k].x), place(a, l->p[k].y));
        pen_down = any = true;
    }
    if (any)
        fputs("\"/>\n", f);
    marks(f, a, l);
}

/* For who cannot see it: each line's first, largest and last value. */
static void description(FILE *f, const chart *c)
{
    char buf[3][40];
    for (size_t i = 0; i < c->lines; i++) {
        double first = NAN, last = NAN, most = NAN;
        for (size_t k = 0; k < c->line[i].n; k++) {
            if (!drawn(c, c->line[i].p[k]))
                continue;
            last = c->line[i].p[k].y;
            first = isnan(first) ? last : first;
            most = fmax(most, last);
        }
        cmp_html_text(f, c->line[i].name);
        if (isnan(first))
            fputs(": no figures. ", f);
        else
            fprintf(f, ": first %s, last %s, at most %s. ",
                    cmp_number(buf[0], sizeof buf[0], first, 2),
                    cmp_number(buf[1], sizeof buf[1], last, 2),
                    cmp_number(buf[2], sizeof buf[2], most, 2));
    }
}

void chart_svg(FILE *f, const chart *c, const char *id)
{
    axes a;
    span(&a, c);
    fprintf(f,
            "<svg class=\"chart\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
            "aria-labelledby=\"%s-title %s-desc\">\n<title id=\"%s-title\">",
            WIDTH, HEIGHT, id, id, id);
    cmp_html_text(f, c->title);
    fputs(", ", f);
    cmp_html_text(f, c->y_label);
    fprintf(f, "</title>\n<desc id=\"%s-desc\">", id);
    description(f, c);
    fputs("</desc>\n", f);
    axis_y(f, &a);
    axis_x(f, &a);
    for (size_t i = c->lines; i-- > 0;) /* the first one, which has gaps, on top */
        curve(f, &a, &c->line[i]);
    fputs("</svg>\n", f);
}
