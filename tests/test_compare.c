/* test_compare.c - service-compare from the outside: against a pair of made-up services whose
 * figures are known (this program itself, under the names before and after), and against the real
 * pair.
 *
 * The made-up service counts what it pretends to allocate: 10 allocations of 3,000 bytes in all for
 * each request as before, 4 of 1,000 as after, 7 of 5,000 for each scrape. MOCK_BEFORE and
 * MOCK_AFTER in the environment tell them to misbehave.
 */
#define _GNU_SOURCE

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

/* ---- the made-up service ---- */

static unsigned mock_requests, mock_scrapes;

static void mock_answer(int fd, const char *status, const char *body)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status,
                     strlen(body), body);
    ssize_t ignored = send(fd, text, (size_t)n, MSG_NOSIGNAL);
    (void)ignored;
}

static void mock_metrics(int fd, bool before, bool hooked)
{
    char text[800];
    mock_scrapes++;
    snprintf(text, sizeof text,
             "# HELP memkit_mallocs_total calls\nmemkit_malloc_hooked %d\n"
             "memkit_heap_alloc_bytes %d\nmemkit_heap_alloc_peak_bytes 9e6\n"
             "memkit_heap_allocated_bytes_total %u\nmemkit_mallocs_total{x=\"y\"} 1\n"
             "memkit_mallocs_total %u\nmemkit_frees_total 5\nmemkit_process_sys_bytes 2097152\n",
             hooked, before ? 8388608 : 4194304,
             mock_requests * (before ? 3000u : 1000u) + mock_scrapes * 5000u + 123456u,
             mock_requests * (before ? 10u : 4u) + mock_scrapes * 7u + 1234u);
    mock_answer(fd, "200 OK", text);
}

/* true: close the connection. */
static bool mock_serve(int fd, bool before, const char *mode)
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

static void mock_ends(int sig)
{
    (void)sig;
    const char *mode = getenv("MOCK_BEFORE");
    _exit(mode != NULL && strcmp(mode, "bad exit") == 0 ? 3 : 0);
}

static int mock_service(bool before)
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

static const char *build(const char *name)
{
    static char path[4096];
    const char *b = getenv("MEMKIT_BUILD");
    snprintf(path, sizeof path, "%s/%s", b != NULL ? b : "build/bin", name);
    return path;
}

static const char *slurp(const char *name)
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
static pid_t start(char *const args[])
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
static int finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* At 1,000 requests a second; --id-bytes, so that there are two populations. */
static pid_t start_mocks(const char *before, const char *after, const char *duration)
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

static void must_contain(const char *file, const char *what)
{
    if (slurp(file) == NULL)
        fail_msg("no %s", file);
    if (strstr(text, what) == NULL)
        fail_msg("no \"%s\" in %s:\n%.6000s", what, file, text);
}

static void must_not_contain(const char *file, const char *what)
{
    if (slurp(file) == NULL)
        fail_msg("no %s", file);
    char *at = strstr(text, what);
    if (at != NULL)
        fail_msg("\"%s\" in %s: %.300s", what, file, at);
}

