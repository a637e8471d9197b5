/* prof_main.c - profilers beside each other: the same work under each, in turns, in one go.
 *
 * Each round runs every row once, with one thread and with two, so that what slows the machine for
 * a while slows them all. A row whose work came to another result than glibc's makes the bench
 * fail; one that is not installed here is named as absent.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOW_REPEATS 2

static bool failed;

/* The checksum of so many threads and pairs, by glibc alone. */
static uint64_t truth(const bench_opts *o, bool slow, unsigned threads)
{
    static uint64_t known[2][THREADS_MAX];
    uint64_t *k = &known[slow][threads - 1];
    if (*k == 0) {
        row plain = {.program = "prof_plain", .slow = slow};
        run_result r = {0};
        if (!row_run(o, &plain, threads, &r)) {
            fprintf(stderr, "prof-bench: the workload alone: %s\n", plain.absent);
            exit(1);
        }
        *k = r.checksum;
    }
    return *k;
}

static void run_once(const bench_opts *o, row *r, unsigned threads)
{
    run_result result = {0};
    if (r->absent[0] != '\0' || !row_run(o, r, threads, &result))
        return;
    if (result.checksum != truth(o, r->slow, threads)) {
        snprintf(r->absent, sizeof r->absent, "its work came to another result");
        failed = true;
        return;
    }
    r->runs[threads - 1][r->n[threads - 1]++] = result;
}

static void run_all(const bench_opts *o)
{
    for (unsigned round = 0; round < o->repeats; round++) {
        for (unsigned i = 0; i < row_count; i++) {
            if (rows[i].slow && round >= SLOW_REPEATS)
                continue;
            for (unsigned threads = 1; threads <= THREADS_MAX; threads++)
                run_once(o, &rows[i], threads);
        }
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\rround %u of %u ", round + 1, o->repeats);
    }
    for (unsigned i = 0; i < row_count; i++)
        for (unsigned threads = 1; rows[i].reader != NULL && threads <= THREADS_MAX; threads++)
            if (rows[i].n[threads - 1] > 0)
                row_read(o, &rows[i], threads);
    for (unsigned i = 0; o->instructions && i < row_count; i++)
        if (rows[i].counted && rows[i].absent[0] == '\0')
            row_count_instructions(o, &rows[i]);
    if (isatty(STDERR_FILENO))
        fputs("\r                 \r", stderr);
}

static void look_at_all(const bench_opts *o)
{
    for (unsigned i = 0; i < row_count; i++) {
        row *r = &rows[i];
        const bool base = r->base == (int)i;
        row_look(o, r);
        if (r->optional && !o->all)
            snprintf(r->absent, sizeof r->absent, "slow, and left out without --all");
        else if (o->only != NULL && !base && strstr(r->name, o->only) == NULL)
            snprintf(r->absent, sizeof r->absent, "left out by --only");
    }
}

static int usage(void)
{
    fputs("usage: prof-bench --build DIR [--pairs N] [--rounds N] [--only PART] [--all] [--json]\n"
          "                  [--no-instructions]\n",
          stderr);
    return 2;
}

static bool parse(int argc, char **argv, bench_opts *o)
{
    static const struct option options[] = {{"build", 1, NULL, 'b'},
                                            {"pairs", 1, NULL, 'p'},
                                            {"rounds", 1, NULL, 'r'},
                                            {"only", 1, NULL, 'o'},
                                            {"all", 0, NULL, 'a'},
                                            {"json", 0, NULL, 'j'},
                                            {"no-instructions", 0, NULL, 'i'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'b':
            o->build = optarg;
            break;
        case 'p':
            o->pairs = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            o->repeats = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'o':
            o->only = optarg;
            break;
        case 'a':
            o->all = true;
            break;
        case 'j':
            o->json = true;
            break;
        case 'i':
            o->instructions = false;
            break;
        default:
            return false;
        }
    }
    return optind == argc && o->build != NULL && o->pairs >= 100000 && o->pairs % 1000 == 0 &&
           o->repeats >= 1 && o->repeats <= REPEATS_MAX;
}

int main(int argc, char **argv)
{
    bench_opts o = {.pairs = 1000000, .repeats = 7, .instructions = true};
    if (!parse(argc, argv, &o))
        return usage();
    snprintf(o.tmp, sizeof o.tmp, "/tmp/prof-bench.XXXXXX");
    if (mkdtemp(o.tmp) == NULL) {
        perror("prof-bench: mkdtemp");
        return 1;
    }
    look_at_all(&o);
    run_all(&o);
    static char inside[8192];
    if (!inside_run(&o, inside, sizeof inside)) {
        fprintf(stderr, "prof-bench: prof_inside: %s\n", inside);
        inside[0] = '\0';
        failed = true;
    }
    rmdir(o.tmp);
    report(&o, inside);
    return failed ? 1 : 0;
}
