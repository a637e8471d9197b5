/* cpu_threads.c - a timer for each thread, on its own processor time.
 *
 *     /proc/self/task --> table: tid -> timer     every 10 ms and more, by the helper thread
 *
 * - A timer's clock is that of one thread, and its signal goes to that thread: what sleeps costs
 *   nothing, and what runs is interrupted in proportion to what it uses, however loaded the machine
 *   is.
 * - A timer outlives its thread, and the number of a dead thread may be another's soon: before each
 *   look around, each timer is asked whether it still runs. One without a thread does not.
 * - The helper exists only while a profile runs. It has all signals blocked, no timer, and a stack
 *   that is ours, so that nothing of it stays in libc's cache of stacks. Its pause grows with what
 *   a look around costs, so that thousands of threads cost at most a few percent of a processor.
 * - The table is open addressing, linear, at most half full. The lock is held by who looks around
 *   and around fork; under it there are system calls and no calls into anybody's code.
 *
 * The system calls are made directly: a timer with a thread's number is Linux's, and the C
 * libraries know it in different places and versions.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/internal.h"
#include "prof/cpu.h"
#include "prof/mem.h"

#define TABLE_MIN     ((size_t)512)
#define STACK_MIN     ((size_t)128 * 1024)
#define STACK_MAX     ((size_t)8 * 1024 * 1024) /* a program with much thread-local storage */
#define PAUSE_MIN     ((int64_t)10 * 1000000)
#define PAUSE_MAX     ((int64_t)200 * 1000000)
#define PAUSE_TO_COST 20

typedef struct {
    pid_t tid; /* 0: free */
    int timer;
} entry;

/* struct sigevent as the kernel reads it. */
typedef struct {
    union sigval value;
    int signal_number, notify;
    pid_t tid;
    char unused[64 - sizeof(union sigval) - 3 * sizeof(int)];
} kernel_sigevent;

/* struct linux_dirent64. */
typedef struct {
    uint64_t inode;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
} dirent64;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry *table;
static size_t table_size, table_used;
static int64_t period_ns;
static int cookie;
static int task_dir = -1; /* /proc/self/task */

static pthread_t helper;
static void *helper_stack;
static size_t helper_stack_bytes;
static _Atomic uint32_t helper_ends;

/* ---- timers ---- */

static bool timer_start(pid_t tid, int *timer)
{
    /* The clock of a thread: its number's complement, "of one thread" (4), "as scheduled" (2). */
    const int clock = (int)(~(unsigned)tid << 3 | 6);
    kernel_sigevent event = {.value.sival_int = cookie,
                             .signal_number = SIGPROF,
                             .notify = 4 /* SIGEV_THREAD_ID */,
                             .tid = tid};
    if (syscall(SYS_timer_create, clock, &event, timer) != 0)
        return false;
    /* The first comes somewhere in the first period: else threads that live for less than one would
     * never be seen. */
    uint64_t z = (uint64_t)memkit__cpu_clock(CLOCK_MONOTONIC) ^ (uint64_t)(unsigned)tid << 32;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    const int64_t first = 1 + (int64_t)((z ^ (z >> 31)) % (uint64_t)period_ns);
    const struct itimerspec when = {
        .it_interval = {.tv_sec = period_ns / 1000000000, .tv_nsec = period_ns % 1000000000},
        .it_value = {.tv_sec = first / 1000000000, .tv_nsec = first % 1000000000}};
    if (syscall(SYS_timer_settime, *timer, 0, &when, NULL) == 0)
        return true;
    syscall(SYS_timer_delete, *timer);
    return false;
}

static bool timer_runs(int timer)
{
    struct itimerspec left;
    return syscall(SYS_timer_gettime, timer, &left) == 0 &&
           (left.it_value.tv_sec != 0 || left.it_value.tv_nsec != 0);
}

/* ---- table ---- */

static size_t home(pid_t tid, size_t size)
{
    return (size_t)((uint32_t)tid * 0x9e3779b9u) & (size - 1);
}

/* Where tid is, or would be. */
static size_t find(const entry *in, size_t size, pid_t tid)
{
    size_t i = home(tid, size);
    while (in[i].tid != 0 && in[i].tid != tid)
        i = (i + 1) & (size - 1);
    return i;
}

static bool table_room(void)
{
    if ((table_used + 1) * 2 <= table_size)
        return true;
    const size_t size = table_size == 0 ? TABLE_MIN : table_size * 2;
    entry *more = memkit__kept_map(size * sizeof *more);
    if (more == NULL)
        return false;
    for (size_t i = 0; i < table_size; i++)
        if (table[i].tid != 0)
            more[find(more, size, table[i].tid)] = table[i];
    memkit__kept_unmap(table, table_size * sizeof *table);
    table = more;
    table_size = size;
    return true;
}

/* Frees entry i; what was put behind it for want of its place moves up. */
static void table_remove(size_t i)
{
    const size_t mask = table_size - 1;
    for (size_t j = (i + 1) & mask; table[j].tid != 0; j = (j + 1) & mask) {
        if (((j - home(table[j].tid, table_size)) & mask) >= ((j - i) & mask)) {
            table[i] = table[j];
            i = j;
        }
    }
    table[i].tid = 0;
    table_used--;
}

static void remove_dead(void)
{
    for (size_t i = 0; i < table_size; i++)
        while (table[i].tid != 0 && !timer_runs(table[i].timer)) {
            syscall(SYS_timer_delete, table[i].timer);
            table_remove(i); /* which may bring another here */
        }
}

