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

/* The arithmetic, and what a run notes of its service, are tested on made-up runs; what else they
 * call comes from load*.o, but for these. */
#include "../examples/service/compare_figures.c"
#include "../examples/service/compare_run.c"

static struct {
    bool dead;
    cmp_proc proc;
    cmp_counters counters;
    unsigned scraped;
} stub;

void cmp_exit_text(int status, char *out, size_t cap)
{
    snprintf(out, cap, "status %d", status);
}

bool cmp_child_alive(cmp_child *c)
{
    (void)c;
    return !stub.dead;
}

void cmp_child_stop(cmp_child *c, double seconds)
{
    (void)c;
    (void)seconds;
}

int cmp_child_start(cmp_child *c, const char *program, const char *preload, const char *log,
                    char *why, size_t cap)
{
    (void)c;
    (void)program;
    (void)preload;
    (void)log;
    snprintf(why, cap, "not here");
    return -1;
}

uint64_t cmp_proc_cpu_ns(pid_t pid)
{
    (void)pid;
    return stub.proc.cpu_ns;
}

void cmp_proc_read(pid_t pid, cmp_proc *out)
{
    (void)pid;
    *out = stub.proc;
}

int cmp_scrape(const char *target, int timeout_ms, cmp_counters *out)
{
    (void)target;
    (void)timeout_ms;
    stub.scraped++;
    *out = stub.counters;
    return out->ok ? 0 : -1;
}

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
    if (n <= 0 || mkdtemp(dir) == NULL)
        return -1;
    self[n] = '\0';
    if (full != NULL)
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

#define NEEDS_COMPARE()         \
    do {                        \
        (void)state;            \
        if (compare[0] == '\0') \
            skip();             \
    } while (0)

/* ---- the tests ---- */

static void bad_flags_exit_with_2(void **state)
{
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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
    NEEDS_COMPARE();
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

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void the_real_pair_is_compared(void **state)
{
    NEEDS_COMPARE();
#ifdef SANITIZED
    skip(); /* a sanitizer has a malloc of its own: nothing is counted */
#else
    char before[4096], after[4096], prof[4096];
    snprintf(before, sizeof before, "%s", build("service-before"));
    snprintf(after, sizeof after, "%s", build("service-after"));
    snprintf(prof, sizeof prof, "%s", build("libmemkit-prof.so.0"));
    if (before[0] != '/' || access(before, X_OK) != 0)
        skip();
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
#endif
}

static void free_made_up(cmp_run *run)
{
    free(run->sample);
    free(run->load.second);
}

/* Four seconds of 1,000 answers, each of cpu_us and with a p99 of p99_ms; the load has no more. */
static void made_up_run(cmp_run *run, int side, double cpu_us, double p99_ms, double wobble)
{
    *run = (cmp_run){.side = side, .ran = true, .rate = 1000, .samples = 4};
    run->load.answered = run->load.due = 4000;
    run->load.rate_reached = 1000;
    run->load.seconds = 4;
    run->sample = calloc(4, sizeof *run->sample);
    run->load.second = calloc(4, sizeof *run->load.second);
    assert_non_null(run->sample);
    assert_non_null(run->load.second);
    double cpu = 0;
    for (unsigned i = 0; i < 4; i++) {
        double w = i % 2 == 0 ? 1 + wobble : 1 - wobble;
        cpu += 1000 * cpu_us * 1e3 * w;
        run->sample[i].answered = (i + 1) * 1000;
        run->sample[i].cpu_ns = (uint64_t)cpu;
        run->load.second[i].answered = 1000;
        run->load.second[i].p99_ns = (uint64_t)(p99_ms * 1e6 * w);
    }
    run->proc_end = (cmp_proc){.ok = true, .cpu_ns = (uint64_t)(4000 * cpu_us * 1e3)};
    load_hist_reset(&run->load.latency);
    for (int i = 0; i < 4000; i++)
        load_hist_record(&run->load.latency, (uint64_t)(p99_ms * 1e6));
}

static void noise_is_at_least_what_cannot_be_the_counters(void **state)
{
    (void)state;
    static cmp_report r;
    /* Steady, and a little slower with the counters: only the floor. */
    made_up_run(&r.bare[CMP_BEFORE], CMP_BEFORE, 50, 12, 0);
    made_up_run(&r.run[0][CMP_BEFORE], CMP_BEFORE, 51, 12.1, 0);
    made_up_run(&r.bare[CMP_AFTER], CMP_AFTER, 40, 12, 0);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 12.1, 0);
    cmp_noise n = cmp_counters_noise(&r);
    assert_true(fabs(n.cpu - 3) < 1e-9 && fabs(n.p99 - 3) < 1e-9);
    /* p99 halves with the counters on one side: two runs differ by 50 %, for both sides. */
    free_made_up(&r.run[0][CMP_AFTER]);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 6, 0);
    n = cmp_counters_noise(&r);
    assert_true(fabs(n.cpu - 3) < 1e-9 && fabs(n.p99 - 50) < 1);
    /* From second to second, +-10 %: the last three of four have a deviation of 11.9 or 11.2 %. */
    free_made_up(&r.run[0][CMP_AFTER]);
    made_up_run(&r.run[0][CMP_AFTER], CMP_AFTER, 41, 12.1, 0.1);
    n = cmp_counters_noise(&r);
    if (fabs(n.cpu - 11.6) > 0.8 || fabs(n.p99 - 11.6) > 0.8)
        fail_msg("noise %g and %g %%", n.cpu, n.p99);
    /* Two seconds tell nothing. */
    r.bare[CMP_BEFORE].samples = 2;
    n = cmp_counters_noise(&r);
    assert_true(isnan(n.cpu) && !isnan(n.p99));
    for (int s = 0; s < CMP_SIDES; s++) {
        free_made_up(&r.bare[s]);
        free_made_up(&r.run[0][s]);
    }
}

