/* test_service_config.c - how the example service starts and ends: settings, addresses, what it
 * logs, signals and the drain. What it answers is test_service.c's.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define LOCAL "LISTEN_ADDR=127.0.0.1:0"

static const char *program;
static service svc;
static answer a;

static int start(void **state)
{
    program = *state;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    service_files = 0;
    if (svc.pid > 0) { /* a test that failed on its way */
        kill(svc.pid, SIGKILL);
        waitpid(svc.pid, NULL, 0);
        close(svc.err);
        svc.pid = 0;
    }
    return 0;
}

static void start_with(const char *setting, const char *another)
{
    const char *settings[] = {LOCAL, "MAX_WORKERS=2", setting, another, NULL};
    service_start(&svc, program, settings);
}

/* ---- settings ---- */

static void a_value_that_is_no_good_is_refused_and_explained(void **state)
{
    (void)state;
    static const struct {
        const char *setting, *explained;
    } table[] = {
        {"MAX_WORKERS=0", "from 1 to 256"},
        {"MAX_WORKERS=257", "from 1 to 256"},
        {"MAX_WORKERS=-1", "from 1 to 256"},
        {"MAX_WORKERS=+2", "from 1 to 256"},
        {"MAX_WORKERS= 2", "from 1 to 256"},
        {"MAX_WORKERS=2 ", "from 1 to 256"},
        {"MAX_WORKERS=0x2", "from 1 to 256"},
        {"MAX_WORKERS=2.0", "from 1 to 256"},
        {"MAX_WORKERS=", "from 1 to 256"},
        {"MAX_WORKERS=four", "from 1 to 256"},
        {"SAMPLE_RATE=-1", "from 0 to 1073741824"},
        {"SAMPLE_RATE=512k", "from 0 to 1073741824"},
        {"SAMPLE_RATE=", "from 0 to 1073741824"},
        {"SAMPLE_RATE=1073741825", "from 0 to 1073741824"},
        {"CACHE_SIZE=0", "from 1 to 10000000"},
        {"CACHE_SIZE=10000001", "from 1 to 10000000"},
        {"CACHE_SIZE=1k", "from 1 to 10000000"},
        {"CACHE_SIZE=18446744073709551617", "from 1 to 10000000"},
        {"WORK_MS=60001", "from 0 to 60000"},
        {"WORK_MS=ten", "from 0 to 60000"},
        {"WORK_MS=4294967306", "from 0 to 60000"},
        {"DRAIN_MS=27001", "from 0 to 27000"},
        {"READ_TIMEOUT_MS=0", "from 50 to 3600000"},
        {"READ_TIMEOUT_MS=5s", "from 50 to 3600000"},
        {"WRITE_TIMEOUT_MS=49", "from 50 to 3600000"},
        {"WRITE_TIMEOUT_MS=", "from 50 to 3600000"},
        {"DEBUG_TIMEOUT_MS=7200001", "from 50 to 7200000"},
        {"IDLE_TIMEOUT_MS=3600001", "from 50 to 3600000"},
        {"IDLE_TIMEOUT_MS=-1", "from 50 to 3600000"},
        {"LISTEN_ADDR=", "want"},
        {"LISTEN_ADDR=8080", "want"},
        {"LISTEN_ADDR=127.0.0.1", "want"},
        {"LISTEN_ADDR=127.0.0.1:", "port"},
        {"LISTEN_ADDR=127.0.0.1:65536", "port"},
        {"LISTEN_ADDR=127.0.0.1:http", "port"},
        {"LISTEN_ADDR=127.0.0.1:-1", "port"},
        {"LISTEN_ADDR=*:8080", "no address; want \":8080\""},
        {"LISTEN_ADDR=[*]:8080", "no address; want \":8080\""},
        {"LISTEN_ADDR=::1:8080", "brackets"},
        {"LISTEN_ADDR=[::1:8080", "brackets"},
        {"LISTEN_ADDR=[127.0.0.1]:8080", "no such address"},
        {"LISTEN_ADDR=[localhost]:8080", "no such address"},
        {"LISTEN_ADDR=256.256.256.256:8080", "no such address"},
        {"LISTEN_ADDR=no-such-host.invalid:8080", "no such address"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char name[32], value[128];
        const char *settings[] = {table[i].setting, NULL};
        assert_int_equal(sscanf(table[i].setting, "%31[^=]", name), 1);
        snprintf(value, sizeof value, "%s=\"%s\"", name, strchr(table[i].setting, '=') + 1);
        service_spawn(&svc, program, settings, NULL);
        int code = service_wait(&svc);
        if (code != 2 || strstr(svc.log, value) == NULL ||
            strstr(svc.log, table[i].explained) == NULL)
            fail_msg("%s: exit code %d: %s", table[i].setting, code, svc.log);
    }
}

static void the_ends_of_every_range_are_accepted(void **state)
{
    (void)state;
    static const char *const table[][2] = {{"MAX_WORKERS=1", "CACHE_SIZE=1"},
                                           {"MAX_WORKERS=256", "CACHE_SIZE=100000"},
                                           {"WORK_MS=0", "DRAIN_MS=0"},
                                           {"READ_TIMEOUT_MS=50", "IDLE_TIMEOUT_MS=3600000"},
                                           {"DEBUG_TIMEOUT_MS=50", "DEBUG_TIMEOUT_MS=7200000"},
                                           {"READ_TIMEOUT_MS=3600000", "IDLE_TIMEOUT_MS=50"},
                                           {"WRITE_TIMEOUT_MS=50", "WRITE_TIMEOUT_MS=3600000"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        client c;
        start_with(table[i][0], table[i][1]);
        client_open(&c, &svc);
        ask(&c, &a, "POST /process?id=1");
        assert_string_equal(a.body, "1");
        client_close(&c);
        assert_int_equal(service_stop(&svc), 0);
    }
    start_with("MAX_WORKERS=3", "WORK_MS=60000");
    assert_int_equal((int)metric(&svc, "service_workers"), 3);
    assert_int_equal(service_stop(&svc), 0);
}

static void help_says_how_and_another_argument_is_refused(void **state)
{
    (void)state;
    service_spawn(&svc, program, NULL, "--help");
    assert_int_equal(service_wait(&svc), 0);
    static const char *const names[] = {"LISTEN_ADDR",     "MAX_WORKERS",      "CACHE_SIZE",
                                        "WORK_MS",         "DRAIN_MS",         "READ_TIMEOUT_MS",
                                        "default 5000",    "WRITE_TIMEOUT_MS", "default 10000",
                                        "IDLE_TIMEOUT_MS", "default 15000",    "DEBUG_TIMEOUT_MS",
                                        "default 3660000"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(strstr(svc.log, names[i]));
    service_spawn(&svc, program, NULL, "--verbose");
    assert_int_equal(service_wait(&svc), 2);
    assert_non_null(strstr(svc.log, "--verbose"));
}

/* ---- addresses ---- */

static bool has_ipv6(void)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void expect_health(const struct sockaddr *addr, socklen_t len)
{
    client c;
    client_open_at(&c, addr, len);
    ask(&c, &a, "GET /health");
    assert_int_equal(a.status, 200);
    client_close(&c);
}

static void every_form_of_address_is_listened_on(void **state)
{
    (void)state;
    static const struct {
        const char *setting, *logged;
        bool four, six;
    } table[] = {{"LISTEN_ADDR=127.0.0.1:0", "listening on 127.0.0.1:", true, false},
                 {"LISTEN_ADDR=localhost:0", "listening on 127.0.0.1:", true, false},
                 {"LISTEN_ADDR=[::1]:0", "listening on [::1]:", false, true},
                 {"LISTEN_ADDR=:0", "listening on [::]:", true, true}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *settings[] = {table[i].setting, NULL};
        if (table[i].six && !has_ipv6()) {
            print_message("no IPv6 here: %s is not tried\n", table[i].setting);
            continue;
        }
        service_start(&svc, program, settings);
        assert_non_null(strstr(svc.log, table[i].logged));
        if (table[i].four) {
            struct sockaddr_in in = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)svc.port),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            expect_health((const struct sockaddr *)&in, sizeof in);
        }
        if (table[i].six) {
            struct sockaddr_in6 in = {.sin6_family = AF_INET6,
                                      .sin6_port = htons((uint16_t)svc.port),
                                      .sin6_addr = IN6ADDR_LOOPBACK_INIT};
            expect_health((const struct sockaddr *)&in, sizeof in);
        }
        assert_int_equal(service_stop(&svc), 0);
    }
}

static void an_address_that_cannot_be_had_ends_with_1(void **state)
{
    (void)state;
    service second;
    char taken[64];
    start_with(NULL, NULL);
    snprintf(taken, sizeof taken, "LISTEN_ADDR=127.0.0.1:%d", svc.port);
    const char *const tries[] = {taken, "LISTEN_ADDR=192.0.2.1:0"}; /* a documentation address */
    for (size_t i = 0; i < 2; i++) {
        const char *settings[] = {tries[i], NULL};
        service_spawn(&second, program, settings, NULL);
        int code = service_wait(&second);
        if (code != 1 || strstr(second.log, "cannot listen") == NULL ||
            strstr(second.log, strchr(tries[i], '=') + 1) == NULL)
            fail_msg("%s: exit code %d: %s", tries[i], code, second.log);
    }
    assert_int_equal(service_stop(&svc), 0);
}

/* ---- descriptors ---- */

static void many_workers_with_few_descriptors_still_share_them(void **state)
{
    (void)state;
    enum { CLIENTS = 200 };
    static client c[CLIENTS];
    service_files = 1024;
    start_with("MAX_WORKERS=16", "WORK_MS=0");
    service_files = 0;
    assert_non_null(strstr(svc.log, "16 workers, each with at most 36 connections"));
    assert_non_null(strstr(svc.log, "warning: 36 connections a worker are few"));
    for (int i = 0; i < CLIENTS; i++)
        client_open(&c[i], &svc);
    for (int i = 0; i < CLIENTS; i++)
        client_text(&c[i], "POST /process?id=few" HOST "\r\n");
    for (int i = 0; i < CLIENTS; i++) { /* all of them stay connected */
        client_read(&c[i], &a, false);
        assert_int_equal(a.status, 200);
    }
    for (int i = 0; i < CLIENTS; i++)
        client_close(&c[i]);
    assert_int_equal(service_stop(&svc), 0);
}

static void connections_a_worker_are_logged_and_none_is_refused(void **state)
{
    (void)state;
    service_files = 1024;
    start_with("MAX_WORKERS=2", NULL);
    assert_non_null(strstr(svc.log, "2 workers, each with at most 408 connections"));
    assert_null(strstr(svc.log, "are few"));
    assert_int_equal(service_stop(&svc), 0);

    const char *settings[] = {LOCAL, "MAX_WORKERS=200", NULL};
    service_spawn(&svc, program, settings, NULL);
    service_files = 0;
    assert_int_equal(service_wait(&svc), 1);
    assert_non_null(strstr(svc.log, "1024 open files (ulimit -n) are too few for MAX_WORKERS=200"));
}

/* ---- start and end ---- */

static void memory_is_logged_at_both_ends(void **state)
{
    (void)state;
    start_with(NULL, NULL);
    assert_int_equal(service_stop(&svc), 0);
    const char *first = strstr(svc.log, "memory at start"),
               *last = strstr(svc.log, "memory at end");
    assert_non_null(first);
    assert_non_null(last);
    double rss[2];
    assert_int_equal(sscanf(first, "memory at start rss %lf MiB", &rss[0]), 1);
    assert_int_equal(sscanf(last, "memory at end rss %lf MiB", &rss[1]), 1);
    assert_true(rss[0] > 0.5 && rss[1] > 0.5);
    /* aligned: the same column in both lines */
    assert_int_equal(strstr(first, "rss") - first, strstr(last, "rss") - last);
}

static void both_signals_drain_and_end_with_0(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        enum { CLIENTS = 20 };
        client c[CLIENTS], idle;
        char line[64], value[64];
        start_with("WORK_MS=300", NULL);
        client_open(&idle, &svc);
        for (int k = 0; k < CLIENTS; k++) {
            client_open(&c[k], &svc);
            snprintf(line, sizeof line, "POST /process?id=c%d" HOST "\r\n", k);
            client_text(&c[k], line);
        }
        for (int k = 0; metric(&svc, "service_requests_in_flight") < CLIENTS + 1; k++)
            if (k == 1000)
                fail_msg("the requests did not arrive");
        kill(svc.pid, signals[i]);
        for (int k = 0; k < CLIENTS; k++) {
            client_read(&c[k], &a, false);
            assert_int_equal(a.status, 200);
            snprintf(line, sizeof line, "c%d", k);
            assert_string_equal(a.body, line);
            assert_string_equal(field(&a, "Connection", value, sizeof value), "close");
            client_expect_end(&c[k]);
            client_close(&c[k]);
        }
        double end = now_s();
        assert_int_equal(service_wait(&svc), 0);
        assert_true(now_s() - end < 3); /* the idle connection is not waited for */
        client_close(&idle);
    }
}