static unsigned occurrences(const char *file, const char *what)
{
    unsigned n = 0;
    if (slurp(file) == NULL)
        return 0;
    for (char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static int set_up(void **state)
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

static int tear_down(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

/* ---- the tests ---- */

static void bad_flags_exit_with_2(void **state)
{
    (void)state;
    static char *bad[][12] = {
        {NULL},
        {"--nonsense", NULL},
        {"--before", "before", NULL},
        {"--before", "before", "--after", "missing", "--prof", "prof.so", NULL},
        {"--before", "before", "--after", "after", "--prof", ".", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "surplus", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--duration", "0", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--duration", "5s", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--rate=-1", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--ids", "1.5", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--id-bytes=2", NULL},
        {"--before", "before", "--after", "after", "--prof", "prof.so", "--price-per-gib=nan",
         NULL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = finish(start(bad[i]));
        if (rc != 2)
            fail_msg("set %zu: exit status %d", i, rc);
        assert_non_null(slurp("stderr"));
        assert_true(strlen(text) > 10);
    }
    static char *out[] = {"prof.so", "prof.so/below", ""};
    for (size_t i = 0; i < 3; i++) {
        char *args[] = {"--before", "before", "--after", "after", "--prof",
                        "prof.so",  "--out",  out[i],    NULL};
        assert_int_equal(finish(start(args)), 2);
        must_contain("stderr", "--out takes a directory");
    }
    char *dirs[2][8] = {{"--before", "before", "--after", "after", "--prof", ".", NULL},
                        {"--before", ".", "--after", "after", "--prof", "prof.so", NULL}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(finish(start(dirs[i])), 2);
        must_contain("stderr", " .: not a file\n");
    }
    assert_int_equal(finish(start((char *[]){"--help", NULL})), 0);
    must_contain("stdout", "example:");
}

static void figures_are_what_the_load_did_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("", "", "0.2")), 0);
    /* Exactly: the scrapes' 7 allocations each are taken off. */
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": 10,"), 2);
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": 4,"), 2);
    assert_int_equal(occurrences("a/out/report.json", "\"allocated_bytes_per_request\": 3000,"), 2);
    assert_int_equal(occurrences("a/out/report.json", "\"allocations_per_request\": -60"), 2);
    assert_int_equal(occurrences("a/out/report.json", "\"answered\": 200,\n"), 6);
    must_contain("a/out/report.json", "\"allocated_in_total_bytes\": 600000");
    must_contain("a/out/report.json", "\"allocated_now_bytes\": 8388608");
    must_contain("a/out/report.json", "\"void\": false");
    must_contain("a/out/report.json", "\"kind\": \"zipf\"");
    must_contain("a/out/report.json", "\"duration_seconds\": 0.2");
    must_contain("a/out/report.json", "{\"t_seconds\": 0.");
    must_contain("a/out/report.md", "| Allocations a request | 10.00 | 4.00 | -60.0 % | -41 % |");
    must_contain("a/out/report.md", "| Allocated now, MiB | 8.00 | 4.00 | -50.0 % | -30 % |");
    must_contain("a/out/report.md", "## Zipf 0.99, 1,000,000 ids of 24 B");
    must_contain("a/out/report.md", "## Saturation: 1024 connections, each as fast as it goes, "
                                    "0.2 s, Uniform, 1,000,000 ids of 24 B");
    must_contain("a/out/report.md", "| RSS without libmicrohttpd's, MiB | ");
    must_contain("a/out/report.md", "keeps 24 KiB for a connection, 0.4 MiB for 16,");
    must_contain("a/out/report.md", "Load: 1,000 requests a second (open loop) over 16 connect");
    must_not_contain("stdout", ": reached"); /* a short run that keeps up reaches its rate */
    must_contain("a/out/report.md", "The bodies differ");
    must_contain("a/out/report.md", "| n/a | too short to tell |");
    must_contain("stdout", "Latency p99.9, ms");
    must_contain("stdout", "  -60.0 %");
    must_not_contain("stdout", "void");
    must_not_contain("stdout", "\033"); /* no colours in a file */
    must_contain("stderr", "8 runs, about");
    struct stat st;
    char path[200];
    snprintf(path, sizeof path, "%s/a/out/before-uniform-24.log", dir);
    assert_int_equal(stat(path, &st), 0);
}

static void what_went_wrong_with_before_is_said_and_does_not_fail(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("errors", "", "0.2")), 0);
    must_contain("stdout", "before !");
    must_contain("stdout", "20 requests failed (status not 200: 20,");
    must_contain("stdout", "! before: reached");
    must_not_contain("stdout", "! after: 20 requests");
    must_contain("a/out/report.md", "- ! before: ");
    must_contain("a/out/report.json", "\"status_not_200\": 20");
    must_contain("a/out/report.json", "\"void\": false");
}

static void an_overloaded_before_ends_in_bounded_time(void **state)
{
    (void)state;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    /* 100 requests a second of 1,000 for a while; its /metrics and its stop stand in the same
     * queue. */
    pid_t pid = start_mocks("slow", "die", "0.3"); /* after's end spares this test the other runs */
    int rc = finish(pid);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(rc, 1);
    assert_true(b.tv_sec - a.tv_sec < 14);
    must_contain("stdout", "were never sent");
    must_contain("stdout", ">= ");
    must_contain("stdout", "! after: the service died under the load: exit status 7");
    must_contain("stderr", "the other runs are left out");
}

/* The field of the first run in the report. */
static double json_number(const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "\"%s\": ", name);
    assert_non_null(slurp("a/out/report.json"));
    char *at = strstr(strstr(text, "\"populations\""), key);
    assert_non_null(at);
    return strncmp(at + strlen(key), "null", 4) == 0 ? NAN : atof(at + strlen(key));
}

static void a_service_that_dies_has_the_figures_of_its_last_second(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("die later", "nostart", "2.5")), 1);
    /* At 1 s of 1.5 s; were all answers counted it would be 6.7. */
    double mallocs = json_number("allocations_per_request");
    if (!(mallocs > 9 && mallocs < 11.5))
        fail_msg("%g allocations a request", mallocs);
    assert_true(json_number("rss_bytes") > 0);
    assert_true(json_number("rss_peak_bytes") > 0);
    assert_true(json_number("cpu_us_per_request") > 0);
    must_contain("stdout", "the service died under the load: exit status 7");
    must_contain("stdout", "never sent, because the service was gone");
    must_not_contain("stdout", "every connection was waiting");
    must_contain("stdout", "CPU and RSS are of 1.");
}

