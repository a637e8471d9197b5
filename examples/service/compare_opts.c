/* compare_opts.c - the command line of service-compare. What is wrong with it ends the program with
 * status 2 and one line that says what.
 */
#define _GNU_SOURCE /* realpath */

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compare.h"
#include "load_number.h"

static const char usage_text[] =
    "usage: service-compare --before PROGRAM --after PROGRAM --prof LIBRARY [options]\n"
    "Runs the example service before and after under the same load, one after the other, and\n"
    "writes one table: on the terminal, in OUT/report.md, OUT/report.json and OUT/report.html,\n"
    "which has curves too. `make compare` calls it.\n"
    "\n"
    "      --before PATH           the service as found\n"
    "      --after PATH            the service mended\n"
    "      --prof PATH             libmemkit-prof.so.0, whose counters are preloaded\n"
    "  -o, --out DIR               default build/compare\n"
    "  -d, --duration S            of each load (default 30)\n"
    "  -r, --rate N                requests a second, open loop (default 10000)\n"
    "  -n, --ids N                 how many different ids (default 1000000)\n"
    "  -b, --id-bytes N            only ids of this length, uniform and Zipf;\n"
    "                              default: uniform 32, uniform 1024, Zipf 1024\n"
    "  -c, --connections N         (default 256)\n"
    "  -s, --seed N                the same seed sends the same ids (default 1)\n"
    "  -p, --price-per-gib USD     of memory, a month (default 3.00: an assumption)\n"
    "      --saturation-seconds S  (default 5, or the duration where that is less)\n"
    "      --timing-seconds S      of the runs that time malloc (same default)\n"
    "      --json                  report.json on standard output in place of the table\n"
    "  -h, --help\n"
    "\n"
    "WORK_MS, CACHE_SIZE and MAX_WORKERS in the environment reach the services.\n"
    "\n"
    "example:\n"
    "  build/bin/service-compare --before build/bin/service-before --after build/bin/service-after "
    "\\\n"
    "      --prof build/lib/libmemkit-prof.so.0 --duration 5\n"
    "\n"
    "exit status: 0 compared, also when before broke down (the report says so); 1 the comparison "
    "is\n"
    "void (after failed, a service did not run or was not counted); 2 usage; 130 interrupted\n";

void cmp_usage_error(const char *what, const char *value)
{
    fprintf(stderr, "service-compare: %s%s%s (--help tells more)\n", what,
            value != NULL ? ": " : "", value != NULL ? value : "");
    exit(2);
}

static double number(const char *name, const char *s, double min, double max, bool whole)
{
    char what[160];
    double v = 0;
    if (load_number(name, s, min, max, whole, &v, what, sizeof what) != 0)
        cmp_usage_error(what, s);
    return v;
}

/* An existing file, as an absolute path; exits where there is none. */
static const char *existing(const char *name, const char *path, int mode)
{
    char what[64];
    struct stat st;
    snprintf(what, sizeof what, "%s is needed", name);
    if (path == NULL)
        cmp_usage_error(what, NULL);
    char *full = realpath(path, NULL);
    const char *why = NULL;
    if (full == NULL || stat(full, &st) != 0)
        why = strerror(errno);
    else if (!S_ISREG(st.st_mode))
        why = "not a file";
    else if (access(full, mode) != 0)
        why = strerror(errno);
    if (why != NULL) {
        fprintf(stderr, "service-compare: %s %s: %s\n", name, path, why);
        exit(2);
    }
    return full;
}

/* It may be missing, as it will be made; but what is there must be a directory. */
static void check_out(const char *path)
{
    struct stat st;
    int rc = stat(path, &st);
    if (path[0] == '\0')
        cmp_usage_error("--out takes a directory, not an empty name", NULL);
    if ((rc == 0 && !S_ISDIR(st.st_mode)) || (rc != 0 && errno == ENOTDIR))
        cmp_usage_error("--out takes a directory, and this is a file or in one", path);
}

void cmp_parse(int argc, char **argv, cmp_opts *o)
{
    *o = (cmp_opts){.out = "build/compare",
                    .seconds = 30,
                    .rate = 10000,
                    .ids = 1000000,
                    .seed = 1,
                    .connections = 256,
                    .price_per_gib = 3};
    enum { OPT_BEFORE = 256, OPT_AFTER, OPT_PROF, OPT_SATURATION, OPT_TIMING, OPT_JSON };
    static const struct option longs[] = {
        {"before", required_argument, NULL, OPT_BEFORE},
        {"after", required_argument, NULL, OPT_AFTER},
        {"prof", required_argument, NULL, OPT_PROF},
        {"out", required_argument, NULL, 'o'},
        {"duration", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},
        {"ids", required_argument, NULL, 'n'},
        {"id-bytes", required_argument, NULL, 'b'},
        {"connections", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {"price-per-gib", required_argument, NULL, 'p'},
        {"saturation-seconds", required_argument, NULL, OPT_SATURATION},
        {"timing-seconds", required_argument, NULL, OPT_TIMING},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "o:d:r:n:b:c:s:p:h", longs, NULL)) != -1) {
        switch (c) {
        case OPT_BEFORE:
            o->program[CMP_BEFORE] = optarg;
            break;
        case OPT_AFTER:
            o->program[CMP_AFTER] = optarg;
            break;
        case OPT_PROF:
            o->prof = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        case 'd':
            o->seconds = number("--duration", optarg, 0.2, 3600, false);
            break;
        case 'r':
            o->rate = number("--rate", optarg, 1, 1e6, false);
            break;
        case 'n':
            o->ids = (uint64_t)number("--ids", optarg, 1, 1e12, true);
            break;
        case 'b':
            o->id_bytes = (size_t)number("--id-bytes", optarg, 1, LOAD_ID_BYTES_MAX, true);
            break;
        case 'c':
            o->connections = (unsigned)number("--connections", optarg, 1, 10000, true);
            break;
        case 's':
            o->seed = (uint64_t)number("--seed", optarg, 0, 0x1p53, true);
            break;
        case 'p':
            o->price_per_gib = number("--price-per-gib", optarg, 0, 1e6, false);
            break;
        case OPT_SATURATION:
            o->saturation_s = number("--saturation-seconds", optarg, 0.2, 600, false);
            break;
        case OPT_TIMING:
            o->timing_s = number("--timing-seconds", optarg, 0.2, 600, false);
            break;
        case OPT_JSON:
            o->json = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            exit(0);
        default:
            fputs("(--help tells more)\n", stderr);
            exit(2);
        }
    }
    if (optind < argc)
        cmp_usage_error("unexpected argument", argv[optind]);
    o->program[CMP_BEFORE] = existing("--before", o->program[CMP_BEFORE], X_OK);
    o->program[CMP_AFTER] = existing("--after", o->program[CMP_AFTER], X_OK);
    o->prof = existing("--prof", o->prof, R_OK);
    if (strpbrk(o->prof, " :") != NULL)
        cmp_usage_error("LD_PRELOAD cannot name a path with a space or a colon in it", o->prof);
    check_out(o->out);
    if (o->saturation_s == 0)
        o->saturation_s = fmin(5, o->seconds);
    if (o->timing_s == 0)
        o->timing_s = fmin(5, o->seconds);
}
