/* test_prof_cpu.h - functions that burn processor time and can be told apart in a profile.
 *
 * Each lies in a section of its own, of which the linker gives start and end, so that a sample's
 * innermost frame says which of them was interrupted, without any names.
 */
#ifndef MEMKIT_TEST_PROF_CPU_H
#define MEMKIT_TEST_PROF_CPU_H

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <memkit/prof.h>

#include "prof/frame.h"
#include "prof/heap.h"
#include "prof/mem.h"

#define MS ((int64_t)1000000)

static inline int64_t test_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* burn_NAME burns ns of the thread's time; returns what it burnt. in_NAME: is the pc in its loop?
 */
#define BURNER(name)                                                                       \
    extern const char __start_sect_##name[], __stop_sect_##name[];                         \
    __attribute__((noinline, section("sect_" #name))) static void spin_##name(unsigned n)  \
    {                                                                                      \
        for (volatile unsigned i = 0; i < n; i++)                                          \
            ;                                                                              \
    }                                                                                      \
    static int64_t burn_##name(int64_t ns)                                                 \
    {                                                                                      \
        const int64_t from = test_clock(CLOCK_THREAD_CPUTIME_ID);                          \
        int64_t burnt;                                                                     \
        do {                                                                               \
            spin_##name(200000);                                                           \
            burnt = test_clock(CLOCK_THREAD_CPUTIME_ID) - from;                            \
        } while (burnt < ns);                                                              \
        return burnt;                                                                      \
    }                                                                                      \
    static bool in_##name(uintptr_t pc)                                                    \
    {                                                                                      \
        return pc >= (uintptr_t)__start_sect_##name && pc < (uintptr_t)__stop_sect_##name; \
    }

/* Nanoseconds of the samples whose innermost frame is one of these; NULL: of all. */
static inline int64_t ns_in(bool (*in)(uintptr_t pc))
{
    memkit__scratch s = {0};
    const memkit__profile *p = memkit__cpu_profile(&s);
    assert_non_null(p);
    int64_t sum = 0;
    for (uint32_t i = 0; i < p->n_samples; i++)
        if (in == NULL || in(memkit__frame_pc(p->samples[i].frames[0]) - 1))
            sum += p->samples[i].values[1];
    memkit__scratch_free(&s);
    return sum;
}

static inline bool cpu_comment_has(const char *part)
{
    memkit__scratch s = {0};
    const memkit__profile *p = memkit__cpu_profile(&s);
    assert_non_null(p);
    bool has = false;
    for (uint32_t i = 0; i < p->n_comments; i++)
        has |= strstr(p->comments[i], part) != NULL;
    memkit__scratch_free(&s);
    return has;
}

static inline void sleep_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

static inline void start(unsigned hz)
{
    assert_int_equal(memkit_prof_cpu_start(hz), 0);
}

static inline void stop(void)
{
    assert_int_equal(memkit_prof_cpu_stop(), 0);
}

static inline uintptr_t sigprof_action(void)
{
    struct sigaction now;
    sigaction(SIGPROF, NULL, &now);
    return (uintptr_t)now.sa_handler;
}

/* -1: the kernel does not tell. */
static inline int timers_of_process(void)
{
    FILE *f = fopen("/proc/self/timers", "r");
    if (f == NULL)
        return -1;
    char line[256];
    int n = 0;
    while (fgets(line, sizeof line, f) != NULL)
        n += strncmp(line, "ID:", 3) == 0;
    fclose(f);
    return n;
}

/* Runs fn in a child; true where it came to its end. */
static inline bool child_does(void (*fn)(void))
{
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        fn();
        _exit(0);
    }
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0)
        fprintf(stderr, "the child's status: 0x%x\n", (unsigned)status);
    return status == 0;
}

/* In a child an assertion of cmocka's would go on in the parent's program. */
#define CHECK(what)                                                    \
    do {                                                               \
        if (!(what)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            _exit(1);                                                  \
        }                                                              \
    } while (0)

#endif
