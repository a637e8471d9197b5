/* prog_hook_around.c - calls an allocator by a name of its own, which goes around the hook.
 *
 *     prog_hook_around mallocx|mi_malloc|tc_malloc
 *
 * 0: the block works, goes back by free, and the counters go on: what malloc gives is counted, and
 * the figure in use is never below 0.
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

int main(int argc, char **argv)
{
    REQUIRE(argc == 2 && attach_by_name(RTLD_DEFAULT) && prof->hooked() == 1);
    void *fn = dlsym(RTLD_DEFAULT, argv[1]);
    REQUIRE(fn != NULL);
    for (int i = 0; i < 1000; i++) {
        void *p;
        start();
        if (strcmp(argv[1], "mallocx") == 0) {
            void *(*take)(size_t, int);
            memcpy(&take, &fn, sizeof fn);
            p = take(100000, 0);
        } else {
            void *(*take)(size_t);
            memcpy(&take, &fn, sizeof fn);
            p = take(100000);
        }
        REQUIRE(p != NULL && agreed()); /* not seen */
        memset(p, 1, 100000);
        free(gone(p)); /* seen */
        REQUIRE(agreed());
        p = got(malloc(hundred));
        REQUIRE(p != NULL && agreed());
        free(gone(p));
        REQUIRE(agreed());
    }
    memkit__counts c;
    prof->process_counts(&c);
    REQUIRE(c.freed_bytes > c.alloc_bytes); /* so it was worth a try */
    REQUIRE(c.peak_bytes <= c.alloc_bytes);
    return 0;
}
