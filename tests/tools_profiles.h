/* tools_profiles.h - what the tests of real programs' profiles share: a run without the profiler
 * and two with it, at rate 1 and at 512 KiB, whose answers must be the same; and what must hold of
 * the dumps beside the counters of MEMKIT_STATS.
 */
#ifndef MEMKIT_TESTS_TOOLS_PROFILES_H
#define MEMKIT_TESTS_TOOLS_PROFILES_H

#include "tools_servers.h"

#include <glob.h>
#include <math.h>

#include "support_pprof.h"
#include "tools.h"

#define SPARSE 524288

/* Allocations of a process that no profile has: before the sampler began (libstdc++'s pool for
 * exceptions), and after the dump. */
#define UNSEEN       8
#define UNSEEN_BYTES 100000

/* ---- the environment of what is preloaded from here on --------------------------------------- */

/* A rate of 0: no profiler. Dumps made before go. */
static inline void profile_at(long rate)
{
    char number[30];
    need_tool("go");
    snprintf(number, sizeof number, "%ld", rate);
    RUN(false, NULL, "bash", "-c", "rm -rf $0/dump && mkdir $0/dump", scratch);
    unsetenv("MEMKIT_SAMPLE");
    unsetenv("MEMKIT_DUMP");
    if (rate > 0) {
        setenv("MEMKIT_SAMPLE", number, 1);
        setenv("MEMKIT_DUMP", in_scratch("dump"), 1);
    }
}

/* ---- dumps ----------------------------------------------------------------------------------- */

typedef struct {
    size_t n;
    char *paths[300];
    pprof *of[300];
} dumps;

/* Reads those of one program, of which there must be some; NULL: all. */
static inline void read_dumps(dumps *d, const char *program)
{
    glob_t found;
    *d = (dumps){0};
    if (glob(in_scratch("dump/heap_*_*.pb.gz"), 0, NULL, &found) != 0)
        fail_msg("no dump at all");
    for (size_t i = 0; i < found.gl_pathc; i++) {
        pprof *p = pprof_read(found.gl_pathv[i]);
        if (program != NULL && strcmp(pprof_program(p), program) != 0) {
            pprof_free(p);
            continue;
        }
        assert_true(d->n < 300);
        d->paths[d->n] = strdup(found.gl_pathv[i]);
        d->of[d->n++] = p;
    }
    if (d->n == 0)
        fail_msg("%zu dumps, and none of %s", found.gl_pathc,
                 program != NULL ? program : "any program");
    globfree(&found);
}

static inline void free_dumps(dumps *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->paths[i]);
        pprof_free(d->of[i]);
    }
}

static inline double sum_of(const dumps *d, const char *type)
{
    double sum = 0;
    for (size_t i = 0; i < d->n; i++)
        sum += (double)pprof_total(d->of[i], type);
    return sum;
}

static inline double sum_at(const dumps *d, const char *type, const char *name)
{
    double sum = 0;
    for (size_t i = 0; i < d->n; i++)
        sum += (double)pprof_at(d->of[i], type, name);
    return sum;
}

static inline double sum_through(const dumps *d, const char *type, const char *name)
{
    double sum = 0;
    for (size_t i = 0; i < d->n; i++)
        sum += (double)pprof_through(d->of[i], type, name);
    return sum;
}

static inline double sum_in(const dumps *d, const char *type, const char *module)
{
    double sum = 0;
    for (size_t i = 0; i < d->n; i++)
        sum += (double)pprof_in(d->of[i], type, module);
    return sum;
}

/* ---- a program, three times ------------------------------------------------------------------ */

typedef struct {
    const char *program; /* base name of its file */
    const char *table;   /* its name in MEMKIT_STATS's tables */
    int processes;       /* how many of it there are */
    /* Runs it, and keeps what it answers, all that must be the same each time. */
    void (*session)(bool hooked, result *answers);
    /* What its source says of the profile, at rate 1. */
    void (*exact)(const dumps *d, const figures *f);
} subject;

/* At rate 1, sums over the processes; the profile's are of requested bytes, the counters' of usable
 * ones. */
