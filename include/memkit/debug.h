/* memkit/debug.h - the debug paths, for any HTTP server, or on a listener of its own.
 *
 *     memkit_buf *body = memkit_buf_new(0);
 *     const char *type;
 *     int status = memkit_debug_handle("/debug/pprof/heap", "debug=1", body, &type);
 *     ...                                              // answer with status, type and body
 *
 * Part of libmemkit-prof. Thread-safe.
 */
#ifndef MEMKIT_DEBUG_H
#define MEMKIT_DEBUG_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* Answers one request: path without the query, query without the '?', or NULL. Appends the body,
 * sets *content_type (a constant) and returns the HTTP status. Blocks for ?seconds=N; an event loop
 * uses begin and finish. */
MEMKIT_API int memkit_debug_handle(const char *path, const char *query, memkit_buf *body,
                                   const char **content_type);

/* The same in two steps. begin returns the milliseconds to wait before finish, 0 for most; -1 on an
 * error, with errno: EINVAL, ENOMEM. A bad request is no error of begin's: finish answers it. */
typedef struct memkit_debug_req memkit_debug_req;
MEMKIT_API int memkit_debug_begin(const char *path, const char *query, memkit_debug_req **req);
/* Ends the request. */
MEMKIT_API int memkit_debug_finish(memkit_debug_req *req, memkit_buf *body,
                                   const char **content_type);
/* Ends it without an answer; NULL is allowed. */
MEMKIT_API void memkit_debug_cancel(memkit_debug_req *req);

/* Serves the debug paths over HTTP in a thread of its own. addr: "127.0.0.1:6060", ":6060"
 * (loopback),
 * "[::1]:6060"; 0.0.0.0 or another address only where it is named, and then a line on stderr says
 * so. 0, or -1: EINVAL, EADDRINUSE and what bind says, ENOSYS (libmemkit-listen.so is not to be
 * found), EBUSY (serves already). */
MEMKIT_API int memkit_debug_serve(const char *addr);

MEMKIT_END_DECLS

#endif
