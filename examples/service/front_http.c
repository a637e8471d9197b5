/* front_http.c - from libmicrohttpd's calls to an answer.
 *
 *     on_uri        the request line is read        the target is parsed, handler_begin
 *     on_request    the headers are read            look_at: what can be refused is settled
 *     on_request    with bytes of a body            counted and dropped
 *     on_request    the request is complete         answered, or the work begins (front_queue)
 *     on_request    the work is done                handler_process, answered
 *     on_request    a debug request's time is up    front_debug_finish, answered
 *     on_completed  the answer is sent, or never    the connection's hold goes
 *
 * An answer may only be queued for a complete request: queued before, it makes libmicrohttpd give
 * up the connection, and in the midst of a body it cannot be queued at all. Where a client must be
 * stopped before its request ends, turn_away writes to the socket itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <memkit/debug.h>
#include <microhttpd.h>

#include "front_target.h"
#include "front_worker.h"

#define TEXT "text/plain" /* an id may be any bytes: no charset to promise */

static const uint16_t codes[FRONT_NCODES] = FRONT_CODES;

static void count_answer(front_worker *w, unsigned status)
{
    for (unsigned i = 0; i < FRONT_NCODES; i++)
        if (codes[i] == status)
            front_count(&w->answered[i], 1);
}

static void unhold(service_request *r)
{
    if (--r->holds == 0)
        handler_end(r);
}

static void release_body(void *arg)
{
    service_request *r = arg;
    r->body.release(r->body.arg);
    unhold(r);
}

/* Sends r->body. more: header fields beside those that all answers have; NULL: none. */
static enum MHD_Result answer_with(service_request *r, unsigned status, const char *type,
                                   const char *allow, const memkit_debug_header *more)
{
    struct MHD_Response *a;
    void *data = (void *)(uintptr_t)r->body.data; /* libmicrohttpd only reads it */
    if (r->body.release == NULL) {
        a = MHD_create_response_from_buffer(r->body.len, data, MHD_RESPMEM_PERSISTENT);
    } else {
        r->holds++;
        a = MHD_create_response_from_buffer_with_free_callback_cls(r->body.len, data, release_body,
                                                                   r);
        if (a == NULL)
            release_body(r);
    }
    if (a == NULL)
        return MHD_NO;
    enum MHD_Result ok = MHD_add_response_header(a, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (ok == MHD_YES && allow != NULL)
        ok = MHD_add_response_header(a, MHD_HTTP_HEADER_ALLOW, allow);
    for (; ok == MHD_YES && more != NULL && more->name != NULL; more++)
        ok = MHD_add_response_header(a, more->name, more->value);
    if (ok == MHD_YES && r->front->stop_ns != 0)
        ok = MHD_add_response_header(a, MHD_HTTP_HEADER_CONNECTION, "close");
    if (ok == MHD_YES)
        ok = MHD_queue_response(r->connection, status, a);
    MHD_destroy_response(a); /* our reference; with the last one goes the body */
    if (ok == MHD_YES)
        count_answer(r->front, status);
    return ok;
}

static enum MHD_Result answer(service_request *r, unsigned status, const char *type,
                              const char *allow)
{
    return answer_with(r, status, type, allow, NULL);
}

static const char *text_of(unsigned status)
{
    switch (status) {
    case MHD_HTTP_BAD_REQUEST:
        return "header fields that leave the body's length in doubt";
    case MHD_HTTP_NOT_FOUND:
        return "not found";
    case MHD_HTTP_METHOD_NOT_ALLOWED:
        return "method not allowed";
    case MHD_HTTP_CONTENT_TOO_LARGE:
        return "request body longer than 64 KiB";
    case MHD_HTTP_URI_TOO_LONG:
        return "request line longer than 16 KiB";
    case MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE:
        return "request head too large";
    case MHD_HTTP_NOT_IMPLEMENTED:
        return "transfer coding not implemented";
    case MHD_HTTP_SERVICE_UNAVAILABLE:
        return "shutting down or out of memory";
    default:
        return "internal error";
    }
}

static enum MHD_Result answer_text(service_request *r, unsigned status, const char *text)
{
    if (r->route == ROUTE_DEBUG) {
        bool post = memkit_debug_takes_post(r->id);
        r->body = (service_body){.data = text, .len = strlen(text)};
        return answer_with(r, status, TEXT,
                           status != MHD_HTTP_METHOD_NOT_ALLOWED ? NULL
                           : post                                ? "GET, HEAD, POST"
                                                                 : "GET, HEAD",
                           memkit_debug_headers(r->id, NULL, (int)status));
    }
    static const char *const allowed[] = {
        [ROUTE_PROCESS] = "POST", [ROUTE_HEALTH] = "GET, HEAD", [ROUTE_METRICS] = "GET, HEAD"};
    r->body = (service_body){.data = text, .len = strlen(text)};
    return answer(r, status, TEXT,
                  status == MHD_HTTP_METHOD_NOT_ALLOWED ? allowed[r->route] : NULL);
}

/* Says it on the socket, of which nothing else is being sent, and has the connection closed; the
 * lingering sees to it that the client can read this. */
static enum MHD_Result turn_away(front_worker *w, struct MHD_Connection *c, unsigned status)
{
    char head[256];
    const char *text = text_of(status);
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %u %s\r\nConnection: close\r\nContent-Type: " TEXT
                     "\r\nContent-Length: %zu\r\n\r\n%s",
                     status, MHD_get_reason_phrase_for(status), strlen(text), text);
    count_answer(w, status); /* before anyone can know of it */
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info != NULL && n > 0 && (size_t)n < sizeof head)
        (void)send(info->connect_fd, head, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return MHD_NO;
}