static inline void assert_agrees(const dumps *d, const figures *f)
{
    double n = (double)d->n, objects = sum_of(d, "alloc_objects"), space = sum_of(d, "alloc_space");
    double live = sum_of(d, "inuse_objects"), live_space = sum_of(d, "inuse_space");
    printf("profile: alloc_objects %.0f, alloc_space %.0f, inuse_objects %.0f, inuse_space %.0f\n",
           objects, space, live, live_space);
    assert_true(objects <= (double)f->mallocs);
    assert_true(objects >= (double)f->mallocs - n * UNSEEN);
    assert_true(space <= (double)f->bytes);
    assert_true(space >= (double)f->bytes * 0.75 - n * UNSEEN_BYTES);
    assert_true(fabs(live - (double)(f->mallocs - f->frees)) <= n * UNSEEN);
    assert_true(live_space <= (double)f->in_use + n * UNSEEN_BYTES);
    for (size_t i = 0; i < d->n; i++) {
        assert_int_equal(pprof_period(d->of[i]), 1);
        assert_non_null(pprof_comment(d->of[i], "samples dropped for want of room: 0\n"));
    }
}

typedef struct {
    const dumps *sparse;
    double scale;
    int compared;
} comparison;

/* The variance of a sum of sampled bytes is at most the rate times the bytes: five standard errors.
 */
static inline void assert_estimates(double estimate, double truth, const char *of)
{
    double room = 5 * sqrt((double)SPARSE * truth) + SPARSE;
    if (fabs(estimate - truth) > room)
        fail_msg("%s: estimated %.0f, in truth %.0f: more than five standard errors", of, estimate,
                 truth);
}

static inline void compare_function(const char *name, long long bytes, void *arg)
{
    comparison *c = arg;
    char literal[2000];
    size_t n = 0;
    if ((double)bytes * c->scale < 50.0 * SPARSE)
        return;
    for (; *name != '\0' && n + 2 < sizeof literal; name++) {
        if (strchr("*?[\\", *name) != NULL)
            literal[n++] = '\\';
        literal[n++] = *name;
    }
    literal[n] = '\0';
    assert_estimates(sum_at(c->sparse, "alloc_space", literal), (double)bytes * c->scale, literal);
    c->compared++;
}

/* Sampled, beside the exact run: its bytes were counted, and the share of them that was asked for
 * is known. */
static inline void assert_estimated(const dumps *d, const figures *f, const dumps *exact,
                                    const figures *exact_f)
{
    double asked = sum_of(exact, "alloc_space") / (double)exact_f->bytes;
    comparison c = {d, (double)f->bytes / (double)exact_f->bytes, 0};
    assert_estimates(sum_of(d, "alloc_space"), (double)f->bytes * asked, "alloc_space");
    assert_estimates(sum_of(d, "inuse_space"), (double)f->in_use * asked, "inuse_space");
    for (size_t i = 0; i < exact->n; i++)
        if (exact->n == 1)
            pprof_each(exact->of[i], "alloc_space", compare_function, &c);
    for (size_t i = 0; i < d->n; i++)
        assert_int_equal(pprof_period(d->of[i]), SPARSE);
    printf("sampled: alloc_space %.0f, of %.0f; %d functions within five standard errors\n",
           sum_of(d, "alloc_space"), (double)f->bytes * asked, c.compared);
}

static inline void profiled_session(const subject *s, long rate, const result *plain, dumps *d,
                                    figures *f)
{
    static result hooked;
    char title[100];
    profile_at(rate);
    s->session(true, &hooked);
    assert_string_equal(hooked.out, plain->out);
    assert_string_equal(hooked.err, plain->err);
    assert_int_equal(hooked.code, plain->code);
    assert_int_equal(read_tables(stats_text(), s->table, f), s->processes);
    read_dumps(d, s->program);
    assert_int_equal(d->n, s->processes);
    for (size_t i = 0; i < d->n; i++)
        pprof_assert_sane(d->of[i]);
    snprintf(title, sizeof title, "%s at %ld", s->program, rate);
    pprof_show(d->paths[d->n - 1], "alloc_space", title);
    pprof_show(d->paths[d->n - 1], "inuse_space", title);
}

static inline void assert_profiles(const subject *s)
{
    static result plain;
    static dumps exact, sparse;
    figures exact_f, sparse_f;
    profile_at(0);
    s->session(false, &plain);
    profiled_session(s, 1, &plain, &exact, &exact_f);
    assert_agrees(&exact, &exact_f);
    s->exact(&exact, &exact_f);
    profiled_session(s, SPARSE, &plain, &sparse, &sparse_f);
    assert_estimated(&sparse, &sparse_f, &exact, &exact_f);
    free_dumps(&exact);
    free_dumps(&sparse);
    profile_at(0);
}

#endif
