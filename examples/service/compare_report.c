/* compare_report.c - the text of the report, in the article's order: a table for each population,
 * saturation, the counters' own cost, and what one has to know to read them.
 */
#include "compare_report.h"

#include <math.h>
#include <string.h>

#include <memkit/version.h>

#include "compare_curves.h"
#include "front_worker.h"

_Static_assert(CMP_CONN_MEMORY == FRONT_CONN_MEMORY, "the figure to subtract is the front's");

typedef unsigned long long ull;

/* One scale for a row, so that its columns can be compared at a glance. */
static double scale_of(cmp_unit unit, double most, const char **name)
{
    switch (unit) {
    case UNIT_BYTES:
        *name = most >= 0x1p20 ? ", MiB" : ", KiB";
        return most >= 0x1p20 ? 0x1p20 : 0x1p10;
    case UNIT_PLAIN_BYTES:
        *name = ", bytes";
        return 1;
    case UNIT_US:
        *name = ", us";
        return 1;
    case UNIT_MS:
        *name = ", ms";
        return 1;
    case UNIT_USD:
        *name = ", USD a month";
        return 1;
    case UNIT_COUNT:
    case UNIT_RATE:
        break;
    }
    *name = "";
    return 1;
}

static int decimals_for(cmp_unit unit, double most)
{
    if (unit == UNIT_RATE || unit == UNIT_PLAIN_BYTES || most >= 10000)
        return 0;
    return most >= 100 ? 1 : 2;
}

#define NUMBER 40 /* of cmp_number, at most */

static char *percent(char *buf, size_t cap, double v)
{
    char number[NUMBER];
    if (!isfinite(v)) {
        snprintf(buf, cap, "n/a");
        return buf;
    }
    /* No -0.0 %. */
    if (fabs(v) < 0.05)
        v = 0;
    cmp_number(number, sizeof number, fabs(v), 1);
    snprintf(buf, cap, "%s%s %%", v > 0 ? "+" : v < 0 ? "-" : "", number);
    return buf;
}

static void value_cell(char *buf, size_t cap, double v, int decimals, bool lower_bound)
{
    char number[NUMBER];
    cmp_number(number, sizeof number, v, decimals);
    snprintf(buf, cap, "%s%s", lower_bound && isfinite(v) ? ">= " : "", number);
}

static void figure_row(const cmp_report *r, cmp_table *t, const cmp_run run[CMP_SIDES],
                       cmp_figure f)
{
    const cmp_figure_info *info = &cmp_figures[f];
    double v[CMP_SIDES];
    bool lb[CMP_SIDES];
    char label[CMP_CELL], cell[CMP_SIDES][48], delta[48], article[16] = "";
    for (int s = 0; s < CMP_SIDES; s++)
        v[s] = cmp_value(&r->o, &run[s], f, &lb[s]);
    double most = fmax(v[0], v[1]); /* of one, where the other is NAN */
    const char *unit;
    double scale = scale_of(info->unit, most, &unit);
    int decimals = decimals_for(info->unit, most / scale);
    for (int s = 0; s < CMP_SIDES; s++)
        value_cell(cell[s], sizeof cell[s], v[s] / scale, decimals, lb[s]);
    char rate[32];
    snprintf(label, sizeof label, "%s%s%s%s", info->label, unit,
             f == FIG_RATE && run[0].rate > 0 ? ", of " : "",
             f == FIG_RATE && run[0].rate > 0 ? cmp_number(rate, sizeof rate, run[0].rate, 0) : "");
    double d = cmp_delta_percent(v[CMP_BEFORE], v[CMP_AFTER]);
    percent(delta, sizeof delta, d);
    if (!isnan(info->article))
        snprintf(article, sizeof article, "%+.0f %%", info->article);
    cmp_table_row(t, label, cell[CMP_BEFORE], cell[CMP_AFTER], delta, article);
    if (fabs(d) >= 1 && f != FIG_BODY_BYTES)
        cmp_table_tone(t, 3, (d < 0) == (f != FIG_RATE) ? TONE_GOOD : TONE_BAD);
}

