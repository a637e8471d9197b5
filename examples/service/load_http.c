/* load_http.c - see load_http.h.
 *
 * A line is collected in p->line, which is short: a header that does not fit is cut, and that
 * matters only when it is one of the three that are read. Everything is bounded: 64 KiB of header
 * lines, no body kept.
 */
#include "load_http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX 65536

void load_http_reset(load_http *p)
{
    p->state = LOAD_HTTP_STATUS_LINE;
    p->status = 0;
    p->close = p->chunked = p->has_length = p->line_cut = false;
    p->line_len = 0;
    p->head_len = 0;
    p->left = p->body_len = 0;
}

static void fail(load_http *p)
{
    p->state = LOAD_HTTP_ERROR;
    p->close = true;
}

/* Digits of the given base only; -1 when there is none, something else, or no 63 bits. */
static int64_t number(const char *s, size_t n, unsigned base)
{
    uint64_t v = 0;
    if (n == 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                            : 99;
        if (d >= base || v > ((uint64_t)INT64_MAX - d) / base)
            return -1;
        v = v * base + d;
    }
    return (int64_t)v;
}

static void status_line(load_http *p)
{
    const char *s = p->line;
    size_t n = p->line_len;
    /* HTTP/1.1 200 OK; the reason may be missing, with its space too */
    if (n < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') || s[8] != ' ' ||
        (n > 12 && s[12] != ' ')) {
        fail(p);
        return;
    }
    int64_t code = number(s + 9, 3, 10);
    if (code < 100) {
        fail(p);
        return;
    }
    p->status = (int)code;
    p->close = s[7] == '0';
    p->state = LOAD_HTTP_HEADERS;
}

/* Whether a comma-separated value holds the token. */
static bool has_token(const char *v, const char *token)
{
    size_t n = strlen(token);
    for (;;) {
        v += strspn(v, " \t,");
        size_t len = strcspn(v, " \t,;");
        if (len == 0)
            return false;
        if (len == n && strncasecmp(v, token, n) == 0)
            return true;
        v += strcspn(v, ",");
    }
}

/* The value of the header when the line is it, trimmed, else NULL. */
static char *value_if(load_http *p, const char *name)
{
    size_t n = strlen(name);
    if (p->line_len <= n || p->line[n] != ':' || strncasecmp(p->line, name, n) != 0)
        return NULL;
    if (p->line_cut) {
        fail(p);
        return NULL;
    }
    char *v = p->line + n + 1;
    v += strspn(v, " \t");
    size_t len = strlen(v);
    while (len > 0 && (v[len - 1] == ' ' || v[len - 1] == '\t'))
        v[--len] = '\0';
    return v;
}

static void header_line(load_http *p)
{
    char *v;
    if (p->line[0] == ' ' || p->line[0] == '\t' || memchr(p->line, ':', p->line_len) == NULL) {
        /* A folded line is not allowed any more (RFC 9112, 5.2). A name of 96 bytes is allowed, and
         * has no colon in the part that is kept. */
        if (!p->line_cut || p->line[0] == ' ' || p->line[0] == '\t')
            fail(p);
    } else if ((v = value_if(p, "Content-Length")) != NULL) {
        int64_t n = number(v, strlen(v), 10);
        if (n < 0 || (p->has_length && p->left != (uint64_t)n)) {
            fail(p);
            return;
        }
        p->has_length = true;
        p->left = (uint64_t)n;
    } else if ((v = value_if(p, "Transfer-Encoding")) != NULL) {
        if (has_token(v, "chunked"))
            p->chunked = true;
        else if (!has_token(v, "identity"))
            fail(p);
    } else if ((v = value_if(p, "Connection")) != NULL) {
        if (has_token(v, "close"))
            p->close = true;
        else if (has_token(v, "keep-alive"))
            p->close = false;
    }
}

static void headers_end(load_http *p)
{
    if (p->status < 200) {
        if (p->status == 101) /* nobody asked for another protocol */
            fail(p);
        else
            load_http_reset(p);
    } else if (p->status == 204 || p->status == 304) {
        p->state = LOAD_HTTP_DONE;
    } else if (p->chunked) {
        p->left = 0; /* chunked wins over a length (RFC 9112, 6.3) */
        p->state = LOAD_HTTP_CHUNK_SIZE;
    } else if (p->has_length) {
        p->state = p->left > 0 ? LOAD_HTTP_BODY : LOAD_HTTP_DONE;
    } else {
        p->close = true;
        p->state = LOAD_HTTP_BODY_EOF;
    }
}

