/* prog_hook_family.c - a program that knows what it allocates, and compares with what the hook
 * says.
 *
 * Run preloaded it needs nothing of memkit but memkit_prof_attach, found by name. tests/test_hook.c
 * includes this file and runs the same checks with the hook linked into it.
 *
 *     prog_hook_family              every check; names those that fail; 0 when none does
 *     prog_hook_family other        the malloc underneath is not glibc's
 *     prog_hook_family dlopen LIB   the hook is loaded too late to hook anything, and says so
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/attach.h"

/* Sizes and alignments that the compiler must not see through. */
static volatile size_t too_much = SIZE_MAX;
static volatile size_t hundred = 100;
static volatile size_t zero = 0;
static volatile size_t odd_alignment = 24;

static const memkit__prof_table *prof;

/* What fails, fails over every malloc; but not all set errno, or think the same alignments wrong.
 */
static int glibc = 1;

static void no_objects(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    (void)fn;
    (void)arg;
}

static const memkit__core_table fake_core = {
    .abi = MEMKIT__ATTACH_ABI,
    .size = sizeof fake_core,
    .library_version = "0.0.0",
    .each_object = no_objects,
};

static int attach_by_name(void *handle)
{
    const memkit__prof_table *(*attach)(const memkit__core_table *);
    void *fn = dlsym(handle, "memkit_prof_attach");
    if (fn == NULL)
        return 0;
    memcpy(&attach, &fn, sizeof fn);
    prof = attach(&fake_core);
    return prof != NULL;
}

/* ---- one step: what it should have counted, and what was ------------------------------------- */

static memkit__counts own0, all0;
static memkit__counts mine; /* the truth, as this program sees it */

static void start(void)
{
    mine = (memkit__counts){0};
    prof->process_counts(&all0);
    prof->thread_counts(&own0);
}

static void *got(void *p)
{
    if (p != NULL) {
        mine.mallocs++;
        mine.alloc_bytes += malloc_usable_size(p);
    }
    return p;
}

/* Before the block goes. */
static void *gone(void *p)
{
    if (p != NULL) {
        mine.frees++;
        mine.freed_bytes += malloc_usable_size(p);
    }
    return p;
}

static int agree(const memkit__counts *now, const memkit__counts *then)
{
    return now->mallocs - then->mallocs == mine.mallocs && now->frees - then->frees == mine.frees &&
           now->alloc_bytes - then->alloc_bytes == mine.alloc_bytes &&
           now->freed_bytes - then->freed_bytes == mine.freed_bytes;
}

/* The thread's counters and the process's, which nobody else moves meanwhile. */
static int agreed(void)
{
    memkit__counts own, all;
    prof->thread_counts(&own);
    prof->process_counts(&all);
    return agree(&own, &own0) && agree(&all, &all0);
}

/* A check answers 1 when all is well, a main 0. */
#define OR_RETURN(condition, code)                                          \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return code;                                                    \
        }                                                                   \
    } while (0)
#define CHECK(condition)   OR_RETURN(condition, 0)
#define REQUIRE(condition) OR_RETURN(condition, 1)

/* ---- the family ------------------------------------------------------------------------------ */

static int malloc_and_free(void)
{
    static const size_t sizes[] = {0, 1, 24, 25, 100, 1000, 4096, 70000, 200000, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        start();
        void *p = got(malloc(sizes[i] + zero));
        CHECK(p != NULL && agreed());
        free(gone(p));
        CHECK(agreed());
    }
    return 1;
}

static int free_of_null_is_no_call(void)
{
    void *volatile none = NULL;
    start();
    free(none);
    CHECK(agreed());
    return 1;
}

static int calloc_counts_and_clears(void)
{
    start();
    unsigned char *p = got(calloc(hundred, 7));
    CHECK(p != NULL && agreed());
    for (size_t i = 0; i < 700; i++)
        CHECK(p[i] == 0);
    free(gone(p));
    CHECK(agreed());
    return 1;
}

static int realloc_is_one_of_each(void)
{
    static const size_t sizes[] = {10, 24, 25, 1000, 300000, 5000000, 300000, 40, 1};
    start();
    char *p = got(realloc(NULL, 5 + zero));
    CHECK(p != NULL && agreed());
    memcpy(p, "abcd", 5);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        gone(p);
        p = got(realloc(p, sizes[i] + zero));
        CHECK(p != NULL && agreed());
        CHECK(p[0] == 'a');
    }
    /* glibc's: frees, and answers NULL */
    gone(p);
    p = got(realloc(p, zero));
    CHECK((p == NULL || !glibc) && agreed());
    free(gone(p));
    start();
    p = got(realloc(NULL, zero));
    CHECK(p != NULL && agreed());
    free(gone(p));
    CHECK(agreed());
    return 1;
}

