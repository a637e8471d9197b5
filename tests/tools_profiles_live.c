/* tools_profiles_live.c - the profiler is spoken to while redis, nginx and memcached serve: told by
 * a signal to dump, stopped, started and its rate changed 100 times, asked over HTTP. They must
 * answer as ever and end cleanly, and what is read must make sense beside the counters.
 */
#include "tools_profiles.h"

/* ---- while it runs --------------------------------------------------------------------------- */

static int count_dumps(pid_t pid)
{
    glob_t found;
    char pattern[4200];
    snprintf(pattern, sizeof pattern, "%s/heap_%d_*.pb.gz", in_scratch("dump"), (int)pid);
    int n = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    if (n > 0)
        globfree(&found);
    return n;
}

/* A load on redis that runs beside the test until it is ended. */
static pid_t redis_load(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/redis.sock", scratch);
    return spawn((const char *const[]){"redis-benchmark", "-s", path, "-c", "20", "-n", "100000",
                                       "-d", "200", "-r", "50000", "-t", "set,get,lpush", "-l",
                                       "-q", NULL},
                 false, NULL, in_scratch("load.out"), in_scratch("load.err"));
}

static void end_load(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0); /* it still ran */
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

static void each_signal_makes_a_dump_under_load(void **state)
{
    (void)state;
    static result answers;
    static dumps d;
    profile_at(1);
    setenv("MEMKIT_DUMP_SIGNAL", "SIGUSR2", 1);
    pid_t pid = redis_start(true), load = redis_load();
    unsetenv("MEMKIT_DUMP_SIGNAL");
    for (int i = 1; i <= 3; i++) {
        nanosleep(&(struct timespec){0, 300000000}, NULL);
        kill(pid, SIGUSR2);
        for (int k = 0; k < 100 && count_dumps(pid) < i; k++)
            nanosleep(&(struct timespec){0, 50000000}, NULL);
        assert_int_equal(count_dumps(pid), i);
    }
    end_load(load);
    redis_work(&answers);
    assert_ends(pid);
    stats_text();
    assert_int_equal(count_dumps(pid), 4);
    read_dumps(&d, NULL);
    double before = 0;
    for (size_t i = 0; i < 4; i++) {
        double objects = (double)pprof_total(d.of[i], "alloc_objects");
        printf("%s: alloc_objects %.0f\n", strrchr(d.paths[i], '/') + 1, objects);
        assert_true(objects > before);
        before = objects;
    }
    free_dumps(&d);
    profile_at(0);
}

/* ---- stopped, started, at another rate: 100 times -------------------------------------------- */

static char toggling[9000]; /* LD_PRELOAD */

static void toggle_prepare(void)
{
    snprintf(toggling, sizeof toggling, "%s:%s", in_build("libmemkit-prof.so.0"),
             in_build("tests/lib_toggle.so"));
    RUN(false, NULL, "bash", "-c", "rm -f $0/toggle.*", scratch);
    setenv("MEMKIT_TOGGLE", in_scratch("toggle"), 1);
    profile_at(1);
    preload_list = toggling;
}

static void toggle_done(void)
{
    char done[100];
    wait_until("test -s $0/toggle.done");
    slurp(in_scratch("toggle.done"), done, sizeof done);
    printf("stopped, started, at another rate: %s", done);
    assert_string_equal(done, "100 100 100 of 100\n");
    preload_list = NULL;
    unsetenv("MEMKIT_TOGGLE");
}

/* The dump is whole, and no sum below or above what can be. */
static void toggled_dump(const char *table, const char *program)
{
    static dumps d;
    figures f;
    assert_int_equal(read_tables(stats_text(), table, &f), 1);
    read_dumps(&d, program);
    assert_int_equal(d.n, 1);
    pprof_assert_sane(d.of[0]);
    double space = sum_of(&d, "alloc_space"), live = sum_of(&d, "inuse_space");
    printf("alloc_space %.0f of %llu, inuse_space %.0f of %llu\n", space, f.bytes, live, f.in_use);
    assert_true(space > 0);
    assert_true(space <= (double)f.bytes + 5 * sqrt(SPARSE * (double)f.bytes));
    assert_true(live <= (double)f.in_use + 5 * sqrt(SPARSE * (double)f.bytes));
    pprof_show(d.paths[0], "alloc_space", program);
    free_dumps(&d);
    profile_at(0);
}

static void redis_toggled_100_times(void **state)
{
    (void)state;
    static result plain, answers;
    char program[4096];
    profile_at(0);
    pid_t pid = redis_start(false);
    redis_work(&plain);
    assert_ends(pid);
    toggle_prepare();
    pid = redis_start(true);
    preload_list = NULL;
    pid_t load = redis_load();
    write_file("toggle.go", "");
    toggle_done();
    end_load(load);
    redis_work(&answers);
    assert_ends(pid);
    assert_string_equal(answers.out, plain.out);
    add_stderr(&answers, "redis.err");
    assert_string_equal(answers.err, "");
    const result *r = RUN(false, NULL, "sh", "-c", "readlink -f $(command -v redis-server)");
    snprintf(program, sizeof program, "%.*s", (int)strcspn(r->out, "\n"), r->out);
    toggled_dump("redis-server", strrchr(program, '/') + 1);
}

static void nginx_toggled_100_times(void **state)
{
    (void)state;
    static result plain, answers;
    nginx_page();
    for (int toggled = 0; toggled < 2; toggled++) {
        int port = free_port();
        if (toggled)
            toggle_prepare();
        else
            profile_at(0);
        pid_t pid = nginx_start(toggled, port, 0);
        preload_list = NULL;
        write_file("toggle.go", "");
        nginx_work(port, toggled ? &answers : &plain);
        if (toggled)
            toggle_done();
        assert_ends(pid);
    }
    assert_string_equal(answers.out, plain.out);
    toggled_dump("nginx", "nginx");
}

