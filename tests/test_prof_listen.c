/* test_prof_listen.c - the listener over real sockets: a program of our own that serves (this one,
 * run as `serve`), and clients that are polite, hostile, or gone.
 *
 * What the served program does on a signal: SIGUSR1 fork (the child serves anew), SIGUSR2 exec
 * `sleep`, SIGTERM return from main.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "test_service.h"

#include <memkit/debug.h>
#include <memkit/prof.h>

#include "core/attach.h"
#include "listen/listen.h"
#include "prof/debug.h"

#define LOCAL " HTTP/1.1\r\nHost: localhost\r\n\r\n"

static service svc;
static answer a;

/* ---- the program that serves ---- */

static void *volatile mine; /* something to count */

static void in_fork(void)
{
    if (memkit_debug_serve("127.0.0.1:0") != 0) /* it says where */
        _exit(9);
    prctl(PR_SET_PDEATHSIG, 0);
    for (;;)
        pause();
}

static int serve_main(void)
{
    const char *addr = getenv("LISTEN_ADDR");
    mine = malloc(100);
    sigset_t set;
    int sig;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGCHLD, SIG_IGN);
    if (getenv("FROM_ENV") != NULL) {
        fprintf(stderr, "serve_from_env: %d\n", memkit__serve_from_env(addr));
    } else {
        (void)memkit_prof_start(NULL);
        if (memkit_debug_serve(addr) != 0) {
            fprintf(stderr, "serve: %s\n", strerror(errno));
            return 3;
        }
        fprintf(stderr, "again: %d\n", memkit_debug_serve(":0") == -1 && errno == EBUSY);
    }
    fprintf(stderr, "running\n");
    while (sigwait(&set, &sig) == 0 && sig != SIGTERM) {
        fprintf(stderr, "got %d\n", sig);
        pid_t pid = fork();
        if (pid == 0 && sig == SIGUSR2)
            execlp("sleep", "sleep", "30", (char *)NULL);
        if (pid == 0)
            in_fork();
        fprintf(stderr, "child %d\n", (int)pid);
    }
    return 0;
}

/* ---- helpers ---- */

/* The number after the last `name` in what it said; waits for it. */
static int said_number(service *s, const char *name)
{
    for (;;) {
        char *at = NULL;
        for (char *next = s->log; (next = strstr(next, name)) != NULL; next++)
            at = next;
        if (at != NULL && strchr(at, '\n') != NULL)
            return atoi(at + strlen(name));
        if (!service_log(s, WAIT_MS))
            fail_msg("no \"%s\" in: %s", name, s->log);
    }
}

static void start_at(const char *listen, const char *setting, const char *another)
{
    const char *settings[] = {listen, setting, another, NULL};
    service_spawn(&svc, "tests/test_prof_listen", settings, "serve");
    said_number(&svc, "running");
}

