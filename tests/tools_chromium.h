/* tools_chromium.h - runs headless Chromium on a file. Include tools.h before this. */
#ifndef MEMKIT_TESTS_TOOLS_CHROMIUM_H
#define MEMKIT_TESTS_TOOLS_CHROMIUM_H

/* Opens `page` (a path, with a #fragment if need be) with more flags; what it dumps is in dir/dom,
 * what it says in dir/err. Fails the test where it does not end well. */
__attribute__((unused)) static void run_chromium(const char *dir, const char *page,
                                                 const char *flags)
{
    char command[4096];
    snprintf(
        command, sizeof command,
        "cd '%s' && timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic "
        "--no-first-run --disable-background-networking --disable-component-update "
        "--disable-sync --hide-scrollbars --enable-logging=stderr --user-data-dir='%s/profile' "
        "%s 'file://%s' >dom 2>err",
        dir, dir, flags, page);
    int status = system(command);
    if (status == 0)
        return;
    snprintf(command, sizeof command, "tail -n 20 '%s/err' >&2", dir);
    fail_msg("chromium ended with status %d%s", status, system(command) == 0 ? ": see above" : "");
}

#endif
