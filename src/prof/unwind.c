/* unwind.c - the stack of the calling thread: from frame to frame by cached rules.
 *
 * - A walk is sp, bp and pc. For pc the cache has the rule that gives the caller's (unwind_impl.h,
 *   unwind_cache.c); where it has none, the unwind tables are asked.
 * - A step waits for what the one before loaded: return address, rule, return address, .. So the
 *   way from one to the next has no more than it needs, and its choices are computed, not branched
 *   on: which kind of rule comes next cannot be guessed.
 * - A frame's key is its return address; the row wanted is that of the byte before, which is in the
 *   call. An interrupted pc has 1 added, so that the same holds.
 * - Nothing is read outside of the stack that sp lies in (unwind_stack.c), sp rises strictly, and a
 *   walk ends at max frames, so that no content of memory makes it fault or loop.
 * - A thread remembers its last stack, and compares instead of walking (unwind_memo.c).
 * - No malloc, no lock, no errno. Nothing is thread-local but an index (unwind_stack.c).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/unwind.h"

#include "prof/unwind_cache.h"

#define WORD       sizeof(uintptr_t)
#define MAX_PAUSE  31u
#define WRITE_EACH 4u

/* A choice that is computed. */
#if defined(__clang__)
#define EITHER(cond, yes, no) (__builtin_unpredictable(cond) ? (yes) : (no))
#else
#define EITHER(cond, yes, no) (__builtin_expect_with_probability((cond), 1, 0.5) ? (yes) : (no))
#endif

/* ---- steps ---- */

static bool plausible(const memkit__walk *w, uintptr_t pc)
{
    return pc >= 4096 && pc < UINT64_C(1) << 47 && (pc < w->sp || pc >= w->stack.hi);
}

/* One frame up by a rule of the simple kinds. Its registers are the caller's own variables, not
 * *w's: the way from one pc to the next is all that a walk waits for. *saved: bytes below the CFA
 * where bp was read, or 0. */
MEMKIT__READS_ANYTHING static inline __attribute__((always_inline)) bool
step(memkit__stack *stack, uint32_t rule, uintptr_t *sp, uintptr_t *bp, uintptr_t *pc,
     uintptr_t *saved)
{
    uintptr_t from = EITHER((rule & MEMKIT__BY_BP) != 0, *bp, *sp);
    uintptr_t cfa = from + memkit__rule_offset(rule);
    uintptr_t below = memkit__rule_bp(rule);
    if (cfa <= *sp || cfa % WORD != 0)
        return false;
    /* A slot below sp: a signal came between pop and ret. The register has it back already. */
    below = EITHER(cfa - *sp < below, 0, below);
#if defined(__x86_64__)
    uintptr_t lowest = cfa - EITHER(below > WORD, below, WORD);
    if (!memkit__stack_holds(stack, lowest, cfa))
        return false;
    *pc = memkit__word(cfa - WORD);
#else
    uintptr_t lowest = cfa - below;
    if (below == 0 || !memkit__stack_holds(stack, lowest, cfa))
        return false;
    *pc = memkit__plain(memkit__word(lowest + WORD));
#endif
    uintptr_t slot = memkit__word(lowest);
    *bp = EITHER(below != 0, slot, *bp);
    *saved = below;
    *sp = cfa;
    return true;
}

/* A realigned stack: the CFA lies in a slot beneath the frame pointer. */
MEMKIT__READS_ANYTHING static bool step_realigned(memkit__walk *w, uint32_t rule)
{
    uintptr_t bp = w->bp, offset = memkit__rule_offset(rule);
    if (bp < w->sp || bp % WORD != 0 || bp - w->sp < offset || bp + WORD < bp ||
        !memkit__stack_holds(&w->stack, bp - offset, bp + WORD))
        return false;
    uintptr_t cfa = memkit__word(bp - offset);
    if (cfa <= bp || cfa % WORD != 0 || !memkit__stack_holds(&w->stack, cfa - WORD, cfa))
        return false;
    w->bp = memkit__word(bp);
    w->pc = memkit__word(cfa - WORD);
    w->sp = cfa;
    return true;
}

/* aarch64: a leaf that a signal stopped, with nothing on the stack but what it made room for; or a
 * function that saves its return address, but no frame pointer. */
