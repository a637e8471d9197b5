/* tools_prometheus.c - the metrics as Prometheus takes them: promtool has no word to say of them,
 * and a server that scrapes the service knows what was sent to it.
 */
#define _GNU_SOURCE

#include "test_service.h"

#include <math.h>
#include <sys/stat.h>

#include <memkit/memkit.h>

#include "../examples/service/compare.h"
#include "tools.h"

static char dir[] = "/tmp/memkit-test-prometheus-XXXXXX";
static char text[1 << 20]; /* of an answer or of what a tool said */
static service svc;
static pid_t prometheus;
static char api[64]; /* "127.0.0.1:PORT" */

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

/* After each test: what it started and did not stop. */
static int stop_all(void **state)
{
    (void)state;
    if (prometheus > 0) {
        kill(prometheus, SIGTERM);
        waitpid(prometheus, NULL, 0);
        prometheus = 0;
    }
    return svc.pid > 0 ? service_ends_well(&svc) : 0;
}

/* ---- promtool ---- */

/* What promtool says of the metrics is a complaint, whatever its exit status. */
static void promtool_is_content(const char *metrics, const char *what)
{
    char path[128], command[256], said[4096];
    snprintf(path, sizeof path, "%s/metrics", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(metrics, 1, strlen(metrics), f), strlen(metrics));
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof command, "promtool check metrics <'%s' 2>&1", path);
    int code = tool_says(command, said, sizeof said);
    if (code != 0 || said[0] != '\0')
        fail_msg("%s: promtool ended with %d: %s", what, code, said);
}

static void promtool_finds_what_is_wrong(void **state)
{
    (void)state;
    need_tool("promtool");
    char said[4096];
    assert_int_not_equal(tool_says("printf '# TYPE a_ms counter\\na_ms 1\\n' | "
                                   "promtool check metrics 2>&1",
                                   said, sizeof said),
                         0);
    assert_non_null(strstr(said, "_total"));
}

static void promtool_has_no_word_for_metrics_write(void **state)
{
    (void)state;
    need_tool("promtool");
    memkit_buf *out = memkit_buf_new(0);
    memkit_pool *p[2];
    for (int i = 0; i < 2; i++)
        p[i] = memkit_pool_new(&(memkit_pool_opts){.name = "a \"name\"\\\n\xc3\xa9\xff"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "c", .max_entries = 10});
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "a"});
    assert_true(out != NULL && p[0] != NULL && p[1] != NULL && c != NULL && a != NULL);
    assert_int_equal(memkit_metrics_write(out), 0);
    promtool_is_content(out->data, "memkit_metrics_write");
    memkit_arena_free(a);
    memkit_lru_free(c);
    memkit_pool_free(p[0]);
    memkit_pool_free(p[1]);
    memkit_buf_free(out);
}

/* ---- the service ---- */

/* With the counters, where they can be: a sanitizer has a malloc of its own. */
static void start_service(const char *program, bool hooked)
{
    char preload[4200];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s/libmemkit-prof.so.0", build_dir());
    const char *settings[] = {"WORK_MS=0", NULL, NULL, NULL};
    if (hooked && !SANITIZED) {
        settings[1] = preload;
        settings[2] = "MEMKIT_TIMING=1";
    }
    service_start(&svc, program, settings);
    if (hooked && !SANITIZED)
        assert_true(metric(&svc, "memkit_malloc_hooked") == 1);
}

static void scrape(void)
{
    char target[64];
    snprintf(target, sizeof target, "127.0.0.1:%d", svc.port);
    assert_int_equal(cmp_http_get(target, "/metrics", text, sizeof text, WAIT_MS), 200);
}

static void send_requests(const char *line, int n, int status)
{
    static answer a;
    client c;
    client_open(&c, &svc);
    for (int i = 0; i < n; i++) {
        char request[128];
        snprintf(request, sizeof request, line, i % 10);
        ask(&c, &a, request);
        assert_int_equal(a.status, status);
    }
    client_close(&c);
}

static void promtool_has_no_word_for_the_services(void **state)
{
    (void)state;
    need_tool("promtool");
    static const char *const programs[] = {"service-before", "service-after"};
    for (int i = 0; i < 4; i++) {
        start_service(programs[i % 2], i >= 2);
        send_requests("POST /process?id=%d", 10, 200);
        scrape();
        promtool_is_content(text, programs[i % 2]);
        assert_int_equal(service_ends_well(&svc), 0);
    }
}

/* ---- a server ---- */

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void start_prometheus(void)
{
    char config[128], log[128], arg[3][200];
    snprintf(config, sizeof config, "%s/prometheus.yml", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    snprintf(api, sizeof api, "127.0.0.1:%d", free_port());
    FILE *f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f,
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            "scrape_configs:\n"
            "  - job_name: service\n"
            "    static_configs: [{targets: ['127.0.0.1:%d']}]\n",
            svc.port);
    assert_int_equal(fclose(f), 0);
    snprintf(arg[0], sizeof *arg, "--config.file=%s", config);
    snprintf(arg[1], sizeof *arg, "--storage.tsdb.path=%s/data", dir);
    snprintf(arg[2], sizeof *arg, "--web.listen-address=%s", api);
    fflush(NULL);
    prometheus = fork();
    assert_true(prometheus >= 0);
    if (prometheus == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen(log, "w", stderr) == NULL || dup2(2, 1) < 0)
            _exit(126);
        execlp("prometheus", "prometheus", arg[0], arg[1], arg[2], "--log.level=warn",
               (char *)NULL);
        _exit(127);
    }
}

