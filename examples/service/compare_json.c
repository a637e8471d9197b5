/* compare_json.c - report.json: every figure with its unit in its name, and the series behind it
 * (RSS, counters, CPU, latency a second), so that curves can be drawn from this file alone. What is
 * not known is null.
 *
 *     { "parameters": {}, "machine": {}, "void": false,
 *       "populations": [ { "name": "", ..., "before": RUN, "after": RUN, "delta_percent": {} } ],
 *       "saturation": { "before": RUN, "after": RUN },
 *       "without_counters": { "before": RUN, "after": RUN, "noise_percent": {} },
 *       "malloc_timing": { "before": RUN, "after": RUN } }
 *     RUN: { "figures": {}, "requests": {}, "counters_at_start": {}, "counters_at_end": {},
 *            "process": {}, "complaints": [], "remarks": [],
 *            "malloc": {}: where its time was measured, with the load's histogram,
 *            "samples": [ once a second: memory, counters, CPU ],
 *            "seconds": [ once a second: answers, latency ] }
 */
#include <math.h>
#include <string.h>

#include <memkit/version.h>

#include "compare.h"

typedef struct {
    FILE *f;
    int depth;
    bool first; /* of its object or array: no comma before it */
} json;

static void key(json *j, const char *name)
{
    fprintf(j->f, "%s\n%*s", j->first ? "" : ",", 2 * j->depth, "");
    j->first = false;
    if (name != NULL)
        fprintf(j->f, "\"%s\": ", name);
}

static void open_(json *j, const char *name, char bracket)
{
    if (name != NULL || j->depth > 0)
        key(j, name);
    fputc(bracket, j->f);
    j->depth++;
    j->first = true;
}

static void close_(json *j, char bracket)
{
    j->depth--;
    if (!j->first)
        fprintf(j->f, "\n%*s", 2 * j->depth, "");
    fputc(bracket, j->f);
    j->first = false;
}

static void value(json *j, double v)
{
    if (!isfinite(v))
        fputs("null", j->f);
    else if (v == floor(v) && fabs(v) < 1e15)
        fprintf(j->f, "%.0f", v);
    else
        fprintf(j->f, "%.6g", v);
}

static void num(json *j, const char *name, double v)
{
    key(j, name);
    value(j, v);
}

/* Exact: a counter may be beyond what a double holds. */
static void count(json *j, const char *name, uint64_t v)
{
    key(j, name);
    fprintf(j->f, "%llu", (unsigned long long)v);
}

static void flag(json *j, const char *name, bool v)
{
    key(j, name);
    fputs(v ? "true" : "false", j->f);
}

static void str(json *j, const char *name, const char *s)
{
    key(j, name);
    fputc('"', j->f);
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(j->f, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(j->f, "\\u%04x", c);
        else
            fputc(c, j->f);
    }
    fputc('"', j->f);
}

static void figures(json *j, const cmp_report *r, const cmp_run *run)
{
    open_(j, "figures", '{');
    for (int f = 0; f < FIG_COUNT; f++) {
        bool lb;
        double v = cmp_value(&r->o, run, (cmp_figure)f, &lb);
        num(j, cmp_figures[f].key, v);
        if (f == FIG_P50 || f == FIG_P99 || f == FIG_P999) {
            char name[64];
            snprintf(name, sizeof name, "%s_is_lower_bound", cmp_figures[f].key);
            flag(j, name, lb);
        }
    }
    num(j, "latency_p90_ms",
        run->ran && run->load.latency.count > 0 ? (double)load_latency(&run->load, 0.9, NULL) / 1e6
                                                : NAN);
    num(j, "latency_max_ms",
        run->ran && run->load.latency.count > 0 ? (double)run->load.latency.max / 1e6 : NAN);
    close_(j, '}');
}

static void requests(json *j, const cmp_run *run)
{
    const load_result *d = &run->load;
    open_(j, "requests", '{');
    num(j, "target_per_second", run->rate > 0 ? run->rate : NAN);
    count(j, "due", d->due);
    count(j, "sent", d->sent);
    count(j, "answered", d->answered);
    count(j, "answered_late", d->late);
    count(j, "unsent", d->unsent);
    count(j, "unanswered", d->unanswered);
    count(j, "status_not_200", d->bad_status);
    count(j, "connection_closed", d->closed);
    count(j, "malformed", d->malformed);
    count(j, "timed_out", d->timed_out);
    count(j, "reconnects", d->reconnects);
    count(j, "connect_failures", d->connect_failures);
    count(j, "body_bytes", d->body_bytes);
    num(j, "elapsed_seconds", d->elapsed_s);
    num(j, "drain_seconds", d->drain_s);
    num(j, "generator_cpu_seconds", d->cpu_s);
    num(j, "generator_lateness_p99_ms",
        d->lateness.count > 0 ? (double)load_hist_quantile(&d->lateness, 0.99) / 1e6 : NAN);
    close_(j, '}');
}

