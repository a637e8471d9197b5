/* front_debug.c - what is under /debug/, answered by libmemkit-prof, which the service is linked
 * to: memkit_debug_begin when the request is there, memkit_debug_finish when its time is up.
 *
 *     begun --(nothing to wait for)-----------------------------> finished
 *           \-> waits in its worker's list, suspended --(time)--> finished
 *                                                    --(drain)--> finished early, with what there
 * is
 *                                    --(the client hangs up)----> cancelled
 *
 * Who waits holds no thread and blocks nobody. Their number is bounded: each holds a snapshot of
 * the profile. All of it is the worker's own thread's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memkit/debug.h>
#include <memkit/memkit.h>
#include <microhttpd.h>

#include "front_target.h"
#include "front_worker.h"

typedef struct front_debug {
    struct front_debug *prev, *next; /* in the worker's list, while it waits */
    service_request *r;
    memkit_debug_req *req; /* NULL: not begun yet, or over */
    memkit_buf *posted;    /* the body; NULL: none */
    uint64_t due_ns;
    bool waits;
} front_debug;

static front_debug *of(const service_request *r)
{
    return r->route == ROUTE_DEBUG ? r->debug : NULL;
}

static front_debug *make(service_request *r)
{
    if (r->debug == NULL) {
        r->debug = calloc(1, sizeof *r->debug);
        if (r->debug != NULL)
            r->debug->r = r;
    }
    return r->debug;
}

bool front_debug_body(service_request *r, const void *data, size_t n)
{
    if (!memkit_debug_takes_post(r->id))
        return true;
    front_debug *d = make(r);
    if (d != NULL && d->posted == NULL)
        d->posted = memkit_buf_new(n);
    return d != NULL && d->posted != NULL && memkit_buf_append(d->posted, data, n) == 0;
}

/* ---- the list ---- */

static void wait_for(front_worker *w, front_debug *d, int ms)
{
    d->due_ns = front_now_ns() + (uint64_t)ms * 1000000u;
    d->prev = NULL;
    d->next = w->debugs;
    if (d->next != NULL)
        d->next->prev = d;
    w->debugs = d;
    w->n_debugs++;
    d->waits = true;
}

static void wait_no_more(front_worker *w, front_debug *d)
{
    if (!d->waits)
        return;
    if (d->prev != NULL)
        d->prev->next = d->next;
    else
        w->debugs = d->next;
    if (d->next != NULL)
        d->next->prev = d->prev;
    w->n_debugs--;
    d->waits = false;
}

/* ---- a request's life ---- */

static unsigned refuse(front_debug *d, unsigned status, const char *text, const char **why)
{
    memkit_debug_cancel(d->req);
    d->req = NULL;
    *why = text;
    return status;
}

unsigned front_debug_begin(service_request *r, const char **why)
{
    front_worker *w = r->front;
    front_debug *d = make(r);
    if (d == NULL) {
        *why = "out of memory\n";
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    const void *data = d->posted != NULL ? d->posted->data : NULL;
    int ms = memkit_debug_begin_body(r->id, r->id + strlen(r->id) + 1, data,
                                     data != NULL ? d->posted->len : 0, &d->req);
    if (ms < 0)
        return refuse(d, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n", why);
    /* A client that has closed its sending half already would not be seen to leave. */
    if (ms == 0 || r->peer->fin)
        return 0;
    if ((unsigned)ms >= w->cfg->debug_timeout_ms)
        return refuse(d, MHD_HTTP_BAD_REQUEST,
                      "seconds: DEBUG_TIMEOUT_MS would end the connection before\n", why);
    if (w->stop_ns != 0)
        return refuse(d, MHD_HTTP_SERVICE_UNAVAILABLE, "shutting down\n", why);
    if (w->n_debugs == FRONT_DEBUG_WAITING)
        return refuse(d, MHD_HTTP_SERVICE_UNAVAILABLE, "too many debug requests wait already\n",
                      why);
    wait_for(w, d, ms);
    MHD_suspend_connection(r->connection);
    return 1;
}

static void release(void *arg)
{
    memkit_buf_free(arg);
}

int front_debug_finish(service_request *r, const char **type)
{
    front_debug *d = of(r);
    if (d == NULL || d->req == NULL)
        return -1;
    memkit_debug_req *req = d->req;
    d->req = NULL;
    memkit_buf *b = memkit_buf_new(0);
    if (b == NULL) {
        memkit_debug_cancel(req);
        return -1;
    }
    int status = memkit_debug_finish(req, b, type);
    if (status < 0) {
        memkit_buf_free(b);
        return -1;
    }
    r->body = (service_body){.data = b->data, .len = b->len, .release = release, .arg = b};
    return status;
}

void front_debug_end(service_request *r)
{
    front_debug *d = of(r);
    if (d == NULL)
        return;
    r->debug = NULL;
    wait_no_more(r->front, d);
    memkit_debug_cancel(d->req);
    memkit_buf_free(d->posted);
    free(d);
}

void front_debug_gone(service_request *r)
{
    front_debug *d = of(r);
    if (d == NULL || !d->waits)
        return;
    wait_no_more(r->front, d);
    memkit_debug_cancel(d->req);
    d->req = NULL;
    front_resume(r);
}

/* ---- time ---- */

void front_debug_expire(front_worker *w)
{
    for (front_debug *d = w->debugs, *next; d != NULL; d = next) {
        next = d->next;
        if (d->due_ns > w->now_ns && w->stop_ns == 0)
            continue;
        wait_no_more(w, d);
        front_resume(d->r);
    }
}

uint64_t front_debug_due(const front_worker *w)
{
    uint64_t due = UINT64_MAX;
    for (const front_debug *d = w->debugs; d != NULL; d = d->next)
        due = d->due_ns < due ? d->due_ns : due;
    return due;
}
