/* load_gen.c - see load_gen.h: the generator's connections.
 *
 * One thread, one epoll, no malloc. What is due and waits for a connection needs no queue: it is
 * the numbers from `next` up to the clock's.
 *
 *     request     0 ........ next ........ rate * (now - start) ........ total
 *                 sent       due, waiting  |   not due yet
 *
 * Sockets are registered once, edge-triggered for both directions: no epoll_ctl later on. Large
 * bodies are discarded in the kernel (MSG_TRUNC). The loop sleeps to the nanosecond (epoll_pwait2):
 * a millisecond of oversleeping would be a millisecond in everybody's latency.
 */
#define _GNU_SOURCE /* ppoll, syscall */

#include "load_gen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS   32 /* few at a time, so that what is due meanwhile is not late for long */
#define RETRY_NS (100 * 1000000ull)

uint64_t load_gen_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * LOAD_NS + (uint64_t)ts.tv_nsec;
}

uint64_t load_gen_due_at(const load_gen *g, uint64_t i)
{
    return g->start + (uint64_t)((double)i * 1e9 / g->o.rate);
}

uint64_t load_gen_due_by(const load_gen *g, uint64_t t)
{
    if (g->o.rate <= 0)
        return g->next;
    uint64_t n = (uint64_t)((double)(t - g->start) * g->o.rate / 1e9) + 1;
    n = n < g->total ? n : g->total;
    return n > g->next ? n
                       : g->next; /* rounding must not make a sent request one that is not due */
}

static void idle_push(load_gen *g, uint32_t i)
{
    g->conn[i].state = LOAD_IDLE;
    g->conn[i].next_idle = LOAD_NONE;
    if (g->idle_first == LOAD_NONE)
        g->idle_first = i;
    else
        g->conn[g->idle_last].next_idle = i;
    g->idle_last = i;
}

static uint32_t idle_pop(load_gen *g)
{
    uint32_t i = g->idle_first;
    if (i != LOAD_NONE)
        g->idle_first = g->conn[i].next_idle;
    return i;
}

/* Only for a connection that closed while idle: rare, so a walk will do. */
static void idle_remove(load_gen *g, uint32_t i)
{
    uint32_t *link = &g->idle_first, prev = LOAD_NONE;
    while (*link != LOAD_NONE && *link != i) {
        prev = *link;
        link = &g->conn[*link].next_idle;
    }
    if (*link == LOAD_NONE)
        return;
    *link = g->conn[i].next_idle;
    if (g->idle_last == i)
        g->idle_last = prev;
}

static void conn_down(load_gen *g, uint32_t i, uint64_t retry)
{
    load_conn *c = &g->conn[i];
    if (c->state == LOAD_IDLE)
        idle_remove(g, i);
    if (c->state == LOAD_BUSY)
        g->busy--;
    if (c->state == LOAD_IDLE || c->state == LOAD_BUSY)
        g->up--;
    if (c->fd >= 0)
        close(c->fd); /* leaves the epoll by itself */
    c->fd = -1;
    c->state = LOAD_DOWN;
    c->retry = retry;
}

static void conn_up(load_gen *g, uint32_t i)
{
    g->up++;
    idle_push(g, i);
}

