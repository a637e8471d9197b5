/* test_service_debug.c - the debug paths on the service's own port: they wait in its event loop
 * beside everything else it does.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define NEEDS_PROFILER() \
    do {                 \
        if (SANITIZED)   \
            skip();      \
    } while (0)

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

static void start_with(const char *setting, const char *another)
{
    const char *settings[] = {
        "LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=1", "WORK_MS=0", setting, another, NULL};
    service_start(&svc, program, settings);
}

static void get_is(const char *line, int status)
{
    client c;
    client_open(&c, &svc);
    ask(&c, &a, line);
    client_close(&c);
    if (a.status != status)
        fail_msg("%s: %d and not %d: %s", line, a.status, status, a.body);
}

static const char *value_of(const char *name)
{
    static char value[256];
    return field(&a, name, value, sizeof value);
}

static void all_paths_are_answered(void **state)
{
    (void)state;
    start_with("SAMPLE_RATE=1", NULL);
    get_is("GET /debug/pprof/", 200);
    assert_non_null(strstr(a.body, program));
    get_is("GET /debug/pprof", 200);
    get_is("GET /debug/%70prof/cmdline", 200);
    get_is("GET /debug/pprof/symbol?0x1+0x2", 200);
    get_is("GET /debug/pprof/goroutine", 404);
    assert_non_null(strstr(a.body, "goroutines"));
    get_is("GET /debug/", 404);
    get_is("GET /debug/pprof/heap%00", 404);
    get_is("GET /debug/pprof/heap?seconds=0", 400);
    assert_string_equal(value_of("X-Go-Pprof"), "1");
    get_is("HEAD /debug/pprof/cmdline", 200);
    get_is("DELETE /debug/pprof/heap", 405);
    assert_string_equal(value_of("Allow"), "GET, HEAD");
    get_is("POST /debug/pprof/heap", 405);
    get_is("DELETE /debug/pprof/symbol", 405);
    assert_string_equal(value_of("Allow"), "GET, HEAD, POST");
    NEEDS_PROFILER();
    get_is("GET /debug/pprof/heap", 200);
    assert_string_equal(value_of("Content-Type"), "application/octet-stream");
    assert_string_equal(value_of("Content-Disposition"), "attachment; filename=\"heap\"");
    assert_string_equal(value_of("X-Content-Type-Options"), "nosniff");
    assert_memory_equal(a.body, "\x1f\x8b", 2);
    get_is("GET /debug/memkit/flame.svg", 200);
    assert_string_equal(value_of("Content-Type"), "image/svg+xml");
    assert_true(metric(&svc, "memkit_prof_running") == 1);
    assert_true(metric(&svc, "memkit_prof_samples_total") > 0);
}

static void symbol_takes_a_body_in_pieces(void **state)
{
    (void)state;
    client c;
    start_with(NULL, NULL);
    client_open(&c, &svc);
    for (int i = 0; i < 2; i++) {
        client_text(&c, "POST /debug/pprof/symbol" HOST "Content-Length: 9\r\n\r\n0x10");
        sleep_ms(20);
        client_text(&c, "+0x20");
        client_read(&c, &a, false);
        assert_int_equal(a.status, 200);
        assert_memory_equal(a.body, "num_symbols: 1\n", 15);
    }
    client_close(&c);
    client_open(&c, &svc); /* and one that leaves in the middle of its body leaks nothing */
    client_text(&c, "POST /debug/pprof/symbol" HOST "Content-Length: 9\r\n\r\n0x10");
    client_close(&c);
}

static void without_a_profiler_heap_says_so_and_the_rest_works(void **state)
{
    (void)state;
    start_with("SAMPLE_RATE=0", NULL);
    get_is("GET /debug/pprof/heap", 503);
    assert_non_null(strstr(a.body, "not started"));
    get_is("GET /debug/pprof/cmdline", 200);
    assert_true(metric(&svc, "memkit_prof_running") == 0);
}

