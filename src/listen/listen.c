/* listen.c - the listener's thread: its event loop, its connections, those that wait.
 *
 *     its epoll set                          what it means
 *     +------------------------------+
 *     | libmicrohttpd's epoll fd     | -->  MHD_run: read, call http.c, write
 *     | the listening socket         | -->  accepted here, in a slot, handed on
 *     | every connection's hang-up   | -->  who waits in a ?seconds= there waits no more
 *     +------------------------------+
 *
 * libmicrohttpd runs in its external mode, so that the thread is ours: quiet for all its life, and
 * with all signals blocked, as a program's handlers expect threads of its own. A request that waits
 * is suspended and holds no thread. The thread ends with the process, or when the program closes
 * its descriptors, as some do with all they find.
 *
 * In the child of a fork there is the memory, but no thread: its descriptors are closed there (the
 * port must not stay taken, nor a client connected, for the child's sake), the memory is left.
 */
#define _GNU_SOURCE /* accept4, pthread_setname_np */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "listen/server.h"

#define RETRY_NS 100000000u /* where accept fails for want of something */
#define GONE_NS  250000000u /* libmicrohttpd has read by then what came before the client's end */
#define EVENTS   16

/* 0.9.75 asks to be run again and again for a connection whose memory is full and whose request is
 * not whole. After so many turns in vain it has to wait a little. */
#define IDLE_MS 1000 /* the thread looks around as often */
#define IN_VAIN 16

enum { TAG_MHD = 0, TAG_LISTEN = 1 };

static _Atomic(server *) current;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- those that wait ---- */

bool memkit__wait_begin(server *s, request *r)
{
    for (unsigned i = 0; i < LISTEN_WAITING; i++)
        if (s->waiting[i] == NULL) {
            s->waiting[i] = r;
            s->n_waiting++;
            r->waiting = true;
            return true;
        }
    return false;
}

void memkit__wait_end(server *s, request *r)
{
    for (unsigned i = 0; i < LISTEN_WAITING && r->waiting; i++)
        if (s->waiting[i] == r) {
            s->waiting[i] = NULL;
            s->n_waiting--;
            r->waiting = false;
        }
}

static void wake(server *s, request *r)
{
    memkit__wait_end(s, r);
    MHD_resume_connection(r->connection);
}

static void wake_due(server *s)
{
    for (unsigned i = 0; s->n_waiting > 0 && i < LISTEN_WAITING; i++)
        if (s->waiting[i] != NULL && s->waiting[i]->due_ns <= s->now_ns)
            wake(s, s->waiting[i]);
}

static void hung_up(server *s, conn *c)
{
    request *r = c->request;
    if (c->gone_ns == 0) {
        c->gone_ns = s->now_ns + GONE_NS;
        s->n_gone++;
    }
    if (r == NULL || !r->waiting)
        return;
    s->host->cancel(r->debug);
    r->debug = NULL;
    r->gone = true;
    wake(s, r);
}

/* 0.9.75 overlooks an end that arrives together with the last bytes, and would keep the connection
 * until its time-out: so it is told once more. Who is still being answered is left to that. */
static void end_gone(server *s)
{
    for (unsigned i = 0; s->n_gone > 0 && i < LISTEN_CONNECTIONS; i++) {
        conn *c = &s->conns[i];
        if (c->gone_ns == 0 || c->gone_ns > s->now_ns)
            continue;
        c->gone_ns = s->now_ns + GONE_NS;
        if (c->request == NULL || !c->request->answered)
            shutdown(atomic_load_explicit(&c->fd, memory_order_relaxed), SHUT_RDWR);
    }
}

/* ---- the door ---- */

static void set_door(server *s, bool shut)
{
    struct epoll_event ev = {.events = shut ? 0 : EPOLLIN, .data.u64 = TAG_LISTEN};
    s->shut = shut;
    epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->listen_fd, &ev);
}

void memkit__door_open(server *s)
{
    if (s->shut)
        set_door(s, false);
}

static conn *free_slot(server *s)
{
    for (unsigned i = 0; i < LISTEN_CONNECTIONS; i++)
        if (atomic_load_explicit(&s->conns[i].fd, memory_order_relaxed) == 0)
            return &s->conns[i];
    return NULL;
}

/* Above the numbers that the program may count on. */
static int to_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, MEMKIT__LISTEN_FD);
    if (high < 0)
        return fd;
    close(fd);
    return high;
}

static void accept_one(server *s)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof addr;
    conn *c = free_slot(s);
    if (c == NULL) {
        set_door(s, true);
        return;
    }
    int fd = accept4(s->listen_fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            set_door(s, true);
            s->retry_ns = s->now_ns + RETRY_NS;
        }
        return;
    }
    fd = to_high(fd);
    atomic_store(&c->fd, fd);
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    s->newcomer = c;
    if (MHD_add_connection(s->daemon, fd, (const struct sockaddr *)&addr, len) != MHD_YES)
        atomic_store(&c->fd, 0); /* it has closed the descriptor */
    s->newcomer = NULL;
}

/* ---- the loop ---- */

static bool pending(server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;
    return MHD_get_timeout(s->daemon, &ms) == MHD_YES && ms == 0;
}

