/* http.c - from libmicrohttpd's calls to an answer.
 *
 *     on_uri        the request line is read      a request object; path and query are kept
 *     on_request    the headers are read          nothing yet: an answer needs a whole request
 *     on_request    with bytes of a body          kept for POST, counted
 *     on_request    the request is complete       refused, answered, or it waits (suspended)
 *     on_request    it was resumed                answered, or dropped as its client is gone
 *     on_completed  sent, or never                the object goes
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#include "listen/server.h"

#define TEXT "text/plain; charset=utf-8"

/* ---- the request ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes %XX in place. False: one that is none, or a NUL. */
static bool decode(char *s)
{
    char *to = s;
    for (; *s != '\0'; s++) {
        char c = *s;
        if (c == '%') {
            if (hex(s[1]) < 0 || hex(s[2]) < 0)
                return false;
            c = (char)(hex(s[1]) << 4 | hex(s[2]));
            s += 2;
        }
        if (c == '\0')
            return false;
        *to++ = c;
    }
    *to = '\0';
    return true;
}

static bool keep_target(request *r, const char *uri)
{
    static const char scheme[] = "http://";
    if (strncmp(uri, scheme, sizeof scheme - 1) == 0) { /* a server must take that form, too */
        uri += sizeof scheme - 1;
        uri += strcspn(uri, "/?");
    }
    size_t n = strlen(uri);
    char *copy = malloc(n + 2);
    if (copy == NULL)
        return false;
    memcpy(copy, uri, n + 1);
    copy[n + 1] = '\0'; /* an empty query, where there is none */
    size_t path = strcspn(copy, "?");
    r->query = copy + (copy[path] == '?' ? path + 1 : n + 1);
    copy[path] = '\0';
    r->path = copy;
    if (!decode(copy)) {
        free(copy);
        r->path = NULL;
    }
    return true;
}

static void free_request(request *r)
{
    server *s = r->server;
    memkit__wait_end(s, r);
    if (r->debug != NULL)
        s->host->cancel(r->debug);
    if (r->peer != NULL)
        r->peer->request = NULL;
    free(r->path);
    free(r->data);
    free(r);
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
    server *s = cls;
    s->progress = true;
    request *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->server = s;
        r->connection = c;
        if (!keep_target(r, uri != NULL ? uri : "")) {
            free(r);
            r = NULL;
        }
    }
    if (r != NULL) {
        r->peer = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
        if (r->peer != NULL)
            r->peer->request = r;
    }
    /* This is libmicrohttpd's own buffer, and next it would split the query into arguments, each
     * with a record in the connection's memory; where they fill it, 0.9.75 spins. */
    char *query = uri != NULL ? strchr(uri, '?') : NULL;
    if (query != NULL)
        query[1] = '\0';
    return r;
}

/* ---- the answer ---- */

static enum MHD_Result queue(request *r, unsigned status, const char *type,
                             const memkit_debug_header *more, struct MHD_Response *a)
{
    enum MHD_Result ok = MHD_add_response_header(a, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (; ok == MHD_YES && more->name != NULL; more++)
        ok = MHD_add_response_header(a, more->name, more->value);
    if (ok == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        ok = MHD_add_response_header(a, MHD_HTTP_HEADER_ALLOW,
                                     r->server->host->takes_post(r->path) ? "GET, HEAD, POST"
                                                                          : "GET, HEAD");
    if (ok == MHD_YES)
        ok = MHD_queue_response(r->connection, status, a);
    r->answered = ok == MHD_YES;
    MHD_destroy_response(a);
    return ok;
}

static enum MHD_Result refuse(request *r, unsigned status, const char *text)
{
    struct MHD_Response *a = MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                             MHD_RESPMEM_PERSISTENT);
    return a != NULL ? queue(r, status, TEXT, r->server->host->headers(r->path, r->query, 400), a)
                     : MHD_NO;
}

typedef struct {
    const memkit__listen_host *host;
    memkit_buf *buf;
} body;

static void release(void *arg)
{
    body *b = arg;
    b->host->buf_free(b->buf);
    free(b);
}

static enum MHD_Result finish(request *r)
{
    const memkit__listen_host *host = r->server->host;
    const char *type = TEXT;
    memkit_debug_req *debug = r->debug;
    r->debug = NULL;
    body *b = malloc(sizeof *b);
    memkit_buf *buf = b != NULL ? host->buf_new(0) : NULL;
    if (buf == NULL) {
        free(b);
        host->cancel(debug);
        return refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n");
    }
    *b = (body){host, buf};
    int status = host->finish(debug, buf, &type);
    if (status < 0) {
        release(b);
        return refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n");
    }
    struct MHD_Response *a =
        MHD_create_response_from_buffer_with_free_callback_cls(buf->len, buf->data, release, b);
    if (a == NULL) {
        release(b);
        return MHD_NO;
    }
    return queue(r, (unsigned)status, type, host->headers(r->path, r->query, status), a);
}

/* ---- Host ---- */

bool memkit__host_is_here(const char *host)
{
    char name[INET6_ADDRSTRLEN + 4];
    unsigned char addr[16];
    size_t n = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (n >= sizeof name)
        return false;
    memcpy(name, host, n);
    name[n] = '\0';
    const char *rest = host + n + (host[0] == '[' && host[n] == ']');
    if (*rest != '\0' && (*rest != ':' || rest[1 + strspn(rest + 1, "0123456789")] != '\0'))
        return false;
    if (host[0] == '[')
        return host[n] == ']' && inet_pton(AF_INET6, name + 1, addr) == 1;
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, addr) == 1;
}

