/* load_http.h - incremental reader of HTTP/1.x answers; keeps no body.
 *
 *     load_http p;
 *     load_http_reset(&p);
 *     while (p.state < LOAD_HTTP_DONE && (n = recv(fd, buf, sizeof buf, 0)) > 0)
 *         used = load_http_feed(&p, buf, (size_t)n);
 *
 * Feeding in one piece or byte by byte gives the same. Interim answers (1xx) are passed over.
 */
#ifndef LOAD_HTTP_H
#define LOAD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    LOAD_HTTP_STATUS_LINE = 0,
    LOAD_HTTP_HEADERS,
    LOAD_HTTP_BODY,     /* `left` bytes of it are to come */
    LOAD_HTTP_BODY_EOF, /* neither length nor chunked: until the connection ends */
    LOAD_HTTP_CHUNK_SIZE,
    LOAD_HTTP_CHUNK_DATA, /* `left` bytes of the chunk are to come */
    LOAD_HTTP_CHUNK_END,
    LOAD_HTTP_TRAILERS,
    LOAD_HTTP_DONE,
    LOAD_HTTP_ERROR /* this is no HTTP answer */
} load_http_state;

typedef void (*load_http_body_fn)(void *arg, const char *data, size_t n);

typedef struct {
    load_http_state state;
    int status; /* valid from LOAD_HTTP_HEADERS on */
    bool close; /* the server ends the connection after this answer */
    bool chunked;
    bool has_length;
    bool line_cut; /* the line is longer than `line` keeps */
    uint16_t line_len;
    uint32_t head_len; /* of all lines since the last body byte, to bound them */
    uint64_t left;
    uint64_t body_len;      /* body bytes so far */
    load_http_body_fn body; /* NULL: the body is dropped; kept by load_http_reset */
    void *arg;
    char line[96]; /* enough for every header that counts */
} load_http;

/* Ready for the next answer. `body` and `arg` stay; zero the whole struct before the first use. */
void load_http_reset(load_http *p);

/* Takes up to n bytes and returns how many were used: all of them, unless the answer ended (or went
 * wrong) before. */
size_t load_http_feed(load_http *p, const char *data, size_t n);

/* Body bytes that may be dropped unseen before the reader must see one again: what lets the caller
 * discard a large body in the kernel. Then call load_http_skip. */
uint64_t load_http_skippable(const load_http *p);
void load_http_skip(load_http *p, uint64_t n);

/* The connection ended. True when that was the proper end of the answer. */
bool load_http_eof(load_http *p);

#endif