static void line_end(load_http *p)
{
    if (p->line_len > 0 && !p->line_cut && p->line[p->line_len - 1] == '\r')
        p->line_len--;
    p->line[p->line_len] = '\0';
    switch (p->state) {
    case LOAD_HTTP_STATUS_LINE:
        status_line(p);
        break;
    case LOAD_HTTP_HEADERS:
        if (p->line_len == 0)
            headers_end(p);
        else
            header_line(p);
        break;
    case LOAD_HTTP_CHUNK_SIZE: {
        size_t digits = strcspn(p->line, "; \t");
        int64_t n = number(p->line, digits, 16);
        if (n < 0) {
            fail(p);
            break;
        }
        p->left = (uint64_t)n;
        p->state = n > 0 ? LOAD_HTTP_CHUNK_DATA : LOAD_HTTP_TRAILERS;
        break;
    }
    case LOAD_HTTP_CHUNK_END:
        if (p->line_len == 0)
            p->state = LOAD_HTTP_CHUNK_SIZE;
        else
            fail(p);
        break;
    case LOAD_HTTP_TRAILERS:
        if (p->line_len == 0)
            p->state = LOAD_HTTP_DONE;
        break;
    case LOAD_HTTP_BODY:
    case LOAD_HTTP_BODY_EOF:
    case LOAD_HTTP_CHUNK_DATA:
    case LOAD_HTTP_DONE:
    case LOAD_HTTP_ERROR:
        break;
    }
    p->line_len = 0;
    p->line_cut = false;
}

static size_t feed_line(load_http *p, const char *data, size_t n)
{
    const char *nl = memchr(data, '\n', n);
    size_t part = nl != NULL ? (size_t)(nl - data) : n;
    size_t room = sizeof p->line - 1 - p->line_len;
    size_t keep = part < room ? part : room;
    memcpy(p->line + p->line_len, data, keep);
    p->line_len = (uint16_t)(p->line_len + keep);
    if (keep < part)
        p->line_cut = true;
    size_t used = nl != NULL ? part + 1 : part;
    p->head_len += (uint32_t)(used > HEAD_MAX ? HEAD_MAX : used);
    if (p->head_len > HEAD_MAX)
        fail(p);
    else if (nl != NULL)
        line_end(p);
    return used;
}

static void body_bytes(load_http *p, const char *data, uint64_t n)
{
    p->body_len += n;
    p->head_len = 0;
    if (p->body != NULL && data != NULL)
        p->body(p->arg, data, (size_t)n);
    if (p->state == LOAD_HTTP_BODY_EOF)
        return;
    p->left -= n;
    if (p->left == 0)
        p->state = p->state == LOAD_HTTP_BODY ? LOAD_HTTP_DONE : LOAD_HTTP_CHUNK_END;
}

size_t load_http_feed(load_http *p, const char *data, size_t n)
{
    size_t at = 0;
    while (at < n && p->state < LOAD_HTTP_DONE) {
        if (p->state == LOAD_HTTP_BODY || p->state == LOAD_HTTP_CHUNK_DATA) {
            size_t part = n - at;
            if (part > p->left)
                part = (size_t)p->left;
            body_bytes(p, data + at, part);
            at += part;
        } else if (p->state == LOAD_HTTP_BODY_EOF) {
            body_bytes(p, data + at, n - at);
            at = n;
        } else {
            at += feed_line(p, data + at, n - at);
        }
    }
    return at;
}

uint64_t load_http_skippable(const load_http *p)
{
    bool body = p->state == LOAD_HTTP_BODY || p->state == LOAD_HTTP_CHUNK_DATA;
    return body && p->body == NULL ? p->left : 0;
}

void load_http_skip(load_http *p, uint64_t n)
{
    if (n > 0 && n <= load_http_skippable(p))
        body_bytes(p, NULL, n);
}

bool load_http_eof(load_http *p)
{
    if (p->state == LOAD_HTTP_BODY_EOF)
        p->state = LOAD_HTTP_DONE;
    return p->state == LOAD_HTTP_DONE;
}