static void before_is_forgiven_what_after_is_not(void **state)
{
    (void)state;
    for (int side = 0; side < CMP_SIDES; side++) {
        static cmp_run run;
        cmp_sentence s[CMP_SENTENCES_MAX];
        made_up_run(&run, side, 50, 12, 0);
        assert_false(cmp_run_void(&run));
        assert_int_equal(cmp_complaints(&run, s), 0);
        run.load.due = 10000; /* 4,000 of them answered */
        run.load.unsent = 6000;
        run.load.rate_reached = 400;
        assert_int_equal(cmp_run_void(&run), side == CMP_AFTER);
        assert_int_equal(cmp_complaints(&run, s), 2);
        run.load.due = 4000;
        run.load.unsent = 0;
        run.load.rate_reached = 989;
        assert_false(cmp_run_void(&run));
        assert_int_equal(cmp_complaints(&run, s), 0); /* but nothing was lost */
        run.load.unanswered = 44;
        assert_int_equal(cmp_complaints(&run, s), 2); /* below 99 % */
        run.load.rate_reached = 991;
        assert_int_equal(cmp_complaints(&run, s), 1);
        run.load.unanswered = 0;
        run.counters = true; /* but nothing counted */
        assert_true(cmp_run_void(&run));
        assert_true(isnan(cmp_value(&(cmp_opts){0}, &run, FIG_ALLOC_NOW, NULL)));
        run.counters = false;
        run.died = true;
        assert_int_equal(cmp_run_void(&run), side == CMP_AFTER);
        free_made_up(&run);
    }
}

