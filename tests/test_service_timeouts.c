/* test_service_timeouts.c - when the example service ends a connection: reading, writing and being
 * idle take a total of so long, whatever trickles. Time alone decides nothing here: which time-out
 * ended what is read from its counter, and those that must not are a minute away.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define READ(ms)  "READ_TIMEOUT_MS=" #ms
#define WRITE(ms) "WRITE_TIMEOUT_MS=" #ms
#define IDLE(ms)  "IDLE_TIMEOUT_MS=" #ms
#define EARLY     0.002 /* deadlines count from when the event loop woke up */

static service svc;
static const char *program;
static answer a;

static int start(void **state)
{
    program = *state;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

static void start_with(const char *reading, const char *writing, const char *idle, const char *work)
{
    const char *settings[] = {
        "LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=1", reading, writing, idle, work, NULL};
    service_start(&svc, program, settings);
}

static void expect_timeouts(int reading, int writing, int idle)
{
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"read\"}"), reading);
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"write\"}"), writing);
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"idle\"}"), idle);
}

/* Sends each client an 'x' every 20 ms until the service has ended all of them; fails where that
 * takes ten times as long as reading may take here, or where one is ended too early. */
static void trickle(client *c, int n)
{
    double begin = now_s();
    bool ended[16] = {false};
    for (int left = n; left > 0;) {
        if (now_s() - begin > 3)
            fail_msg("%d are still open", left);
        sleep_ms(20);
        for (int i = 0; i < n; i++) {
            if (ended[i] || (!client_ends(&c[i], 0) && send(c[i].fd, "x", 1, MSG_NOSIGNAL) == 1))
                continue;
            ended[i] = true;
            left--;
            if (now_s() - begin < 0.3 - EARLY)
                fail_msg("number %d is ended after %.3f s", i, now_s() - begin);
        }
    }
}

static void close_all(client *c, int n)
{
    for (int i = 0; i < n; i++)
        client_close(&c[i]);
}

/* ---- reading ---- */

static void a_request_that_trickles_in_is_cut_at_the_read_timeout(void **state)
{
    (void)state;
    static const char *const starts[] = {
        "",
        "GET /healthy",
        "GET /health" HOST "X: ",
        "POST /process?id=1" HOST "Content-Length: 9999\r\n\r\n",
        "POST /process?id=1" HOST "Transfer-Encoding: chunked\r\n\r\n1000\r\n",
    };
    client c[5];
    start_with(READ(300), WRITE(60000), IDLE(60000), NULL);
    for (int i = 0; i < 5; i++)
        client_open(&c[i], &svc);
    for (int i = 0; i < 5; i++)
        client_text(&c[i], starts[i]);
    trickle(c, 5);
    close_all(c, 5);
    expect_timeouts(5, 0, 0);
}

static void a_connection_that_says_nothing_is_cut_at_the_read_timeout(void **state)
{
    (void)state;
    client c;
    start_with(READ(300), WRITE(60000), IDLE(60000), NULL);
    client_open(&c, &svc);
    client_expect_end(&c);
    client_close(&c);
    expect_timeouts(1, 0, 0);
}

/* On a connection that is kept alive: from its own first byte, not from the last answer, and not
 * from the connection's beginning. */
static void every_request_has_a_read_timeout_of_its_own(void **state)
{
    (void)state;
    client c[2];
    start_with(READ(300), WRITE(60000), IDLE(60000), NULL);
    for (int i = 0; i < 2; i++)
        client_open(&c[i], &svc);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 2; i++) {
            ask(&c[i], &a, "GET /health");
            assert_int_equal(a.status, 200);
        }
        sleep_ms(500);
    }
    client_text(&c[0], "GET /hea");
    client_text(&c[1], "GET /health" HOST "X: ");
    trickle(c, 2);
    close_all(c, 2);
    expect_timeouts(2, 0, 0);
}

