/* compare_figures.c - from raw counts to the figures of the report, and what went wrong, in
 * sentences. All of it is arithmetic on a finished run; nothing here measures.
 */
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include "compare.h"

const char *const cmp_side_name[CMP_SIDES] = {"before", "after"};

/* The article's deltas: "Allocated now" is what it calls memory held. */
const cmp_figure_info cmp_figures[FIG_COUNT] = {
    [FIG_ALLOC_NOW] = {"allocated_now_bytes", "Allocated now", UNIT_BYTES, -30},
    [FIG_ALLOC_TOTAL] = {"allocated_in_total_bytes", "Allocated in total", UNIT_BYTES, -56},
    [FIG_SYS] = {"system_memory_bytes", "System memory", UNIT_BYTES, NAN},
    [FIG_RSS] = {"rss_bytes", "RSS", UNIT_BYTES, -33},
    [FIG_RSS_OWN] = {"rss_without_connections_bytes", "RSS without libmicrohttpd's", UNIT_BYTES,
                     NAN},
    [FIG_PEAK_RSS] = {"rss_peak_bytes", "Peak RSS", UNIT_BYTES, NAN},
    [FIG_MALLOCS_PER_REQUEST] = {"allocations_per_request", "Allocations a request", UNIT_COUNT,
                                 -41},
    [FIG_BYTES_PER_REQUEST] = {"allocated_bytes_per_request", "Allocated a request",
                               UNIT_PLAIN_BYTES, NAN},
    [FIG_BODY_BYTES] = {"answer_body_bytes_mean", "Body of an answer, mean", UNIT_PLAIN_BYTES, NAN},
    [FIG_CPU_PER_REQUEST] = {"cpu_us_per_request", "CPU a request", UNIT_US, NAN},
    [FIG_P50] = {"latency_p50_ms", "Latency p50", UNIT_MS, NAN},
    [FIG_P99] = {"latency_p99_ms", "Latency p99", UNIT_MS, -21},
    [FIG_P999] = {"latency_p999_ms", "Latency p99.9", UNIT_MS, NAN},
    [FIG_RATE] = {"requests_per_second", "Requests a second", UNIT_RATE, NAN},
    [FIG_COST] = {"memory_cost_usd_per_month", "Memory, 10 instances", UNIT_USD, NAN},
};

double cmp_grown(double start, double end, double scrape, uint64_t scrapes)
{
    double v = end - start - scrape * (double)scrapes;
    return v > 0 ? v : 0;
}

static double latency_ms(const cmp_run *r, double q, bool *lower_bound)
{
    if (r->load.latency.count == 0)
        return NAN;
    return (double)load_latency(&r->load, q, lower_bound) / 1e6;
}

double cmp_answered_by(const cmp_run *r, size_t sample)
{
    uint64_t n = sample > 0 ? r->sample[sample - 1].answered : r->load.answered;
    return n > 0 ? (double)n : NAN;
}

/* Without libmicrohttpd's memory of connections, which both sides have alike. */
static double rss_own(const cmp_run *r)
{
    double v = (double)r->proc_end.rss_bytes - (double)r->connections * CMP_CONN_MEMORY;
    return v > 0 ? v : NAN;
}

double cmp_value(const cmp_opts *o, const cmp_run *r, cmp_figure f, bool *lower_bound)
{
    bool ignored;
    lower_bound = lower_bound != NULL ? lower_bound : &ignored;
    *lower_bound = false;
    if (!r->ran)
        return NAN;
    double answered = cmp_answered_by(r, 0), mallocs = NAN, bytes = NAN, counted_answers = NAN;
    bool counted = r->start.ok && r->start.hooked && r->end.ok && r->end.hooked;
    if (counted) {
        uint64_t scrapes = r->end_sample > 0 ? r->sample[r->end_sample - 1].scrapes : r->scrapes;
        mallocs = cmp_grown((double)r->start.mallocs, (double)r->end.mallocs,
                            (double)r->scrape_cost.mallocs, scrapes);
        bytes = cmp_grown((double)r->start.total_alloc_bytes, (double)r->end.total_alloc_bytes,
                          (double)r->scrape_cost.total_alloc_bytes, scrapes);
        counted_answers = cmp_answered_by(r, r->end_sample);
    }
    switch (f) {
    case FIG_ALLOC_NOW:
        return counted ? (double)r->end.alloc_bytes : NAN;
    case FIG_ALLOC_TOTAL:
        return bytes;
    case FIG_SYS:
        return r->end.ok ? (double)r->end.sys_bytes : NAN;
    case FIG_RSS:
        return r->proc_end.ok ? (double)r->proc_end.rss_bytes : NAN;
    case FIG_RSS_OWN:
        return r->proc_end.ok ? rss_own(r) : NAN;
    case FIG_PEAK_RSS:
        return r->proc_end.ok ? (double)r->proc_end.peak_rss_bytes : NAN;
    case FIG_MALLOCS_PER_REQUEST:
        return mallocs / counted_answers;
    case FIG_BYTES_PER_REQUEST:
        return bytes / counted_answers;
    case FIG_BODY_BYTES:
        return (double)r->load.body_bytes / answered;
    case FIG_CPU_PER_REQUEST:
        return r->proc_end.ok ? (double)(r->proc_end.cpu_ns - r->proc_start.cpu_ns) / 1e3 /
                                    cmp_answered_by(r, r->proc_sample)
                              : NAN;
    case FIG_P50:
        return latency_ms(r, 0.5, lower_bound);
    case FIG_P99:
        return latency_ms(r, 0.99, lower_bound);
    case FIG_P999:
        return latency_ms(r, 0.999, lower_bound);
    case FIG_RATE:
        return r->load.rate_reached;
    case FIG_COST:
        return r->proc_end.ok
                   ? (double)r->proc_end.peak_rss_bytes / 0x1p30 * o->price_per_gib * CMP_INSTANCES
                   : NAN;
    case FIG_COUNT:
        break;
    }
    return NAN;
}

