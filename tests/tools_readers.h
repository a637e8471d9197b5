/* tools_readers.h - runs readers of profiles that others wrote, in a scratch directory. Include
 * cmocka before this.
 */
#ifndef MEMKIT_TESTS_TOOLS_READERS_H
#define MEMKIT_TESTS_TOOLS_READERS_H

#include "tools.h"

static char dir[] = "/tmp/memkit-test-readers-XXXXXX"; /* for mkdtemp */
static char said[4 << 20];                             /* what the last one printed */

/* What a shell command in `dir` says; it has to end well. */
__attribute__((unused, format(printf, 1, 2))) static void run(const char *fmt, ...)
{
    char command[2048], words[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    snprintf(command, sizeof command,
             "cd '%s' && HOME='%s' PPROF_TMPDIR='%s' GOPROXY=off timeout 60 %s 2>&1", dir, dir, dir,
             words);
    int status = tool_says(command, said, sizeof said);
    if (status != 0)
        fail_msg("%s: status %d: %.2000s", words, status, said);
}

__attribute__((unused)) static void pprof(const char *flags, const char *files)
{
    need_tool("go");
    run("go tool pprof -symbolize=none %s %s", flags, files);
}

#define assert_said(part)                                     \
    do {                                                      \
        if (strstr(said, part) == NULL)                       \
            fail_msg("not said: %s in: %.4000s", part, said); \
    } while (0)

/* The number before " total", or "B total". */
__attribute__((unused)) static long long total_said(void)
{
    const char *at = strstr(said, " total\n");
    assert_non_null(at);
    while (at[-1] != ' ')
        at--;
    return atoll(at);
}

/* What npm's pprof-format reads in a file of `dir`, as lines. */
__attribute__((unused)) static void decode(const char *file)
{
    const char *root = getenv("MEMKIT_ROOT");
    char path[1024];
    assert_non_null(root);
    need_tool("node");
    snprintf(path, sizeof path, "%s/build/readers/node_modules/pprof-format/package.json", root);
    if (access(path, R_OK) != 0)
        fail_msg("pprof-format is not installed: make deps-tools");
    run("sh -c 'cd \"%s/build/readers\" && node ../../tests/readers/decode.mjs \"%s/%s\"'", root,
        dir, file);
}

#endif
