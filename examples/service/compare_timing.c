/* compare_timing.c - the time inside malloc, in place of a "GC pause": what a service without a
 * collector waits for instead.
 *
 * The preloaded library measures it with MEMKIT_TIMING=1 and shows it in /metrics as a Prometheus
 * histogram, which counts cumulatively: a bucket holds all calls that took at most its `le`. A
 * quantile is known from it only to the bucket, so what is said is the bucket's upper bound.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

#define FAMILY "memkit_malloc_duration_seconds"

const cmp_timing_info cmp_timing_figures[TIMING_COUNT] = {
    [TIMING_PER_REQUEST] = {"malloc_us_per_request", "Inside malloc a request, us", 2, true},
    [TIMING_CPU_SHARE] = {"malloc_percent_of_cpu", "Inside malloc, % of CPU", 2, true},
    [TIMING_P99] = {"malloc_call_p99_us_at_most", "p99 of a call, us, at most", 3, true},
    [TIMING_LONGEST] = {"malloc_longest_call_ms", "Longest call, ms", 3, true},
    [TIMING_SWITCHES] = {"malloc_longest_call_involuntary_switches",
                         "its involuntary context switches", 0, false},
};

/* One bucket's line; false where it is no bucket of this family, as it has to be. */
static bool bucket(const char *line, cmp_timing *t)
{
    static const char start[] = FAMILY "_bucket{le=\"";
    char *end;
    if (strncmp(line, start, sizeof start - 1) != 0)
        return false;
    double le = strtod(line + sizeof start - 1, &end); /* it knows +Inf */
    if (end == line + sizeof start - 1 || strncmp(end, "\"} ", 3) != 0)
        return false;
    const char *number = end + 3;
    double n = strtod(number, &end);
    bool ascends = t->buckets == 0 ||
                   (le > t->le_s[t->buckets - 1] && n >= (double)t->at_most[t->buckets - 1]);
    if (end == number || isnan(le) || !(n >= 0 && n < 0x1p63) || !ascends ||
        t->buckets == CMP_TIMING_BUCKETS)
        return false;
    t->le_s[t->buckets] = le;
    t->at_most[t->buckets++] = (uint64_t)n;
    return true;
}

void cmp_timing_parse(const char *text, cmp_timing *out)
{
    double calls, switches;
    memset(out, 0, sizeof *out);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, FAMILY "_bucket{", sizeof FAMILY "_bucket{" - 1) == 0 &&
            !bucket(line, out))
            return;
    }
    out->ok = out->buckets > 0 && isinf(out->le_s[out->buckets - 1]) &&
              cmp_metric(text, FAMILY "_sum", &out->sum_s) &&
              cmp_metric(text, FAMILY "_count", &calls) &&
              cmp_metric(text, "memkit_malloc_longest_duration_seconds", &out->longest_s) &&
              cmp_metric(text, "memkit_malloc_longest_involuntary_switches", &switches) &&
              isfinite(out->sum_s) && isfinite(out->longest_s) && calls >= 0 && calls < 0x1p63 &&
              switches >= 0 && switches < 0x1p63;
    out->calls = out->ok ? (uint64_t)calls : 0;
    out->longest_switches = out->ok ? (uint64_t)switches : 0;
}

static bool timed(const cmp_run *r)
{
    return r->ran && r->timing_start.ok && r->timing_end.ok &&
           r->timing_start.buckets == r->timing_end.buckets;
}

/* Up to and with the scrape that timing_end is of. */
static uint64_t scrapes(const cmp_run *r)
{
    return r->end_sample > 0 ? r->sample[r->end_sample - 1].scrapes : r->scrapes;
}

double cmp_timing_calls(const cmp_run *r, size_t i)
{
    if (!timed(r) || i >= r->timing_end.buckets)
        return NAN;
    return cmp_grown((double)r->timing_start.at_most[i], (double)r->timing_end.at_most[i],
                     (double)r->timing_cost.at_most[i], scrapes(r));
}

/* No call took longer than the longest: it bounds the last bucket, which has no end of its own. */
static double p99_s(const cmp_run *r)
{
    const cmp_timing *t = &r->timing_end;
    double all = cmp_timing_calls(r, t->buckets - 1);
    for (size_t i = 0; i < t->buckets && all > 0; i++)
        if (cmp_timing_calls(r, i) >= 0.99 * all)
            return fmin(t->le_s[i], t->longest_s);
    return NAN;
}

double cmp_timing_value(const cmp_run *r, cmp_timing_figure f)
{
    if (!timed(r))
        return NAN;
    double inside_s =
        cmp_grown(r->timing_start.sum_s, r->timing_end.sum_s, r->timing_cost.sum_s, scrapes(r));
    uint64_t end = r->proc_end.cpu_ns, start = r->proc_start.cpu_ns;
    double cpu_s = r->end_sample > 0 ? (double)r->sample[r->end_sample - 1].cpu_ns / 1e9
                   : r->proc_end.ok && end > start ? (double)(end - start) / 1e9
                                                   : NAN;
    switch (f) {
    case TIMING_PER_REQUEST:
        return inside_s * 1e6 / cmp_answered_by(r, r->end_sample);
    case TIMING_CPU_SHARE:
        return cpu_s > 0 ? 100 * inside_s / cpu_s : NAN;
    case TIMING_P99:
        return p99_s(r) * 1e6;
    case TIMING_LONGEST:
        return r->timing_end.longest_s * 1e3;
    case TIMING_SWITCHES:
        return (double)r->timing_end.longest_switches;
    case TIMING_COUNT:
        break;
    }
    return NAN;
}

bool cmp_timing_longest_before(const cmp_run *r)
{
    return timed(r) && r->timing_end.longest_s <= r->timing_start.longest_s;
}