static uint64_t first_due(const server *s)
{
    uint64_t due = s->retry_ns != 0 ? s->retry_ns : UINT64_MAX;
    for (unsigned i = 0; s->n_waiting > 0 && i < LISTEN_WAITING; i++)
        if (s->waiting[i] != NULL && s->waiting[i]->due_ns < due)
            due = s->waiting[i]->due_ns;
    for (unsigned i = 0; s->n_gone > 0 && i < LISTEN_CONNECTIONS; i++)
        if (s->conns[i].gone_ns != 0 && s->conns[i].gone_ns < due)
            due = s->conns[i].gone_ns;
    return due;
}

static int wait_ms(server *s, unsigned in_vain)
{
    MHD_UNSIGNED_LONG_LONG ms = UINT_MAX;
    if (MHD_get_timeout(s->daemon, &ms) != MHD_YES)
        ms = UINT_MAX;
    if (ms == 0)
        return in_vain < IN_VAIN ? 0 : 1;
    uint64_t due = first_due(s), now = now_ns();
    if (due != UINT64_MAX) {
        uint64_t left = due > now ? (due - now + 999999u) / 1000000u : 0;
        ms = left < ms ? left : ms;
    }
    return ms > IDLE_MS ? IDLE_MS : (int)ms;
}

/* False: the descriptors are not ours any more. */
static bool turn(server *s, unsigned *in_vain)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(s->epoll_fd, ev, EVENTS, wait_ms(s, *in_vain));
    if (n < 0 && errno != EINTR)
        return false;
    if (n == 0 && *in_vain == 0)
        s->host->idle();
    *in_vain = n > 0 || s->progress || !pending(s) ? 0 : *in_vain + 1;
    s->progress = false;
    s->now_ns = now_ns();
    bool clients = false;
    for (int i = 0; i < n; i++) {
        if (ev[i].data.u64 == TAG_LISTEN)
            clients = true;
        else if (ev[i].data.u64 != TAG_MHD)
            hung_up(s, ev[i].data.ptr);
    }
    if (clients) /* last: it may fill a slot that an event above is about */
        accept_one(s);
    if (s->retry_ns != 0 && s->retry_ns <= s->now_ns) {
        s->retry_ns = 0;
        memkit__door_open(s);
    }
    wake_due(s);
    end_gone(s);
    MHD_run(s->daemon);
    return true;
}

static void *thread_main(void *arg)
{
    server *s = arg;
    unsigned in_vain = 0;
    s->host->quiet();
    pthread_setname_np(pthread_self(), "memkit-listen");
    while (turn(s, &in_vain))
        continue;
    for (unsigned i = 0; i < LISTEN_WAITING; i++)
        if (s->waiting[i] != NULL && s->waiting[i]->debug != NULL) {
            s->host->cancel(s->waiting[i]->debug);
            s->waiting[i]->debug = NULL;
        }
    return NULL;
}

/* ---- start ---- */

/* libmicrohttpd's descriptors are whatever is free: so the low ones are not, for a moment. */
static int start_daemon(server *s)
{
    int taken[MEMKIT__LISTEN_FD], n = 0;
    while (n < MEMKIT__LISTEN_FD) {
        int fd = fcntl(s->listen_fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            break;
        taken[n++] = fd;
        if (fd >= MEMKIT__LISTEN_FD)
            break;
    }
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int failed = s->epoll_fd < 0 || memkit__http_start(s) != 0;
    int err = errno;
    while (n > 0)
        close(taken[--n]);
    errno = err;
    return failed ? -1 : 0;
}

static int watch(server *s, int fd, uint64_t tag)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tag};
    return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static int start_thread(server *s)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&thread, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        pthread_detach(thread);
    errno = err;
    return err == 0 ? 0 : -1;
}

static int start(const memkit__listen_host *host, int fd, bool loopback)
{
    if (host->abi != MEMKIT__LISTEN_ABI || host->size < sizeof *host) {
        errno = ENOSYS;
        return -1;
    }
    server *s = calloc(1, sizeof *s);
    if (s == NULL)
        return -1;
    s->host = host;
    s->listen_fd = fd;
    s->loopback = loopback;
    s->now_ns = now_ns();
    if (start_daemon(s) == 0) {
        s->mhd_fd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
        atomic_store(&current, s);
        if (watch(s, s->mhd_fd, TAG_MHD) == 0 && watch(s, fd, TAG_LISTEN) == 0 &&
            start_thread(s) == 0)
            return 0;
        atomic_store(&current, NULL);
    }
    int err = errno != 0 ? errno : ENOMEM;
    if (s->daemon != NULL)
        MHD_stop_daemon(s->daemon);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
    free(s);
    errno = err;
    return -1;
}

static void in_child(void)
{
    server *s = atomic_exchange(&current, NULL);
    if (s == NULL)
        return;
    close(s->listen_fd);
    close(s->epoll_fd);
    close(s->mhd_fd);
    for (unsigned i = 0; i < LISTEN_CONNECTIONS; i++) {
        int fd = atomic_load(&s->conns[i].fd);
        if (fd > 0)
            close(fd);
    }
}

const memkit__listen_table *memkit_listen_table(void)
{
    static const memkit__listen_table table = {
        .abi = MEMKIT__LISTEN_ABI, .size = sizeof table, .start = start, .in_child = in_child};
    return &table;
}
