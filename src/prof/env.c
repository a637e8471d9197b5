/* env.c - the profiler's start from the environment. The names of its variables are here:
 *
 *     MEMKIT_SAMPLE           mean bytes between samples; 1: every allocation
 *     MEMKIT_LABEL_THREADS    1: stacks are told apart by the thread's name
 *     MEMKIT_PROF_MAX_BYTES   bound of the profiler's own memory
 *     MEMKIT_DUMP             directory for profiles: one at exit (dump.c)
 *     MEMKIT_DUMP_SIGNAL      and one on each of this signal (dump_signal.c)
 *
 *     MEMKIT_LISTEN           address of the debug paths (serve.c)
 *
 * (MEMKIT_STATS is read by hook/report.c, MEMKIT_TIMING by hook/timing.c.)
 *
 * - A value that cannot be honoured is said on standard error, in one line, and then what it is
 *   about stays off; the program runs on all the same. An empty value is as none.
 * - A program that runs with more rights than its caller reads none of them: they name places to
 *   write to.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/env.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <memkit/prof.h>

#include "hook/report.h"
#include "prof/debug.h"

#define SAMPLE    "MEMKIT_SAMPLE"
#define LABELS    "MEMKIT_LABEL_THREADS"
#define MAX_BYTES "MEMKIT_PROF_MAX_BYTES"
#define DUMP      "MEMKIT_DUMP"
#define SIGNAL    "MEMKIT_DUMP_SIGNAL"
#define LISTEN    "MEMKIT_LISTEN"

static const char *value_of(const char *name)
{
    const char *value = secure_getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Digits alone: strtoull takes signs and spaces, too. The rest of the text; NULL: no digits, or too
 * many. */
static const char *digits(const char *text, size_t *out)
{
    const char *p = text;
    for (*out = 0; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(*out, (size_t)10, out) ||
            __builtin_add_overflow(*out, (size_t)(*p - '0'), out))
            return NULL;
    return p == text ? NULL : p;
}

bool memkit__env_bytes(const char *text, size_t *out)
{
    static const char *const units[][3] = {
        {"", "B", "bytes"}, {"K", "KiB", "k"}, {"M", "MiB", "m"}, {"G", "GiB", "g"}};
    size_t n;
    const char *unit = digits(text, &n);
    if (unit == NULL || n == 0)
        return false;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned k = 0; k < 3; k++)
            if (strcmp(unit, units[i][k]) == 0)
                return !__builtin_mul_overflow(n, (size_t)1 << (10 * i), out) &&
                       *out <= PTRDIFF_MAX;
    return false;
}

/* Signals that tell of a fault, that nobody can catch, or that the C library or the CPU profile
 * needs. */
static bool can_be_had(int sig)
{
    static const int not [] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL,
                               SIGFPE,  SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    for (size_t i = 0; i < sizeof not / sizeof not [0]; i++)
        if (sig == not [i])
            return false;
    return sig > 0 && sig <= SIGRTMAX && (sig < 32 || sig >= SIGRTMIN);
}

int memkit__env_signal(const char *text)
{
    static const struct {
        const char *name;
        int number;
    } names[] = {{"HUP", SIGHUP},      {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"USR1", SIGUSR1},
                 {"USR2", SIGUSR2},    {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM},
                 {"CHLD", SIGCHLD},    {"CONT", SIGCONT}, {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN},
                 {"TTOU", SIGTTOU},    {"URG", SIGURG},   {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
                 {"WINCH", SIGWINCH},  {"IO", SIGIO},     {"POLL", SIGIO},   {"PWR", SIGPWR},
                 {"VTALRM", SIGVTALRM}};
    size_t n;
    const char *rest = digits(text, &n);
    if (rest != NULL)
        return *rest == '\0' && n <= (size_t)SIGRTMAX && can_be_had((int)n) ? (int)n : 0;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcasecmp(text, names[i].name) == 0)
            return names[i].number;
    bool from_end = strncasecmp(text, "RTMAX", 5) == 0;
    if (!from_end && strncasecmp(text, "RTMIN", 5) != 0)
        return 0;
    text += 5;
    n = 0;
    if (*text == (from_end ? '-' : '+'))
        text = digits(text + 1, &n);
    if (text == NULL || *text != '\0' || n > (size_t)(SIGRTMAX - SIGRTMIN))
        return 0;
    return from_end ? SIGRTMAX - (int)n : SIGRTMIN + (int)n;
}

/* False where a value is none. */
static bool read_options(memkit_prof_opts *o)
{
    const char *sample = value_of(SAMPLE), *most = value_of(MAX_BYTES), *labels = value_of(LABELS);
    if (sample != NULL && !memkit__env_bytes(sample, &o->sample_bytes)) {
        memkit__complain("memkit: " SAMPLE "=%.100s: not a number of bytes from 1 on, as 1, 524288 "
                         "or 512KiB; not profiling\n",
                         sample);
        return false;
    }
    if (most != NULL && !memkit__env_bytes(most, &o->max_bytes)) {
        memkit__complain("memkit: " MAX_BYTES "=%.100s: not a number of bytes, as 67108864 or "
                         "64MiB; not profiling\n",
                         most);
        return false;
    }
    if (labels != NULL && strcmp(labels, "1") != 0 && strcmp(labels, "0") != 0) {
        memkit__complain("memkit: " LABELS "=%.100s: neither 0 nor 1; not profiling\n", labels);
        return false;
    }
    o->label_threads = labels != NULL && labels[0] == '1';
    return true;
}

static void dump_on_signal(const char *text)
{
    int sig = memkit__env_signal(text);
    if (sig == 0)
        memkit__complain("memkit: " SIGNAL "=%.100s: no signal that can be used, as USR2 or 12; "
                         "no profile on a signal\n",
                         text);
    else
        memkit__dump_on(sig, text);
}

/* True while sampling for one of the variables. */
static bool sample(const char *dir)
{
    memkit_prof_opts o = {0};
    if ((value_of(SAMPLE) == NULL && dir == NULL) || !read_options(&o))
        return false;
    if (memkit_prof_start(&o) == 0)
        return true;
    const char *most = value_of(MAX_BYTES);
    if (errno == ENOMEM && most != NULL) {
        memkit__complain("memkit: " MAX_BYTES "=%.100s: too little to begin with (some 1 MiB; at "
                         "rate 1, 7 MiB), or no memory; not profiling\n",
                         most);
        return false;
    }
    memkit__complain("memkit: %s: %s; not profiling\n", value_of(SAMPLE) != NULL ? SAMPLE : DUMP,
                     errno == ENOTSUP  ? "malloc does not reach memkit: another one is in front"
                     : errno == ENOMEM ? "no memory for the profiler"
                                       : strerror(errno));
    return false;
}

void memkit__env_start(void)
{
    const char *dir = value_of(DUMP), *sig = value_of(SIGNAL), *listen = value_of(LISTEN);
    if (sig != NULL && dir == NULL)
        memkit__complain("memkit: " SIGNAL " without " DUMP ", the directory: no profile on a "
                         "signal\n");
    if (sample(dir) && dir != NULL && memkit__dump_into(dir) && sig != NULL)
        dump_on_signal(sig);
    if (listen != NULL)
        memkit__serve_from_env(listen);
}
