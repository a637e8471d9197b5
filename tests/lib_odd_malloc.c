/* lib_odd_malloc.c - glibc's malloc, but two sizes take their time. Preloaded after the hook.
 *
 *     12345 bytes   sleep for 200 ms
 *     54321 bytes   run for 300 ms and until the thread was preempted, 20 s at most; how often it
 *                   was preempted meanwhile is in odd_switches
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <sys/resource.h>
#include <time.h>

long odd_switches;

void *__libc_malloc(size_t n);
void *malloc(size_t n);

static long switches(void)
{
    struct rusage use;
    getrusage(RUSAGE_THREAD, &use);
    return use.ru_nivcsw;
}

void *malloc(size_t n)
{
    if (n == 12345)
        nanosleep(&(struct timespec){0, 200000000}, NULL);
    if (n == 54321) {
        long before = switches();
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        long ms = 0;
        while (ms < 300 || (odd_switches == 0 && ms < 20000)) {
            odd_switches = switches() - before;
            clock_gettime(CLOCK_MONOTONIC, &now);
            ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        }
    }
    return __libc_malloc(n);
}
