/* test_service_garbage.h - what no client should send to the example service, made up at random:
 * bytes, halves of requests, heads without an end, fields and chunks that are wrong in every way
 * that we know of, other protocols; and among it what is right.
 */
#ifndef TEST_SERVICE_GARBAGE_H
#define TEST_SERVICE_GARBAGE_H

#include "test_service.h"

#define GARBAGE_MAX (96 << 10)

static uint64_t chance; /* xorshift64: the same seed makes the same garbage */

static unsigned below(unsigned n)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (unsigned)((chance >> 16) % n);
}

typedef struct {
    size_t len;
    char data[GARBAGE_MAX];
} bytes;

static void add(bytes *b, const void *p, size_t n)
{
    assert_true(b->len + n <= sizeof b->data);
    memcpy(b->data + b->len, p, n);
    b->len += n;
}

static void text(bytes *b, const char *s)
{
    add(b, s, strlen(s));
}

static void random_bytes(bytes *b, size_t n)
{
    for (; n > 0; n--)
        add(b, &(char){(char)below(256)}, 1);
}

/* No id that is new to `before` may come of it: it would keep that one, as it should. So only what
 * has no id is changed at random. */
static void request(bytes *b)
{
    static const char *const whole[] = {
        "GET /health" HOST "\r\n",
        "HEAD /metrics" HOST "Accept: */*\r\n\r\n",
        "POST /process?x=1" HOST "Content-Length: 4\r\n\r\nbody",
        "POST /process" HOST "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "GET /metrics?id=1" HOST "Cookie: a=b; c=d\r\nConnection: close\r\n\r\n",
        "OPTIONS *" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        "GET http://a:1/health HTTP/1.0\r\n\r\n",
    };
    text(b, whole[below(sizeof whole / sizeof whole[0])]);
}

static void half(bytes *b)
{
    request(b);
    b->len = below((unsigned)b->len);
}

static void mutated(bytes *b)
{
    for (unsigned n = 1 + below(3); n > 0; n--)
        request(b);
    for (unsigned n = 1 + below(8); n > 0; n--)
        b->data[below((unsigned)b->len)] = (char)(below(3) == 0 ? 0 : below(256));
}

static void shuffled(bytes *b)
{
    request(b);
    size_t at = below((unsigned)b->len), n = below((unsigned)(b->len - at));
    bytes *piece = malloc(sizeof *piece);
    assert_non_null(piece);
    memcpy(piece->data, b->data + at, n);
    add(b, piece->data, n);
    free(piece);
}

static void huge_head(bytes *b)
{
    request(b);
    b->len -= 2;
    for (unsigned n = 10000 + below(60000), i = 0; i < n; i++)
        add(b, below(40) == 0 ? "\n" : below(30) == 0 ? ":" : "y", 1);
}

static void long_line(bytes *b)
{
    static const char fill[] = "a&=%?/;";
    text(b, "POST /process?x");
    for (unsigned n = 10000 + below(30000), one = below(2), i = 0; i < n; i++)
        add(b, one ? "&" : &fill[below(7)], 1);
    text(b, HOST "\r\n");
}

static void bad_chunks(bytes *b)
{
    static const char *const sizes[] = {
        "zz\r\n",
        "-1\r\n",
        "ffffffffffffffff\r\n",
        "fffffffffffffffff\r\n",
        "\r\n",
        "4\r\nbodyXX",
        "4;e=\r\n",
        "0\r\nX: y",
        "4\r\nbo\r\ndy",
        "0x4\r\nbody\r\n",
        "4\nbody\n0\n\n",
        " 4\r\n",
    };
    text(b, "POST /process?x=1" HOST "Transfer-Encoding: chunked\r\n\r\n");
    for (unsigned n = 1 + below(3); n > 0; n--)
        text(b, sizes[below(sizeof sizes / sizeof sizes[0])]);
}

static void bad_fields(bytes *b)
{
    static const char *const fields[] = {
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: \r\n",
        ": no name\r\n",
        " folded: first\r\n",
        "no colon\r\n",
        "Cookie: ;;;===\"\"\"\r\n",
        "Expect: nothing\r\n",
        "Content-Length: 70000\r\n",
        "Connection: keep-alive, close, upgrade\r\n",
        "Host:\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: x\r\n",
        "X: \x01\x7f\xff\r\n",
        "\r",
    };
    static const char *const methods[] = {"GET", "POST", "get", "", "BREW", "CONNECT", "G\tT"};
    static const char *const versions[] = {"HTTP/1.1", "HTTP/9.9", "HTTP/1", "", "HTTP/0.9", "xyz"};
    text(b, methods[below(7)]);
    text(b, " /health ");
    text(b, versions[below(4) == 0 ? below(6) : 0]);
    text(b, "\r\nHost: x\r\n");
    for (unsigned n = 1 + below(3); n > 0; n--)
        text(b, fields[below(sizeof fields / sizeof fields[0])]);
    text(b, "\r\n");
}

static void other_protocol(bytes *b)
{
    static const char tls[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    if (below(2) == 0)
        text(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    else
        add(b, tls, sizeof tls - 1);
    random_bytes(b, below(300));
}

static void pipelined(bytes *b)
{
    for (unsigned n = 1 + below(8); n > 0; n--)
        if (below(2) == 0)
            request(b);
        else
            text(b, "POST /process?id=h" HOST "\r\n");
}

static void garbage(bytes *b)
{
    b->len = 0;
    switch (below(32)) {
    case 0:
        huge_head(b);
        return;
    case 1:
        long_line(b);
        return;
    case 2:
    case 3:
        return; /* says nothing */
    case 4:
    case 5:
    case 6:
        random_bytes(b, 1 + below(600));
        return;
    case 7:
    case 8:
        other_protocol(b);
        return;
    case 9:
    case 10:
    case 11:
    case 12:
        bad_chunks(b);
        return;
    case 13:
    case 14:
    case 15:
        pipelined(b);
        return;
    case 16:
    case 17:
        shuffled(b);
        return;
    default:
        (below(3) == 0 ? half : below(2) == 0 ? mutated : bad_fields)(b);
    }
}

#endif
