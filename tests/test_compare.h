/* test_compare.h - for the tests of service-compare from the outside: a made-up service whose
 * figures are known, which is the test itself under the names before and after, and what starts the
 * program and reads what it wrote.
 *
 * The made-up service counts what it pretends to allocate: 10 allocations of 3,000 bytes in all for
 * each request as before, 4 of 1,000 as after, 7 of 5,000 for each scrape, and a microsecond for
 * each allocation. MOCK_BEFORE and MOCK_AFTER in the environment tell them to misbehave.
 */
#ifndef TEST_COMPARE_H
#define TEST_COMPARE_H

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sanitized.h"

#define HELPER __attribute__((unused)) static

/* ---- the made-up service ---- */

static unsigned mock_requests, mock_scrapes;

HELPER void mock_answer(int fd, const char *status, const char *body)
{
    char text[2200];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status,
                     strlen(body), body);
    ssize_t ignored = send(fd, text, (size_t)n, MSG_NOSIGNAL);
    (void)ignored;
}

/* With MEMKIT_TIMING=1: a microsecond for each call, and one of 2 ms with 3 switches. */
HELPER int mock_timing(char *out, size_t cap, unsigned calls)
{
    return snprintf(out, cap,
                    "# TYPE memkit_malloc_duration_seconds histogram\n"
                    "memkit_malloc_duration_seconds_bucket{le=\"5.12e-07\"} 0\n"
                    "memkit_malloc_duration_seconds_bucket{le=\"1.024e-06\"} %u\n"
                    "memkit_malloc_duration_seconds_bucket{le=\"+Inf\"} %u\n"
                    "memkit_malloc_duration_seconds_sum %.9f\n"
                    "memkit_malloc_duration_seconds_count %u\n"
                    "memkit_malloc_longest_duration_seconds 0.002\n"
                    "memkit_malloc_longest_involuntary_switches 3\n",
                    calls, calls + 1, calls * 1e-6 + 0.002, calls + 1);
}

HELPER void mock_metrics(int fd, bool before, bool hooked)
{
    char text[1800];
    mock_scrapes++;
    unsigned calls = mock_requests * (before ? 10u : 4u) + mock_scrapes * 7u + 1234u;
    int n = snprintf(
        text, sizeof text,
        "# HELP memkit_mallocs_total calls\nmemkit_malloc_hooked %d\n"
        "memkit_heap_alloc_bytes %d\nmemkit_heap_alloc_peak_bytes 9e6\n"
        "memkit_heap_allocated_bytes_total %u\nmemkit_mallocs_total{x=\"y\"} 1\n"
        "memkit_mallocs_total %u\nmemkit_frees_total 5\nmemkit_process_sys_bytes 2097152\n",
        hooked, before ? 8388608 : 4194304,
        mock_requests * (before ? 3000u : 1000u) + mock_scrapes * 5000u + 123456u, calls);
    const char *timing = getenv("MEMKIT_TIMING");
    if (hooked && timing != NULL && strcmp(timing, "1") == 0)
        mock_timing(text + n, sizeof text - (size_t)n, calls);
    mock_answer(fd, "200 OK", text);
}

/* true: close the connection. */
HELPER bool mock_serve(int fd, bool before, const char *mode)
{
    char req[8192];
    ssize_t n = recv(fd, req, sizeof req - 1, 0);
    if (n <= 0)
        return true;
    req[n] = '\0';
    if (strncmp(req, "GET /health ", 12) == 0) {
        mock_answer(fd, "200 OK", "ok");
    } else if (strncmp(req, "GET /metrics ", 13) == 0) {
        bool preloaded = getenv("LD_PRELOAD") != NULL;
        mock_metrics(fd, before, preloaded && strcmp(mode, "unhooked") != 0);
    } else {
        mock_requests++;
        if (mock_requests == (strcmp(mode, "die") == 0         ? 20
                              : strcmp(mode, "die later") == 0 ? 1500
                                                               : 0))
            _exit(7);
        if (strcmp(mode, "slow") == 0 && mock_requests < 120)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        bool bad = strcmp(mode, "errors") == 0 && mock_requests % 10 == 0;
        mock_answer(fd, bad ? "500 No" : "200 OK", "hello");
    }
    return false;
}

HELPER void mock_ends(int sig)
{
    (void)sig;
    const char *mode = getenv("MOCK_BEFORE");
    _exit(mode != NULL && strcmp(mode, "bad exit") == 0 ? 3 : 0);
}

