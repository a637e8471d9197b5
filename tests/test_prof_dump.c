/* test_prof_dump.c - the profiler started by the environment, and its files: at exit, on a signal,
 * in children; and what is said where it cannot be. Programs with the hook preloaded and linked.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <zlib.h>

#include "test_hook.h"

#include "prog_prof_dump.c"

#include "prof/env.h"

static char dump_dir[1024];
static const char *linked_self; /* this program, which has the hook linked in */

/* ---- values
 * -------------------------------------------------------------------------------------- */

static void bytes_are_digits_and_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes; /* 0: refused */
    } cases[] = {{"1", 1},
                 {"524288", 524288},
                 {"512KiB", 524288},
                 {"512K", 524288},
                 {"2M", 2u << 20},
                 {"1GiB", 1u << 30},
                 {"0", 0},
                 {"", 0},
                 {"-1", 0},
                 {" 1", 0},
                 {"+1", 0},
                 {"1 ", 0},
                 {"1e6", 0},
                 {"0x10", 0},
                 {"KiB", 0},
                 {"5KB", 0},
                 {"18446744073709551616", 0},
                 {"9223372036854775808", 0},
                 {"17179869184G", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = 0;
        assert_int_equal(memkit__env_bytes(cases[i].text, &n), cases[i].bytes != 0);
        if (cases[i].bytes != 0)
            assert_int_equal(n, cases[i].bytes);
    }
}

static void signals_have_names_and_numbers(void **state)
{
    (void)state;
    assert_int_equal(memkit__env_signal("SIGUSR2"), SIGUSR2);
    assert_int_equal(memkit__env_signal("USR2"), SIGUSR2);
    assert_int_equal(memkit__env_signal("usr1"), SIGUSR1);
    assert_int_equal(memkit__env_signal("12"), 12);
    assert_int_equal(memkit__env_signal("RTMIN"), SIGRTMIN);
    assert_int_equal(memkit__env_signal("SIGRTMIN+3"), SIGRTMIN + 3);
    assert_int_equal(memkit__env_signal("RTMAX-1"), SIGRTMAX - 1);
    static const char *const none[] = {"",        "0",       "65",  "9",        "KILL",
                                       "SIGSTOP", "11",      "32",  "27",       "SIGPROF",
                                       "-12",     "12x",     "SIG", "USR3",     "RTMIN+x",
                                       "abc",     "RTMIN-1", " 12", "RTMAX-99", "4294967308"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (memkit__env_signal(none[i]) != 0)
            fail_msg("'%s' is %d", none[i], memkit__env_signal(none[i]));
}

static void foreign_handler(int sig)
{
    (void)sig;
}

static void a_signal_that_has_a_handler_is_left_to_it(void **state)
{
    (void)state;
    struct sigaction now;
    int err = dup(STDERR_FILENO), file = open(in_scratch("said"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    char text[512];
    assert_int_not_equal(signal(SIGUSR1, foreign_handler), SIG_ERR);
    dup2(file, STDERR_FILENO);
    bool on = memkit__dump_on(SIGUSR1, "USR1");
    dup2(err, STDERR_FILENO);
    close(err);
    close(file);
    assert_false(on);
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_ptr_equal(now.sa_handler, foreign_handler);
    signal(SIGUSR1, SIG_DFL);
    slurp(in_scratch("said"), text, sizeof text);
    assert_string_equal(text,
                        "memkit: MEMKIT_DUMP_SIGNAL=USR1: the program has a handler of its own "
                        "for it; no profile on a signal\n");
}

/* ---- programs
 * ------------------------------------------------------------------------------------ */

/* Sets what the next program finds; NULL ends the list of names and values. */
static void environment(const char *first, ...)
{
    static const char *const all[] = {"MEMKIT_SAMPLE", "MEMKIT_DUMP", "MEMKIT_DUMP_SIGNAL",
                                      "MEMKIT_LABEL_THREADS", "MEMKIT_PROF_MAX_BYTES"};
    va_list ap;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        unsetenv(all[i]);
    va_start(ap, first);
    for (const char *name = first; name != NULL; name = va_arg(ap, const char *))
        setenv(name, va_arg(ap, const char *), 1);
    va_end(ap);
}

static void fresh_dump_dir(void)
{
    snprintf(dump_dir, sizeof dump_dir, "%s", in_scratch("dumps"));
    RUN(false, NULL, "rm", "-rf", dump_dir);
    assert_int_equal(mkdir(dump_dir, 0700), 0);
}

/* How many files are there, and the one whose name is greatest. */
static int files(char last[4096])
{
    int n = 0;
    DIR *d = opendir(dump_dir);
    assert_non_null(d);
    last[0] = '\0';
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dump_dir, e->d_name);
        if (strcmp(path, last) > 0)
            strcpy(last, path);
    }
    closedir(d);
    return n;
}

/* True where the profile is whole and its strings hold the text. */
static bool profile_has(const char *path, const char *text)
{
    static char data[1 << 20];
    gzFile f = gzopen(path, "rb");
    assert_non_null(f);
    int n = gzread(f, data, sizeof data);
    assert_in_range(n, 100, sizeof data - 1); /* -1 where the end is missing */
    assert_int_equal(gzclose(f), Z_OK);
    return memmem(data, (size_t)n, text, strlen(text)) != NULL;
}

static const result *run_program(const char *mode)
{
    return RUN(true, NULL, in_build("tests/prog_prof_dump"), mode);
}

static void expect_one_profile(long pid)
{
    char path[4096], expected[4200];
    assert_int_equal(files(path), 1);
    if (pid != 0) {
        snprintf(expected, sizeof expected, "%s/heap_%ld_1.pb.gz", dump_dir, pid);
        assert_string_equal(path, expected);
    }
    assert_true(profile_has(path, "allocates_for_the_profile"));
}

static void a_profile_comes_at_exit(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    static const char *const modes[] = {"return", "exit", "chdir"};
    for (int i = 0; i < 3; i++) {
        fresh_dump_dir();
        environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
        const result *r = run_program(modes[i]);
        assert_ran(r, i == 1 ? 7 : 0);
        assert_string_equal(r->err, "");
        expect_one_profile(0);
    }
}

static void without_a_rate_it_samples_at_the_default(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096];
    fresh_dump_dir();
    environment("MEMKIT_DUMP", dump_dir, NULL);
    assert_ran(run_program("return"), 0);
    assert_int_equal(files(path), 1);
    assert_true(profile_has(path, "inuse_space"));
}

