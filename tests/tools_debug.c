/* tools_debug.c - `go tool pprof` against the service's own port and against the listener: it
 * fetches, waits, names our functions, and shows the reason of a refusal.
 */
#define _GNU_SOURCE

#include "test_service.h"

#include "tools.h"

static char dir[] = "/tmp/memkit-test-debug-XXXXXX";
static char said[1 << 16];
static service svc;

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return remove_tool_dir(dir);
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

/* Its exit status; what it says is in `said`. */
static int pprof(const char *options, const char *path)
{
    char command[512];
    need_tool("go");
    snprintf(command, sizeof command,
             "HOME='%s' PPROF_TMPDIR='%s' timeout 60 go tool pprof %s 'http://127.0.0.1:%d%s' 2>&1",
             dir, dir, options, svc.port, path);
    return tool_says(command, said, sizeof said);
}

static void says(const char *options, const char *path, const char *what)
{
    int code = pprof(options, path);
    if (code != 0 || strstr(said, what) == NULL)
        fail_msg("%s %s: %d, no \"%s\": %s", options, path, code, what, said);
}

/* Requests with ids of their own, for ms. */
static void work(int ms)
{
    client c;
    static answer a;
    client_open(&c, &svc);
    double end = now_s() + ms / 1000.0;
    for (int i = 0; now_s() < end; i++) {
        char line[64];
        snprintf(line, sizeof line, "POST /process?id=some-id-%d", i);
        ask(&c, &a, line);
        assert_int_equal(a.status, 200);
    }
    client_close(&c);
}

static void the_services_profiles_name_its_functions(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* nothing is sampled */
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=2", "WORK_MS=0",
                              "SAMPLE_RATE=1", NULL};
    service_start(&svc, "service-before", settings);
    work(200);
    says("-top", "/debug/pprof/heap", "handler_process");
    assert_non_null(strstr(said, "Type: inuse_space"));
    says("-top", "/debug/pprof/allocs", "Type: alloc_space");
    assert_non_null(strstr(said, "handler_process"));

    pid_t busy = fork();
    assert_true(busy >= 0);
    if (busy == 0) {
        work(6000);
        _exit(0);
    }
    says("-top -sample_index=alloc_objects", "/debug/pprof/heap?seconds=1", "handler_process");
    says("-top -seconds 1", "/debug/pprof/profile", "Type: cpu");
    kill(busy, SIGKILL);
    waitpid(busy, NULL, 0);
}

static void a_refusal_is_shown_with_its_reason(void **state)
{
    (void)state;
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", "SAMPLE_RATE=0", NULL};
    service_start(&svc, "service-after", settings);
    assert_int_not_equal(pprof("-top", "/debug/pprof/heap"), 0);
    assert_non_null(strstr(said, "503"));
    assert_non_null(strstr(said, "memkit_prof_start"));
    assert_int_not_equal(pprof("-top", "/debug/pprof/profile?seconds=3601"), 0);
    assert_non_null(strstr(said, "1 to 3600"));
    assert_int_not_equal(pprof("-top", "/debug/pprof/goroutine"), 0);
    assert_non_null(strstr(said, "no goroutines"));
}

static void the_listener_is_read_the_same(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", NULL};
    service_spawn(&svc, "tests/test_prof_listen", settings, "serve");
    char *at;
    while ((at = strstr(svc.log, "http://127.0.0.1:")) == NULL || strchr(at, '\n') == NULL)
        assert_true(service_log(&svc, WAIT_MS));
    svc.port = atoi(at + strlen("http://127.0.0.1:"));
    says("-raw", "/debug/pprof/heap", "PeriodType: space bytes");
    says("-top", "/debug/pprof/heap?seconds=1", "Type: inuse_space");
    says("-top", "/debug/pprof/profile?seconds=1", "Type: cpu");
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_services_profiles_name_its_functions, stop),
        cmocka_unit_test_teardown(a_refusal_is_shown_with_its_reason, stop),
        cmocka_unit_test_teardown(the_listener_is_read_the_same, stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