static void while_it_drains_nobody_else_is_let_in(void **state)
{
    (void)state;
    client c;
    start_with("WORK_MS=1500", NULL);
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=last" HOST "\r\n");
    while (metric(&svc, "service_requests_in_flight") < 2)
        continue;
    kill(svc.pid, SIGTERM);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)svc.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int refused = 0;
    double end = now_s() + 1.2;
    while (!refused && now_s() < end) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        refused = connect(fd, (struct sockaddr *)&in, sizeof in) != 0 && errno == ECONNREFUSED;
        close(fd);
        sleep_ms(5);
    }
    assert_true(refused);
    client_read(&c, &a, false);
    assert_string_equal(a.body, "last");
    client_close(&c);
    assert_int_equal(service_wait(&svc), 0);
}

/* Stopped as it is, it accepts none of them before the signal is there too. */
static void expect_answers_to_who_has_connected(const char *work)
{
    enum { CLIENTS = 120 }; /* fewer than the shortest usual backlog */
    static client c[CLIENTS];
    const char *settings[] = {LOCAL, "MAX_WORKERS=1", work, NULL};
    char line[64];
    service_start(&svc, program, settings);
    int status;
    kill(svc.pid, SIGSTOP);
    assert_int_equal(waitpid(svc.pid, &status, WUNTRACED), svc.pid);
    for (int i = 0; i < CLIENTS; i++) {
        client_open(&c[i], &svc);
        snprintf(line, sizeof line, "POST /process?id=early%d" HOST "\r\n", i);
        client_text(&c[i], line);
    }
    kill(svc.pid, SIGTERM);
    kill(svc.pid, SIGCONT);
    for (int i = 0; i < CLIENTS; i++) {
        client_read(&c[i], &a, false);
        snprintf(line, sizeof line, "early%d", i);
        assert_string_equal(a.body, line);
        client_close(&c[i]);
    }
    assert_int_equal(service_wait(&svc), 0);
}

