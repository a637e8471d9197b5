/* test_service.c - what the example service answers, over a real socket: routes, methods, ids,
 * pipelining, and what the two caches keep. Both programs, a new process for each test. Sizes and
 * framing are test_service_limits.c's; starting, signals and settings test_service_config.c's.
 */
#define _GNU_SOURCE

#include "test_service.h"

static service svc;
static bool is_after;
static answer a;

static int start(void **state)
{
    static const char *const settings[] = {"LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=2", "WORK_MS=5",
                                           "CACHE_SIZE=4", NULL};
    is_after = strcmp(*state, "service-after") == 0;
    service_start(&svc, *state, settings);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

/* ---- routes and methods ---- */

static void health_and_metrics_answer_get_and_head(void **state)
{
    (void)state;
    client c;
    char value[64];
    client_open(&c, &svc);
    ask(&c, &a, "GET /health");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "ok");
    assert_string_equal(field(&a, "Content-Type", value, sizeof value), "text/plain");
    ask(&c, &a, "HEAD /health");
    assert_int_equal(a.status, 200);
    assert_string_equal(field(&a, "Content-Length", value, sizeof value), "2");
    ask(&c, &a, "HEAD /metrics");
    assert_int_equal(a.status, 200);
    ask(&c, &a, "GET /metrics");
    assert_int_equal(a.status, 200);
    assert_string_equal(field(&a, "Content-Type", value, sizeof value),
                        "text/plain; version=0.0.4");
    assert_non_null(strstr(a.body, "memkit_process_resident_bytes "));
    client_close(&c);
}

static void metrics_count_requests_by_code(void **state)
{
    (void)state;
    client c;
    client_open(&c, &svc);
    ask(&c, &a, "POST /process?id=1");
    ask(&c, &a, "POST /process?id=2");
    ask(&c, &a, "GET /nowhere");
    ask(&c, &a, "GET /process?id=1");
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"404\"}"), 1);
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"405\"}"), 1);
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"400\"}"), 0);
    /* the two, and the three reads above, one connection each */
    assert_int_equal((int)metric(&svc, "service_requests_total{code=\"200\"}"), 5);
    await_metric(&svc, "service_requests_in_flight", 1); /* itself */
    assert_true(metric(&svc, "service_connections") >= 2);
    client_close(&c);
}

static void other_paths_are_404_and_other_methods_405_with_allow(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
        const char *allow;
    } table[] = {
        {"GET /", 404, NULL},
        {"POST /process/?id=1", 404, NULL},
        {"POST /Process?id=1", 404, NULL},
        {"GET /health%00", 404, NULL},
        {"GET /processprocessprocess", 404, NULL},
        {"GET /process?id=1", 405, "POST"},
        {"HEAD /process?id=1", 405, "POST"},
        {"PUT /process?id=1", 405, "POST"},
        {"POST /health", 405, "GET, HEAD"},
        {"DELETE /metrics", 405, "GET, HEAD"},
        {"GET /%68ealth", 200, NULL},
        {"GET /health?x=1", 200, NULL},
        {"GET http://example.org/health", 200, NULL},
        {"POST http://example.org:80/process?id=1", 200, NULL},
    };
    client c;
    char value[64];
    client_open(&c, &svc);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        ask(&c, &a, table[i].line);
        if (a.status != table[i].status)
            fail_msg("%s: %d", table[i].line, a.status);
        const char *allow = field(&a, "Allow", value, sizeof value);
        if (table[i].allow == NULL)
            assert_null(allow);
        else
            assert_string_equal(allow, table[i].allow);
    }
    client_close(&c);
}

/* ---- ids ---- */

static void an_id_is_decoded_as_a_query_is(void **state)
{
    (void)state;
    static const struct {
        const char *query, *id;
        size_t len;
    } table[] = {
        {"id=plain", "plain", 5},    {"id=a%20b", "a b", 3},       {"id=a+c", "a c", 3},
        {"id=%2B%2b", "++", 2},      {"id=%41%5a%5A", "AZZ", 3},   {"id=%26%3D%25", "&=%", 3},
        {"id=x%00y", "x\0y", 3},     {"id=%FF%fe", "\xff\xfe", 2}, {"id=k=v", "k=v", 3},
        {"id=1st&id=2nd", "1st", 3}, {"a=1&id=n&b=2", "n", 1},     {"&&id=amp&", "amp", 3},
        {"%69%64=key", "key", 3},    {"xid=no&id=yes", "yes", 3},  {"id=?/", "?/", 2},
        {"idx=9&id=8", "8", 1},      {"id=%00", "\0", 1},          {"id=%2500", "%00", 3},
    };
    client c;
    client_open(&c, &svc);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char line[128];
        snprintf(line, sizeof line, "POST /process?%s", table[i].query);
        ask(&c, &a, line);
        if (a.status != 200 || a.body_len != table[i].len ||
            memcmp(a.body, table[i].id, table[i].len) != 0)
            fail_msg("%s: %d \"%s\"", table[i].query, a.status, a.body);
    }
    client_close(&c);
}

