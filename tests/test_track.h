/* test_track.h - for the tests that build a program for a tool and run it under it. */
#ifndef TEST_TRACK_H
#define TEST_TRACK_H

#include <sys/wait.h>

#include "support.h"

/* Runs a shell command: its exit code (128 for a signal), what it said in `out`. */
static int run(char *out, size_t room, const char *fmt, ...) MEMKIT_PRINTF(3, 4);
static int run(char *out, size_t room, const char *fmt, ...)
{
    char command[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    assert_true(n > 0 && (size_t)n < sizeof command);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t len = 0, got;
    char rest[4096];
    while ((got = fread(len + 1 < room ? out + len : rest, 1,
                        len + 1 < room ? room - 1 - len : sizeof rest, pipe)) > 0)
        len += len + 1 < room ? got : 0;
    out[len] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#endif
