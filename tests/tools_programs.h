/* tools_programs.h - what the tests of real programs share: their tables of counters, servers that
 * are started, waited for and ended. Include once in each test.
 */
#ifndef MEMKIT_TESTS_TOOLS_PROGRAMS_H
#define MEMKIT_TESTS_TOOLS_PROGRAMS_H

#include "test_hook.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

typedef unsigned long long u64;

typedef struct {
    u64 mallocs, frees, bytes, in_use, peak;
} figures;

static inline void need(const char *program)
{
    if (!present(program))
        fail_msg("%s is not installed: make deps-tools", program);
}

static inline u64 figure(const char *table, const char *label)
{
    char line[64];
    u64 n = 0;
    snprintf(line, sizeof line, "\n  %-24s ", label);
    const char *at = strstr(table, line);
    if (at == NULL || sscanf(at + strlen(line), " %llu", &n) != 1)
        fail_msg("no '%s' in:\n%s", label, table);
    return n;
}

/* Adds up the tables in `text` of the processes of this name: how many there are. */
static inline int read_tables(const char *text, const char *name, figures *sum)
{
    char head[100];
    int n = 0;
    *sum = (figures){0};
    snprintf(head, sizeof head, "memkit: %s, process ", name);
    for (const char *at = text; (at = strstr(at, head)) != NULL; n++) {
        at += strlen(head);
        figures f = {figure(at, "mallocs"), figure(at, "frees"), figure(at, "allocated in total"),
                     figure(at, "in use at exit"), figure(at, "peak")};
        assert_true(f.frees <= f.mallocs);
        assert_true(f.in_use <= f.peak && f.peak <= f.bytes);
        sum->mallocs += f.mallocs;
        sum->frees += f.frees;
        sum->bytes += f.bytes;
        sum->in_use += f.in_use;
        sum->peak += f.peak;
    }
    printf("%s: %d processes, mallocs %llu, frees %llu, bytes %llu, in use at exit %llu\n", name, n,
           sum->mallocs, sum->frees, sum->bytes, sum->in_use);
    return n;
}

static inline const char *stats_text(void)
{
    static char text[65536];
    slurp(in_scratch("stats"), text, sizeof text);
    unlink(in_scratch("stats"));
    return text;
}

static inline void write_file(const char *name, const char *text)
{
    FILE *f = fopen(in_scratch(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* Runs the shell's command until it succeeds, 10 s at most. */
static inline void wait_until(const char *command)
{
    for (int i = 0; i < 100; i++) {
        const result *r = RUN(false, NULL, "bash", "-c", command, scratch);
        if (r->code == 0)
            return;
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    fail_msg("in 10 s this did not succeed: %s", command);
}

/* Ended by SIGTERM, as a supervisor does, within 20 s. */
static inline void assert_ends(pid_t pid)
{
    int status = 0;
    kill(pid, SIGTERM);
    for (int i = 0; i < 200; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
            return;
        }
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fail_msg("the server did not end");
}

static inline int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

#endif
