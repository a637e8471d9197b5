/* test_service_pipeline.c - clients that send many requests before they read: every answer comes,
 * in order, wherever in the service's buffers a request begins and ends, and whether the client
 * reads at once or only when neither side can send any more.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define SMALL 4096 /* receive buffer of a client that reads late */

static service svc;
static answer a;

static int start(void **state)
{
    /* No time-out may end what a slow machine is still at. */
    static const char *const settings[] = {
        "LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=1",         "WORK_MS=0", "READ_TIMEOUT_MS=60000",
        "WRITE_TIMEOUT_MS=60000",  "IDLE_TIMEOUT_MS=60000", NULL};
    service_start(&svc, *state, settings);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

/* Ids are never repeated: service-before answers the second time with twice the id. */
static size_t next_id;

static int id_len; /* digits, zeros before them */

/* What a client sends: `text`, and then what more() makes of it, up to `end` bytes. */
typedef struct stream {
    char *text;
    size_t len, at, sent, end;
    void (*more)(struct stream *s);
} stream;

/* Sends what there is room for; false: there is none. */
static bool send_some(client *c, stream *s)
{
    if (s->at == s->len && s->sent < s->end) {
        s->more(s);
        s->at = 0;
    }
    size_t n = s->len - s->at;
    if (n > s->end - s->sent)
        n = s->end - s->sent;
    ssize_t k = send(c->fd, s->text + s->at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (k < 0 && errno != EAGAIN)
        fail_msg("send: %s", strerror(errno));
    s->at += k > 0 ? (size_t)k : 0;
    s->sent += k > 0 ? (size_t)k : 0;
    return k > 0;
}

static void expect(size_t i, int status, const char *body)
{
    if (a.status != status || strcmp(a.body, body) != 0)
        fail_msg("answer %zu is %d \"%.40s\", not %d \"%.40s\"", i, a.status, a.body, status, body);
}

static void expect_id(size_t i, size_t id)
{
    static char want[8192];
    snprintf(want, sizeof want, "%0*zu", id_len, id);
    expect(i, 200, want);
}

static bool head_is_there(const client *c)
{
    return c->len > 0 && strstr(c->data, "\r\n\r\n") != NULL;
}

/* Sends the rest of the stream and reads `count` answers, at the same time; check(i) looks at `a`,
 * which is number i of them. */
static void exchange(client *c, stream *s, size_t count, void (*check)(size_t i))
{
    for (size_t got = 0; got < count;) {
        short events = (short)(POLLIN | (s->sent < s->end ? POLLOUT : 0));
        struct pollfd p = {.fd = c->fd, .events = events};
        if (poll(&p, 1, WAIT_MS) <= 0)
            fail_msg("no answer after %zu of %zu, with %zu of %zu bytes sent", got, count, s->sent,
                     s->end);
        if ((p.revents & POLLOUT) != 0)
            send_some(c, s);
        if ((p.revents & ~POLLOUT) != 0 && client_more(c) == 0)
            fail_msg("closed after %zu of %zu", got, count);
        for (; head_is_there(c); got++) {
            client_read(c, &a, false);
            check(got);
        }
    }
    assert_int_equal(s->sent, s->end);
    assert_int_equal(c->len, 0);
}

/* ---- at once ---- */

#define MARK 16 /* one of so many requests is for /process: its answer tells which it is */

static size_t first_id;

static void expect_mark_or_404(size_t i)
{
    if (i % MARK == MARK - 1)
        expect_id(i, first_id + i / MARK);
    else
        expect(i, 404, "not found");
}

/* count requests, most for a target of len characters that is none of the service's. */
static size_t write_requests(char *text, size_t count, size_t len, bool query)
{
    size_t n = 0;
    char target[128] = "/";
    memset(target + 1, 'x', len - 1);
    if (query)
        target[len / 2] = '?';
    for (size_t i = 0; i < count; i++)
        n += (size_t)(i % MARK == MARK - 1
                          ? sprintf(text + n, "POST /process?id=%0*zu" HOST "\r\n", id_len,
                                    next_id++)
                          : sprintf(text + n, "GET %.*s" HOST "\r\n", (int)len, target));
    return n;
}

/* More than the service's buffer holds of every length from 1 to 80, so that its end cuts requests
 * at many places. */
static void requests_of_every_length_are_answered_in_order(void **state)
{
    (void)state;
    enum { COUNT = 60 * MARK, LONGEST = 80, STEP = SANITIZED ? 9 : 1 };
    static char text[COUNT * (LONGEST + 64)];
    size_t streams = 0;
    id_len = 8;
    for (size_t len = 1; len <= LONGEST; len += STEP)
        for (int query = 0; query <= (len >= 3); query++) {
            client c;
            first_id = next_id;
            size_t n = write_requests(text, COUNT, len, query == 1);
            stream s = {.text = text, .len = n, .end = n};
            client_open(&c, &svc);
            exchange(&c, &s, COUNT, expect_mark_or_404);
            client_close(&c);
            streams++;
        }
    double marks = (double)(streams * (COUNT / MARK));
    assert_true(metric(&svc, "service_requests_total{code=\"200\"}") == marks);
    assert_true(metric(&svc, "service_requests_total{code=\"404\"}") == marks * (MARK - 1));
}

/* ---- late ---- */

#define BATCH 100

static void more_ids(stream *s)
{
    s->len = 0;
    for (int i = 0; i < BATCH; i++)
        s->len += (size_t)sprintf(s->text + s->len, "POST /process?id=%0*zu" HOST "\r\n", id_len,
                                  next_id++);
}

static void expect_next(size_t i)
{
    expect_id(i, first_id + i);
}

/* Sends until there has been no room for a quarter of a second. */
static void fill(client *c, stream *s)
{
    for (int full = 0; full < 25;) {
        full = send_some(c, s) ? 0 : full + 1;
        if (full > 0)
            sleep_ms(10);
    }
}

/* The service goes on until it has no room for an answer, however many requests are behind it: it
 * must neither overlook those that are in its socket, nor, afterwards, the room. */
static void a_client_that_reads_late_gets_every_answer(void **state)
{
    (void)state;
    static const int lens[] = {8, 4000}; /* many requests in the service's buffer, and few */
    static char text[BATCH * 4100];
    for (size_t k = 0; k < 2; k++) {
        int large = 1 << 20;
        id_len = lens[k];
        first_id = next_id;
        size_t each = strlen("POST /process?id=" HOST "\r\n") + (size_t)id_len;
        client c;
        client_open_small(&c, &svc, SMALL);
        stream s = {.text = text, .end = SIZE_MAX, .more = more_ids};
        fill(&c, &s);
        await_metric(&svc, "service_requests_in_flight", 2); /* its answer has no room; and this */
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        size_t count = (s.sent + each - 1) / each;
        s.end = count * each;
        exchange(&c, &s, count, expect_next);
        await_metric(&svc, "service_requests_in_flight", 1);
        client_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(requests_of_every_length_are_answered_in_order),
        BOTH(a_client_that_reads_late_gets_every_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
