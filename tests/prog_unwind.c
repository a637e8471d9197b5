/* prog_unwind.c - a program of known stacks, built many ways: tests/test_prof_unwind.c runs it.
 *
 * Its malloc takes the stack once it is armed, so that what lies between is what a program has:
 * libc's own code. Exit code: how many stacks were not as they had to be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prog_unwind.h"

#include <alloca.h>
#include <dirent.h>
#include <netdb.h>
#include <pthread.h>
#include <search.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static __thread volatile bool armed;

static inline void seen(void)
{
    if (armed) {
        armed = false;
        TAKE();
    }
}

void *malloc(size_t n)
{
    seen();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    seen();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    seen();
    return __libc_realloc(p, n);
}

/* ---- ways through libc ---- */

static void *volatile sink;

static void keep(void *p)
{
    sink = p;
    free(p);
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static NOINLINE int compare_and_allocate(const void *a, const void *b)
{
    if (armed) {
        ENTER();
        keep(malloc(10));
        /* The check is done while expected still holds this function's. */
        check_in_order("callback", 3);
        LEAVE();
        n_frames = 0;
    }
    return compare(a, b);
}

static void allocate_once(void)
{
    ENTER();
    keep(malloc(10));
    check_in_order("pthread_once", 3);
    LEAVE();
    n_frames = 0;
}

static void by_direct(void)
{
    ENTER();
    keep(malloc(10));
    LEAVE();
}

static void by_strdup(void)
{
    ENTER();
    keep(strdup("text"));
    LEAVE();
}

static void by_asprintf(void)
{
    ENTER();
    char *text;
    if (asprintf(&text, "%d and %s", 7, "more") > 0)
        keep(text);
    LEAVE();
}

static void by_getline(void)
{
    ENTER();
    char *line = NULL;
    size_t room = 0;
    FILE *f = fopen("/proc/self/status", "r");
    armed = true;
    if (f != NULL && getline(&line, &room, f) > 0)
        keep(line);
    if (f != NULL)
        fclose(f);
    LEAVE();
}

static void by_qsort(void)
{
    ENTER();
    int numbers[] = {3, 1, 2};
    qsort(numbers, 3, sizeof numbers[0], compare_and_allocate);
    LEAVE();
}

static void by_once(void)
{
    ENTER();
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, allocate_once);
    LEAVE();
}

static void by_fgets(void)
{
    ENTER();
    char line[80];
    FILE *f = fopen("/proc/self/status", "r");
    armed = true; /* the buffer comes with the first read */
    if (f != NULL && fgets(line, sizeof line, f) != NULL)
        fclose(f);
    LEAVE();
}

static void by_memstream(void)
{
    ENTER();
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (f != NULL) {
        fclose(f);
        free(text);
    }
    LEAVE();
}

static void by_opendir(void)
{
    ENTER();
    DIR *d = opendir("/");
    if (d != NULL)
        closedir(d);
    LEAVE();
}

static void by_realpath(void)
{
    ENTER();
    keep(realpath("/proc/self", NULL));
    LEAVE();
}

static void by_fopen(void)
{
    ENTER();
    FILE *f = fopen("/dev/null", "r");
    if (f != NULL)
        fclose(f);
    LEAVE();
}

static void by_tsearch(void)
{
    ENTER();
    static int key;
    static void *root;
    sink = tsearch(&key, &root, compare);
    LEAVE();
}

static void by_getaddrinfo(void)
{
    ENTER();
    struct addrinfo *found, hints = {.ai_flags = AI_NUMERICHOST};
    if (getaddrinfo("127.0.0.1", "80", &hints, &found) == 0)
        freeaddrinfo(found);
    LEAVE();
}

static void by_bsearch(void)
{
    ENTER();
    int numbers[] = {1, 2, 3}, key = 2;
    sink = bsearch(&key, numbers, 3, sizeof numbers[0], compare_and_allocate);
    LEAVE();
}

static void by_large_qsort(void)
{
    ENTER();
    static int numbers[4096]; /* more than qsort has on its stack */
    for (int i = 0; i < 4096; i++)
        numbers[i] = -i;
    qsort(numbers, 4096, sizeof numbers[0], compare);
    LEAVE();
}

static const struct {
    const char *name;
    void (*fn)(void);
} ways[] = {{"direct", by_direct},
            {"strdup", by_strdup},
            {"asprintf", by_asprintf},
            {"getline", by_getline},
            {"qsort callback", by_qsort},
            {"pthread_once callback", by_once},
            {"fgets", by_fgets},
            {"open_memstream", by_memstream},
            {"opendir", by_opendir},
            {"realpath", by_realpath},
            {"fopen", by_fopen},
            {"tsearch", by_tsearch},
            {"getaddrinfo", by_getaddrinfo},
            {"bsearch callback", by_bsearch},
            {"large qsort", by_large_qsort}};

static NOINLINE void run_way(unsigned i)
{
    ENTER();
    was_cut = true;
    n_frames = 0;
    armed = true;
    ways[i].fn();
    bool checked_by_callback = n_frames == 0 && !was_cut;
    if (armed)
        wrong(ways[i].name, "nothing was allocated");
    else if (!checked_by_callback) {
        n_expected++; /* the way's own is still noted */
        check_in_order(ways[i].name, 3);
        n_expected--;
    }
    armed = false;
    LEAVE();
}

/* ---- a chain of one's own, with stacks of all shapes ---- */

static jmp_buf out;
static unsigned levels;
static unsigned depth_seen; /* of the last chain, and whether it was cut */
static bool chain_cut;

