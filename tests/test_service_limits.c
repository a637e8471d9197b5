/* test_service_limits.c - what the example service takes and what it refuses: lengths of lines,
 * heads and bodies, and how a body is framed.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define MAX_LINE (16 << 10)
#define MAX_BODY (64 << 10)

static service svc;
static answer a;

static int start(void **state)
{
    static const char *const settings[] = {"LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=2", "WORK_MS=5",
                                           NULL};
    service_start(&svc, *state, settings);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

static void a_request_line_of_16_kib_is_served_and_a_longer_one_is_414(void **state)
{
    (void)state;
    const size_t around = strlen("POST /process?id=") + strlen(" HTTP/1.1");
    static const size_t over[] = {1, 3000, 7000, 9000, 100000, 1 << 20};
    client c;
    client_open(&c, &svc);
    char *line = line_with_id(MAX_LINE - around);
    ask(&c, &a, line);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_len, MAX_LINE - around);
    free(line);
    client_close(&c);
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        client_open(&c, &svc);
        line = line_with_id(MAX_LINE - around + over[i]);
        ask(&c, &a, line);
        if (a.status != 414)
            fail_msg("%zu over: %d", over[i], a.status);
        free(line);
        client_close(&c);
    }
}

/* A head near the limit must not end in a silent close: the answer's own head needs room too. */
static void heads_are_served_or_are_431(void **state)
{
    (void)state;
    static char request[70000];
    int served = 0, refused = 0;
    for (size_t n = 20000; n < 26000; n += 97) {
        client c;
        client_open(&c, &svc);
        int at = sprintf(request, "GET /health" HOST "X: ");
        memset(request + at, 'x', n);
        strcpy(request + at + n, "\r\n\r\n");
        client_text(&c, request);
        client_read(&c, &a, false);
        served += a.status == 200;
        refused += a.status == 431;
        if (a.status != 200 && a.status != 431)
            fail_msg("%zu bytes: %d", n, a.status);
        client_close(&c);
    }
    assert_true(served > 0 && refused > 0);
}

static void thousands_of_arguments_need_no_memory(void **state)
{
    (void)state;
    static char line[MAX_LINE];
    client c;
    int at = sprintf(line, "POST /process?");
    for (int i = 0; i < 7000; i++)
        at += sprintf(line + at, "a&");
    sprintf(line + at, "id=found");
    client_open(&c, &svc);
    ask(&c, &a, line);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "found");
    client_close(&c);
}

static void a_body_is_read_up_to_64_kib_and_413_beyond(void **state)
{
    (void)state;
    static char body[MAX_BODY + 1];
    char head[256];
    client c;
    memset(body, 'b', sizeof body);
    client_open(&c, &svc);
    for (int i = 0; i < 2; i++) { /* twice: the connection must be fit for the next request */
        snprintf(head, sizeof head, "POST /process?id=%d" HOST "Content-Length: %d\r\n\r\n", i,
                 MAX_BODY);
        client_text(&c, head);
        client_send(&c, body, MAX_BODY);
        client_read(&c, &a, false);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.body[0], '0' + i);
    }
    snprintf(head, sizeof head, "POST /process?id=1" HOST "Content-Length: %d\r\n\r\n",
             MAX_BODY + 1);
    client_text(&c, head);
    client_send(&c, body, MAX_BODY + 1); /* sent whole, and the answer still arrives */
    client_read(&c, &a, false);
    assert_int_equal(a.status, 413);
    client_expect_end(&c);
    client_close(&c);
}

static void a_chunked_body_is_counted_as_it_comes(void **state)
{
    (void)state;
    static char chunk[8 + 16384 + 3];
    client c;
    strcpy(chunk, "4000\r\n");
    memset(chunk + 6, 'c', 16384);
    strcpy(chunk + 6 + 16384, "\r\n");
    for (int chunks = 4; chunks <= 64; chunks += 60) {
        client_open(&c, &svc);
        client_text(&c, "POST /process?id=1" HOST "Transfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < chunks; i++)
            client_text(&c, chunk);
        client_text(&c, "0\r\n\r\n");
        client_read(&c, &a, false);
        assert_int_equal(a.status, chunks == 4 ? 200 : 413);
        client_close(&c);
    }
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=1" HOST "Transfer-Encoding: gzip\r\n\r\n");
    client_read(&c, &a, false);
    assert_int_equal(a.status, 501);
    client_close(&c);
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"501\"}"), 1);
}

