/* report.c - MEMKIT_STATS=1 or MEMKIT_STATS=FILE: what the process allocated, as a table at its
 * end.
 *
 *     memkit: sort, process 4711
 *       mallocs                       1204
 *       frees                          987
 *       allocated in total         3670016 bytes
 *       in use at exit               81920 bytes
 *       ...
 *       calls timed, time in them ...         with MEMKIT_TIMING=1
 *       pool default                  4096 bytes live       65536 held
 *
 * - To standard error, or appended to FILE in one write, so that the tables of a whole `make` do
 * not mix. A FILE is what has a '/' or a '.' in its name; empty and 0 mean no table; anything else
 * is said on standard error at the start, once, and then there is no table.
 * - It comes when the process returns from main or calls exit; not after _exit, abort or a signal.
 * - Nothing here allocates: the figures are read at the very end, and must not move.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hook/attach.h"
#include "hook/counters.h"
#include "hook/report.h"
#include "hook/timing.h"
#include "prof/env.h"

#define MAX_ROWS  64
#define PATH_ROOM 4096

typedef struct {
    char text[12288];
    size_t len;
} page;

static enum { NO_TABLE, TO_STDERR, TO_FILE } target;
static char path[PATH_ROOM]; /* absolute: the program may change its directory */

/* As at the start: servers write over their argv, which this is part of. */
static char name[64];

/* The standard error of the start, for programs that close theirs before they end (ls, sort, all of
 * coreutils do). High up, where it changes no descriptor that the program counts on. */
static int spare_fd = -1;
static struct stat spare_stat;

static struct {
    char label[44];
    uint64_t live, held;
} rows[MAX_ROWS];
static int n_rows;
static int n_lost; /* rows that found no place */