static void a_relative_directory_is_that_of_the_start(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    fresh_dump_dir();
    assert_int_equal(chdir(scratch), 0);
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", "dumps", NULL);
    char program[8192];
    snprintf(program, sizeof program, "%s%s%s", build[0] == '/' ? "" : before,
             build[0] == '/' ? "" : "/", in_build("tests/prog_prof_dump"));
    const result *r = RUN(true, NULL, program, "chdir");
    assert_int_equal(chdir(before), 0);
    assert_ran(r, 0);
    expect_one_profile(0);
}

static void a_program_that_links_the_hook_does_the_same(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
    assert_ran(RUN(false, NULL, linked_self, "--program", "exit"), 7);
    expect_one_profile(0);
}

static void what_does_not_exit_leaves_nothing(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096];
    static const char *const modes[] = {"_exit", "abort", "kill"};
    static const int codes[] = {7, 128 + SIGABRT, 128 + SIGTERM};
    for (int i = 0; i < 3; i++) {
        fresh_dump_dir();
        environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
        assert_int_equal(run_program(modes[i])->code, codes[i]);
        assert_int_equal(files(path), 0);
    }
}

static void a_child_writes_its_own(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096], childs[4200];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
    const result *r = run_program("fork");
    assert_ran(r, 0);
    assert_int_equal(files(path), 2);
    snprintf(childs, sizeof childs, "%s/heap_%ld_1.pb.gz", dump_dir, strtol(r->out, NULL, 10));
    assert_true(profile_has(childs, "allocates_in_the_child"));
    assert_true(profile_has(childs, "allocates_for_the_profile"));
    RUN(false, NULL, "rm", childs);
    assert_int_equal(files(path), 1);
    assert_true(profile_has(path, "allocates_for_the_profile"));
    assert_false(profile_has(path, "allocates_in_the_child"));
}

static void a_program_that_is_executed_has_it_from_the_environment(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
    /* env executes the program in its own process: one exit, one profile. */
    assert_ran(RUN(true, NULL, "env", in_build("tests/prog_prof_dump"), "exit"), 7);
    assert_int_equal(files(path), 1);
    assert_true(profile_has(path, "allocates_for_the_profile"));
}

/* ---- on a signal
 * --------------------------------------------------------------------------------- */

typedef struct {
    pid_t pid;
    int in;
    FILE *out;
} waiting;

