/* front_conn.h - what the front knows of a connection, and when it ends one.
 *
 * Time-outs as Go's http.Server means them, and one for the debug paths. Each is a total: a byte
 * now and then buys no client more of it.
 *
 *     read    from the connection's first moment, and on one that is kept alive from the request's,
 *             until the request is received whole
 *     write   from the end of the request's head until its answer is sent whole
 *     debug   the same for what is under /debug/, which may wait on purpose
 *     idle    from the end of an answer until the next request's first byte
 *
 * libmicrohttpd's own time-out is none of these: any byte starts it anew. It is off.
 */
#ifndef SERVICE_FRONT_CONN_H
#define SERVICE_FRONT_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct front_worker;
struct service_request;

/* The lists of deadlines: all in one list wait equally long, so that the first in it is always the
 * first due, and to enter, to leave and to look are O(1). */
typedef enum {
    FRONT_READ = 0,
    FRONT_WRITE,
    FRONT_DEBUG,
    FRONT_IDLE,
    FRONT_KINDS,                /* those four are counted when they end a connection */
    FRONT_SETTLE = FRONT_KINDS, /* answered, and a moment later it is either idle or begun */
    FRONT_GONE,                 /* the client has closed its sending half */
    FRONT_LOOK,                 /* idle, and so often asked about */
    FRONT_LISTS
} front_list;

typedef struct front_timer {
    struct front_timer *prev, *next; /* next NULL: in no list */
    uint64_t due_ns;
} front_timer;

typedef struct front_conn {
    front_timer phase; /* in any list but write's three; in none while a request is worked on */
    front_timer write; /* in FRONT_WRITE, FRONT_DEBUG, FRONT_LOOK or none */
    struct front_worker *worker;
    struct service_request *request; /* from its line on, until it is over; front_http.c's */
    uint64_t consumed;               /* bytes of the requests received whole so far */
    uintptr_t memory; /* where libmicrohttpd's for this connection begins; 0: not known yet */
    int fd;
    int unread;   /* bytes in the socket when FRONT_GONE was last looked at */
    uint8_t list; /* the one that phase is in */
    bool fin;     /* the client sends no more */
    bool ended;   /* by us: what is still under way for it goes nowhere */
    bool inexact; /* consumed leaves out what framed a chunked body */
    bool armed;   /* epoll tells of the next byte */
} front_conn;

/* The worker's lists, empty, with the config's delays. */
void front_conns_init(struct front_worker *w);

/* A connection object for front_conn_open. NULL: ENOMEM. */
front_conn *front_conn_new(struct front_worker *w);

/* The connection is libmicrohttpd's now; the read time-out begins. */
void front_conn_open(front_conn *c, int fd);

/* Before the socket is closed. Frees it. */
void front_conn_close(front_conn *c);

void front_conn_line(front_conn *c); /* a request line was read */
/* A head of so many bytes was read, to there; what it asks for is under /debug/ or not. */
void front_conn_head(front_conn *c, const char *head, size_t bytes, bool debug);
void front_conn_body(front_conn *c, size_t bytes); /* so much of a body was read */
void front_conn_whole(front_conn *c);              /* the request was received whole */
void front_conn_answered(front_conn *c);           /* its answer was sent, or never will be */

/* The worker's epoll reports: the client's end, or the first byte after it was idle. */
void front_conn_event(front_conn *c, uint32_t events);

/* Ends the connections whose time is over. */
void front_conns_expire(struct front_worker *w);

/* When the next of them is due; UINT64_MAX: none. */
uint64_t front_conns_due(const struct front_worker *w);

/* Ends the connection that has been idle longest. false: none is. */
bool front_conns_shed(struct front_worker *w);

#endif
