/* unwind.c - the stack of the calling thread: from frame to frame by cached rules.
 *
 *     pc * odd  =  | bucket 14 | tag 34 | 0 16 |        cache: 2^14 buckets of 4 words
 *                       |         |
 *                       v         v
 *                  bucket: [ tag 34 | rule 30 ] x 4      each word read and written whole
 *
 * - A walk is sp, bp and pc. For pc the cache has the rule that gives the caller's (unwind_impl.h);
 *   where it has none, the unwind tables of the module at pc are asked (some 0.3 us), once for each
 *   pc of the program. Any thread fills the cache, without a lock: a word is a key and its rule,
 * and the product is invertible, so a word read is either the right rule or another pc's.
 * - A frame's key is its return address; the row wanted is that of the byte before, which is in the
 *   call. An interrupted pc has 1 added, so that the same holds.
 * - Rules of modules that may be unloaded are marked. Where one is used, the loader is asked whose
 *   code lies there now (once a module and walk); when a module turned up where another was, all
 *   rules are thrown away.
 * - Nothing is read outside of the stack that sp lies in (unwind_stack.c), sp rises strictly, and a
 *   walk ends at max frames, so that no content of memory makes it fault or loop.
 * - A thread remembers its last stack, and compares instead of walking (the last stack, below).
 * - No malloc, no lock, no errno. Nothing is thread-local but an index (unwind_stack.c).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/unwind.h"

#include <errno.h>

#include "prof/mem.h"
#include "prof/unwind_impl.h"

#define WAYS        4u
#define BUCKET_BITS 14u
#define CACHE_WORDS ((size_t)WAYS << BUCKET_BITS)
#define RULE_MASK   ((UINT64_C(1) << MEMKIT__RULE_BITS) - 1)
#define SPREAD      (UINT64_C(0x9e3779b97f4b) << 16) /* odd, and the top 16 bits of a pc fall out */
#define BY_POINTER  memkit__rule(MEMKIT__LONG, 0, 1)
#define WORD        sizeof(uintptr_t)
#define CHECKED     4u
#define MAX_PAUSE   31u

static _Atomic(_Atomic uint64_t *) cache;
static _Atomic uint32_t
    cache_age; /* memkit__modules_replaced that the cache was last emptied for */

/* What the walk needs beside its registers. */
typedef struct {
    memkit__walk w;
    _Atomic uint64_t *cache;
    const memkit__module *checked[CHECKED]; /* are loaded now */
    unsigned n_checked;
    uint32_t age;
    uintptr_t from; /* sp where the walk came onto this stack */
    bool lost;      /* it ended at a frame that sp and bp are not enough for */
} walker;

/* ---- the cache ---- */

static inline uint64_t key_of(uintptr_t pc)
{
    return pc * SPREAD;
}

static inline _Atomic uint64_t *bucket_of(_Atomic uint64_t *c, uint64_t key)
{
    return c + (key >> (64 - BUCKET_BITS)) * WAYS;
}

/* The rule of a pc; NO_RULE: not here. */
static inline uint32_t cached(_Atomic uint64_t *c, uintptr_t pc)
{
    uint64_t key = key_of(pc), tag = key << BUCKET_BITS;
    const _Atomic uint64_t *bucket = bucket_of(c, key);
    for (unsigned i = 0; i < WAYS; i++) {
        uint64_t difference = atomic_load_explicit(&bucket[i], memory_order_relaxed) ^ tag;
        if (difference <= RULE_MASK)
            return (uint32_t)difference;
    }
    return MEMKIT__NO_RULE;
}

static void keep(_Atomic uint64_t *c, uintptr_t pc, uint32_t rule)
{
    uint64_t key = key_of(pc), tag = key << BUCKET_BITS;
    _Atomic uint64_t *bucket = bucket_of(c, key);
    unsigned at = 0;
    while (at < WAYS && atomic_load_explicit(&bucket[at], memory_order_relaxed) != 0)
        at++;
    if (at == WAYS) /* full: any one goes */
        at = (unsigned)(pc >> 4) % WAYS;
    atomic_store_explicit(&bucket[at], tag | rule, memory_order_relaxed);
}

