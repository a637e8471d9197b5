/* front_conn.c - see front_conn.h. A connection's way through the lists:
 *
 *     accepted --> READ --(received whole)--> in none --(answered)--> SETTLE --> IDLE
 *                   ^                                                   |          |
 *                   +---------------(a byte of the next request)--------+----------+
 *
 * and from the end of the head to the end of the answer it is in WRITE, or DEBUG, too. Who is in
 * READ, SETTLE or IDLE and closes his sending half goes to GONE, and a moment later the connection
 * ends.
 *
 * The first byte of a request is libmicrohttpd's to read, and it tells of a request only once its
 * line is complete. So the kernel is asked how many bytes have ever arrived: more than all requests
 * so far were long, and another has begun. A busy connection must not pay for that: it is asked
 * about when it has settled, SETTLE_NS after the answer; from then on epoll tells, once, unless
 * libmicrohttpd reads the byte first, or other events are in the way. So an idle one is asked about
 * every LOOK_NS too: a request is ended so much later than at its time-out at worst.
 */
#include "front_conn.h"

#include <stdlib.h>
#include <linux/tcp.h> /* glibc's own tcp_info ends before tcpi_bytes_received */
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "front_worker.h"

/* Deadlines are on the next of these: a worker with a thousand connections that come and go wakes
 * for them 50 times a second, and not for each. */
#define TICK_NS 20000000u

#define SETTLE_NS 200000000u
#define LOOK_NS   500000000u
#define GONE_NS   250000000u /* libmicrohttpd has had many a run by then to read what came before */

/* ---- lists ---- */

static void leave(front_timer *t)
{
    if (t->next == NULL)
        return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

static void enter(front_worker *w, front_timer *t, front_list list, uint64_t from_ns)
{
    front_timer *end = &w->lists[list];
    leave(t);
    uint64_t due = from_ns + w->delays_ns[list] + TICK_NS - 1;
    t->due_ns = due - due % TICK_NS;
    t->prev = end->prev;
    t->next = end;
    end->prev->next = t;
    end->prev = t;
}

/* From a moment that is not now a list is out of order, by SETTLE_NS or LOOK_NS at most: so much
 * later than promised a connection may end. */
static void go_from(front_conn *c, front_list list, uint64_t from_ns)
{
    enter(c->worker, &c->phase, list, from_ns);
    c->list = (uint8_t)list;
}

static void go(front_conn *c, front_list list)
{
    go_from(c, list, c->worker->now_ns);
}

static bool in(const front_conn *c, front_list list)
{
    return c->phase.next != NULL && c->list == list;
}

static front_conn *conn_of(front_timer *t, front_list list)
{
    bool writes = list == FRONT_WRITE || list == FRONT_DEBUG || list == FRONT_LOOK;
    size_t at = writes ? offsetof(front_conn, write) : offsetof(front_conn, phase);
    return (front_conn *)(void *)((char *)t - at);
}

void front_conns_init(front_worker *w)
{
    const uint64_t ms = 1000000u;
    const service_config *cfg = w->cfg;
    uint64_t idle = cfg->idle_timeout_ms * ms;
    uint64_t settle = idle / 4 < SETTLE_NS ? idle / 4 : SETTLE_NS;
    uint64_t look = cfg->read_timeout_ms * ms / 10;
    w->delays_ns[FRONT_LOOK] = look < LOOK_NS ? look : LOOK_NS;
    w->delays_ns[FRONT_READ] = cfg->read_timeout_ms * ms;
    w->delays_ns[FRONT_WRITE] = cfg->write_timeout_ms * ms;
    w->delays_ns[FRONT_DEBUG] = cfg->debug_timeout_ms * ms;
    w->delays_ns[FRONT_SETTLE] = settle;
    w->delays_ns[FRONT_IDLE] = idle - settle;
    w->delays_ns[FRONT_GONE] = GONE_NS;
    for (int i = 0; i < FRONT_LISTS; i++)
        w->lists[i].prev = w->lists[i].next = &w->lists[i];
}

/* ---- the socket ---- */

static void watch(front_conn *c, int op, bool next_byte)
{
    struct epoll_event ev = {.events = EPOLLRDHUP | (next_byte ? EPOLLIN | EPOLLONESHOT : EPOLLET),
                             .data.ptr = c};
    /* Without it, for want of kernel memory, a client's end is seen when its time is over. */
    c->armed = epoll_ctl(c->worker->epoll_fd, op, c->fd, &ev) == 0 && next_byte;
}

/* A byte has arrived that belongs to no request received so far; *ago_ns: the last one, so long
 * ago. */
static bool begun(front_conn *c, uint64_t *ago_ns)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return false;
    if (c->inexact) { /* as if nothing had been sent behind the chunked body */
        c->inexact = false;
        c->consumed = info.tcpi_bytes_received;
    }
    *ago_ns = info.tcpi_last_data_recv * 1000000ull;
    return info.tcpi_bytes_received > c->consumed;
}

/* libmicrohttpd sees the hang-up at its next run, and closes. A suspended one waits until its work
 * is done; but its client knows already. */
static void end(front_conn *c)
{
    if (c->request != NULL)
        front_debug_gone(c->request);
    leave(&c->phase);
    leave(&c->write);
    c->ended = true;
    shutdown(c->fd, SHUT_RDWR);
}

