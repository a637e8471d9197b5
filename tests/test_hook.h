/* test_hook.h - what test_hook.c and test_hook_preload.c share: running programs under the hook.
 *
 * Environment: MEMKIT_BUILD, the build's directory; MEMKIT_SAN, the sanitizers of this build.
 */
#ifndef MEMKIT_TESTS_TEST_HOOK_H
#define MEMKIT_TESTS_TEST_HOOK_H

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

static inline const char *in_build(const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", build, name);
    return path;
}

static inline const char *in_scratch(const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline void slurp(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, room - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* What LD_PRELOAD is under run(); NULL: the hook alone. */
static const char *preload_list;

/* Starts argv; `preload` puts the hook in front, `stats` is MEMKIT_STATS unless NULL; what it
 * prints goes to these files. */
static inline pid_t spawn(const char *const argv[], bool preload, const char *stats,
                          const char *out, const char *err)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0)
        return pid;
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
        setenv("LD_PRELOAD", preload_list != NULL ? preload_list : in_build("libmemkit-prof.so.0"),
               1);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static inline int exit_code(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs argv to its end. */
static inline const result *run(const char *const argv[], bool preload, const char *stats)
{
    static result r;
    char out[4096], err[4096];
    snprintf(out, sizeof out, "%s/out", scratch);
    snprintf(err, sizeof err, "%s/err", scratch);
    r.code = exit_code(spawn(argv, preload, stats, out, err));
    slurp(out, r.out, sizeof r.out);
    slurp(err, r.err, sizeof r.err);
    return &r;
}

#define RUN(preload, stats, ...) run((const char *const[]){__VA_ARGS__, NULL}, preload, stats)

static inline void assert_ran(const result *r, int code)
{
    if (r->code != code)
        print_error("exit code %d: %s\n", r->code, r->err);
    assert_int_equal(r->code, code);
}

static inline bool present(const char *program)
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

/* The head of each main: false where the environment is not that of `make test`. */
static inline bool prepare(void)
{
    /* Draws the archive in where a sanitizer's malloc is found before ours. */
    const memkit__prof_table *(*volatile attach)(const memkit__core_table *) = memkit_prof_attach;
    (void)attach;
    build = getenv("MEMKIT_BUILD");
    if (build != NULL && mkdtemp(scratch) != NULL && attach_by_name(RTLD_DEFAULT))
        return true;
    fprintf(stderr, "needs MEMKIT_BUILD, /tmp, and memkit_prof_attach exported\n");
    return false;
}

static inline int finish(int failed)
{
    RUN(false, NULL, "rm", "-rf", scratch);
    return failed;
}

#endif
