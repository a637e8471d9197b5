/* front_metrics.c - GET /metrics: the service's own figures, then memkit's and its profiler's, as
 * Prometheus reads them. Codes that libmicrohttpd answers by itself (a line or head that overflows
 * its memory, a request that is no HTTP) are not among service_requests_total: it tells nobody.
 */
#include <errno.h>

#include <memkit/debug.h>
#include <memkit/memkit.h>

#include "front_worker.h"

static unsigned long long sum(const front *f, size_t counter)
{
    unsigned long long n = 0;
    for (unsigned k = 0; k < f->n; k++) {
        const char *w = (const char *)&f->workers[k];
        n += atomic_load_explicit((const atomic_uint_fast64_t *)(const void *)(w + counter),
                                  memory_order_relaxed);
    }
    return n;
}

/* Over all workers. */
#define SUM(f, counter) sum(f, offsetof(front_worker, counter))

static int write_requests(const front *f, memkit_buf *out)
{
    static const uint16_t codes[FRONT_NCODES] = FRONT_CODES;
    if (memkit_buf_append_str(
            out, "# HELP service_requests_total Requests answered, by HTTP status code.\n"
                 "# TYPE service_requests_total counter\n") != 0)
        return -1;
    for (unsigned i = 0; i < FRONT_NCODES; i++) {
        unsigned long long n = SUM(f, answered[i]);
        if (memkit_buf_appendf(out, "service_requests_total{code=\"%u\"} %llu\n", codes[i], n) != 0)
            return -1;
    }
    return 0;
}

static int write_ended(const front *f, memkit_buf *out)
{
    return memkit_buf_appendf(
        out,
        "# HELP service_timeouts_total Connections ended because a time-out was over.\n"
        "# TYPE service_timeouts_total counter\n"
        "service_timeouts_total{kind=\"read\"} %llu\n"
        "service_timeouts_total{kind=\"write\"} %llu\n"
        "service_timeouts_total{kind=\"debug\"} %llu\n"
        "service_timeouts_total{kind=\"idle\"} %llu\n"
        "# HELP service_connections_shed_total Idle connections ended to make room for others.\n"
        "# TYPE service_connections_shed_total counter\n"
        "service_connections_shed_total %llu\n"
        "# HELP service_accept_errors_total Tries to accept that failed for want of "
        "descriptors or memory.\n"
        "# TYPE service_accept_errors_total counter\n"
        "service_accept_errors_total %llu\n",
        SUM(f, timeouts[FRONT_READ]), SUM(f, timeouts[FRONT_WRITE]), SUM(f, timeouts[FRONT_DEBUG]),
        SUM(f, timeouts[FRONT_IDLE]), SUM(f, shed), SUM(f, accept_errors));
}

static int write_gauges(const front *f, memkit_buf *out)
{
    return memkit_buf_appendf(
        out,
        "# HELP service_requests_in_flight Requests that are read or worked on, this scrape too.\n"
        "# TYPE service_requests_in_flight gauge\n"
        "service_requests_in_flight %llu\n"
        "# HELP service_connections Open connections.\n"
        "# TYPE service_connections gauge\n"
        "service_connections %llu\n"
        "# HELP service_workers Event loops, each with a thread of its own.\n"
        "# TYPE service_workers gauge\n"
        "service_workers %u\n"
        "# HELP service_loop_turns_total Times that an event loop woke up; thousands a second "
        "without "
        "requests: it spins.\n"
        "# TYPE service_loop_turns_total counter\n"
        "service_loop_turns_total %llu\n",
        SUM(f, in_flight), SUM(f, connections), f->n, SUM(f, turns));
}

static int write_workers(const front *f, memkit_buf *out)
{
    if (memkit_buf_append_str(
            out, "# HELP service_worker_connections Open connections of one event loop.\n"
                 "# TYPE service_worker_connections gauge\n") != 0)
        return -1;
    for (unsigned k = 0; k < f->n; k++) {
        unsigned long long n =
            atomic_load_explicit(&f->workers[k].connections, memory_order_relaxed);
        if (memkit_buf_appendf(out, "service_worker_connections{worker=\"%u\"} %llu\n", k, n) != 0)
            return -1;
    }
    return 0;
}

static void release(void *arg)
{
    memkit_buf_free(arg);
}

int front_metrics(const front *f, service_body *out)
{
    memkit_buf *b = memkit_buf_new(8192);
    if (b == NULL)
        return -1;
    const char *type;
    if (write_requests(f, b) != 0 || write_ended(f, b) != 0 || write_gauges(f, b) != 0 ||
        write_workers(f, b) != 0 || memkit_debug_handle("/metrics", NULL, b, &type) != 200) {
        int err = errno;
        memkit_buf_free(b);
        errno = err;
        return -1;
    }
    *out = (service_body){.data = b->data, .len = b->len, .release = release, .arg = b};
    return 0;
}
