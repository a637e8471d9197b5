/* test_service_load.c - the example service with many clients at once: a thousand connections held,
 * work that runs side by side, and what a request costs in allocations.
 */
#define _GNU_SOURCE

#include "test_service.h"

#define HELD 1024

static service svc;
static const char *program;
static client clients[HELD];
static answer a;

static int start(void **state)
{
    struct rlimit lim;
    program = *state;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

static void start_with(const char *a1, const char *a2)
{
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", a1, a2, NULL};
    service_start(&svc, program, settings);
}

static void open_clients(int n)
{
    for (int i = 0; i < n; i++)
        client_open(&clients[i], &svc);
}

static void close_clients(int n)
{
    for (int i = 0; i < n; i++)
        client_close(&clients[i]);
}

/* One request on each connection, all sent before the first answer is read. */
static void round_of_requests(int n, int round)
{
    char text[96];
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "POST /process?id=r%d-%d" HOST "\r\n", round, i);
        client_text(&clients[i], text);
    }
    for (int i = 0; i < n; i++) {
        client_read(&clients[i], &a, false);
        snprintf(text, sizeof text, "r%d-%d", round, i);
        if (a.status != 200 || strcmp(a.body, text) != 0)
            fail_msg("connection %d, round %d: %d \"%s\"", i, round, a.status, a.body);
    }
}

static void two_workers_hold_1024_connections(void **state)
{
    (void)state;
    start_with("MAX_WORKERS=2", "WORK_MS=10");
    open_clients(HELD);
    round_of_requests(HELD, 1);
    assert_true(metric(&svc, "service_connections") >= HELD);
    round_of_requests(HELD, 2); /* on the same connections */
    assert_true(metric(&svc, "service_requests_total{code=\"200\"}") >= 2 * HELD);
    close_clients(HELD);
}

static void one_worker_holds_1024_requests_at_once(void **state)
{
    (void)state;
    char text[96];
    start_with("MAX_WORKERS=1", "WORK_MS=1500");
    open_clients(HELD);
    for (int i = 0; i < HELD; i++) {
        snprintf(text, sizeof text, "POST /process?id=%d" HOST "\r\n", i);
        client_text(&clients[i], text);
    }
    double most = 0, end = now_s() + 1.2;
    while (most < HELD + 1 && now_s() < end) {
        double n = metric(&svc, "service_requests_in_flight");
        most = n > most ? n : most;
    }
    for (int i = 0; i < HELD; i++) {
        client_read(&clients[i], &a, false);
        assert_int_equal(a.status, 200);
    }
    assert_true(most > HELD);
    close_clients(HELD);
}

/* 100 x 100 ms one after the other would be 10 s. */
static void work_runs_side_by_side_and_is_really_waited_for(void **state)
{
    (void)state;
    start_with("MAX_WORKERS=2", "WORK_MS=100");
    open_clients(100);
    double begin = now_s();
    round_of_requests(100, 1);
    double took = now_s() - begin;
    if (took < 0.1 || took > 2)
        fail_msg("took %.3f s", took);
    close_clients(100);
}

/* What is in the cache takes as long: the work is simulated for hits and misses alike. */
static void a_hit_waits_as_long_as_a_miss(void **state)
{
    (void)state;
    start_with("MAX_WORKERS=1", "WORK_MS=50");
    open_clients(1);
    for (int i = 0; i < 3; i++) {
        double begin = now_s();
        ask(&clients[0], &a, "POST /process?id=same");
        assert_int_equal(a.status, 200);
        if (now_s() - begin < 0.05)
            fail_msg("request %d took %.4f s", i, now_s() - begin);
    }
    close_clients(1);
}

static void without_work_there_is_no_wait(void **state)
{
    (void)state;
    start_with("MAX_WORKERS=1", "WORK_MS=0");
    open_clients(1);
    double best = 1;
    for (int i = 0; i < 200; i++) {
        double begin = now_s();
        ask(&clients[0], &a, "POST /process?id=quick");
        assert_int_equal(a.status, 200);
        best = now_s() - begin < best ? now_s() - begin : best;
    }
    assert_true(best < 0.005);
    close_clients(1);
}

/* 256 connections fall on two workers evenly, give or take 8: 96 is four times that away. */
static void both_workers_get_their_share(void **state)
{
    (void)state;
    start_with("MAX_WORKERS=2", "WORK_MS=0");
    open_clients(256);
    round_of_requests(256, 1); /* so all of them are accepted */
    double first = metric(&svc, "service_worker_connections{worker=\"0\"}");
    double second = metric(&svc, "service_worker_connections{worker=\"1\"}");
    if (first < 96 || second < 96)
        fail_msg("%.0f and %.0f connections", first, second);
    close_clients(256);
}

/* ---- the cache's bound ---- */