static const char *log_text(void)
{
    static char said[8192];
    char command[128];
    snprintf(command, sizeof command, "cat '%s/log'", dir);
    tool_says(command, said, sizeof said);
    return said;
}

/* The answer of its HTTP API is in `text`; false: it does not answer, or not well. */
static bool asked(const char *path)
{
    return cmp_http_get(api, path, text, sizeof text, 5000) == 200 &&
           strstr(text, "\"status\":\"success\"") != NULL;
}

/* The value of a query that has one result; NAN where it has another number of them. */
static double query(const char *expression)
{
    char path[240] = "/api/v1/query?query=";
    size_t n = strlen(path);
    for (; *expression != '\0'; expression++)
        n += (size_t)snprintf(path + n, sizeof path - n, "%%%02x", (unsigned char)*expression);
    assert_true(n < sizeof path);
    if (!asked(path))
        return NAN;
    const char *at = strstr(text, "\"value\":[");
    if (at == NULL || strstr(at + 1, "\"value\":[") != NULL)
        return NAN;
    return strtod(strchr(at, ',') + 2, NULL);
}

static void await_query(const char *expression, double want)
{
    double end = now_s() + WAIT_MS / 1000.0, got;
    while ((got = query(expression)) != want) {
        if (now_s() > end)
            fail_msg("%s is %g, not %g; Prometheus said: %s", expression, got, want, log_text());
        if (waitpid(prometheus, NULL, WNOHANG) != 0) {
            prometheus = 0;
            fail_msg("Prometheus ended: %s", log_text());
        }
        sleep_ms(50);
    }
}

static void the_counters_are_what_was_sent(void)
{
    send_requests("POST /process?id=%d", 30, 200); /* ten ids, three times each */
    send_requests("GET /nowhere/%d", 3, 404);
    send_requests("GET /process?id=%d", 2, 405);
    await_query("service_requests_total{code='404'}", 3);
    await_query("service_requests_total{code='405'}", 2);
    await_query("memkit_lru_misses_total{cache='ids'}", 10);
    await_query("memkit_lru_hits_total{cache='ids'}", 20);
    await_query("memkit_lru_entries{cache='ids'}", 10);
    await_query("memkit_pool_live_buffers{pool='answers'}", 0);
    assert_true(query("service_requests_total{code='200'}") > 30); /* and the scrapes */
    if (SANITIZED)
        return;
    double mallocs = query("memkit_mallocs_total"), frees = query("memkit_frees_total");
    assert_true(mallocs > 500 && frees > 0 && frees < mallocs);
    assert_true(query("memkit_heap_alloc_bytes") > 10000);
}

/* Each family that the service announces is known by its type. */
static void the_types_are_what_was_announced(void)
{
    static char metrics[1 << 18];
    scrape();
    assert_true(strlen(text) < sizeof metrics);
    memcpy(metrics, text, strlen(text) + 1);
    assert_true(asked("/api/v1/metadata?limit=1000"));
    int families = 0;
    for (const char *at = metrics; (at = strstr(at, "# TYPE ")) != NULL; at++, families++) {
        char name[128], type[32], want[240];
        assert_int_equal(sscanf(at, "# TYPE %127s %31s", name, type), 2);
        snprintf(want, sizeof want, "\"%s\":[{\"type\":\"%s\",", name, type);
        if (strstr(text, want) == NULL)
            fail_msg("%s is not known as %s: %s", name, type, text);
    }
    assert_true(families > 25);
    double samples = 0;
    for (const char *line = metrics; *line != '\0'; line = strchr(line, '\n') + 1)
        samples += *line != '#';
    assert_true(query("scrape_samples_scraped") == samples); /* none was left out */
}

static void a_server_that_scrapes_knows_what_was_sent(void **state)
{
    (void)state;
    need_tool("prometheus");
    start_service("service-after", true);
    start_prometheus();
    await_query("up", 1);
    the_counters_are_what_was_sent();
    the_types_are_what_was_announced();
    assert_true(query("min_over_time(up[5m])") == 1); /* no scrape failed */
    assert_true(query("count_over_time(up[5m])") >= 2);
    assert_true(asked("/api/v1/targets?state=active"));
    if (strstr(text, "\"lastError\":\"\"") == NULL)
        fail_msg("an error: %s", text);
    if (log_text()[0] != '\0') /* nothing to warn of */
        fail_msg("Prometheus said: %s", log_text());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promtool_finds_what_is_wrong),
        cmocka_unit_test(promtool_has_no_word_for_metrics_write),
        cmocka_unit_test_teardown(promtool_has_no_word_for_the_services, stop_all),
        cmocka_unit_test_teardown(a_server_that_scrapes_knows_what_was_sent, stop_all),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