static int reallocarray_counts_once(void)
{
    start();
    char *p = got(reallocarray(NULL, hundred, 3));
    CHECK(p != NULL && agreed());
    gone(p);
    p = got(reallocarray(p, hundred, 5000));
    CHECK(p != NULL && agreed());
    gone(p);
    p = got(reallocarray(p, hundred, zero));
    CHECK((p == NULL || !glibc) && agreed());
    free(gone(p));
    CHECK(agreed());
    return 1;
}

static int aligned_blocks_count(void)
{
    for (size_t align = sizeof(void *); align <= 65536; align *= 2) {
        void *p = NULL;
        start();
        CHECK(posix_memalign(&p, align, hundred) == 0);
        got(p);
        CHECK(agreed() && (uintptr_t)p % align == 0);
        free(gone(p));
        CHECK((p = got(aligned_alloc(align, align * 3 + zero))) != NULL && agreed());
        CHECK((uintptr_t)p % align == 0);
        free(gone(p));
        CHECK((p = got(memalign(align, hundred))) != NULL && agreed());
        CHECK((uintptr_t)p % align == 0);
        free(gone(p));
        CHECK(agreed());
    }
    start();
    void *p = got(valloc(hundred));
    CHECK(p != NULL && (uintptr_t)p % (size_t)sysconf(_SC_PAGESIZE) == 0 && agreed());
    free(gone(p));
    p = got(pvalloc(hundred));
    CHECK(p != NULL && malloc_usable_size(p) >= (size_t)sysconf(_SC_PAGESIZE) && agreed());
    free(gone(p));
    CHECK(agreed());
    return 1;
}

/* ---- calls that fail ------------------------------------------------------------------------- */

/* The answer and errno go through memory: clang takes a malloc whose block nobody uses for one that
 * succeeds, and none to write errno. */
#define FAILS(call, code)                  \
    do {                                   \
        errno = 0;                         \
        void *volatile answer = (call);    \
        __asm__ volatile("" ::: "memory"); \
        CHECK(answer == NULL);             \
        CHECK(errno == (code) || !glibc);  \
        CHECK(agreed());                   \
    } while (0)

static int failing_calls_count_nothing(void)
{
    void *volatile p = malloc(hundred); /* so that gcc does not think it gone after a realloc */
    void *out = &own0;
    start();
    FAILS(malloc(too_much), ENOMEM);
    FAILS(malloc(too_much / 2 + 1), ENOMEM);
    FAILS(calloc(too_much / 2, 3), ENOMEM);
    FAILS(calloc(too_much, 1), ENOMEM);
    FAILS(realloc(NULL, too_much), ENOMEM);
    FAILS(realloc(p, too_much), ENOMEM);
    FAILS(reallocarray(p, too_much / 2, 3), ENOMEM);
    FAILS(reallocarray(NULL, too_much / 4, 5), ENOMEM);
    FAILS(aligned_alloc(64, too_much - 63), ENOMEM);
    FAILS(memalign(64, too_much - 63), ENOMEM);
    if (glibc) { /* tcmalloc's pvalloc wraps around */
        FAILS(valloc(too_much), ENOMEM);
        FAILS(pvalloc(too_much - 100), ENOMEM);
    }
    /* posix_memalign answers, and leaves errno and its argument alone */
    errno = 4711;
    CHECK(posix_memalign(&out, odd_alignment, hundred) == EINVAL);
    CHECK(posix_memalign(&out, zero, hundred) == EINVAL);
    CHECK(posix_memalign(&out, sizeof(void *) / 2, hundred) == EINVAL);
    CHECK(posix_memalign(&out, 64, too_much) == ENOMEM);
    CHECK(out == &own0 && agreed());
    memset(p, 1, hundred); /* still there */
    free(gone(p));
    CHECK(agreed());
    return 1;
}

/* What another than a power of two does differs from one glibc to the next: as the real one. */
static int a_bad_alignment_is_answered_as_the_real_one_does(void)
{
    if (!glibc)
        return 1;
    void *(*real)(size_t, size_t);
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    void *fn = libc != NULL ? dlsym(libc, "aligned_alloc") : NULL;
    CHECK(fn != NULL);
    memcpy(&real, &fn, sizeof fn);
    void (*real_free)(void *);
    fn = dlsym(libc, "free");
    memcpy(&real_free, &fn, sizeof fn);
    errno = 0;
    void *want = real(odd_alignment, hundred);
    int want_errno = errno;
    start();
    errno = 0;
    void *p = got(aligned_alloc(odd_alignment, hundred));
    CHECK((p != NULL) == (want != NULL) && errno == want_errno && agreed());
    free(gone(p));
    CHECK(agreed());
    real_free(want); /* neither was counted */
    return 1;
}