MEMKIT__READS_ANYTHING static bool step_by_link(memkit__walk *w, uint32_t rule)
{
    uintptr_t cfa = w->sp + memkit__rule_offset(rule), below = memkit__rule_bp(rule), pc = w->lr;
    if (cfa < w->sp || cfa - w->sp < below)
        return false;
    if (below != 0) {
        if (!memkit__stack_holds(&w->stack, cfa - below, cfa))
            return false;
        pc = memkit__word(cfa - below);
    }
    w->pc = memkit__plain(pc);
    w->lr = 0;
    w->sp = cfa;
    w->context = NULL;
    if (pc == 0)
        return false;
    return cfa == w->stack.hi ? w->stack.firm : memkit__stack_holds(&w->stack, cfa, cfa + WORD);
}

static __attribute__((noinline)) bool step_rare(memkit__walker *k, uint32_t rule)
{
    memkit__walk *w = &k->w;
    switch (memkit__rule_kind(rule)) {
    case MEMKIT__BY_SLOT:
        return step_realigned(w, rule);
    case MEMKIT__BY_LINK:
        return step_by_link(w, rule);
    case MEMKIT__SIGNAL:
        if (!memkit__step_signal(w))
            return false;
        k->from = w->sp;
        return true;
    case MEMKIT__LONG:
        if (memkit__rule_bp(rule) != 0)
            return memkit__step_by_pointer(w);
        k->lost = !memkit__step_long(w, memkit__cache_module(k, w->pc - 1));
        return !k->lost;
    case MEMKIT__NO_RULE:
        return memkit__step_by_pointer(w);
    default:
        return false;
    }
}

/* ---- the walk ---- */

/* How a walk goes along the remembered stack. */
typedef struct {
    memkit__thread *t; /* NULL: without */
    unsigned at;       /* the next remembered frame it may come to */
    uintptr_t at_sp;   /* that one's sp; UINTPTR_MAX: there is none */
    unsigned kept;     /* came to this one; MEMKIT__MEMO: to none as yet */
} meeting;

static inline void look_from(meeting *m, unsigned at)
{
    m->at = at;
    m->at_sp = at < MEMKIT__MEMO ? m->t->memo[at].sp : UINTPTR_MAX;
}

/* The walk is at sp, beside the next remembered frame or beyond. True where its state is that of
 * a remembered one: the frames from there on are filled in, and the state is the outermost's. */
static __attribute__((noinline)) bool meet(meeting *m, uintptr_t *sp, uintptr_t *bp, uintptr_t *pc,
                                           uint64_t *frames, unsigned *n, unsigned max)
{
    const memkit__thread *t = m->t;
    unsigned i = memkit__memo_beside(t, m->at, *sp), rest = MEMKIT__MEMO - i;
    look_from(m, i);
    if (m->at_sp != *sp)
        return false;
    look_from(m, i + 1);
    if (t->memo_frames[i] != *pc || (t->memo[i].needs_bp && t->memo[i].bp != *bp) ||
        rest > max - *n)
        return false;
    memcpy(frames + *n, &t->memo_frames[i], rest * sizeof *frames);
    *n += rest;
    m->kept = i;
    m->t->followed = rest;
    m->at_sp = UINTPTR_MAX;
    if (i < MEMKIT__MEMO - 1) {
        *sp = t->memo[MEMKIT__MEMO - 1].sp;
        *bp = t->memo[MEMKIT__MEMO - 1].bp;
        *pc = t->memo_frames[MEMKIT__MEMO - 1];
    }
    return true;
}