static void time_out(front_conn *c, front_list kind)
{
    front_count(&c->worker->timeouts[kind], 1);
    if (kind == FRONT_WRITE || kind == FRONT_DEBUG) {
        /* What this client does not read would stay in the kernel for minutes. */
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    end(c);
}

/* ---- a connection's life ---- */

front_conn *front_conn_new(front_worker *w)
{
    front_conn *c = calloc(1, sizeof *c);
    if (c != NULL)
        c->worker = w;
    return c;
}

void front_conn_open(front_conn *c, int fd)
{
    c->fd = fd;
    go(c, FRONT_READ);
    watch(c, EPOLL_CTL_ADD, false);
}

void front_conn_close(front_conn *c)
{
    /* Closing the descriptor is not enough where a duplicate lingers. */
    epoll_ctl(c->worker->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    leave(&c->phase);
    leave(&c->write);
    free(c);
}

void front_conn_line(front_conn *c)
{
    if (!c->ended && !in(c, FRONT_READ))
        go(c, c->fin ? FRONT_GONE : FRONT_READ);
}

/* Empty lines before a request are skipped, as they should be, and no part of its head. But every
 * request is read to the beginning of the connection's memory, which is malloc's: aligned, and less
 * than an alignment is skipped unless a client means harm. Its idle time-out is the read time-out
 * then. */
static size_t skipped(front_conn *c, const char *head)
{
    uintptr_t at = (uintptr_t)head, memory = at - at % _Alignof(max_align_t);
    if (c->memory == 0 || memory < c->memory)
        c->memory = memory;
    return at - c->memory;
}

void front_conn_head(front_conn *c, const char *head, size_t bytes, bool debug)
{
    c->consumed += skipped(c, head) + bytes;
    if (!c->ended)
        enter(c->worker, &c->write, debug ? FRONT_DEBUG : FRONT_WRITE, c->worker->now_ns);
}

void front_conn_body(front_conn *c, size_t bytes)
{
    c->consumed += bytes;
}

void front_conn_whole(front_conn *c)
{
    leave(&c->phase);
}

void front_conn_answered(front_conn *c)
{
    leave(&c->write);
    if (!c->ended)
        go(c, c->fin ? FRONT_GONE : FRONT_SETTLE);
}

void front_conn_event(front_conn *c, uint32_t events)
{
    if (c->ended)
        return;
    if (c->armed)
        watch(c, EPOLL_CTL_MOD, false);
    if ((events & EPOLLRDHUP) != 0 && !c->fin) {
        c->fin = true;
        if (c->request != NULL)
            front_debug_gone(c->request);
        if (c->phase.next != NULL)
            go(c, FRONT_GONE);
    }
    uint64_t ago;
    if (in(c, FRONT_IDLE) && begun(c, &ago))
        go(c, FRONT_READ);
}

/* ---- deadlines ---- */

static void settle(front_conn *c)
{
    uint64_t ago;
    if (begun(c, &ago)) {
        go_from(c, FRONT_READ, c->worker->now_ns - c->worker->delays_ns[FRONT_SETTLE]);
        return;
    }
    go(c, FRONT_IDLE);
    enter(c->worker, &c->write, FRONT_LOOK, c->worker->now_ns);
    watch(c, EPOLL_CTL_MOD, true);
}

/* true: it was idle no more, and is being read from since its last byte, but no longer than since
 * the last look. The kernel counts in jiffies: a tick less is never too long. */
static bool look(front_conn *c)
{
    front_worker *w = c->worker;
    uint64_t ago, most = w->delays_ns[FRONT_LOOK];
    leave(&c->write);
    if (!in(c, FRONT_IDLE))
        return true;
    if (!begun(c, &ago)) {
        enter(w, &c->write, FRONT_LOOK, w->now_ns);
        return false;
    }
    ago = ago < TICK_NS ? 0 : ago - TICK_NS;
    go_from(c, FRONT_READ, w->now_ns - (ago < most ? ago : most));
    return true;
}

/* Nothing more will come, and what came before was no whole request, unless some of it is in the
 * socket still, and becomes less. libmicrohttpd 0.9.75 overlooks an end that arrives together with
 * the last bytes. */
static void gone(front_conn *c)
{
    int unread = 0, before = c->unread;
    if (ioctl(c->fd, FIONREAD, &unread) != 0 || unread == 0 || unread == before) {
        end(c);
        return;
    }
    c->unread = unread;
    go(c, FRONT_GONE);
}

void front_conns_expire(front_worker *w)
{
    for (int i = 0; i < FRONT_LISTS; i++) {
        front_list list = (front_list)i;
        front_timer *t;
        while ((t = w->lists[i].next) != &w->lists[i] && t->due_ns <= w->now_ns) {
            front_conn *c = conn_of(t, list);
            if (list == FRONT_SETTLE)
                settle(c);
            else if (list == FRONT_GONE)
                gone(c);
            else if (list == FRONT_LOOK)
                look(c);
            else if (list != FRONT_IDLE || !look(c))
                time_out(c, list);
        }
    }
}

uint64_t front_conns_due(const front_worker *w)
{
    uint64_t due = UINT64_MAX;
    for (int i = 0; i < FRONT_LISTS; i++) {
        const front_timer *first = w->lists[i].next;
        if (first != &w->lists[i] && first->due_ns < due)
            due = first->due_ns;
    }
    return due;
}

bool front_conns_shed(front_worker *w)
{
    front_timer *first = w->lists[FRONT_IDLE].next;
    if (first == &w->lists[FRONT_IDLE])
        return false;
    front_count(&w->shed, 1);
    end(conn_of(first, FRONT_IDLE));
    return true;
}
