/* test_prof_unwind_odd.c - stacks that are not what a compiler made them to be: signals at every
 * instruction, signal stacks, coroutines, generated code, garbage in registers, stacks and tables.
 */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "prof/unwind_impl.h"
#include "prog_unwind.h"
#include "sanitized.h"

/* Where memkit__unwind_here goes on, with registers of our choice. */
unsigned memkit__unwind_from(uint64_t *frames, unsigned max, bool *cut, uintptr_t sp, uintptr_t pc,
                             uintptr_t bp);

static bool holds(uintptr_t pc)
{
    for (unsigned i = 0; i < n_frames; i++)
        if (pc_of(i) == pc)
            return true;
    return false;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;
static volatile bool by_context;

static void takes(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    signals++;
    if (by_context)
        n_frames = memkit__unwind_context(context, frames, MAX, &was_cut);
    else
        TAKE();
}

static void on_signal(int number, void (*fn)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};
    sigaction(number, &a, NULL);
}

static NOINLINE void raises(void)
{
    ENTER();
    raise(SIGUSR1);
    check_in_order("signal", 1);
    LEAVE();
}

static NOINLINE void spins(void)
{
    ENTER();
    signals = 0;
    struct timespec t;
    struct itimerspec soon = {.it_value.tv_nsec = 1000000};
    timer_t timer;
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &how, &timer), 0);
    timer_settime(timer, 0, &soon, NULL);
    while (signals == 0)
        clock_gettime(CLOCK_MONOTONIC, &t); /* most of it in the vdso */
    timer_delete(timer);
    check_in_order("signal in a loop", 1);
    LEAVE();
}

static void handlers_see_what_they_interrupted_on_either_stack(void **state)
{
    (void)state;
    size_t bytes = 64 << 10;
    stack_t other = {.ss_sp = malloc(bytes), .ss_size = bytes};
    failures = 0;
    for (int way = 0; way < 4; way++) {
        by_context = way % 2 != 0;
        if (way >= 2)
            sigaltstack(&other, NULL);
        on_signal(SIGUSR1, takes, way >= 2 ? SA_ONSTACK : 0);
        for (int i = 0; i < 20; i++) {
            n_expected = 0;
            raises();
            /* TSan calls handlers later, with the context of a stack that has gone on since. */
            if (!UNDER_TSAN || !by_context)
                spins();
        }
    }
    other.ss_flags = SS_DISABLE;
    sigaltstack(&other, NULL);
    free(other.ss_sp);
    signal(SIGUSR1, SIG_DFL);
    assert_int_equal(failures, 0);
}

#if defined(__x86_64__)

static uintptr_t outer_return;
static unsigned long stepped, incomplete;
static volatile bool stepping;

static void steps(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    if (!stepping)
        return; /* the assembler that turns it on and off has no tables */
    stepped++;
    n_frames = memkit__unwind_context(context, frames, MAX, &was_cut);
    if (!holds(outer_return)) {
        if (incomplete++ < 5)
            wrong("single step", "the caller is missing");
    }
}

static NOINLINE int work_of_many_kinds(int n)
{
    char text[200];
    int numbers[50];
    for (int i = 0; i < 50; i++)
        numbers[i] = (i * 7919 + n) % 101;
    snprintf(text, sizeof text, "%d %s %g", numbers[3], "text", 2.5);
    char *copy = strdup(text);
    char *end;
    long number = strtol(copy, &end, 10);
    memmove(text + 5, text, 100);
    free(copy);
    time_t now = 1000000000;
    struct tm tm;
    return (int)number + (gmtime_r(&now, &tm) != NULL) + (int)strlen(text);
}

static NOINLINE int steps_through(int n)
{
    outer_return = (uintptr_t)__builtin_return_address(0);
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
    stepping = true;
    int result = work_of_many_kinds(n);
    stepping = false;
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
    return result;
}

static void a_stack_is_whole_at_every_single_instruction(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* the red zone is used by what the inline assembler pushes over */
    failures = 0;
    stepped = incomplete = 0;
    on_signal(SIGTRAP, steps, 0);
    int result = steps_through(1);
    signal(SIGTRAP, SIG_DFL);
    assert_true(result > 0);
    assert_true(stepped > 1000);
    assert_int_equal(incomplete, 0);
}

#endif

/* ---- coroutines ---- */

static ucontext_t back, there;
static unsigned coroutine_frames;

static NOINLINE void within(int depth)
{
    ENTER();
    if (depth > 0) {
        within(depth - 1);
    } else {
        errno = ENOTTY;
        TAKE();
        assert_int_equal(errno, ENOTTY);
        check_exactly("coroutine");
        coroutine_frames = n_frames - n_expected;
    }
    LEAVE();
}

static void coroutine(void)
{
    ENTER();
    for (int i = 0; i < 40; i += 3)
        within(i);
    LEAVE();
    swapcontext(&there, &back);
}