static bool in_order(const cmp_run *run)
{
    cmp_sentence s[CMP_SENTENCES_MAX];
    size_t n = cmp_complaints(run, s);
    for (size_t i = 0; i < n; i++) {
        if (!s[i].remark)
            return false;
    }
    return true;
}

static void heads(const cmp_run run[CMP_SIDES], cmp_table *t, bool article)
{
    char head[CMP_SIDES][16];
    for (int i = 0; i < CMP_SIDES; i++)
        snprintf(head[i], sizeof head[i], "%s%s", cmp_side_name[i], in_order(&run[i]) ? "" : " !");
    cmp_table_start(t, article ? 5 : 4, "", head[CMP_BEFORE], head[CMP_AFTER], "delta", "article");
}

/* Returns whether there was anything to say. */
static bool complaints(cmp_emit *e, const cmp_run run[CMP_SIDES], const char *where)
{
    bool any = false;
    for (int i = 0; i < CMP_SIDES; i++) {
        cmp_sentence s[CMP_SENTENCES_MAX];
        size_t n = cmp_complaints(&run[i], s);
        for (size_t k = 0; k < n; k++)
            cmp_emit_item(e, s[k].remark ? "~" : "!", "%s%s: %s.", cmp_side_name[i], where,
                          s[k].text);
        any = any || n > 0;
    }
    return any;
}

/* Without this, a comparison that ended early would print pages of n/a. */
static bool nothing_to_show(const cmp_run run[CMP_SIDES])
{
    return !run[CMP_BEFORE].ran && !run[CMP_AFTER].ran;
}

static void population(cmp_emit *e, const cmp_report *r, size_t i)
{
    const cmp_run *run = r->run[i];
    cmp_table t;
    cmp_emit_heading(e, "%s", r->population[i].name);
    if (!nothing_to_show(run)) {
        heads(run, &t, true);
        for (int f = 0; f < FIG_COUNT; f++)
            figure_row(r, &t, run, (cmp_figure)f);
        cmp_emit_table(e, &t);
    }
    bool any = complaints(e, run, "");
    double grown = cmp_value(&r->o, &run[CMP_BEFORE], FIG_BODY_BYTES, NULL) /
                   cmp_value(&r->o, &run[CMP_AFTER], FIG_BODY_BYTES, NULL);
    if (cmp_broke_down(&run[CMP_BEFORE]) && !cmp_broke_down(&run[CMP_AFTER]) && grown > 4) {
        char body[32];
        cmp_number(body, sizeof body,
                   cmp_value(&r->o, &run[CMP_BEFORE], FIG_BODY_BYTES, NULL) / 1024, 1);
        cmp_emit_item(
            e, "!",
            "before broke down under this load and after did not. before appends to a "
            "key's value at every hit and answers with all of it (%s KiB on average here): "
            "this is a finding, not a fault of the measurement. Its latencies are those "
            "of requests that waited.",
            body);
    }
    if (any)
        cmp_emit_list_end(e);
    if (e->form == FORM_HTML)
        e->failed = cmp_curves_html(e->f, r, i) != 0 || e->failed;
}

static void saturation(cmp_emit *e, const cmp_report *r)
{
    static const cmp_figure list[] = {FIG_RATE, FIG_CPU_PER_REQUEST, FIG_P50, FIG_P99,
                                      FIG_PEAK_RSS};
    cmp_table t;
    cmp_emit_heading(e,
                     "Saturation: %d connections, each as fast as it goes, %g s, %s, without "
                     "the counters",
                     CMP_SATURATION, r->o.saturation_s,
                     r->population[r->saturation_population].name);
    if (!nothing_to_show(r->saturation)) {
        heads(r->saturation, &t, false);
        for (size_t i = 0; i < sizeof list / sizeof *list; i++)
            figure_row(r, &t, r->saturation, list[i]);
        cmp_emit_table(e, &t);
    }
    if (complaints(e, r->saturation, " at saturation"))
        cmp_emit_list_end(e);
}

