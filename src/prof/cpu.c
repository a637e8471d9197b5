/* cpu.c - the CPU profile: its start and stop, SIGPROF and what its handler does.
 *
 *     idle --start--> starting --> running --stop--> stopping --> idle
 *
 * - Each step is a compare-and-swap, so that there is no lock that a fork or an allocation of
 *   pthread_create's could meet; who finds another state than it needs is told so.
 * - The handler takes no lock and no memory of malloc's, and blocks all signals: it may come inside
 *   malloc, the hook, the loader, another handler. It counts only signals of the present run's own
 *   timers (cookie).
 * - SIGPROF is the program's again after stop. To ignore a signal, if only for a moment, discards
 *   all that are pending, in all threads and where they are blocked, too; the timers are deleted
 *   before that. So none is left to kill the process when the default action is back.
 * - A child of fork has no timers; it is idle, and SIGPROF is as it was before the run.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/cpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <memkit/prof.h>

#include "prof/mem.h"
#include "prof/quiet.h"
#include "prof/unwind.h"

#define HZ_DEFAULT 100u
#define HZ_MAX     1000u

enum { IDLE, STARTING, RUNNING, STOPPING };

memkit__cpu_run memkit__cpu_last;

static atomic_int state;
static atomic_int cookie;          /* of the present run, from 1; 0: signals do not count */
static int last_cookie;            /* of who is starting */
static atomic_uint inside;         /* handlers at work */
static struct sigaction before_us; /* what SIGPROF did before the run */

int64_t memkit__cpu_clock(int clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- the handler ---- */

static void count(const void *context, uint64_t weight)
{
    uint64_t frames[MEMKIT_PROF_MAX_DEPTH];
    bool cut = false;
    unsigned depth = memkit__unwind_context(context, frames, MEMKIT_PROF_MAX_DEPTH, &cut);
    const memkit__site *site = memkit__site_find(&memkit__cpu_sites, frames, depth, cut, 0);
    if (site == NULL)
        atomic_fetch_add_explicit(&memkit__cpu_last.dropped, weight, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&memkit__cpu_sums_of(site)->periods, weight,
                                  memory_order_relaxed);
}

static void on_sigprof(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    const int saved = errno;
    atomic_fetch_add(&inside, 1);
    if (info->si_code == SI_TIMER && info->si_value.sival_int == atomic_load(&cookie))
        count(context, 1 + (info->si_overrun > 0 ? (uint64_t)info->si_overrun : 0));
    atomic_fetch_sub(&inside, 1);
    errno = saved;
}

/* ---- the signal ---- */

static bool is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_sigprof;
}