/* Its first bytes came with the request before, and no event tells of them. */
static void half_a_request_behind_a_whole_one_is_cut_at_the_read_timeout(void **state)
{
    (void)state;
    static const char *const halves[] = {"G", "GET /hea", "GET /health" HOST,
                                         "POST /process?id=2" HOST "Content-Length: 3\r\n\r\nab"};
    char text[256];
    client c[4];
    start_with(READ(300), WRITE(60000), IDLE(60000), NULL);
    for (int i = 0; i < 4; i++) {
        client_open(&c[i], &svc);
        snprintf(text, sizeof text, "POST /process?id=1" HOST "Content-Length: 4\r\n\r\nbody%s",
                 halves[i]);
        client_text(&c[i], text);
        client_read(&c[i], &a, false);
    }
    for (int i = 0; i < 4; i++)
        client_expect_end(&c[i]);
    close_all(c, 4);
    expect_timeouts(4, 0, 0);
}

/* The service sleeps meanwhile, so that it finds all of them at once: more than it takes events at
 * a time, and libmicrohttpd has read the rest before epoll can tell. */
static void many_requests_that_begin_at_once_are_all_cut_at_the_read_timeout(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static client c[MANY];
    start_with(READ(1000), WRITE(60000), IDLE(60000), NULL);
    for (int i = 0; i < MANY; i++) {
        client_open(&c[i], &svc);
        ask(&c[i], &a, "GET /health");
        assert_int_equal(a.status, 200);
    }
    sleep_ms(400); /* until all have settled */
    kill(svc.pid, SIGSTOP);
    for (int i = 0; i < MANY; i++)
        client_text(&c[i], "G");
    kill(svc.pid, SIGCONT);
    for (int i = 0; i < MANY; i++)
        client_expect_end(&c[i]);
    close_all(c, MANY);
    expect_timeouts(MANY, 0, 0);
}

/* ---- being idle ---- */

/* What a request was long is counted to the byte: else it would look as if another had begun. */
static void a_request_of_any_form_leaves_its_connection_idle(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } forms[] = {
#define FORM(text) {text, sizeof(text) - 1}
        FORM("GET /health" HOST "\r\n"),
        FORM("GET /health?some=arguments&and=more" HOST "\r\n"),
        FORM("GET  /health " HOST "\r\n"),
        FORM("\r\nGET /health" HOST "\r\n"),
        FORM("\r\n\n\r\nPOST /process?id=1" HOST "Content-Length: 4\r\n\r\nbody"),
        FORM("GET /health HTTP/1.1\nHost: test\n\n"),
        FORM("GET /none" HOST "Folded: field\r\n  and more\r\n\tof it\r\nX: y\r\n\r\n"),
        FORM("POST /process?id=a\0b" HOST "\r\n"),
        FORM("POST /process?id=%00%20+" HOST "Cookie: a=1; b=\"2\"\r\n\r\n"),
        FORM("POST /process?id=1" HOST "Content-Length: 4\r\n\r\nbody"),
        FORM("PUT /process?id=1" HOST "Content-Length: 11\r\n\r\nGET /health"),
        FORM("POST /process?id=1" HOST "Transfer-Encoding: chunked\r\n\r\n"
             "4;ext=1\r\nbody\r\n2\r\nof\r\n0\r\nTrailer: x\r\n\r\n"),
#undef FORM
    };
    enum { FORMS = sizeof forms / sizeof forms[0] };
    client c[FORMS];
    start_with(READ(300), WRITE(60000), IDLE(60000), "WORK_MS=1");
    for (int i = 0; i < FORMS; i++) {
        client_open(&c[i], &svc);
        for (int k = 0; k < 3; k++) {
            client_send(&c[i], forms[i].text, forms[i].len);
            client_read(&c[i], &a, false);
        }
    }
    sleep_ms(900); /* the moment in which it settles, and the read time-out twice */
    for (int i = 0; i < FORMS; i++) {
        client_text(&c[i], "GET /health" HOST "\r\n");
        if (client_more(&c[i]) == 0)
            fail_msg("ended after %s", forms[i].text);
        client_read(&c[i], &a, false);
        assert_string_equal(a.body, "ok");
        client_close(&c[i]);
    }
    expect_timeouts(0, 0, 0);
}