static void forget_all(void)
{
    memkit__kept_unmap(table, table_size * sizeof *table);
    table = NULL;
    table_size = table_used = 0;
}

static void delete_all(void)
{
    for (size_t i = 0; i < table_size; i++)
        if (table[i].tid != 0)
            syscall(SYS_timer_delete, table[i].timer);
    forget_all();
}

/* ---- looking around ---- */

/* False: the thread is there and can have no timer. */
static bool add(pid_t tid)
{
    if (table_size != 0 && table[find(table, table_size, tid)].tid != 0)
        return true;
    if (!table_room())
        return false;
    int timer;
    if (!timer_start(tid, &timer))
        return errno == EINVAL || errno == ESRCH; /* the thread has ended meanwhile */
    table[find(table, table_size, tid)] = (entry){.tid = tid, .timer = timer};
    table_used++;
    atomic_fetch_add(&memkit__cpu_last.threads, 1);
    return true;
}

/* Calls add for each thread but `not_this`; how many could have no timer. */
static uint64_t add_all(pid_t not_this)
{
    _Alignas(dirent64) char names[4096];
    uint64_t without = 0;
    lseek(task_dir, 0, SEEK_SET);
    for (;;) {
        const long n = syscall(SYS_getdents64, task_dir, names, sizeof names);
        if (n <= 0)
            return without;
        for (long at = 0; at < n;) {
            const dirent64 *d = (const dirent64 *)(const void *)(names + at);
            at += d->size;
            const pid_t tid = (pid_t)strtol(d->name, NULL, 10); /* 0: . and .. */
            if (tid > 0 && tid != not_this && !add(tid))
                without++;
        }
    }
}

/* With the lock. */
static void look_around(pid_t not_this)
{
    remove_dead();
    const uint64_t without = add_all(not_this);
    if (without > atomic_load(&memkit__cpu_last.without_timer))
        atomic_store(&memkit__cpu_last.without_timer, without);
}

/* ---- the helper ---- */

static void pause_for(int64_t ns)
{
    const struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    syscall(SYS_futex, &helper_ends, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
}

static void *help(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "memkit-cpu");
    const pid_t self = (pid_t)syscall(SYS_gettid);
    int64_t pause = PAUSE_MIN, cpu = memkit__cpu_clock(CLOCK_THREAD_CPUTIME_ID);
    for (;;) {
        pause_for(pause);
        if (atomic_load(&helper_ends) != 0)
            return NULL;
        pthread_mutex_lock(&lock);
        if (memkit__cpu_has_signal()) {
            look_around(self);
        } else { /* the program's handler would get our signals */
            delete_all();
            atomic_store(&memkit__cpu_last.taken_away, true);
        }
        pthread_mutex_unlock(&lock);
        if (atomic_load(&memkit__cpu_last.taken_away))
            return NULL;
        const int64_t now = memkit__cpu_clock(CLOCK_THREAD_CPUTIME_ID);
        atomic_store(&memkit__cpu_last.helper_cpu_ns, now);
        pause = (now - cpu) * PAUSE_TO_COST;
        pause = pause < PAUSE_MIN ? PAUSE_MIN : pause > PAUSE_MAX ? PAUSE_MAX : pause;
        cpu = now;
    }
}

/* In this order: a fork may come in between. */
static void helper_stack_free(void)
{
    void *stack = helper_stack;
    helper_stack = NULL;
    memkit__kept_unmap(stack, helper_stack_bytes);
}

static int helper_create(size_t stack_bytes)
{
    helper_stack_bytes = stack_bytes;
    helper_stack = memkit__kept_map(stack_bytes);
    if (helper_stack == NULL)
        return ENOMEM;
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr);
    if (error == 0) {
        error = pthread_attr_setstack(&attr, helper_stack, stack_bytes);
        if (error == 0)
            error = pthread_create(&helper, &attr, help, NULL);
        pthread_attr_destroy(&attr);
    }
    if (error != 0)
        helper_stack_free();
    return error;
}

static int helper_begin(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_store(&helper_ends, 0);
    int error = EINVAL; /* also: the thread-local storage is larger than the stack */
    for (size_t stack = STACK_MIN; error == EINVAL && stack <= STACK_MAX; stack *= 4)
        error = helper_create(stack);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return error == 0 ? 0 : -1;
}

static void helper_end(void)
{
    atomic_store(&helper_ends, 1);
    syscall(SYS_futex, &helper_ends, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    pthread_join(helper, NULL);
    helper_stack_free();
}

/* ---- begin and end ---- */

static void end_all(void)
{
    pthread_mutex_lock(&lock);
    delete_all();
    close(task_dir);
    task_dir = -1;
    pthread_mutex_unlock(&lock);
}

int memkit__cpu_threads_begin(int64_t period, int value)
{
    const int dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    pthread_mutex_lock(&lock);
    task_dir = dir;
    period_ns = period;
    cookie = value;
    look_around(0);
    pthread_mutex_unlock(&lock);
    if (helper_begin() == 0)
        return 0;
    const int error = errno;
    end_all();
    errno = error;
    return -1;
}

void memkit__cpu_threads_end(void)
{
    helper_end();
    end_all();
}

void memkit__cpu_threads_hold(void)
{
    pthread_mutex_lock(&lock);
}

void memkit__cpu_threads_let_go(bool in_child)
{
    if (in_child && task_dir >= 0) {
        forget_all(); /* not deleted: a child starts without timers, and what numbers it has are its
                         own */
        close(task_dir);
        task_dir = -1;
    }
    if (in_child)
        helper_stack_free();
    pthread_mutex_unlock(&lock);
}