/* A delta that is longer than the write time-out, with others answered meanwhile. */
static void a_delta_outlives_the_write_timeout_and_stops_nobody(void **state)
{
    (void)state;
    client c;
    start_with("WRITE_TIMEOUT_MS=300", NULL);
    NEEDS_PROFILER();
    client_open(&c, &svc);
    double begin = now_s();
    client_text(&c, "GET /debug/pprof/heap?seconds=2" HOST "\r\n");
    int others = 0;
    for (; now_s() - begin < 1.5; others++) {
        get_is("POST /process?id=1", 200);
        sleep_ms(10);
    }
    assert_true(others > 3);
    client_read(&c, &a, false);
    assert_true(now_s() - begin >= 1.99);
    assert_int_equal(a.status, 200);
    assert_string_equal(value_of("Content-Disposition"), "attachment; filename=\"heap-delta\"");
    ask(&c, &a, "GET /health"); /* the connection lives on */
    assert_int_equal(a.status, 200);
    client_close(&c);
    assert_true(metric(&svc, "service_timeouts_total{kind=\"write\"}") == 0);
    assert_true(metric(&svc, "service_timeouts_total{kind=\"debug\"}") == 0);
}

static void seconds_beyond_the_debug_timeout_are_refused(void **state)
{
    (void)state;
    start_with("DEBUG_TIMEOUT_MS=1000", NULL);
    get_is("GET /debug/pprof/profile?seconds=1", 400);
    assert_non_null(strstr(a.body, "DEBUG_TIMEOUT_MS"));
    get_is("GET /debug/pprof/profile?seconds=2", 400); /* and the first is stopped: no 409 */
}

static void a_client_that_leaves_ends_its_profile(void **state)
{
    (void)state;
    client c;
    start_with(NULL, NULL);
    client_open(&c, &svc);
    client_text(&c, "GET /debug/pprof/profile?seconds=3000" HOST "\r\n");
    await_metric(&svc, "service_requests_in_flight", 2);
    get_is("GET /debug/pprof/profile?seconds=1", 409);
    client_close(&c);
    await_metric(&svc, "service_requests_in_flight", 1);
    get_is("GET /debug/pprof/profile?seconds=1", 200);
}

static void only_so_many_may_wait(void **state)
{
    (void)state;
    client c[17];
    struct pollfd p[17];
    start_with(NULL, NULL);
    NEEDS_PROFILER();
    for (int i = 0; i < 17; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "GET /debug/pprof/heap?seconds=3600" HOST "\r\n");
        p[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
    }
    assert_int_equal(poll(p, 17, WAIT_MS), 1);
    for (int i = 0; i < 17; i++) {
        if (p[i].revents != 0) {
            client_read(&c[i], &a, false);
            assert_int_equal(a.status, 503);
            assert_non_null(strstr(a.body, "too many"));
        }
        client_close(&c[i]);
    }
    await_metric(&svc, "service_requests_in_flight", 1);
}

static void a_stop_answers_those_that_wait_at_once(void **state)
{
    (void)state;
    client c[2];
    start_with(NULL, NULL);
    NEEDS_PROFILER();
    for (int i = 0; i < 2; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], i == 0 ? "GET /debug/pprof/heap?seconds=3600" HOST "\r\n"
                                  : "GET /debug/pprof/profile?seconds=3600" HOST "\r\n");
    }
    await_metric(&svc, "service_requests_in_flight", 3);
    kill(svc.pid, SIGTERM);
    for (int i = 0; i < 2; i++) {
        client_read(&c[i], &a, false);
        assert_int_equal(a.status, 200);
        assert_memory_equal(a.body, "\x1f\x8b", 2);
        client_expect_end(&c[i]);
        client_close(&c[i]);
    }
    assert_int_equal(service_wait(&svc), 0);
}

static void a_preloaded_profiler_is_the_same_copy(void **state)
{
    (void)state;
    NEEDS_PROFILER();
    char preload[4200], path[64], line[512];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s/libmemkit-prof.so.0", build_dir());
    start_with(preload, NULL);
    snprintf(path, sizeof path, "/proc/%d/maps", (int)svc.pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int copies = 0;
    while (fgets(line, sizeof line, f) != NULL)
        copies += strstr(line, "libmemkit-prof") != NULL && strstr(line, " r-xp ") != NULL;
    fclose(f);
    assert_int_equal(copies, 1);
    assert_true(metric(&svc, "memkit_malloc_hooked") == 1);
    get_is("GET /debug/pprof/heap", 200);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        BOTH(all_paths_are_answered),
        BOTH(symbol_takes_a_body_in_pieces),
        BOTH(without_a_profiler_heap_says_so_and_the_rest_works),
        BOTH(a_delta_outlives_the_write_timeout_and_stops_nobody),
        BOTH(seconds_beyond_the_debug_timeout_are_refused),
        BOTH(a_client_that_leaves_ends_its_profile),
        BOTH(only_so_many_may_wait),
        BOTH(a_stop_answers_those_that_wait_at_once),
        BOTH(a_preloaded_profiler_is_the_same_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
