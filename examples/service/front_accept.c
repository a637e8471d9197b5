/* front_accept.c - the door: connections are accepted here and handed to libmicrohttpd.
 *
 * Its own accepting would spin where the process has no descriptor left and the worker no
 * connection whose end could bring one. Here the door is shut instead:
 *
 *   - the worker holds as many connections as it may: the one that has been idle longest makes
 *     room, and where none is idle the next client waits in the kernel until one ends;
 *   - accept fails for want of descriptors or memory: until a connection ends, or RETRY_NS later,
 *     for another part of the process may have given some back.
 */
#define _GNU_SOURCE /* accept4 */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "front_worker.h"

#define RETRY_NS 100000000u
#define TURN     16 /* accepted at once, then those that are connected have theirs */

static void set_door(front_worker *w, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.u64 = FRONT_TAG_LISTEN};
    epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, w->listen_fd, &ev);
}

static void shut(front_worker *w)
{
    if (w->retry_ns == 0)
        set_door(w, 0);
    w->retry_ns = w->now_ns + RETRY_NS;
}

void front_accept_again(front_worker *w)
{
    if (w->retry_ns == 0 || w->listen_fd < 0)
        return;
    w->retry_ns = 0;
    set_door(w, EPOLLIN);
}

/* 0; -1: no memory for it. Its descriptor is libmicrohttpd's, which closes it in either case. */
static int admit(front_worker *w, int fd, const struct sockaddr *addr, socklen_t len)
{
    w->newcomer = front_conn_new(w);
    if (w->newcomer == NULL) {
        close(fd);
        return -1;
    }
    enum MHD_Result ok = MHD_add_connection(w->daemon, fd, addr, len);
    free(w->newcomer); /* NULL where on_connection has been told of it */
    w->newcomer = NULL;
    return ok == MHD_YES ? 0 : -1;
}

/* What accept reports of a client that left before it was accepted, or of its network. */
static bool next_may_do(int err)
{
    switch (err) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
        return true;
    default:
        return false;
    }
}

/* 1: accepted, or lost; 0: nobody waits; -1: not now. */
static int accept_one(front_worker *w)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof addr;
    int fd = accept4(w->listen_fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno == EAGAIN)
        return 0;
    if (fd < 0 && next_may_do(errno))
        return 1;
    if (fd >= 0 && admit(w, fd, (const struct sockaddr *)&addr, len) == 0)
        return 1;
    front_count(&w->accept_errors, 1);
    return -1;
}

static bool full(const front_worker *w)
{
    return atomic_load_explicit(&w->connections, memory_order_relaxed) >=
           w->front->connections_each;
}

void front_accept(front_worker *w)
{
    for (int i = 0; i < TURN; i++) {
        if (full(w)) {
            front_conns_shed(w); /* closed at the next run, which opens the door again */
            shut(w);
            return;
        }
        int n = accept_one(w);
        if (n < 0)
            shut(w);
        if (n <= 0)
            return;
    }
}

void front_accept_last(front_worker *w)
{
    while (!full(w) && accept_one(w) > 0)
        continue;
    close(w->listen_fd);
    w->listen_fd = -1;
    w->retry_ns = 0;
}
