/* front_target.h - reads a request target: "/process?id=a%20b" is a route and an id.
 *
 * libmicrohttpd's own reading is not used: it needs memory for every argument, passes malformed
 * escapes through, and ends a value at %00.
 */
#ifndef SERVICE_FRONT_TARGET_H
#define SERVICE_FRONT_TARGET_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    ROUTE_UNKNOWN = 0,
    ROUTE_PROCESS,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_DEBUG /* all under /debug/: memkit/debug.h knows what there is */
} front_route;

typedef struct {
    front_route route;
    int malformed;     /* an escape that is none: nothing else is set */
    size_t len;        /* of the whole target */
    const char *query; /* behind the '?', or at the end */
    const char *id;    /* the first id argument as it stands in the query; NULL: there is none. Of
                          ROUTE_DEBUG: the path */
    size_t id_raw;     /* its length there */
    size_t id_len;     /* and decoded; of ROUTE_DEBUG: path and query, each with a NUL */
} front_target;

void front_target_parse(const char *target, front_target *out);

/* Writes the id's id_len bytes to dst: %XX is a byte, any byte, and '+' is a blank. Of ROUTE_DEBUG
 * the path decoded, a NUL, the query as it stands, and a NUL. */
void front_target_id(const front_target *t, char *dst);

#endif
