/* test_hook.c - libmemkit-prof: linked into this very program (the static archive, exported by
 * --export-dynamic-symbol), and preloaded into the programs tests/prog_hook_*.c and into real ones.
 *
 * The checks of the malloc family and of threads are those programs'; they run here once more,
 * linked. Environment: MEMKIT_BUILD, the build's directory; MEMKIT_SAN, the sanitizers of this
 * build.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#define INCLUDED_BY_A_TEST
#include "prog_hook_threads.c"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "hook/counters.h"

/* ---- running programs ------------------------------------------------------------------------ */

static const char *build;
static char scratch[] = "/tmp/memkit-hook-XXXXXX";

typedef struct {
    int code; /* exit code; 128 + signal */
    char out[65536], err[65536];
} result;

static const char *in_build(const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", build, name);
    return path;
}

static const char *in_scratch(const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static void slurp(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, room - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* Runs argv; `preload` puts the hook in front, `stats` is MEMKIT_STATS unless NULL. */
static const result *run(const char *const argv[], bool preload, const char *stats)
{
    static result r;
    char out[4096], err[4096];
    snprintf(out, sizeof out, "%s/out", scratch);
    snprintf(err, sizeof err, "%s/err", scratch);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(o, STDOUT_FILENO);
        dup2(e, STDERR_FILENO);
        close(o);
        close(e);
        unsetenv("MEMKIT_STATS");
        setenv("LC_ALL", "C", 1);
        if (stats != NULL)
            setenv("MEMKIT_STATS", stats, 1);
        if (preload)
            setenv("LD_PRELOAD", in_build("libmemkit-prof.so.0"), 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    slurp(out, r.out, sizeof r.out);
    slurp(err, r.err, sizeof r.err);
    return &r;
}

#define RUN(preload, stats, ...) run((const char *const[]){__VA_ARGS__, NULL}, preload, stats)

static void assert_ran(const result *r, int code)
{
    if (r->code != code)
        print_error("exit code %d: %s\n", r->code, r->err);
    assert_int_equal(r->code, code);
}

static bool present(const char *program)
{
    const result *r = RUN(false, NULL, "sh", "-c", "command -v \"$0\"", program);
    return r->code == 0;
}

/* The sanitizers' own malloc must come first in the process, so nothing can be preloaded before it.
 */
#define NEEDS_PRELOAD() \
    do {                \
        if (SANITIZED)  \
            skip();     \
    } while (0)

/* ---- linked: calls and threads --------------------------------------------------------------- */

static void linked_it_counts_the_family_exactly(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* their malloc answers failing calls and alignments in its own way */
    for (size_t i = 0; i < FAMILY_CHECKS; i++)
        if (!family[i].run())
            fail_msg("failed: %s", family[i].name);
}

static void linked_it_counts_threads_exactly(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    for (size_t i = 0; i < THREAD_CHECKS; i++)
        if (!threaded[i].run())
            fail_msg("failed: %s", threaded[i].name);
}

static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;
static const memkit__block *seen[64];
static unsigned n_seen;

static void see_block(void)
{
    const memkit__block *b = memkit__me.block;
    pthread_mutex_lock(&seen_lock);
    unsigned i = 0;
    while (i < n_seen && seen[i] != b)
        i++;
    if (i == n_seen && n_seen < 64)
        seen[n_seen++] = b;
    pthread_mutex_unlock(&seen_lock);
}

static void ten_thousand_short_threads_share_a_handful_of_blocks(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    n_seen = 0;
    short_thread_seen = see_block;
    assert_true(ten_thousand_short_threads_leave_no_drift());
    short_thread_seen = NULL;
    /* 8 at once, those that joined but are still dying, and the place-holder of the very short */
    assert_true(n_seen >= 2 && n_seen <= 20);
}

static void *first_calls_keep_errno(void *arg)
{
    int *wrong = arg;
    for (int i = 0; i < 40; i++) {
        errno = 4711;
        void *volatile p = malloc(40000);
        *wrong += errno != 4711;
        free(p);
        *wrong += errno != 4711;
    }
    return NULL;
}

static void taking_a_block_keeps_errno(void **state)
{
    (void)state;
    int wrong = 0;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, first_calls_keep_errno, &wrong), 0);
    pthread_join(t, NULL);
    assert_int_equal(wrong, 0);
}

static void the_core_finds_the_hook_and_reads_it(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    memkit_thread_allocs_t t0, t1;
    assert_int_equal(memkit_thread_allocs(&t0), 1);
    void *volatile p = malloc(100);
    size_t usable = malloc_usable_size(p);
    free(p);
    assert_int_equal(memkit_thread_allocs(&t1), 1);
    assert_int_equal(t1.mallocs - t0.mallocs, 1);
    assert_int_equal(t1.frees - t0.frees, 1);
    assert_int_equal(t1.bytes - t0.bytes, usable);
    memkit_memstats_t m0, m1;
    memkit_memstats(&m0);
    p = malloc(1000000);
    usable = malloc_usable_size(p);
    memkit_memstats(&m1);
    assert_true(m0.hooked);
    assert_int_equal(m1.mallocs - m0.mallocs, 1);
    assert_int_equal(m1.frees, m0.frees);
    assert_int_equal(m1.alloc_bytes - m0.alloc_bytes, usable);
    assert_int_equal(m1.total_alloc_bytes - m0.total_alloc_bytes, usable);
    assert_true(m1.peak_alloc_bytes >= m1.alloc_bytes);
    free(p);
}

/* ---- peak ------------------------------------------------------------------------------------ */

#define SLACK ((uint64_t)64 * 1024)

static uint64_t live_now(void)
{
    memkit__counts c;
    memkit__process_counts(&c);
    return c.alloc_bytes - c.freed_bytes;
}

static uint64_t peak_now(void)
{
    memkit__counts c;
    memkit__process_counts(&c);
    return c.peak_bytes;
}

/* Blocks of every size up to a new peak, which is then known to the byte; and down again. */
static void peak_is_never_below_the_truth_and_at_most_64_KiB_above(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    static void *blocks[4000];
    uint64_t most = live_now();
    for (size_t i = 0; i < 4000; i++) {
        blocks[i] = malloc(i * 7 % 3000);
        uint64_t live = live_now(), peak = peak_now();
        most = live > most ? live : most;
        assert_true(peak >= most);
        assert_true(peak <= most + SLACK);
        if (i % 3 == 2) {
            free(blocks[i - 1]);
            blocks[i - 1] = NULL;
        }
    }
    for (size_t i = 0; i < 4000; i++)
        free(blocks[i]);
    free(top);
    assert_true(peak_now() >= most);
    assert_true(peak_now() <= most + SLACK);
}

static pthread_barrier_t all_hold, all_may_go;

static void *holds_some(void *arg)
{
    void *held[500];
    (void)arg;
    for (int i = 0; i < 500; i++)
        held[i] = malloc((size_t)i * 13);
    pthread_barrier_wait(&all_hold);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 500; i++)
        free(held[i]);
    return NULL;
}