/* 1000 entries do not share out evenly among 16 shards, nor among 15; 1009 is a prime. */
static void after_never_holds_more_than_cache_size(void **state)
{
    (void)state;
    static const int sizes[] = {1, 63, 130, 1000, 1009, 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        enum { CLIENTS = 64, ROUNDS = 80 };
        char size[32];
        snprintf(size, sizeof size, "CACHE_SIZE=%d", sizes[i]);
        start_with("WORK_MS=0", size);
        open_clients(CLIENTS);
        for (int k = 0; k < ROUNDS; k++)
            round_of_requests(CLIENTS, k);
        close_clients(CLIENTS);
        /* five times as many ids as entries: every shard is full */
        assert_int_equal((int)metric(&svc, "memkit_lru_entries{cache=\"ids\",id=\"0\"}"), sizes[i]);
        assert_int_equal(service_stop(&svc), 0);
    }
}

/* ---- allocations ---- */

static void start_hooked(void)
{
    static char preload[4200];
    if (SANITIZED)
        skip(); /* the sanitizer's malloc is not ours to hook */
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s/libmemkit-prof.so.0", build_dir());
    if (access(strchr(preload, '=') + 1, R_OK) != 0)
        fail_msg("no %s", strchr(preload, '=') + 1);
    start_with("WORK_MS=1", preload);
    if (metric(&svc, "memkit_malloc_hooked") != 1)
        fail_msg("malloc is not hooked");
}

static double live_allocations(void)
{
    return metric(&svc, "memkit_mallocs_total") - metric(&svc, "memkit_frees_total");
}

/* The value of an id may grow, and does in `before`; how many blocks there are may not. */
static void the_same_ids_again_leave_nothing_behind(void **state)
{
    (void)state;
    enum { CLIENTS = 16, ROUNDS = 100 };
    double live[2];
    start_hooked();
    open_clients(CLIENTS);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < ROUNDS * CLIENTS; i++)
            client_text(&clients[i % CLIENTS], "POST /process?id=1" HOST "\r\n");
        for (int i = 0; i < ROUNDS * CLIENTS; i++) {
            client_read(&clients[i % CLIENTS], &a, false);
            assert_int_equal(a.status, 200);
        }
        await_metric(&svc, "service_requests_in_flight", 1); /* itself */
        live[k] = live_allocations();
    }
    close_clients(CLIENTS);
    if (live[1] - live[0] > ROUNDS * CLIENTS / 20)
        fail_msg("%.0f blocks, and %d requests later %.0f", live[0], ROUNDS * CLIENTS, live[1]);
}

/* Of ids of a little over id_len bytes, all new or always the same few. */
static double allocations_a_request(size_t id_len, bool fresh)
{
    enum { CLIENTS = 16, ROUNDS = 100 }; /* more ids a round than the cache holds */
    static char text[8192];
    memset(text, 0, sizeof text);
    double read_alone = 0, before = 0, after = 0;
    open_clients(CLIENTS);
    for (int round = 0; round < 4; round++) {
        /* rounds 0 and 1 warm up (and fill the cache), 2 is the cost of a read of the metrics */
        before = metric(&svc, "memkit_mallocs_total");
        for (int k = 0; round != 2 && k < ROUNDS; k++) {
            for (int i = 0; i < CLIENTS; i++) {
                int at = sprintf(text, "POST /process?id=%d-%d-%d-", fresh ? round : 0,
                                 fresh ? k : 0, i);
                memset(text + at, 'x', id_len);
                strcpy(text + at + id_len, HOST "\r\n");
                client_text(&clients[i], text);
            }
            for (int i = 0; i < CLIENTS; i++)
                client_read(&clients[i], &a, false);
        }
        after = metric(&svc, "memkit_mallocs_total");
        if (round == 2)
            read_alone = after - before;
    }
    close_clients(CLIENTS);
    return (after - before - read_alone) / (CLIENTS * ROUNDS);
}

/* Four are libmicrohttpd's: the response, and a header field with its name and value. `before` adds
 * the object, the id and the answer, and then the entry, its key and its value, or, for an id that
 * it knows, the longer value. */
static void a_request_costs_four_allocations_after_and_eight_or_ten_before(void **state)
{
    (void)state;
    start_hooked();
    static const struct {
        size_t id_len;
        bool fresh;
        double before, after;
    } table[] = {{16, true, 10, 4}, {1024, true, 10, 4}, {4096, true, 10, 4}, {16, false, 8, 4}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        double n = allocations_a_request(table[i].id_len, table[i].fresh);
        bool after = strcmp(program, "service-after") == 0;
        double want = after ? table[i].after : table[i].before;
        print_message("%s, %s ids of %zu bytes: %.3f allocations a request\n", program,
                      table[i].fresh ? "new" : "the same", table[i].id_len, n);
        assert_true(n > want - 0.05 && n < want + 0.05);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(two_workers_hold_1024_connections),
        BOTH(one_worker_holds_1024_requests_at_once),
        BOTH(work_runs_side_by_side_and_is_really_waited_for),
        BOTH(a_hit_waits_as_long_as_a_miss),
        BOTH(without_work_there_is_no_wait),
        BOTH(both_workers_get_their_share),
        {"after_never_holds_more_than_cache_size", after_never_holds_more_than_cache_size, start,
         stop, (char *)(uintptr_t) "service-after"},
        BOTH(the_same_ids_again_leave_nothing_behind),
        BOTH(a_request_costs_four_allocations_after_and_eight_or_ten_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
