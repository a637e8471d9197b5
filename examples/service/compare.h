/* compare.h - service-compare, what `make compare` runs: the service before and after under the
 * same load, and the report on it.
 *
 * - compare_main.c: the plan of runs, signals, progress
 * - compare_opts.c: the command line
 * - compare_run.c: one run: start, scrape, load, sample, scrape, stop
 * - compare_proc.c: the service as a child process, and what /proc says of it
 * - compare_scrape.c: a small HTTP GET, /metrics
 * - compare_figures.c: from raw counts to figures; what went wrong, in sentences
 * - compare_timing.c: the time inside malloc, from the histogram in /metrics
 * - compare_report.c: the report's text, once for terminal, Markdown and HTML
 * - compare_emit.c: headings, items, tables in these forms; files written whole or not at all
 * - compare_json.c: all figures and series
 * - compare_html.c, compare_curves.c, compare_chart.c: the page, its curves, one curve as SVG
 */
#ifndef COMPARE_H
#define COMPARE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "load.h"

#define CMP_POPULATIONS_MAX 3
#define CMP_INSTANCES       10   /* the article's */
#define CMP_SATURATION      1024 /* connections */
#define CMP_GRACE_S         2.0
#define CMP_CONN_MEMORY     (24u << 10) /* libmicrohttpd's, of a connection: FRONT_CONN_MEMORY */

enum { CMP_BEFORE, CMP_AFTER, CMP_SIDES };
extern const char *const cmp_side_name[CMP_SIDES]; /* "before", "after" */

typedef struct {
    const char *program[CMP_SIDES];
    const char *prof; /* libmemkit-prof.so.0 */
    const char *out;  /* directory */
    double seconds, saturation_s, timing_s;
    double rate;
    uint64_t ids, seed;
    size_t id_bytes; /* 0: the three standard populations */
    unsigned connections;
    double price_per_gib; /* USD a month */
    bool json;
} cmp_opts;

typedef struct {
    char name[96];
    load_ids_kind kind;
    uint64_t ids;
    size_t id_bytes;
} cmp_population;

/* compare_opts.c: both exit with status 2 where the command line is wrong. */
void cmp_parse(int argc, char **argv, cmp_opts *o);
void cmp_usage_error(const char *what, const char *value);

/* compare_scrape.c */

typedef struct {
    bool ok;     /* it was scraped */
    bool hooked; /* the five counters mean something */
    uint64_t alloc_bytes, peak_alloc_bytes, total_alloc_bytes, mallocs, frees;
    uint64_t sys_bytes;
} cmp_counters;

/* GET within timeout_ms in all. Returns the HTTP status, or -1 with errno. The body goes to buf,
 * '\0'-terminated; EMSGSIZE when it does not fit. */
int cmp_http_get(const char *target, const char *path, char *buf, size_t cap, int timeout_ms);

#define CMP_TIMING_BUCKETS 64

/* What the preloaded library says of the time inside malloc, with MEMKIT_TIMING=1. */
typedef struct {
    bool ok; /* all of it was there */
    size_t buckets;
    double le_s[CMP_TIMING_BUCKETS];      /* upper bounds, ascending; the last one is INFINITY */
    uint64_t at_most[CMP_TIMING_BUCKETS]; /* calls that took no longer: cumulative */
    uint64_t calls;
    double sum_s;
    double longest_s; /* the longest call since the process began */
    uint64_t longest_switches;
} cmp_timing;

/* Scrapes /metrics. 0, or -1 with errno and out->ok false. *timing (where not NULL) is changed only
 * by a scrape that tells of it. */
int cmp_scrape(const char *target, int timeout_ms, cmp_counters *out, cmp_timing *timing);

/* The value of a metric that has these labels, as written: "name value" or "name{labels} value" on
 * a line of its own. false: it is not there, or no number. */
bool cmp_metric(const char *text, const char *series, double *out);

/* The parser behind it, for the text of a scrape. */
void cmp_counters_parse(const char *text, cmp_counters *out);

/* compare_proc.c */

