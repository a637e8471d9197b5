/* prog_unwind.h - what the programs of known stacks share: each function of a chain notes where it
 * returns to, and the stack that the unwinder sees is held against that. */
#ifndef MEMKIT_TESTS_PROG_UNWIND_H
#define MEMKIT_TESTS_PROG_UNWIND_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif
unsigned memkit__unwind_here(uint64_t *frames, unsigned max, bool *cut);
unsigned memkit__unwind_context(const void *ucontext, uint64_t *frames, unsigned max, bool *cut);
int memkit__unwind_prepare(void);
void _start(void);
#ifdef __cplusplus
}
#endif

#define NOINLINE __attribute__((noinline))
#define MAX      128

/* Where the functions of the chain return to, outermost first. */
static __thread uintptr_t expected[4096];
static __thread unsigned n_expected;

static __thread uint64_t frames[MAX];
static __thread unsigned n_frames;
static __thread bool was_cut;

static int failures;

/* At the head of a function of the chain, and at its end: nothing is a tail call then. */
#define ENTER() \
    (expected[n_expected++] = (uintptr_t)__builtin_extract_return_addr(__builtin_return_address(0)))
#define LEAVE()                            \
    do {                                   \
        n_expected--;                      \
        __asm__ volatile("" ::: "memory"); \
    } while (0)

#define TAKE() (n_frames = memkit__unwind_here(frames, MAX, &was_cut))

static inline uintptr_t pc_of(unsigned i)
{
    return (uintptr_t)(frames[i] & ((UINT64_C(1) << 48) - 1));
}

static inline void wrong(const char *what, const char *why)
{
    failures++;
    fprintf(stderr, "%s: %s; %u frames%s:", what, why, n_frames, was_cut ? ", cut" : "");
    for (unsigned i = 0; i < n_frames; i++)
        fprintf(stderr, " %lx", (unsigned long)pc_of(i));
    fprintf(stderr, "\n   expected, innermost first:");
    for (unsigned i = n_expected; i-- > 0;)
        fprintf(stderr, " %lx", (unsigned long)expected[i]);
    fprintf(stderr, "\n");
}

/* Nothing lies between the chain's functions, and the innermost one took the stack. */
static inline void check_exactly(const char *what)
{
    for (unsigned i = 1; i < n_frames && i <= n_expected; i++)
        if (pc_of(i) != expected[n_expected - i]) {
            wrong(what, "another frame than expected");
            return;
        }
    if (n_frames <= n_expected && !was_cut)
        wrong(what, "too few frames");
}

/* The chain's functions are all there, in this order, with others between them; the `whole` last
 * ones of them without any, and then the program's start. */
static inline void check_in_order(const char *what, unsigned whole)
{
    unsigned at = n_expected;
    unsigned place[4] = {0, 0, 0, 0};
    for (unsigned i = 1; i < n_frames && at > 0; i++)
        if (pc_of(i) == expected[at - 1]) {
            at--;
            if (at < 4)
                place[at] = i;
        }
    if (at > 0) {
        wrong(what, "a frame is missing");
        return;
    }
    for (unsigned i = 1; i < whole; i++)
        if (place[i - 1] != place[i] + 1)
            wrong(what, "a frame more than expected");
    uintptr_t start = (uintptr_t)&_start;
    if (was_cut || pc_of(n_frames - 1) <= start || pc_of(n_frames - 1) > start + 64)
        wrong(what, "does not begin at the program's start");
}

#endif