static void runs_on(void *stack, size_t bytes)
{
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = bytes;
    there.uc_link = &back;
    n_expected = 0;
    makecontext(&there, coroutine, 0);
    swapcontext(&back, &there);
    assert_true(coroutine_frames >= 1 && coroutine_frames <= 2);
}

static void *run_coroutines(void *unused)
{
    (void)unused;
    size_t bytes = 64 << 10, page = 4096;
    for (int i = 0; i < 10; i++) {
        char *block = malloc(bytes);
        runs_on(block, bytes);
        free(block);
        char *mapped = mmap(NULL, bytes + 2 * page, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(mapped, page, PROT_NONE);
        mprotect(mapped + page + bytes, page, PROT_NONE); /* nothing above may be read */
        runs_on(mapped + page, bytes);
        munmap(mapped, bytes + 2 * page);
    }
    return NULL;
}

static void coroutines_end_where_they_began(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* they want to be told of every change of stacks */
    failures = 0;
    run_coroutines(NULL);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, run_coroutines, NULL), 0);
    pthread_join(t, NULL);
    assert_int_equal(failures, 0);
}

/* ---- generated code ---- */

#if defined(__x86_64__)

static NOINLINE void taken_from_generated(void)
{
    ENTER();
    TAKE();
    LEAVE();
}

static NOINLINE void calls_generated(void *code)
{
    ENTER();
    void (*fn)(void (*)(void));
    memcpy(&fn, &code, sizeof fn);
    fn(taken_from_generated);
    LEAVE();
}

