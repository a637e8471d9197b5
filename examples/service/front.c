/* front.c - see front.h: the workers' event loops, the simulated work, the drain.
 *
 *     a worker's epoll set                what it means
 *     +-----------------------------+
 *     | libmicrohttpd's epoll fd    | --> MHD_run: read, call front_http.c, write
 *     | listening socket            | --> front_accept.c
 *     | every connection            | --> front_conn.c: the client's end; not its data
 *     | timerfd                     | --> the work of the first in the queue is done
 *     | eventfd (shared by all)     | --> drain
 *     | lingering connections       | --> front_linger.c
 *     +-----------------------------+
 *
 * libmicrohttpd runs in its external mode: its own epoll thread stalls beyond 100 keep-alive
 * connections in 0.9.75. While a request's work is under way its connection is suspended and no
 * thread waits for it, so that two workers hold a thousand requests.
 *
 * Every turn of the loop: events, connections, due work, MHD_run, deadlines. A deadline is looked
 * at after MHD_run, so that what has arrived in time counts.
 *
 * The drain: no new connections, "Connection: close" on every answer, and the loop goes on until
 * nothing is under way; a request that is still being sent has three seconds, and a debug request
 * that waits is answered at once with what there is. DRAIN_MS later what
 * still waits is turned away with 503, and a little later the worker ends whatever its clients do.
 */
#include "front.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <microhttpd.h>

#include "front_worker.h"

#define FORCE_NS 2000000000u /* after DRAIN_MS */
#define GRACE_NS 3000000000u /* a request that is not all there has so long to arrive */
#define POLL_MS  20          /* while draining: deadlines are looked at so often */

/* 0.9.75 asks to be run again and again for a connection whose memory is full and whose request is
 * not whole (a chunk's size that does not end, say). After so many turns it has to wait a little.
 */
#define IN_VAIN 16

#define FAR_OFF_S 86400u /* a time-out that never comes: resume() says what it is for */

/* Work ends on the next quarter of a millisecond: at 10,000 requests a second one wake-up then
 * serves several, which saves a third of the service's CPU. */
#define TICK_NS 250000u

/* Descriptors that are no connections: the process's, and a worker's: listening, epoll, timer. */
#define OWN_FDS    64
#define WORKER_FDS 8
#define EVENTS     32

enum { TAG_MHD = 0, TAG_TIMER, TAG_STOP, TAG_LISTEN = FRONT_TAG_LISTEN };

void front_queue(front_worker *w, service_request *r)
{
    uint64_t due = front_now_ns() + (uint64_t)w->cfg->work_ms * 1000000u;
    r->due_ns = due + (TICK_NS - 1) - (due + (TICK_NS - 1)) % TICK_NS;
    r->next = NULL;
    *w->due_tail = r;
    w->due_tail = &r->next;
    MHD_suspend_connection(r->connection);
}

void front_resume(service_request *r)
{
    /* A resumed connection is read from before its handler is called, and a client that has closed
     * its sending half (as it may: its request was complete) would be taken for one that is gone.
     * Connections with a time-out of their own are called first: on_request sets it back. */
    MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, FAR_OFF_S);
    r->worked = true;
    MHD_resume_connection(r->connection);
}

static void resume_due(front_worker *w, uint64_t now)
{
    service_request *r;
    while ((r = w->due_head) != NULL && (r->due_ns <= now || w->expired)) {
        w->due_head = r->next;
        if (w->due_head == NULL)
            w->due_tail = &w->due_head;
        front_resume(r);
    }
}