static void a_missing_id_or_a_malformed_escape_is_400(void **state)
{
    (void)state;
    static const char *const missing[] = {"",      "?",      "?id",          "?id=", "?i=1",
                                          "?ID=1", "?xid=1", "?id=&id=late", "?=id", "?id%00=1"};
    static const char *const malformed[] = {"?id=%",    "?id=a%4",        "?id=%zz",     "?id=%%41",
                                            "?id=%4g1", "?x=%zz&id=fine", "?%=1&id=fine"};
    client c;
    char line[128];
    client_open(&c, &svc);
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        snprintf(line, sizeof line, "POST /process%s", missing[i]);
        ask(&c, &a, line);
        if (a.status != 400 || strcmp(a.body, "missing id query param") != 0)
            fail_msg("%s: %d %s", line, a.status, a.body);
    }
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        snprintf(line, sizeof line, "POST /process%s", malformed[i]);
        ask(&c, &a, line);
        if (a.status != 400 || strstr(a.body, "malformed escape") == NULL)
            fail_msg("%s: %d %s", line, a.status, a.body);
    }
    client_close(&c);
}

static void a_raw_nul_in_the_target_is_400(void **state)
{
    (void)state;
    static const struct {
        char line[40];
        size_t len;
    } table[] = {
#define LINE(text) {text, sizeof(text) - 1}
        LINE("POST /process?id=a\0b"), LINE("POST /process?id=a\0"),
        LINE("POST /process?id=\0"),   LINE("POST /process\0?id=a"),
        LINE("GET /health\0"),         LINE("GET /health?\0\0"),
        LINE("GET /nowhere\0"),        LINE("GET \0"),
        LINE("GET \0/health"),
#undef LINE
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        client c;
        client_open(&c, &svc);
        client_send(&c, table[i].line, table[i].len);
        client_text(&c, HOST "\r\n");
        client_read(&c, &a, false);
        if (a.status != 400 || strstr(a.body, "NUL") == NULL)
            fail_msg("%s, %zu: %d %s", table[i].line, i, a.status, a.body);
        ask(&c, &a, "GET  /health "); /* blanks around it are none of that */
        assert_int_equal(a.status, 404);
        ask(&c, &a, "GET  /health");
        assert_int_equal(a.status, 200);
        client_close(&c);
    }
}

static void ids_of_every_length_come_back_whole(void **state)
{
    (void)state;
    static const size_t lengths[] = {1,    31,   32,   1023, 1024, 1025,  1100,
                                     1200, 1300, 2000, 4096, 8000, 16000, 0};
    client c;
    client_open(&c, &svc);
    for (size_t i = 0; lengths[i] > 0; i++) {
        char *line = line_with_id(lengths[i]);
        ask(&c, &a, line);
        assert_int_equal(a.status, 200);
        expect_body(&a, strchr(line, '=') + 1, lengths[i]);
        free(line);
    }
    client_close(&c);
}

/* ---- the caches ---- */

static void before_appends_and_after_keeps_the_latest(void **state)
{
    (void)state;
    client c, d;
    client_open(&c, &svc);
    client_open(&d, &svc);
    for (int i = 1; i <= 3; i++) {
        ask(i == 2 ? &d : &c, &a, "POST /process?id=ab"); /* the cache is of all connections */
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body, is_after ? "ab" : i == 1 ? "ab" : i == 2 ? "abab" : "ababab");
    }
    ask(&c, &a, "POST /process?id=cd");
    assert_string_equal(a.body, "cd");
    client_close(&c);
    client_close(&d);
}