/* t: use what is remembered; NULL: do not. write: remember this one. */
MEMKIT__READS_ANYTHING static inline __attribute__((always_inline)) unsigned
walk(memkit__walker *k, memkit__thread *t, bool write, uint64_t *frames, unsigned max, bool *cut)
{
    memkit__walk *w = &k->w;
    uintptr_t sp = w->sp, bp = w->bp, pc = w->pc, saved = 0;
    unsigned n = 0, fresh = 0; /* fresh: of the n, those before a remembered one was met */
    bool ends = false;
    meeting m = {.t = t, .at_sp = UINTPTR_MAX, .kept = MEMKIT__MEMO};
    if (t != NULL)
        look_from(&m, memkit__memo_intact(t, sp));
    for (;;) {
        if (t != NULL && __builtin_expect(sp >= m.at_sp, 0) &&
            meet(&m, &sp, &bp, &pc, frames, &n, max)) {
            if (t->memo_ends)
                break;
            n--; /* from the outermost one it may go on now */
        }
        uint64_t frame = pc;
        if (__builtin_expect(pc >> MEMKIT__FRAME_BITS != 0, 0)) /* would pass for another pc */
            break;
        uint32_t rule = k->cache != NULL ? memkit__cache_rule(k->cache, pc) : MEMKIT__NO_RULE;
        if (__builtin_expect(rule == MEMKIT__NO_RULE || (rule & MEMKIT__RULE_T) != 0, 0)) {
            uint64_t named; /* frame itself stays in a register */
            w->sp = sp;
            rule = memkit__cache_rule_now(k, pc, &named);
            frame = named;
            if (rule == MEMKIT__NO_RULE && n > 0 && !plausible(w, pc))
                break;
        }
        if (n == max) {
            *cut = true;
            break;
        }
        frames[n++] = frame;
        memkit__left *left = NULL;
        if (write && m.kept == MEMKIT__MEMO) {
            left = &t->fresh[fresh < MEMKIT__MEMO ? fresh : MEMKIT__MEMO - 1];
            fresh++;
            *left = (memkit__left){.sp = sp, .bp = bp, .rule = rule};
        }
        unsigned kind = memkit__rule_kind(rule);
        if (__builtin_expect(kind == MEMKIT__BY_SP || kind == MEMKIT__BY_BP, 1)) {
            w->context = NULL;
            w->lr = 0;
            if (!step(&w->stack, rule, &sp, &bp, &pc, &saved))
                break;
            if (left != NULL)
                left->below = (uint32_t)saved;
            continue;
        }
        w->sp = sp;
        w->bp = bp;
        w->pc = pc;
        ends = kind == MEMKIT__LAST && (rule & MEMKIT__RULE_T) == 0;
        if (!step_rare(k, rule))
            break;
        sp = w->sp;
        bp = w->bp;
        pc = w->pc;
        if (kind == MEMKIT__SIGNAL) { /* another stack, perhaps: nothing of it is remembered */
            t = NULL;
            write = false;
            m.at_sp = UINTPTR_MAX;
        }
    }
    w->sp = sp;
    if (write && !*cut)
        memkit__memo_keep(t, frames, fresh, m.kept, ends);
    return n;
}

/* The walk that remembers: where this thread is not in one already, and the stack's end is known.
 */
static unsigned walk_and_remember(memkit__walker *k, uint64_t *frames, unsigned max, bool *cut)
{
    memkit__thread *t = k->w.stack.thread;
    if (t == NULL || !k->w.stack.firm || t->busy)
        return walk(k, NULL, false, frames, max, cut);
    if (t->idle > 0) { /* stacks had too little in common lately */
        t->idle--;
        return walk(k, NULL, false, frames, max, cut);
    }
    t->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    t->followed = 0;
    if (t->memo_hi != k->w.stack.hi)
        memkit__memo_drop(t);
    t->memo_hi = k->w.stack.hi;
    bool write = t->memo_first == MEMKIT__MEMO || t->turn++ % WRITE_EACH == 0;
    unsigned n = write ? walk(k, t, true, frames, max, cut) : walk(k, t, false, frames, max, cut);
    t->pause = t->followed * 2 >= n ? 0 : t->pause < MAX_PAUSE ? t->pause * 2 + 1 : MAX_PAUSE;
    t->idle = t->pause;
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = false;
    return n;
}

