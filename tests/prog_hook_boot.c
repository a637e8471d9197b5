/* prog_hook_boot.c - a program whose dlsym allocates, as that of old glibcs does, so that the
 * hook's first call finds itself called by the dlsym it called. What was given out meanwhile must
 * live, and may be grown, measured and freed later like any block. */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

#if defined(__x86_64__)
#define BASE_VERSION "GLIBC_2.2.5"
#else
#define BASE_VERSION "GLIBC_2.17"
#endif

static void *(*real_dlsym)(void *, const char *);
static void *libc;
static char *kept, *grown;
static void *aligned;
static unsigned calls;

/* Before the program's own: RTLD_NEXT would mean what comes after the program, which is the hook.
 */
void *dlsym(void *restrict handle, const char *restrict name)
{
    if (real_dlsym == NULL) {
        libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void *fn = dlvsym(libc, "dlsym", BASE_VERSION);
        memcpy(&real_dlsym, &fn, sizeof fn);
    }
    if (handle != RTLD_NEXT)
        return real_dlsym(handle, name);
    if (calls++ == 0) {
        char *p = calloc(hundred, 1);
        free(p);
        kept = calloc(hundred, 1);
        grown = malloc(hundred);
        if (grown != NULL) {
            memset(grown, 'g', hundred);
            grown = realloc(grown, 2 * hundred);
        }
        if (posix_memalign(&aligned, 256, hundred) != 0)
            aligned = NULL;
    }
    return real_dlsym(libc, name);
}

int main(void)
{
    void *volatile first = malloc(hundred);
    free(first);
    REQUIRE(calls > 0);
    REQUIRE(kept != NULL && grown != NULL && aligned != NULL);
    REQUIRE((uintptr_t)aligned % 256 == 0 && (uintptr_t)grown % 16 == 0);
    for (size_t i = 0; i < hundred; i++)
        REQUIRE(kept[i] == 0 && grown[i] == 'g');
    REQUIRE(attach_by_name(RTLD_DEFAULT));
    memkit__counts before, after;
    prof->process_counts(&before);
    char *moved = realloc(grown, 100000);
    REQUIRE(moved != NULL && moved[0] == 'g' && moved[hundred - 1] == 'g');
    prof->process_counts(&after);
    REQUIRE(after.mallocs - before.mallocs == 1 && after.frees - before.frees == 1);
    REQUIRE(after.alloc_bytes - before.alloc_bytes == malloc_usable_size(moved));
    REQUIRE(after.freed_bytes - before.freed_bytes >= 2 * hundred);
    REQUIRE(after.freed_bytes - before.freed_bytes < 3 * hundred);
    memset(kept, 1, hundred);
    free(kept);
    free(aligned);
    free(moved);
    prof->process_counts(&after);
    REQUIRE(after.frees - before.frees == 4);
    /* and everything else goes on as ever */
    for (size_t i = 0; i < FAMILY_CHECKS; i++)
        if (strcmp(family[i].name, "a_bad_alignment_is_answered_as_the_real_one_does") != 0)
            REQUIRE(family[i].run());
    return 0;
}