HELPER int mock_service(bool before)
{
    const char *mode = getenv(before ? "MOCK_BEFORE" : "MOCK_AFTER");
    mode = mode != NULL ? mode : "";
    if (strcmp(mode, "nostart") == 0) {
        fprintf(stderr, "no such luck\n");
        return 9;
    }
    signal(SIGTERM, mock_ends);
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = ls};
    if (bind(ls, (struct sockaddr *)&a, sizeof a) != 0 || listen(ls, 2048) != 0 ||
        getsockname(ls, (struct sockaddr *)&a, &len) != 0 ||
        epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev) != 0)
        return 8;
    FILE *pid = fopen("mock.pid", "w");
    if (pid != NULL) {
        fprintf(pid, "%d\n", (int)getpid());
        fclose(pid);
    }
    const char *addr = getenv("LISTEN_ADDR");
    if (addr == NULL || strcmp(addr, "127.0.0.1:0") != 0)
        return 7;
    fprintf(stderr, "mock: %s\n", getenv("MEMKIT_TIMING") != NULL ? "timed" : "not timed");
    fprintf(stderr, "mock: listening on 127.0.0.1:%u\n", ntohs(a.sin_port));
    for (;;) {
        if (epoll_wait(ep, &ev, 1, -1) != 1)
            continue;
        int fd = ev.data.fd;
        if (fd != ls) {
            if (mock_serve(fd, before, mode))
                close(fd);
            continue;
        }
        fd = accept(ls, NULL, NULL);
        ev = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
        if (fd >= 0)
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    }
}

/* ---- running service-compare ---- */

static char dir[] = "/tmp/memkit-test-compare-XXXXXX";
static char compare[4096];
static char text[4 << 20]; /* of a file or of what was printed */

HELPER const char *build(const char *name)
{
    static char path[4096];
    const char *b = getenv("MEMKIT_BUILD");
    snprintf(path, sizeof path, "%s/%s", b != NULL ? b : "build/bin", name);
    return path;
}

HELPER const char *slurp(const char *name)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return NULL;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

/* Starts service-compare in `dir` with up to 16 arguments, the last one NULL; its output goes to
 * the files stdout and stderr there. */
HELPER pid_t start(char *const args[])
{
    char *argv[24] = {compare};
    int n = 1;
    while (*args != NULL && n < 23)
        argv[n++] = *args++;
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (chdir(dir) != 0)
        _exit(126);
    int out = open("stdout", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(126);
    execv(compare, argv);
    _exit(126);
}

/* Its exit status, or 1000 + the signal. */
HELPER int finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* At 1,000 requests a second; --id-bytes, so that there are two populations. */
HELPER pid_t start_mocks(const char *before, const char *after, const char *duration)
{
    char *args[] = {"--before",
                    "before",
                    "--after",
                    "after",
                    "--prof",
                    "prof.so",
                    "--out",
                    "a/out",
                    "--duration",
                    (char *)(uintptr_t)duration,
                    "--rate",
                    "1000",
                    "--id-bytes",
                    "24",
                    "--connections=16",
                    "--saturation-seconds=0.2",
                    NULL};
    setenv("MOCK_BEFORE", before, 1);
    setenv("MOCK_AFTER", after, 1);
    return start(args);
}

HELPER void must_contain(const char *file, const char *what)
{
    if (slurp(file) == NULL)
        fail_msg("no %s", file);
    if (strstr(text, what) == NULL)
        fail_msg("no \"%s\" in %s:\n%.6000s", what, file, text);
}

HELPER void must_not_contain(const char *file, const char *what)
{
    if (slurp(file) == NULL)
        fail_msg("no %s", file);
    char *at = strstr(text, what);
    if (at != NULL)
        fail_msg("\"%s\" in %s: %.300s", what, file, at);
}

HELPER unsigned occurrences(const char *file, const char *what)
{
    unsigned n = 0;
    if (slurp(file) == NULL)
        return 0;
    for (char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

HELPER int set_up(void **state)
{
    (void)state;
    char self[4096], path[4300];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *full = realpath(build("service-compare"), NULL);
    if (n <= 0 || full == NULL || mkdtemp(dir) == NULL)
        return -1; /* `make test` builds what is missing: nothing to skip */
    self[n] = '\0';
    snprintf(compare, sizeof compare, "%s", full);
    free(full);
    snprintf(path, sizeof path, "%s/prof.so", dir);
    FILE *f = fopen(path, "w"); /* the dynamic linker passes over what is no library */
    if (f == NULL || fclose(f) != 0)
        return -1;
    /* service-compare resolves links, and the name is what tells the mocks apart: hard copies. */
    for (int i = 0; i < 2; i++) {
        char command[9000];
        snprintf(command, sizeof command, "cp '%s' '%s/%s'", self, dir, i ? "after" : "before");
        if (system(command) != 0)
            return -1;
    }
    return 0;
}

HELPER int tear_down(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

/* Runs the tests, or is the made-up service where it was started by that name. */
HELPER int mock_or_tests(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    const char *name = strrchr(argv[0], '/');
    name = name != NULL ? name + 1 : argv[0];
    if (argc == 1 && (strcmp(name, "before") == 0 || strcmp(name, "after") == 0))
        return mock_service(name[0] == 'b');
    return _cmocka_run_group_tests("tests", tests, n, set_up, tear_down);
}

#endif
