/* prog_hook_timing.c - knows how many calls of the malloc family it makes, and which is the
 * longest; compares with what the hook timed. Run with MEMKIT_TIMING=1 and lib_odd_malloc.so under
 * the hook.
 *
 *     prog_hook_timing calls | threads | switches | off
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static memkit__times t0, t1;

static uint64_t calls_of(const memkit__times *t)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < MEMKIT__TIMES_BUCKETS; i++)
        sum += t->buckets[i];
    return sum;
}

/* Not free(malloc(n)), which a compiler may leave out. */
static void pair(size_t n)
{
    void *volatile p = malloc(n);
    free(p);
}

/* One more of each function than before the call of this, and a slow one; 16 calls in all. */
static void one_of_each(void)
{
    pair(hundred);
    void *volatile q = calloc(hundred, 2);
    q = realloc(q, hundred * 30);
    free(q);
    q = reallocarray(NULL, hundred, 3);
    free(q);
    void *p = NULL;
    if (posix_memalign(&p, 64, hundred) == 0)
        free(p);
    q = aligned_alloc(64, 128);
    free(q);
    q = memalign(64, hundred);
    free(q);
    q = valloc(hundred);
    free(q);
    q = malloc(too_much); /* fails, and is a call */
    free(q);              /* is none */
}

static int calls(void)
{
    REQUIRE(prof->times(&t0));
    for (int i = 0; i < 1000; i++)
        one_of_each();
    REQUIRE(prof->times(&t1));
    REQUIRE(calls_of(&t1) - calls_of(&t0) == 16 * 1000);
    REQUIRE(t1.total_ns > t0.total_ns);
    REQUIRE(t1.longest_ns > 0 && t1.longest_function != NULL);

    void *volatile slow = malloc(12345);
    free(slow);
    REQUIRE(prof->times(&t0));
    REQUIRE(calls_of(&t0) - calls_of(&t1) == 2);
    REQUIRE(t0.longest_ns >= 200000000);
    REQUIRE(t0.longest_bytes == 12345 && strcmp(t0.longest_function, "malloc") == 0);
    REQUIRE(t0.total_ns - t1.total_ns >= t0.longest_ns);
    uint64_t slow_ones = 0, slow_before = 0; /* above 2^25 ns, which is 33 ms */
    for (unsigned i = 26 - MEMKIT__TIMES_FIRST_BIT; i < MEMKIT__TIMES_BUCKETS; i++) {
        slow_ones += t0.buckets[i];
        slow_before += t1.buckets[i];
    }
    REQUIRE(slow_ones > slow_before);

    REQUIRE(t0.clock_ns > 0 && t0.clock_ns < 1000000);
    return 0;
}

static void *busy(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000; i++)
        pair((size_t)i);
    return NULL;
}

static void *brief(void *arg)
{
    pair(hundred);
    return arg;
}

/* Nothing here but calls of which the counters see one each. */
static int threads(void)
{
    memkit__counts c0, c1;
    pthread_t t[8];
    REQUIRE(prof->times(&t0));
    prof->process_counts(&c0);
    for (int i = 0; i < 8; i++)
        REQUIRE(pthread_create(&t[i], NULL, busy, NULL) == 0);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 500; i++) {
        REQUIRE(pthread_create(&t[0], NULL, brief, NULL) == 0);
        pthread_join(t[0], NULL);
    }
    REQUIRE(prof->times(&t1));
    prof->process_counts(&c1);
    REQUIRE(c1.mallocs - c0.mallocs >= 8 * 2000 + 500);
    REQUIRE(calls_of(&t1) - calls_of(&t0) == c1.mallocs - c0.mallocs + c1.frees - c0.frees);
    return 0;
}

static uint64_t own_switches(void)
{
    struct rusage use;
    getrusage(RUSAGE_THREAD, &use);
    return (uint64_t)use.ru_nivcsw;
}

/* Shares its processor with a child that never rests, so that the long call is preempted. */
static int switches(void)
{
    cpu_set_t one;
    REQUIRE(sched_getaffinity(0, sizeof one, &one) == 0);
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &one))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    long *inside = dlsym(RTLD_DEFAULT, "odd_switches");
    REQUIRE(inside != NULL);
    for (int i = 0; i < 100; i++)
        pair(hundred); /* now it has a block of its own */
    pid_t rival = fork();
    if (rival == 0)
        for (;;) {
        }
    REQUIRE(rival > 0);
    nanosleep(&(struct timespec){0, 5000000}, NULL); /* what the hook knows is stale now */
    uint64_t before = own_switches();
    void *volatile p = malloc(54321);
    REQUIRE(prof->times(&t1));
    uint64_t after = own_switches();
    kill(rival, SIGKILL);
    waitpid(rival, NULL, 0);
    free(p);
    REQUIRE(*inside > 0);
    REQUIRE(t1.longest_bytes == 54321);
    REQUIRE(t1.longest_switches >= (uint64_t)*inside);
    REQUIRE(t1.longest_switches <= after - before);
    return 0;
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2 && attach_by_name(RTLD_DEFAULT) && prof->hooked() == 1);
    if (strcmp(argv[1], "calls") == 0)
        return calls();
    if (strcmp(argv[1], "threads") == 0)
        return threads();
    if (strcmp(argv[1], "switches") == 0)
        return switches();
    return prof->times(&t0) ? 1 : 0;
}