static NOINLINE __attribute__((noreturn)) void never_returns(void)
{
    ENTER(); /* returns to an address behind its caller's last instruction */
    TAKE();
    check_exactly("a function that never returns");
    LEAVE();
    longjmp(out, 1);
}

static NOINLINE void calls_what_never_returns(void)
{
    ENTER();
    never_returns();
}

static NOINLINE int innermost(int depth)
{
    ENTER();
    TAKE();
    check_exactly("chain");
    unsigned whole = n_frames;
    depth_seen = whole;
    chain_cut = was_cut;
    if (!was_cut) {
        n_frames = memkit__unwind_here(frames, whole, &was_cut);
        if (n_frames != whole || was_cut)
            wrong("chain", "cut where it has just room");
        n_frames = memkit__unwind_here(frames, whole - 1, &was_cut);
        if (n_frames != whole - 1 || !was_cut)
            wrong("chain", "not cut where it has no room");
    }
    LEAVE();
    return depth;
}

static NOINLINE int recurses(int depth)
{
    ENTER();
    int result = depth > 0 ? recurses(depth - 1) : innermost(depth);
    LEAVE();
    return result + 1;
}

static NOINLINE int many_arguments(int a, int b, int c, int d, int e, int f, int g, int h, int i)
{
    ENTER();
    int result = recurses((int)levels) + a + b + c + d + e + f + g + h + i;
    LEAVE();
    return result;
}

static NOINLINE int realigned(int n)
{
    ENTER();
    _Alignas(128) char room[256];
    char *more = alloca((size_t)n + 33);
    __asm__ volatile("" ::"r"(room), "r"(more) : "memory");
    int result = many_arguments(1, 2, 3, 4, 5, 6, 7, 8, n);
    LEAVE();
    return result + room[0] * 0;
}

static NOINLINE int grows(int n)
{
    ENTER();
    char *room = alloca((size_t)n * 16);
    __asm__ volatile("" ::"r"(room) : "memory");
    int (*volatile next)(int) = realigned;
    int result = next(n);
    LEAVE();
    return result;
}

static NOINLINE int large_frame(int n)
{
    ENTER();
    char room[70000];
    __asm__ volatile("" ::"r"(room) : "memory");
    int result = grows(n);
    LEAVE();
    return result;
}

static NOINLINE void chains(void)
{
    ENTER();
    static const unsigned depths[] = {1,   50,  110, 111, 112, 113, 114, 115, 116, 117,
                                      118, 119, 120, 121, 122, 123, 124, 125, 1000};
    unsigned others = 0; /* frames that are not of the recursion */
    for (unsigned i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        levels = depths[i];
        for (int twice = 0; twice < 2; twice++)
            large_frame(5);
        others = i == 0 ? depth_seen - levels : others;
        bool fits = levels + others <= MAX;
        if (chain_cut == fits || depth_seen != (fits ? levels + others : MAX))
            wrong("chain", "cut at the wrong depth");
    }
    unsigned before = n_expected;
    if (setjmp(out) == 0)
        calls_what_never_returns();
    n_expected = before;
    LEAVE();
}

/* ---- threads ---- */

static pthread_key_t key;

static void at_thread_end(void *value)
{
    ENTER();
    keep(strdup(value));
    armed = true;
    keep(strdup(value));
    if (n_frames < 4 || was_cut)
        wrong("key destructor", "too few frames");
    LEAVE();
}

static NOINLINE void thread_work(void)
{
    ENTER();
    armed = true;
    keep(strdup("in a thread"));
    unsigned at = 0;
    while (at < n_frames && pc_of(at) != expected[1])
        at++;
    if (at + 1 >= n_frames || pc_of(at + 1) != expected[0] || n_frames - at > 4 || was_cut)
        wrong("thread", "not its whole stack");
    LEAVE();
}

static void *thread(void *arg)
{
    n_expected = 0;
    ENTER();
    pthread_setspecific(key, "value");
    for (int i = 0; i < 3; i++)
        thread_work();
    levels = 20;
    LEAVE();
    return arg;
}

static void in_thread(pthread_attr_t *attr)
{
    pthread_t t;
    if (pthread_create(&t, attr, thread, NULL) != 0 || pthread_join(t, NULL) != 0)
        failures++;
}

static void threads(void)
{
    pthread_key_create(&key, at_thread_end);
    for (int i = 0; i < 200; i++) {
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, (size_t)(64 + i * 37 % 400) << 10);
        in_thread(i % 2 == 0 ? &attr : NULL);
        pthread_attr_destroy(&attr);
    }
    size_t bytes = (size_t)256 << 10;
    void *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstack(&attr, stack, bytes);
    in_thread(&attr);
    pthread_attr_destroy(&attr);
    munmap(stack, bytes);
    pthread_t t[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&t[i], NULL, thread, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
}

static void at_exit(void)
{
    ENTER();
    armed = true;
    keep(strdup("at exit"));
    n_expected = 1;
    check_in_order("atexit", 0);
    if (failures != 0)
        _exit(failures);
}

int main(int argc, char **argv)
{
    ENTER();
    if (memkit__unwind_prepare() != 0)
        return 99;
    if (argc > 1 && strcmp(argv[1], "ways") == 0)
        for (int twice = 0; twice < 2; twice++)
            for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++) {
                if (twice == 1 && ways[i].fn == by_tsearch)
                    continue; /* the key is there */
                if (twice == 1 && ways[i].fn == by_once)
                    continue;
                run_way(i);
            }
    else if (argc > 1 && strcmp(argv[1], "chain") == 0)
        chains();
    else if (argc > 1 && strcmp(argv[1], "threads") == 0)
        threads();
    else
        return 98;
    n_expected = 0;
    if (failures == 0)
        atexit(at_exit);
    return failures;
}
