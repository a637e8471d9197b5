/* test_service.h - for the tests of the example service: a service as a child process, and a small
 * blocking HTTP client over a real socket. Every step that goes wrong fails the test.
 */
#ifndef TEST_SERVICE_H
#define TEST_SERVICE_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sanitized.h"

#define HELPER  __attribute__((unused)) static
#define WAIT_MS 15000 /* nothing here takes so long, on the slowest machine */
#define HOST    " HTTP/1.1\r\nHost: test\r\n"

HELPER double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

HELPER void sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* ---- the service ---- */

typedef struct {
    pid_t pid;
    int err; /* its standard error and output, as a pipe */
    int port;
    char log[16384];
    size_t log_len;
} service;

HELPER const char *build_dir(void)
{
    const char *dir = getenv("MEMKIT_BUILD");
    if (dir == NULL || *dir == '\0')
        fail_msg("MEMKIT_BUILD is not set: the directory with service-before and service-after");
    return dir;
}

/* Not 0: services are started with this limit on open files. */
HELPER rlim_t service_files;

/* Starts a program of the build directory with "NAME=value" settings (NULL ends them) on top of the
 * environment, of which the service's own variables are taken away. arg may be NULL. */
HELPER void service_spawn(service *s, const char *program, const char *const *settings,
                          const char *arg)
{
    static const char *const own[] = {"LISTEN_ADDR",      "MAX_WORKERS",      "CACHE_SIZE",
                                      "WORK_MS",          "DRAIN_MS",         "READ_TIMEOUT_MS",
                                      "WRITE_TIMEOUT_MS", "DEBUG_TIMEOUT_MS", "IDLE_TIMEOUT_MS",
                                      "SAMPLE_RATE"};
    char path[4096];
    int fds[2];
    memset(s, 0, sizeof *s);
    snprintf(path, sizeof path, "%s/%s", build_dir(), program);
    assert_int_equal(access(path, X_OK), 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* no service outlives a test that crashed */
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        struct rlimit files = {.rlim_cur = service_files, .rlim_max = service_files};
        if (service_files != 0 && setrlimit(RLIMIT_NOFILE, &files) != 0)
            _exit(126);
        for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
            unsetenv(own[i]);
        for (; settings != NULL && *settings != NULL; settings++)
            putenv((char *)(uintptr_t)*settings);
        execl(path, path, arg, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    s->err = fds[0];
}

/* Adds what the service has said to s->log; false at its end, or when ms have passed. */
HELPER bool service_log(service *s, int ms)
{
    struct pollfd p = {.fd = s->err, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0 || s->log_len + 1 >= sizeof s->log)
        return false;
    ssize_t n = read(s->err, s->log + s->log_len, sizeof s->log - 1 - s->log_len);
    if (n <= 0)
        return false;
    s->log_len += (size_t)n;
    s->log[s->log_len] = '\0';
    return true;
}

/* Its exit code, or 256 + the signal that ended it. */
HELPER int service_wait(service *s)
{
    int status = 0;
    double end = now_s() + WAIT_MS / 1000.0;
    while (service_log(s, (int)((end - now_s()) * 1000)))
        continue;
    while (waitpid(s->pid, &status, WNOHANG) == 0) {
        if (now_s() > end) {
            kill(s->pid, SIGKILL);
            waitpid(s->pid, &status, 0);
            s->pid = 0;
            fail_msg("the service does not end; it said: %s", s->log);
        }
        sleep_ms(2);
    }
    close(s->err);
    s->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* Starts it and waits for its "listening on". */
HELPER void service_start(service *s, const char *program, const char *const *settings)
{
    service_spawn(s, program, settings, NULL);
    char *at;
    while ((at = strstr(s->log, "listening on ")) == NULL || strchr(at, '\n') == NULL)
        if (!service_log(s, WAIT_MS))
            fail_msg("%s does not listen: %s", program, s->log);
    *strchr(at, '\n') = ' ';
    s->port = atoi(strrchr(at, ':') + 1);
    assert_in_range(s->port, 1, 65535);
}

HELPER int service_stop(service *s)
{
    if (s->pid <= 0) /* it never started, or has ended: 0 would be our own process group */
        return 0;
    kill(s->pid, SIGTERM);
    return service_wait(s);
}

/* ---- the client ---- */

typedef struct {
    int fd;
    char *data; /* received and not read yet */
    size_t len, cap;
} client;

typedef struct {
    int status;
    char head[2048];
    size_t body_len;
    char body[64 << 10];
} answer;

/* receive_buffer in bytes; 0: the kernel's choice. It is set before the connection is made: a
 * window that was promised must not shrink. Else the client's kernel drops what arrives beyond the
 * new one, acknowledgements too, and then sends nothing more before the client has read. */
HELPER void client_open_with(client *c, const struct sockaddr *addr, socklen_t len,
                             int receive_buffer)
{
    struct timeval t = {.tv_sec = WAIT_MS / 1000};
    memset(c, 0, sizeof *c);
    c->fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    int on = 1; /* a request in two pieces must not wait for the first's acknowledgement */
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer != 0)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (connect(c->fd, addr, len) != 0)
        fail_msg("connect: %s", strerror(errno));
}

HELPER void client_open_at(client *c, const struct sockaddr *addr, socklen_t len)
{
    client_open_with(c, addr, len, 0);
}

HELPER void client_open_small(client *c, const service *s, int receive_buffer)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)s->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client_open_with(c, (const struct sockaddr *)&a, sizeof a, receive_buffer);
}

