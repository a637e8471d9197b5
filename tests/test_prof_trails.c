/* test_prof_trails.c - stacks known again by the words on them: by the trails alone, and in a
 * program whose stacks are not what the rules say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <memkit/prof.h>

#include "prof/heap.h"
#include "prof/unwind.h"
#include "prof/unwind_trail.h"
#include "sanitized.h"

#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

static memkit__trails *trails;
static int marks[64]; /* what is noted: addresses of these */

/* The one place that asks: what is noted is told by the way here alone. */
static NOINLINE void *ask(void *to_note, memkit__trail_asked *asked)
{
    void *what = memkit__trail_find(trails, asked);
    if (what == NULL && to_note != NULL && asked->sp != 0)
        memkit__trail_note(trails, asked, to_note);
    __asm__ volatile("" ::: "memory");
    return what;
}

static NOINLINE void *by_left(void *to_note)
{
    memkit__trail_asked asked;
    void *what = ask(to_note, &asked);
    __asm__ volatile("" ::: "memory");
    return what;
}

static NOINLINE void *by_right(void *to_note)
{
    memkit__trail_asked asked;
    void *what = ask(to_note, &asked);
    __asm__ volatile("" ::: "memory");
    return what;
}

/* As a signal handler that comes between a find and its note. */
static NOINLINE void *interrupted(void *to_note, void *handlers)
{
    memkit__trail_asked asked;
    void *what = memkit__trail_find(trails, &asked);
    if (handlers != NULL)
        by_right(handlers);
    if (what == NULL && to_note != NULL && asked.sp != 0)
        memkit__trail_note(trails, &asked, to_note);
    return what;
}

static int set_up(void **state)
{
    (void)state;
    return memkit__unwind_prepare() == 0 && (trails = memkit__trails_new()) != NULL ? 0 : -1;
}

static void a_stack_is_known_again_and_another_is_not(void **state)
{
    (void)state;
    for (volatile int i = 0; i < 3; i++) { /* volatile: one call each, not three */
        void *left = by_left(&marks[0]), *right = by_right(&marks[1]);
        assert_ptr_equal(left, i == 0 ? NULL : &marks[0]);
        assert_ptr_equal(right, i == 0 ? NULL : &marks[1]);
    }
    assert_null(by_left(NULL)); /* from another line */
}

static void a_handler_between_a_find_and_its_note_changes_neither(void **state)
{
    (void)state;
    for (volatile int i = 0; i < 3; i++) {
        void *what = interrupted(&marks[2], &marks[3]);
        assert_ptr_equal(what, i == 0 ? NULL : &marks[2]);
    }
}

static NOINLINE void *deeper(unsigned n, void *to_note)
{
    memkit__trail_asked asked;
    void *what = n > 0 ? deeper(n - 1, to_note) : ask(to_note, &asked);
    __asm__ volatile("" ::: "memory");
    return what;
}

static void depths_are_told_apart_and_what_is_too_deep_is_walked(void **state)
{
    (void)state;
    for (volatile int round = 0; round < 2; round++)
        for (volatile unsigned n = 0; n < 12; n++) /* two words each, at most */
            assert_ptr_equal(deeper(n, &marks[n]), round == 0 ? NULL : &marks[n]);
    for (volatile int round = 0; round < 2; round++)
        assert_null(deeper(100, &marks[0]));
}

/* ---- by the profiler ---- */

static volatile unsigned blocks_wanted;

static NOINLINE void allocate_here(void)
{
    for (unsigned i = blocks_wanted; i > 0; i--) {
        void *volatile p = malloc(32);
        free((void *)p);
    }
}

/* Bytes allocated by stacks through a function of this file, as the folded form has them. */
static uint64_t bytes_through(const char *function)
{
    memkit_buf *out = memkit_buf_new(1 << 20);
    assert_int_equal(memkit_prof_write(out, MEMKIT_PROF_ALLOCS, MEMKIT_FMT_FOLDED, NULL), 0);
    uint64_t sum = 0;
    for (char *line = strtok(out->data, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strstr(line, function) != NULL)
            sum += strtoull(strrchr(line, ' ') + 1, NULL, 10);
    memkit_buf_free(out);
    return sum;
}

#if defined(__x86_64__)
/* Runs fn on another stack, as assembler does that tells no debugger of it: the unwind tables say
 * that the caller's frame lies above, where nothing can be read. */
static NOINLINE void call_on(void (*fn)(void), char *top)
{
    __asm__ volatile("movq %%rsp, %%rbx\n\t"
                     "movq %1, %%rsp\n\t"
                     "callq *%0\n\t"
                     "movq %%rbx, %%rsp"
                     :
                     : "r"(fn), "r"(top)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory",
                       "cc");
}
#endif

static void a_stack_that_ends_where_no_rule_says_so_is_survived(void **state)
{
    (void)state;
#if defined(__x86_64__)
    if (SANITIZED || memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}) != 0)
        skip();
    const size_t size = 65536, page = (size_t)sysconf(_SC_PAGESIZE);
    char *stack =
        mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(stack != MAP_FAILED && mprotect(stack + size, page, PROT_NONE) == 0);
    blocks_wanted = 6000; /* after which a thread's stacks are remembered */
    allocate_here();
    blocks_wanted = 10;
    for (int i = 0; i < 100; i++) {
        allocate_here();
        call_on(allocate_here, stack + size);
    }
    assert_int_equal(memkit_prof_stop(), 0);
    assert_int_equal(bytes_through("allocate_here"), (6000 + 100 * 2 * 10) * 32);
    munmap(stack, size + page);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_stack_is_known_again_and_another_is_not, set_up),
        cmocka_unit_test_setup(a_handler_between_a_find_and_its_note_changes_neither, set_up),
        cmocka_unit_test_setup(depths_are_told_apart_and_what_is_too_deep_is_walked, set_up),
        cmocka_unit_test(a_stack_that_ends_where_no_rule_says_so_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