static void who_has_connected_before_the_signal_is_answered(void **state)
{
    (void)state;
    expect_answers_to_who_has_connected("WORK_MS=0"); /* accepted, answered and closed in one go */
    expect_answers_to_who_has_connected("WORK_MS=50");
}

static void a_second_signal_ends_it_at_once(void **state)
{
    (void)state;
    client c;
    start_with("WORK_MS=60000", NULL);
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=1" HOST "\r\n");
    while (metric(&svc, "service_requests_in_flight") < 2)
        continue;
    double begin = now_s();
    kill(svc.pid, SIGTERM);
    while (strstr(svc.log, "draining") == NULL)
        assert_true(service_log(&svc, WAIT_MS));
    kill(svc.pid, SIGINT);
    assert_int_equal(service_wait(&svc), 128 + SIGINT);
    assert_true(now_s() - begin < 3);
    client_close(&c);
}

static void work_that_outlasts_the_drain_is_turned_away_with_503(void **state)
{
    (void)state;
    client c, half;
    double begin = now_s();
    start_with("WORK_MS=60000", "DRAIN_MS=300");
    client_open(&c, &svc);
    client_text(&c, "POST /process?id=1" HOST "\r\n");
    client_open(&half, &svc);
    client_text(&half, "POST /process?id=2" HOST "X: never en");
    while (metric(&svc, "service_requests_in_flight") < 3)
        continue;
    kill(svc.pid, SIGTERM);
    client_read(&c, &a, false);
    assert_int_equal(a.status, 503);
    client_expect_end(&c);
    assert_int_equal(service_wait(&svc), 0);
    assert_true(now_s() - begin < 8);
    client_close(&c);
    client_close(&half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_value_that_is_no_good_is_refused_and_explained),
        BOTH(the_ends_of_every_range_are_accepted),
        BOTH(help_says_how_and_another_argument_is_refused),
        BOTH(every_form_of_address_is_listened_on),
        BOTH(an_address_that_cannot_be_had_ends_with_1),
        BOTH(many_workers_with_few_descriptors_still_share_them),
        BOTH(connections_a_worker_are_logged_and_none_is_refused),
        BOTH(memory_is_logged_at_both_ends),
        BOTH(both_signals_drain_and_end_with_0),
        BOTH(while_it_drains_nobody_else_is_let_in),
        BOTH(who_has_connected_before_the_signal_is_answered),
        BOTH(a_second_signal_ends_it_at_once),
        BOTH(work_that_outlasts_the_drain_is_turned_away_with_503),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
