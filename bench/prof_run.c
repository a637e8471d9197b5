/* prof_run.c - one run of one configuration, as a process of its own; its figures are what the
 * workload prints, and the time until the process and all that the profiler started has ended. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof_bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_SECONDS  90
#define READ_SECONDS 20
#define READ_BYTES   ((rlim_t)4 << 30) /* of memory; beyond it a reader takes the machine with it */

/* text with the directory in place of each @, never freed: there are few. */
static char *with_directory(const bench_opts *o, const char *text)
{
    char out[512];
    size_t n = 0;
    for (const char *p = text; *p != '\0' && n < sizeof out - 1; p++) {
        if (*p == '@')
            n += (size_t)snprintf(out + n, sizeof out - n, "%s", o->tmp);
        else
            out[n++] = *p;
    }
    out[n < sizeof out ? n : sizeof out - 1] = '\0';
    char *copy = strdup(out);
    if (copy == NULL)
        abort();
    return copy;
}

/* In the child. The preload is of the program alone, not of the command that runs it. */
static void become(const bench_opts *o, const row *r, const char *const *wrap, unsigned threads,
                   uint64_t pairs)
{
    char program[512], n_threads[16], n_pairs[32];
    snprintf(program, sizeof program, "%s/bench/%s", o->build, r->program);
    snprintf(n_threads, sizeof n_threads, "%u", threads);
    snprintf(n_pairs, sizeof n_pairs, "%" PRIu64, pairs);
    const char *argv[16];
    unsigned n = 0;
    for (; wrap[n] != NULL; n++)
        argv[n] = with_directory(o, wrap[n]);
    argv[n++] = program;
    argv[n++] = n_threads;
    argv[n++] = n_pairs;
    argv[n] = NULL;
    static const char *const clean[] = {"MEMKIT_SAMPLE", "MEMKIT_DUMP",
                                        "MEMKIT_STATS",  "MALLOC_CONF",
                                        "HEAPPROFILE",   "TCMALLOC_SAMPLE_PARAMETER",
                                        "LD_PRELOAD",    "DUMP_HEAPTRACK_OUTPUT"};
    for (unsigned i = 0; i < sizeof clean / sizeof *clean; i++)
        unsetenv(clean[i]);
    for (unsigned i = 0; i < 3 && r->env[i] != NULL; i++)
        putenv(with_directory(o, r->env[i]));
    if (r->preload != NULL)
        setenv("LD_PRELOAD", library_path(o, r->preload), 1);
    execvp(argv[0], (char **)(uintptr_t)argv);
    _exit(127);
}

static void read_file(const char *path, char *text, size_t size)
{
    text[0] = '\0';
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return;
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
}