HELPER void client_open(client *c, const service *s)
{
    client_open_small(c, s, 0);
}

HELPER void client_close(client *c)
{
    close(c->fd);
    free(c->data);
}

HELPER void client_send(client *c, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0)
            fail_msg("send: %s", strerror(errno));
        p += sent;
        n -= (size_t)sent;
    }
}

HELPER void client_text(client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

/* Receives some more; 0 at the end of the connection. */
HELPER size_t client_more(client *c)
{
    if (c->len + 4096 > c->cap) {
        c->cap = c->cap * 2 + 8192;
        c->data = realloc(c->data, c->cap);
        assert_non_null(c->data);
    }
    ssize_t n = recv(c->fd, c->data + c->len, c->cap - c->len - 1, 0);
    if (n < 0)
        fail_msg("recv: %s", strerror(errno));
    c->len += (size_t)n;
    c->data[c->len] = '\0';
    return (size_t)n;
}

/* The value of a header field of the answer, up to the end of the line; NULL: there is none. */
HELPER const char *field(const answer *a, const char *name, char *out, size_t cap)
{
    char start[64];
    snprintf(start, sizeof start, "\r\n%s: ", name);
    const char *at = strcasestr(a->head, start);
    if (at == NULL)
        return NULL;
    at += strlen(start);
    snprintf(out, cap, "%.*s", (int)strcspn(at, "\r"), at);
    return out;
}

/* Reads one answer; `bodiless`: it is one to HEAD. */
HELPER void client_read(client *c, answer *a, bool bodiless)
{
    char *end, value[64];
    while (c->len == 0 || (end = strstr(c->data, "\r\n\r\n")) == NULL)
        if (client_more(c) == 0)
            fail_msg("closed before an answer, after \"%.60s\"", c->len > 0 ? c->data : "");
    size_t head = (size_t)(end - c->data) + 4;
    assert_true(head < sizeof a->head);
    memcpy(a->head, c->data, head);
    a->head[head] = '\0';
    if (sscanf(a->head, "HTTP/1.1 %d ", &a->status) != 1)
        fail_msg("not an answer: %s", a->head);
    bool none = bodiless || a->status < 200;
    if (!none)
        assert_non_null(field(a, "Content-Length", value, sizeof value));
    a->body_len = none ? 0 : strtoul(value, NULL, 10);
    assert_true(a->body_len < sizeof a->body);
    while (c->len < head + a->body_len)
        if (client_more(c) == 0)
            fail_msg("closed within a body");
    memcpy(a->body, c->data + head, a->body_len);
    a->body[a->body_len] = '\0';
    c->len -= head + a->body_len;
    memmove(c->data, c->data + head + a->body_len, c->len + 1);
}

/* "POST /process?id=" + n bytes that differ from place to place. */
HELPER char *line_with_id(size_t n)
{
    static const char start_of_line[] = "POST /process?id=";
    char *line = malloc(sizeof start_of_line + n);
    assert_non_null(line);
    strcpy(line, start_of_line);
    for (size_t i = 0; i < n; i++)
        line[sizeof start_of_line - 1 + i] = (char)('a' + (i * 7 + i / 26) % 26);
    line[sizeof start_of_line - 1 + n] = '\0';
    return line;
}

/* The service ends the connection, and properly: no reset, nothing more to read. */
HELPER void client_expect_end(client *c)
{
    if (c->len > 0 || client_more(c) != 0)
        fail_msg("more came: %s", c->data);
}

/* One request on an open connection. */
HELPER void ask(client *c, answer *a, const char *line)
{
    client_text(c, line);
    client_text(c, HOST "\r\n");
    client_read(c, a, strncmp(line, "HEAD", 4) == 0);
}

HELPER void expect_body(const answer *a, const void *want, size_t n)
{
    assert_int_equal(a->body_len, n);
    assert_memory_equal(a->body, want, n);
}

/* One figure of /metrics; fails where it is not there. */
HELPER double metric(const service *s, const char *name)
{
    client c;
    static answer a;
    client_open(&c, s);
    ask(&c, &a, "GET /metrics");
    client_close(&c);
    assert_int_equal(a.status, 200);
    for (const char *at = a.body; (at = strstr(at, name)) != NULL; at++)
        if ((at == a.body || at[-1] == '\n') && at[strlen(name)] == ' ')
            return strtod(at + strlen(name), NULL);
    fail_msg("no %s in the metrics", name);
    return 0;
}

/* Waits until the figure is `want`: what a client has read already may be counted a moment later.
 */
HELPER void await_metric(const service *s, const char *name, double want)
{
    double end = now_s() + WAIT_MS / 1000.0, got;
    while ((got = metric(s, name)) != want) {
        if (now_s() > end)
            fail_msg("%s is %.0f and not %.0f", name, got, want);
        sleep_ms(2);
    }
}

/* Waits for the end of a connection of which nothing more is wanted: true; false: after ms. */
HELPER bool client_ends(client *c, int ms)
{
    char nowhere[4096];
    double end = now_s() + ms / 1000.0;
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int left = (int)((end - now_s()) * 1000);
        if (poll(&p, 1, left > 0 ? left : 0) <= 0)
            return false;
        if (recv(c->fd, nowhere, sizeof nowhere, MSG_DONTWAIT) <= 0)
            return true;
    }
}

/* Its open descriptors. */
HELPER int service_fds(const service *s)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)s->pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Those that it keeps: the fewest within half a second, as clients that have left may be seen late.
 */
HELPER int service_own_fds(const service *s)
{
    int least = service_fds(s);
    for (double end = now_s() + 0.5; now_s() < end; sleep_ms(5)) {
        int n = service_fds(s);
        least = n < least ? n : least;
    }
    return least;
}

/* Each test runs against both services, with a service of its own. */
#define BOTH(test)                                                              \
    {"before_" #test, test, start, stop, (char *)(uintptr_t) "service-before"}, \
    {                                                                           \
        "after_" #test, test, start, stop, (char *)(uintptr_t) "service-after"  \
    }

/* A test's teardown: the service must have survived it and end well; under a sanitizer that is
 * also: without a leak. */
HELPER int service_ends_well(service *s)
{
    int code = service_stop(s);
    if (code != 0)
        print_error("exit code %d: %s\n", code, s->log);
    return code;
}

#endif