/* What is the body to us must not be a request to a proxy before us, or the other way round. */
static void fields_that_leave_the_length_in_doubt_are_400(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        int status;
    } table[] = {
        {"Content-Length: 0\r\nContent-Length: 4\r\n", 400},
        {"Content-Length: 4\r\ncontent-length: 0\r\n", 400},
        {"Content-Length: 4\r\nContent-Length: 4\r\nX: y\r\nCONTENT-LENGTH: 5\r\n", 400},
        {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n", 400},
        {"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Content-Length : 4\r\n", 400},
        {"Transfer-Encoding\t: chunked\r\n", 400},
        {"Content-Length: 4\r\nX: y\r\nContent-Length: 4\r\n", 200},
    };
    char text[256];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        client c;
        client_open(&c, &svc);
        snprintf(text, sizeof text, "POST /process?id=1" HOST "%s\r\nbody", table[i].fields);
        client_text(&c, text);
        client_read(&c, &a, false);
        if (a.status != table[i].status)
            fail_msg("%s: %d", table[i].fields, a.status);
        if (a.status == 400)
            client_expect_end(&c);
        client_close(&c);
    }
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"400\"}"), 8);
}

static void expect_continue_is_answered_or_refused_at_once(void **state)
{
    (void)state;
    client c;
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=7" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    client_read(&c, &a, false);
    assert_int_equal(a.status, 100);
    client_text(&c, "abc");
    client_read(&c, &a, false);
    assert_int_equal(a.status, 200);
    client_text(&c,
                "POST /process?id=7" HOST "Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n");
    client_read(&c, &a, false);
    assert_int_equal(a.status, 413);
    client_close(&c);
}

/* libmicrohttpd has no room for them, and does not say so: they wait for the read time-out, and
 * whoever asks meanwhile is answered. */
static void what_fills_the_memory_without_an_end_is_not_spun_for(void **state)
{
    (void)state;
    enum { STUCK = 8 };
    static char digits[40000];
    client c[STUCK], other;
    memset(digits, '0', sizeof digits - 1);
    for (int i = 0; i < STUCK; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "POST /process?id=1" HOST "Transfer-Encoding: chunked\r\n\r\n");
        client_text(&c[i], digits);
    }
    client_open(&other, &svc);
    ask(&other, &a, "POST /process?id=1");
    assert_int_equal(a.status, 200);
    double turns = metric(&svc, "service_loop_turns_total");
    sleep_ms(1000);
    turns = metric(&svc, "service_loop_turns_total") - turns;
    if (turns > 3000) /* two loops that wait 1 ms; ones that spin turn tens of thousands of times */
        fail_msg("%.0f turns for nothing", turns);
    for (int i = 0; i < STUCK; i++)
        client_close(&c[i]);
    client_close(&other);
    await_metric(&svc, "service_connections", 1); /* their end is seen, though nothing is read */
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"read\"}"), 0);
}

/* What is behind a NUL is not blanked as other queries are, and splitting it takes more memory than
 * there is. libmicrohttpd then never says that the request is over; its connection's end does. */
static void a_nul_before_hundreds_of_arguments_leaves_nothing_behind(void **state)
{
    (void)state;
    enum { MANY = 40 };
    static const char head[] = "GET /\0?", version[] = HOST "\r\n";
    char text[4096];
    client c[MANY];
    size_t n = sizeof head - 1;
    memcpy(text, head, n);
    for (int i = 0; i < 450; i++, n += 2)
        memcpy(text + n, "a&", 2);
    memcpy(text + n, version, sizeof version - 1);
    n += sizeof version - 1;
    for (int i = 0; i < MANY; i++) {
        client_open(&c[i], &svc);
        client_send(&c[i], text, n);
    }
    for (int i = 0; i < MANY; i++)
        client_close(&c[i]);
    await_metric(&svc, "service_connections", 1);
    await_metric(&svc, "service_requests_in_flight", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_request_line_of_16_kib_is_served_and_a_longer_one_is_414),
        BOTH(heads_are_served_or_are_431),
        BOTH(thousands_of_arguments_need_no_memory),
        BOTH(a_nul_before_hundreds_of_arguments_leaves_nothing_behind),
        BOTH(a_body_is_read_up_to_64_kib_and_413_beyond),
        BOTH(a_chunked_body_is_counted_as_it_comes),
        BOTH(fields_that_leave_the_length_in_doubt_are_400),
        BOTH(expect_continue_is_answered_or_refused_at_once),
        BOTH(what_fills_the_memory_without_an_end_is_not_spun_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
