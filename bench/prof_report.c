/* prof_report.c - the table of profilers, or JSON. */
#include "prof_bench.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double median, min, max;
} spread;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of one member of the runs. */
static spread spread_of(const row *r, unsigned threads, size_t member)
{
    double v[REPEATS_MAX];
    const unsigned n = r->n[threads - 1];
    if (n == 0)
        return (spread){0};
    for (unsigned i = 0; i < n; i++)
        memcpy(&v[i], (const char *)&r->runs[threads - 1][i] + member, sizeof *v);
    qsort(v, n, sizeof *v, by_value);
    return (spread){(v[(n - 1) / 2] + v[n / 2]) / 2, v[0], v[n - 1]};
}

#define SPREAD(r, threads, member) spread_of(r, threads, offsetof(run_result, member))

/* Of each profiled run and the run of the plain malloc in the same round: what slowed the machine
 * then slowed both. The slow rows have fewer rounds. */
static double ratio(const row *r, unsigned threads, size_t member)
{
    const row *base = &rows[r->base];
    double v[REPEATS_MAX];
    unsigned n = 0;
    for (; n < r->n[threads - 1] && n < base->n[threads - 1]; n++) {
        double mine, plain;
        memcpy(&mine, (const char *)&r->runs[threads - 1][n] + member, sizeof mine);
        memcpy(&plain, (const char *)&base->runs[threads - 1][n] + member, sizeof plain);
        v[n] = mine / plain;
    }
    if (n == 0)
        return 0;
    qsort(v, n, sizeof *v, by_value);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

#define RATIO(r, threads, member) ratio(r, threads, offsetof(run_result, member))

static void print_target(const row *r, unsigned threads, double reached)
{
    const double target = r->target[threads - 1];
    if (target > 0)
        printf("  %s%.2f %s", "<= ", target, reached <= target ? "reached" : "MISSED");
}

static void print_row(const row *r, unsigned threads)
{
    if (r->n[threads - 1] == 0) {
        printf("%-38s  absent: %s\n", r->name, r->absent);
        return;
    }
    const spread wall = SPREAD(r, threads, wall_ns);
    char range[40];
    snprintf(range, sizeof range, "%.1f-%.1f", wall.min, wall.max);
    printf("%-38s %9.1f %17s %9.1f %9.1f", r->name, wall.median, range,
           SPREAD(r, threads, cpu_ns).median, SPREAD(r, threads, whole_ns).median);
    const double of_cpu = RATIO(r, threads, cpu_ns);
    printf(" %7.2f %7.2f", RATIO(r, threads, wall_ns), of_cpu);
    printf(" %8.0f",
           SPREAD(r, threads, rss_kib).median - SPREAD(&rows[r->base], threads, rss_kib).median);
    print_target(r, threads, of_cpu);
    putchar('\n');
}

static void print_instructions(const bench_opts *o)
{
    if (!o->instructions)
        return;
    puts("\ninstructions a pair, one thread (callgrind)");
    for (unsigned i = 0; i < row_count; i++) {
        const row *r = &rows[i];
        if (!r->counted)
            continue;
        if (r->instructions <= 0)
            printf("%-38s  absent: %s\n", r->name, r->absent[0] ? r->absent : "no valgrind");
        else
            printf("%-38s %9.1f  + %.1f\n", r->name, r->instructions,
                   r->instructions - rows[r->base].instructions);
    }
}

/* "of the figure": the row with that short name; both must be there. */
static void print_added(void)
{
    const row *empty = &rows[1], *sampling = &rows[3], *every = &rows[4];
    puts("");
    for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
        const double e = SPREAD(empty, threads, cpu_ns).median;
        const double s = SPREAD(sampling, threads, cpu_ns).median;
        const double a = SPREAD(every, threads, cpu_ns).median;
        const double plain = SPREAD(&rows[every->base], threads, cpu_ns).median;
        if (s > 0 && e > 0)
            printf("%u thread%s: memkit at 512 KiB adds %.1f ns a pair to the empty preload (<= 5 "
                   "%s)\n",
                   threads, threads == 1 ? "" : "s", s - e, s - e <= 5 ? "reached" : "MISSED");
        if (a > 0 && plain > 0)
            printf("%u thread%s: memkit at every allocation adds %.1f ns a pair to glibc (<= 115 "
                   "%s)\n",
                   threads, threads == 1 ? "" : "s", a - plain,
                   a - plain <= 115 ? "reached" : "MISSED");
    }
}

