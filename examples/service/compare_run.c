/* compare_run.c - one run: start the service, scrape, load it, sample it, scrape, stop it.
 *
 *     start, /health | connect | scrape x3, CPU | load ... drain | CPU, RSS, scrape | close, stop
 *                                               |  a sample a second  |
 *
 * What is charged to the load is the difference between the two inner bars: neither the service's
 * start nor the making of connections is in it, and the scrapes' own allocations are measured
 * before the load (the third scrape minus the second) and taken off. The figures at the end are
 * read while the connections are still open, as they would be in production.
 *
 * The load runs in this thread. Once a second it notes the time, the CPU clock and the count of
 * answers, which costs it a microsecond, and wakes the sampler thread, which does what takes long:
 * reading /proc, scraping, printing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

#define SCRAPE_MS     3000 /* at the start and the end */
#define SAMPLE_MS     800
#define STOP_S        15
#define SAMPLES_EXTRA 16

volatile sig_atomic_t cmp_stop, cmp_end_load;

typedef struct {
    cmp_run *run;
    cmp_progress_fn progress;
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool pending, quit;
    pthread_t thread;
    bool started;
    cmp_sample next; /* what the tick has noted */
    cmp_progress next_progress;
} run_ctx;

static void sample(run_ctx *x, cmp_sample s, cmp_progress p)
{
    cmp_run *run = x->run;
    cmp_proc proc;
    cmp_proc_read(run->child.pid, &proc);
    s.rss_bytes = proc.rss_bytes;
    s.peak_rss_bytes = proc.peak_rss_bytes;
    if (run->counters) {
        cmp_scrape(run->child.target, SAMPLE_MS, &s.c, run->timing ? &run->timing_end : NULL);
        s.scrapes = ++run->scrapes;
    }
    if (run->samples < run->sample_cap)
        run->sample[run->samples++] = s;
    p.rss_bytes = s.rss_bytes;
    if (x->progress != NULL)
        x->progress(x->arg, &p);
}

static void *sampler(void *arg)
{
    run_ctx *x = arg;
    pthread_mutex_lock(&x->lock);
    for (;;) {
        while (!x->pending && !x->quit)
            pthread_cond_wait(&x->wake, &x->lock);
        if (!x->pending)
            break;
        x->pending = false;
        cmp_sample s = x->next;
        cmp_progress p = x->next_progress;
        pthread_mutex_unlock(&x->lock);
        sample(x, s, p);
        pthread_mutex_lock(&x->lock);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

/* What one scrape did to the histogram. */
static void timing_cost(cmp_run *run, const cmp_timing *before)
{
    const cmp_timing *after = &run->timing_start;
    cmp_timing *cost = &run->timing_cost;
    if (!before->ok || !after->ok || before->buckets != after->buckets)
        return;
    cost->ok = true;
    cost->buckets = after->buckets;
    cost->calls = after->calls - before->calls;
    cost->sum_s = after->sum_s - before->sum_s;
    for (size_t i = 0; i < after->buckets; i++)
        cost->at_most[i] = after->at_most[i] - before->at_most[i];
}

static void on_start(void *arg)
{
    cmp_run *run = ((run_ctx *)arg)->run;
    if (run->counters) {
        const char *target = run->child.target;
        cmp_counters first = {0}, second = {0};
        cmp_timing timing = {0};
        cmp_scrape(target, SCRAPE_MS, &first, NULL); /* fills what is filled once only */
        cmp_scrape(target, SCRAPE_MS, &second, run->timing ? &timing : NULL);
        cmp_scrape(target, SCRAPE_MS, &run->start, run->timing ? &run->timing_start : NULL);
        if (second.ok && run->start.ok) {
            run->scrape_cost.mallocs = run->start.mallocs - second.mallocs;
            run->scrape_cost.total_alloc_bytes =
                run->start.total_alloc_bytes - second.total_alloc_bytes;
        }
        timing_cost(run, &timing);
    }
    cmp_proc_read(run->child.pid, &run->proc_start);
}

static void on_tick(void *arg, const load_tick *t)
{
    run_ctx *x = arg;
    cmp_run *run = x->run;
    if (!cmp_child_alive(&run->child)) {
        run->died = true;
        cmp_end_load = 1;
        return;
    }
    uint64_t clock = cmp_proc_cpu_ns(run->child.pid), began = run->proc_start.cpu_ns;
    uint64_t cpu = clock > began ? clock - began : 0; /* it may have died just now */
    pthread_mutex_lock(&x->lock);
    x->next = (cmp_sample){.t_s = t->elapsed_s, .answered = t->answered, .cpu_ns = cpu};
    x->next_progress = (cmp_progress){.elapsed_s = t->elapsed_s,
                                      .last_rate = t->last_rate,
                                      .last_p99_ns = t->last_p99_ns,
                                      .failed = t->failed,
                                      .waiting = t->waiting};
    x->pending = true; /* a sampler that is still busy leaves the one before out */
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->lock);
}

static void stop_sampler(run_ctx *x)
{
    if (!x->started)
        return;
    pthread_mutex_lock(&x->lock);
    x->quit = true;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->thread, NULL);
    x->started = false;
}

