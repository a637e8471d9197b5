/* test_load_run.c - the load generator against a server that misbehaves on demand: the open loop's
 * accounting, errors, silence, and whom it connects to.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../examples/service/load.h"
#include "../examples/service/load_http.h"

#define MS 1000000ull

/* ---- a server that misbehaves on demand ---- */

typedef struct {
    unsigned every;      /* each n-th request gets `instead`; 0: none */
    const char *instead; /* "" says nothing at all, NULL closes */
    const char *answer;
    size_t big;        /* body bytes of an answer made up here */
    unsigned stall_at; /* before this request ... */
    unsigned stall_ms; /* ... the whole server stands still */
    unsigned each_ms;  /* takes so long for every request, one after the other */
    unsigned lag_ms;   /* answers so much later, but keeps up */
    bool close_after;  /* every answer */
    /* private */
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint requests;
    struct {
        int fd;
        struct timespec due;
    } held[80]; /* lag_ms: a ring, in order */
    unsigned held_first, held_end;
    char first[64][64]; /* the first requests' ids */
} server;

enum { CONNS = 80 };

static void send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        p += k;
        n -= (size_t)k;
    }
}

static void send_big(int fd, size_t n)
{
    static char block[65536];
    char head[80];
    int len = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n);
    send_all(fd, head, (size_t)len);
    for (; n > 0; n -= n < sizeof block ? n : sizeof block)
        send_all(fd, block, n < sizeof block ? n : sizeof block);
}

/* One request per read: that is how this generator sends them. true: close it. */
static bool serve_one(server *s, int fd)
{
    char req[4096];
    ssize_t n = recv(fd, req, sizeof req - 1, 0);
    if (n <= 0)
        return true;
    req[n] = '\0';
    unsigned k = atomic_fetch_add(&s->requests, 1) + 1;
    char *id = strstr(req, "POST /process?id=");
    if (id != req || strstr(req, "\r\n\r\n") != req + n - 4)
        return true;
    if (k <= 64)
        snprintf(s->first[k - 1], sizeof s->first[0], "%.*s", (int)strcspn(id + 17, " "), id + 17);
    if (s->stall_at != 0 && k == s->stall_at)
        usleep(s->stall_ms * 1000);
    if (s->each_ms != 0)
        usleep(s->each_ms * 1000);
    if (s->lag_ms != 0) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += s->lag_ms * 1000000l;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        s->held[s->held_end % CONNS].fd = fd;
        s->held[s->held_end++ % CONNS].due = t;
        return false;
    }
    const char *text = s->every != 0 && k % s->every == 0 ? s->instead : s->answer;
    if (text == NULL)
        return true;
    if (s->big > 0)
        send_big(fd, s->big);
    else
        send_all(fd, text, strlen(text));
    return s->close_after;
}

static void answer_held(server *s)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    for (; s->held_first < s->held_end; s->held_first++) {
        const struct timespec *due = &s->held[s->held_first % CONNS].due;
        if (due->tv_sec > t.tv_sec || (due->tv_sec == t.tv_sec && due->tv_nsec > t.tv_nsec))
            return;
        send_all(s->held[s->held_first % CONNS].fd, s->answer, strlen(s->answer));
    }
}

static void *serve(void *arg)
{
    server *s = arg;
    struct pollfd p[CONNS] = {{.fd = s->fd, .events = POLLIN}};
    nfds_t n = 1;
    while (!atomic_load(&s->stop)) {
        int ready = poll(p, n, s->held_first < s->held_end ? 1 : 20);
        answer_held(s);
        if (ready <= 0)
            continue;
        for (nfds_t i = n; i-- > 1;) {
            if (p[i].revents != 0 && serve_one(s, p[i].fd)) {
                close(p[i].fd);
                p[i] = p[--n];
            }
        }
        if (p[0].revents != 0 && n < CONNS) {
            p[n] = (struct pollfd){.fd = accept(s->fd, NULL, NULL), .events = POLLIN};
            n += p[n].fd >= 0;
        }
    }
    for (nfds_t i = 1; i < n; i++)
        close(p[i].fd);
    return NULL;
}

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static void server_start(server *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (s->answer == NULL)
        s->answer = OK;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 128), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