/* Starts a connection. 0, or -1 with errno: it is LOAD_DOWN until its retry. */
int load_gen_connect(load_gen *g, uint32_t i, uint64_t now)
{
    load_conn *c = &g->conn[i];
    int one = 1;
    c->fd = socket(g->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = i};
    c->state = LOAD_CONNECTING;
    c->began = now;
    int rc = connect(c->fd, (struct sockaddr *)&g->addr, g->addr_len);
    if ((rc != 0 && errno != EINPROGRESS) || epoll_ctl(g->epfd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        int err = errno;
        conn_down(g, i, now + RETRY_NS);
        errno = err;
        return -1;
    }
    if (rc == 0)
        conn_up(g, i);
    return 0;
}

static void count_failure(load_gen *g, uint64_t *what)
{
    ++*what;
    g->sec_failed++;
}

/* A request that will never be answered: its wait so far is what is known of its latency. */
void load_gen_lower_bound(load_gen *g, uint64_t intended, uint64_t now)
{
    load_hist_record(&g->r->latency, now > intended ? now - intended : 0);
    g->r->lower_bounds++;
}

static void conn_broken(load_gen *g, uint32_t i, uint64_t now)
{
    if (g->conn[i].state == LOAD_BUSY)
        count_failure(g, &g->r->closed);
    g->r->reconnects++;
    conn_down(g, i, now);
    if (now < g->send_end && load_gen_connect(g, i, now) != 0)
        g->r->connect_failures++;
}

/* Sends what is left of the request. false: the connection is broken. */
static bool send_rest(load_gen *g, load_conn *c)
{
    while (c->off < g->req_len) {
        ssize_t n = send(c->fd, c->req + c->off, g->req_len - c->off, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->off += (uint32_t)n;
    }
    return true;
}

static void send_next(load_gen *g, uint32_t i, uint64_t intended, uint64_t now)
{
    load_conn *c = &g->conn[i];
    load_ids_write(&g->ids, load_ids_next(&g->ids), c->req + g->id_at);
    load_http_reset(&c->http);
    c->state = LOAD_BUSY;
    c->off = 0;
    c->intended = intended;
    c->began = now;
    g->busy++;
    g->next++;
    g->r->sent++;
    if (!send_rest(g, c))
        conn_broken(g, i, now);
}

/* Sends all that is due, as far as connections are free. */
void load_gen_fire(load_gen *g, uint64_t now)
{
    if (g->o.rate <= 0) {
        while (now < g->end && g->idle_first != LOAD_NONE)
            send_next(g, idle_pop(g), now, now);
        return;
    }
    while (g->next < g->total) {
        uint64_t due = load_gen_due_at(g, g->next);
        if (due > now) {
            g->starved = false;
            return;
        }
        if (g->idle_first == LOAD_NONE) {
            g->starved = true;
            return;
        }
        if (!g->starved)
            load_hist_record(&g->r->lateness, now - due);
        send_next(g, idle_pop(g), due, now);
        if ((g->next & 15) == 0)
            now = load_gen_now();
    }
}

static void answered(load_gen *g, uint32_t i, uint64_t now)
{
    load_conn *c = &g->conn[i];
    uint64_t latency = now > c->intended ? now - c->intended : 0;
    g->r->body_bytes += c->http.body_len;
    if (c->http.status == 200) {
        g->r->answered++;
        g->last_answer = now;
        load_hist_record(&g->r->latency, latency);
        load_hist_record(&g->sec, latency);
        if (g->o.rate > 0 && now > g->end + g->r->latency.min + (uint64_t)(LOAD_PROMPT_S * 1e9))
            g->r->late++;
    } else {
        count_failure(g, &g->r->bad_status);
    }
    g->busy--;
    idle_push(g, i);
}

/* Reads what there is. Returns false when the connection is no longer what it was. */
static bool receive(load_gen *g, uint32_t i)
{
    load_conn *c = &g->conn[i];
    for (;;) {
        bool skip = c->state == LOAD_BUSY && load_http_skippable(&c->http) >= LOAD_SCRATCH;
        ssize_t n = recv(c->fd, g->scratch, LOAD_SCRATCH, skip ? MSG_TRUNC : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        uint64_t now = load_gen_now();
        if (n <= 0) {
            if (n == 0 && c->state == LOAD_BUSY && load_http_eof(&c->http))
                answered(g, i, now);
            conn_broken(g, i, now);
            return false;
        }
        if (c->state != LOAD_BUSY) { /* nobody asked */
            g->r->malformed++;
            conn_broken(g, i, now);
            return false;
        }
        size_t used = (size_t)n;
        if (skip)
            load_http_skip(&c->http, used);
        else
            used = load_http_feed(&c->http, g->scratch, (size_t)n);
        bool bad = c->http.state == LOAD_HTTP_ERROR || used < (size_t)n;
        if (bad || (c->http.state == LOAD_HTTP_DONE && c->http.close)) {
            if (bad) {
                count_failure(g, &g->r->malformed);
                g->busy--;
                idle_push(g, i); /* counted once: conn_broken must not see it busy */
            } else {
                answered(g, i, now);
            }
            conn_broken(g, i, now);
            return false;
        }
        if (c->http.state == LOAD_HTTP_DONE)
            answered(g, i, now);
        /* Edge-triggered: a short read has emptied the socket, the next byte is a new event. */
        if (n < LOAD_SCRATCH)
            return true;
    }
}

static void on_event(load_gen *g, const struct epoll_event *ev)
{
    uint32_t i = ev->data.u32;
    load_conn *c = &g->conn[i];
    if (c->state == LOAD_DOWN)
        return; /* closed by an earlier event of the same batch */
    if (c->state == LOAD_CONNECTING) {
        int err = 0;
        socklen_t len = sizeof err;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err != 0) {
            g->r->connect_failures++;
            conn_down(g, i, load_gen_now() + RETRY_NS);
        } else if ((ev->events & EPOLLOUT) != 0) {
            conn_up(g, i);
        }
        return;
    }
    if ((ev->events & EPOLLOUT) != 0 && c->state == LOAD_BUSY && c->off < g->req_len &&
        !send_rest(g, c)) {
        conn_broken(g, i, load_gen_now());
        return;
    }
    /* After a short read the end of the connection may be left to see: RDHUP tells of it, and a
     * read of nothing then says so. */
    if ((ev->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && receive(g, i) &&
        (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        receive(g, i);
}

/* Waits for events until a moment at most, and handles them. */
void load_gen_wait(load_gen *g, uint64_t until)
{
    struct epoll_event ev[EVENTS];
    uint64_t now = load_gen_now(), ns = until > now ? until - now : 0;
    struct timespec ts = {.tv_sec = (time_t)(ns / LOAD_NS), .tv_nsec = (long)(ns % LOAD_NS)};
    int n = -1;
#ifdef SYS_epoll_pwait2
    if (!g->no_pwait2) {
        n = (int)syscall(SYS_epoll_pwait2, g->epfd, ev, EVENTS, &ts, NULL, 0);
        /* ENOSYS before Linux 5.11; EPERM from containers that do not know it. */
        g->no_pwait2 = n < 0 && (errno == ENOSYS || errno == EPERM);
    }
#else
    g->no_pwait2 = true;
#endif
    if (g->no_pwait2) {
        struct pollfd p = {.fd = g->epfd, .events = POLLIN};
        ppoll(&p, 1, &ts, NULL);
        n = epoll_wait(g->epfd, ev, EVENTS, 0);
    }
    for (int k = 0; k < n; k++)
        on_event(g, &ev[k]);
}

void load_gen_sweep(load_gen *g, uint64_t now)
{
    uint64_t timeout = (uint64_t)(g->o.timeout_s * 1e9);
    uint64_t connect_timeout = (uint64_t)(g->o.connect_s * 1e9);
    for (uint32_t i = 0; i < g->o.connections; i++) {
        load_conn *c = &g->conn[i];
        if (c->state == LOAD_BUSY && now > c->began + timeout) {
            count_failure(g, &g->r->timed_out);
            load_gen_lower_bound(g, c->intended, now);
            g->r->reconnects++;
            conn_down(g, i, now);
        } else if (c->state == LOAD_CONNECTING && now > c->began + connect_timeout) {
            g->r->connect_failures++;
            conn_down(g, i, now);
        }
        if (c->state == LOAD_DOWN && now >= c->retry && now < g->send_end &&
            load_gen_connect(g, i, now) != 0)
            g->r->connect_failures++;
    }
}
