/* server.h - what the files of the listener share. All of it is its thread's. */
#ifndef MEMKIT_LISTEN_SERVER_H
#define MEMKIT_LISTEN_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <microhttpd.h>

#include "listen/listen.h"

#pragma GCC visibility push(hidden)

#define LISTEN_CONNECTIONS 64          /* further ones wait in the kernel until one ends */
#define LISTEN_WAITING     32          /* of them, in a ?seconds= of theirs; further ones: 503 */
#define LISTEN_IDLE_S      15          /* a connection of which nothing is heard is closed */
#define LISTEN_MEMORY      (24u << 10) /* of a connection, for a request's head */
#define LISTEN_BODY        (1u << 20)  /* of a POST; longer: 413 */

struct server;

/* A request, from its line on. */
typedef struct request {
    struct server *server;
    struct conn *peer;
    struct MHD_Connection *connection;
    char *path;        /* decoded; NULL: it cannot be */
    const char *query; /* behind the path, "" for none */
    char *data;        /* of the body */
    size_t data_len;
    bool seen, too_long, answered;
    memkit_debug_req *debug; /* begun */
    bool waiting;            /* in a slot of server.waiting, and suspended */
    bool gone;               /* its client is: nothing is to be sent */
    uint64_t due_ns;
} request;

/* A connection; `fd` is read in the child of a fork, too, so it is set as soon as there is one and
 * cleared before it is closed. */
typedef struct conn {
    atomic_int fd; /* 0: a free slot */
    request *request;
    uint64_t gone_ns; /* its client has sent its last: when it is ended for it; 0: not so */
} conn;

typedef struct server {
    const memkit__listen_host *host;
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd, mhd_fd;
    bool loopback;
    bool shut; /* nobody is let in: all slots are taken, or accept failed */
    bool progress;
    uint64_t now_ns, retry_ns;
    unsigned n_waiting, n_gone; /* n_gone: connections with a gone_ns */
    conn *newcomer;
    request *waiting[LISTEN_WAITING];
    conn conns[LISTEN_CONNECTIONS];
} server;

/* http.c: the daemon. 0, or -1. */
int memkit__http_start(server *s);

/* The request waits until due_ns; false: too many do. */
bool memkit__wait_begin(server *s, request *r);
/* It waits no more, without its connection being told. */
void memkit__wait_end(server *s, request *r);

/* A connection has ended: the next may come. */
void memkit__door_open(server *s);

/* Whether a Host field names this machine: localhost or an address, with or without a port. A page
 * elsewhere that makes its own name point here (DNS rebinding) does not. */
bool memkit__host_is_here(const char *host);

#pragma GCC visibility pop

#endif
