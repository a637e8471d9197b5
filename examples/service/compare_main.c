/* compare_main.c - service-compare: the plan of runs, progress, signals.
 *
 *     for each population:   before, after      with the counters preloaded
 *     saturation:            before, after      without
 *     counters' own cost:    before, after      the open loop again, without
 *     time inside malloc:    before, after      and with the counters and MEMKIT_TIMING=1
 *
 * One run after the other, one service at a time, so that nothing but the generator shares the
 * machine with it.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"
#include "compare_report.h"

#define RUN_EXTRA_S 1.0   /* start, connect, scrape, stop */
#define FILES       16384 /* open at once, at most */

/* ---- the plan ---- */

static void add_population(cmp_report *r, load_ids_kind kind, size_t id_bytes)
{
    cmp_population *p = &r->population[r->populations++];
    char ids[32], size[32];
    *p = (cmp_population){.kind = kind, .ids = r->o.ids, .id_bytes = id_bytes};
    cmp_number(ids, sizeof ids, (double)p->ids, 0);
    if (id_bytes % 1024 == 0)
        snprintf(size, sizeof size, "%zu KiB", id_bytes / 1024);
    else
        snprintf(size, sizeof size, "%zu B", id_bytes);
    snprintf(p->name, sizeof p->name, "%s, %s ids of %s",
             kind == LOAD_ZIPF ? "Zipf 0.99" : "Uniform", ids, size);
    load_ids check;
    if (load_ids_init(&check, kind, p->ids, id_bytes, LOAD_ZIPF_THETA, r->o.seed) != 0)
        cmp_usage_error("--id-bytes is too short for so many ids", NULL);
}

static void plan(cmp_report *r)
{
    if (r->o.id_bytes != 0) {
        add_population(r, LOAD_UNIFORM, r->o.id_bytes);
        add_population(r, LOAD_ZIPF, r->o.id_bytes);
        r->bare_population = 0;
    } else {
        add_population(r, LOAD_UNIFORM, 32);
        add_population(r, LOAD_UNIFORM, 1024);
        add_population(r, LOAD_ZIPF, 1024);
        r->bare_population = 1;
    }
    r->saturation_population = 0;
    r->timing_population = r->bare_population;
    for (int s = 0; s < CMP_SIDES; s++) {
        for (size_t i = 0; i < r->populations; i++)
            r->run[i][s] = (cmp_run){
                .side = s, .population = &r->population[i], .rate = r->o.rate, .counters = true};
        r->saturation[s] =
            (cmp_run){.side = s, .population = &r->population[r->saturation_population]};
        r->bare[s] = (cmp_run){
            .side = s, .population = &r->population[r->bare_population], .rate = r->o.rate};
        r->timing[s] = (cmp_run){.side = s,
                                 .population = &r->population[r->timing_population],
                                 .rate = r->o.rate,
                                 .counters = true,
                                 .timing = true};
    }
}

/* ---- progress ---- */

typedef struct {
    const char *side, *what;
    unsigned number, of;
    double seconds, left_after; /* of this run; of all that come after it */
    bool tty;
    double last_line;
} progress;

static void show(void *arg, const cmp_progress *p)
{
    progress *g = arg;
    char rate[32];
    if (!g->tty && p->elapsed_s - g->last_line < 4.5)
        return;
    g->last_line = p->elapsed_s;
    double left = g->left_after + fmax(0, g->seconds - p->elapsed_s);
    fprintf(stderr,
            "%s[%u/%u] %s, %s: %.0f/%.0f s, %s answers/s, p99 %.1f ms, RSS %.0f MiB%s; %.0f:%02.0f "
            "left%s",
            g->tty ? "\r\033[K" : "", g->number, g->of, g->side, g->what,
            fmin(p->elapsed_s, g->seconds), g->seconds,
            cmp_number(rate, sizeof rate, (double)p->last_rate, 0), (double)p->last_p99_ns / 1e6,
            (double)p->rss_bytes / 0x1p20, p->failed > 0 ? ", errors" : "", floor(left / 60),
            floor(fmod(left, 60)), g->tty ? "" : "\n");
    fflush(stderr);
}

