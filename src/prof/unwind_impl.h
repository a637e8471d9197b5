/* unwind_impl.h - what the files of the unwinder and the list of modules share.
 *
 *     unwind.c        the walk
 *     unwind_cache.c  the rules it goes by, by pc
 *     unwind_memo.c   the thread's last stack, which the next one shares frames with
 *     unwind_rule.c   a row of the unwind tables as a rule of 30 bits
 *     unwind_step.c   the frames that no such rule tells: signal frames, expressions, no tables
 *     unwind_stack.c  what of the stack may be read
 *     cfi.c           the tables: from a pc to a row
 *     cfi_run.c, cfi_eval.c  their two little languages
 */
#ifndef MEMKIT_PROF_UNWIND_IMPL_H
#define MEMKIT_PROF_UNWIND_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prof/module.h"

#pragma GCC visibility push(hidden)

/* Stacks and tables are read as they are: no sanitizer knows which words are there to be read. */
#define MEMKIT__READS_ANYTHING \
    __attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined")))

/* A word from memory known to be readable, at any alignment. */
MEMKIT__READS_ANYTHING static inline uintptr_t memkit__word(uintptr_t at)
{
    typedef uintptr_t __attribute__((aligned(1), may_alias)) word;
    return *(const volatile word *)at;
}

/* How often a module was noted where another lay before. */
extern _Atomic uint32_t memkit__modules_replaced;

/* ---- unwind_stack.c ---- */

/* True where all of the bytes can be read, asked of the kernel. Keeps errno. */
bool memkit__readable(uintptr_t from, size_t bytes);

/* What the walk may read, upward from its stack pointer: [sp, hi). A firm end is the stack's own;
 * else hi is that of the last page that was asked for, and moves up with the walk. */
typedef struct {
    uintptr_t hi;
    uintptr_t lo; /* of a firm one: where it is known to reach down to */
    bool firm;
    bool main; /* the first thread's */
    struct memkit__thread *thread;
} memkit__stack;

#define MEMKIT__MEMO 64

/* A frame of the last stack: the walk's state there, and the words that the step to it read. */
typedef struct {
    uintptr_t sp, bp;
    uintptr_t at;           /* where the return address lay */
    uintptr_t bp_at, bp_is; /* where bp was read, and what; where bp does not matter the return
                               address again; 0: the step to it is not to be relied on */
    bool needs_bp;          /* bp matters for this frame or one further out */
} memkit__memo;

/* A frame of the walk that goes on: its state, and how it was left. */
typedef struct {
    uintptr_t sp, bp;
    uint32_t rule;
    uint32_t below; /* bytes below the caller's sp where bp was read; 0: it was not */
} memkit__left;

/* What is known of a thread between two walks. Its own thread alone reads and writes it, also in
 * signal handlers, which may come between any two of its words. */
typedef struct memkit__thread {
    _Atomic uintptr_t pointer; /* the thread pointer it was made for */
    uintptr_t low;             /* [low, pointer) can be read: the thread's stack; 0: not known */
    unsigned failed;           /* tries to find out */
    bool busy;                 /* a walk uses what follows; a signal handler's does without */
    bool memo_ends;            /* the outermost frame says itself that it is that */
    unsigned memo_first;       /* memo[memo_first] is the innermost frame; MEMKIT__MEMO: no stack */
    uintptr_t memo_hi;         /* end of the stack it is of */
    unsigned turn;             /* of walks that may leave it as it is */
    unsigned followed;         /* frames of the walk that were as remembered */
    unsigned pause, idle;      /* walks to do without after one that shared little; still to go */
    uint64_t memo_frames[MEMKIT__MEMO]; /* unwind_memo.c */
    memkit__memo memo[MEMKIT__MEMO];
    memkit__left fresh[MEMKIT__MEMO];
} memkit__thread;

/* That of the calling thread, made if there is room; NULL: there is none. */
memkit__thread *memkit__thread_here(void);

/* The stack that sp lies in. False: nothing there can be read. */
bool memkit__stack_of(memkit__stack *s, uintptr_t sp, memkit__thread *t);
/* Moves a window that is not firm up to hold [from, to). */
bool memkit__stack_extend(memkit__stack *s, uintptr_t from, uintptr_t to);
/* A walk went from `from` to `to`: may the next one take it all as one stack? */
void memkit__stack_learn(memkit__thread *t, uintptr_t from, uintptr_t to);

static inline bool memkit__stack_holds(memkit__stack *s, uintptr_t from, uintptr_t to)
{
    return to <= s->hi || (!s->firm && memkit__stack_extend(s, from, to));
}

static inline uintptr_t memkit__thread_pointer(void)
{
    uintptr_t tp;
#if defined(__x86_64__)
    __asm__("mov %%fs:0, %0" : "=r"(tp));
#else
    __asm__("mrs %0, tpidr_el0" : "=r"(tp));
#endif
    return tp;
}