typedef struct {
    pid_t pid; /* 0: none */
    char target[64];
    int status; /* of waitpid, once gone */
    bool gone;
    bool killed; /* by us, because it did not stop when asked */
} cmp_child;

typedef struct {
    bool ok;
    uint64_t cpu_ns, rss_bytes, peak_rss_bytes;
} cmp_proc;

/* Starts the program at 127.0.0.1 and any port, with `preload` (or none) in LD_PRELOAD, its output
 * in the file `log`, and waits until it answers /health. `timing`: with MEMKIT_TIMING=1, which it
 * does not have otherwise. 0, or -1 and `why` says what happened. */
int cmp_child_start(cmp_child *c, const char *program, const char *preload, bool timing,
                    const char *log, char *why, size_t cap);
bool cmp_child_alive(cmp_child *c);
/* SIGTERM; SIGKILL when that has no effect within `seconds`. */
void cmp_child_stop(cmp_child *c, double seconds);
/* Kills the child that runs, if one does; async-signal-safe. */
void cmp_child_kill(void);
/* "exit status 3", "killed by signal 9 (Killed)" */
void cmp_exit_text(int status, char *out, size_t cap);
uint64_t cmp_proc_cpu_ns(pid_t pid);
void cmp_proc_read(pid_t pid, cmp_proc *out);

/* compare_run.c */

/* Once a second during a run. */
typedef struct {
    double t_s;
    uint64_t answered, cpu_ns; /* since the start */
    uint64_t rss_bytes, peak_rss_bytes;
    uint64_t scrapes; /* up to and with this one's */
    cmp_counters c;   /* .ok false: not scraped in time, or not at all in this run */
} cmp_sample;

typedef struct {
    int side; /* CMP_BEFORE, CMP_AFTER */
    const cmp_population *population;
    double rate; /* 0: closed loop */
    bool counters;
    bool timing; /* with them, also the time inside malloc is measured */
    unsigned connections;
    bool ran;  /* the load was run; else `error` says why not */
    bool died; /* the service, before it was asked to stop */
    /* 1 + the index of the sample that `end` is of, the last one with a scrape, because the scrape
     * at the end failed; that proc_end is of, because the service died. 0: of the end, as wanted */
    size_t end_sample, proc_sample;
    char error[320];
    cmp_child child;
    load_result load;
    cmp_counters start, end;
    cmp_counters scrape_cost; /* what one scrape itself adds to the counters */
    uint64_t scrapes;         /* between start and end */
    cmp_timing timing_start, timing_end, timing_cost; /* as start, end and scrape_cost */
    cmp_proc proc_start, proc_end;
    cmp_sample *sample;
    size_t samples, sample_cap;
} cmp_run;

typedef struct {
    double elapsed_s;
    uint64_t last_rate, last_p99_ns, rss_bytes, failed, waiting;
} cmp_progress;

typedef void (*cmp_progress_fn)(void *arg, const cmp_progress *p);

/* Runs it; never fails as a function: what failed is in *run. `log`: file for the service's output.
 * progress is called about once a second, from another thread. */
void cmp_run_one(const cmp_opts *o, cmp_run *run, double seconds, unsigned connections,
                 const char *log, cmp_progress_fn progress, void *arg);
void cmp_run_free(cmp_run *run);

/* Set by signals: the comparison is to end. cmp_end_load ends the load that runs. */
extern volatile sig_atomic_t cmp_stop, cmp_end_load;

/* compare_figures.c */

typedef enum {
    FIG_ALLOC_NOW,
    FIG_ALLOC_TOTAL,
    FIG_SYS,
    FIG_RSS,
    FIG_RSS_OWN,
    FIG_PEAK_RSS,
    FIG_MALLOCS_PER_REQUEST,
    FIG_BYTES_PER_REQUEST,
    FIG_BODY_BYTES,
    FIG_CPU_PER_REQUEST,
    FIG_P50,
    FIG_P99,
    FIG_P999,
    FIG_RATE,
    FIG_COST,
    FIG_COUNT
} cmp_figure;