double cmp_delta_percent(double before, double after)
{
    if (isnan(before) || isnan(after))
        return NAN;
    if (before == after)
        return 0; /* 0 and 0 too */
    return before > 0 ? (after - before) / before * 100 : NAN;
}

typedef struct {
    cmp_sentence *out;
    size_t n;
} list;

__attribute__((format(printf, 2, 3))) static void say(list *l, const char *fmt, ...)
{
    va_list ap;
    if (l->n == CMP_SENTENCES_MAX)
        return;
    cmp_sentence *s = &l->out[l->n++];
    s->remark = false;
    va_start(ap, fmt);
    vsnprintf(s->text, sizeof s->text, fmt, ap);
    va_end(ap);
}

typedef unsigned long long ull;

static const char *s_of(uint64_t n)
{
    return n == 1 ? "" : "s";
}

bool cmp_missed_rate(const cmp_run *r)
{
    const load_result *d = &r->load;
    return r->rate > 0 && d->rate_reached < 0.99 * r->rate &&
           (load_lost(d) > 0 || load_errors(d) > 0 || load_backlog(d));
}

bool cmp_broke_down(const cmp_run *r)
{
    const load_result *d = &r->load;
    return r->ran && cmp_missed_rate(r) &&
           (load_lost(d) > 0 || d->timed_out > 0 || load_backlog(d));
}

static void complain_of_requests(const cmp_run *r, list *l)
{
    const load_result *d = &r->load;
    if (cmp_missed_rate(r))
        say(l, "reached %.0f of %.0f request%s a second (%.1f %%)", d->rate_reached, r->rate,
            s_of((uint64_t)(r->rate + 0.5)), 100 * d->rate_reached / r->rate);
    if (d->unsent > 0)
        say(l, "%llu of %llu request%s %s never sent, because %s", (ull)d->unsent, (ull)d->due,
            s_of(d->due), d->unsent == 1 ? "was" : "were",
            r->died                                 ? "the service was gone"
            : d->gave_up || d->connect_failures > 0 ? "no connection could be had"
                                                    : "every connection was waiting");
    if (d->unanswered > 0 && r->died)
        say(l, "%llu request%s had no answer when the service was gone", (ull)d->unanswered,
            s_of(d->unanswered));
    else if (d->unanswered > 0)
        say(l, "%llu request%s had no answer %.1f s after the end", (ull)d->unanswered,
            s_of(d->unanswered), d->drain_s);
    if (load_errors(d) > 0)
        say(l,
            "%llu request%s failed (status not 200: %llu, connection closed: %llu, malformed: "
            "%llu, timed out: %llu)",
            (ull)load_errors(d), s_of(load_errors(d)), (ull)d->bad_status, (ull)d->closed,
            (ull)d->malformed, (ull)d->timed_out);
    if (d->connect_failures > 0)
        say(l, "%llu connection%s could not be made", (ull)d->connect_failures,
            s_of(d->connect_failures));
}