static int errno_is_left_alone(void)
{
    errno = 4711;
    void *p = malloc(hundred);
    void *big = malloc(too_much / too_much * 50000000);
    p = realloc(p, 2 * hundred);
    CHECK(errno == 4711);
    free(p);
    free(big); /* munmap */
    CHECK(errno == 4711);
    return 1;
}

/* ---- libc's own calls ------------------------------------------------------------------------ */

static int strdup_and_asprintf_are_seen(void)
{
    start();
    char *p = got(strdup("a string that is not folded away"));
    CHECK(p != NULL && agreed());
    free(gone(p));
    p = got(strndup("another string", 7));
    CHECK(p != NULL && agreed());
    free(gone(p));
    CHECK(asprintf(&p, "%zu and some", hundred) > 0);
    memkit__counts now;
    prof->thread_counts(
        &now); /* it may take a buffer and shorten it: as many frees as blocks less one */
    CHECK(now.mallocs - own0.mallocs >= 3);
    CHECK(now.mallocs - own0.mallocs == now.frees - own0.frees + 1);
    CHECK(now.alloc_bytes - own0.alloc_bytes ==
          now.freed_bytes - own0.freed_bytes + malloc_usable_size(p));
    free(p);
    return 1;
}

/* What is live after fopen, getline, open_memstream, and nothing once all is closed. */
static int streams_and_getline_are_seen(void)
{
    char *line = NULL, *text = NULL;
    size_t room = 0, len = 0;
    start();
    FILE *in = fopen("/proc/self/status", "r");
    CHECK(in != NULL);
    CHECK(getline(&line, &room, in) > 0);
    memkit__counts now;
    prof->thread_counts(&now);
    CHECK(now.mallocs - own0.mallocs >= 3); /* the FILE, its buffer, the line */
    fclose(in);
    prof->thread_counts(&now);
    CHECK(now.alloc_bytes - own0.alloc_bytes ==
          now.freed_bytes - own0.freed_bytes + malloc_usable_size(line));
    free(line);
    FILE *mem = open_memstream(&text, &len);
    CHECK(mem != NULL);
    for (int i = 0; i < 10000; i++)
        fputs("0123456789", mem);
    fclose(mem);
    CHECK(len == 100000);
    prof->thread_counts(&now);
    CHECK(now.alloc_bytes - own0.alloc_bytes ==
          now.freed_bytes - own0.freed_bytes + malloc_usable_size(text));
    free(text);
    prof->thread_counts(&now);
    CHECK(now.mallocs - own0.mallocs == now.frees - own0.frees);
    CHECK(now.mallocs - own0.mallocs >= 6);
    return 1;
}

static int malloc_by_pointer_is_seen(void)
{
    void *(*volatile take)(size_t) = malloc;
    void (*volatile give)(void *) = free;
    start();
    void *p = got(take(hundred));
    CHECK(p != NULL && agreed());
    give(gone(p));
    CHECK(agreed());
    CHECK(prof->hooked() == 1);
    CHECK(agreed()); /* the question leaves no trace */
    return 1;
}

static const struct {
    const char *name;
    int (*run)(void);
} family[] = {
    {"malloc_and_free", malloc_and_free},
    {"free_of_null_is_no_call", free_of_null_is_no_call},
    {"calloc_counts_and_clears", calloc_counts_and_clears},
    {"realloc_is_one_of_each", realloc_is_one_of_each},
    {"reallocarray_counts_once", reallocarray_counts_once},
    {"aligned_blocks_count", aligned_blocks_count},
    {"failing_calls_count_nothing", failing_calls_count_nothing},
    {"a_bad_alignment_is_answered_as_the_real_one_does",
     a_bad_alignment_is_answered_as_the_real_one_does},
    {"errno_is_left_alone", errno_is_left_alone},
    {"strdup_and_asprintf_are_seen", strdup_and_asprintf_are_seen},
    {"streams_and_getline_are_seen", streams_and_getline_are_seen},
    {"malloc_by_pointer_is_seen", malloc_by_pointer_is_seen},
};

#define FAMILY_CHECKS (sizeof family / sizeof family[0])

#ifndef INCLUDED_BY_A_TEST
int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "dlopen") == 0) {
        void *lib = dlopen(argv[2], RTLD_NOW);
        if (lib == NULL || !attach_by_name(lib))
            return 2;
        return prof->hooked() == 0 ? 0 : 1;
    }
    glibc = argc < 2;
    if (!attach_by_name(RTLD_DEFAULT)) {
        fprintf(stderr, "there is no memkit_prof_attach\n");
        return 2;
    }
    int failed = 0;
    for (size_t i = 0; i < FAMILY_CHECKS; i++)
        if (!family[i].run()) {
            fprintf(stderr, "failed: %s\n", family[i].name);
            failed++;
        }
    return failed == 0 ? 0 : 1;
}
#endif