static void start(void)
{
    start_at("LISTEN_ADDR=127.0.0.1:0", NULL, NULL);
    svc.port = said_number(&svc, "http://127.0.0.1:");
    assert_in_range(svc.port, 1, 65535);
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

/* One request on a connection of its own. */
static void get(const char *line)
{
    client c;
    client_open(&c, &svc);
    client_text(&c, line);
    client_text(&c, LOCAL);
    client_read(&c, &a, strncmp(line, "HEAD", 4) == 0);
    client_close(&c);
}

static void get_is(const char *line, int status)
{
    get(line);
    if (a.status != status)
        fail_msg("%s: %d and not %d: %s", line, a.status, status, a.body);
}

static double figure(const char *name)
{
    get_is("GET /metrics", 200);
    for (const char *at = a.body; (at = strstr(at, name)) != NULL; at++)
        if ((at == a.body || at[-1] == '\n') && at[strlen(name)] == ' ')
            return strtod(at + strlen(name), NULL);
    fail_msg("no %s", name);
    return 0;
}

static const char *value_of(const char *name)
{
    static char value[256];
    return field(&a, name, value, sizeof value);
}

/* ---- answers ---- */

static void all_paths_are_answered_with_type_and_name(void **state)
{
    (void)state;
    start();
    get_is("GET /debug/pprof/", 200);
    assert_string_equal(value_of("Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(a.body, "test_prof_listen"));
    assert_string_equal(value_of("X-Content-Type-Options"), "nosniff");
    assert_null(value_of("Access-Control-Allow-Origin"));
    get_is("GET /debug/pprof", 200);
    get_is("GET /debug/pprof/cmdline", 200);
    expect_body(&a, a.body, strlen(a.body) + 1 + strlen("serve")); /* a NUL is in between */
    get_is("GET /metrics", 200);
    assert_string_equal(value_of("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    get_is("GET /debug/pprof/mutex", 404);
    get_is("GET /debug/pprof/heap?seconds=x", 400);
    assert_non_null(strstr(a.body, "1 to 3600"));
    assert_string_equal(value_of("X-Go-Pprof"), "1");
    get_is("GET /debug/%70prof/cmdline", 200);
    get_is("GET http://localhost/debug/pprof/cmdline", 200);
    get_is("HEAD /metrics", 200);
    get_is("DELETE /metrics", 405);
    assert_string_equal(value_of("Allow"), "GET, HEAD");
    get_is("POST /debug/pprof/heap", 405);
    if (SANITIZED) {
        get_is("GET /debug/pprof/heap", 503);
        return;
    }
    get_is("GET /debug/pprof/heap", 200);
    assert_string_equal(value_of("Content-Type"), "application/octet-stream");
    assert_string_equal(value_of("Content-Disposition"), "attachment; filename=\"heap\"");
    assert_memory_equal(a.body, "\x1f\x8b", 2);
    get_is("GET /debug/pprof/allocs?debug=1", 200);
    assert_string_equal(value_of("Content-Type"), "text/plain; charset=utf-8");
    get_is("GET /debug/memkit/flame.svg?type=alloc_space", 200);
    assert_string_equal(value_of("Content-Type"), "image/svg+xml");
    assert_non_null(strstr(a.body, "</svg>"));
}

static void symbol_takes_a_body(void **state)
{
    (void)state;
    client c;
    start();
    client_open(&c, &svc);
    for (int i = 0; i < 2; i++) { /* kept alive, in two pieces */
        client_text(&c, "POST /debug/pprof/symbol HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                        "Content-Length: 9\r\n\r\n0x10");
        sleep_ms(20);
        client_text(&c, "+0x20");
        client_read(&c, &a, false);
        assert_int_equal(a.status, 200);
        assert_memory_equal(a.body, "num_symbols: 1\n", 15);
    }
    client_close(&c);
    get_is("GET /debug/pprof/symbol", 200);
}

/* ---- quiet ---- */

static void the_programs_counters_do_not_move_while_it_answers(void **state)
{
    (void)state;
    static const char *const names[] = {
        "memkit_mallocs_total", "memkit_frees_total", "memkit_heap_alloc_bytes",
        "memkit_heap_allocated_bytes_total", "memkit_prof_samples_total"};
    double before[5];
    if (SANITIZED)
        skip(); /* nothing is counted */
    start();
    figure(names[0]);
    for (int i = 0; i < 5; i++)
        before[i] = figure(names[i]);
    assert_true(before[0] > 0);
    for (int i = 0; i < 20; i++) {
        get_is("GET /debug/pprof/", 200);
        get_is("GET /debug/pprof/heap", 200);
        get_is("GET /debug/pprof/heap?debug=1", 200);
        get_is("GET /debug/memkit/flame.svg", 200);
        get_is("GET /nothing", 404);
    }
    for (int i = 0; i < 5; i++)
        if (figure(names[i]) != before[i])
            fail_msg("%s: %.0f before, %.0f after", names[i], before[i], figure(names[i]));
}

/* The program has what it would have without: signals, descriptors' numbers. */
static void its_thread_blocks_signals_and_its_descriptors_are_high(void **state)
{
    (void)state;
    char path[96], line[256];
    client c;
    start();
    client_open(&c, &svc);
    ask(&c, &a, "GET /metrics");
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/task", (int)svc.pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char status[512];
        snprintf(status, sizeof status, "/proc/%d/task/%.20s/status", (int)svc.pid, e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(status, "r") : NULL;
        bool ours = false;
        while (f != NULL && fgets(line, sizeof line, f) != NULL) {
            ours |= strcmp(line, "Name:\tmemkit-listen\n") == 0;
            if (ours && strncmp(line, "SigBlk:", 7) == 0) {
                unsigned long long blocked = strtoull(line + 8, NULL, 16);
                for (int sig = 1; sig < 32; sig++)
                    if (sig != SIGKILL && sig != SIGSTOP && (blocked >> (sig - 1) & 1) == 0)
                        fail_msg("signal %d is not blocked", sig);
                found = true;
            }
        }
        if (f != NULL)
            fclose(f);
    }
    closedir(d);
    assert_true(found);
    int high = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)svc.pid);
    d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char link[512], target[64] = "";
        int fd = atoi(e->d_name);
        high += fd >= MEMKIT__LISTEN_FD;
        snprintf(link, sizeof link, "%s/%.20s", path, e->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        if (e->d_name[0] != '.' && fd < MEMKIT__LISTEN_FD &&
            (strncmp(target, "socket:", 7) == 0 || strncmp(target, "anon_inode:[event", 17) == 0))
            fail_msg("descriptor %d is %s", fd, target);
    }
    closedir(d);
    client_close(&c);
    assert_true(high >= 4); /* listening, its epoll, libmicrohttpd's, a connection */
}

/* ---- who may ask ---- */

static void a_host_that_is_another_name_is_refused_on_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        int status;
    } table[] = {
        {"Host: localhost\r\n", 200},
        {"Host: LocalHost:8080\r\n", 200},
        {"Host: 127.0.0.1\r\n", 200},
        {"Host: 127.0.0.1:6060\r\n", 200},
        {"Host: [::1]:6060\r\n", 200},
        {"Host: [::1]\r\n", 200},
        {"Host: 10.1.2.3\r\n", 200}, /* no name: no DNS */
        {"Host: evil.example\r\n", 403},
        {"Host: evil.example:6060\r\n", 403},
        {"Host: localhost.evil.example\r\n", 403},
        {"Host: 127.0.0.1.evil.example\r\n", 403},
        {"Host: 127.0.0.1:80:evil\r\n", 403},
        {"Host: 127.0.0.1@evil.example\r\n", 403},
        {"Host: [::1\r\n", 403},
        {"Host: [::1]evil\r\n", 403},
        {"Host: \r\n", 403},
        {"Host: localhost\r\nHost: evil.example\r\n", 403},
    };
    start();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        client c;
        client_open(&c, &svc);
        client_text(&c, "GET /metrics HTTP/1.1\r\n");
        client_text(&c, table[i].host);
        client_text(&c, "\r\n");
        client_read(&c, &a, false);
        client_close(&c);
        if (a.status != table[i].status)
            fail_msg("%s: %d", table[i].host, a.status);
    }
}

static void another_address_is_said_and_answers_to_any_name(void **state)
{
    (void)state;
    client c;
    start_at("LISTEN_ADDR=0.0.0.0:0", NULL, NULL);
    svc.port = said_number(&svc, "http://0.0.0.0:");
    assert_non_null(strstr(svc.log, "every machine"));
    client_open(&c, &svc);
    ask(&c, &a, "GET /metrics"); /* Host: test */
    assert_int_equal(a.status, 200);
    client_close(&c);
}

static void loopback_is_the_default(void **state)
{
    (void)state;
    start_at("LISTEN_ADDR=:0", NULL, NULL);
    svc.port = said_number(&svc, "http://127.0.0.1:");
    assert_null(strstr(svc.log, "every machine"));
    assert_int_equal(said_number(&svc, "again: "), 1);
    get_is("GET /metrics", 200);
}

static void an_address_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",           "6060",          ":",
                                      ":x",         ":65536",        ":-1",
                                      ": 80",       "127.0.0.1",     "127.0.0.1:",
                                      "1.2.3:80",   "example.com:1", "::1:6060",
                                      "[::1:6060",  "[]:6060",       "[localhost]:1",
                                      "256.0.0.1:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        assert_int_equal(memkit_debug_serve(bad[i]), -1);
        if (errno != EINVAL)
            fail_msg("%s: %s", bad[i], strerror(errno));
    }
    errno = 0;
    assert_int_equal(memkit_debug_serve(NULL), -1);
    assert_int_equal(errno, EINVAL);
    const char *settings[] = {"LISTEN_ADDR=192.0.2.1:1", NULL}; /* nobody's */
    service_spawn(&svc, "tests/test_prof_listen", settings, "serve");
    assert_int_equal(service_wait(&svc), 3);
    assert_non_null(strstr(svc.log, "serve: Cannot assign requested address"));
}