typedef struct {
    cmp_run *run;
    char what[96], log[64];
    double seconds;
    unsigned connections;
} step;

static void run_all(cmp_report *r)
{
    enum { STEPS = (CMP_POPULATIONS_MAX + 3) * CMP_SIDES };
    step list[STEPS];
    unsigned n = 0;
    for (size_t i = 0; i < r->populations; i++) {
        const cmp_population *p = &r->population[i];
        for (int s = 0; s < CMP_SIDES; s++, n++) {
            list[n] = (step){
                .run = &r->run[i][s], .seconds = r->o.seconds, .connections = r->o.connections};
            snprintf(list[n].what, sizeof list[n].what, "%s", p->name);
            snprintf(list[n].log, sizeof list[n].log, "%s-%s-%zu.log", cmp_side_name[s],
                     p->kind == LOAD_ZIPF ? "zipf" : "uniform", p->id_bytes);
        }
    }
    for (int s = 0; s < CMP_SIDES; s++, n++) {
        list[n] = (step){.run = &r->saturation[s],
                         .seconds = r->o.saturation_s,
                         .connections = CMP_SATURATION,
                         .what = "saturation"};
        snprintf(list[n].log, sizeof list[n].log, "%s-saturation.log", cmp_side_name[s]);
    }
    for (int s = 0; s < CMP_SIDES; s++, n++) {
        list[n] = (step){.run = &r->bare[s],
                         .seconds = r->o.seconds,
                         .connections = r->o.connections,
                         .what = "without counters"};
        snprintf(list[n].log, sizeof list[n].log, "%s-without-counters.log", cmp_side_name[s]);
    }
    for (int s = 0; s < CMP_SIDES; s++, n++) {
        list[n] = (step){.run = &r->timing[s],
                         .seconds = r->o.timing_s,
                         .connections = r->o.connections,
                         .what = "malloc timed"};
        snprintf(list[n].log, sizeof list[n].log, "%s-malloc-timed.log", cmp_side_name[s]);
    }
    double left = 0;
    for (unsigned i = 0; i < n; i++)
        left += list[i].seconds + RUN_EXTRA_S;
    fprintf(stderr,
            "service-compare: %u runs, about %.0f min %02.0f s in all; the services' output goes "
            "to %s/*.log\n",
            n, floor(left / 60), floor(fmod(left, 60)), r->o.out);
    progress g = {.of = n, .tty = isatty(STDERR_FILENO) != 0};
    for (unsigned i = 0; i < n && !cmp_stop; i++) {
        char log[PATH_MAX];
        left -= list[i].seconds + RUN_EXTRA_S;
        g.side = cmp_side_name[list[i].run->side];
        g.what = list[i].what;
        g.number = i + 1;
        g.seconds = list[i].seconds;
        g.left_after = left;
        g.last_line = 0;
        snprintf(log, sizeof log, "%s/%s", r->o.out, list[i].log);
        cmp_run_one(&r->o, list[i].run, list[i].seconds, list[i].connections, log, show, &g);
        /* No other run makes the comparison good again. */
        if (cmp_run_void(list[i].run)) {
            if (i + 1 < n && !cmp_stop)
                fprintf(stderr, "%sservice-compare: void already: the other runs are left out\n",
                        g.tty ? "\r\033[K" : "");
            break;
        }
    }
    if (g.tty)
        fputs("\r\033[K", stderr);
}

/* ---- the machine ---- */

static void cpu_name(char *out, size_t cap)
{
    char line[256];
    snprintf(out, cap, "unknown CPU");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (colon != NULL && strncmp(line, "model name", 10) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%.99s", colon + 2);
            break;
        }
    }
    fclose(f);
}