/* ---- the last stack: unwind_memo.c ---- */

/* Nothing is remembered. */
static inline void memkit__memo_drop(memkit__thread *t)
{
    t->memo_first = MEMKIT__MEMO;
}

/* The innermost remembered frame from which on out all words are as they were. Reads from sp up.
 * MEMKIT__MEMO: none. */
unsigned memkit__memo_intact(const memkit__thread *t, uintptr_t sp);
/* The first remembered frame from `from` outward that does not lie below sp. */
unsigned memkit__memo_beside(const memkit__thread *t, unsigned from, uintptr_t sp);
/* Remembers n new frames, whose fresh[] the walk has noted, inside of the remembered one `kept`;
 * ends: the last of them is the outermost one, where kept is MEMKIT__MEMO. */
void memkit__memo_keep(memkit__thread *t, const uint64_t *frames, unsigned n, unsigned kept,
                       bool ends);

/* ---- a rule: how one frame is left ---- */

/*       29  28         18 17             3 2    0
 *     +---+-------------+----------------+------+
 *     | t | bp, words   | offset, words  | kind |     t: the module may be unloaded
 *     +---+-------------+----------------+------+
 *
 * So that one instruction gives the offset in bytes: a walk waits for it.
 */
enum {
    MEMKIT__NO_RULE, /* an empty place in the cache */
    MEMKIT__BY_SP,   /* CFA = sp + offset */
    MEMKIT__BY_BP,   /* CFA = bp + offset */
    MEMKIT__BY_SLOT, /* CFA = the word at bp - offset; bp = the word at bp: a realigned stack */
    MEMKIT__BY_LINK, /* aarch64: CFA = sp + offset, bp unchanged; return address at CFA - bp words,
                        or for 0 still in its register: a leaf */
    MEMKIT__LAST,    /* there is no caller */
    MEMKIT__SIGNAL,  /* the caller was interrupted */
    MEMKIT__LONG /* ask the tables each time; with bp: there are none, go by the frame pointer */
};

#define MEMKIT__RULE_BITS 30u
#define MEMKIT__RULE_T    (UINT32_C(1) << 29)

static inline uint32_t memkit__rule(unsigned kind, uint32_t offset, uint32_t bp)
{
    return kind | offset << 3 | bp << 18;
}

static inline unsigned memkit__rule_kind(uint32_t rule)
{
    return rule & 7;
}

/* Bytes: words of 8, on either machine. */
static inline uintptr_t memkit__rule_offset(uint32_t rule)
{
    return rule & (0x7fffu << 3);
}

/* Bytes below the CFA where bp is saved; 0: it is not. */
static inline uintptr_t memkit__rule_bp(uint32_t rule)
{
    return rule >> 15 & (0x7ffu << 3);
}

/* Throws the rules of n frames away, or all where n is 0, and the calling thread's last stack: for
 * benches of what is new. */
void memkit__unwind_forget(const uint64_t *frames, unsigned n);

/* The rule of code at pc; NO_RULE where the tables of the module know none. */
uint32_t memkit__rule_find(const memkit__module *m, uintptr_t pc);
/* The same; keeps what the entries of the tables have in common for the next. */
struct memkit__cfi_common;
uint32_t memkit__rule_find_by(struct memkit__cfi_common *common, const memkit__module *m,
                              uintptr_t pc);

/* ---- steps that need more than a rule ---- */

typedef struct memkit__registers {
    uint64_t known; /* a bit each, by DWARF's numbers */
    uintptr_t value[33];
} memkit__registers;

typedef struct {
    uintptr_t pc; /* return address, or what was interrupted + 1 */
    uintptr_t sp, bp, lr;
    const void *context; /* ucontext_t with all registers, of the frame that a signal stopped */
    /* All registers from frame to frame, for a walk that has to be careful; NULL: sp and bp do. */
    struct memkit__registers *registers;
    memkit__stack stack;
} memkit__walk;

/* One frame up. False: the stack ends here. */
bool memkit__step_signal(memkit__walk *w);
bool memkit__step_long(memkit__walk *w, const memkit__module *m);
bool memkit__step_by_pointer(memkit__walk *w);
/* True where pc is the code that the kernel has a signal handler return to. */
bool memkit__is_sigreturn(uintptr_t pc);
/* Goes on from the registers of a ucontext_t that can be read. False: its stack cannot. */
bool memkit__walk_from_context(memkit__walk *w, const void *context);

/* A return address without the bits that sign it. */
static inline uintptr_t memkit__plain(uintptr_t pc)
{
#if defined(__aarch64__)
    __asm__("mov x30, %0\n\thint #7\n\tmov %0, x30" : "+r"(pc) : : "x30"); /* xpaclri */
#endif
    return pc;
}

#pragma GCC visibility pop

#endif