/* ---- what goes wrong ---- */

static void a_port_that_is_taken_is_one_line_and_the_program_goes_on(void **state)
{
    (void)state;
    char listen[64];
    start();
    snprintf(listen, sizeof listen, "LISTEN_ADDR=127.0.0.1:%d", svc.port);
    service first = svc;
    const char *settings[] = {listen, NULL, NULL};
    service_spawn(&svc, "tests/test_prof_listen", settings, "serve");
    int code = service_wait(&svc);
    bool told = strstr(svc.log, "serve: Address already in use") != NULL;
    settings[1] = "FROM_ENV=1";
    service_spawn(&svc, "tests/test_prof_listen", settings, "serve");
    said_number(&svc, "running");
    char log[1024];
    snprintf(log, sizeof log, "%.1023s", svc.log);
    int second = service_stop(&svc);
    svc = first;
    assert_int_equal(code, 3);
    assert_true(told);
    assert_int_equal(second, 0);
    assert_non_null(strstr(log, "memkit: MEMKIT_LISTEN=127.0.0.1:"));
    assert_non_null(strstr(log, "Address already in use; going on without"));
    assert_non_null(strstr(log, "serve_from_env: -1"));
    get_is("GET /metrics", 200);
}

static void from_the_environment_it_samples_too_unless_told_otherwise(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* malloc is not hooked */
    start_at("LISTEN_ADDR=localhost:0", "FROM_ENV=1", NULL);
    svc.port = said_number(&svc, "http://127.0.0.1:");
    assert_true(figure("memkit_prof_running") == 1);
    assert_true(figure("memkit_prof_sample_bytes") == 524288);
    assert_int_equal(service_stop(&svc), 0);
    start_at("LISTEN_ADDR=localhost:0", "FROM_ENV=1", "MEMKIT_SAMPLE=0");
    svc.port = said_number(&svc, "http://127.0.0.1:");
    assert_true(figure("memkit_prof_running") == 0);
    get_is("GET /debug/pprof/heap", 503);
}

