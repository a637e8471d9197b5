/* front.h - the HTTP front, the same for both services: connections in, handler.h's calls out.
 *
 *     front *f = front_open(&cfg, why);     // bound and listening; nothing is accepted yet
 *     front_start(f);
 *     ... a signal ...
 *     front_stop(f);                        // no more connections; those under way are answered
 *     ... front_done_fd(f) becomes readable ...
 *     front_close(f);
 */
#ifndef SERVICE_FRONT_H
#define SERVICE_FRONT_H

#include "config.h"

typedef struct front front;

/* Binds and listens. NULL, and `why` says what failed on which address. */
front *front_open(const service_config *cfg, char why[CONFIG_WHY]);

/* "127.0.0.1:8080", with the port that was taken for port 0. */
const char *front_address(const front *f);

/* How many connections each worker holds at most: its share of the limit on open files. */
unsigned front_connections_each(const front *f);

/* Starts the workers. 0; -1 with errno, and none runs. */
int front_start(front *f);

/* Begins to drain: may be called once, from any thread. */
void front_stop(front *f);

/* A descriptor that is readable once every worker has drained and ended. */
int front_done_fd(const front *f);

/* Joins the workers and frees everything; they must have drained, or never have been started. */
void front_close(front *f);

#endif