static front_conn *peer_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info->socket_context;
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
    front_worker *w = cls;
    front_target t;
    w->progress = true;
    front_conn_line(peer_of(c));
    front_target_parse(uri != NULL ? uri : "", &t);
    service_request *r = handler_begin(w->index, t.id_len);
    if (r != NULL) {
        r->front = w;
        r->connection = c;
        r->peer = peer_of(c);
        r->peer->request = r;
        r->holds = 1;
        r->uri_len = t.len;
        r->route = (uint8_t)t.route;
        r->slow = t.route == ROUTE_DEBUG;
        r->status = t.malformed ? MHD_HTTP_BAD_REQUEST : 0;
        front_target_id(&t, r->id);
        front_count(&w->in_flight, 1);
    }
    /* This is libmicrohttpd's own buffer, and next it would split the query into arguments, each
     * with a record in the connection's memory: some hundred of them fill it, and 0.9.75 then
     * spins until the connection times out. It finds an empty query. */
    if (*t.query != '\0')
        *(char *)(uintptr_t)t.query = '\0';
    return r;
}

/* The answer's head needs room behind the request's, cookies are copied and taken apart: a request
 * that leaves too little would be closed without a word. */
static bool fits_memory(struct MHD_Connection *c, size_t head)
{
    if (head < FRONT_CONN_MEMORY / 4)
        return true;
    int records = MHD_get_connection_values(
        c, (enum MHD_ValueKind)(MHD_HEADER_KIND | MHD_COOKIE_KIND), NULL, NULL);
    const char *cookie = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_COOKIE);
    size_t used = head + (size_t)records * 64 + (cookie != NULL ? strlen(cookie) : 0);
    return used + 1024 <= FRONT_CONN_MEMORY;
}

typedef struct {
    const char *length, *coding; /* the first of each; NULL: none */
    bool doubtful;
} framing;

static enum MHD_Result look_at_field(void *cls, enum MHD_ValueKind kind, const char *name,
                                     const char *value)
{
    framing *f = cls;
    size_t n = strlen(name);
    (void)kind;
    value = value != NULL ? value : "";
    if (n > 0 && (name[n - 1] == ' ' || name[n - 1] == '\t')) {
        f->doubtful = true; /* "Content-Length : 4" is that field to some */
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        f->doubtful |= f->length != NULL && strcmp(f->length, value) != 0;
        f->length = f->length != NULL ? f->length : value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        f->doubtful |= f->coding != NULL;
        f->coding = value;
    }
    return MHD_YES;
}