/* The walk from a context, every frame by the tables themselves; some 10 us. */
static unsigned walk_carefully(memkit__walker *k, const void *context, uint64_t *frames,
                               unsigned max, bool *cut)
{
    memkit__registers registers;
    memkit__walk *w = &k->w;
    w->registers = &registers;
    unsigned n = 0;
    bool more = memkit__walk_from_context(w, context);
    for (; more && w->pc >> MEMKIT__FRAME_BITS == 0; n++) {
        uint64_t frame = w->pc;
        uint32_t rule = memkit__cache_rule_now(k, w->pc, &frame);
        if (rule == MEMKIT__NO_RULE && n > 0 && !plausible(w, w->pc))
            break;
        if (n == max) {
            *cut = true;
            break;
        }
        frames[n] = frame;
        unsigned kind = memkit__rule_kind(rule);
        bool by_tables = kind != MEMKIT__NO_RULE && kind != MEMKIT__LAST &&
                         kind != MEMKIT__SIGNAL && (rule & ~MEMKIT__RULE_T) != MEMKIT__BY_POINTER;
        more = by_tables ? memkit__step_long(w, memkit__cache_module(k, w->pc - 1))
                         : step_rare(k, rule);
    }
    return n;
}

static inline unsigned run(memkit__walker *k, uint64_t *frames, unsigned max, bool *cut)
{
    const void *context = k->w.context;
    *cut = false;
    k->w.registers = NULL;
    k->lost = false;
    k->from = k->w.sp;
    memkit__cache_begin(k);
    unsigned n = context != NULL ? walk(k, NULL, false, frames, max, cut)
                                 : walk_and_remember(k, frames, max, cut);
    if (__builtin_expect(k->lost && context != NULL, 0))
        n = walk_carefully(k, context, frames, max, cut);
    const memkit__stack *s = &k->w.stack;
    if (__builtin_expect(!s->main && s->thread != NULL && k->from < s->thread->low - 1, 0))
        memkit__stack_learn(s->thread, k->from, k->w.sp);
    return n;
}

/* Where the assembler below goes on: with the caller's registers. */
unsigned memkit__unwind_from(uint64_t *frames, unsigned max, bool *cut, uintptr_t sp, uintptr_t pc,
                             uintptr_t bp) __attribute__((used, visibility("hidden")));

unsigned memkit__unwind_from(uint64_t *frames, unsigned max, bool *cut, uintptr_t sp, uintptr_t pc,
                             uintptr_t bp)
{
    memkit__walker k;
    k.w.pc = pc;
    k.w.sp = sp;
    k.w.bp = bp;
    k.w.lr = 0;
    k.w.context = NULL;
    return memkit__stack_of(&k.w.stack, sp, memkit__thread_here()) ? run(&k, frames, max, cut) : 0;
}

/* A function of C cannot say what its caller's registers were. */
#if defined(__x86_64__)
__asm__(".text\n\t"
        ".p2align 4\n\t"
        ".globl memkit__unwind_here\n\t"
        ".hidden memkit__unwind_here\n\t"
        ".type memkit__unwind_here, @function\n"
        "memkit__unwind_here:\n\t"
        ".cfi_startproc\n\t"
        "endbr64\n\t"
        "leaq 8(%rsp), %rcx\n\t"
        "movq (%rsp), %r8\n\t"
        "movq %rbp, %r9\n\t"
        "jmp memkit__unwind_from\n\t"
        ".cfi_endproc\n\t"
        ".size memkit__unwind_here, . - memkit__unwind_here\n");
#else
__asm__(".text\n\t"
        ".p2align 4\n\t"
        ".globl memkit__unwind_here\n\t"
        ".hidden memkit__unwind_here\n\t"
        ".type memkit__unwind_here, %function\n"
        "memkit__unwind_here:\n\t"
        ".cfi_startproc\n\t"
        "hint #34\n\t"
        "mov x3, sp\n\t"
        "mov x4, x30\n\t"
        "mov x5, x29\n\t"
        "b memkit__unwind_from\n\t"
        ".cfi_endproc\n\t"
        ".size memkit__unwind_here, . - memkit__unwind_here\n");
#endif

unsigned memkit__unwind_context(const void *ucontext, uint64_t *frames, unsigned max, bool *cut)
{
    memkit__walker k;
    k.w.stack.thread = memkit__thread_here();
    k.w.registers = NULL;
    if (memkit__walk_from_context(&k.w, ucontext))
        return run(&k, frames, max, cut);
    *cut = max == 0;
    if (max > 0) /* at least where it was */
        frames[0] = memkit__frame_pc(k.w.pc);
    return max > 0;
}
