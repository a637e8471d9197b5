/* compare_curves.h - the curves of a population, before and after over each other. */
#ifndef COMPARE_CURVES_H
#define COMPARE_CURVES_H

#include "compare.h"
#include "compare_chart.h"

typedef enum {
    CURVE_RSS,
    CURVE_LATENCY,     /* percentiles of the whole run */
    CURVE_P99,         /* of each second */
    CURVE_ALLOCATIONS, /* a second */
    CURVE_ALLOCATED,   /* bytes a second */
    CURVE_RATE,        /* answers a second */
    CURVE_COUNT
} cmp_curve;

/* At most how many points a curve of this run has. */
size_t cmp_curve_room(const cmp_run *run);
/* Fills p, which has that room, and returns how many points it has: bytes, seconds, milliseconds. A
 * second for which there is no figure is left out or NAN. */
size_t cmp_curve_points(const cmp_run *run, cmp_curve which, chart_point *p);

/* All of them of population i, each with its figures in a table. 0, or -1: no memory. */
int cmp_curves_html(FILE *f, const cmp_report *r, size_t i);

#endif