static void arm_timer(front_worker *w)
{
    if (w->due_head == NULL || w->due_head->due_ns == w->armed_ns)
        return;
    w->armed_ns = w->due_head->due_ns;
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(w->armed_ns / 1000000000u),
                                         .tv_nsec = (long)(w->armed_ns % 1000000000u)}};
    timerfd_settime(w->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* libmicrohttpd has something to do without waiting for an event. */
static bool pending(front_worker *w)
{
    MHD_UNSIGNED_LONG_LONG ms;
    return MHD_get_timeout(w->daemon, &ms) == MHD_YES && ms == 0;
}

static int wait_ms(front_worker *w)
{
    if (pending(w) && w->in_vain < IN_VAIN)
        return 0;
    uint64_t due = front_conns_due(w);
    uint64_t debug = front_debug_due(w);
    due = debug < due ? debug : due;
    if (w->retry_ns != 0 && w->retry_ns < due)
        due = w->retry_ns;
    int timeout = -1;
    if (due != UINT64_MAX) {
        uint64_t now = front_now_ns();
        uint64_t ms = due > now ? (due - now + 999999u) / 1000000u : 0;
        timeout = ms > INT_MAX ? INT_MAX : (int)ms;
    }
    if (w->in_vain >= IN_VAIN)
        timeout = 1;
    else if (w->linger.count > 0 || w->stop_ns != 0)
        if (timeout < 0 || timeout > POLL_MS)
            timeout = POLL_MS;
    return timeout;
}

static void begin_drain(front_worker *w)
{
    if (w->stop_ns != 0)
        return;
    w->stop_ns = w->now_ns;
    epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, w->front->stop_fd, NULL); /* stays readable for ever */
    front_accept_last(w); /* who has connected already is a client of ours */
}

/* Nothing is under way, and nothing has arrived that libmicrohttpd has not looked at. */
static bool drained(front_worker *w, uint64_t now)
{
    uint64_t limit = w->stop_ns + (uint64_t)w->cfg->drain_ms * 1000000u;
    w->expired = now >= limit;
    if (now >= limit + FORCE_NS)
        return w->due_head == NULL;
    bool none = now - w->stop_ns < GRACE_NS ? atomic_load(&w->in_flight) == 0 : w->complete == 0;
    return none && w->linger.count == 0 && !pending(w);
}

static void take_events(front_worker *w)
{
    struct epoll_event ev[EVENTS];
    bool stop = false, clients = false;
    int n = epoll_wait(w->epoll_fd, ev, EVENTS, wait_ms(w));
    w->in_vain = n > 0 || w->progress || !pending(w) ? 0 : w->in_vain + 1;
    w->progress = false;
    front_count(&w->turns, 1);
    w->now_ns = front_now_ns();
    for (int i = 0; i < n; i++) {
        uint64_t tag = ev[i].data.u64;
        stop |= tag == TAG_STOP;
        clients |= tag == TAG_LISTEN;
        if (tag >= FRONT_TAG_CONN)
            front_conn_event(ev[i].data.ptr, ev[i].events);
        else if (tag >= FRONT_TAG_LINGER)
            front_linger_event(&w->linger, (unsigned)(tag - FRONT_TAG_LINGER));
    }
    /* Last, as it may make and end connections that the events above are about. */
    if (stop)
        begin_drain(w);
    else if (clients)
        front_accept(w);
}

static void loop(front_worker *w)
{
    w->now_ns = front_now_ns();
    for (bool quiet = false;;) {
        take_events(w);
        uint64_t now = w->now_ns;
        resume_due(w, now);
        front_debug_expire(w);
        MHD_run(w->daemon);
        arm_timer(w);
        if (w->linger.count > 0)
            front_linger_expire(&w->linger, now);
        front_conns_expire(w);
        if (w->retry_ns != 0 && w->retry_ns <= now)
            front_accept_again(w);
        if (w->stop_ns == 0)
            continue;
        /* Twice in a row, with a wait between them: a request may be in the socket still. */
        bool idle = drained(w, now);
        if (idle && quiet)
            return;
        quiet = idle;
    }
}

static void *worker_main(void *arg)
{
    front_worker *w = arg;
    loop(w);
    w->stopping = true;
    front_linger_expire(&w->linger, UINT64_MAX);
    MHD_stop_daemon(w->daemon);
    w->daemon = NULL;
    if (atomic_fetch_sub(&w->front->running, 1) == 1)
        eventfd_write(w->front->done_fd, 1);
    return NULL;
}

static int watch(front_worker *w, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event ev = {.events = events, .data.u64 = tag};
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static int worker_open(front *f, front_worker *w, unsigned max_connections)
{
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (w->epoll_fd < 0 || w->timer_fd < 0 || front_http_start(w, max_connections) != 0)
        return -1;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL)
        return -1;
    /* The timer is edge-triggered: setting it anew is all the reading it needs. */
    return watch(w, info->epoll_fd, EPOLLIN, TAG_MHD) != 0 ||
                   watch(w, w->listen_fd, EPOLLIN, TAG_LISTEN) != 0 ||
                   watch(w, w->timer_fd, EPOLLIN | EPOLLET, TAG_TIMER) != 0 ||
                   watch(w, f->stop_fd, EPOLLIN, TAG_STOP) != 0
               ? -1
               : 0;
}

