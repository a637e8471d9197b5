/* prog_hook_signals.c - a signal handler that allocates, at any moment of the main thread.
 *
 *     prog_hook_signals any    while it calls malloc and free too; lib_plain_malloc.so must be
 * under the hook, for no other malloc allows that prog_hook_signals reads  while it reads the
 * counters; over any malloc
 */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

#include <signal.h>
#include <time.h>

enum { SIGNALS = 10000, IN_HANDLER = 4, MOST_CALLS = 4000000 }; /* that malloc reuses nothing */

static volatile sig_atomic_t signals;
static size_t handled_bytes;

static void allocate(int signo)
{
    (void)signo;
    if (signals >= SIGNALS)
        return;
    int saved = errno;
    for (size_t i = 0; i < IN_HANDLER; i++) {
        void *volatile p = malloc(16 + i * 10);
        handled_bytes += malloc_usable_size(p);
        free(p);
    }
    errno = saved;
    signals = signals + 1;
}

static timer_t tick(void)
{
    struct sigaction act = {.sa_handler = allocate};
    struct itimerspec often = {{0, 50000}, {0, 50000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    sigaction(SIGALRM, &act, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0)
        exit(3);
    timer_settime(timer, 0, &often, NULL);
    return timer;
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2 && attach_by_name(RTLD_DEFAULT) && prof->hooked() == 1);
    uint64_t calls = 0, bytes = 0;
    int any = strcmp(argv[1], "any") == 0;
    for (size_t i = 0; i < 20; i++) { /* over that malloc no first call is in the handler */
        void *volatile p = malloc(i);
        free(p);
    }
    memkit__counts now;
    start();
    timer_t timer = tick();
    while (signals < SIGNALS) {
        if (!any || calls == MOST_CALLS) {
            prof->thread_counts(&now);
            prof->process_counts(&now);
            REQUIRE(now.frees <= now.mallocs && now.freed_bytes <= now.alloc_bytes);
            continue;
        }
        void *volatile p = malloc(calls % 50);
        bytes += malloc_usable_size(p);
        free(p);
        calls++;
    }
    timer_delete(timer);
    mine.mallocs = mine.frees = calls + (uint64_t)SIGNALS * IN_HANDLER;
    mine.alloc_bytes = mine.freed_bytes = bytes + handled_bytes;
    REQUIRE(agreed());
    return 0;
}
