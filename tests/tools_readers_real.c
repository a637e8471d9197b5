/* tools_readers_real.c - profiles of other programs in readers that others wrote: heaps dumped by
 * what is preloaded, beside what the program itself says that it allocates; what the service sends
 * over HTTP, of the heap and of the processor.
 */
#define _GNU_SOURCE

#include "test_service.h"

#include "tools_readers.h"

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
    return svc.pid != 0 ? service_ends_well(&svc) : 0;
}

/* Runs one of the tests' programs at rate 1; its heap at the end is the file `as`. */
static void dump(const char *program, const char *as)
{
    run("env LD_PRELOAD='%s/libmemkit-prof.so.0' MEMKIT_SAMPLE=1 MEMKIT_DUMP='%s' '%s'/tests/%s",
        build_dir(), dir, build_dir(), program);
    char *output = strdup(said);
    assert_non_null(output);
    run("sh -c 'mv heap_*_1.pb.gz %s'", as);
    strcpy(said, output);
    free(output);
}

static const char *const types[] = {"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"};

/* The number in the cumulative column of a function's row of -top. */
static long long cumulative(const char *function)
{
    char end[128];
    long long value = -1;
    snprintf(end, sizeof end, " %s\n", function);
    const char *row = strstr(said, end);
    if (row == NULL)
        fail_msg("no row of %s in: %.4000s", function, said);
    while (row > said && row[-1] != '\n')
        row--;
    assert_int_equal(sscanf(row, " %*s %*s %*s %lld", &value), 1);
    return value;
}

/* What both readers add up is the same. */
static void readers_agree(const char *file, const char *type, const char *unit)
{
    char flags[128], line[128];
    snprintf(flags, sizeof flags, "-top -unit=%s -nodefraction=0 -sample_index=%s", unit, type);
    pprof(flags, file);
    snprintf(line, sizeof line, " %lld\n", total_said());
    decode(file);
    const char *at = strstr(said, type);
    assert_non_null(at);
    at = strchr(at + strlen(type) + 1, ' ');
    assert_non_null(at);
    if (strncmp(at, line, strlen(line)) != 0)
        fail_msg("%s: pprof adds up%.*s, pprof-format%.*s", type, (int)strlen(line) - 1, line,
                 (int)strcspn(at, "\n"), at);
}

static void pprof_s_sums_are_what_the_program_says(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* nothing is sampled */
    dump("prog_prof_known 2", "known.pb.gz");
    char *truth = strdup(said), flags[128];
    assert_non_null(truth);
    for (size_t t = 0; t < 4; t++) {
        snprintf(flags, sizeof flags, "-top -cum -unit=B -nodefraction=0 -sample_index=%s",
                 types[t]);
        pprof(flags, "known.pb.gz");
        unsigned functions = 0;
        for (const char *line = truth; strncmp(line, "known_", 6) == 0; functions++) {
            char name[64];
            long long of[4];
            assert_int_equal(
                sscanf(line, "%63s %lld %lld %lld %lld", name, &of[0], &of[1], &of[2], &of[3]), 5);
            line = strchr(line, '\n') + 1;
            if (of[t] != 0 && cumulative(name) != of[t])
                fail_msg("%s of %s: %lld, in truth %lld", types[t], name, cumulative(name), of[t]);
        }
        assert_int_equal(functions, 6);
    }
    free(truth);
    readers_agree("known.pb.gz", "alloc_space", "B");
    readers_agree("known.pb.gz", "inuse_objects", "B");
}

