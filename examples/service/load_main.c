/* load_main.c - service-load: the generator of load.h on the command line. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"
#include "load_number.h"

static volatile sig_atomic_t stop;

static const char usage_text[] =
    "usage: service-load [options] HOST:PORT\n"
    "Sends POST /process?id=ID to a service on a loopback address and reports what came back.\n"
    "Latency counts from the moment a request was due, not from when it could be sent.\n"
    "\n"
    "  -r, --rate N          requests a second (default 10000); 0: each connection as fast as it "
    "goes\n"
    "  -d, --duration S      seconds of sending (default 10)\n"
    "  -c, --connections N   kept alive, one request at a time on each (default 256)\n"
    "  -n, --ids N           how many different ids (default 1000000)\n"
    "  -b, --id-bytes N      length of each (default 32)\n"
    "  -z, --zipf[=THETA]    popular and rare ids (default theta 0.99); without: all alike\n"
    "  -s, --seed N          the same seed sends the same ids (default 1)\n"
    "      --timeout S       of one request (default 10)\n"
    "      --grace S         wait so long for what is under way at the end (default 2)\n"
    "      --path P          what the id is appended to (default /process?id=)\n"
    "      --json            the report as JSON\n"
    "  -h, --help\n"
    "\n"
    "example:\n"
    "  LISTEN_ADDR=127.0.0.1:8080 build/bin/service-after &\n"
    "  build/bin/service-load --rate 10000 --duration 5 --zipf 127.0.0.1:8080\n"
    "\n"
    "exit status: 0 all answered; 1 requests lost or errors; 2 usage; 3 the load could not run\n";

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static void progress(void *arg, const load_tick *t)
{
    const load_opts *o = arg;
    fprintf(stderr, "\r\033[K%.0f/%.0f s  %llu answers/s  p99 %.1f ms  waiting %llu  errors %llu",
            t->elapsed_s, o->seconds, (unsigned long long)t->last_rate,
            (double)t->last_p99_ns / 1e6, (unsigned long long)t->waiting,
            (unsigned long long)t->failed);
    fflush(stderr);
}

static void usage_error(const char *what, const char *value)
{
    fprintf(stderr, "service-load: %s%s%s (--help tells more)\n", what, value != NULL ? ": " : "",
            value != NULL ? value : "");
    exit(2);
}

static double number(const char *name, const char *s, double min, double max)
{
    char what[160];
    double v = 0;
    if (load_number(name, s, min, max, false, &v, what, sizeof what) != 0)
        usage_error(what, s);
    return v;
}

static uint64_t whole(const char *name, const char *s, double min, double max)
{
    char what[160];
    double v = 0;
    if (load_number(name, s, min, max, true, &v, what, sizeof what) != 0)
        usage_error(what, s);
    return (uint64_t)v;
}

static void parse(int argc, char **argv, load_opts *o, bool *json)
{
    enum { OPT_TIMEOUT = 256, OPT_GRACE, OPT_PATH, OPT_JSON };
    static const struct option longs[] = {{"rate", required_argument, NULL, 'r'},
                                          {"duration", required_argument, NULL, 'd'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"ids", required_argument, NULL, 'n'},
                                          {"id-bytes", required_argument, NULL, 'b'},
                                          {"zipf", optional_argument, NULL, 'z'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"grace", required_argument, NULL, OPT_GRACE},
                                          {"path", required_argument, NULL, OPT_PATH},
                                          {"json", no_argument, NULL, OPT_JSON},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "r:d:c:n:b:z::s:h", longs, NULL)) != -1) {
        switch (c) {
        case 'r':
            o->rate = number("--rate", optarg, 0, 1e7);
            break;
        case 'd':
            o->seconds = number("--duration", optarg, 0.1, LOAD_SECONDS_MAX);
            break;
        case 'c':
            o->connections = (unsigned)whole("--connections", optarg, 1, LOAD_CONNECTIONS_MAX);
            break;
        case 'n':
            o->ids = whole("--ids", optarg, 1, 0x1p53);
            break;
        case 'b':
            o->id_bytes = whole("--id-bytes", optarg, 1, LOAD_ID_BYTES_MAX);
            break;
        case 'z':
            o->ids_kind = LOAD_ZIPF;
            if (optarg != NULL)
                o->theta = number("--zipf", optarg, 0.01, 10);
            break;
        case 's':
            o->seed = whole("--seed", optarg, 0, 0x1p53);
            break;
        case OPT_TIMEOUT:
            o->timeout_s = number("--timeout", optarg, 0.01, 600);
            break;
        case OPT_GRACE:
            o->grace_s = number("--grace", optarg, 0.01, 600);
            break;
        case OPT_PATH:
            o->path = optarg;
            break;
        case OPT_JSON:
            *json = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            exit(0);
        default:
            fputs("(--help tells more)\n", stderr);
            exit(2);
        }
    }
    if (optind + 1 != argc)
        usage_error("one HOST:PORT is wanted", NULL);
    o->target = argv[optind];
}

/* One list for both forms of the report. */
typedef struct {
    const char *key, *text, *unit;
    double value; /* NAN: there is none */
    bool lower_bound;
} figure;