static void cost_row(const cmp_report *r, cmp_table *t, int side, cmp_figure f, double noise)
{
    const cmp_run *with = &r->run[r->bare_population][side];
    const cmp_run *without = &r->bare[side];
    double a = cmp_value(&r->o, without, f, NULL), b = cmp_value(&r->o, with, f, NULL);
    double d = cmp_delta_percent(a, b);
    char label[CMP_CELL], cell[2][NUMBER], delta[NUMBER + 8], bound[NUMBER + 8];
    snprintf(label, sizeof label, "%s: %s, %s", cmp_side_name[side], cmp_figures[f].label,
             cmp_figures[f].unit == UNIT_US ? "us" : "ms");
    cmp_number(cell[0], sizeof cell[0], a, 2);
    cmp_number(cell[1], sizeof cell[1], b, 2);
    char number[NUMBER];
    snprintf(bound, sizeof bound, "%s%s", cmp_number(number, sizeof number, noise, 1),
             isnan(noise) ? "" : " %");
    cmp_table_row(t, label, cell[0], cell[1], percent(delta, sizeof delta, d), bound,
                  isnan(d)           ? "n/a"
                  : isnan(noise)     ? "too short to tell"
                  : fabs(d) <= noise ? "within noise"
                                     : "above noise");
}

static void counters_cost(cmp_emit *e, const cmp_report *r)
{
    cmp_table t;
    cmp_emit_heading(e, "The counters' own cost, %s", r->population[r->bare_population].name);
    if (nothing_to_show(r->bare)) {
        complaints(e, r->bare, " without counters");
        cmp_emit_list_end(e);
        return;
    }
    cmp_table_start(&t, 6, "", "without", "with", "difference", "noise", "");
    cmp_noise noise = cmp_counters_noise(r);
    for (int side = 0; side < CMP_SIDES; side++) {
        cost_row(r, &t, side, FIG_CPU_PER_REQUEST, noise.cpu);
        cost_row(r, &t, side, FIG_P99, noise.p99);
    }
    cmp_emit_table(e, &t);
    complaints(e, r->bare, " without counters");
    cmp_emit_item(
        e, "",
        "noise: a smaller difference says nothing. It is the largest of 3 %%, of how much "
        "the figure differs from one second to the next within these runs (standard "
        "deviation), and of how much better one was with the counters, which is chance.");
    cmp_emit_list_end(e);
}

static void timing(cmp_emit *e, const cmp_report *r)
{
    cmp_table t;
    cmp_emit_heading(e, "Time in malloc, in place of the article's GC pause: %s, timed, %g s",
                     r->population[r->timing_population].name, r->o.timing_s);
    if (!nothing_to_show(r->timing)) {
        heads(r->timing, &t, false);
        for (int f = 0; f < TIMING_COUNT; f++) {
            const cmp_timing_info *info = &cmp_timing_figures[f];
            double v[CMP_SIDES];
            char cell[CMP_SIDES][NUMBER], delta[NUMBER + 8] = "";
            for (int s = 0; s < CMP_SIDES; s++) {
                v[s] = cmp_timing_value(&r->timing[s], (cmp_timing_figure)f);
                cmp_number(cell[s], sizeof cell[s], v[s], info->decimals);
            }
            if (info->delta)
                percent(delta, sizeof delta, cmp_delta_percent(v[CMP_BEFORE], v[CMP_AFTER]));
            cmp_table_row(&t, info->label, cell[CMP_BEFORE], cell[CMP_AFTER], delta);
        }
        cmp_emit_table(e, &t);
    }
    complaints(e, r->timing, " with malloc timed");
    for (int s = 0; s < CMP_SIDES; s++)
        if (cmp_timing_longest_before(&r->timing[s]))
            cmp_emit_item(e, "~", "%s: the longest call was before the load.", cmp_side_name[s]);
    cmp_emit_item(e, "",
                  "From runs of their own, with MEMKIT_TIMING=1: timing costs, so these figures "
                  "stand beside none of the others. Time is by the clock, from a call of malloc, "
                  "free or another of the family to its return. p99 is the upper bound of its "
                  "bucket in the histogram. The longest call is of the service's whole life; where "
                  "its thread was taken off the CPU meanwhile, most of it is not malloc's doing.");
    cmp_emit_list_end(e);
}

