/* prof_bench.h - profilers beside each other: what is run, and what came of it.
 *
 *     prof_rows.c    the configurations: whose profiler over which malloc, and where its files are
 *     prof_run.c     one run of one configuration, as a process of its own
 *     prof_report.c  the table, or JSON
 *     prof_main.c    all of it in turns, in one go
 */
#ifndef BENCH_PROF_BENCH_H
#define BENCH_PROF_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#define REPEATS_MAX 64
#define THREADS_MAX 2

typedef struct {
    double wall_ns, cpu_ns; /* a pair, while the work goes on */
    double whole_ns;        /* a pair, from the start of the process until its end */
    uint64_t checksum, rate, samples, sites, own_bytes;
    double rss_kib;
} run_result;

typedef struct {
    const char *name;    /* of a row */
    int base;            /* index of the same malloc without a profiler */
    const char *preload; /* file name; of our build where there is a slash in it */
    const char *program; /* "prof_plain" */
    const char *env[3];
    const char *wrap[6]; /* the command it is run by */
    uint64_t want_rate;  /* that the profiler itself must state */
    const char *reads,
        *reader;         /* the run's raw file, and the program that then makes sense of it */
    const char *refusal; /* on standard error: it is not compiled in */
    bool slow;           /* a tenth of the pairs, and twice only */
    bool optional;       /* with --all */
    double target[THREADS_MAX]; /* ratio to the base; 0: none */
    bool counted;               /* instructions, too */
    /* found by running */
    char absent[160]; /* why there are no more figures; "": there are */
    unsigned n[THREADS_MAX];
    run_result runs[THREADS_MAX][REPEATS_MAX];
    double instructions;              /* a pair; 0: not counted */
    uint64_t disk_bytes[THREADS_MAX]; /* what a run leaves behind */
    struct {
        double seconds; /* 0: not run */
        uint64_t bytes; /* that it had to read */
        char trouble[160];
    } reading[THREADS_MAX];
} row;

extern row rows[];
extern const unsigned row_count;

typedef struct {
    const char *build; /* build/<conf> */
    char tmp[64];      /* a directory that is ours */
    uint64_t pairs;
    unsigned repeats;
    bool json, all, instructions;
    const char *only; /* part of the rows' names; NULL: all */
} bench_opts;

/* Where the library is, in a static buffer; NULL: nowhere. */
const char *library_path(const bench_opts *o, const char *name);
/* Sets r->absent where the row cannot be run here. */
void row_look(const bench_opts *o, row *r);
uint64_t row_pairs(const bench_opts *o, const row *r);

/* Runs it once; false, and r->absent says why. */
bool row_run(const bench_opts *o, row *r, unsigned threads, run_result *out);
/* Runs it with a tenth of the pairs, and its reader over the file that this left. */
void row_read(const bench_opts *o, row *r, unsigned threads);
/* Instructions a pair, by callgrind. */
bool row_count_instructions(const bench_opts *o, row *r);
/* Runs prof_inside and prints what it says; "" where there is none. */
bool inside_run(const bench_opts *o, char *text, unsigned size);

void report(const bench_opts *o, const char *inside);

#endif