/* ---- asked over HTTP ------------------------------------------------------------------------- */

static void fetch(int port, const char *path, const char *file)
{
    char command[9000];
    snprintf(command, sizeof command, "curl -sf -o '%s' 'http://127.0.0.1:%d%s'", in_scratch(file),
             port, path);
    const result *r = RUN(false, NULL, "bash", "-c", command);
    assert_ran(r, 0);
}

static pprof *ask(int port, const char *path)
{
    char url[200];
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
    return pprof_read(url);
}

static void listen_at(int port)
{
    char at[40];
    snprintf(at, sizeof at, "127.0.0.1:%d", port);
    setenv("MEMKIT_LISTEN", at, 1);
    profile_at(SPARSE);
}

static void assert_flame(int port, const char *type, const char *name)
{
    static char text[4 << 20];
    char path[200];
    snprintf(path, sizeof path, "/debug/memkit/flame.svg?type=%s", type);
    fetch(port, path, "flame.svg");
    const result *r = RUN(false, NULL, "python3", "-c",
                          "import sys, xml.etree.ElementTree as t; r = t.parse(sys.argv[1])"
                          ".getroot(); print(r.tag, len(list(r.iter())))",
                          in_scratch("flame.svg"));
    assert_ran(r, 0);
    printf("flame.svg?type=%s: %s", type, r->out);
    assert_non_null(strstr(r->out, "{http://www.w3.org/2000/svg}svg"));
    slurp(in_scratch("flame.svg"), text, sizeof text);
    if (strstr(text, name) == NULL)
        fail_msg("the flame graph does not show %s", name);
}

/* Standard error has one line of ours, and no more. */
static void assert_says_where(const char *err, int port)
{
    char url[100];
    snprintf(url, sizeof url, " at http://127.0.0.1:%d/debug/pprof/\n", port);
    const char *at = strstr(err, url);
    assert_non_null(at);
    assert_int_equal(strncmp(err, "memkit: process ", 16), 0);
    assert_string_equal(at + strlen(url), "");
}

static void redis_is_asked_under_load(void **state)
{
    (void)state;
    int port = free_port();
    listen_at(port);
    pid_t pid = redis_start(true), load = redis_load();
    unsetenv("MEMKIT_LISTEN");
    nanosleep(&(struct timespec){1, 0}, NULL);
    pprof *cpu = ask(port, "/debug/pprof/profile?seconds=2");
    long long cpu_ns = pprof_total(cpu, "cpu");
    printf("CPU of redis-server in two seconds: %.2f s\n", (double)cpu_ns / 1e9);
    assert_true(cpu_ns >= 100000000 && cpu_ns <= 12000000000);
    assert_true(pprof_through(cpu, "cpu", "readQueryFromClient") >= cpu_ns / 10);
    assert_true(pprof_through(cpu, "cpu", "aeMain") >= cpu_ns / 10 * 8);
    pprof_free(cpu);
    pprof *heap = ask(port, "/debug/pprof/heap");
    pprof_assert_sane(heap);
    assert_int_equal(pprof_period(heap), SPARSE);
    double all = (double)pprof_total(heap, "alloc_space");
    assert_true((double)pprof_through(heap, "alloc_space", "main") >= all * 0.8);
    pprof_free(heap);
    pprof *delta = ask(port, "/debug/pprof/allocs?seconds=1");
    double part = (double)pprof_total(delta, "alloc_space");
    printf("redis-server allocated %.0f bytes, then %.0f in a second\n", all, part);
    assert_true(part > 0 && part < 10 * all);
    pprof_free(delta);
    assert_flame(port, "alloc_space", "readQueryFromClient");
    assert_flame(port, "inuse_space", "redis");
    char url[200];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/debug/pprof/heap", port);
    pprof_show(url, "inuse_space", "redis-server, asked");
    snprintf(url, sizeof url, "http://127.0.0.1:%d/debug/pprof/profile?seconds=1", port);
    pprof_show(url, "cpu", "redis-server, asked");
    end_load(load);
    static result answers;
    redis_work(&answers);
    assert_ends(pid);
    stats_text();
    add_stderr(&answers, "redis.err");
    assert_says_where(answers.err, port);
    profile_at(0);
}

static void memcached_is_asked_under_load(void **state)
{
    (void)state;
    static result plain, answers;
    int port = free_port(), listener = free_port();
    pid_t pid = memcached_start(false, port);
    memcached_work(port, &plain);
    assert_ends(pid);
    listen_at(listener);
    pid = memcached_start(true, port);
    unsetenv("MEMKIT_LISTEN");
    u64 slabs = memcached_work(port, &answers);
    assert_string_equal(answers.out, plain.out);
    pprof *heap = ask(listener, "/debug/pprof/heap");
    pprof_assert_sane(heap);
    assert_estimates((double)pprof_in(heap, "inuse_space", "/memcached"), (double)slabs,
                     "memcached's slabs");
    pprof_free(heap);
    assert_flame(listener, "inuse_space", "memcached");
    fetch(listener, "/metrics", "metrics");
    assert_ends(pid);
    stats_text();
    add_stderr(&answers, "memcached.err");
    assert_says_where(answers.err, listener);
    profile_at(0);
}

int main(void)
{
    if (!prepare() || SANITIZED) {
        fprintf(stderr, "a sanitizer's malloc must be the first: build without SAN\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_signal_makes_a_dump_under_load),
        cmocka_unit_test(redis_toggled_100_times),
        cmocka_unit_test(nginx_toggled_100_times),
        cmocka_unit_test(redis_is_asked_under_load),
        cmocka_unit_test(memcached_is_asked_under_load),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