/* Runs the load against the server; the caller frees the result. */
static load_result *run(server *s, load_opts o)
{
    static load_result r;
    char target[40];
    server_start(s);
    snprintf(target, sizeof target, "127.0.0.1:%u", s->port);
    o.target = target;
    int rc = load_run(&o, &r);
    server_stop(s);
    if (rc != 0)
        fail_msg("%s", r.error);
    assert_int_equal(r.due, r.sent + r.unsent);
    assert_int_equal(r.sent, r.answered + load_errors(&r) + r.unanswered);
    return &r;
}

static double ms(uint64_t ns)
{
    return (double)ns / (double)MS;
}

/* ---- the open loop ---- */

static void open_loop_sends_and_counts_all(void **state)
{
    (void)state;
    server s = {0};
    load_opts o = {
        .rate = 2000, .seconds = 0.5, .connections = 8, .ids = 1000, .id_bytes = 32, .seed = 5};
    load_result *r = run(&s, o);
    assert_int_equal(r->due, 1000);
    assert_int_equal(r->answered, 1000);
    assert_int_equal(s.requests, 1000);
    assert_int_equal(r->body_bytes, 2000);
    assert_int_equal(r->latency.count, 1000);
    assert_int_equal(r->lower_bounds, 0);
    assert_int_equal(load_errors(r) + load_lost(r) + r->reconnects, 0);
    assert_true(r->rate_reached > 1900 && r->rate_reached <= 2000.001);
    uint64_t answers = 0;
    for (size_t i = 0; i < r->seconds; i++)
        answers += r->second[i].answered;
    assert_int_equal(answers, 1000);
    load_result_free(r);
}

static void requests_carry_the_ids_of_the_seed_in_order(void **state)
{
    (void)state;
    server s = {0};
    load_opts o = {.rate = 1000,
                   .seconds = 0.1,
                   .connections = 1,
                   .ids_kind = LOAD_ZIPF,
                   .ids = 1000,
                   .id_bytes = 40,
                   .seed = 9};
    load_result *r = run(&s, o);
    assert_int_equal(r->answered, 100);
    load_result_free(r);
    load_ids ids;
    assert_int_equal(load_ids_init(&ids, LOAD_ZIPF, 1000, 40, 0.99, 9), 0);
    for (int i = 0; i < 64; i++) {
        char want[41] = "";
        load_ids_write(&ids, load_ids_next(&ids), want);
        assert_string_equal(s.first[i], want);
    }
}

/* The whole point: a server that stands still for 300 ms delays some 300 requests at 1,000 a
 * second, though only one connection's request was under way. Measured from the sending one would
 * see 300 ms in 1 of 1000 and p90 below a millisecond. */
static void a_stall_shows_in_all_that_was_due_in_it(void **state)
{
    (void)state;
    server s = {.stall_at = 300, .stall_ms = 300};
    load_result *r = run(&s, (load_opts){.rate = 1000, .seconds = 1, .connections = 1});
    assert_int_equal(r->answered, 1000);
    double p50 = ms(load_hist_quantile(&r->latency, 0.5));
    double p75 = ms(load_hist_quantile(&r->latency, 0.75));
    double p90 = ms(load_hist_quantile(&r->latency, 0.9));
    double max = ms(r->latency.max);
    /* Waits fall from 300 ms to 0 over the 300 requests: a tenth of all waited 200 ms or more. */
    if (p50 > 50 || p75 < 20 || p90 < 150 || max < 290 || max > 600)
        fail_msg("p50 %g p75 %g p90 %g max %g ms", p50, p75, p90, max);
    assert_int_equal(load_lost(r), 0);
    /* It was not the generator that was late. */
    assert_true(ms(load_hist_quantile(&r->lateness, 0.9)) < 50);
    load_result_free(r);
}