static void print_own(const bench_opts *o)
{
    for (unsigned i = 0; i < row_count; i++) {
        const row *r = &rows[i];
        if (r->n[0] != 0 && r->runs[0][0].own_bytes != 0 && r->want_rate != 0)
            printf("%s: %" PRIu64 " samples at %" PRIu64 " stacks; it holds %.2f MiB for itself "
                   "(<= 3 %s)\n",
                   r->name + 2, r->runs[0][0].samples, r->runs[0][0].sites,
                   (double)r->runs[0][0].own_bytes / 1048576,
                   r->runs[0][0].own_bytes <= 3 * 1048576 ? "reached" : "MISSED");
        for (unsigned t = 0; t < THREADS_MAX; t++)
            if (r->n[t] != 0 && r->disk_bytes[t] != 0)
                printf("%s: leaves %.2f MiB on disk after %" PRIu64
                       " pairs in each of %u threads\n",
                       r->name + 2, (double)r->disk_bytes[t] / 1048576, row_pairs(o, r), t + 1);
        for (unsigned t = 0; t < THREADS_MAX; t++)
            if (r->reading[t].seconds > 0)
                printf("%s: its %s (given 4 GiB of memory) read %.2f MiB of %u threads in %.2f "
                       "s%s%s\n",
                       r->name + 2, strrchr(r->reader, '/') + 1,
                       (double)r->reading[t].bytes / 1048576, t + 1, r->reading[t].seconds,
                       r->reading[t].trouble[0] != '\0' ? ", then " : "", r->reading[t].trouble);
    }
}

static void print_table(const bench_opts *o, const char *inside)
{
    printf(
        "%" PRIu64 " pairs a thread (a tenth for slow rows), %u rounds (slow: 2), each row once a"
        " round\nns a pair: median, min-max; processor time; until all of it has ended. Ratios to"
        " the same\nmalloc without a profiler, by time and by processor time: targets are for the"
        " latter.\n",
        o->pairs, o->repeats);
    for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
        printf("\n%-38s %9s %17s %9s %9s %7s %7s %8s\n", threads == 1 ? "1 thread" : "2 threads",
               "ns", "min-max", "cpu ns", "to end", "x time", "x cpu", "+KiB RSS");
        for (unsigned i = 0; i < row_count; i++)
            print_row(&rows[i], threads);
    }
    print_added();
    print_own(o);
    print_instructions(o);
    if (inside[0] != '\0')
        printf("\n%s", inside);
}

/* ---- JSON ---- */

static void json_text(const char *text)
{
    putchar('"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            putchar('\\');
        if ((unsigned char)*p >= ' ')
            putchar(*p);
    }
    putchar('"');
}

static void json_runs(const row *r, unsigned threads)
{
    printf(
        "\"threads_%u\": {\"ratio_time\": %.4f, \"ratio_cpu\": %.4f, \"disk_bytes\": %" PRIu64 ", ",
        threads, RATIO(r, threads, wall_ns), RATIO(r, threads, cpu_ns), r->disk_bytes[threads - 1]);
    if (r->reading[threads - 1].seconds > 0) {
        printf("\"reader\": {\"seconds\": %.3f, \"bytes\": %" PRIu64 ", \"trouble\": ",
               r->reading[threads - 1].seconds, r->reading[threads - 1].bytes);
        json_text(r->reading[threads - 1].trouble);
        printf("}, ");
    }
    printf("\"runs\": [");
    for (unsigned i = 0; i < r->n[threads - 1]; i++) {
        const run_result *x = &r->runs[threads - 1][i];
        printf("%s{\"ns\": %.2f, \"cpu_ns\": %.2f, \"to_end_ns\": %.2f, \"rss_kib\": %.0f, "
               "\"samples\": %" PRIu64 ", \"stacks\": %" PRIu64 ", \"own_bytes\": %" PRIu64 "}",
               i == 0 ? "" : ", ", x->wall_ns, x->cpu_ns, x->whole_ns, x->rss_kib, x->samples,
               x->sites, x->own_bytes);
    }
    printf("]}");
}

static void print_json(const bench_opts *o, const char *inside)
{
    printf("{\"pairs\": %" PRIu64 ", \"rows\": [\n", o->pairs);
    for (unsigned i = 0; i < row_count; i++) {
        const row *r = &rows[i];
        printf("  {\"name\": ");
        json_text(r->name + strspn(r->name, " "));
        printf(", \"malloc\": ");
        json_text(rows[r->base].name);
        if (r->absent[0] != '\0') {
            printf(", \"absent\": ");
            json_text(r->absent);
        }
        printf(", \"pairs\": %" PRIu64 ", \"instructions\": %.1f, ", row_pairs(o, r),
               r->instructions);
        json_runs(r, 1);
        printf(", ");
        json_runs(r, 2);
        printf("}%s\n", i + 1 < row_count ? "," : "");
    }
    printf("], \"profile\": [");
    for (const char *line = inside, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char one[256];
        snprintf(one, sizeof one, "%.*s", (int)(end - line), line);
        printf("%s", line == inside ? "" : ", ");
        json_text(one);
    }
    puts("]}");
}

void report(const bench_opts *o, const char *inside)
{
    if (o->json)
        print_json(o, inside);
    else
        print_table(o, inside);
}
