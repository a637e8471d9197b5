/* timing.c - MEMKIT_TIMING=1: a histogram of how long the calls of the malloc family take, and the
 * longest of them. For measuring runs: each call reads the clock twice.
 *
 *     malloc --> memkit__real.malloc = timed_malloc --> the real one       (on)
 *     malloc --> memkit__real.malloc = the real one                        (off: as if not here)
 *
 * - The time is that of the allocator's own function, from just before to just after; the counting
 *   around it is not in it, reading the clock is once (`clock_ns`, measured at the start). Failing
 *   calls are timed too, free(NULL) is no call. Calls before our constructor are not timed, and
 *   none where malloc is not hooked, nor those that a quiet thread makes (prof/quiet.h).
 * - A thread's times lie with its block of counters (counters.c), one writer, one page each; a
 *   thread without a block adds to `shared`. A block's next thread goes on where the last one
 *   ended, so that sums over all are the process's.
 * - Involuntary switches say whether a long call was the allocator's doing or the scheduler's.
 *   getrusage costs as much as ten calls of malloc, so a thread reads its count before a call only
 *   when it last did so FRESH_NS ago or more; and after a call only when that is the longest so
 *   far. `longest_switches` is the difference: never less than the switches within the call, and
 *   more by those of at most the FRESH_NS before it.
 * - The longest call changes some twenty times in a run, so it may cost: signals are held back and
 * a spin lock taken, which thus no handler can find held by the thread it interrupted.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "hook/attach.h"
#include "hook/report.h"
#include "hook/timing.h"

#define FRESH_NS 1000000u

typedef struct memkit__clocked {
    _Atomic uint64_t buckets[MEMKIT__TIMES_BUCKETS];
    _Atomic uint64_t total_ns;
    /* The thread's own; a signal handler may write both, and then the later reading stays. */
    uint64_t read_at; /* when `switches` was read; 0: never by this thread */
    uint64_t switches;
} clocked;

bool memkit__timing;

static memkit__real_table below;
static clocked shared;
static uint64_t clock_ns;

static atomic_flag longest_lock = ATOMIC_FLAG_INIT;
static _Atomic uint64_t longest_ns; /* read without the lock: worth taking it? */
static struct {
    uint64_t bytes, switches;
    const char *function;
} longest;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t involuntary_switches(void)
{
    struct rusage use;
    return getrusage(RUSAGE_THREAD, &use) == 0 ? (uint64_t)use.ru_nivcsw : 0;
}

/* The calling thread's, NULL when it has none and there is none to be had. Keeps errno. */
static clocked *own(void)
{
    memkit__block *b = memkit__block_if_any();
    if (b == NULL)
        return NULL;
    clocked *c = atomic_load_explicit(&b->clocked, memory_order_acquire);
    if (MEMKIT_LIKELY(c != NULL))
        return c;
    int saved = errno;
    clocked *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = saved;
    if (page == MAP_FAILED)
        return NULL;
    if (atomic_compare_exchange_strong(&b->clocked, &c, page))
        return page;
    munmap(page, sizeof *page); /* a signal handler was faster */
    return c;
}

memkit__stamp memkit__timing_enter(void)
{
    memkit__stamp s = {now(), 0};
    clocked *c = own();
    if (c != NULL && MEMKIT_LIKELY(c->read_at != 0 && s.at - c->read_at < FRESH_NS)) {
        s.switches = c->switches;
        return s;
    }
    s.switches = involuntary_switches();
    s.at = now();
    if (c != NULL) {
        c->switches = s.switches;
        c->read_at = s.at;
    }
    return s;
}