/* A worker's share of the descriptors, so that all together cannot run out of them: a connection
 * over the limit waits in the kernel until another ends. Lingering connections get at most a
 * quarter of them. 0; -1: the limit leaves not one connection a worker. */
static int share_descriptors(front *f, char why[CONFIG_WHY])
{
    struct rlimit lim;
    rlim_t n = getrlimit(RLIMIT_NOFILE, &lim) == 0 ? lim.rlim_cur : 1024;
    rlim_t own = OWN_FDS + (rlim_t)f->n * WORKER_FDS;
    rlim_t linger = n / 4 / f->n;
    linger = linger > LINGER_MAX ? LINGER_MAX : linger;
    rlim_t each = n > own ? (n - own) / f->n : 0;
    if (each <= linger) {
        snprintf(
            why, CONFIG_WHY,
            "%llu open files (ulimit -n) are too few for MAX_WORKERS=%u: none would be left for "
            "connections",
            (unsigned long long)n, f->n);
        return -1;
    }
    each -= linger;
    f->connections_each = each > INT_MAX ? INT_MAX : (unsigned)each;
    for (unsigned i = 0; i < f->n; i++)
        f->workers[i].linger.max = (unsigned)linger;
    return 0;
}

front *front_open(const service_config *cfg, char why[CONFIG_WHY])
{
    size_t size = sizeof(front) + cfg->workers * sizeof(front_worker);
    front *f = aligned_alloc(_Alignof(front), size);
    if (f == NULL) {
        snprintf(why, CONFIG_WHY, "out of memory");
        return NULL;
    }
    memset(f, 0, size);
    f->cfg = *cfg;
    f->n = cfg->workers;
    for (unsigned i = 0; i < f->n; i++) {
        front_worker *w = &f->workers[i];
        w->index = i;
        w->cfg = &f->cfg;
        w->front = f;
        w->due_tail = &w->due_head;
        front_conns_init(w);
        w->listen_fd = w->epoll_fd = w->timer_fd = -1;
    }
    f->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (f->stop_fd < 0 || f->done_fd < 0) {
        snprintf(why, CONFIG_WHY, "cannot make an eventfd: %s", strerror(errno));
        front_close(f);
        return NULL;
    }
    if (share_descriptors(f, why) != 0 || front_listen(f, why) != 0) {
        front_close(f);
        return NULL;
    }
    for (unsigned i = 0; i < f->n; i++)
        if (worker_open(f, &f->workers[i], f->connections_each) != 0) {
            snprintf(why, CONFIG_WHY, "cannot start worker %u of %u: %s", i + 1, f->n,
                     strerror(errno));
            front_close(f);
            return NULL;
        }
    return f;
}

const char *front_address(const front *f)
{
    return f->address;
}

unsigned front_connections_each(const front *f)
{
    return f->connections_each;
}

int front_done_fd(const front *f)
{
    return f->done_fd;
}

int front_start(front *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        atomic_fetch_add(&f->running, 1);
        int err = pthread_create(&f->workers[i].thread, NULL, worker_main, &f->workers[i]);
        if (err != 0) {
            /* front_close joins those that run: they are told to end. */
            if (atomic_fetch_sub(&f->running, 1) == 1)
                eventfd_write(f->done_fd, 1);
            front_stop(f);
            errno = err;
            return -1;
        }
        f->started = i + 1;
    }
    return 0;
}

void front_stop(front *f)
{
    eventfd_write(f->stop_fd, 1);
}

void front_close(front *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        front_worker *w = &f->workers[i];
        if (i < f->started)
            pthread_join(w->thread, NULL);
        w->stopping = true;
        if (w->daemon != NULL)
            MHD_stop_daemon(w->daemon); /* never run */
        if (w->listen_fd >= 0)
            close(w->listen_fd);
        if (w->epoll_fd >= 0)
            close(w->epoll_fd);
        if (w->timer_fd >= 0)
            close(w->timer_fd);
    }
    if (f->stop_fd >= 0)
        close(f->stop_fd);
    if (f->done_fd >= 0)
        close(f->done_fd);
    free(f);
}
