/* prog_prof_signals.c - a signal handler that allocates and frees, at any moment of a main thread
 * that does the same, both sampled; lib_plain_malloc.so must be under the hook.
 *
 *     prog_prof_signals RATE     1: each allocation is to be a sample, else some
 *
 * Half of the handler's blocks are freed by the main thread and the other way round.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <memkit/prof.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIGNALS = 10000, MOST_CALLS = 3000000, SLOTS = 64 };

static volatile sig_atomic_t signals;
static _Atomic(void *) slots[SLOTS];
static unsigned long made;

static void allocate(int signo)
{
    (void)signo;
    if (signals >= SIGNALS)
        return;
    int saved = errno;
    for (size_t i = 0; i < 4; i++)
        free(atomic_exchange(&slots[((size_t)signals + i) % SLOTS], malloc(16 + i * 50)));
    errno = saved;
    signals = signals + 1;
}

static void *named(const char *name)
{
    void *fn = dlsym(RTLD_DEFAULT, name);
    if (fn == NULL)
        exit(3);
    return fn;
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
    if (argc != 2)
        return 3;
    size_t rate = strtoul(argv[1], NULL, 10);
    int (*start)(const memkit_prof_opts *);
    int (*stop)(void);
    void (*stats)(memkit_prof_stats_t *);
    void *fns[3] = {named("memkit_prof_start"), named("memkit_prof_stop"),
                    named("memkit_prof_stats")};
    memcpy(&start, &fns[0], sizeof start);
    memcpy(&stop, &fns[1], sizeof stop);
    memcpy(&stats, &fns[2], sizeof stats);
    for (size_t i = 0; i < 20; i++) { /* no first call is in the handler */
        void *volatile p = malloc(i);
        free(p);
    }
    memkit_prof_stats_t before, after;
    timer_t timer = tick();
    if (start(&(memkit_prof_opts){.sample_bytes = rate}) != 0)
        return 4;
    int seen = signals;
    while (signals < SIGNALS)
        if (made < MOST_CALLS) {
            free(atomic_exchange(&slots[made % SLOTS], malloc(made % 200)));
            made++;
        }
    timer_delete(timer);
    stats(&before);
    for (int i = 0; i < SLOTS; i++)
        free(atomic_exchange(&slots[i], NULL));
    stats(&after);
    if (stop() != 0 || after.dropped != 0)
        return 5;
    unsigned long least = made + (unsigned long)(SIGNALS - seen) * 4;
    unsigned long most = made + (unsigned long)SIGNALS * 4;
    if (rate == 1 && (before.samples < least || before.samples > most))
        return 6;
    if (rate == 1 && before.live_samples != SLOTS)
        return 7;
    if (before.samples < 100 || after.live_samples != 0) {
        fprintf(stderr, "%lu samples, %lu live\n", (unsigned long)before.samples,
                (unsigned long)after.live_samples);
        return 8;
    }
    return 0;
}