/* What the header fields say of the body: 0, or the status to turn the client away with.
 * libmicrohttpd goes by the first Content-Length, and by Transfer-Encoding before that. A proxy
 * before us may go by another, and what is the body to one of the two is a request to the other. */
static unsigned body_verdict(struct MHD_Connection *c)
{
    framing f = {.length = NULL};
    MHD_get_connection_values(c, MHD_HEADER_KIND, look_at_field, &f);
    if (f.doubtful || (f.length != NULL && f.coding != NULL))
        return MHD_HTTP_BAD_REQUEST;
    if (f.coding != NULL) {
        peer_of(c)->inexact = true; /* the sizes of chunks are not told to us */
        return strcasecmp(f.coding, "chunked") == 0 ? 0 : MHD_HTTP_NOT_IMPLEMENTED;
    }
    return f.length != NULL && strtoull(f.length, NULL, 10) > FRONT_MAX_BODY
               ? MHD_HTTP_CONTENT_TOO_LARGE
               : 0;
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static unsigned verdict(const service_request *r, const char *method, const char *version)
{
    if (strlen(method) + r->uri_len + strlen(version) + 2 > FRONT_MAX_LINE)
        return MHD_HTTP_URI_TOO_LONG;
    if (r->status != 0)
        return r->status;
    if (r->route == ROUTE_UNKNOWN)
        return MHD_HTTP_NOT_FOUND;
    bool fits =
        r->route == ROUTE_PROCESS ? is(method, "POST") : is(method, "GET") || is(method, "HEAD");
    if (r->route == ROUTE_DEBUG && is(method, "POST"))
        fits = memkit_debug_takes_post(r->id);
    if (!fits)
        return MHD_HTTP_METHOD_NOT_ALLOWED;
    return r->route == ROUTE_PROCESS && r->id_len == 0 ? MHD_HTTP_BAD_REQUEST : 0;
}

static enum MHD_Result refuse(service_request *r)
{
    if (r->status != MHD_HTTP_BAD_REQUEST)
        return answer_text(r, r->status, text_of(r->status));
    return answer_text(r, r->status,
                       r->route == ROUTE_PROCESS ? "missing id query param"
                                                 : "malformed escape or NUL in the request target");
}

static enum MHD_Result serve_process(service_request *r)
{
    front_worker *w = r->front;
    if (!r->worked && w->cfg->work_ms > 0 && !w->expired) {
        front_queue(w, r);
        return MHD_YES;
    }
    if (r->worked) /* as front.c's resume says */
        MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0);
    if (r->peer->ended) /* its time was over before its work was */
        return MHD_NO;
    if (w->expired) {
        return answer_text(r, MHD_HTTP_SERVICE_UNAVAILABLE, text_of(MHD_HTTP_SERVICE_UNAVAILABLE));
    }
    if (handler_process(r) != 0) {
        return answer_text(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
                           text_of(MHD_HTTP_INTERNAL_SERVER_ERROR));
    }
    return answer(r, MHD_HTTP_OK, TEXT, NULL);
}

static enum MHD_Result serve_debug(service_request *r)
{
    const char *why, *type;
    unsigned refused = r->worked ? 0 : front_debug_begin(r, &why);
    if (refused == 1)
        return MHD_YES;
    if (refused != 0)
        return answer_text(r, refused, why);
    if (r->worked) /* as front.c's resume says */
        MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0);
    int status = front_debug_finish(r, &type);
    if (status < 0)
        return MHD_NO;
    return answer_with(r, (unsigned)status, type, NULL,
                       memkit_debug_headers(r->id, r->id + strlen(r->id) + 1, status));
}

