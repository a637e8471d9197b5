/* test_service_descriptors.c - more clients than the example service has descriptors for: those it
 * has are served, the others wait or take the place of idle ones, and nothing spins.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define FILES 128 /* of these one worker keeps 24 for connections */
#define ROOM  24
#define CROWD 60

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

static void start_with(const char *a1, const char *a2)
{
    const char *settings[] = {
        "LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=1", "WORK_MS=1", a1, a2, NULL};
    service_files = FILES;
    service_start(&svc, program, settings);
    service_files = 0;
    assert_non_null(strstr(svc.log, "1 workers, each with at most 24 connections"));
}

/* One figure, read over a connection that is open already. */
static double metric_over(client *c, const char *name)
{
    ask(c, &a, "GET /metrics");
    assert_int_equal(a.status, 200);
    const char *at = strstr(a.body, name);
    while (at != NULL && (at == a.body || at[-1] != '\n' || at[strlen(name)] != ' '))
        at = strstr(at + 1, name);
    if (at == NULL)
        fail_msg("no %s in the metrics", name);
    return strtod(at + strlen(name), NULL);
}

/* In the seconds of a test that waits. A loop that spins turns tens of thousands of times in each.
 */
static void expect_few_turns(double before, double after)
{
    if (after - before > 3000)
        fail_msg("%.0f turns for nothing", after - before);
}

static void expect_healthy(client *c, int times)
{
    for (int i = 0; i < times; i++) {
        ask(c, &a, i % 2 == 0 ? "GET /health" : "POST /process?id=%00");
        assert_int_equal(a.status, 200);
        sleep_ms(2);
    }
}

static void idle_connections_make_room_for_others(void **state)
{
    (void)state;
    client c[CROWD], busy;
    start_with(NULL, NULL);
    client_open(&busy, &svc);
    for (int i = 0; i < CROWD; i++) {
        client_open(&c[i], &svc);
        ask(&c[i], &a, "GET /health");
        assert_int_equal(a.status, 200);
        expect_healthy(&busy, 2); /* it is older than all of them, but never idle for long */
    }
    assert_true(metric_over(&busy, "service_connections") <= ROOM);
    assert_true(metric_over(&busy, "service_connections_shed_total") >= CROWD + 1 - ROOM);
    assert_true(client_ends(&c[0], WAIT_MS)); /* the first to be idle was the first to go */
    ask(&c[CROWD - 1], &a, "GET /health");
    assert_int_equal(a.status, 200);
    for (int i = 0; i < CROWD; i++)
        client_close(&c[i]);
    client_close(&busy);
}

static void half_requests_hold_the_door_no_longer_than_the_read_timeout(void **state)
{
    (void)state;
    client c[CROWD], healthy, late;
    start_with("READ_TIMEOUT_MS=1500", NULL);
    client_open(&healthy, &svc);
    expect_healthy(&healthy, 1);
    for (int i = 0; i < CROWD; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "GET /health" HOST "X: ");
    }
    expect_healthy(&healthy, 50);
    assert_int_equal((int)metric_over(&healthy, "service_connections"), ROOM);
    double turns = metric_over(&healthy, "service_loop_turns_total");
    expect_healthy(&healthy, 150); /* idle, it would make room */
    expect_few_turns(turns, metric_over(&healthy, "service_loop_turns_total"));
    client_open(&late, &svc); /* it waits for those before it, and is served */
    expect_healthy(&late, 10);
    for (int i = 0; i < CROWD; i++)
        client_close(&c[i]);
    client_close(&late);
    client_close(&healthy);
    await_metric(&svc, "service_connections", 1);
    assert_true(metric(&svc, "service_timeouts_total{kind=\"read\"}") >= ROOM - 1);
}

/* From outside: the service believes that it has room. */
static void limit_files(int n)
{
    struct rlimit lim = {.rlim_cur = (rlim_t)n, .rlim_max = FILES};
    assert_int_equal(prlimit(svc.pid, RLIMIT_NOFILE, &lim, NULL), 0);
}

/* No descriptor below this is free. */
static int lowest_free(void)
{
    char path[64];
    int fd = 0;
    do
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)svc.pid, fd++);
    while (access(path, F_OK) == 0 || readlink(path, (char[1]){0}, 1) > 0);
    return fd - 1;
}

static void without_a_descriptor_clients_wait_and_nothing_spins(void **state)
{
    (void)state;
    enum { WAITING = 5 };
    client c[WAITING], healthy;
    /* Twice: with a connection of whose end the service could take advantage, and with none. */
    start_with(NULL, NULL);
    for (int k = 0; k < 2; k++) {
        if (k == 0) {
            client_open(&healthy, &svc);
            expect_healthy(&healthy, 1);
        }
        double turns = metric(&svc, "service_loop_turns_total");
        int before = service_own_fds(&svc);
        limit_files(lowest_free());
        for (int i = 0; i < WAITING; i++) {
            client_open(&c[i], &svc);
            client_text(&c[i], "GET /health" HOST "\r\n");
        }
        if (k == 0)
            expect_healthy(&healthy, 50);
        sleep_ms(1000);
        assert_int_equal(service_fds(&svc), before);
        if (k == 0)
            assert_true(metric_over(&healthy, "service_accept_errors_total") >= 1);
        limit_files(FILES);
        for (int i = 0; i < WAITING; i++) {
            client_read(&c[i], &a, false);
            assert_string_equal(a.body, "ok");
            client_close(&c[i]);
        }
        if (k == 0)
            client_close(&healthy);
        await_metric(&svc, "service_connections", 1);
        expect_few_turns(turns, metric(&svc, "service_loop_turns_total"));
    }
}

/* One after the other, while the read time-out is far away. */
static void the_end_of_a_connection_lets_the_next_one_in(void **state)
{
    (void)state;
    client c[ROOM], next;
    start_with(NULL, NULL);
    for (int i = 0; i < ROOM; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "GET /health" HOST "X: ");
    }
    for (int i = 0; i < ROOM; i++) {
        client_open(&next, &svc);
        client_text(&next, "GET /health" HOST "X: ");
        client_close(&c[i]);
        client_text(&next, "y\r\n\r\n");
        client_read(&next, &a, false);
        assert_string_equal(a.body, "ok");
        c[i] = next;
    }
    for (int i = 0; i < ROOM; i++)
        client_close(&c[i]);
    await_metric(&svc, "service_timeouts_total{kind=\"read\"}", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(idle_connections_make_room_for_others),
        BOTH(half_requests_hold_the_door_no_longer_than_the_read_timeout),
        BOTH(without_a_descriptor_clients_wait_and_nothing_spins),
        BOTH(the_end_of_a_connection_lets_the_next_one_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