static enum MHD_Result look_at_field(void *cls, enum MHD_ValueKind kind, const char *name,
                                     const char *value)
{
    bool *here = cls;
    (void)kind;
    if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0)
        *here = *here && value != NULL && memkit__host_is_here(value);
    return MHD_YES;
}

/* No Host at all is no browser's doing. */
static bool host_fits(const request *r)
{
    bool here = true;
    if (r->server->loopback)
        MHD_get_connection_values(r->connection, MHD_HEADER_KIND, look_at_field, &here);
    return here;
}

/* ---- libmicrohttpd's calls ---- */

static enum MHD_Result take_body(request *r, const char *data, size_t n)
{
    if (r->data_len + n > 8 * (size_t)LISTEN_BODY)
        return MHD_NO;
    if (r->data_len + n > LISTEN_BODY || !r->server->host->takes_post(r->path)) {
        r->too_long = r->data_len + n > LISTEN_BODY;
        r->data_len += n; /* counted, not kept */
        return MHD_YES;
    }
    char *longer = realloc(r->data, r->data_len + n);
    if (longer == NULL)
        return MHD_NO;
    memcpy(longer + r->data_len, data, n);
    r->data = longer;
    r->data_len += n;
    return MHD_YES;
}

static enum MHD_Result begin(request *r, const char *method)
{
    server *s = r->server;
    if (!host_fits(r))
        return refuse(r, MHD_HTTP_FORBIDDEN,
                      "the Host field names another machine; ask for localhost or the address\n");
    if (r->path == NULL)
        return refuse(r, MHD_HTTP_BAD_REQUEST, "malformed escape in the path\n");
    bool post = strcmp(method, "POST") == 0 && s->host->takes_post(r->path);
    if (!post && strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return refuse(r, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed\n");
    if (r->too_long)
        return refuse(r, MHD_HTTP_CONTENT_TOO_LARGE, "body longer than 1 MiB\n");
    if (s->n_waiting == LISTEN_WAITING)
        return refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "too many requests wait already\n");
    int ms =
        s->host->begin(r->path, r->query, post ? r->data : NULL, post ? r->data_len : 0, &r->debug);
    if (ms < 0)
        return refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n");
    if (ms == 0)
        return finish(r);
    r->due_ns = s->now_ns + (uint64_t)ms * 1000000u;
    if (r->peer == NULL || !memkit__wait_begin(s, r))
        return MHD_NO;
    MHD_suspend_connection(r->connection);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **context)
{
    server *s = cls;
    request *r = *context;
    (void)c;
    (void)url;
    (void)version;
    s->progress = true;
    if (r == NULL || r->gone) /* no memory for it; or nobody is there */
        return MHD_NO;
    if (!r->seen) {
        r->seen = true;
        return MHD_YES;
    }
    if (*size > 0) {
        size_t n = *size;
        *size = 0;
        return take_body(r, data, n);
    }
    return r->debug != NULL ? finish(r) : begin(r, method);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **context,
                         enum MHD_RequestTerminationCode code)
{
    server *s = cls;
    (void)c;
    (void)code;
    s->progress = true;
    if (*context != NULL)
        free_request(*context);
    *context = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    server *s = cls;
    (void)c;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = s->newcomer;
        return;
    }
    conn *peer = *context;
    if (peer == NULL)
        return;
    if (peer->request != NULL) /* 0.9.75 does not tell of the end of every request */
        free_request(peer->request);
    /* Closing is not enough where a child of fork has the descriptor too. */
    int fd = atomic_exchange(&peer->fd, 0);
    s->n_gone -= peer->gone_ns != 0;
    peer->gone_ns = 0;
    epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    memkit__door_open(s);
}

int memkit__http_start(server *s)
{
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
        on_request, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)LISTEN_CONNECTIONS + 1,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LISTEN_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)LISTEN_IDLE_S, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_END);
    return s->daemon != NULL ? 0 : -1;
}