static void counters(json *j, const char *name, const cmp_counters *c)
{
    open_(j, name, '{');
    flag(j, "hooked", c->hooked);
    if (c->hooked) {
        count(j, "alloc_bytes", c->alloc_bytes);
        count(j, "alloc_peak_bytes", c->peak_alloc_bytes);
        count(j, "allocated_bytes_total", c->total_alloc_bytes);
        count(j, "mallocs_total", c->mallocs);
        count(j, "frees_total", c->frees);
    }
    if (c->ok)
        count(j, "sys_bytes", c->sys_bytes);
    close_(j, '}');
}

static void malloc_timing(json *j, const cmp_run *run)
{
    open_(j, "malloc", '{');
    for (int f = 0; f < TIMING_COUNT; f++)
        num(j, cmp_timing_figures[f].key, cmp_timing_value(run, (cmp_timing_figure)f));
    flag(j, "malloc_longest_call_before_load", cmp_timing_longest_before(run));
    open_(j, "calls_at_most", '[');
    double total = cmp_timing_calls(run, run->timing_end.buckets - 1); /* NAN: there are none */
    for (size_t i = 0; i < run->timing_end.buckets && !isnan(total); i++) {
        key(j, NULL);
        fputs("{\"seconds\": ", j->f);
        value(j, run->timing_end.le_s[i]);
        fprintf(j->f, ", \"calls\": %.0f}", cmp_timing_calls(run, i));
    }
    close_(j, ']');
    close_(j, '}');
}

/* One line an element: a file that people look at too. */
static void series(json *j, const cmp_run *run)
{
    open_(j, "samples", '[');
    for (size_t i = 0; i < run->samples; i++) {
        const cmp_sample *s = &run->sample[i];
        key(j, NULL);
        fprintf(j->f,
                "{\"t_seconds\": %.3f, \"answered\": %llu, \"cpu_seconds\": %.6f, "
                "\"rss_bytes\": %llu",
                s->t_s, (unsigned long long)s->answered, (double)s->cpu_ns / 1e9,
                (unsigned long long)s->rss_bytes);
        if (s->c.ok)
            fprintf(j->f, ", \"sys_bytes\": %llu", (unsigned long long)s->c.sys_bytes);
        if (s->c.hooked)
            fprintf(j->f,
                    ", \"alloc_bytes\": %llu, \"allocated_bytes_total\": %llu, "
                    "\"mallocs_total\": %llu, \"frees_total\": %llu",
                    (unsigned long long)s->c.alloc_bytes,
                    (unsigned long long)s->c.total_alloc_bytes, (unsigned long long)s->c.mallocs,
                    (unsigned long long)s->c.frees);
        fputc('}', j->f);
    }
    close_(j, ']');
    open_(j, "seconds", '[');
    for (size_t i = 0; i < run->load.seconds; i++) {
        const load_second *s = &run->load.second[i];
        key(j, NULL);
        fprintf(j->f,
                "{\"t_seconds\": %.3f, \"answered\": %llu, \"failed\": %llu, \"waiting\": %llu, ",
                s->t_s, (unsigned long long)s->answered, (unsigned long long)s->failed,
                (unsigned long long)s->waiting);
        if (s->answered > 0)
            fprintf(j->f,
                    "\"latency_p50_ms\": %.3f, \"latency_p99_ms\": %.3f, "
                    "\"latency_max_ms\": %.3f}",
                    (double)s->p50_ns / 1e6, (double)s->p99_ns / 1e6, (double)s->max_ns / 1e6);
        else
            fputs("\"latency_p50_ms\": null, \"latency_p99_ms\": null, \"latency_max_ms\": null}",
                  j->f);
    }
    close_(j, ']');
}

static void run_(json *j, const cmp_report *r, const cmp_run *run)
{
    open_(j, cmp_side_name[run->side], '{');
    flag(j, "ran", run->ran);
    figures(j, r, run);
    requests(j, run);
    counters(j, "counters_at_start", &run->start);
    counters(j, "counters_at_end", &run->end);
    open_(j, "process", '{');
    num(j, "cpu_seconds",
        run->proc_end.ok ? (double)(run->proc_end.cpu_ns - run->proc_start.cpu_ns) / 1e9 : NAN);
    num(j, "rss_at_start_bytes", run->proc_start.ok ? (double)run->proc_start.rss_bytes : NAN);
    flag(j, "died", run->died);
    flag(j, "killed_by_harness", run->child.killed);
    num(j, "wait_status", run->child.gone ? (double)run->child.status : NAN);
    close_(j, '}');
    if (run->timing)
        malloc_timing(j, run);
    cmp_sentence s[CMP_SENTENCES_MAX];
    size_t n = cmp_complaints(run, s);
    for (int remark = 0; remark < 2; remark++) {
        open_(j, remark ? "remarks" : "complaints", '[');
        for (size_t i = 0; i < n; i++)
            if (s[i].remark == (remark != 0))
                str(j, NULL, s[i].text);
        close_(j, ']');
    }
    series(j, run);
    close_(j, '}');
}