static bool is_handler(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 ||
           (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

bool memkit__cpu_has_signal(void)
{
    struct sigaction now;
    return sigaction(SIGPROF, NULL, &now) == 0 && is_ours(&now);
}

static int take_signal(void)
{
    struct sigaction ours = {.sa_sigaction = on_sigprof,
                             .sa_flags = SA_RESTART | SA_SIGINFO | SA_ONSTACK};
    sigfillset(&ours.sa_mask);
    if (sigaction(SIGPROF, NULL, &before_us) != 0)
        return -1;
    if (is_handler(&before_us)) {
        errno = EBUSY;
        return -1;
    }
    struct sigaction replaced;
    if (sigaction(SIGPROF, &ours, &replaced) != 0)
        return -1;
    if (!is_handler(&replaced))
        return 0;
    sigaction(SIGPROF, &replaced, NULL); /* the program was faster by a moment */
    errno = EBUSY;
    return -1;
}

/* What the program made of SIGPROF meanwhile stays as it is. */
static void give_signal_back(void)
{
    if (!memkit__cpu_has_signal())
        return;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, replaced;
    if (sigaction(SIGPROF, &ignore, &replaced) != 0)
        return;
    sigaction(SIGPROF, is_ours(&replaced) ? &before_us : &replaced, NULL);
}

/* Handlers that began before the signal was given back: a thread may lose the processor in one. One
 * that a fault's handler left by longjmp never ends, hence the bound. */
static void wait_for_handlers(void)
{
    for (unsigned ms = 0; atomic_load(&inside) != 0 && ms < 100; ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- fork ---- */

static void before_fork(void)
{
    memkit__cpu_threads_hold();
}

static void in_parent(void)
{
    memkit__cpu_threads_let_go(false);
}

static void in_child(void)
{
    memkit__cpu_threads_let_go(true);
    if (atomic_load(&state) != IDLE)
        give_signal_back();
    atomic_store(&cookie, 0);
    atomic_store(&inside, 0);
    atomic_store(&memkit__cpu_last.period_ns, 0);
    atomic_store(&state, IDLE);
}

/* By who is starting, so by one at a time. */
static int fork_ready(void)
{
    static bool done;
    if (done)
        return 0;
    const int error = pthread_atfork(before_fork, in_parent, in_child);
    done = error == 0;
    errno = error;
    return error == 0 ? 0 : -1;
}

/* ---- start and stop ---- */

static bool step(int from, int to)
{
    return atomic_compare_exchange_strong(&state, &from, to);
}

static void clear_sums(void)
{
    const uint32_t n = memkit__site_count(&memkit__cpu_sites);
    for (uint32_t i = 0; i < n; i++) {
        const memkit__site *site = memkit__site_at(&memkit__cpu_sites, i);
        if (site != NULL)
            atomic_store_explicit(&memkit__cpu_sums_of(site)->periods, 0, memory_order_relaxed);
    }
}

static void begin_run(unsigned hz)
{
    memkit__cpu_run *run = &memkit__cpu_last;
    clear_sums();
    atomic_store(&run->dropped, 0);
    atomic_store(&run->threads, 0);
    atomic_store(&run->without_timer, 0);
    atomic_store(&run->helper_cpu_ns, 0);
    atomic_store(&run->taken_away, false);
    atomic_store(&run->end_ns, 0);
    atomic_store(&run->end_cpu_ns, 0);
    atomic_store(&run->start_real_ns, memkit__cpu_clock(CLOCK_REALTIME));
    atomic_store(&run->start_ns, memkit__cpu_clock(CLOCK_MONOTONIC));
    atomic_store(&run->start_cpu_ns, memkit__cpu_clock(CLOCK_PROCESS_CPUTIME_ID));
    atomic_store(&run->period_ns, 1000000000 / (int64_t)hz);
}

static int start(unsigned hz)
{
    if (memkit__unwind_prepare() != 0 || fork_ready() != 0 || take_signal() != 0)
        return -1;
    begin_run(hz);
    last_cookie = last_cookie == INT32_MAX ? 1 : last_cookie + 1;
    atomic_store(&cookie, last_cookie);
    if (memkit__cpu_threads_begin(atomic_load(&memkit__cpu_last.period_ns), last_cookie) == 0)
        return 0;
    const int error = errno;
    atomic_store(&cookie, 0);
    give_signal_back();
    wait_for_handlers();
    atomic_store(&memkit__cpu_last.period_ns, 0);
    errno = error;
    return -1;
}

int memkit_prof_cpu_start(unsigned hz)
{
    if (hz > HZ_MAX) {
        errno = EINVAL;
        return -1;
    }
    if (!step(IDLE, STARTING)) {
        errno = EBUSY;
        return -1;
    }
    memkit__quiet_begin();
    const int result = start(hz == 0 ? HZ_DEFAULT : hz);
    memkit__quiet_end();
    atomic_store(&state, result == 0 ? RUNNING : IDLE);
    return result;
}

int memkit_prof_cpu_stop(void)
{
    if (!step(RUNNING, STOPPING)) {
        errno = EINVAL;
        return -1;
    }
    memkit__quiet_begin();
    memkit__cpu_threads_end();
    give_signal_back();
    wait_for_handlers();
    atomic_store(&cookie, 0);
    memkit__quiet_end();
    memkit__cpu_run *run = &memkit__cpu_last;
    atomic_store(&run->end_cpu_ns, memkit__cpu_clock(CLOCK_PROCESS_CPUTIME_ID));
    atomic_store(&run->end_ns, memkit__cpu_clock(CLOCK_MONOTONIC));
    atomic_store(&state, IDLE);
    return 0;
}