static void without_the_library_it_is_enosys(void **state)
{
    (void)state;
    char command[4400];
    snprintf(command, sizeof command,
             "d=$(mktemp -d) && cp '%s/tests/test_prof_listen' $d/ && cd $d && "
             "{ unset LD_LIBRARY_PATH; LISTEN_ADDR=:0 timeout 20 ./test_prof_listen serve; echo "
             "code $?; } >out 2>&1; "
             "grep -q 'serve: Function not implemented' out && grep -q 'code 3' out; r=$?; "
             "cat out; rm -rf $d; exit $r",
             build_dir());
    assert_int_equal(system(command), 0);
}

/* ---- waiting ---- */

static void a_delta_waits_and_others_do_not(void **state)
{
    (void)state;
    client c[2];
    start();
    if (SANITIZED)
        skip(); /* no heap profile */
    for (int i = 0; i < 2; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], i == 0 ? "GET /debug/pprof/heap?seconds=1" LOCAL
                                  : "GET /debug/pprof/profile?seconds=1" LOCAL);
    }
    double begin = now_s();
    int others = 0;
    for (; !client_ends(&c[0], 0) && now_s() - begin < 0.5; others++)
        get_is("GET /metrics", 200);
    assert_true(others > 3);
    for (int i = 0; i < 2; i++) {
        client_read(&c[i], &a, false);
        assert_int_equal(a.status, 200);
        client_close(&c[i]);
    }
    assert_true(now_s() - begin >= 0.99);
    assert_string_equal(value_of("Content-Disposition"), "attachment; filename=\"profile\"");
}

static void a_client_that_hangs_up_ends_its_profile(void **state)
{
    (void)state;
    client c;
    start();
    client_open(&c, &svc);
    client_text(&c, "GET /debug/pprof/profile?seconds=3000" LOCAL);
    double end = now_s() + WAIT_MS / 1000.0;
    do { /* until it has begun */
        assert_true(now_s() < end);
        get("GET /debug/pprof/profile?seconds=1");
    } while (a.status != 409);
    client_close(&c);
    do {
        assert_true(now_s() < end);
        get("GET /debug/pprof/profile?seconds=1");
    } while (a.status == 409);
    assert_int_equal(a.status, 200);
}