static void a_rate_is_missed_by_a_queue_not_by_a_few_late_answers(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sentence s[CMP_SENTENCES_MAX];
    made_up_run(&run, CMP_BEFORE, 50, 12, 0);
    run.load.late = 100;
    run.load.rate_reached = 975;
    load_hist_record(&run.load.latency, 500000000); /* one of 4,001 */
    assert_false(cmp_missed_rate(&run));
    assert_int_equal(cmp_complaints(&run, s), 0);
    load_hist_reset(&run.load.latency);
    for (uint64_t i = 1; i <= 4000; i++)
        load_hist_record(&run.load.latency, i * 100000);
    assert_true(cmp_missed_rate(&run) && cmp_broke_down(&run));
    assert_int_equal(cmp_complaints(&run, s), 1);
    assert_non_null(strstr(s[0].text, "reached 975 of 1000 requests a second (97.5 %)"));
    run.load.rate_reached = 995;
    assert_false(cmp_missed_rate(&run) || cmp_broke_down(&run));
    run.load.rate_reached = 900;
    run.load.late = 0;
    run.load.bad_status = 400;
    assert_true(cmp_missed_rate(&run));
    assert_false(cmp_broke_down(&run)); /* it answered them all, if not well */
    run.load.unsent = 1;
    assert_true(cmp_broke_down(&run));
    free_made_up(&run);
}

static void complaints_know_one_and_why(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_sentence s[CMP_SENTENCES_MAX];
    made_up_run(&run, CMP_BEFORE, 50, 12, 0);
    run.rate = 1;
    run.load.rate_reached = 0.5;
    run.load.due = run.load.unsent = 1;
    run.load.closed = run.load.connect_failures = run.load.unanswered = 1;
    assert_int_equal(cmp_complaints(&run, s), 5);
    assert_non_null(strstr(s[0].text, "of 1 request a second"));
    assert_string_equal(s[1].text,
                        "1 of 1 request was never sent, because no connection could be had");
    assert_non_null(strstr(s[2].text, "1 request had no answer"));
    assert_non_null(strstr(s[3].text, "1 request failed"));
    assert_string_equal(s[4].text, "1 connection could not be made");
    run.load.connect_failures = 0;
    run.load.due = 2;
    cmp_complaints(&run, s);
    assert_string_equal(s[1].text,
                        "1 of 2 requests was never sent, because every connection was waiting");
    run.died = true;
    cmp_complaints(&run, s);
    assert_string_equal(s[2].text, "1 of 2 requests was never sent, because the service was gone");
    free_made_up(&run);
}

#define MIB (1u << 20)

static void close_to(double got, double want)
{
    if (!(fabs(got - want) < 1e-6 * want))
        fail_msg("%g, not %g", got, want);
}

static void figures_of_a_made_up_run(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_opts o = {.price_per_gib = 3};
    made_up_run(&run, CMP_AFTER, 50, 12, 0);
    run.connections = 256;
    run.proc_start = (cmp_proc){.ok = true, .cpu_ns = 70000000};
    run.proc_end.cpu_ns += 70000000;
    run.proc_end.rss_bytes = 100 * MIB;
    run.proc_end.peak_rss_bytes = 512 * MIB;
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 100.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_RSS_OWN, NULL), 94.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_COST, NULL), 0.5 * 3 * 10);
    run.connections = 10000; /* it cannot have had them all */
    assert_true(isnan(cmp_value(&o, &run, FIG_RSS_OWN, NULL)));
    free_made_up(&run);
}

/* 10 allocations of 300 bytes and 50 us a request, 7 allocations and 5,000 bytes a scrape. */
static void second_passes(run_ctx *x, uint64_t answered, bool scrape_ok, unsigned rss_mib)
{
    cmp_run *run = x->run;
    uint64_t scrapes = run->scrapes + 1;
    stub.counters = (cmp_counters){.ok = scrape_ok,
                                   .hooked = scrape_ok,
                                   .alloc_bytes = answered,
                                   .total_alloc_bytes = 9000 + answered * 300 + scrapes * 5000,
                                   .mallocs = 1000 + answered * 10 + scrapes * 7};
    stub.proc = (cmp_proc){.ok = true,
                           .cpu_ns = 70000000 + answered * 50000,
                           .rss_bytes = rss_mib * MIB,
                           .peak_rss_bytes = (rss_mib + 20) * MIB};
    sample(x,
           (cmp_sample){
               .t_s = (double)run->samples + 1, .answered = answered, .cpu_ns = answered * 50000},
           (cmp_progress){0});
}

