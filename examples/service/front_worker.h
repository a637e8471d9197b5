/* front_worker.h - what the files of the front share: a worker and what belongs to it.
 *
 * All of a worker is its own thread's, but for the counters, which /metrics reads from whichever
 * thread it is asked in, and `thread`, which is the opener's.
 */
#ifndef SERVICE_FRONT_WORKER_H
#define SERVICE_FRONT_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "front.h"
#include "front_conn.h"
#include "front_linger.h"
#include "handler.h"

#define FRONT_MAX_LINE      (16u << 10) /* request line; longer: 414 */
#define FRONT_MAX_BODY      (64u << 10) /* request body; longer: 413 */
#define FRONT_DEBUG_WAITING 16 /* debug requests with a ?seconds= under way, a worker; more: 503 \
                                */
#define FRONT_TAG_LISTEN 3u    /* epoll's tag of the listening socket, as front.c's */
#define FRONT_TAG_LINGER 16u   /* from here on: lingering connections */
#define FRONT_TAG_CONN   256u  /* and from here on a front_conn's address */

/* What libmicrohttpd keeps for a connection: the request's head, as read, and room for the answer's
 * head. It clears all of it after every request, so this much is resident per connection, and more
 * would cost time: the longest line, and 8 KiB of header fields. Beyond that: 431. */
#define FRONT_CONN_MEMORY (24u << 10)

/* The codes the front answers with, in the order of front_worker.answered. */
#define FRONT_CODES                                           \
    {                                                         \
        200, 400, 404, 405, 409, 413, 414, 431, 500, 501, 503 \
    }
#define FRONT_NCODES 11
_Static_assert(sizeof((uint16_t[])FRONT_CODES) == FRONT_NCODES * sizeof(uint16_t),
               "FRONT_NCODES is how many codes there are");

typedef struct front_worker {
    _Alignas(64) unsigned index;
    const service_config *cfg;
    front *front;
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd, timer_fd;

    /* Requests whose work is under way, first due first: all wait equally long, so that the order
     * of arrival is the order of leaving and a list will do. */
    service_request *due_head, **due_tail;
    uint64_t armed_ns; /* what the timer is set to; 0: to nothing */

    uint64_t now_ns;   /* when this turn of the loop began: near enough for every deadline */
    uint64_t retry_ns; /* front_accept.c's: when the door opens again; 0: it is open */
    front_conn *newcomer;
    front_timer lists[FRONT_LISTS]; /* their ends: front_conn.c */
    uint64_t delays_ns[FRONT_LISTS];

    struct front_debug *debugs; /* front_debug.c's: those that wait */
    unsigned n_debugs;

    bool progress;     /* libmicrohttpd has called us in this turn */
    unsigned in_vain;  /* turns in a row that it asked for, and nothing came of them */
    unsigned complete; /* requests received whole and not answered yet */
    uint64_t stop_ns;  /* when draining began; 0: not yet */
    bool expired;      /* drained for too long: who still waits is turned away */
    bool stopping;     /* the daemon is being taken down */
    front_linger linger;
    pthread_t thread;

    _Alignas(64) atomic_uint_fast64_t answered[FRONT_NCODES];
    atomic_uint_fast64_t in_flight, connections;
    atomic_uint_fast64_t timeouts[FRONT_KINDS], shed, accept_errors, turns;
} front_worker;

struct front {
    service_config cfg;
    char address[80];
    unsigned connections_each; /* at most, a worker */
    int stop_fd;               /* eventfd, readable for ever once draining begins */
    int done_fd;               /* eventfd, written by the last worker */
    atomic_uint running;
    unsigned n, started; /* workers, and how many of them have a thread */
    front_worker workers[];
};

static inline uint64_t front_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The worker is the only writer: no need for a locked instruction. */
static inline void front_count(atomic_uint_fast64_t *c, int by)
{
    uint_fast64_t v = atomic_load_explicit(c, memory_order_relaxed);
    atomic_store_explicit(c, v + (uint_fast64_t)(int64_t)by, memory_order_relaxed);
}

/* front_accept.c: someone waits at w->listen_fd. */
void front_accept(front_worker *w);

/* A connection has ended, or the time has come: where nobody was let in, the next one may be. */
void front_accept_again(front_worker *w);

/* Lets in who is waiting, and then closes w->listen_fd. */
void front_accept_last(front_worker *w);

/* front_http.c: the worker's libmicrohttpd daemon. 0; -1. */
int front_http_start(front_worker *w, unsigned max_connections);

/* front.c: the request waits in the worker's queue for WORK_MS, then its handler is called again.
 */
void front_queue(front_worker *w, service_request *r);

/* front.c: the suspended request's handler is called again, before its connection is read from. */
void front_resume(service_request *r);

/* front_debug.c: keeps bytes of the body, where the path takes one. false: no memory. */
bool front_debug_body(service_request *r, const void *data, size_t n);

/* Begins: the status to refuse with at once, 0: finish it now, 1: it waits, and its connection is
 * suspended; *why is a line of text where it is refused. */
unsigned front_debug_begin(service_request *r, const char **why);

/* What it waited for is there: the answer as r->body and *type. Its status; -1: there is none, its
 * client is gone. */
int front_debug_finish(service_request *r, const char **type);

/* The request is over. */
void front_debug_end(service_request *r);

/* Its client is gone, or its connection was ended: it waits no more. Does nothing for others. */
void front_debug_gone(service_request *r);

/* Has those whose time is up answered, and when draining all; when the next is due, UINT64_MAX:
 * none. */
void front_debug_expire(front_worker *w);
uint64_t front_debug_due(const front_worker *w);

/* front_listen.c: a listening socket for each worker, all on the first address of the config's that
 * can be had; f->address is set. 0; -1, and `why` is a line of text. */
int front_listen(front *f, char why[CONFIG_WHY]);

/* front_metrics.c: the text of /metrics as an answer's body. 0; -1. */
int front_metrics(const front *f, service_body *out);

#endif
