/* compare_proc.c - the service as a child process, and what /proc says of it.
 *
 * No orphans: the child gets SIGKILL from the kernel when this program dies (PR_SET_PDEATHSIG), and
 * from us when it does not stop. It has a process group of its own, so that Ctrl-C reaches us alone
 * and the child is stopped in order. Its output goes to a file: nobody has to read a pipe while the
 * generator is busy, and the log can be looked at afterwards.
 */
#define _GNU_SOURCE /* execvpe's environ, pipe2 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"

#define START_S 10

static volatile sig_atomic_t running_pid;

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* The services are linked to libmemkit-prof. libc itself in front of it is what a run without the
 * counters is: malloc is then libc's, as if nothing else had one. A sanitizer's must be first. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNCOUNTED ""
#else
#define UNCOUNTED "libc.so.6"
#endif

/* Our environment with what the service is to see instead. NULL: no memory. */
static char **make_env(const char *preload, bool timing)
{
    size_t n = 0, k = 0;
    while (environ[n] != NULL)
        n++;
    preload = preload != NULL ? preload : UNCOUNTED;
    size_t room = strlen(preload) + sizeof "LD_PRELOAD=";
    char **env = calloc(n + 5, sizeof *env);
    char *text = malloc(room);
    if (env == NULL || text == NULL) {
        free(env);
        free(text);
        return NULL;
    }
    /* First, and so easy to free: the one string that is ours. */
    snprintf(text, room, "LD_PRELOAD=%s", preload);
    env[k++] = text;
    static char listen_addr[] = "LISTEN_ADDR=127.0.0.1:0";
    env[k++] = listen_addr;
    /* Nor does the heap profiler take part, unless it is asked for. */
    static char unsampled[] = "SAMPLE_RATE=0";
    if (getenv("SAMPLE_RATE") == NULL)
        env[k++] = unsampled;
    /* Timing costs: it is on in the runs that are about it, whatever our own environment says. */
    static char timed[] = "MEMKIT_TIMING=1";
    if (timing)
        env[k++] = timed;
    for (size_t i = 0; i < n; i++) {
        if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0 &&
            strncmp(environ[i], "LISTEN_ADDR=", 12) != 0 &&
            strncmp(environ[i], "MEMKIT_TIMING=", 14) != 0)
            env[k++] = environ[i];
    }
    return env;
}

/* Between fork and exec; never returns. */
static void become(const char *program, char **env, int log_fd, int err_fd, pid_t parent)
{
    static char *no_args[2];
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127); /* it died before the kernel knew */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0 && dup2(null, 0) >= 0 && dup2(log_fd, 1) >= 0 && dup2(log_fd, 2) >= 0) {
        no_args[0] = (char *)(uintptr_t)program;
        execve(program, no_args, env);
    }
    int err = errno;
    ssize_t ignored = write(err_fd, &err, sizeof err);
    (void)ignored;
    _exit(127);
}

