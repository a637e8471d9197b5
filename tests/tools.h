/* tools.h - for the tests that need other programs, which `make deps-tools` installs: a missing one
 * fails them. Include <cmocka.h> and what it wants before this.
 */
#ifndef MEMKIT_TESTS_TOOLS_H
#define MEMKIT_TESTS_TOOLS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Whether a directory of PATH has the program. */
__attribute__((unused)) static int have_tool(const char *name)
{
    const char *path = getenv("PATH");
    for (const char *dir = path != NULL ? path : ""; *dir != '\0';) {
        char full[4096];
        int n = (int)strcspn(dir, ":");
        snprintf(full, sizeof full, "%.*s/%s", n, dir, name);
        if (access(full, X_OK) == 0)
            return 1;
        dir += n;
        dir += *dir == ':';
    }
    return 0;
}

/* Fails the test where the program is missing. */
__attribute__((unused)) static void need_tool(const char *name)
{
    if (!have_tool(name))
        fail_msg("%s is not installed: make deps-tools", name);
}

/* Removes a scratch directory and all in it: cmocka's answer for a teardown. */
__attribute__((unused)) static int remove_tool_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

/* Runs a shell command and keeps what it says, cut off at the end. Its exit status, or 256 + the
 * signal that ended it. */
__attribute__((unused)) static int tool_says(const char *command, char *out, size_t cap)
{
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, cap - 1, f);
    out[n] = '\0';
    while (fgetc(f) != EOF)
        continue;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

#endif
