/* prog_hook_core.c - loads libmemkit with dlopen under a preloaded hook: it must find the counters.
 *
 *     prog_hook_core LIBMEMKIT hooked|unhooked
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

#include <memkit/stats.h>

int main(int argc, char **argv)
{
    REQUIRE(argc == 3);
    void *core = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    REQUIRE(core != NULL);
    int (*allocs)(memkit_thread_allocs_t *);
    void (*memstats)(memkit_memstats_t *);
    void *fn = dlsym(core, "memkit_thread_allocs");
    REQUIRE(fn != NULL);
    memcpy(&allocs, &fn, sizeof fn);
    fn = dlsym(core, "memkit_memstats");
    REQUIRE(fn != NULL);
    memcpy(&memstats, &fn, sizeof fn);
    int hooked = strcmp(argv[2], "hooked") == 0;
    REQUIRE(attach_by_name(RTLD_DEFAULT) == hooked);
    memkit_thread_allocs_t t0, t1;
    memkit_memstats_t m;
    REQUIRE(allocs(&t0) == hooked);
    void *volatile p = malloc(hundred);
    uint64_t usable = malloc_usable_size(p);
    free(p);
    REQUIRE(allocs(&t1) == hooked);
    memstats(&m);
    REQUIRE(m.hooked == hooked);
    REQUIRE(t1.mallocs - t0.mallocs == (uint64_t)hooked);
    REQUIRE(t1.frees - t0.frees == (uint64_t)hooked);
    REQUIRE(t1.bytes - t0.bytes == (hooked ? usable : 0));
    return 0;
}
