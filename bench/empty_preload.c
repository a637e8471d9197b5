/* empty_preload.c - the least a preloaded malloc can do: forward. What the hook costs is counted
 * from here, since every preloaded library pays this much. For bench/instructions.sh. */
#include <dlfcn.h>
#include <stddef.h>

static void *(*real_malloc)(size_t);
static void (*real_free)(void *);

__attribute__((constructor)) static void resolve(void)
{
    *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&real_free = dlsym(RTLD_NEXT, "free");
}

void *malloc(size_t n)
{
    if (real_malloc == NULL)
        resolve();
    return real_malloc(n);
}

void free(void *p)
{
    if (real_free == NULL)
        resolve();
    real_free(p);
}