static void what_could_not_be_sent_is_counted_with_its_wait(void **state)
{
    (void)state;
    /* 10 requests are answered; before the 11th the server stands still beyond the end. */
    server s = {.stall_at = 11, .stall_ms = 1100};
    load_result *r =
        run(&s, (load_opts){.rate = 1000, .seconds = 0.5, .connections = 2, .grace_s = 0.2});
    assert_int_equal(r->due, 500);
    assert_int_equal(r->answered, 10);
    assert_int_equal(r->unanswered, 2);
    assert_int_equal(r->unsent, 488);
    assert_int_equal(r->lower_bounds, 490);
    assert_int_equal(r->latency.count, 500);
    assert_true(r->drain_s > 0.15 && r->drain_s < 0.5); /* the grace is a bound */
    bool lb;
    /* Half of them waited from about 0.25 s to the end of the grace at 0.7 s. */
    assert_true(ms(load_latency(r, 0.5, &lb)) > 300);
    assert_true(lb);
    load_result_free(r);
}

static void a_short_backlog_at_the_end_is_not_lost(void **state)
{
    (void)state;
    server s = {.stall_at = 450, .stall_ms = 150}; /* 0.45 s to 0.6 s of a load of 0.5 s */
    load_result *r = run(&s, (load_opts){.rate = 1000, .seconds = 0.5, .connections = 2});
    assert_int_equal(r->answered, 500);
    assert_int_equal(load_lost(r), 0);
    assert_true(r->drain_s > 0.05);
    assert_true(r->rate_reached < 950); /* without those of the backlog */
    assert_true(r->late >= 40);
    load_result_free(r);
}

/* It takes 60 ms and keeps up; the last answers come after the end, as they must. */
static void a_short_run_reaches_its_rate_where_the_service_keeps_up(void **state)
{
    (void)state;
    server s = {.lag_ms = 60};
    load_result *r = run(&s, (load_opts){.rate = 500, .seconds = 0.3, .connections = 64});
    assert_int_equal(r->answered, 150);
    assert_true(r->elapsed_s > 0.35);
    if (r->rate_reached < 470 || r->rate_reached > 500.001) /* 150 / 0.36 s = 417 */
        fail_msg("%g a second, %u late", r->rate_reached, (unsigned)r->late);
    assert_false(load_backlog(r));
    load_result_free(r);
}

/* 250 a second at most of 500 wanted; 64 connections and the grace hide it from the other counts.
 */
static void a_queue_that_grows_does_not_reach_its_rate(void **state)
{
    (void)state;
    server s = {.each_ms = 4};
    load_result *r =
        run(&s, (load_opts){.rate = 500, .seconds = 0.2, .connections = 64, .grace_s = 5});
    assert_int_equal(r->answered, 100);
    assert_int_equal(load_lost(r), 0);
    if (r->rate_reached > 400 || r->late < 20 || !load_backlog(r))
        fail_msg("%g a second, %u late", r->rate_reached, (unsigned)r->late);
    load_result_free(r);
}

