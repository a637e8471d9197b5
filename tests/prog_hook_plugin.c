/* prog_hook_plugin.c - a program in C that loads C++ late: libstdc++ is in nobody's search order
 * but the plugin's, while operator new of a preloaded hook is in everybody's.
 *
 *     prog_hook_plugin PLUGIN [unhooked]
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

static int use(const char *path, int flags, int hooked)
{
    void *plugin = dlopen(path, RTLD_NOW | flags);
    if (plugin == NULL)
        fprintf(stderr, "%s\n", dlerror());
    REQUIRE(plugin != NULL);
    int (*run)(void);
    void *(*take)(size_t);
    void (*give)(void *);
    void *fn = dlsym(plugin, "plugin_run");
    memcpy(&run, &fn, sizeof fn);
    fn = dlsym(plugin, "plugin_new");
    memcpy(&take, &fn, sizeof fn);
    fn = dlsym(plugin, "plugin_delete");
    memcpy(&give, &fn, sizeof fn);
    give(take(hundred)); /* finding them may allocate */
    if (hooked) {
        start();
        void *p = got(take(hundred));
        REQUIRE(agreed());
        give(gone(p));
        REQUIRE(agreed());
    }
    int broken = run();
    if (broken != 0)
        fprintf(stderr, "plugin_run: %d\n", broken);
    REQUIRE(broken == 0);
    REQUIRE(dlclose(plugin) == 0);
    return 0;
}

int main(int argc, char **argv)
{
    int hooked = argc == 2;
    REQUIRE(dlsym(RTLD_DEFAULT, "_ZSt9terminatev") == NULL); /* there is no C++ yet */
    if (hooked)
        REQUIRE(attach_by_name(RTLD_DEFAULT) && prof->hooked() == 1);
    return use(argv[1], RTLD_LOCAL, hooked) || use(argv[1], RTLD_LOCAL, hooked) ||
           use(argv[1], RTLD_GLOBAL, hooked);
}
