/* debug.h - what the files of the debug paths share: a request, its arguments, who answers it.
 *
 *     debug.c          begin, finish, cancel, handle; the table of paths
 *     debug_query.c    ?seconds= ?debug= ?type=
 *     debug_profile.c  heap, allocs, profile, flame.svg: those that may wait
 *     debug_index.c    the page for people
 *     debug_process.c  cmdline, symbol
 *     debug_metrics.c  /metrics
 *     serve.c          libmemkit-listen.so, found and started
 */
#ifndef MEMKIT_PROF_DEBUG_H
#define MEMKIT_PROF_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memkit/debug.h>
#include <memkit/prof.h>

#pragma GCC visibility push(hidden)

#define MEMKIT__DEBUG_SECONDS 3600 /* the longest ?seconds= */
#define MEMKIT__DEBUG_WHY     512
#define MEMKIT__DEBUG_TYPE    64

#define MEMKIT__TEXT_PLAIN "text/plain; charset=utf-8"
#define MEMKIT__CPU_TYPE   "cpu"

/* ---- the query ---- */

typedef struct {
    unsigned seconds;              /* 0: not given */
    unsigned debug;                /* 0 or 1 */
    char type[MEMKIT__DEBUG_TYPE]; /* "": not given */
} memkit__debug_args;

/* False: `why` says what is wrong with the query. NULL is an empty one; what is not known is
 * ignored. */
bool memkit__debug_query(const char *query, memkit__debug_args *out, char why[MEMKIT__DEBUG_WHY]);

/* Decodes %XX, and '+' as a blank. Length, or -1: an escape that is none, a NUL, or no room. */
int memkit__debug_decode(const char *text, size_t n, char *out, size_t room);

/* ---- a request ---- */

typedef struct memkit__debug_route memkit__debug_route;

struct memkit_debug_req {
    const memkit__debug_route *route;
    memkit__debug_args args;
    int status; /* other than 200: settled in begin, `why` is the answer */
    bool cpu;   /* this request runs the CPU profile */
    memkit_prof_snap *since;
    char *data; /* what was asked of /symbol */
    size_t data_len;
    bool slash; /* of the index: the path ended in one */
    char why[MEMKIT__DEBUG_WHY];
};

struct memkit__debug_route {
    const char *path;
    const char *type;                         /* Content-Type; with ?debug=1 it is text */
    const memkit_debug_header *whole, *delta; /* of an answer to be saved; NULL: it is shown */
    memkit_prof_kind kind;
    memkit_prof_format format;
    bool post; /* takes a body */
    /* Milliseconds to wait; where it is refused, req->status and why are set. Or NULL. */
    int (*begin)(memkit_debug_req *req);
    /* 0, or -1 with errno. */
    int (*finish)(memkit_debug_req *req, memkit_buf *out);
};

/* Refuses the request; 0. */
int memkit__debug_refuse(memkit_debug_req *req, int status, const char *fmt, ...)
    MEMKIT_PRINTF(3, 4);

int memkit__debug_profile_begin(memkit_debug_req *req);
int memkit__debug_profile_finish(memkit_debug_req *req, memkit_buf *out);
void memkit__debug_profile_cancel(memkit_debug_req *req);

int memkit__debug_index(memkit_debug_req *req, memkit_buf *out);
int memkit__debug_cmdline(memkit_debug_req *req, memkit_buf *out);
int memkit__debug_symbol(memkit_debug_req *req, memkit_buf *out);
int memkit__debug_metrics(memkit_debug_req *req, memkit_buf *out);

/* The sample types of a flame graph: the heap's, then "cpu"; NULL: there are no more. */
const char *memkit__debug_type(unsigned i, const char **meaning);

/* ---- serve.c ---- */

/* For MEMKIT_LISTEN: serves, and says on stderr where, or why not. Samples at the default rate
 * unless MEMKIT_SAMPLE says otherwise. 0, or -1 with errno: the program goes on without. */
int memkit__serve_from_env(const char *addr);

#pragma GCC visibility pop

#endif