static void pprof_traces_draws_and_compares_a_dump(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    need_tool("dot");
    dump("prog_prof_known 1", "one.pb.gz");
    dump("prog_prof_known 3", "three.pb.gz");
    pprof("-traces -sample_index=alloc_space", "one.pb.gz");
    assert_said(" known_big\n             work\n");
    pprof("-raw", "one.pb.gz");
    assert_said("PeriodType: space bytes\nPeriod: 1\n");
    pprof("-tags", "one.pb.gz");
    pprof("-svg -sample_index=alloc_space -output=one.svg", "one.pb.gz");
    run("cat one.svg");
    assert_said("known_big");
    pprof("-top -unit=B -nodefraction=0 -sample_index=alloc_space -base one.pb.gz", "one.pb.gz");
    assert_true(total_said() == 0);
    pprof("-top -cum -unit=B -nodefraction=0 -sample_index=alloc_space -diff_base one.pb.gz",
          "three.pb.gz");
    assert_true(cumulative("known_big") == 2 * (20 * 2000000 + 190)); /* two threads more */
}

static void pprof_reads_names_of_cxx(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    dump("prog_hook_cxx hooked", "cxx.pb.gz");
    pprof("-top -cum -nodefraction=0 -sample_index=alloc_space", "cxx.pb.gz");
    assert_said("std::");
    assert_null(strstr(said, " _Z"));
    readers_agree("cxx.pb.gz", "alloc_objects", "B");
}

/* ---- the service's ---- */

/* Asks for new ids for so long, in a process of its own. */
static pid_t client_for(int ms)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0)
        return pid;
    client c;
    static answer a;
    client_open(&c, &svc);
    double end = now_s() + ms / 1000.0;
    for (int i = 0; now_s() < end; i++) {
        char line[64];
        snprintf(line, sizeof line, "POST /process?id=some-id-%d-%d", (int)getpid(), i);
        ask(&c, &a, line);
    }
    _exit(0);
}

static void a_service_s_processor_time_is_read(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    need_tool("curl");
    need_tool("dot");
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", "WORK_MS=0", NULL};
    service_start(&svc, "service-before", settings);
    pid_t a = client_for(20000), b = client_for(20000);
    run("curl -sSf -o cpu.pb.gz 'http://127.0.0.1:%d/debug/pprof/profile?seconds=2'", svc.port);
    kill(a, SIGKILL);
    kill(b, SIGKILL);
    waitpid(a, NULL, 0);
    waitpid(b, NULL, 0);
    pprof("-raw", "cpu.pb.gz");
    assert_said("PeriodType: cpu nanoseconds\n");
    assert_said("samples/count cpu/nanoseconds");
    long long period = atoll(strstr(said, "\nPeriod: ") + 9);
    pprof("-top -cum -nodefraction=0 -sample_index=samples -unit=count", "cpu.pb.gz");
    long long samples = total_said();
    assert_true(samples > 0 && period > 0);
    assert_said("handler_process");
    pprof("-top -nodefraction=0 -sample_index=cpu -unit=ns", "cpu.pb.gz");
    assert_true(total_said() == samples * period);
    readers_agree("cpu.pb.gz", "samples", "count");
    pprof("-traces", "cpu.pb.gz");
    assert_said("handler_process\n");
    pprof("-svg -nodefraction=0 -nodecount=1000 -output=cpu.svg", "cpu.pb.gz");
    run("cat cpu.svg");
    assert_said("handler_process");
}

/* pprof names the file that it keeps by the program and all sample types. */
static void pprof_saves_what_it_fetches(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", "SAMPLE_RATE=1", NULL};
    static const char *const paths[] = {"heap", "allocs", "heap?seconds=1", "profile?seconds=1"};
    service_start(&svc, "service-before", settings);
    pid_t a = client_for(20000);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char url[128];
        snprintf(url, sizeof url, "'http://127.0.0.1:%d/debug/pprof/%s'", svc.port, paths[i]);
        pprof("-top", url);
        assert_said("Saved profile in ");
        assert_null(strstr(said, "Could not save"));
    }
    kill(a, SIGKILL);
    waitpid(a, NULL, 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pprof_s_sums_are_what_the_program_says),
        cmocka_unit_test(pprof_traces_draws_and_compares_a_dump),
        cmocka_unit_test(pprof_reads_names_of_cxx),
        cmocka_unit_test_teardown(a_service_s_processor_time_is_read, stop),
        cmocka_unit_test_teardown(pprof_saves_what_it_fetches, stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