static void note_longest(uint64_t ns, const char *function, size_t bytes, uint64_t switches_before)
{
    uint64_t switches = involuntary_switches();
    /* Fewer: forked within the call, by a signal handler. */
    switches = switches > switches_before ? switches - switches_before : 0;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (atomic_flag_test_and_set(&longest_lock))
        sched_yield();
    if (ns > atomic_load(&longest_ns)) {
        longest.bytes = bytes;
        longest.switches = switches;
        longest.function = function;
        atomic_store(&longest_ns, ns);
    }
    atomic_flag_clear(&longest_lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

unsigned memkit__timing_bucket(uint64_t ns)
{
    if (ns <= UINT64_C(1) << MEMKIT__TIMES_FIRST_BIT)
        return 0;
    unsigned bit = 64u - (unsigned)__builtin_clzll(ns - 1); /* the least with ns <= 2^bit */
    unsigned i = bit - MEMKIT__TIMES_FIRST_BIT;
    return i < MEMKIT__TIMES_BUCKETS ? i : MEMKIT__TIMES_BUCKETS - 1;
}

void memkit__timing_leave(memkit__stamp entered, const char *function, size_t bytes)
{
    if (memkit__me.quiet > 0)
        return;
    int saved = errno;
    uint64_t ns = now() - entered.at;
    clocked *c = own();
    if (MEMKIT_LIKELY(c != NULL)) {
        memkit__bump(&c->buckets[memkit__timing_bucket(ns)], 1);
        memkit__bump(&c->total_ns, ns);
    } else {
        atomic_fetch_add(&shared.buckets[memkit__timing_bucket(ns)], 1);
        atomic_fetch_add(&shared.total_ns, ns);
    }
    if (MEMKIT_UNLIKELY(ns > atomic_load_explicit(&longest_ns, memory_order_relaxed)))
        note_longest(ns, function, bytes, entered.switches);
    errno = saved;
}

/* ---- the timed functions --------------------------------------------------------------------- */

#define TIMED(type, name, parameters, bytes, arguments) \
    static type timed_##name parameters                 \
    {                                                   \
        memkit__stamp entered = memkit__timing_enter(); \
        type answer = below.name arguments;             \
        memkit__timing_leave(entered, #name, bytes);    \
        return answer;                                  \
    }

TIMED(void *, malloc, (size_t n), n, (n))
TIMED(void *, calloc, (size_t n, size_t size), n *size, (n, size)) /* an overflow fails at once */
TIMED(void *, realloc, (void *p, size_t n), n, (p, n))
TIMED(int, posix_memalign, (void **out, size_t align, size_t n), n, (out, align, n))
TIMED(void *, aligned_alloc, (size_t align, size_t n), n, (align, n))
TIMED(void *, memalign, (size_t align, size_t n), n, (align, n))
TIMED(void *, valloc, (size_t n), n, (n))
TIMED(void *, pvalloc, (size_t n), n, (n))

static void timed_free(void *p)
{
    size_t bytes = memkit__usable(p);
    memkit__stamp entered = memkit__timing_enter();
    below.free(p);
    memkit__timing_leave(entered, "free", bytes);
}

void memkit__timing_cover(memkit__real_table *table)
{
    below = *table;
    table->malloc = timed_malloc;
    table->free = timed_free;
    table->calloc = timed_calloc;
    table->realloc = timed_realloc;
    table->posix_memalign = timed_posix_memalign;
    table->aligned_alloc = timed_aligned_alloc;
    table->memalign = timed_memalign;
    table->valloc = timed_valloc;
    table->pvalloc = timed_pvalloc;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void add_clocked(memkit__times *out, const clocked *c)
{
    for (unsigned i = 0; i < MEMKIT__TIMES_BUCKETS; i++)
        out->buckets[i] += memkit__read(&c->buckets[i]);
    out->total_ns += memkit__read(&c->total_ns);
}

static void add_block(const memkit__block *b, void *out)
{
    const clocked *c = atomic_load_explicit(&b->clocked, memory_order_acquire);
    if (c != NULL)
        add_clocked(out, c);
}

bool memkit__timing_read(memkit__times *out)
{
    if (!memkit__timing)
        return false;
    *out = (memkit__times){.clock_ns = clock_ns};
    add_clocked(out, &shared);
    memkit__each_block(add_block, out);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (atomic_flag_test_and_set(&longest_lock))
        sched_yield();
    out->longest_ns = atomic_load(&longest_ns);
    out->longest_bytes = longest.bytes;
    out->longest_switches = longest.switches;
    out->longest_function = longest.function;
    atomic_flag_clear(&longest_lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return true;
}

uint64_t memkit__timing_quantile(const memkit__times *t, unsigned per_mille)
{
    uint64_t calls = 0, below_it = 0;
    for (unsigned i = 0; i < MEMKIT__TIMES_BUCKETS; i++)
        calls += t->buckets[i];
    /* Rounded up, without the overflow of calls * per_mille. */
    uint64_t want = calls / 1000 * per_mille + (calls % 1000 * per_mille + 999) / 1000;
    for (unsigned i = 0; i + 1 < MEMKIT__TIMES_BUCKETS; i++) {
        uint64_t bound = UINT64_C(1) << (MEMKIT__TIMES_FIRST_BIT + i);
        below_it += t->buckets[i];
        if (below_it >= want)
            return bound < t->longest_ns ? bound : t->longest_ns;
    }
    return t->longest_ns;
}

/* ---- start, threads, fork -------------------------------------------------------------------- */

void memkit__timing_new_thread(memkit__block *b)
{
    clocked *c = atomic_load_explicit(&b->clocked, memory_order_acquire);
    if (c != NULL)
        c->read_at = 0;
}

void memkit__timing_in_child(void)
{
    atomic_flag_clear(&longest_lock);
    memkit__block *b = memkit__block_if_any();
    if (b != NULL)
        memkit__timing_new_thread(b); /* the child's count of switches begins at 0 */
}

/* What the clock alone would be taken for: the least of many, in case of interruptions. */
static uint64_t measure_clock(void)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 200; i++) {
        uint64_t start = now(), ns = now() - start;
        least = ns < least ? ns : least;
    }
    return least;
}

__attribute__((constructor)) static void begin(void)
{
    const char *value = getenv("MEMKIT_TIMING");
    if (value == NULL || value[0] == '\0' || strcmp(value, "0") == 0)
        return;
    if (strcmp(value, "1") != 0) {
        memkit__complain("memkit: MEMKIT_TIMING=%s: neither 0 nor 1; nothing is timed\n", value);
        return;
    }
    (void)memkit__hooked(); /* asks by a malloc, which is none of the program's */
    clock_ns = measure_clock();
    memkit__timing = true;
    memkit__real_install();
}
