/* debug_metrics.c - /metrics of libmemkit-prof: the process, the profiler, and the objects of each
 * copy of the core that has attached.
 *
 * The text format wants a family once, with all its samples together, and the cores are asked one
 * after the other: each family has a buffer of its own until the last core was asked. Objects of
 * the second core and further ones carry a label `core`, as each copy numbers its own from the
 * same beginning.
 */
#include "prof/debug.h"

#include <errno.h>
#include <string.h>

#include "core/metrics.h"
#include "hook/attach.h"
#include "hook/counters.h"
#include "hook/timing.h"

#define MOST_FAMILIES 64

typedef struct {
    const char *name;
    memkit_buf *text;
} family;

typedef struct {
    family list[MOST_FAMILIES];
    size_t n;
    int err;
} families;

static int write_process(memkit_buf *out)
{
    memkit_memstats_t m;
    memkit__counts c;
    bool hooked = memkit__hooked() != 0;
    if (hooked)
        memkit__process_counts(&c);
    memkit__memstats_fill(&m, hooked ? &c : NULL);
    memkit__times t;
    if (memkit__metrics_process(out, &m) != 0)
        return -1;
    return hooked && memkit__timing_read(&t) ? memkit__metrics_times(out, &t) : 0;
}

static int write_profiler(memkit_buf *out)
{
    memkit_prof_stats_t s;
    memkit_prof_stats(&s);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"memkit_prof_running", "gauge", "Whether allocations are sampled: 1 or 0.",
         memkit_prof_running() != 0},
        {"memkit_prof_sample_bytes", "gauge", "Mean bytes between samples.", s.sample_bytes},
        {"memkit_prof_samples_total", "counter", "Samples taken.", s.samples},
        {"memkit_prof_live_samples", "gauge", "Blocks sampled and not freed.", s.live_samples},
        {"memkit_prof_sites", "gauge", "Distinct stacks.", s.sites},
        {"memkit_prof_dropped_total", "counter",
         "Samples that found no room: they are in no profile.", s.dropped},
        {"memkit_prof_cut_stacks_total", "counter", "Stacks too deep to be kept whole.",
         s.cut_stacks},
        {"memkit_prof_own_bytes", "gauge", "Memory that the profiler holds for itself.",
         s.own_bytes},
        {"memkit_prof_max_bytes", "gauge", "The most memory that it may hold.", s.max_bytes},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (memkit__metric_one(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value) != 0)
            return -1;
    return 0;
}

/* NULL: errno. Families are compared by name: another core's is another string. */
static family *find(families *f, const memkit__metric *m)
{
    for (size_t i = f->n; i-- > 0;) /* mostly the last one */
        if (strcmp(f->list[i].name, m->family) == 0)
            return &f->list[i];
    if (f->n == MOST_FAMILIES) {
        errno = EOVERFLOW;
        return NULL;
    }
    memkit_buf *text = memkit_buf_new(512);
    if (text == NULL)
        return NULL;
    f->list[f->n] = (family){m->family, text};
    if (memkit__metric_head(text, m->family, m->type, m->help) != 0) {
        memkit_buf_free(text);
        return NULL;
    }
    return &f->list[f->n++];
}

static void keep(void *arg, unsigned core, const memkit__metric *m)
{
    families *all = arg;
    if (all->err != 0)
        return;
    family *f = find(all, m);
    if (f == NULL || memkit__metric_sample(f->text, m, core) != 0)
        all->err = errno;
}

static int write_objects(memkit_buf *out)
{
    families all = {.n = 0};
    memkit__each_core_metric(keep, &all);
    for (size_t i = 0; i < all.n; i++) {
        if (all.err == 0 && memkit_buf_append(out, all.list[i].text->data, all.list[i].text->len))
            all.err = errno;
        memkit_buf_free(all.list[i].text);
    }
    errno = all.err != 0 ? all.err : errno;
    return all.err != 0 ? -1 : 0;
}

int memkit__debug_metrics(memkit_debug_req *req, memkit_buf *out)
{
    (void)req;
    return write_process(out) != 0 || write_profiler(out) != 0 || write_objects(out) != 0 ? -1 : 0;
}