static void generated_code_is_left_by_its_frame_pointer_or_ends_the_stack(void **state)
{
    (void)state;
    static const unsigned char with[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
    /* sub $8, %rsp; xor %ebp, %ebp; call *%rdi; add $8, %rsp; pop %rbp; ret */
    static const unsigned char without[] = {0x55, 0x31, 0xed, 0xff, 0xd7, 0x5d, 0xc3};
    unsigned char *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    memcpy(page, with, sizeof with);
    n_expected = 0;
    calls_generated(page);
    assert_true(holds((uintptr_t)page + 6));
    assert_true(holds(expected[0]));
    memcpy(page + 64, without, sizeof without);
    calls_generated(page + 64);
    assert_int_equal(pc_of(n_frames - 1), (uintptr_t)page + 64 + 5);
    munmap(page, 4096);
}

#endif

/* ---- garbage ---- */

static uintptr_t garbage(uint64_t *seed, uintptr_t base)
{
    uint64_t r = next_random(seed);
    switch (r % 8) {
    case 0:
        return (uintptr_t)next_random(seed);
    case 1:
        return (uintptr_t)(r >> 8) % 65536;
    case 2: /* code */
        return pc_of((unsigned)(r >> 8) % (n_frames > 0 ? n_frames : 1));
    case 3: /* near, not aligned */
        return base + (r >> 8) % 65536;
    case 4:
        return UINTPTR_MAX - (r >> 8) % 4096;
    default: /* near */
        return base + (r >> 8) % 512 * 8;
    }
}

static NOINLINE void walk_garbage(uint64_t *seed, uintptr_t *words, size_t n, int rounds)
{
    uint64_t out[MAX];
    bool cut;
    for (int i = 0; i < rounds; i++) {
        if (i % 16 == 0)
            for (size_t k = 0; k < n; k++)
                words[k] = garbage(seed, (uintptr_t)words);
        uintptr_t sp = next_random(seed) % 8 == 0 ? garbage(seed, (uintptr_t)words)
                                                  : (uintptr_t)&words[next_random(seed) % n];
        uintptr_t pc = next_random(seed) % 4 == 0 ? garbage(seed, (uintptr_t)words)
                                                  : pc_of((unsigned)(next_random(seed) % n_frames));
        unsigned max = (unsigned)(next_random(seed) % (MAX + 1));
        unsigned got = memkit__unwind_from(out, max, &cut, sp, pc, garbage(seed, (uintptr_t)words));
        if (got > max)
            abort();
        ucontext_t u;
        for (size_t k = 0; k < sizeof u / 8; k++)
            ((uintptr_t *)&u)[k] = garbage(seed, (uintptr_t)words);
        if (memkit__unwind_context(&u, out, max, &cut) > max)
            abort();
    }
}

static int compares(const void *a, const void *b)
{
    if (n_frames == 0)
        TAKE();
    return *(const int *)a - *(const int *)b;
}

/* Real return addresses, of libc's functions too. */
static void take_real_ones(void)
{
    int numbers[] = {2, 1};
    n_frames = 0;
    qsort(numbers, 2, sizeof numbers[0], compares);
    assert_true(n_frames > 5);
}

static void child_of_garbage(uint64_t seed, int rounds)
{
    uintptr_t words[512];
    alarm(60);
    walk_garbage(&seed, words, 512, rounds);
    size_t page = 4096; /* and a stack of its own, between two pages that cannot be read */
    char *mapped = mmap(NULL, 4 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(mapped + page, 2 * page, PROT_READ | PROT_WRITE);
    walk_garbage(&seed, (uintptr_t *)(mapped + page), 2 * page / sizeof(uintptr_t), rounds);
    _exit(0);
}

static void no_garbage_in_registers_or_stacks_makes_it_fault(void **state)
{
    (void)state;
    int crashes = 0, rounds = SANITIZED ? 300 : 3000;
    take_real_ones();
    for (uint64_t seed = 1; seed <= 40; seed++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            child_of_garbage(seed * 77, rounds);
        int status = -1;
        waitpid(pid, &status, 0);
        if (status != 0) {
            print_error("seed %d: status %x\n", (int)seed, status);
            crashes++;
        }
    }
    assert_int_equal(crashes, 0);
}

static void corrupted_frame_pointers_end_the_stack(void **state)
{
    (void)state;
    take_real_ones();
    uintptr_t loop[4] = {0, 0, 0, 0};
    loop[0] = (uintptr_t)loop; /* its own frame pointer */
    loop[1] = pc_of(0);
    loop[2] = (uintptr_t)loop;
    loop[3] = pc_of(1);
    uintptr_t bad[] = {0,
                       1,
                       8,
                       4096,
                       UINTPTR_MAX,
                       UINTPTR_MAX - 7,
                       (uintptr_t)1 << 47,
                       (uintptr_t)loop,
                       (uintptr_t)&loop[2],
                       (uintptr_t)&loop[1] + 1,
                       memkit__thread_pointer()};
    uint64_t out[MAX];
    bool cut;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (unsigned k = 0; k < n_frames; k++) {
            unsigned n = memkit__unwind_from(out, MAX, &cut, (uintptr_t)loop, pc_of(k), bad[i]);
            assert_in_range(n, 1, MAX - 1); /* no loop */
            assert_int_equal(out[0], pc_of(k));
        }
}

/* ---- tables ---- */

/* All of the bytes: a sanitizer sees places between variables among them. */
MEMKIT__READS_ANYTHING static NOINLINE void copy_bytes(char *to, uintptr_t from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = ((const volatile char *)from)[i];
}

/* A copy of this program's own tables that ends where nothing can be read. */
static char *copy_of_tables(const memkit__module *m, memkit__module *copy, size_t *bytes)
{
    *bytes = m->tables_end - m->tables_start;
    size_t whole = (*bytes + 4095) & ~(size_t)4095;
    char *room =
        mmap(NULL, whole + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(room + whole, 4096, PROT_NONE);
    char *at = room + whole - *bytes;
    copy_bytes(at, m->tables_start, *bytes);
    *copy = *m;
    copy->tables_start = (uintptr_t)at;
    copy->tables_end = (uintptr_t)at + *bytes;
    copy->eh_frame_hdr = (uintptr_t)at + (m->eh_frame_hdr - m->tables_start);
    return at;
}

static void tables_of_garbage_neither_fault_nor_loop(void **state)
{
    (void)state;
    const memkit__module *m = memkit__module_at((uintptr_t)take_real_ones);
    memkit__module copy;
    size_t bytes;
    char *at = copy_of_tables(m, &copy, &bytes);
    uintptr_t moved = copy.tables_start - m->tables_start;
    uintptr_t text = m->segments[0].start, end = m->segments[0].end;
    unsigned known = 0;
    for (uintptr_t pc = text; pc < end; pc += 13) { /* the copy is as good as the tables */
        uint32_t rule = memkit__rule_find(m, pc);
        known += rule != MEMKIT__NO_RULE;
        assert_int_equal(memkit__rule_find(&copy, pc + moved), rule);
    }
    assert_true(known > 100);
    uint64_t seed = 5;
    size_t hdr = copy.eh_frame_hdr - copy.tables_start;
    alarm(100);
    for (int i = 0; i < (SANITIZED ? 300 : 4000); i++) {
        size_t from = next_random(&seed) % 4 == 0 ? 0 : hdr;
        for (int k = 0; k < 1 + i % 64; k++)
            at[from + next_random(&seed) % (bytes - from)] = (char)next_random(&seed);
        for (int k = 0; k < 40; k++)
            memkit__rule_find(&copy, text + moved + next_random(&seed) % (end - text));
        if (i % 50 == 0)
            copy_bytes(at, m->tables_start, bytes);
    }
    alarm(0);
}

int main(void)
{
    if (memkit__unwind_prepare() != 0)
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_see_what_they_interrupted_on_either_stack),
#if defined(__x86_64__)
        cmocka_unit_test(a_stack_is_whole_at_every_single_instruction),
        cmocka_unit_test(generated_code_is_left_by_its_frame_pointer_or_ends_the_stack),
#endif
        cmocka_unit_test(coroutines_end_where_they_began),
        cmocka_unit_test(no_garbage_in_registers_or_stacks_makes_it_fault),
        cmocka_unit_test(corrupted_frame_pointers_end_the_stack),
        cmocka_unit_test(tables_of_garbage_neither_fault_nor_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