size_t cmp_complaints(const cmp_run *r, cmp_sentence out[CMP_SENTENCES_MAX])
{
    list l = {out, 0};
    char how[80];
    if (!r->ran) {
        say(&l, "no figures: %s", r->error[0] != '\0' ? r->error : "it was not run");
        return l.n;
    }
    if (r->died) {
        cmp_exit_text(r->child.status, how, sizeof how);
        say(&l, "the service died under the load: %s", how);
    }
    if (r->counters && !(r->start.ok && r->start.hooked))
        say(&l, "the service's malloc was not counted (%s): no allocation figures",
            r->start.ok ? "memkit_malloc_hooked is not 1" : "/metrics did not answer at the start");
    else if (r->counters && !r->end.ok)
        say(&l, "/metrics did not answer at the end: no allocation figures");
    else if (r->end_sample > 0)
        say(&l,
            "/metrics did not answer at the end: the counters, and what is made of them, are of "
            "%.1f s after the start, when it last did",
            r->sample[r->end_sample - 1].t_s);
    if (r->proc_sample > 0)
        say(&l, "CPU and RSS are of %.1f s after the start", r->sample[r->proc_sample - 1].t_s);
    if (r->timing && r->end.ok &&
        !(r->timing_start.ok && r->timing_end.ok &&
          r->timing_start.buckets == r->timing_end.buckets))
        say(&l, "malloc was not timed (no memkit_malloc_duration_seconds in /metrics): no figures "
                "of its time");
    complain_of_requests(r, &l);
    if (r->child.killed)
        say(&l, "the service did not stop within 15 s of SIGTERM and was killed");
    else if (!r->died && r->child.gone && r->child.status != 0) {
        cmp_exit_text(r->child.status, how, sizeof how);
        say(&l, "the service did not end well when asked to stop: %s", how);
    }
    double late = (double)load_hist_quantile(&r->load.lateness, 0.99) / 1e6;
    if (late > 1 && l.n < CMP_SENTENCES_MAX) {
        say(&l,
            "the machine was too busy for the generator, which itself sent late (p99 %.1f ms): "
            "latencies are that much too high",
            late);
        out[l.n - 1].remark = true;
    }
    return l.n;
}

bool cmp_run_void(const cmp_run *r)
{
    if (!r->ran || r->load.answered == 0)
        return true;
    if (r->counters && !(r->start.ok && r->start.hooked))
        return true;
    if (r->side == CMP_BEFORE)
        return false; /* it may well break down: that is what it is here to show */
    if (r->died || (r->counters && !r->end.ok))
        return true;
    return r->load.answered < r->load.due / 2;
}

/* Standard deviation in per cent of the mean; NAN of less than three values. */
static double spread(const double *v, size_t n)
{
    double sum = 0, sq = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    double mean = n > 0 ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        sq += (v[i] - mean) * (v[i] - mean);
    return n > 2 && mean > 0 ? 100 * sqrt(sq / (double)(n - 1)) / mean : NAN;
}

/* One-second figures of a run: CPU a request, or p99. The first second warms up and is left out
 * where there are enough others; so is one with few answers, such as the last part of a second. */
#define SECONDS_MOST 600

static double cpu_spread(const cmp_run *r)
{
    double v[SECONDS_MOST];
    size_t m = 0;
    double mean = r->samples > 0 ? (double)r->load.answered / (double)r->samples : 0;
    for (size_t i = r->samples > 3 ? 1 : 0; i < r->samples && m < SECONDS_MOST; i++) {
        cmp_sample a = i > 0 ? r->sample[i - 1] : (cmp_sample){0}, b = r->sample[i];
        double requests = (double)(b.answered - a.answered);
        if (requests > mean / 2)
            v[m++] = (double)(b.cpu_ns - a.cpu_ns) / requests;
    }
    return spread(v, m);
}

static double p99_spread(const cmp_run *r)
{
    double v[SECONDS_MOST];
    size_t m = 0, n = r->load.seconds;
    double mean = n > 0 ? (double)r->load.answered / (double)n : 0;
    for (size_t i = n > 3 ? 1 : 0; i < n && m < SECONDS_MOST; i++) {
        if ((double)r->load.second[i].answered > mean / 2)
            v[m++] = (double)r->load.second[i].p99_ns;
    }
    return spread(v, m);
}

static double larger(double a, double b)
{
    return isnan(a) || isnan(b) ? NAN : fmax(a, b);
}

/* In per cent; 0 where it was slower. */
static double faster_with(const cmp_report *r, int side, cmp_figure f)
{
    double d = cmp_delta_percent(cmp_value(&r->o, &r->bare[side], f, NULL),
                                 cmp_value(&r->o, &r->run[r->bare_population][side], f, NULL));
    return fmax(0, -d);
}

cmp_noise cmp_counters_noise(const cmp_report *r)
{
    cmp_noise noise = {3, 3};
    for (int side = 0; side < CMP_SIDES; side++) {
        const cmp_run *pair[2] = {&r->bare[side], &r->run[r->bare_population][side]};
        for (int k = 0; k < 2; k++) {
            noise.cpu = larger(noise.cpu, cpu_spread(pair[k]));
            noise.p99 = larger(noise.p99, p99_spread(pair[k]));
        }
        noise.cpu = larger(noise.cpu, faster_with(r, side, FIG_CPU_PER_REQUEST));
        noise.p99 = larger(noise.p99, faster_with(r, side, FIG_P99));
    }
    return noise;
}