static const char *s_of(const char *number)
{
    return strcmp(number, "1") == 0 ? "" : "s";
}

static void notes(cmp_emit *e, const cmp_report *r)
{
    const cmp_machine *m = &r->machine;
    char ids[32], rate[32];
    cmp_number(ids, sizeof ids, (double)r->o.ids, 0);
    cmp_number(rate, sizeof rate, r->o.rate, 0);
    cmp_emit_heading(e, "Notes");
    cmp_emit_item(e, "", "memkit %s, %s. %s, %ld cores, %.1f GiB, Linux %s.", MEMKIT_VERSION,
                  m->date, m->cpu, m->cores, m->memory_gib, m->kernel);
    cmp_emit_item(e, "",
                  "Load: %s request%s a second (open loop) over %u connection%s for %g s, %s id%s, "
                  "seed %llu: the same ids in the same order for both. WORK_MS %s, CACHE_SIZE %s, "
                  "MAX_WORKERS %s. All took %.0f s.",
                  rate, s_of(rate), r->o.connections, r->o.connections == 1 ? "" : "s",
                  r->o.seconds, ids, s_of(ids), (ull)r->o.seed, m->work_ms, m->cache_size,
                  m->max_workers, r->took_s);
    cmp_emit_item(e, "",
                  "Latency counts from the moment a request was due, not from when it could be "
                  "sent. \">=\": requests that were given up are in it with the time they had "
                  "waited by then. The generator shares the machine with the service.");
    cmp_emit_item(e, "",
                  "The bodies differ: before appends to a key's value at each hit and answers with "
                  "all of it, after keeps the latest. Both wait WORK_MS on hits too.");
    cmp_emit_item(e, "",
                  "Allocated in total, and allocations and bytes a request, are what the load did: "
                  "what was counted before it is taken off, and so are the scrapes' own. Bytes are "
                  "usable bytes. Allocated now, RSS and system memory (private writable mappings) "
                  "are the process's at the end, connections open.");
    cmp_emit_item(e, "",
                  "libmicrohttpd keeps %u KiB for a connection, %.1f MiB for %u, in both columns: "
                  "\"RSS without libmicrohttpd's\" is RSS less that. Its allocations for each "
                  "request are in both columns too, and not taken off.",
                  CMP_CONN_MEMORY >> 10, (double)r->o.connections * CMP_CONN_MEMORY / 0x1p20,
                  r->o.connections);
    cmp_emit_item(e, "",
                  "Memory, %d instances: peak RSS at %.2f USD a GiB and month, which is an "
                  "assumption (PRICE_PER_GIB=).",
                  CMP_INSTANCES, r->o.price_per_gib);
    cmp_emit_item(e, "",
                  "article: the deltas that the article states for its own services, in Go.");
    cmp_emit_list_end(e);
}

bool cmp_report_void(const cmp_report *r)
{
    for (int s = 0; s < CMP_SIDES; s++) {
        bool bad = cmp_run_void(&r->saturation[s]) || cmp_run_void(&r->bare[s]) ||
                   cmp_run_void(&r->timing[s]);
        for (size_t i = 0; i < r->populations; i++)
            bad = bad || cmp_run_void(&r->run[i][s]);
        if (bad)
            return true;
    }
    return false;
}

void cmp_report_emit(cmp_emit *e, const cmp_report *r)
{
    for (size_t i = 0; i < r->populations; i++)
        population(e, r, i);
    saturation(e, r);
    timing(e, r);
    counters_cost(e, r);
    notes(e, r);
    if (cmp_report_void(r))
        cmp_emit_strong(e, "The comparison is void: see the lines with \"!\" above.");
    cmp_emit_end(e);
}

int cmp_write_markdown(FILE *f, const void *report)
{
    cmp_emit e = {.f = f, .form = FORM_MARKDOWN};
    cmp_emit_title(&e, "memkit: the service before and after");
    cmp_report_emit(&e, report);
    return 0;
}
