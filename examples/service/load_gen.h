/* load_gen.h - inside the load generator: its state and its connections (load_gen.c), which load.c
 * drives through a run.
 *
 *     connection  DOWN --connect--> CONNECTING --writable--> IDLE --send--> BUSY --answer--> IDLE
 *                  ^________________ closed, failed, timed out ______________/
 *
 * Idle connections are taken first in, first out, so that all of them stay in use and none runs
 * into the service's idle time-out.
 */
#ifndef LOAD_GEN_H
#define LOAD_GEN_H

#include <sys/socket.h>

#include "load.h"
#include "load_http.h"

#define LOAD_NS      1000000000ull
#define LOAD_NONE    UINT32_MAX
#define LOAD_SCRATCH 65536

typedef enum { LOAD_DOWN, LOAD_CONNECTING, LOAD_IDLE, LOAD_BUSY } load_conn_state;

typedef struct {
    int fd;
    load_conn_state state;
    uint32_t next_idle;
    uint32_t off;      /* of the request, sent so far */
    uint64_t intended; /* when the request was due */
    uint64_t began;    /* when it was sent, or the connection started; for the time-outs */
    uint64_t retry;    /* DOWN: not before this moment */
    char *req;         /* complete but for the id */
    load_http http;
} load_conn;

typedef struct {
    load_opts o; /* with the defaults filled in */
    load_result *r;
    load_ids ids;
    struct sockaddr_storage addr;
    unsigned addr_len;
    int epfd;
    bool no_pwait2;
    load_conn *conn;
    char *reqs, *scratch;
    size_t req_len, id_at;
    uint32_t idle_first, idle_last;
    unsigned up, busy;    /* connections that are IDLE or BUSY; BUSY */
    uint64_t start, end;  /* requests are due in [start, end) */
    uint64_t send_end;    /* what is due may be sent until then */
    uint64_t total, next; /* open loop: requests in all; the first one not sent */
    uint64_t last_answer;
    bool starved;  /* something was due and no connection free: it is not we who send it late */
    load_hist sec; /* of the current second */
    uint64_t sec_failed;
} load_gen;

uint64_t load_gen_now(void);

/* When request i is due, and how many are due by a moment. Open loop only. */
uint64_t load_gen_due_at(const load_gen *g, uint64_t i);
uint64_t load_gen_due_by(const load_gen *g, uint64_t t);

/* Starts connection i, which is DOWN. 0, or -1 with errno: it stays DOWN until its retry. */
int load_gen_connect(load_gen *g, uint32_t i, uint64_t now);

/* Sends all that is due, as far as connections are free. */
void load_gen_fire(load_gen *g, uint64_t now);

/* Waits for events until that moment at most, and handles them. */
void load_gen_wait(load_gen *g, uint64_t until);

/* Time-outs and new attempts to connect; every 100 ms will do. */
void load_gen_sweep(load_gen *g, uint64_t now);

/* Counts a request that will never be answered: its wait so far is what is known of its latency. */
void load_gen_lower_bound(load_gen *g, uint64_t intended, uint64_t now);

#endif
