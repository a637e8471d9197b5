/* prog_hook_mixture.c - functions that an allocator may not have, so that libc's is called beside
 * the allocator's others. Over whatever is preloaded.
 *
 *     prog_hook_mixture           reallocarray, on blocks of malloc: must work wherever the hook is
 *     prog_hook_mixture pvalloc [lax]   the hook is in front; pvalloc and valloc too, and all is
 * counted; lax: an impossible size may be answered
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

static int grow(void)
{
    unsigned char *p = malloc(hundred);
    REQUIRE(p != NULL);
    memset(p, 7, hundred);
    p = reallocarray(p, hundred, 1000);
    REQUIRE(p != NULL);
    for (size_t i = 0; i < hundred; i++)
        REQUIRE(p[i] == 7);
    REQUIRE(malloc_usable_size(p) >= hundred * 1000);
    errno = 0;
    REQUIRE(reallocarray(p, too_much, 2) == NULL && errno == ENOMEM);
    free(p);
    return 0;
}

static int whole_pages(int lax)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t n = 0; n < 3 * page; n += 777) {
        start();
        void *p = got(pvalloc(n)), *q = got(valloc(n));
        REQUIRE(p != NULL && q != NULL && agreed());
        REQUIRE((uintptr_t)p % page == 0 && (uintptr_t)q % page == 0);
        REQUIRE(malloc_usable_size(p) >= n && malloc_usable_size(q) >= n);
        memset(p, 1, n);
        free(gone(p));
        free(gone(q));
        REQUIRE(agreed());
    }
    start();
    void *volatile none = got(pvalloc(too_much)); /* tcmalloc's wraps around, and gives a page */
    REQUIRE((none == NULL || lax) && agreed());
    free(none);
    return 0;
}

int main(int argc, char **argv)
{
    REQUIRE(attach_by_name(RTLD_DEFAULT));
    if (grow() != 0)
        return 1;
    if (argc >= 2 && strcmp(argv[1], "pvalloc") == 0) {
        REQUIRE(prof->hooked() == 1);
        return whole_pages(argc > 2);
    }
    return 0;
}