static void only_so_many_may_wait(void **state)
{
    (void)state;
    client c[33];
    start();
    if (SANITIZED)
        skip();
    for (int i = 0; i < 33; i++) {
        client_open(&c[i], &svc);
        client_text(&c[i], "GET /debug/pprof/heap?seconds=3600" LOCAL);
    }
    struct pollfd p[33];
    for (int i = 0; i < 33; i++)
        p[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
    assert_int_equal(poll(p, 33, WAIT_MS), 1);
    for (int i = 0; i < 33; i++) {
        if (p[i].revents != 0) {
            client_read(&c[i], &a, false);
            assert_int_equal(a.status, 503);
        }
        client_close(&c[i]);
    }
}

static void connections_over_the_limit_wait_until_one_ends(void **state)
{
    (void)state;
    client c[70];
    start();
    for (int i = 0; i < 70; i++)
        client_open(&c[i], &svc);
    client_text(&c[69], "GET /metrics" LOCAL);
    assert_false(client_ends(&c[69], 100));
    for (int i = 0; i < 10; i++)
        client_close(&c[i]);
    client_read(&c[69], &a, false);
    assert_int_equal(a.status, 200);
    for (int i = 10; i < 70; i++)
        client_close(&c[i]);
    get_is("GET /metrics", 200);
}

/* ---- hostile ---- */

static void send_some(const void *data, size_t n)
{
    client c;
    client_open(&c, &svc);
    for (size_t sent = 0; sent < n;) { /* it may close in the middle */
        ssize_t k = send(c.fd, (const char *)data + sent, n - sent, MSG_NOSIGNAL);
        if (k <= 0)
            break;
        sent += (size_t)k;
    }
    shutdown(c.fd, SHUT_WR);
    client_ends(&c, 100);
    client_close(&c);
}

static void it_survives_what_hostile_clients_send(void **state)
{
    (void)state;
    static char big[3 << 20];
    static const char *const heads[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET /debug/pprof/heap%zz" LOCAL,
        "GET /debug/pprof/%00heap" LOCAL,
        "GET /%" LOCAL,
        "GET ?seconds=1" LOCAL,
        "GET http://" LOCAL,
        "GET http://x?debug=1" LOCAL,
        "GET * HTTP/9.9\r\n\r\n",
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n0x1",
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Length: 99999999999999999999\r\n\r\n0x1",
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        "ffffffffffffffffff\r\n",
        "GET /debug/pprof/heap?seconds=3600" LOCAL "GET /debug/pprof/heap?seconds=3600" LOCAL,
        "GET /debug/pprof/profile?seconds=1" LOCAL "GET /debug/pprof/profile?seconds=1" LOCAL,
    };
    start();
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        send_some(heads[i], strlen(heads[i]));
    /* arguments without end, fields without end, a line and a body without end */
    static const char *const parts[] = {"&a=1", "a", "\r\nX: y", "+0x1"};
    for (int i = 0; i < 4; i++) {
        size_t n = (size_t)sprintf(big, "%s",
                                   i < 2    ? "GET /metrics?"
                                   : i == 2 ? "GET /metrics HTTP/1.1"
                                            : "POST /debug/pprof/symbol HTTP/1.1\r\nHost: "
                                              "localhost\r\nContent-Length: 3000000\r\n\r\n");
        size_t limit = i == 3 ? sizeof big : 100000;
        for (size_t k = strlen(parts[i]); n + k < limit; n += k)
            memcpy(big + n, parts[i], k);
        send_some(big, n);
    }
    unsigned seed = 1;
    for (int i = 0; i < (SANITIZED ? 50 : 300); i++) {
        char noise[512];
        size_t n = (size_t)rand_r(&seed) % sizeof noise;
        for (size_t k = 0; k < n; k++)
            noise[k] = (char)rand_r(&seed);
        if (i % 2 == 0 && n > 32)
            memcpy(noise, "GET /debug/pprof/heap?seconds=", 30);
        client c;
        client_open(&c, &svc);
        (void)!send(c.fd, noise, n, MSG_NOSIGNAL);
        client_close(&c);
    }
    get_is("GET /metrics", 200);
    get_is("GET /debug/pprof/symbol", 200);
}

static void a_body_of_more_than_a_megabyte_is_refused(void **state)
{
    (void)state;
    static char part[1 << 16];
    memset(part, '+', sizeof part);
    client c;
    start();
    client_open(&c, &svc);
    client_text(&c, "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n"
                    "Content-Length: 1114112\r\n\r\n");
    for (int i = 0; i < 17; i++)
        client_send(&c, part, sizeof part);
    client_read(&c, &a, false);
    assert_int_equal(a.status, 413);
    client_close(&c);
}

/* ---- fork and exec ---- */

static bool port_is_free(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool ok = bind(fd, (const struct sockaddr *)&in, sizeof in) == 0;
    close(fd);
    return ok;
}

static void a_forked_child_holds_nothing_and_may_serve_anew(void **state)
{
    (void)state;
    if (UNDER_TSAN) /* which refuses threads in a child of a process with threads */
        skip();
    client c;
    start();
    int port = svc.port;
    client_open(&c, &svc);
    client_text(&c, "GET /metrics" LOCAL);
    client_read(&c, &a, false);
    kill(svc.pid, SIGUSR1);
    int child = said_number(&svc, "child ");
    assert_true(child > 0);
    do { /* the child's own line comes when it comes */
        svc.port = said_number(&svc, "http://127.0.0.1:");
        if (svc.port == port)
            assert_true(service_log(&svc, WAIT_MS));
    } while (svc.port == port);
    get_is("GET /metrics", 200); /* the child's */
    kill(svc.pid, SIGKILL);
    bool ended = client_ends(&c, WAIT_MS);
    int status;
    waitpid(svc.pid, &status, 0);
    bool is_free = port_is_free(port);
    get_is("GET /metrics", 200);
    kill(child, SIGKILL);
    close(svc.err);
    svc.pid = 0;
    client_close(&c);
    assert_true(ended);   /* the child does not keep the connection */
    assert_true(is_free); /* nor the port */
}

static void a_program_that_is_executed_inherits_nothing(void **state)
{
    (void)state;
    client c;
    start();
    client_open(&c, &svc);
    client_text(&c, "GET /metrics" LOCAL);
    client_read(&c, &a, false);
    kill(svc.pid, SIGUSR2);
    service child = {.pid = said_number(&svc, "child ")};
    char path[64], comm[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)child.pid);
    for (double end = now_s() + WAIT_MS / 1000.0; strcmp(comm, "sleep\n") != 0; sleep_ms(2)) {
        FILE *f = fopen(path, "r");
        assert_true(f != NULL && now_s() < end);
        (void)!fgets(comm, sizeof comm, f);
        fclose(f);
    }
    int sockets = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)child.pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        sockets += atoi(e->d_name) >= MEMKIT__LISTEN_FD && atoi(e->d_name) < 200;
    closedir(d);
    kill(child.pid, SIGKILL);
    client_close(&c);
    assert_int_equal(sockets, 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, stop)