/* What the counters said last, where they say nothing any more. */
static void end_from_samples(cmp_run *run)
{
    for (size_t i = run->samples; i-- > 0;) {
        if (run->sample[i].c.ok) {
            run->end = run->sample[i].c;
            run->end_sample = i + 1;
            return;
        }
    }
}

/* What /proc said last of a service that is gone: with the counters, where there are any, so that
 * all figures are of one moment. */
static void proc_from_samples(cmp_run *run)
{
    for (size_t i = run->end_sample > 0 ? run->end_sample : run->samples; i-- > 0;) {
        const cmp_sample *s = &run->sample[i];
        if (s->rss_bytes > 0 && s->peak_rss_bytes > 0) {
            run->proc_end = (cmp_proc){.ok = true,
                                       .cpu_ns = run->proc_start.cpu_ns + s->cpu_ns,
                                       .rss_bytes = s->rss_bytes,
                                       .peak_rss_bytes = s->peak_rss_bytes};
            run->proc_sample = i + 1;
            return;
        }
    }
}

static void on_end(void *arg)
{
    run_ctx *x = arg;
    cmp_run *run = x->run;
    run->died = !cmp_child_alive(&run->child);
    if (!run->died)
        cmp_proc_read(run->child.pid, &run->proc_end); /* first: the CPU clock goes on */
    stop_sampler(x);
    if (run->counters) {
        cmp_timing *timing = run->timing ? &run->timing_end : NULL;
        if (!run->died && cmp_scrape(run->child.target, SCRAPE_MS, &run->end, timing) == 0)
            run->scrapes++;
        else
            end_from_samples(run);
    }
    if (!run->proc_end.ok)
        proc_from_samples(run);
}

/* The sampler must leave signals to the thread that runs the load, which they wake. */
static int start_sampler(run_ctx *x)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&x->thread, NULL, sampler, x);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    x->started = rc == 0;
    return rc;
}

static void load_it(const cmp_opts *o, cmp_run *run, double seconds, unsigned connections,
                    run_ctx *x)
{
    run->sample_cap = (size_t)(seconds + CMP_GRACE_S) + SAMPLES_EXTRA;
    run->sample = calloc(run->sample_cap, sizeof *run->sample);
    if (run->sample == NULL || start_sampler(x) != 0) {
        snprintf(run->error, sizeof run->error, "the generator has no memory or thread left");
        return;
    }
    cmp_end_load = cmp_stop;
    int rc = load_run(&(load_opts){.target = run->child.target,
                                   .rate = run->rate,
                                   .seconds = seconds,
                                   .grace_s = CMP_GRACE_S,
                                   .connections = connections,
                                   .ids_kind = run->population->kind,
                                   .ids = run->population->ids,
                                   .id_bytes = run->population->id_bytes,
                                   .seed = o->seed,
                                   .stop = &cmp_end_load,
                                   .on_start = on_start,
                                   .on_tick = on_tick,
                                   .on_end = on_end,
                                   .arg = x},
                      &run->load);
    stop_sampler(x); /* on_end is not called when the load could not run */
    if (rc != 0)
        snprintf(run->error, sizeof run->error, "the load could not run: %s", run->load.error);
    run->ran = rc == 0;
}

void cmp_run_one(const cmp_opts *o, cmp_run *run, double seconds, unsigned connections,
                 const char *log, cmp_progress_fn progress, void *arg)
{
    run_ctx x = {.run = run, .progress = progress, .arg = arg};
    run->connections = connections;
    if (cmp_child_start(&run->child, o->program[run->side], run->counters ? o->prof : NULL,
                        run->timing, log, run->error, sizeof run->error) != 0)
        return;
    pthread_mutex_init(&x.lock, NULL);
    pthread_cond_init(&x.wake, NULL);
    load_it(o, run, seconds, connections, &x);
    pthread_cond_destroy(&x.wake);
    pthread_mutex_destroy(&x.lock);
    if (!cmp_child_alive(&run->child))
        run->died = true;
    cmp_child_stop(&run->child, STOP_S);
}

void cmp_run_free(cmp_run *run)
{
    load_result_free(&run->load);
    free(run->sample);
    run->sample = NULL;
    run->samples = 0;
}