static void an_idle_connection_is_ended_at_the_idle_timeout_and_a_busy_one_is_not(void **state)
{
    (void)state;
    client idle, busy;
    start_with(READ(60000), WRITE(60000), IDLE(300), NULL);
    client_open(&idle, &svc);
    client_open(&busy, &svc);
    double begin = now_s();
    ask(&idle, &a, "GET /health");
    for (int i = 0; i < 24; i++) {
        ask(&busy, &a, i % 2 == 0 ? "POST /process?id=1" : "GET /health");
        assert_int_equal(a.status, 200);
        sleep_ms(30);
    }
    client_expect_end(&idle);
    assert_true(now_s() - begin >= 0.3 - EARLY);
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"read\"}"), 0);
    client_expect_end(&busy); /* now that it is idle too */
    client_close(&idle);
    client_close(&busy);
    expect_timeouts(0, 0, 2);
}

/* ---- writing ---- */

/* Asks for the target until the answers are more than the sockets' buffers hold, and nobody reads
 * the requests any more. */
static void ask_for_much(client *c, const char *target)
{
    static char text[100000];
    int full = 0;
    size_t n = 0;
    client_open_small(c, &svc, 4096);
    while (n + 100 < sizeof text)
        n += (size_t)sprintf(text + n, "GET %s" HOST "\r\n", target);
    for (size_t sent = 0; full < 25;) {
        ssize_t k = send(c->fd, text + sent % n, n - sent % n, MSG_DONTWAIT | MSG_NOSIGNAL);
        full = k > 0 ? 0 : full + 1;
        sent += k > 0 ? (size_t)k : 0;
        if (full > 0)
            sleep_ms(10);
    }
}

static void a_client_that_does_not_read_is_cut_at_the_write_timeout(void **state)
{
    (void)state;
    client c;
    start_with(READ(60000), WRITE(300), IDLE(60000), NULL);
    double begin = now_s();
    ask_for_much(&c, "/metrics");
    await_metric(&svc, "service_timeouts_total{kind=\"write\"}", 1);
    assert_true(now_s() - begin >= 0.3 - EARLY);
    await_metric(&svc, "service_connections", 1);
    await_metric(&svc, "service_requests_in_flight", 1);
    expect_timeouts(0, 1, 0);
    client_close(&c);
}

/* What waits there on purpose may take longer than any other answer, or shorter; but not for ever.
 */
static void an_answer_under_debug_has_a_timeout_of_its_own(void **state)
{
    (void)state;
    static const char *const paths[] = {"/debug/pprof/heap?seconds=1", "/%64ebug/x", "/debugging"};
    client c[3];
    start_with(READ(60000), WRITE(60000), IDLE(60000), "DEBUG_TIMEOUT_MS=300");
    double begin = now_s();
    for (int i = 0; i < 3; i++)
        ask_for_much(&c[i], paths[i]);
    await_metric(&svc, "service_timeouts_total{kind=\"debug\"}", 2);
    assert_true(now_s() - begin >= 0.3 - EARLY);
    expect_timeouts(0, 0, 0);
    close_all(c, 3);
    assert_int_equal(service_stop(&svc), 0);

    start_with(READ(60000), WRITE(300), IDLE(60000), "DEBUG_TIMEOUT_MS=60000");
    for (int i = 0; i < 3; i++)
        ask_for_much(&c[i], paths[i]);
    await_metric(&svc, "service_timeouts_total{kind=\"write\"}", 1);
    assert_int_equal((int)metric(&svc, "service_timeouts_total{kind=\"debug\"}"), 0);
    close_all(c, 3);
}

static void a_client_that_reads_a_little_now_and_then_is_cut_too(void **state)
{
    (void)state;
    client c;
    char some[16];
    start_with(READ(60000), WRITE(300), IDLE(60000), NULL);
    ask_for_much(&c, "/metrics");
    double end = now_s() + WAIT_MS / 1000.0;
    while (metric(&svc, "service_timeouts_total{kind=\"write\"}") < 1) {
        if (now_s() > end)
            fail_msg("still being served");
        assert_true(recv(c.fd, some, sizeof some, 0) > 0);
        sleep_ms(20);
    }
    client_close(&c);
}

static void work_counts_to_the_write_timeout_and_a_warning_says_so(void **state)
{
    (void)state;
    client c;
    start_with(READ(60000), WRITE(300), IDLE(60000), "WORK_MS=800");
    assert_non_null(strstr(svc.log, "warning: WORK_MS=800"));
    client_open(&c, &svc);
    double begin = now_s();
    client_text(&c, "POST /process?id=1" HOST "\r\n");
    client_expect_end(&c);
    assert_true(now_s() - begin >= 0.3 - EARLY);
    expect_timeouts(0, 1, 0);
    await_metric(&svc, "service_connections", 1);
    assert_int_equal((int)metric(&svc, "service_requests_in_flight"), 1);
    client_close(&c);
}