static waiting start_waiting(const char *mode)
{
    int in[2], out[2];
    waiting w;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    w.pid = fork();
    assert_true(w.pid >= 0);
    if (w.pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        setenv("LD_PRELOAD", in_build("libmemkit-prof.so.0"), 1);
        execl(in_build("tests/prog_prof_dump"), "prog_prof_dump", mode, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    w.in = in[1];
    w.out = fdopen(out[0], "r");
    assert_non_null(w.out);
    return w;
}

static void await_line(waiting *w, char line[64])
{
    assert_non_null(fgets(line, 64, w->out));
}

static int stop_waiting(waiting *w)
{
    close(w->in);
    fclose(w->out);
    return exit_code(w->pid);
}

/* Waits for the file; names are only given to whole ones, so it may be read at once. */
static void await_file(const char *path)
{
    for (int i = 0; i < 2000 && access(path, R_OK) != 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    assert_int_equal(access(path, R_OK), 0);
}

static void each_signal_brings_one(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096], line[64], last[4096];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "USR2", NULL);
    waiting w = start_waiting("wait");
    await_line(&w, line);
    assert_string_equal(line, "ready\n");
    assert_int_equal(files(last), 0);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(kill(w.pid, SIGUSR2), 0);
        snprintf(path, sizeof path, "%s/heap_%ld_%d.pb.gz", dump_dir, (long)w.pid, i);
        await_file(path);
        assert_true(profile_has(path, "allocates_for_the_profile"));
    }
    assert_int_equal(stop_waiting(&w), 0);
    assert_int_equal(files(last), 4);
}

static void a_child_answers_the_signal_too(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096], line[64];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "12", NULL);
    waiting w = start_waiting("child-waits");
    await_line(&w, line);
    pid_t child = (pid_t)strtol(line, NULL, 10);
    await_line(&w, line);
    assert_int_equal(kill(child, SIGUSR2), 0);
    snprintf(path, sizeof path, "%s/heap_%ld_1.pb.gz", dump_dir, (long)child);
    await_file(path);
    assert_true(profile_has(path, "allocates_in_the_child"));
    assert_int_equal(stop_waiting(&w), 0);
}

static void a_file_that_exists_stays(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096], line[64], text[64];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "USR2", NULL);
    waiting w = start_waiting("wait");
    await_line(&w, line);
    snprintf(path, sizeof path, "%s/heap_%ld_1.pb.gz", dump_dir, (long)w.pid);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "precious", 8), 8);
    close(fd);
    assert_int_equal(stop_waiting(&w), 0);
    slurp(path, text, sizeof text);
    assert_string_equal(text, "precious");
    snprintf(path, sizeof path, "%s/heap_%ld_2.pb.gz", dump_dir, (long)w.pid);
    assert_true(profile_has(path, "allocates_for_the_profile"));
}

static void the_program_has_no_signal_of_ours_blocked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char line[64], path[128], status[4096];
    fresh_dump_dir();
    environment("MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "USR2", NULL);
    waiting w = start_waiting("wait");
    await_line(&w, line);
    snprintf(path, sizeof path, "/proc/%ld/status", (long)w.pid);
    slurp(path, status, sizeof status);
    assert_non_null(strstr(status, "SigBlk:\t0000000000000000"));
    const char *caught = strstr(status, "SigCgt:\t");
    assert_non_null(caught);
    /* Of the signals that have names; the C library's own are among the others. */
    assert_int_equal(strtoull(caught + 8, NULL, 16) & 0x7fffffff, 1u << (SIGUSR2 - 1));
    assert_int_equal(stop_waiting(&w), 0);
}

/* ---- trouble
 * ------------------------------------------------------------------------------------- */

static void expect_said(const char *said, int profiles)
{
    char path[4096];
    const result *r = run_program("exit");
    assert_int_equal(r->code, 7);
    if (strstr(r->err, said) == NULL)
        fail_msg("'%s' instead of '%s'", r->err, said);
    const char *end = strchr(r->err, '\n');
    assert_non_null(end);
    assert_string_equal(end, "\n"); /* one line */
    assert_int_equal(files(path), profiles);
}

static void values_that_mean_nothing_are_said_and_the_program_runs_on(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    fresh_dump_dir();
    static const char *const rates[] = {"0", "often", "-5", "512KB", "99999999999999999999"};
    for (int i = 0; i < 5; i++) {
        char said[128];
        environment("MEMKIT_SAMPLE", rates[i], "MEMKIT_DUMP", dump_dir, NULL);
        snprintf(said, sizeof said, "MEMKIT_SAMPLE=%s: ", rates[i]);
        expect_said(said, 0);
    }
    environment("MEMKIT_DUMP", dump_dir, "MEMKIT_PROF_MAX_BYTES", "much", NULL);
    expect_said("MEMKIT_PROF_MAX_BYTES=much: ", 0);
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_PROF_MAX_BYTES", "1000", NULL);
    expect_said("MEMKIT_PROF_MAX_BYTES=1000: ", 0);
    environment("MEMKIT_DUMP", dump_dir, "MEMKIT_LABEL_THREADS", "yes", NULL);
    expect_said("MEMKIT_LABEL_THREADS=yes: ", 0);
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP_SIGNAL", "USR2", NULL);
    expect_said("MEMKIT_DUMP_SIGNAL without MEMKIT_DUMP", 0);
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "KILL", NULL);
    expect_said("MEMKIT_DUMP_SIGNAL=KILL: ", 1);
}

