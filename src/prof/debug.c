/* debug.c - the debug paths: from a request to its answer.
 *
 *     begin --> parsed, looked up --> refused: status and reason kept for finish
 *                                 \-> begun: a snapshot, a running CPU profile, or nothing
 *     finish --> a buffer of our own --> the caller's
 *
 * A request has one owner and no lock. What is allocated here is the profiler's (quiet.h), so what
 * is written goes to a buffer of our own first: the caller's grows outside of that, in its figures,
 * and is unchanged on an error.
 */
#include "prof/debug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "prof/quiet.h"

#define SVG     "image/svg+xml"
#define HTML    "text/html; charset=utf-8"
#define METRICS "text/plain; version=0.0.4; charset=utf-8"
#define OCTETS  "application/octet-stream"

#define PROFILE(kind_, format_)                                                 \
    .kind = (kind_), .format = (format_), .begin = memkit__debug_profile_begin, \
    .finish = memkit__debug_profile_finish

/* clang-format off */
#define NOSNIFF {"X-Content-Type-Options", "nosniff"}
#define END     {NULL, NULL}
#define SAVED_AS(name) {NOSNIFF, {"Content-Disposition", "attachment; filename=\"" name "\""}, END}

static const memkit_debug_header
    headers_plain[] = {NOSNIFF, END},
    /* With X-Go-Pprof `go tool pprof` shows the reason, and not the status alone. */
    headers_error[] = {NOSNIFF, {"X-Go-Pprof", "1"}, END},
    as_heap[] = SAVED_AS("heap"), as_heap_delta[] = SAVED_AS("heap-delta"),
    as_allocs[] = SAVED_AS("allocs"), as_allocs_delta[] = SAVED_AS("allocs-delta"),
    as_profile[] = SAVED_AS("profile");
/* clang-format on */

static const memkit__debug_route routes[] = {
    {.path = "/debug/pprof/", .type = HTML, .finish = memkit__debug_index},
    {.path = "/debug/pprof", .type = HTML, .finish = memkit__debug_index},
    {.path = "/debug/pprof/heap",
     .type = OCTETS,
     .whole = as_heap,
     .delta = as_heap_delta,
     PROFILE(MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF)},
    {.path = "/debug/pprof/allocs",
     .type = OCTETS,
     .whole = as_allocs,
     .delta = as_allocs_delta,
     PROFILE(MEMKIT_PROF_ALLOCS, MEMKIT_FMT_PPROF)},
    {.path = "/debug/pprof/profile",
     .type = OCTETS,
     .whole = as_profile,
     .delta = as_profile,
     PROFILE(MEMKIT_PROF_CPU, MEMKIT_FMT_PPROF)},
    {.path = "/debug/memkit/flame.svg", .type = SVG, PROFILE(MEMKIT_PROF_HEAP, MEMKIT_FMT_SVG)},
    {.path = "/debug/pprof/cmdline", .type = MEMKIT__TEXT_PLAIN, .finish = memkit__debug_cmdline},
    {.path = "/debug/pprof/symbol",
     .type = MEMKIT__TEXT_PLAIN,
     .post = true,
     .finish = memkit__debug_symbol},
    {.path = "/metrics", .type = METRICS, .finish = memkit__debug_metrics},
};

/* Go's that a program in C has no data for. */
static const struct {
    const char *path, *why;
} missing[] = {
    {"/debug/pprof/goroutine", "this is a C program: it has no goroutines"},
    {"/debug/pprof/threadcreate", "threads' creation is not profiled"},
    {"/debug/pprof/block", "waiting is not profiled"},
    {"/debug/pprof/mutex", "locks are not profiled"},
    {"/debug/pprof/trace", "there is no execution trace"},
};

static const memkit__debug_route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    return NULL;
}

int memkit__debug_refuse(memkit_debug_req *req, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(req->why, sizeof req->why, fmt, ap);
    va_end(ap);
    req->status = status;
    return 0;
}

static int refuse_path(memkit_debug_req *req, const char *path)
{
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        if (strcmp(missing[i].path, path) == 0)
            return memkit__debug_refuse(req, 404, "%s; /debug/pprof/ lists what there is",
                                        missing[i].why);
    return memkit__debug_refuse(req, 404, "no such path; /debug/pprof/ lists what there is");
}

static void free_req(memkit_debug_req *req)
{
    free(req->data);
    free(req);
}

/* What /symbol is asked: the body, or else the query as it stands. */
static int keep_data(memkit_debug_req *req, const char *query, const void *data, size_t len)
{
    if (!req->route->post)
        return 0;
    if (len == 0 && query != NULL) {
        data = query;
        len = strlen(query);
    }
    req->data = malloc(len + 1);
    if (req->data == NULL)
        return -1;
    if (len > 0)
        memcpy(req->data, data, len);
    req->data[len] = '\0';
    req->data_len = len;
    return 0;
}