int main(int argc, char **argv)
{
    /* Draws the archive in where a sanitizer's malloc is found before ours. */
    const memkit__prof_table *(*volatile attach)(const memkit__core_table *) = memkit_prof_attach;
    (void)attach;
    if (argc > 1 && strcmp(argv[1], "serve") == 0)
        return serve_main() + (mine == NULL);
    signal(SIGPIPE, SIG_IGN);
    /* A sanitizer's dlopen goes by its own library's path, and not by the program's. */
    setenv("LD_LIBRARY_PATH", build_dir(), 1);
    const struct CMUnitTest tests[] = {
        TEST(all_paths_are_answered_with_type_and_name),
        TEST(symbol_takes_a_body),
        TEST(the_programs_counters_do_not_move_while_it_answers),
        TEST(its_thread_blocks_signals_and_its_descriptors_are_high),
        TEST(a_host_that_is_another_name_is_refused_on_loopback),
        TEST(another_address_is_said_and_answers_to_any_name),
        TEST(loopback_is_the_default),
        TEST(an_address_that_is_none_is_refused),
        TEST(a_port_that_is_taken_is_one_line_and_the_program_goes_on),
        TEST(from_the_environment_it_samples_too_unless_told_otherwise),
        TEST(without_the_library_it_is_enosys),
        TEST(a_delta_waits_and_others_do_not),
        TEST(a_client_that_hangs_up_ends_its_profile),
        TEST(only_so_many_may_wait),
        TEST(connections_over_the_limit_wait_until_one_ends),
        TEST(it_survives_what_hostile_clients_send),
        TEST(a_body_of_more_than_a_megabyte_is_refused),
        TEST(a_forked_child_holds_nothing_and_may_serve_anew),
        TEST(a_program_that_is_executed_inherits_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