static void empty_values_are_none(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "", "MEMKIT_DUMP", "", "MEMKIT_DUMP_SIGNAL", "", NULL);
    const result *r = run_program("exit");
    assert_int_equal(r->code, 7);
    assert_string_equal(r->err, "");
    assert_int_equal(files(path), 0);
}

static void places_where_nothing_can_be_written_are_said(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", "/nowhere/at/all", NULL);
    expect_said("MEMKIT_DUMP=/nowhere/at/all: No such file or directory", 0);
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", "/dev/null", NULL);
    expect_said("MEMKIT_DUMP=/dev/null: Not a directory", 0);
    static char deep[6000];
    memset(deep, 'd', sizeof deep - 1);
    deep[0] = '/';
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", deep, NULL);
    expect_said("MEMKIT_DUMP: the directory's name is too long", 0);
    /* A directory that takes no files, whoever asks. */
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", "/proc/self", NULL);
    expect_said("MEMKIT_DUMP=/proc/self: a profile: ", 0);
}

static void a_file_that_may_not_grow_leaves_nothing(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char path[4096];
    fresh_dump_dir();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", dump_dir, NULL);
    /* As a full disk: a first byte is one too many. What is said goes to a pipe, which may grow. */
    const result *r =
        RUN(false, NULL, "sh", "-c",
            "(trap '' XFSZ; ulimit -f 0; LD_PRELOAD=$0 \"$1\" exit 2>&1; echo code $?) "
            "| (read line; read code; test \"$code\" = 'code 7' && echo \"$line\")",
            in_build("libmemkit-prof.so.0"), in_build("tests/prog_prof_dump"));
    assert_ran(r, 0);
    assert_non_null(strstr(r->out, ": a profile: File too large"));
    assert_int_equal(files(path), 0);
}

static void it_is_said_also_where_the_program_closed_its_standard_error(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    environment("MEMKIT_SAMPLE", "1", "MEMKIT_DUMP", "/proc/self", NULL);
    const result *r = run_program("closed");
    assert_int_equal(r->code, 0);
    assert_non_null(strstr(r->err, "MEMKIT_DUMP=/proc/self: a profile: "));
}

/* Our threads take no signals, so that one left alone would be there for good. */
static void a_program_that_all_its_threads_have_left_ends(void **state)
{
    (void)state;
    char last[4096];
    NEEDS_PRELOAD();
    fresh_dump_dir();
    environment("MEMKIT_DUMP", dump_dir, "MEMKIT_DUMP_SIGNAL", "USR2", NULL);
    assert_ran(
        RUN(true, NULL, "timeout", "-s", "KILL", "10", in_build("tests/prog_prof_dump"), "threads"),
        0);
    assert_true(files(last) >= 1);
    environment("MEMKIT_SAMPLE", "1", NULL);
    setenv("MEMKIT_LISTEN", "127.0.0.1:0", 1);
    const result *r =
        RUN(true, NULL, "timeout", "-s", "KILL", "10", in_build("tests/prog_prof_dump"), "threads");
    unsetenv("MEMKIT_LISTEN");
    assert_int_equal(r->code, 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--program") == 0)
        return dump_program(argv[2]);
    if (!prepare())
        return 1;
    linked_self = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_digits_and_a_unit),
        cmocka_unit_test(signals_have_names_and_numbers),
        cmocka_unit_test(a_signal_that_has_a_handler_is_left_to_it),
        cmocka_unit_test(a_profile_comes_at_exit),
        cmocka_unit_test(without_a_rate_it_samples_at_the_default),
        cmocka_unit_test(a_relative_directory_is_that_of_the_start),
        cmocka_unit_test(a_program_that_links_the_hook_does_the_same),
        cmocka_unit_test(what_does_not_exit_leaves_nothing),
        cmocka_unit_test(a_child_writes_its_own),
        cmocka_unit_test(a_program_that_is_executed_has_it_from_the_environment),
        cmocka_unit_test(each_signal_brings_one),
        cmocka_unit_test(a_child_answers_the_signal_too),
        cmocka_unit_test(a_file_that_exists_stays),
        cmocka_unit_test(the_program_has_no_signal_of_ours_blocked),
        cmocka_unit_test(values_that_mean_nothing_are_said_and_the_program_runs_on),
        cmocka_unit_test(empty_values_are_none),
        cmocka_unit_test(places_where_nothing_can_be_written_are_said),
        cmocka_unit_test(a_file_that_may_not_grow_leaves_nothing),
        cmocka_unit_test(it_is_said_also_where_the_program_closed_its_standard_error),
        cmocka_unit_test(a_program_that_all_its_threads_have_left_ends),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