static void service_load_has_no_latency_to_tell_where_nothing_was_answered(void **state)
{
    (void)state;
    const char *b = getenv("MEMKIT_BUILD");
    char command[4300], out[8192];
    for (int json = 0; json < 2; json++) {
        server s = {.answer = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"};
        server_start(&s);
        int n = snprintf(command, sizeof command, "'%s/service-load' -r 100 -d 0.2 -c 2%s :%u",
                         b != NULL ? b : "build/bin", json ? " --json" : "", s.port);
        assert_true(n > 0 && (size_t)n < sizeof command);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        size_t len = fread(out, 1, sizeof out - 1, f);
        int status = pclose(f);
        server_stop(&s);
        out[len] = '\0';
        assert_int_equal(WEXITSTATUS(status), 1);
        const char *p50 = strstr(out, json ? "\"latency_p50_ms\": null," : "latency p50");
        const char *max = strstr(out, json ? "\"latency_max_ms\": null," : "latency max");
        if (p50 == NULL || max == NULL ||
            (!json && strncmp(p50 + 11 + strspn(p50 + 11, " "), "n/a\n", 4) != 0))
            fail_msg("%s", out);
    }
}

static void errors_are_counted_by_kind_and_not_as_latency(void **state)
{
    (void)state;
    static const struct {
        const char *instead;
        size_t offset;
    } kind[] = {
        {"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", offsetof(load_result, bad_status)},
        {"what?\r\n", offsetof(load_result, malformed)},
        {OK "more", offsetof(load_result, malformed)},
        {NULL, offsetof(load_result, closed)},
    };
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        server s = {.every = 10, .instead = kind[i].instead};
        load_result *r = run(&s, (load_opts){.rate = 1000, .seconds = 0.2, .connections = 4});
        uint64_t counted;
        memcpy(&counted, (char *)r + kind[i].offset, sizeof counted);
        if (counted != 20 || load_errors(r) != 20 || r->answered != 180)
            fail_msg("kind %zu: %llu counted, %llu errors, %llu answered", i,
                     (unsigned long long)counted, (unsigned long long)load_errors(r),
                     (unsigned long long)r->answered);
        assert_int_equal(r->latency.count, 180);
        assert_int_equal(r->reconnects, i == 0 ? 0 : 20);
        load_result_free(r);
    }
}

static void silence_times_out_and_counts_as_a_lower_bound(void **state)
{
    (void)state;
    server s = {.every = 50, .instead = ""};
    load_result *r =
        run(&s, (load_opts){.rate = 500, .seconds = 0.5, .connections = 8, .timeout_s = 0.2});
    assert_int_equal(r->timed_out, 5);
    assert_int_equal(r->answered, 245);
    assert_int_equal(r->lower_bounds, 5);
    assert_true(ms(r->latency.max) >= 200 && ms(r->latency.max) < 450);
    load_result_free(r);
}

static void closed_connections_come_back(void **state)
{
    (void)state;
    server s = {.close_after = true,
                .answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"};
    load_result *r = run(&s, (load_opts){.rate = 500, .seconds = 0.4, .connections = 4});
    assert_int_equal(r->answered, 200);
    assert_true(r->reconnects >= 200);
    assert_int_equal(load_errors(r), 0);
    load_result_free(r);
    server e = {.close_after = true, .answer = "HTTP/1.1 200 OK\r\n\r\nuntil the end"};
    r = run(&e, (load_opts){.rate = 500, .seconds = 0.4, .connections = 4});
    assert_int_equal(r->answered, 200);
    assert_int_equal(r->body_bytes, 200 * strlen("until the end"));
    load_result_free(r);
}

static void large_bodies_are_read_to_their_end(void **state)
{
    (void)state;
    server s = {.big = 700001};
    load_result *r = run(&s, (load_opts){.rate = 200, .seconds = 0.4, .connections = 4});
    assert_int_equal(r->answered, 80);
    assert_int_equal(r->body_bytes, 80 * 700001ull);
    load_result_free(r);
}

static void closed_loop_goes_as_fast_as_answers_come(void **state)
{
    (void)state;
    server s = {0};
    load_result *r = run(&s, (load_opts){.rate = 0, .seconds = 0.3, .connections = 16});
    assert_int_equal(r->answered, s.requests);
    assert_int_equal(r->unsent, 0);
    assert_true(r->answered > 1000);
    assert_true(fabs(r->rate_reached - (double)r->answered / r->elapsed_s) < 1);
    load_result_free(r);
}

static void only_loopback_is_ever_connected_to(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        int err;
    } refused[] = {
        {"8.8.8.8:80", EACCES},     {"0.0.0.0:80", EACCES},
        {"example.org:80", EACCES}, {"[2001:db8::1]:80", EACCES},
        {"[::]:80", EACCES},        {"127.0.0.1.example.org:80", EACCES},
        {"127.0.0.1", EINVAL},      {"127.0.0.1:", EINVAL},
        {"127.0.0.1:0", EINVAL},    {"127.0.0.1:65536", EINVAL},
        {"127.0.0.1:8o", EINVAL},   {"127.0.0.1:-1", EINVAL},
        {"[::1:80", EACCES},        {NULL, EINVAL},
    };
    static load_result r;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        errno = 0;
        int rc = load_run(&(load_opts){.target = refused[i].target, .rate = 1}, &r);
        if (rc != -1 || errno != refused[i].err || r.error[0] == '\0')
            fail_msg("%s: %d, errno %d", refused[i].target, rc, errno);
        load_result_free(&r);
    }
    struct sockaddr_storage a;
    unsigned len;
    assert_int_equal(load_parse_target("127.9.9.9:80", &a, &len), 0);
    assert_int_equal(load_parse_target("[::1]:80", &a, &len), 0);
    assert_int_equal(len, sizeof(struct sockaddr_in6));
    assert_int_equal(load_parse_target("localhost:80", &a, &len), 0);
    assert_int_equal(load_parse_target(":80", &a, &len), 0);
    assert_int_equal(((struct sockaddr_in *)&a)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
}

