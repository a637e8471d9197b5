/* memkit/debug.h - the debug paths, for any HTTP server, or on a listener of its own.
 *
 *     memkit_buf *body = memkit_buf_new(0);
 *     const char *type;
 *     int status = memkit_debug_handle("/debug/pprof/heap", "debug=1", body, &type);
 *     ...                                              // answer with status, type and body
 *
 *     /debug/pprof/                 a page with all of these
 *     /debug/pprof/heap             what is in use; ?debug=1: as text; ?seconds=N: of N seconds
 *     /debug/pprof/allocs           the same data, seen as what was allocated
 *     /debug/pprof/profile          processor time; ?seconds=N, else 30
 *     /debug/pprof/cmdline, symbol  as Go's
 *     /debug/memkit/flame.svg       ?type=inuse_space, alloc_space ... cpu; ?seconds=N
 *     /metrics                      as Prometheus reads it
 *
 * As in Go's net/http/pprof: `go tool pprof`, Parca and Pyroscope find what they ask for. Answers
 * other than 200 are a line of text: 400 (the query: seconds is 1 to 3600, and not together with
 * debug=1), 404, 409 (a CPU profile is being taken already), 503 (the heap profiler was not
 * started; no memory), 500.
 *
 * Part of libmemkit-prof. Thread-safe.
 */
#ifndef MEMKIT_DEBUG_H
#define MEMKIT_DEBUG_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* Answers one request: path without the query and decoded, query without the '?', or NULL. Appends
 * the body, sets *content_type (a constant) and returns the HTTP status. Blocks for ?seconds=N; an
 * event loop uses begin and finish. -1, and body is unchanged: EINVAL, ENOMEM, body's own limit. */
MEMKIT_API int memkit_debug_handle(const char *path, const char *query, memkit_buf *body,
                                   const char **content_type);

/* The same in two steps. begin returns the milliseconds to wait before finish, 0 for most; -1 on an
 * error, with errno: EINVAL, ENOMEM. A bad request is no error of begin's: finish answers it. */
typedef struct memkit_debug_req memkit_debug_req;
MEMKIT_API int memkit_debug_begin(const char *path, const char *query, memkit_debug_req **req);
/* With a request's body, which is copied: where memkit_debug_takes_post says so. */
MEMKIT_API int memkit_debug_begin_body(const char *path, const char *query, const void *data,
                                       size_t len, memkit_debug_req **req);
/* Ends the request, in any thread: the status, or -1 as handle. Before the time is up it answers
 * with what there is, and the profile says how long it was. Some milliseconds. */
MEMKIT_API int memkit_debug_finish(memkit_debug_req *req, memkit_buf *body,
                                   const char **content_type);
/* Ends it without an answer, and its CPU profile; NULL is allowed. */
MEMKIT_API void memkit_debug_cancel(memkit_debug_req *req);

/* The header fields that an answer of that status has besides Content-Type, as constants; one with
 * a NULL name ends them. */
typedef struct {
    const char *name, *value;
} memkit_debug_header;
MEMKIT_API const memkit_debug_header *memkit_debug_headers(const char *path, const char *query,
                                                           int status);

/* Whether the path takes POST; GET and HEAD all take. */
MEMKIT_API bool memkit_debug_takes_post(const char *path);

/* Serves the debug paths over HTTP in a thread of its own, which is in no figure and no profile.
 * addr: "127.0.0.1:6060", ":6060" and "localhost:6060" (loopback), "[::1]:6060"; 0.0.0.0 or another
 * address of the machine only where it is named, and then a line on stderr says so, as it says
 * which port was taken for 0. On loopback a request must name this machine in its Host field. Ends
 * with the process; a child of fork has none, and may call this again.
 * 0, or -1: EINVAL (addr), EADDRINUSE and what bind says, ENOSYS (libmemkit-listen.so is not to be
 * found, or not of this version), EBUSY (serves already), ENOMEM, EAGAIN (no thread). */
MEMKIT_API int memkit_debug_serve(const char *addr);

MEMKIT_END_DECLS

#endif