/* fork and exec. 0, or -1 with errno of whichever failed. */
static int spawn(cmp_child *c, const char *program, const char *preload, bool timing, int log_fd)
{
    int p[2];
    char **env = make_env(preload, timing);
    if (env == NULL || pipe2(p, O_CLOEXEC) != 0) {
        free(env != NULL ? env[0] : NULL);
        free(env);
        return -1;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(program, env, log_fd, p[1], parent);
    int err = pid < 0 ? errno : 0;
    close(p[1]);
    free(env[0]);
    free(env);
    if (pid > 0) {
        ssize_t n;
        while ((n = read(p[0], &err, sizeof err)) < 0 && errno == EINTR)
            ;
        if (n == (ssize_t)sizeof err)
            waitpid(pid, NULL, 0);
        else
            err = 0;
    }
    close(p[0]);
    if (err != 0) {
        errno = err;
        return -1;
    }
    c->pid = pid;
    running_pid = pid;
    return 0;
}

/* Finds "listening on HOST:PORT" in the log, on a line that is complete. */
static bool find_target(const char *log, char *target, size_t cap)
{
    char text[16384];
    FILE *f = fopen(log, "re");
    if (f == NULL)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strstr(text, "listening on ");
    if (at == NULL || strchr(at, '\n') == NULL)
        return false;
    at += strlen("listening on ");
    size_t len = strspn(at, "0123456789abcdefABCDEF.:[]");
    if (len == 0 || len >= cap)
        return false;
    memcpy(target, at, len);
    target[len] = '\0';
    return true;
}

/* The last line of the log, which usually says why. */
static void last_line(const char *log, char *out, size_t cap)
{
    char line[256];
    out[0] = '\0';
    FILE *f = fopen(log, "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0')
            snprintf(out, cap, "; it said \"%.150s\"", line);
    }
    fclose(f);
}

void cmp_exit_text(int status, char *out, size_t cap)
{
    if (WIFSIGNALED(status))
        snprintf(out, cap, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, cap, "exit status %d", WEXITSTATUS(status));
}

int cmp_child_start(cmp_child *c, const char *program, const char *preload, bool timing,
                    const char *log, char *why, size_t cap)
{
    memset(c, 0, sizeof *c);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        snprintf(why, cap, "%s: %s", log, strerror(errno));
        return -1;
    }
    int rc = spawn(c, program, preload, timing, fd);
    int err = errno;
    close(fd);
    if (rc != 0) {
        snprintf(why, cap, "%s did not start: %s", program, strerror(err));
        return -1;
    }
    double until = now_s() + START_S;
    char health[256];
    while (now_s() < until && cmp_child_alive(c) && !cmp_stop) {
        if ((c->target[0] != '\0' || find_target(log, c->target, sizeof c->target)) &&
            cmp_http_get(c->target, "/health", health, sizeof health, 1000) == 200)
            return 0;
        nap();
    }
    char said[200], how[80];
    last_line(log, said, sizeof said);
    if (cmp_stop) {
        snprintf(why, cap, "interrupted");
    } else if (c->gone) {
        cmp_exit_text(c->status, how, sizeof how);
        snprintf(why, cap, "the service ended at once, %s%s", how, said);
    } else {
        snprintf(why, cap, "the service did not answer %s in %d s%s",
                 c->target[0] != '\0' ? "/health" : "with \"listening on ADDRESS\" in its log",
                 START_S, said);
    }
    cmp_child_stop(c, 1);
    return -1;
}

bool cmp_child_alive(cmp_child *c)
{
    if (c->pid > 0 && !c->gone && waitpid(c->pid, &c->status, WNOHANG) == c->pid) {
        c->gone = true;
        running_pid = 0;
    }
    return c->pid > 0 && !c->gone;
}

void cmp_child_stop(cmp_child *c, double seconds)
{
    if (!cmp_child_alive(c))
        return;
    kill(c->pid, SIGTERM);
    double until = now_s() + seconds;
    while (cmp_child_alive(c) && now_s() < until)
        nap();
    if (c->gone)
        return;
    c->killed = true;
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
        ;
    c->gone = true;
    running_pid = 0;
}

void cmp_child_kill(void)
{
    pid_t pid = running_pid;
    if (pid > 0)
        kill(pid, SIGKILL);
}

/* To the nanosecond from the process's CPU clock; where that is not to be had, in ticks of 10 ms
 * from /proc/PID/stat. */
uint64_t cmp_proc_cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &ts) == 0)
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    char path[64], text[1024];
    unsigned long long utime = 0, stime = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    /* The name, in parentheses, may hold anything: what is wanted comes 11 fields after its end. */
    char *p = strrchr(text, ')');
    if (p == NULL || sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu", &utime,
                            &stime) != 2)
        return 0;
    return (utime + stime) * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK));
}

void cmp_proc_read(pid_t pid, cmp_proc *out)
{
    char path[64], line[256];
    unsigned long long kib;
    memset(out, 0, sizeof *out);
    out->cpu_ns = cmp_proc_cpu_ns(pid);
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "VmRSS: %llu kB", &kib) == 1)
            out->rss_bytes = kib * 1024;
        else if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            out->peak_rss_bytes = kib * 1024;
    }
    fclose(f);
    out->ok = out->rss_bytes > 0 && out->peak_rss_bytes > 0;
}