static void nobody_there_is_an_error_at_once(void **state)
{
    (void)state;
    static load_result r;
    server s = {0};
    char target[40];
    server_start(&s);
    snprintf(target, sizeof target, "127.0.0.1:%u", s.port);
    server_stop(&s);
    assert_int_equal(load_run(&(load_opts){.target = target, .rate = 10, .connections = 2}, &r),
                     -1);
    assert_int_equal(errno, ECONNREFUSED);
    load_result_free(&r);
}

static volatile sig_atomic_t stop_now;

static void stop_at_first_tick(void *arg, const load_tick *t)
{
    unsigned *ticks = arg;
    ++*ticks;
    if (t->answered > 0)
        stop_now = 1;
}

static void stop_ends_the_run_early(void **state)
{
    (void)state;
    server s = {0};
    unsigned ticks = 0;
    stop_now = 0;
    load_result *r = run(&s, (load_opts){.rate = 200,
                                         .seconds = 30,
                                         .connections = 2,
                                         .stop = &stop_now,
                                         .on_tick = stop_at_first_tick,
                                         .arg = &ticks});
    assert_true(r->interrupted);
    assert_true(ticks >= 1 && r->elapsed_s < 3);
    assert_true(r->due >= 200 && r->due < 600); /* what would have been due later is not lost */
    load_result_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_loop_sends_and_counts_all),
        cmocka_unit_test(a_short_run_reaches_its_rate_where_the_service_keeps_up),
        cmocka_unit_test(a_queue_that_grows_does_not_reach_its_rate),
        cmocka_unit_test(service_load_has_no_latency_to_tell_where_nothing_was_answered),
        cmocka_unit_test(requests_carry_the_ids_of_the_seed_in_order),
        cmocka_unit_test(a_stall_shows_in_all_that_was_due_in_it),
        cmocka_unit_test(what_could_not_be_sent_is_counted_with_its_wait),
        cmocka_unit_test(a_short_backlog_at_the_end_is_not_lost),
        cmocka_unit_test(errors_are_counted_by_kind_and_not_as_latency),
        cmocka_unit_test(silence_times_out_and_counts_as_a_lower_bound),
        cmocka_unit_test(closed_connections_come_back),
        cmocka_unit_test(large_bodies_are_read_to_their_end),
        cmocka_unit_test(closed_loop_goes_as_fast_as_answers_come),
        cmocka_unit_test(only_loopback_is_ever_connected_to),
        cmocka_unit_test(nobody_there_is_an_error_at_once),
        cmocka_unit_test(stop_ends_the_run_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