static void one_request_a_second_is_one_request(void **state)
{
    (void)state;
    char *args[] = {"--before",   "before", "--after",    "after", "--prof",          "prof.so",
                    "--out",      "a/out",  "--duration", "1",     "--rate",          "1",
                    "--id-bytes", "24",     "--ids",      "1",     "--connections=1", NULL};
    setenv("MOCK_BEFORE", "", 1);
    setenv("MOCK_AFTER", "nostart", 1);
    assert_int_equal(finish(start(args)), 1);
    must_contain("a/out/report.md",
                 "Load: 1 request a second (open loop) over 1 connection for 1 s, 1 id,");
}

static void a_service_that_does_not_start_or_is_not_counted_makes_it_void(void **state)
{
    (void)state;
    assert_int_equal(finish(start_mocks("", "nostart", "0.2")), 1);
    must_contain("stdout", "exit status 9");
    must_contain("stdout", "no such luck");
    must_contain("stdout", "The comparison is void");
    must_contain("a/out/report.json", "\"void\": true");
    assert_int_equal(finish(start_mocks("unhooked", "", "0.2")), 1);
    must_contain("stdout", "malloc was not counted");
    must_contain("stdout", "The comparison is void");
    must_contain("stdout", "n/a");
}

static pid_t mock_pid(void)
{
    for (int i = 0; i < 300; i++) {
        if (slurp("mock.pid") != NULL && strchr(text, '\n') != NULL)
            return (pid_t)atoi(text);
        usleep(10000);
    }
    fail_msg("no service was started");
    return 0;
}

static void forget_mock_pid(void)
{
    char path[200];
    snprintf(path, sizeof path, "%s/mock.pid", dir);
    unlink(path);
}

static void gone_soon(pid_t pid)
{
    for (int i = 0; i < 300; i++) {
        if (kill(pid, 0) != 0 && errno == ESRCH)
            return;
        usleep(10000);
    }
    kill(pid, SIGKILL);
    fail_msg("the service lives on");
}

static void an_interrupt_leaves_no_orphan_and_no_report(void **state)
{
    (void)state;
    static const struct {
        int sig, status;
    } how[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGKILL, 1000 + SIGKILL}};
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/a/out/report.json", dir);
        unlink(path);
        forget_mock_pid();
        pid_t pid = start_mocks("", "", "20");
        pid_t service = mock_pid();
        usleep(100000);
        kill(pid, how[i].sig);
        assert_int_equal(finish(pid), how[i].status);
        gone_soon(service);
        assert_int_equal(access(path, F_OK), -1);
    }
}

static void the_real_pair_is_compared(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* a sanitizer has a malloc of its own: nothing is counted */
    char before[4096], after[4096], prof[4096];
    snprintf(before, sizeof before, "%s", build("service-before"));
    snprintf(after, sizeof after, "%s", build("service-after"));
    snprintf(prof, sizeof prof, "%s", build("libmemkit-prof.so.0"));
    char *args[] = {"--before",
                    before,
                    "--after",
                    after,
                    "--prof",
                    prof,
                    "--out",
                    "real",
                    "--duration=0.4",
                    "--rate=500",
                    "--id-bytes=64",
                    "--ids=1000",
                    "--connections=16",
                    "--saturation-seconds=0.3",
                    NULL};
    unsetenv("MOCK_BEFORE");
    unsetenv("MOCK_AFTER");
    int rc = finish(start(args));
    if (rc != 0)
        fail_msg("exit status %d: %s", rc, slurp("stdout"));
    must_contain("real/report.md", "before");
    must_contain("real/report.md", "| after");
    must_contain("real/report.json", "\"before\": {");
    must_contain("real/report.json", "\"after\": {");
    must_contain("real/report.json", "\"void\": false");
    must_contain("real/report.json", "\"mallocs_total\"");
    /* Runs without the counters come after this, and have no figures of allocations. */
    char *counted_end = strstr(text, "\"saturation\": {");
    assert_non_null(counted_end);
    *counted_end = '\0';
    assert_null(strstr(text, "\"allocations_per_request\": null"));
    assert_non_null(strstr(text, "\"allocations_per_request\": "));
    assert_null(strstr(text, "\"cpu_us_per_request\": null"));
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/');
    name = name != NULL ? name + 1 : argv[0];
    if (argc == 1 && (strcmp(name, "before") == 0 || strcmp(name, "after") == 0))
        return mock_service(name[0] == 'b');
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_flags_exit_with_2),
        cmocka_unit_test(figures_are_what_the_load_did_and_nothing_else),
        cmocka_unit_test(what_went_wrong_with_before_is_said_and_does_not_fail),
        cmocka_unit_test(an_overloaded_before_ends_in_bounded_time),
        cmocka_unit_test(a_service_that_does_not_start_or_is_not_counted_makes_it_void),
        cmocka_unit_test(an_interrupt_leaves_no_orphan_and_no_report),
        cmocka_unit_test(a_service_that_dies_has_the_figures_of_its_last_second),
        cmocka_unit_test(one_request_a_second_is_one_request),
        cmocka_unit_test(the_real_pair_is_compared),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