/* What does not fit is cut off. */
__attribute__((format(printf, 2, 3))) static void print(page *out, const char *fmt, ...)
{
    size_t room = sizeof out->text - out->len;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out->text + out->len, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        out->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static bool is_spare(int fd)
{
    struct stat now;
    return spare_fd >= 0 && fstat(fd, &now) == 0 && now.st_dev == spare_stat.st_dev &&
           now.st_ino == spare_stat.st_ino;
}

/* The standard error of the start, if it was kept; -1: the program closed both, and the numbers are
 * other files'. */
static int stderr_now(void)
{
    if (is_spare(STDERR_FILENO) || spare_fd < 0)
        return STDERR_FILENO;
    return is_spare(spare_fd) ? spare_fd : -1;
}

void memkit__complain(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    int fd = stderr_now();
    if (n > 0 && fd >= 0)
        write_all(fd, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

int memkit__report_wanted(void)
{
    return target != NO_TABLE;
}

void memkit__report_keep(void *unused, const memkit__object_row *row)
{
    (void)unused;
    if (n_rows == MAX_ROWS) {
        n_lost++;
        return;
    }
    snprintf(rows[n_rows].label, sizeof rows[n_rows].label, "%s %s", row->kind,
             row->name != NULL ? row->name : "");
    rows[n_rows].live = row->live_bytes;
    rows[n_rows].held = row->held_bytes;
    n_rows++;
}

/* VmHWM, bytes. getrusage would tell a maximum that execve inherits from the shell. */
static uint64_t rss_peak(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *line = strstr(text, "\nVmHWM:");
    return line != NULL ? strtoull(line + 7, NULL, 10) * 1024 : 0;
}

static int open_file(void)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
}

void memkit__keep_stderr(void)
{
    if (spare_fd >= 0)
        return;
    spare_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 1000);
    if (spare_fd < 0)
        spare_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
    if (spare_fd >= 0 && fstat(spare_fd, &spare_stat) != 0)
        spare_fd = -1;
}

/* What MEMKIT_STATS asks for. */
static void read_stats(void)
{
    const char *value = getenv("MEMKIT_STATS");
    if (value == NULL || value[0] == '\0' || strcmp(value, "0") == 0)
        return;
    if (strcmp(value, "1") == 0) {
        memkit__keep_stderr();
        target = TO_STDERR;
        return;
    }
    if (strpbrk(value, "/.") == NULL) {
        memkit__complain(
            "memkit: MEMKIT_STATS=%s: neither 1 nor a file; for a file of that name: ./%s\n", value,
            value);
        return;
    }
    size_t at = 0;
    if (value[0] != '/' && getcwd(path, sizeof path) != NULL) {
        at = strlen(path);
        path[at++] = '/';
    }
    if (strlen(value) >= sizeof path - at) {
        memkit__complain("memkit: MEMKIT_STATS: the file's name is too long\n");
        return;
    }
    strcpy(path + at, value);
    int fd = open_file();
    if (fd < 0) {
        memkit__complain("memkit: MEMKIT_STATS=%s: %s\n", value, strerror(errno));
        return;
    }
    close(fd);
    target = TO_FILE;
}

__attribute__((constructor)) static void begin(void)
{
    snprintf(name, sizeof name, "%s", program_invocation_short_name);
    read_stats();
    memkit__env_start();
}

static void print_bytes(page *out, const char *label, uint64_t bytes)
{
    print(out, "  %-24s %16llu bytes\n", label, (unsigned long long)bytes);
}

static void print_ns(page *out, const char *label, uint64_t ns)
{
    print(out, "  %-24s %16llu ns\n", label, (unsigned long long)ns);
}

static void print_times(page *out)
{
    memkit__times t;
    if (!memkit__hooked() || !memkit__timing_read(&t))
        return;
    uint64_t calls = 0;
    for (unsigned i = 0; i < MEMKIT__TIMES_BUCKETS; i++)
        calls += t.buckets[i];
    print(out, "  %-24s %16llu\n", "calls timed", (unsigned long long)calls);
    print_ns(out, "time in them", t.total_ns);
    print_ns(out, "of which the clock", calls * t.clock_ns);
    print_ns(out, "50 % took at most", memkit__timing_quantile(&t, 500));
    print_ns(out, "99 % took at most", memkit__timing_quantile(&t, 990));
    print_ns(out, "99.9 % took at most", memkit__timing_quantile(&t, 999));
    print(out, "  %-24s %16llu ns in %s, %llu bytes, %llu involuntary switches\n", "longest call",
          (unsigned long long)t.longest_ns,
          t.longest_function != NULL ? t.longest_function : "none",
          (unsigned long long)t.longest_bytes, (unsigned long long)t.longest_switches);
}

static void put(const page *out)
{
    int fd = target == TO_FILE ? open_file() : stderr_now();
    if (fd < 0 && target == TO_FILE)
        memkit__complain("memkit: %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        write_all(fd, out->text, out->len);
    if (target == TO_FILE && fd >= 0)
        close(fd);
}

__attribute__((destructor)) static void end(void)
{
    if (target == NO_TABLE)
        return;
    memkit__counts c;
    memkit__process_counts(&c);
    memkit__each_attached(memkit__report_keep, NULL);
    static page out; /* too large for the stack of whoever calls exit */
    print(&out, "memkit: %s, process %ld\n", name, (long)getpid());
    if (memkit__hooked()) {
        print(&out, "  %-24s %16llu\n", "mallocs", (unsigned long long)c.mallocs);
        print(&out, "  %-24s %16llu\n", "frees", (unsigned long long)c.frees);
        print_bytes(&out, "allocated in total", c.alloc_bytes);
        print_bytes(&out, "in use at exit",
                    c.alloc_bytes > c.freed_bytes ? c.alloc_bytes - c.freed_bytes : 0);
        print_bytes(&out, "peak", c.peak_bytes);
    } else {
        print(&out, "  malloc is not hooked: another one is in front\n");
    }
    print_bytes(&out, "RSS peak", rss_peak());
    print_times(&out);
    for (int i = 0; i < n_rows; i++)
        print(&out, "  %-24s %16llu bytes live %16llu held\n", rows[i].label,
              (unsigned long long)rows[i].live, (unsigned long long)rows[i].held);
    if (n_lost > 0)
        print(&out, "  and %d more\n", n_lost);
    put(&out);
}