static void peak_holds_over_threads_and_their_room_comes_back(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    assert_true(ten_thousand_short_threads_leave_no_drift()); /* leaves no room reserved */
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    free(top);
    uint64_t before = peak_now();
    top = malloc(before - live_now() + 1000000);
    pthread_t t[6];
    pthread_barrier_init(&all_hold, NULL, 7);
    pthread_barrier_init(&all_may_go, NULL, 7);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&t[i], NULL, holds_some, NULL), 0);
    pthread_barrier_wait(&all_hold);
    uint64_t most = live_now(), peak = peak_now();
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_true(most > before + 6 * 500 * 250 * 13); /* so it is this peak that was measured */
    assert_true(peak >= most);
    assert_true(peak <= most + 7 * SLACK);
    free(top);
    /* one thread is left: the next peak is within its own 64 KiB again */
    top = malloc(peak - live_now() + 1000000);
    assert_true(peak_now() >= live_now());
    assert_true(peak_now() <= live_now() + SLACK);
    free(top);
}

/* ---- fork, signals --------------------------------------------------------------------------- */

static int child_counts(void)
{
    memkit__counts before, after;
    memkit__process_counts(&before);
    start();
    void *p = got(malloc(hundred));
    if (!agreed())
        return 1;
    free(gone(p));
    if (!agreed())
        return 2;
    if (!eight_busy_threads_are_counted_exactly()) /* takes the blocks of threads left behind */
        return 3;
    memkit__process_counts(&after);
    if (after.mallocs < before.mallocs + 700000)
        return 4;
    void *volatile top = malloc(peak_now() - live_now() + 1000000);
    (void)top;
    return peak_now() >= live_now() && peak_now() <= live_now() + SLACK ? 0 : 5;
}

