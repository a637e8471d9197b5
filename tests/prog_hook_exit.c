/* prog_hook_exit.c - says on standard output what the hook counted just before the end, for a test
 * to compare with the table of MEMKIT_STATS.
 *
 *     prog_hook_exit [chdir DIR] [close] [rows] [quick]
 *       chdir DIR   changes its directory first
 *       close       closes its standard error at once, and opens something else in its place
 *       rows        attaches two cores with objects; one leaves before the end
 *       quick       ends by _exit
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

#include <fcntl.h>

static void staying(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    fn(arg, &(memkit__object_row){"pool", "stays", 111, 222});
    fn(arg, &(memkit__object_row){"lru", NULL, 333, 0});
}

static void leaving(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    fn(arg, &(memkit__object_row){"arena", "left-early", 444, 555});
}

static const memkit__core_table stays = {.abi = MEMKIT__ATTACH_ABI,
                                         .size = sizeof stays,
                                         .library_version = "0.0.0",
                                         .each_object = staying};
static const memkit__core_table leaves = {.abi = MEMKIT__ATTACH_ABI,
                                          .size = sizeof leaves,
                                          .library_version = "0.0.0",
                                          .each_object = leaving};

int main(int argc, char **argv)
{
    REQUIRE(attach_by_name(RTLD_DEFAULT));
    const memkit__prof_table *(*attach)(const memkit__core_table *);
    void *fn = dlsym(RTLD_DEFAULT, "memkit_prof_attach");
    memcpy(&attach, &fn, sizeof fn);
    int quick = 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "chdir") == 0) {
            REQUIRE(chdir(argv[++i]) == 0);
        } else if (strcmp(argv[i], "close") == 0) {
            close(STDERR_FILENO);
            if (open("/dev/null", O_WRONLY) != STDERR_FILENO)
                return 3;
        } else if (strcmp(argv[i], "rows") == 0) {
            if (attach(&stays) == NULL || attach(&leaves) == NULL)
                return 3;
            prof->detach(&leaves);
        } else if (strcmp(argv[i], "quick") == 0) {
            quick = 1;
        }
    void *volatile big = malloc(10000000);
    free(big);
    for (int i = 0; i < 100; i++)
        big = malloc(hundred); /* in use at exit */
    memkit__counts c;
    prof->process_counts(&c);
    char line[200]; /* dprintf would allocate */
    int n = snprintf(line, sizeof line, "%llu %llu %llu %llu %llu\n", (unsigned long long)c.mallocs,
                     (unsigned long long)c.frees, (unsigned long long)c.alloc_bytes,
                     (unsigned long long)(c.alloc_bytes - c.freed_bytes),
                     (unsigned long long)c.peak_bytes);
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        return 3;
    if (quick)
        _exit(0);
    return 0;
}