static void population(json *j, const cmp_report *r, size_t i)
{
    const cmp_population *p = &r->population[i];
    open_(j, NULL, '{');
    str(j, "name", p->name);
    str(j, "kind", p->kind == LOAD_ZIPF ? "zipf" : "uniform");
    num(j, "theta", p->kind == LOAD_ZIPF ? LOAD_ZIPF_THETA : NAN);
    count(j, "ids", p->ids);
    count(j, "id_bytes", p->id_bytes);
    for (int s = 0; s < CMP_SIDES; s++)
        run_(j, r, &r->run[i][s]);
    open_(j, "delta_percent", '{');
    for (int f = 0; f < FIG_COUNT; f++)
        num(j, cmp_figures[f].key,
            cmp_delta_percent(cmp_value(&r->o, &r->run[i][CMP_BEFORE], (cmp_figure)f, NULL),
                              cmp_value(&r->o, &r->run[i][CMP_AFTER], (cmp_figure)f, NULL)));
    close_(j, '}');
    close_(j, '}');
}

static void parameters(json *j, const cmp_report *r)
{
    open_(j, "parameters", '{');
    num(j, "duration_seconds", r->o.seconds);
    num(j, "rate_per_second", r->o.rate);
    count(j, "ids", r->o.ids);
    count(j, "connections", r->o.connections);
    count(j, "seed", r->o.seed);
    num(j, "saturation_seconds", r->o.saturation_s);
    count(j, "saturation_connections", CMP_SATURATION);
    num(j, "price_usd_per_gib_month", r->o.price_per_gib);
    count(j, "instances", CMP_INSTANCES);
    str(j, "work_ms", r->machine.work_ms);
    str(j, "cache_size", r->machine.cache_size);
    str(j, "max_workers", r->machine.max_workers);
    str(j, "before", r->o.program[CMP_BEFORE]);
    str(j, "after", r->o.program[CMP_AFTER]);
    close_(j, '}');
    open_(j, "machine", '{');
    str(j, "cpu", r->machine.cpu);
    count(j, "cores", (uint64_t)r->machine.cores);
    num(j, "memory_gib", r->machine.memory_gib);
    str(j, "kernel", r->machine.kernel);
    close_(j, '}');
}

int cmp_write_json(FILE *f, const void *report)
{
    const cmp_report *r = report;
    json j = {.f = f, .first = true};
    open_(&j, NULL, '{');
    str(&j, "tool", "service-compare");
    str(&j, "memkit_version", MEMKIT_VERSION);
    str(&j, "date", r->machine.date);
    num(&j, "took_seconds", r->took_s);
    flag(&j, "void", cmp_report_void(r));
    parameters(&j, r);
    open_(&j, "article_delta_percent", '{');
    for (int i = 0; i < FIG_COUNT; i++)
        if (!isnan(cmp_figures[i].article))
            num(&j, cmp_figures[i].key, cmp_figures[i].article);
    close_(&j, '}');
    open_(&j, "populations", '[');
    for (size_t i = 0; i < r->populations; i++)
        population(&j, r, i);
    close_(&j, ']');
    open_(&j, "saturation", '{');
    str(&j, "population", r->population[r->saturation_population].name);
    for (int s = 0; s < CMP_SIDES; s++)
        run_(&j, r, &r->saturation[s]);
    close_(&j, '}');
    open_(&j, "without_counters", '{');
    str(&j, "population", r->population[r->bare_population].name);
    for (int s = 0; s < CMP_SIDES; s++)
        run_(&j, r, &r->bare[s]);
    open_(&j, "noise_percent", '{');
    cmp_noise noise = cmp_counters_noise(r);
    num(&j, "cpu_us_per_request", noise.cpu);
    num(&j, "latency_p99_ms", noise.p99);
    close_(&j, '}');
    close_(&j, '}');
    open_(&j, "malloc_timing", '{');
    str(&j, "population", r->population[r->timing_population].name);
    num(&j, "duration_seconds", r->o.timing_s);
    for (int s = 0; s < CMP_SIDES; s++)
        run_(&j, r, &r->timing[s]);
    close_(&j, '}');
    close_(&j, '}');
    fputc('\n', f);
    return 0;
}