static void *waits_with_a_block(void *arg)
{
    (void)arg;
    void *held[20];
    for (int i = 0; i < 20; i++)
        held[i] = malloc(1000);
    pthread_barrier_wait(&all_hold);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 20; i++)
        free(held[i]);
    return NULL;
}

static void a_forked_child_goes_on_counting(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    pthread_t t[3];
    pthread_barrier_init(&all_hold, NULL, 4);
    pthread_barrier_init(&all_may_go, NULL, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, waits_with_a_block, NULL), 0);
    pthread_barrier_wait(&all_hold);
    memkit__counts parent, now;
    memkit__process_counts(&parent);
    pid_t pid = fork();
    if (pid == 0) {
        memkit__process_counts(&now);
        if (now.mallocs < parent.mallocs || now.alloc_bytes < parent.alloc_bytes)
            _exit(6); /* the memory of the other threads is the child's too */
        _exit(child_counts());
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    pthread_barrier_wait(&all_may_go);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}

static volatile sig_atomic_t interrupted;

static void count_in_handler(int signo)
{
    (void)signo;
    interrupted = interrupted + 1;
    for (int i = 0; i < 50; i++)
        memkit__count_malloc(4000);
    for (int i = 0; i < 50; i++)
        memkit__count_free(4000);
}

/* malloc itself may not be called in a handler; but a program that does gets right counts, if its
 * malloc survives. So it is the counting alone that is interrupted here, anywhere in it. */
static void a_signal_in_the_middle_loses_no_count(void **state)
{
    (void)state;
#if !defined(__x86_64__)
    skip(); /* three instructions to a count elsewhere */
#endif
    if (SANITIZED)
        skip(); /* thread's delivers a signal only at calls that it intercepts */
    struct sigaction act = {.sa_handler = count_in_handler}, old;
    struct itimerspec soon = {{0, 50000}, {0, 50000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    sigaction(SIGALRM, &act, &old);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    interrupted = 0;
    memkit__counts before, after;
    memkit__thread_counts(&before);
    uint64_t live = live_now(), calls = 0;
    timer_settime(timer, 0, &soon, NULL);
    while (interrupted < 2000) {
        for (int i = 0; i < 1000; i++) {
            memkit__count_malloc(5000);
            memkit__count_free(5000);
        }
        calls += 1000;
    }
    timer_delete(timer);
    memkit__thread_counts(&after);
    sigaction(SIGALRM, &old, NULL);
    calls += (uint64_t)interrupted * 50;
    assert_int_equal(after.mallocs - before.mallocs, calls);
    assert_int_equal(after.frees - before.frees, calls);
    assert_int_equal(live_now(), live);
    assert_true(peak_now() >= live_now());
}

/* ---- attaching ------------------------------------------------------------------------------- */

static void attach_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    memkit__core_table core = fake_core;
    assert_null(memkit_prof_attach(NULL));
    core.abi = MEMKIT__ATTACH_ABI + 1;
    assert_null(memkit_prof_attach(&core));
    core.abi = MEMKIT__ATTACH_ABI;
    core.size = offsetof(memkit__core_table, each_object);
    assert_null(memkit_prof_attach(&core));
    core.size = sizeof core + 64; /* a newer one */
    const memkit__prof_table *table = memkit_prof_attach(&core);
    assert_non_null(table);
    assert_int_equal(table->abi, MEMKIT__ATTACH_ABI);
    assert_int_equal(table->size, sizeof *table);
    table->detach(&core);
}

static void sixteen_cores_have_a_place(void **state)
{
    (void)state;
    memkit__core_table core[17];
    int placed = 0;
    for (int i = 0; i < 17; i++) {
        core[i] = fake_core;
        if (memkit_prof_attach(&core[i]) != NULL)
            placed++;
    }
    /* this program's own libmemkit has one, and so has fake_core */
    assert_int_equal(placed, 14);
    assert_non_null(memkit_prof_attach(&core[3])); /* again: no second place */
    prof->detach(&core[5]);
    assert_non_null(memkit_prof_attach(&core[16]));
    for (int i = 0; i < 17; i++)
        prof->detach(&core[i]);
}

/* ---- preloaded ------------------------------------------------------------------------------- */

static void preloaded_it_counts_the_family_exactly(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_family")), 0);
}

static void preloaded_it_counts_threads_exactly(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_threads")), 0);
}

static void a_non_pie_program_is_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(false, NULL, "readelf", "-hW", in_build("tests/prog_hook_nopie"));
    if (r->code == 0)
        assert_non_null(strstr(r->out, "EXEC (Executable file)"));
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_nopie")), 0);
}