typedef enum {
    UNIT_BYTES,
    UNIT_PLAIN_BYTES,
    UNIT_COUNT,
    UNIT_US,
    UNIT_MS,
    UNIT_RATE,
    UNIT_USD
} cmp_unit;

typedef struct {
    const char *key; /* in the JSON, with its unit */
    const char *label;
    cmp_unit unit;
    double article; /* the article's delta in per cent; NAN: it has none */
} cmp_figure_info;

extern const cmp_figure_info cmp_figures[FIG_COUNT];

/* NAN where there is none. *lower_bound (where not NULL): the truth may be above. */
double cmp_value(const cmp_opts *o, const cmp_run *r, cmp_figure f, bool *lower_bound);
double cmp_delta_percent(double before, double after);
/* Answers at the end (0), or at the sample of that index + 1; NAN for none. */
double cmp_answered_by(const cmp_run *r, size_t sample);
/* What the load did to a counter: without what was there before it, and without our scrapes. */
double cmp_grown(double start, double end, double scrape, uint64_t scrapes);

/* What is wrong with a run, one sentence each; returns how many there are. */
typedef struct {
    bool remark; /* bears on how exact the figures are; the run itself was in order */
    char text[320];
} cmp_sentence;
#define CMP_SENTENCES_MAX 12
size_t cmp_complaints(const cmp_run *r, cmp_sentence out[CMP_SENTENCES_MAX]);

/* Whether the service did not keep up with the rate: it is below by more than a hundredth, and
 * requests were lost or failed, or a queue grew. */
bool cmp_missed_rate(const cmp_run *r);
/* The same, and not only because of answers that were wrong. */
bool cmp_broke_down(const cmp_run *r);

/* Whether the run makes the comparison void. before is forgiven what after is not. */
bool cmp_run_void(const cmp_run *r);

/* compare_timing.c */

typedef enum {
    TIMING_PER_REQUEST,
    TIMING_CPU_SHARE,
    TIMING_P99, /* an upper bound: the histogram's bucket's */
    TIMING_LONGEST,
    TIMING_SWITCHES, /* involuntary context switches in the longest call */
    TIMING_COUNT
} cmp_timing_figure;

typedef struct {
    const char *key; /* in the JSON */
    const char *label;
    int decimals;
    bool delta; /* a difference in per cent means something */
} cmp_timing_info;

extern const cmp_timing_info cmp_timing_figures[TIMING_COUNT];

void cmp_timing_parse(const char *text, cmp_timing *out);
/* Calls of the load that took at most le_s of the bucket, our own scrapes taken off. */
double cmp_timing_calls(const cmp_run *r, size_t bucket);
/* NAN where there is none. */
double cmp_timing_value(const cmp_run *r, cmp_timing_figure f);
/* Whether the longest call was before the load. */
bool cmp_timing_longest_before(const cmp_run *r);

/* compare_report.c (its text: compare_report.h), compare_json.c, compare_html.c */

typedef struct {
    char date[40], kernel[160], cpu[100], work_ms[32], cache_size[32], max_workers[32];
    long cores;
    double memory_gib;
} cmp_machine;

typedef struct {
    cmp_opts o;
    cmp_machine machine;
    size_t populations;
    cmp_population population[CMP_POPULATIONS_MAX];
    cmp_run run[CMP_POPULATIONS_MAX][CMP_SIDES];
    size_t saturation_population, bare_population, timing_population; /* indexes */
    cmp_run saturation[CMP_SIDES];
    cmp_run bare[CMP_SIDES]; /* without the counters */
    cmp_run timing[CMP_SIDES];
    double took_s;
} cmp_report;

/* Below how many per cent a difference between runs with and without counters says nothing. The
 * largest of 3; the standard deviation of the one-second figures of those runs; and how much faster
 * a service was with the counters, which cannot be their doing: two runs differ by that much. NAN:
 * too few seconds to tell. */
typedef struct {
    double cpu, p99;
} cmp_noise;
cmp_noise cmp_counters_noise(const cmp_report *r);

bool cmp_report_void(const cmp_report *r);
int cmp_write_json(FILE *f, const void *report);
int cmp_write_html(FILE *f, const void *report);

#endif
