/* handler.h - what the HTTP front asks of the service behind it. before.c and after.c both answer
 * to it, and a program is the front with one of them.
 *
 * The life of a request, all of it in one worker's thread:
 *
 *     request line read      handler_begin     an object, with room for the id
 *     ... WORK_MS pass ...                     the object waits in the worker's queue
 *     work done              handler_process   fills in the answer
 *     answer sent            body.release      if there is one
 *     both are over          handler_end       the object goes
 *
 * A request that is refused (404, 400 ...) goes from the first to the last.
 */
#ifndef SERVICE_HANDLER_H
#define SERVICE_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

struct MHD_Connection;
struct front_conn;
struct front_worker;

/* An answer's bytes. They stay until release(arg), which the front calls exactly once, after the
 * last byte was sent or the client was lost; release NULL: nothing to give back. */
typedef struct {
    const void *data;
    size_t len;
    void (*release)(void *arg);
    void *arg;
} service_body;

/* The handler makes it, as the first member of its own where it needs more, and zeroes what is the
 * front's. */
typedef struct service_request {
    /* the handler's */
    /* id_len bytes, filled in by the front; any byte may be among them. For what is under /debug/
     * path and query, each with a NUL behind it. */
    char *id;
    size_t id_len;
    service_body body;
    unsigned worker; /* whose thread this is, from 0 */

    /* the front's */
    struct service_request *next; /* in the queue of those whose work is not done */
    struct MHD_Connection *connection;
    struct front_conn *peer;
    struct front_worker *front;
    union {
        uint64_t due_ns;           /* of work */
        struct front_debug *debug; /* of what is under /debug/: front_debug.c */
    };
    size_t uri_len;
    size_t body_read;
    uint16_t status; /* of the answer, once it is known; 0 before */
    uint8_t route;
    uint8_t holds; /* the connection's and the answer's: handler_end when both are gone */
    bool slow;     /* what it asks for is under /debug/ */
    bool seen;     /* the headers were looked at */
    bool complete; /* all of it was received */
    bool worked;   /* WORK_MS have passed */
} service_request;

/* Before the first request. 0; -1 with errno. */
int handler_init(const service_config *cfg);

/* After the last handler_end. */
void handler_finish(void);

/* A request of the given worker, whose id will have id_len bytes. NULL: ENOMEM. */
service_request *handler_begin(unsigned worker, size_t id_len);

/* Does the work: sets r->body. 0; -1 with errno, and the client is told of an internal error. */
int handler_process(service_request *r);

/* Ends what handler_begin made. */
void handler_end(service_request *r);

#endif