static void after_bounds_its_cache_and_reads_it(void **state)
{
    (void)state;
    client c;
    char line[64];
    client_open(&c, &svc);
    for (int i = 0; i < 20; i++) {
        snprintf(line, sizeof line, "POST /process?id=n%d", i);
        ask(&c, &a, line);
    }
    assert_int_equal((int)metric(&svc, "memkit_lru_entries{cache=\"ids\",id=\"0\"}"), 4);
    assert_int_equal((int)metric(&svc, "memkit_lru_hits_total{cache=\"ids\",id=\"0\"}"), 0);
    ask(&c, &a, "POST /process?id=n18");
    assert_string_equal(a.body, "n18");
    assert_int_equal((int)metric(&svc, "memkit_lru_hits_total{cache=\"ids\",id=\"0\"}"), 1);
    await_metric(&svc, "memkit_lru_pinned_bytes{cache=\"ids\",id=\"0\"}", 0);
    await_metric(&svc, "memkit_pool_live_buffers{pool=\"answers\",id=\"0\"}", 0);
    client_close(&c);
}

/* ---- connections ---- */

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    client c;
    client_open(&c, &svc);
    client_text(&c,
                "POST /process?id=one" HOST "\r\nGET /health" HOST "\r\n"
                "POST /process?id=two" HOST "Content-Length: 4\r\n\r\nbody"
                "HEAD /health" HOST "\r\nGET /none" HOST "\r\nPOST /process?id=three" HOST "\r\n");
    static const char *const want[] = {"one", "ok", "two", "", "not found", "three"};
    for (size_t i = 0; i < 6; i++) {
        client_read(&c, &a, i == 3);
        assert_string_equal(a.body, want[i]);
    }
    client_close(&c);
}

/* Among others: libmicrohttpd treats the connection that has been idle longest differently. */
static void clients_that_have_closed_their_half_get_every_answer(void **state)
{
    (void)state;
    enum { IDLE = 16, HALVES = 8 };
    client idle[IDLE], c[HALVES];
    for (int i = 0; i < IDLE; i++) {
        client_open(&idle[i], &svc);
        ask(&idle[i], &a, "GET /health");
    }
    for (int i = 0; i < HALVES; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "POST /process?id=%00" HOST "\r\nGET /health" HOST "\r\n");
        shutdown(c[i].fd, SHUT_WR);
    }
    for (int i = 0; i < HALVES; i++) {
        client_read(&c[i], &a, false);
        assert_int_equal(a.status, 200);
        client_read(&c[i], &a, false);
        assert_string_equal(a.body, "ok");
        client_expect_end(&c[i]);
        client_close(&c[i]);
    }
    for (int i = 0; i < IDLE; i++)
        client_close(&idle[i]);
}

static void connection_close_and_http_1_0_end_the_connection(void **state)
{
    (void)state;
    client c;
    char value[64];
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=z" HOST "Connection: close\r\n\r\n");
    client_read(&c, &a, false);
    assert_string_equal(a.body, "z");
    assert_string_equal(field(&a, "Connection", value, sizeof value), "close");
    client_expect_end(&c);
    client_close(&c);
    client_open(&c, &svc);
    client_text(&c, "GET /health HTTP/1.0\r\n\r\n");
    client_read(&c, &a, false);
    assert_string_equal(a.body, "ok");
    client_expect_end(&c);
    client_close(&c);
}

static void clients_that_vanish_leave_nothing_behind(void **state)
{
    (void)state;
    client c;
    struct linger reset = {.l_onoff = 1};
    for (int i = 0; i < 200; i++) {
        client_open(&c, &svc);
        client_text(&c, i % 3 == 0   ? "POST /process?id=gone" HOST "\r\n"
                        : i % 3 == 1 ? "POST /process?id=gone" HOST "X: half a he"
                                     : "POST /process?id=gone" HOST
                                       "Content-Length: 9\r\n\r\nhalf");
        if (i % 2 == 0)
            setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        client_close(&c);
    }
    await_metric(&svc, "service_requests_in_flight", 1); /* itself */
    await_metric(&svc, "service_connections", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(health_and_metrics_answer_get_and_head),
        BOTH(metrics_count_requests_by_code),
        BOTH(other_paths_are_404_and_other_methods_405_with_allow),
        BOTH(an_id_is_decoded_as_a_query_is),
        BOTH(a_missing_id_or_a_malformed_escape_is_400),
        BOTH(a_raw_nul_in_the_target_is_400),
        BOTH(ids_of_every_length_come_back_whole),
        BOTH(before_appends_and_after_keeps_the_latest),
        {"after_bounds_its_cache_and_reads_it", after_bounds_its_cache_and_reads_it, start, stop,
         (char *)(uintptr_t) "service-after"},
        BOTH(pipelined_requests_are_answered_in_order),
        BOTH(clients_that_have_closed_their_half_get_every_answer),
        BOTH(connection_close_and_http_1_0_end_the_connection),
        BOTH(clients_that_vanish_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
