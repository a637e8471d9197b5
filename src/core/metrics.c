/* metrics.c - memkit_metrics_write: Prometheus's text exposition format.
 *
 * One # HELP and # TYPE a family, then its samples together; a family with no sample is left out.
 * `id` tells objects of one name apart: two series with the same labels would void the scrape.
 * Everything goes to a buffer of our own first, so that the caller's is unchanged on an error.
 */
#include <memkit/stats.h>

#include "core/internal.h"
#include "core/metrics.h"

typedef struct {
    memkit_buf *out;
    const char *family; /* of the last sample */
    int failed;
} sink;

static void write_metric(void *arg, const memkit__metric *m)
{
    sink *s = arg;
    if (s->failed == 0 && s->family != m->family)
        s->failed = memkit__metric_head(s->out, m->family, m->type, m->help);
    s->family = m->family;
    if (s->failed == 0)
        s->failed = memkit__metric_sample(s->out, m, 0);
}

static int write_objects(memkit_buf *out)
{
    sink s = {.out = out};
    memkit__each_metric(write_metric, &s);
    return s.failed;
}

static int write_process(memkit_buf *out)
{
    memkit_memstats_t m;
    memkit_memstats(&m);
    return memkit__metrics_process(out, &m);
}

/* Nothing where the calls are not timed. */
static int write_times(memkit_buf *out)
{
    const memkit__prof_table *prof = memkit__counting_prof();
    memkit__times t;
    if (prof == NULL || prof->size < offsetof(memkit__prof_table, times) + sizeof prof->times ||
        !prof->times(&t))
        return 0;
    return memkit__metrics_times(out, &t);
}

int memkit_metrics_write(memkit_buf *out)
{
    if (out == NULL) {
        errno = EINVAL;
        return -1;
    }
    memkit_buf *text = memkit_buf_new(8192);
    if (text == NULL)
        return -1;
    int failed = write_process(text) != 0 || write_times(text) != 0 || write_objects(text) != 0 ||
                 memkit_buf_append(out, text->data, text->len) != 0;
    int reason = errno;
    memkit_buf_free(text);
    errno = failed ? reason : errno;
    return failed ? -1 : 0;
}