/* Its status, or -1: it and all it has started were killed, it took too long. */
static int wait_for(pid_t pid, unsigned seconds, const struct timespec *from, struct timespec *now)
{
    for (;;) {
        int status;
        const pid_t ended = waitpid(pid, &status, WNOHANG);
        clock_gettime(CLOCK_MONOTONIC, now);
        if (ended == pid)
            return status;
        if (ended < 0 || now->tv_sec - from->tv_sec > (time_t)seconds)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

/* Output into files of the directory, so that no pipe can fill. The process' status. */
static int spawn(const bench_opts *o, const row *r, const char *const *wrap, unsigned threads,
                 uint64_t pairs, double *ns)
{
    char out[128], err[128];
    snprintf(out, sizeof out, "%s/stdout", o->tmp);
    snprintf(err, sizeof err, "%s/stderr", o->tmp);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    const pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        if (freopen(out, "w", stdout) == NULL || freopen(err, "w", stderr) == NULL)
            _exit(126);
        become(o, r, wrap, threads, pairs);
    }
    const int status = pid > 0 ? wait_for(pid, RUN_SECONDS, &from, &to) : -1;
    if (status == -1)
        return -1;
    *ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    return status;
}

/* What is in the directory, and takes it away. */
static uint64_t sweep(const bench_opts *o)
{
    uint64_t bytes = 0;
    DIR *d = opendir(o->tmp);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[512];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", o->tmp, e->d_name);
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (strcmp(e->d_name, "stdout") != 0 && strcmp(e->d_name, "stderr") != 0)
            bytes += (uint64_t)st.st_size;
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
    return bytes;
}

static uint64_t word(const char *line, const char *name, int radix)
{
    const char *at = strstr(line, name);
    return at == NULL ? 0 : strtoull(at + strlen(name), NULL, radix);
}

static double number(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    return at == NULL ? 0 : strtod(at + strlen(name), NULL);
}

static bool parse(row *r, const char *text, run_result *out)
{
    const char *line = strstr(text, "wall="); /* a command may say something before */
    if (line == NULL) {
        snprintf(r->absent, sizeof r->absent, "printed no figures");
        return false;
    }
    out->wall_ns = number(line, "wall=");
    out->cpu_ns = number(line, "cpu=");
    out->checksum = word(line, "checksum=", 16);
    out->rss_kib = number(line, "rss=");
    out->rate = word(line, "rate=", 10);
    out->samples = word(line, "samples=", 10);
    out->sites = word(line, "sites=", 10);
    out->own_bytes = word(line, "own=", 10);
    if (out->rate == r->want_rate || r->want_rate == 0)
        return true;
    snprintf(r->absent, sizeof r->absent, "states a rate of %" PRIu64 ", not %" PRIu64, out->rate,
             r->want_rate);
    return false;
}

bool row_run(const bench_opts *o, row *r, unsigned threads, run_result *out)
{
    char path[128], text[8192];
    double ns = 0;
    const uint64_t pairs = row_pairs(o, r);
    const int status = spawn(o, r, r->wrap, threads, pairs, &ns);
    snprintf(path, sizeof path, "%s/stderr", o->tmp);
    read_file(path, text, sizeof text);
    if (status == -1) {
        snprintf(r->absent, sizeof r->absent, "with %u thread%s it has not ended within %d s",
                 threads, threads == 1 ? "" : "s", RUN_SECONDS);
    } else if (status != 0) {
        snprintf(r->absent, sizeof r->absent, "ended with status 0x%x: %.80s", (unsigned)status,
                 text);
    } else if (r->refusal != NULL && strstr(text, r->refusal) != NULL) {
        snprintf(r->absent, sizeof r->absent, "built without its profiler");
    } else {
        snprintf(path, sizeof path, "%s/stdout", o->tmp);
        read_file(path, text, sizeof text);
        parse(r, text, out);
        out->whole_ns = ns / (double)pairs;
    }
    r->disk_bytes[threads - 1] = sweep(o);
    return r->absent[0] == '\0';
}

/* ---- the second half of a profiler that has one ---- */

/* In the child: from the raw file, and what it makes of it goes nowhere. */
static void become_reader(const bench_opts *o, const row *r)
{
    const struct rlimit most = {READ_BYTES, READ_BYTES};
    char err[128];
    snprintf(err, sizeof err, "%s/stderr", o->tmp);
    const char *program = library_path(o, r->reader);
    if (setpgid(0, 0) != 0 || program == NULL || setrlimit(RLIMIT_AS, &most) != 0 ||
        freopen(with_directory(o, r->reads), "r", stdin) == NULL ||
        freopen("/dev/null", "w", stdout) == NULL || freopen(err, "w", stderr) == NULL)
        _exit(126);
    execl(program, program, (char *)NULL);
    _exit(127);
}

static void say_trouble(const bench_opts *o, row *r, unsigned threads, int status)
{
    char *trouble = r->reading[threads - 1].trouble;
    const size_t room = sizeof r->reading[0].trouble;
    char path[128], text[8192];
    snprintf(path, sizeof path, "%s/stderr", o->tmp);
    read_file(path, text, sizeof text);
    const char *what = strstr(text, "terminate called"); /* of C++, behind what it says before */
    what = what != NULL ? what : text;
    if (status == -1)
        snprintf(trouble, room, "was stopped: it has not ended within %d s", READ_SECONDS);
    else if (WIFSIGNALED(status))
        snprintf(trouble, room, "ended by signal %d: %.100s", WTERMSIG(status), what);
    else if (WEXITSTATUS(status) != 0)
        snprintf(trouble, room, "ended with exit code %d: %.100s", WEXITSTATUS(status), what);
    for (char *p = trouble; *p != '\0'; p++)
        *p = *p == '\n' ? ' ' : *p;
}

void row_read(const bench_opts *o, row *r, unsigned threads)
{
    double ns;
    struct stat st;
    char *raw = with_directory(o, r->reads);
    if (spawn(o, r, r->wrap, threads, o->pairs / 10, &ns) == 0 && stat(raw, &st) == 0) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        const pid_t pid = fork();
        if (pid == 0)
            become_reader(o, r);
        const int status = pid > 0 ? wait_for(pid, READ_SECONDS, &from, &to) : -1;
        clock_gettime(CLOCK_MONOTONIC, &to);
        r->reading[threads - 1].seconds =
            (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
        r->reading[threads - 1].bytes = (uint64_t)st.st_size;
        say_trouble(o, r, threads, status);
    }
    free(raw);
    sweep(o);
}

/* ---- instructions ---- */

static double collected(const bench_opts *o, row *r, uint64_t pairs)
{
    static const char *const wrap[] = {"valgrind", "--tool=callgrind",
                                       "--callgrind-out-file=@/callgrind", NULL};
    char path[128], text[8192];
    double ns;
    const int status = spawn(o, r, wrap, 1, pairs, &ns);
    snprintf(path, sizeof path, "%s/stderr", o->tmp);
    read_file(path, text, sizeof text);
    sweep(o);
    return status == 0 ? number(text, "Collected : ") : 0;
}

/* The difference of two runs: start and end cancel out, and what each stack costs when it is new.
 */
bool row_count_instructions(const bench_opts *o, row *r)
{
    const uint64_t few = 100000, many = 300000;
    const double a = collected(o, r, few), b = collected(o, r, many);
    if (a <= 0 || b <= a)
        return false;
    r->instructions = (b - a) / ((double)(many - few) * 1.1); /* a tenth more is run untimed */
    return true;
}

/* ---- what only a program with the profiler linked in can say ---- */

bool inside_run(const bench_opts *o, char *text, unsigned size)
{
    row inside = {.program = "prof_inside"};
    static const char *const nothing[] = {NULL};
    char path[128];
    double ns;
    text[0] = '\0';
    const int status = spawn(o, &inside, nothing, 1, o->pairs, &ns);
    snprintf(path, sizeof path, "%s/%s", o->tmp, status == 0 ? "stdout" : "stderr");
    read_file(path, text, size);
    sweep(o);
    return status == 0;
}