static void blocks_that_dlsym_itself_allocates_live_and_are_freed(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_boot")), 0);
}

static void a_program_with_its_own_malloc_is_not_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_ownmalloc")), 0);
}

static void loaded_by_dlopen_it_hooks_nothing_and_says_so(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(false, NULL, in_build("tests/prog_hook_family"), "dlopen",
                   in_build("libmemkit-prof.so.0")),
               0);
}

static void same_with_and_without(const char *const argv[])
{
    static result plain;
    plain = *run(argv, false, NULL);
    const result *hooked = run(argv, true, in_scratch("stats"));
    assert_int_equal(hooked->code, plain.code);
    assert_string_equal(hooked->out, plain.out);
    assert_string_equal(hooked->err, plain.err);
    assert_true(plain.out[0] != '\0' || plain.code == 0);
    char table[4096];
    slurp(in_scratch("stats"), table, sizeof table);
    unlink(in_scratch("stats"));
    unsigned long long mallocs_said = 0;
    const char *line = strstr(table, "\n  mallocs ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " mallocs %llu", &mallocs_said), 1);
    assert_true(mallocs_said > 10);
}

static void ls_and_sort_do_as_ever(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    same_with_and_without((const char *const[]){"ls", "-la", "/usr/bin", NULL});
    same_with_and_without((const char *const[]){"ls", "/does/not/exist", "/usr", NULL});
    FILE *f = fopen(in_scratch("lines"), "w");
    assert_non_null(f);
    uint64_t seed = 1;
    for (int i = 0; i < 3000; i++)
        fprintf(f, "%llx\n", (unsigned long long)next_random(&seed));
    fclose(f);
    same_with_and_without((const char *const[]){"sort", "--parallel=2", in_scratch("lines"), NULL});
}

static void the_compiler_does_as_ever(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    if (!present("cc"))
        skip();
    FILE *f = fopen(in_scratch("a.c"), "w");
    assert_non_null(f);
    fputs("#include <stdio.h>\nint main(void) { return puts(\"x\") < 0; }\n", f);
    fclose(f);
    static const char command[] =
        "cd \"$0\" && cc -O2 -c a.c -o a.o && cksum < a.o && cc -c b.c"; /* and one that fails */
    const char *const argv[] = {"sh", "-c", command, scratch, NULL};
    static result plain;
    plain = *run(argv, false, NULL);
    const result *r = run(argv, true, NULL);
    assert_int_equal(r->code, plain.code);
    assert_string_equal(r->out, plain.out);
    assert_string_equal(r->err, plain.err);
    assert_true(plain.out[0] != '\0');
}

/* ---- MEMKIT_STATS ---------------------------------------------------------------------------- */

static unsigned long long figure(const char *table, const char *label)
{
    char line[64];
    unsigned long long n = ~0ull;
    snprintf(line, sizeof line, "\n  %s ", label);
    const char *at = strstr(table, line);
    if (at == NULL || sscanf(at + strlen(line), " %llu", &n) != 1)
        fail_msg("no '%s' in the table:\n%s", label, table);
    return n;
}

/* The table, against what the program read just before its end. */
static void assert_table(const char *table, const char *said)
{
    unsigned long long mallocs_said, frees_said, total, live, peak;
    assert_int_equal(
        sscanf(said, "%llu %llu %llu %llu %llu", &mallocs_said, &frees_said, &total, &live, &peak),
        5);
    assert_ptr_equal(strstr(table, "memkit: prog_hook_exit, process "), table);
    assert_int_equal(figure(table, "mallocs"), mallocs_said);
    assert_int_equal(figure(table, "frees"), frees_said);
    assert_int_equal(figure(table, "allocated in total"), total);
    assert_int_equal(figure(table, "in use at exit"), live);
    assert_int_equal(figure(table, "peak"), peak);
    assert_true(live >= 100 * 100 && peak >= 10000000 && total >= peak);
    unsigned long long rss = figure(table, "RSS peak");
    assert_true(rss > 500000 && rss < 500000000);
}

static void stats_1_prints_a_table_to_standard_error(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const char *program = in_build("tests/prog_hook_exit");
    const result *r = RUN(true, "1", program);
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    assert_null(strstr(r->err, "held"));
    r = RUN(true, "1", program, "close"); /* as ls does: its own descriptor 2 is another file's */
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    r = RUN(true, "1", program, "quick");
    assert_ran(r, 0);
    assert_string_equal(r->err, "");
}

static void stats_table_has_a_line_for_each_object(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(true, "1", in_build("tests/prog_hook_exit"), "rows");
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    const char *line = strstr(r->err, "\n  pool stays ");
    assert_non_null(line);
    int a = 0, b = 0;
    assert_int_equal(sscanf(line, " pool stays %d bytes live %d held", &a, &b), 2);
    assert_true(a == 111 && b == 222);
    line = strstr(r->err, "\n  arena left-early ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " arena left-early %d bytes live %d held", &a, &b), 2);
    assert_true(a == 444 && b == 555);
    assert_non_null(strstr(r->err, "\n  lru "));
}

/* This program, started again, makes real ones: see main. */
static void stats_table_shows_the_cores_own_objects(void **state)
{
    (void)state;
    const result *r = RUN(false, "1", "/proc/self/exe", "--objects");
    assert_ran(r, 0);
    const char *line = strstr(r->err, "\n  pool fish ");
    assert_non_null(line);
    int live = 0, held = 0;
    assert_int_equal(sscanf(line, " pool fish %d bytes live %d held", &live, &held), 2);
    assert_true(live >= 5000 && live < 50000);
    assert_true(held >= 1000 && held < 50000);
    line = strstr(r->err, "\n  lru cat ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " lru cat %d bytes live", &live), 1);
    assert_true(live >= 2000);
    line = strstr(r->err, "\n  arena cow ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " arena cow %d bytes live", &live), 1);
    assert_true(live >= 3000);
}

static void stats_file_is_appended_to_wherever_the_program_went(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char table[8192], said[8192];
    char back[4096];
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(scratch), 0);
    const result *r = RUN(true, "t.txt", in_build("tests/prog_hook_exit"), "chdir", "/");
    assert_int_equal(chdir(back), 0);
    assert_ran(r, 0);
    assert_string_equal(r->err, "");
    memcpy(said, r->out, sizeof said);
    slurp(in_scratch("t.txt"), table, sizeof table);
    assert_table(table, said);
    size_t len = strlen(table);
    r = RUN(true, in_scratch("t.txt"), in_build("tests/prog_hook_exit"));
    assert_ran(r, 0);
    slurp(in_scratch("t.txt"), table, sizeof table);
    assert_true(strlen(table) > len);
    assert_table(table + len, r->out);
}

static void stats_off_prints_nothing_and_nonsense_is_said_once(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const char *program = in_build("tests/prog_hook_exit");
    assert_string_equal(RUN(true, NULL, program)->err, "");
    assert_string_equal(RUN(true, "", program)->err, "");
    assert_string_equal(RUN(true, "0", program)->err, "");
    static const char *const nonsense[] = {"yes", "2", "/does/not/exist/x"};
    for (int i = 0; i < 3; i++) {
        const result *r = RUN(true, nonsense[i], program);
        assert_ran(r, 0);
        assert_ptr_equal(strstr(r->err, "memkit: MEMKIT_STATS="), r->err);
        assert_non_null(strstr(r->err, nonsense[i]));
        assert_ptr_equal(strchr(r->err, '\n'), r->err + strlen(r->err) - 1);
    }
}

static void stats_says_when_malloc_is_not_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(true, "1", in_build("tests/prog_hook_ownmalloc"));
    assert_ran(r, 0);
    assert_non_null(strstr(r->err, "malloc is not hooked"));
    assert_null(strstr(r->err, "mallocs"));
    assert_non_null(strstr(r->err, "RSS peak"));
}

/* ---- the shared object ----------------------------------------------------------------------- */

static void exactly_the_family_and_attach_are_exported(void **state)
{
    (void)state;
    if (!present("nm"))
        skip();
    NEEDS_PRELOAD(); /* and sanitizers export names of their own */
    static const char want[] = "MEMKIT_PROF_0.1\n"
                               "aligned_alloc\n"
                               "calloc\n"
                               "free\n"
                               "malloc\n"
                               "memalign\n"
                               "memkit_prof_attach@@MEMKIT_PROF_0.1\n"
                               "posix_memalign\n"
                               "pvalloc\n"
                               "realloc\n"
                               "reallocarray\n"
                               "valloc\n";
    const result *r = RUN(false, NULL, "sh", "-c",
                          "nm -D --defined-only \"$0\" | awk '{ print $NF }' | LC_ALL=C sort",
                          in_build("libmemkit-prof.so.0"));
    assert_ran(r, 0);
    assert_string_equal(r->out, want);
}

static void at_most_64_bytes_of_thread_local_storage(void **state)
{
    (void)state;
    if (!present("readelf"))
        skip();
    const result *r =
        RUN(false, NULL, "sh", "-c", "readelf -lW \"$0\" | awk '$1 == \"TLS\" { print $6 }'",
            in_build("libmemkit-prof.so.0"));
    assert_ran(r, 0);
    unsigned size = 0;
    assert_int_equal(sscanf(r->out, "%x", &size), 1);
    assert_true(size > 0 && size <= 64);
}

/* Objects for stats_table_shows_the_cores_own_objects. They are in use at exit. */
static int make_objects(void)
{
    static memkit_buf *out;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "fish"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "cat", .max_entries = 10});
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "cow"});
    if (p == NULL || c == NULL || a == NULL)
        return 1;
    memkit_buf *waits = memkit_pool_get(p, 1000);
    out = memkit_pool_get(p, 5000);
    memkit_pool_put(p, waits);
    static char value[2000];
    if (out == NULL || memkit_lru_set(c, "k", 1, value, sizeof value) != 0)
        return 1;
    return memkit_arena_alloc(a, 3000) != NULL && memkit_arena_alloc(a, 9000) != NULL ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--objects") == 0)
        return make_objects();
    build = getenv("MEMKIT_BUILD");
    if (build == NULL || mkdtemp(scratch) == NULL || !attach_by_name(RTLD_DEFAULT)) {
        fprintf(stderr, "test_hook: needs MEMKIT_BUILD, /tmp, and memkit_prof_attach exported\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linked_it_counts_the_family_exactly),
        cmocka_unit_test(linked_it_counts_threads_exactly),
        cmocka_unit_test(ten_thousand_short_threads_share_a_handful_of_blocks),
        cmocka_unit_test(taking_a_block_keeps_errno),
        cmocka_unit_test(the_core_finds_the_hook_and_reads_it),
        cmocka_unit_test(peak_is_never_below_the_truth_and_at_most_64_KiB_above),
        cmocka_unit_test(peak_holds_over_threads_and_their_room_comes_back),
        cmocka_unit_test(a_forked_child_goes_on_counting),
        cmocka_unit_test(a_signal_in_the_middle_loses_no_count),
        cmocka_unit_test(attach_refuses_what_it_does_not_know),
        cmocka_unit_test(sixteen_cores_have_a_place),
        cmocka_unit_test(preloaded_it_counts_the_family_exactly),
        cmocka_unit_test(preloaded_it_counts_threads_exactly),
        cmocka_unit_test(a_non_pie_program_is_hooked),
        cmocka_unit_test(blocks_that_dlsym_itself_allocates_live_and_are_freed),
        cmocka_unit_test(a_program_with_its_own_malloc_is_not_hooked),
        cmocka_unit_test(loaded_by_dlopen_it_hooks_nothing_and_says_so),
        cmocka_unit_test(ls_and_sort_do_as_ever),
        cmocka_unit_test(the_compiler_does_as_ever),
        cmocka_unit_test(stats_1_prints_a_table_to_standard_error),
        cmocka_unit_test(stats_table_has_a_line_for_each_object),
        cmocka_unit_test(stats_table_shows_the_cores_own_objects),
        cmocka_unit_test(stats_file_is_appended_to_wherever_the_program_went),
        cmocka_unit_test(stats_off_prints_nothing_and_nonsense_is_said_once),
        cmocka_unit_test(stats_says_when_malloc_is_not_hooked),
        cmocka_unit_test(exactly_the_family_and_attach_are_exported),
        cmocka_unit_test(at_most_64_bytes_of_thread_local_storage),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    RUN(false, NULL, "rm", "-rf", scratch);
    return failed;
}
