/* dump_signal.c - MEMKIT_DUMP_SIGNAL: a heap profile whenever a signal comes.
 *
 *     signal --> on_signal: sem_post --> our thread: memkit__dump
 *
 * - Whoever the signal interrupts may be within malloc, so the handler does nothing but wake a
 *   thread. It is there from the moment that the signal is asked for: none could be made then. It
 *   takes no signals, and what it allocates is in no figure.
 * - A fork leaves the thread behind, so the child makes its own. It touches nothing of ours before
 *   it is woken: other handlers of the fork may still be at work.
 * - It looks once a second whether it is the last one (lone.h).
 * - A program that has a handler keeps it. One that installs its own later has the signal back.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "hook/report.h"
#include "prof/env.h"
#include "prof/lone.h"
#include "prof/quiet.h"

#define STACK ((size_t)1024 * 1024)

static sem_t wanted;
static bool armed;

static void on_signal(int sig)
{
    (void)sig;
    int saved = errno;
    sem_post(&wanted);
    errno = saved;
}

/* Whether a profile is wanted. */
static bool wait_a_second(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    while (sem_timedwait(&wanted, &until) != 0)
        if (errno != EINTR)
            return false;
    return true;
}

static void *write_when_wanted(void *unused)
{
    (void)unused;
    memkit__lone_begin(MEMKIT__LONE_DUMP);
    for (bool quiet = false;;) {
        bool asked = wait_a_second();
        if (!quiet)
            memkit__quiet_begin();
        quiet = true;
        if (asked)
            memkit__dump();
        else
            memkit__lone_check();
    }
    return NULL;
}

/* 0 or an error. */
static int make_thread(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    int error = pthread_attr_init(&attr);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attr, STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    memkit__quiet_begin();
    error = pthread_create(&thread, &attr, write_when_wanted, NULL);
    memkit__quiet_end();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

static void in_child(void)
{
    memkit__dump_in_child();
    if (!armed)
        return;
    int saved = errno;
    sem_init(&wanted, 0, 0); /* what was asked of the parent is the parent's */
    int error = make_thread();
    if (error != 0)
        memkit__complain("memkit: MEMKIT_DUMP_SIGNAL: no thread for it in a child: %s\n",
                         strerror(error));
    errno = saved;
}

bool memkit__dump_on(int sig, const char *said)
{
    struct sigaction now, ours = {.sa_flags = SA_RESTART | SA_ONSTACK};
    if (sigaction(sig, NULL, &now) != 0 ||
        (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN)) {
        memkit__complain("memkit: MEMKIT_DUMP_SIGNAL=%.100s: the program has a handler of its own "
                         "for it; no profile on a signal\n",
                         said);
        return false;
    }
    sem_init(&wanted, 0, 0);
    int error = make_thread();
    if (error == 0) {
        armed = true;
        ours.sa_handler = on_signal;
        sigfillset(&ours.sa_mask);
        error = sigaction(sig, &ours, NULL) != 0 ? errno : 0;
    }
    if (error != 0)
        memkit__complain("memkit: MEMKIT_DUMP_SIGNAL=%.100s: %s; no profile on a signal\n", said,
                         strerror(error));
    return error == 0;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}