/* ---- clients that close ---- */

static void the_end_of_a_client_behind_half_a_request_is_seen_at_once(void **state)
{
    (void)state;
    enum { MANY = 120 };
    static const char *const halves[] = {
        "",
        "GE",
        "GET /health" HOST "X: half a he",
        "POST /process?id=1" HOST "Content-Length: 9\r\n\r\nhalf",
        "POST /process?id=1" HOST "Transfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        "GET /health" HOST "\r\nGET /hea",
    };
    start_with(READ(60000), WRITE(60000), IDLE(60000), "WORK_MS=1");
    client waiting[MANY / 4];
    for (int i = 0; i < MANY; i++) {
        client c;
        client_open(&c, &svc);
        client_text(&c, halves[i % 6]);
        if (i % 4 != 3) {
            client_close(&c);
            continue;
        }
        shutdown(c.fd, SHUT_WR); /* its sending half, and then it waits */
        waiting[i / 4] = c;
    }
    for (int i = 0; i < MANY / 4; i++)
        assert_true(client_ends(&waiting[i], WAIT_MS));
    close_all(waiting, MANY / 4);
    await_metric(&svc, "service_connections", 1);
    await_metric(&svc, "service_requests_in_flight", 1);
    expect_timeouts(0, 0, 0);
}

/* However long that takes. */
static void a_client_that_has_closed_its_half_gets_every_answer(void **state)
{
    (void)state;
    client c;
    start_with(READ(60000), WRITE(60000), IDLE(60000), "WORK_MS=350");
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=1" HOST "\r\nPOST /process?id=2" HOST
                    "Content-Length: 2\r\n\r\nok"
                    "GET /health" HOST "\r\nPOST /process?id=3" HOST "\r\n");
    shutdown(c.fd, SHUT_WR);
    static const char *const want[] = {"1", "2", "ok", "3"};
    for (int i = 0; i < 4; i++) {
        client_read(&c, &a, false);
        assert_string_equal(a.body, want[i]);
    }
    client_expect_end(&c);
    client_close(&c);
}

static void it_ends_in_time_while_slow_clients_hang(void **state)
{
    (void)state;
    enum { HANGING = 50 };
    client c[HANGING], deaf;
    start_with(READ(60000), WRITE(60000), IDLE(60000), "DRAIN_MS=200");
    for (int i = 0; i < HANGING; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], i % 2 == 0 ? "GET /hea" : "POST /process?id=1" HOST "X: ");
    }
    ask_for_much(&deaf, "/metrics");
    sleep_ms(50);
    kill(svc.pid, SIGTERM);
    int rc = service_wait(&svc); /* within WAIT_MS, or that fails */
    if (rc != 0)
        fail_msg("exit status %d, and it said: %s", rc, svc.log);
    close_all(c, HANGING);
    client_close(&deaf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_request_that_trickles_in_is_cut_at_the_read_timeout),
        BOTH(a_connection_that_says_nothing_is_cut_at_the_read_timeout),
        BOTH(every_request_has_a_read_timeout_of_its_own),
        BOTH(half_a_request_behind_a_whole_one_is_cut_at_the_read_timeout),
        BOTH(many_requests_that_begin_at_once_are_all_cut_at_the_read_timeout),
        BOTH(a_request_of_any_form_leaves_its_connection_idle),
        BOTH(an_idle_connection_is_ended_at_the_idle_timeout_and_a_busy_one_is_not),
        BOTH(a_client_that_does_not_read_is_cut_at_the_write_timeout),
        BOTH(a_client_that_reads_a_little_now_and_then_is_cut_too),
        BOTH(an_answer_under_debug_has_a_timeout_of_its_own),
        BOTH(work_counts_to_the_write_timeout_and_a_warning_says_so),
        BOTH(the_end_of_a_client_behind_half_a_request_is_seen_at_once),
        BOTH(a_client_that_has_closed_its_half_gets_every_answer),
        BOTH(it_ends_in_time_while_slow_clients_hang),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