static void made_up_seconds(run_ctx *x, cmp_run *run, bool counters)
{
    *run = (cmp_run){.ran = true, .counters = counters, .sample_cap = 3};
    run->sample = calloc(3, sizeof *run->sample);
    assert_non_null(run->sample);
    run->start =
        (cmp_counters){.ok = true, .hooked = true, .mallocs = 1000, .total_alloc_bytes = 9000};
    run->scrape_cost = (cmp_counters){.mallocs = 7, .total_alloc_bytes = 5000};
    run->proc_start = (cmp_proc){.ok = true, .cpu_ns = 70000000};
    *x = (run_ctx){.run = run};
    memset(&stub, 0, sizeof stub);
    second_passes(x, 1000, true, 100);
    second_passes(x, 1800, false, 200);
    run->load.answered = 2000;
    stub.counters = (cmp_counters){0};
}

static void what_failed_at_the_end_is_of_the_last_sample_and_its_answers(void **state)
{
    (void)state;
    static cmp_run run;
    cmp_opts o = {.price_per_gib = 3};
    run_ctx x;
    /* It died: all of it is of the first second, the last one with a scrape. */
    made_up_seconds(&x, &run, true);
    stub.dead = true;
    stub.proc = (cmp_proc){0};
    stub.scraped = 0;
    on_end(&x);
    assert_true(run.died);
    assert_int_equal(stub.scraped, 0); /* there is nobody to ask */
    close_to(cmp_value(&o, &run, FIG_MALLOCS_PER_REQUEST, NULL), 10);
    close_to(cmp_value(&o, &run, FIG_BYTES_PER_REQUEST, NULL), 300);
    close_to(cmp_value(&o, &run, FIG_ALLOC_TOTAL, NULL), 300000);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 100.0 * MIB);
    close_to(cmp_value(&o, &run, FIG_PEAK_RSS, NULL), 120.0 * MIB);
    free(run.sample);
    /* It lives, but does not answer /metrics: the process's own figures are of the end. */
    made_up_seconds(&x, &run, true);
    stub.proc.cpu_ns = 70000000 + 2000 * 60000ull;
    on_end(&x);
    assert_false(run.died);
    close_to(cmp_value(&o, &run, FIG_MALLOCS_PER_REQUEST, NULL), 10);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 60);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 200.0 * MIB);
    free(run.sample);
    /* Without counters: the last second of all. */
    made_up_seconds(&x, &run, false);
    stub.dead = true;
    stub.proc = (cmp_proc){0};
    on_end(&x);
    close_to(cmp_value(&o, &run, FIG_CPU_PER_REQUEST, NULL), 50);
    close_to(cmp_value(&o, &run, FIG_RSS, NULL), 200.0 * MIB);
    free(run.sample);
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
        cmocka_unit_test(noise_is_at_least_what_cannot_be_the_counters),
        cmocka_unit_test(before_is_forgiven_what_after_is_not),
        cmocka_unit_test(a_rate_is_missed_by_a_queue_not_by_a_few_late_answers),
        cmocka_unit_test(complaints_know_one_and_why),
        cmocka_unit_test(figures_of_a_made_up_run),
        cmocka_unit_test(what_failed_at_the_end_is_of_the_last_sample_and_its_answers),
        cmocka_unit_test(a_service_that_dies_has_the_figures_of_its_last_second),
        cmocka_unit_test(one_request_a_second_is_one_request),
        cmocka_unit_test(the_real_pair_is_compared),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