#define QUANTILES 5

static int report(const load_opts *o, const load_result *r, bool json)
{
    static const double quantile[QUANTILES] = {0.5, 0.9, 0.99, 0.999, 1};
    bool lb[QUANTILES] = {false};
    double ms[QUANTILES];
    for (int i = 0; i < QUANTILES; i++)
        ms[i] =
            r->latency.count > 0 ? (double)load_latency(r, quantile[i], &lb[i]) / 1e6 : (double)NAN;
    double late_ms =
        r->lateness.count > 0 ? (double)load_hist_quantile(&r->lateness, 0.99) / 1e6 : (double)NAN;
    const figure list[] = {
        {"requests_due", "due", "", (double)r->due, false},
        {"requests_sent", "sent", "", (double)r->sent, false},
        {"requests_answered", "answered", "", (double)r->answered, false},
        {"requests_answered_late", "of these, late", "", (double)r->late, false},
        {"requests_unsent", "never sent", "", (double)r->unsent, false},
        {"requests_unanswered", "never answered", "", (double)r->unanswered, false},
        {"errors_status", "status not 200", "", (double)r->bad_status, false},
        {"errors_closed", "connection closed", "", (double)r->closed, false},
        {"errors_malformed", "malformed answers", "", (double)r->malformed, false},
        {"errors_timeout", "timed out", "", (double)r->timed_out, false},
        {"reconnects", "reconnects", "", (double)r->reconnects, false},
        {"connect_failures", "failed to connect", "", (double)r->connect_failures, false},
        {"elapsed_seconds", "elapsed", "s", r->elapsed_s, false},
        {"requests_per_second", "answers a second", "", r->rate_reached, false},
        {"body_bytes", "body bytes", "", (double)r->body_bytes, false},
        {"latency_p50_ms", "latency p50", "ms", ms[0], lb[0]},
        {"latency_p90_ms", "latency p90", "ms", ms[1], lb[1]},
        {"latency_p99_ms", "latency p99", "ms", ms[2], lb[2]},
        {"latency_p999_ms", "latency p99.9", "ms", ms[3], lb[3]},
        {"latency_max_ms", "latency max", "ms", ms[4], lb[4]},
        {"lateness_p99_ms", "generator late p99", "ms", late_ms, false},
        {"generator_cpu_seconds", "generator's CPU", "s", r->cpu_s, false},
    };
    if (json)
        printf("{\"rate_target\": %.15g, \"interrupted\": %s, \"gave_up\": %s", o->rate,
               r->interrupted ? "true" : "false", r->gave_up ? "true" : "false");
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const figure *f = &list[i];
        if (isnan(f->value) && json)
            printf(", \"%s\": null", f->key);
        else if (isnan(f->value))
            printf("  %-20s   %13s\n", f->text, "n/a");
        else if (json)
            printf(", \"%s\": %.*f", f->key, f->value == floor(f->value) ? 0 : 6, f->value);
        else
            printf("  %-20s %2s%13.*f %s\n", f->text, f->lower_bound ? ">=" : "",
                   *f->unit != '\0' ? 3 : 0, f->value, f->unit);
    }
    if (json)
        printf(", \"latency_lower_bounds\": %llu}\n", (unsigned long long)r->lower_bounds);
    else if (r->gave_up)
        printf("  nothing could be reached for 3 s: given up\n");
    if (fflush(stdout) != 0) {
        perror("service-load: standard output");
        return 3;
    }
    return load_errors(r) + load_lost(r) > 0 || r->gave_up ? 1 : 0;
}

int main(int argc, char **argv)
{
    load_opts o = {.rate = 10000, .seconds = 10, .seed = 1, .stop = &stop};
    bool json = false;
    parse(argc, argv, &o, &json);
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    bool tty = isatty(STDERR_FILENO);
    if (tty) {
        o.on_tick = progress;
        o.arg = &o;
    }
    static load_result r; /* too large for a stack to be proud of */
    int rc = load_run(&o, &r);
    if (tty)
        fputs("\r\033[K", stderr);
    if (rc != 0)
        fprintf(stderr, "service-load: %s\n", r.error);
    rc = rc != 0 ? 3 : report(&o, &r, json);
    load_result_free(&r);
    return rc;
}