static void empty(_Atomic uint64_t *c)
{
    for (size_t i = 0; c != NULL && i < CACHE_WORDS; i++)
        if (atomic_load_explicit(&c[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&c[i], 0, memory_order_relaxed);
}

/* Throws all rules away where a module lies now where another did. */
static void check_age(walker *k)
{
    uint32_t now = atomic_load(&memkit__modules_replaced);
    uint32_t before = atomic_load(&cache_age);
    k->age = now;
    if (now != before && atomic_compare_exchange_strong(&cache_age, &before, now))
        empty(k->cache);
}

void memkit__unwind_forget(void)
{
    memkit__thread *t = memkit__thread_here();
    empty(atomic_load(&cache));
    if (t != NULL)
        t->memo_depth = 0;
}

/* ---- rules ---- */

/* The module at pc now, asked once a walk. */
static const memkit__module *module_now(walker *k, uintptr_t pc)
{
    for (unsigned i = 0; i < k->n_checked; i++)
        if (pc >= k->checked[i]->start && pc < k->checked[i]->end)
            return k->checked[i];
    const memkit__module *m = memkit__module_at(pc);
    if (m != NULL && k->n_checked < CHECKED)
        k->checked[k->n_checked++] = m;
    if (atomic_load_explicit(&memkit__modules_replaced, memory_order_relaxed) != k->age)
        check_age(k);
    return m;
}

static uint32_t find_rule(walker *k, const memkit__module *m, uintptr_t pc)
{
    uint32_t rule = memkit__rule_find(m, pc - 1);
    if (rule == MEMKIT__NO_RULE)
        rule = memkit__is_sigreturn(pc) ? MEMKIT__SIGNAL : BY_POINTER;
    if (!m->stays)
        rule |= MEMKIT__RULE_T;
    if (k->cache != NULL) {
        keep(k->cache, pc, rule);
        if (atomic_load(&memkit__modules_replaced) != k->age) /* perhaps the tables of one gone */
            check_age(k);
    }
    return rule;
}

/* The rule and the module's part of the frame word, where the cache alone does not tell: a pc that
 * is new, or in a module that may go. NO_RULE: code in no module. */
static __attribute__((noinline)) uint32_t rule_now(walker *k, uintptr_t pc, uint64_t *frame)
{
    const memkit__module *m = module_now(k, pc - 1);
    *frame = pc;
    if (m == NULL)
        return MEMKIT__NO_RULE;
    if (!m->stays && m->id <= UINT16_MAX)
        *frame |= (uint64_t)m->id << MEMKIT__FRAME_BITS;
    uint32_t rule = k->cache != NULL ? cached(k->cache, pc) : MEMKIT__NO_RULE;
    return rule != MEMKIT__NO_RULE ? rule : find_rule(k, m, pc);
}

/* ---- steps ---- */

static bool plausible(const memkit__walk *w, uintptr_t pc)
{
    return pc >= 4096 && pc < UINT64_C(1) << 47 && (pc < w->sp || pc >= w->stack.hi);
}

/* One frame up by a rule of the simple kinds. Its registers are the caller's own variables, not
 * *w's: the way from one pc to the next is all that a walk waits for. */
MEMKIT__READS_ANYTHING static inline __attribute__((always_inline)) bool
step(memkit__stack *stack, uint32_t rule, uintptr_t *sp, uintptr_t *bp, uintptr_t *pc,
     uintptr_t *saved)
{
    uintptr_t cfa =
        (memkit__rule_kind(rule) == MEMKIT__BY_SP ? *sp : *bp) + memkit__rule_offset(rule);
    uintptr_t below = memkit__rule_bp(rule);
    if (cfa <= *sp || cfa % WORD != 0)
        return false;
    /* A slot below sp: a signal came between pop and ret. The register has it back already. */
    if (cfa - *sp < below)
        below = 0;
#if defined(__x86_64__)
    uintptr_t lowest = cfa - (below > WORD ? below : WORD);
    if (!memkit__stack_holds(stack, lowest, cfa))
        return false;
    *pc = memkit__word(cfa - WORD);
#else
    if (below == 0 || !memkit__stack_holds(stack, cfa - below, cfa))
        return false;
    *pc = memkit__plain(memkit__word(cfa - below + WORD));
#endif
    if (below != 0)
        *bp = memkit__word(cfa - below);
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

static __attribute__((noinline)) bool step_rare(walker *k, uint32_t rule)
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
        k->lost = !memkit__step_long(w, module_now(k, w->pc - 1));
        return !k->lost;
    case MEMKIT__NO_RULE:
        return memkit__step_by_pointer(w);
    default:
        return false;
    }
}

/* ---- the last stack ---- */

/*      memo[0]      memo[1]      ...      memo[depth - 1]        outermost first
 *      _start       main                  where it was taken
 *
 * Stacks that follow each other share their outer frames. Once a frame of the new walk has the
 * state (pc, sp, and bp where that matters) of one that is remembered, the rest is the same as long
 * as the words that were read then are the same now: those are compared, which waits for nothing,
 * instead of going from one word to the next through the cache. Where one differs, the walk goes on
 * as ever, and may meet the last stack again. Remembering costs as much as it saves where less than
 * half is shared: then the next 1, 3, .. 31 walks do without.
 */

/* Index of the remembered frame of this state, looked for from `at` outward; -1: none, and *at is
 * where to look for the next. */
static inline int memo_find(const memkit__thread *t, int *at, uintptr_t pc, uintptr_t sp,
                            uintptr_t bp)
{
    int i = *at;
    while (i >= 0 && t->memo[i].sp < sp)
        i--;
    *at = i;
    const memkit__memo *m = &t->memo[i >= 0 ? i : 0];
    return i >= 0 && m->sp == sp && m->frame == pc && (!m->needs_bp || m->bp == bp) ? i : -1;
}

/* From remembered frame i on: how far out is all as it was. *bp: what it is there. */
MEMKIT__READS_ANYTHING static inline int memo_follow(const memkit__thread *t, int i, uintptr_t *bp,
                                                     uint64_t *frames, unsigned *n, unsigned max)
{
    const memkit__memo *m = &t->memo[i];
    uintptr_t slot = 0;
    unsigned done = *n;
    for (; i > 0 && done < max && m->plain; i--, m--) {
#if defined(__x86_64__)
        uintptr_t pc = memkit__word(m[-1].sp - WORD);
#else
        uintptr_t pc = memkit__plain(memkit__word(m[-1].sp - m->below + WORD));
#endif
        if (pc != memkit__frame_pc(m[-1].frame))
            break;
        if (m->below != 0) {
            if (m[-1].needs_bp && memkit__word(m[-1].sp - m->below) != m[-1].bp)
                break;
            slot = m[-1].sp - m->below;
        }
        frames[done++] = m->frame;
    }
    *n = done;
    if (slot != 0)
        *bp = memkit__word(slot);
    return i;
}

/* Remembers the stack: `n` new frames, innermost first, on top of `kept` old ones. */
static void memo_keep(memkit__thread *t, int n, int kept, uintptr_t hi)
{
    t->memo_depth = 0;
    if (n + kept > MEMKIT__MEMO)
        return;
    bool needed = kept > 0 && t->memo[kept - 1].needs_bp;
    for (int i = 0; i < n; i++) {
        memkit__memo *m = &t->memo[kept + i];
        *m = t->fresh[n - 1 - i];
        m->needs_bp = m->uses_bp || (m->below == 0 && needed);
        needed = m->needs_bp;
    }
    t->memo_depth = (unsigned)(n + kept);
    t->memo_hi = hi;
}

/* ---- the walk ---- */

static inline void note_fresh(memkit__thread *t, int *n, uint64_t frame, uintptr_t sp, uintptr_t bp,
                              uint32_t rule)
{
    if (*n < MEMKIT__MEMO)
        t->fresh[*n] = (memkit__memo){.frame = frame,
                                      .sp = sp,
                                      .bp = bp,
                                      .uses_bp = memkit__rule_kind(rule) != MEMKIT__BY_SP};
    ++*n;
}

/* t: remember the stack, and use what is remembered; NULL: do not. */
MEMKIT__READS_ANYTHING static inline __attribute__((always_inline)) unsigned
walk(walker *k, memkit__thread *t, uint64_t *frames, unsigned max, bool *cut)
{
    memkit__walk *w = &k->w;
    uintptr_t sp = w->sp, bp = w->bp, pc = w->pc, saved = 0;
    unsigned n = 0;
    int at = t != NULL ? (int)t->memo_depth - 1 : -1, n_fresh = 0, kept = 0;
    for (;;) {
        int joined = at >= 0 ? memo_find(t, &at, pc, sp, bp) : -1;
        if (joined >= 0) {
            int i = memo_follow(t, joined, &bp, frames, &n, max);
            t->followed += (unsigned)(joined - i);
            sp = t->memo[i].sp;
            pc = memkit__frame_pc(t->memo[i].frame);
            if (i == 0) { /* all the way: what is remembered stays as it is from here on out */
                kept = joined + 1;
                at = -1;
            } else {
                for (int from = joined; from > i; from--, n_fresh++)
                    if (n_fresh < MEMKIT__MEMO)
                        t->fresh[n_fresh] = t->memo[from];
                at = i - 1;
            }
        }
        uint64_t frame = pc;
        if (__builtin_expect(pc >> MEMKIT__FRAME_BITS != 0, 0)) /* would pass for another pc */
            break;
        uint32_t rule = k->cache != NULL ? cached(k->cache, pc) : MEMKIT__NO_RULE;
        if (__builtin_expect(rule == MEMKIT__NO_RULE || (rule & MEMKIT__RULE_T) != 0, 0)) {
            w->sp = sp;
            rule = rule_now(k, pc, &frame);
            if (rule == MEMKIT__NO_RULE && n > 0 && !plausible(w, pc))
                break;
        }
        if (n == max) {
            *cut = true;
            break;
        }
        frames[n++] = frame;
        if (t != NULL && kept == 0)
            note_fresh(t, &n_fresh, frame, sp, bp, rule);
        unsigned kind = memkit__rule_kind(rule);
        if (__builtin_expect(kind == MEMKIT__BY_SP || kind == MEMKIT__BY_BP, 1)) {
            w->context = NULL;
            w->lr = 0;
            if (!step(&w->stack, rule, &sp, &bp, &pc, &saved))
                break;
            if (t != NULL && kept == 0 && n_fresh <= MEMKIT__MEMO) {
                t->fresh[n_fresh - 1].below = (uint16_t)saved;
                t->fresh[n_fresh - 1].plain = (rule & MEMKIT__RULE_T) == 0;
            }
            continue;
        }
        w->sp = sp;
        w->bp = bp;
        w->pc = pc;
        if (!step_rare(k, rule))
            break;
        sp = w->sp;
        bp = w->bp;
        pc = w->pc;
        if (kind == MEMKIT__SIGNAL) { /* another stack, perhaps: nothing of it is remembered */
            t = NULL;
            at = -1;
        }
    }
    w->sp = sp;
    if (t != NULL && !*cut)
        memo_keep(t, n_fresh, kept, w->stack.hi);
    return n;
}

/* The walk that remembers: where this thread is not in one already, and the stack's end is known.
 */
static unsigned walk_and_remember(walker *k, uint64_t *frames, unsigned max, bool *cut)
{
    memkit__thread *t = k->w.stack.thread;
    if (t == NULL || !k->w.stack.firm || t->busy)
        return walk(k, NULL, frames, max, cut);
    if (t->idle > 0) { /* stacks had too little in common lately */
        t->idle--;
        return walk(k, NULL, frames, max, cut);
    }
    t->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    t->followed = 0;
    if (t->memo_hi != k->w.stack.hi)
        t->memo_depth = 0;
    unsigned n = walk(k, t, frames, max, cut);
    t->pause = t->followed * 2 >= n ? 0 : t->pause < MAX_PAUSE ? t->pause * 2 + 1 : MAX_PAUSE;
    t->idle = t->pause;
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = false;
    return n;
}

/* The walk from a context, every frame by the tables themselves; some 10 us. */
static unsigned walk_carefully(walker *k, const void *context, uint64_t *frames, unsigned max,
                               bool *cut)
{
    memkit__registers registers;
    memkit__walk *w = &k->w;
    w->registers = &registers;
    unsigned n = 0;
    bool more = memkit__walk_from_context(w, context);
    for (; more && w->pc >> MEMKIT__FRAME_BITS == 0; n++) {
        uint64_t frame = w->pc;
        uint32_t rule = rule_now(k, w->pc, &frame);
        if (rule == MEMKIT__NO_RULE && n > 0 && !plausible(w, w->pc))
            break;
        if (n == max) {
            *cut = true;
            break;
        }
        frames[n] = frame;
        unsigned kind = memkit__rule_kind(rule);
        bool by_tables = kind != MEMKIT__NO_RULE && kind != MEMKIT__LAST &&
                         kind != MEMKIT__SIGNAL && (rule & ~MEMKIT__RULE_T) != BY_POINTER;
        more = by_tables ? memkit__step_long(w, module_now(k, w->pc - 1)) : step_rare(k, rule);
    }
    return n;
}

static inline unsigned run(walker *k, uint64_t *frames, unsigned max, bool *cut)
{
    const void *context = k->w.context;
    *cut = false;
    k->w.registers = NULL;
    k->lost = false;
    k->from = k->w.sp;
    k->cache = atomic_load_explicit(&cache, memory_order_acquire);
    k->n_checked = 0;
    k->age = atomic_load_explicit(&cache_age, memory_order_relaxed);
    unsigned n =
        context != NULL ? walk(k, NULL, frames, max, cut) : walk_and_remember(k, frames, max, cut);
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
    walker k;
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
    walker k;
    k.w.stack.thread = memkit__thread_here();
    k.w.registers = NULL;
    if (memkit__walk_from_context(&k.w, ucontext))
        return run(&k, frames, max, cut);
    *cut = max == 0;
    if (max > 0) /* at least where it was */
        frames[0] = memkit__frame_pc(k.w.pc);
    return max > 0;
}

int memkit__unwind_prepare(void)
{
    if (memkit__modules_prepare() != 0)
        return -1;
    if (atomic_load(&cache) != NULL)
        return 0;
    _Atomic uint64_t *made = memkit__kept_map(CACHE_WORDS * sizeof *made);
    _Atomic uint64_t *none = NULL;
    if (made == NULL)
        return -1;
    if (!atomic_compare_exchange_strong(&cache, &none, made))
        memkit__kept_unmap((void *)made, CACHE_WORDS * sizeof *made);
    return 0;
}