static enum MHD_Result serve(service_request *r)
{
    if (!r->complete) {
        r->complete = true;
        r->front->complete++;
        front_conn_whole(r->peer);
    }
    if (r->status != 0)
        return refuse(r);
    switch (r->route) {
    case ROUTE_HEALTH:
        return answer_text(r, MHD_HTTP_OK, "ok");
    case ROUTE_METRICS:
        if (front_metrics(r->front->front, &r->body) != 0) {
            return answer_text(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
                               text_of(MHD_HTTP_INTERNAL_SERVER_ERROR));
        }
        return answer(r, MHD_HTTP_OK, "text/plain; version=0.0.4", NULL);
    case ROUTE_DEBUG:
        return serve_debug(r);
    default:
        return serve_process(r);
    }
}

/* libmicrohttpd passes the target on as a string, and what follows a NUL in it was not seen. But
 * the string lies where the request line was read, and the version right behind the target. */
static void refuse_nul(service_request *r, const char *url, const char *version)
{
    size_t len = (size_t)(version - url) - 1;
    if (*version == '\0' || len == r->uri_len)
        return;
    r->uri_len = len;
    r->route = ROUTE_UNKNOWN;
    r->status = MHD_HTTP_BAD_REQUEST;
}

static enum MHD_Result look_at(service_request *r, const char *url, const char *method,
                               const char *version)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    front_conn_head(r->peer, method, info->header_size, r->slow);
    refuse_nul(r, url, version);
    unsigned refused = verdict(r, method, version);
    unsigned fatal = body_verdict(r->connection);
    if (fatal == 0 && !fits_memory(r->connection, info->header_size))
        fatal =
            refused == MHD_HTTP_URI_TOO_LONG ? refused : MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE;
    r->status = (uint16_t)refused;
    return fatal != 0 ? turn_away(r->front, r->connection, fatal) : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **context)
{
    front_worker *w = cls;
    service_request *r = *context;
    w->progress = true;
    if (r == NULL)
        return turn_away(w, c, MHD_HTTP_SERVICE_UNAVAILABLE); /* no memory for its object */
    if (!r->seen) {
        r->seen = true;
        return look_at(r, url, method, version);
    }
    if (*size > 0) {
        size_t n = *size;
        r->body_read += n;
        front_conn_body(r->peer, n);
        *size = 0;
        if (r->body_read > FRONT_MAX_BODY)
            return turn_away(w, c, MHD_HTTP_CONTENT_TOO_LARGE);
        if (r->route == ROUTE_DEBUG && r->status == 0 && !front_debug_body(r, data, n))
            return turn_away(w, c, MHD_HTTP_SERVICE_UNAVAILABLE);
        return MHD_YES;
    }
    return serve(r);
}

/* The connection's request, where there is one, is over. */
static void end_request(front_worker *w, front_conn *peer)
{
    service_request *r = peer->request;
    if (r == NULL)
        return;
    peer->request = NULL;
    front_count(&w->in_flight, -1);
    w->complete -= r->complete;
    front_debug_end(r);
    unhold(r);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **context,
                         enum MHD_RequestTerminationCode code)
{
    front_worker *w = cls;
    (void)code;
    w->progress = true;
    *context = NULL;
    front_conn_answered(peer_of(c));
    end_request(w, peer_of(c));
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    front_worker *w = cls;
    int fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        front_count(&w->connections, 1);
        *context = w->newcomer;
        w->newcomer = NULL;
        front_conn_open(*context, fd);
        return;
    }
    front_count(&w->connections, -1);
    front_conn *peer = *context;
    bool ended = peer->ended;
    /* 0.9.75 says nothing of a request's end where it ran out of memory splitting the query. */
    end_request(w, peer);
    front_conn_close(peer);
    if (w->stopping)
        return;
    if (!ended)
        front_linger_add(&w->linger, w->epoll_fd, FRONT_TAG_LINGER, fd, w->now_ns);
    front_accept_again(w);
}

int front_http_start(front_worker *w, unsigned max_connections)
{
    w->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0,
                         NULL, NULL, on_request, w, MHD_OPTION_CONNECTION_LIMIT, max_connections,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)FRONT_CONN_MEMORY,
                         MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_URI_LOG_CALLBACK, on_uri, w,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, w, MHD_OPTION_NOTIFY_CONNECTION,
                         on_connection, w, MHD_OPTION_END);
    return w->daemon != NULL ? 0 : -1;
}