static int begin(memkit_debug_req *req, const char *path, const char *query, const void *data,
                 size_t len)
{
    req->status = 200;
    req->route = find_route(path);
    if (req->route == NULL)
        return refuse_path(req, path);
    req->slash = path[strlen(path) - 1] == '/';
    if (keep_data(req, query, data, len) != 0)
        return -1;
    if (req->route->begin == NULL)
        return 0;
    if (!memkit__debug_query(query, &req->args, req->why)) {
        req->status = 400;
        return 0;
    }
    return req->route->begin(req);
}

int memkit_debug_begin_body(const char *path, const char *query, const void *data, size_t len,
                            memkit_debug_req **out)
{
    if (path == NULL || out == NULL || (data == NULL && len > 0)) {
        errno = EINVAL;
        return -1;
    }
    memkit__quiet_begin();
    memkit_debug_req *req = calloc(1, sizeof *req);
    int ms = req != NULL ? begin(req, path, query, data, len) : -1;
    if (ms < 0) {
        if (req != NULL)
            free_req(req);
        errno = ENOMEM;
    } else {
        *out = req;
    }
    memkit__quiet_end();
    return ms;
}

int memkit_debug_begin(const char *path, const char *query, memkit_debug_req **req)
{
    return memkit_debug_begin_body(path, query, NULL, 0, req);
}

/* The answer's text to `text`, its status and type. 0; -1: errno. */
static int write_answer(memkit_debug_req *req, memkit_buf *text, const char **type)
{
    if (req->status == 200 && req->route->finish(req, text) != 0)
        memkit__debug_refuse(req, errno == ENOMEM ? 503 : 500, "cannot write it: %s",
                             strerror(errno));
    if (req->status != 200) {
        *type = MEMKIT__TEXT_PLAIN;
        memkit_buf_reset(text);
        return memkit_buf_append_str(text, req->why) != 0 ? -1 : memkit_buf_append_byte(text, '\n');
    }
    *type = req->args.debug != 0 ? MEMKIT__TEXT_PLAIN : req->route->type;
    return 0;
}

int memkit_debug_finish(memkit_debug_req *req, memkit_buf *body, const char **content_type)
{
    if (req == NULL || body == NULL || content_type == NULL) {
        memkit_debug_cancel(req);
        errno = EINVAL;
        return -1;
    }
    const char *type = NULL;
    memkit__quiet_begin();
    memkit_buf *text = memkit_buf_new(512);
    int status = text != NULL && write_answer(req, text, &type) == 0 ? req->status : -1;
    int err = errno;
    memkit__debug_profile_cancel(req); /* where it was not written */
    memkit__quiet_end();

    if (status > 0 && memkit_buf_append(body, text->data, text->len) != 0) {
        status = -1;
        err = errno;
    }
    if (status > 0)
        *content_type = type;

    memkit__quiet_begin();
    memkit_buf_free(text);
    free_req(req);
    memkit__quiet_end();
    errno = status < 0 ? err : errno;
    return status;
}

void memkit_debug_cancel(memkit_debug_req *req)
{
    if (req == NULL)
        return;
    int err = errno;
    memkit__quiet_begin();
    memkit__debug_profile_cancel(req);
    free_req(req);
    memkit__quiet_end();
    errno = err;
}

/* To the end of the time, whatever signals come. */
static void sleep_ms(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

int memkit_debug_handle(const char *path, const char *query, memkit_buf *body,
                        const char **content_type)
{
    if (body == NULL || content_type == NULL) {
        errno = EINVAL;
        return -1;
    }
    memkit_debug_req *req;
    int ms = memkit_debug_begin(path, query, &req);
    if (ms < 0)
        return -1;
    if (ms > 0)
        sleep_ms(ms);
    return memkit_debug_finish(req, body, content_type);
}

/* ---- the other header fields ---- */

const memkit_debug_header *memkit_debug_headers(const char *path, const char *query, int status)
{
    if (status != 200)
        return headers_error;
    const memkit__debug_route *route = path != NULL ? find_route(path) : NULL;
    memkit__debug_args args;
    char why[MEMKIT__DEBUG_WHY];
    if (route == NULL || route->whole == NULL || !memkit__debug_query(query, &args, why) ||
        args.debug != 0)
        return headers_plain; /* text is for reading, not for saving */
    return args.seconds != 0 ? route->delta : route->whole;
}

bool memkit_debug_takes_post(const char *path)
{
    const memkit__debug_route *route = path != NULL ? find_route(path) : NULL;
    return route != NULL && route->post;
}