static void env_or_default(const char *name, char *out, size_t cap)
{
    const char *v = getenv(name);
    snprintf(out, cap, "%.24s", v != NULL && *v != '\0' ? v : "default");
}

static void look_at_machine(cmp_machine *m)
{
    struct utsname u;
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(m->date, sizeof m->date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (uname(&u) == 0)
        snprintf(m->kernel, sizeof m->kernel, "%.64s %.64s", u.release, u.machine);
    cpu_name(m->cpu, sizeof m->cpu);
    m->cores = sysconf(_SC_NPROCESSORS_ONLN);
    m->memory_gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 0x1p30;
    env_or_default("WORK_MS", m->work_ms, sizeof m->work_ms);
    env_or_default("CACHE_SIZE", m->cache_size, sizeof m->cache_size);
    env_or_default("MAX_WORKERS", m->max_workers, sizeof m->max_workers);
}

/* ---- main ---- */

/* The first signal ends the run in order; the second one does not wait. */
static void on_signal(int sig)
{
    if (cmp_stop) {
        cmp_child_kill();
        _exit(128 + sig);
    }
    cmp_stop = cmp_end_load = sig;
}

/* For ourselves and, by inheritance, for the services: a usual soft limit of 1,024 would not do for
 * 1,024 connections. */
static void raise_file_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < FILES) {
        rl.rlim_cur = rl.rlim_max < FILES ? rl.rlim_max : FILES;
        setrlimit(RLIMIT_NOFILE, &rl); /* load_run says it when it is not enough */
    }
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* mkdir -p */
static int make_dirs(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) {
        errno = n == 0 ? ENOENT : ENAMETOOLONG;
        return -1;
    }
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return -1;
        part[i] = path[i];
    }
    return 0;
}

static int report(const cmp_report *r)
{
    int rc = cmp_report_void(r) ? 1 : 0;
    cmp_emit e = {.f = stdout, .color = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL};
    if (r->o.json)
        cmp_write_json(stdout, r);
    else
        cmp_report_emit(&e, r);
    if (cmp_write_file(r->o.out, "report.json", cmp_write_json, r) != 0 ||
        cmp_write_file(r->o.out, "report.md", cmp_write_markdown, r) != 0 ||
        cmp_write_file(r->o.out, "report.html", cmp_write_html, r) != 0) {
        fprintf(stderr, "service-compare: %s: %s\n", r->o.out, strerror(errno));
        rc = 1;
    } else if (!r->o.json) {
        printf("written: %s/report.html, report.md and report.json beside it\n", r->o.out);
    }
    if (fflush(stdout) != 0) {
        perror("service-compare: standard output");
        rc = 1;
    }
    return rc;
}

static void free_all(cmp_report *r)
{
    for (int s = 0; s < CMP_SIDES; s++) {
        for (size_t i = 0; i < r->populations; i++)
            cmp_run_free(&r->run[i][s]);
        cmp_run_free(&r->saturation[s]);
        cmp_run_free(&r->bare[s]);
        cmp_run_free(&r->timing[s]);
        free((void *)(uintptr_t)r->o.program[s]); /* realpath's */
    }
    free((void *)(uintptr_t)r->o.prof);
}

int main(int argc, char **argv)
{
    static cmp_report r;
    cmp_parse(argc, argv, &r.o);
    plan(&r);
    look_at_machine(&r.machine);
    if (make_dirs(r.o.out) != 0) {
        fprintf(stderr, "service-compare: %s: %s\n", r.o.out, strerror(errno));
        return 1;
    }
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    raise_file_limit();
    double began = now_s();
    run_all(&r);
    r.took_s = now_s() - began;
    int rc;
    if (cmp_stop) {
        fprintf(stderr, "service-compare: interrupted; no report was written\n");
        rc = 128 + cmp_stop;
    } else {
        rc = report(&r);
    }
    free_all(&r);
    return rc;
}
