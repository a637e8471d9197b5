/* unwind_trail.c - stacks that a thread was at before, known again without a walk.
 *
 *     key = hash(sp, innermost return addresses)      trail: sp | pc | bp | what | n | words
 *     tags:   [ tag | tag | tag | tag ] ..            a word: its value, its distance from sp
 *     trails: [trail|trail|trail|trail] ..
 *
 * - Where a walk goes is told by its registers at the start, by the rules, which do not change
 *   while a module stays, and by the words that it reads: return addresses, and frame pointers
 *   where a later frame is left by one. If sp, pc and those words are what they were, so is the
 *   stack. Comparing them waits for nothing, unlike a walk, in which each load depends on the one
 *   before; and no site has to be looked up.
 * - The key is of a few frames, so that many stacks through one place and depth lie apart. Only the
 *   words decide.
 * - A trail is of frames left by the simple rules alone, in modules that stay, up to the outermost
 *   one, on the thread's own stack, with at most WORDS words. Others are walked.
 * - Looked for only on the thread's own stack (unwind_stack.c), of which nothing is read beyond the
 *   end: code that switches stacks by itself may have rules that do not hold there.
 * - Noting costs a walk. Where trails are given up before they were ever found, only one in up to
 * 64 stacks that are not found is noted.
 * - A signal handler may come in between: `busy` while trails are read or written, and it does
 *   without. Where a find looked is with its caller, so a handler's note is of its own stack.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/unwind_trail.h"

#include "prof/mem.h"
#include "prof/unwind.h"
#include "prof/unwind_cache.h"

#define WORD      sizeof(uintptr_t)
#define WAYS      4u
#define SET_BITS  10u
#define KEY_STEPS 4u /* of them the first is out of our own functions */
#define WORDS     44u
#define AT_ONCE   4u /* words; a trail's last one is repeated up to a multiple */
#define MAX_SKIP  63u

typedef struct {
    uintptr_t sp, pc, bp;
    void *what;
    uint16_t n;
    uint16_t furthest;        /* of the distances */
    bool needs_bp;            /* the bp it began with was used */
    bool found;               /* again, since it was noted */
    uint16_t distance[WORDS]; /* in words */
    uintptr_t value[WORDS];
} trail;

struct memkit__trails {
    bool busy;
    unsigned skip, skipped;  /* of what is not found, so many are not noted; were not since */
    unsigned next;           /* the way that is given up next */
    _Atomic uint64_t *rules; /* unwind_cache.c's */
    uintptr_t pointer;       /* thread pointer that the next two were found under */
    uintptr_t lo, hi;        /* the thread's own stack */
    uint32_t tags[1u << SET_BITS][WAYS];
    trail trails[1u << SET_BITS][WAYS];
};

memkit__trails *memkit__trails_new(void)
{
    static atomic_size_t taken; /* bytes; a cache must leave the room to what is recorded */
    size_t all = atomic_fetch_add(&taken, sizeof(memkit__trails)) + sizeof(memkit__trails);
    memkit__trails *t = all <= memkit__kept_bound() / 8 ? memkit__kept_map_spare(sizeof *t) : NULL;
    if (t == NULL)
        atomic_fetch_sub(&taken, sizeof *t);
    return t;
}

/* ---- known again ---- */

static inline unsigned set_of(uint64_t key)
{
    return (unsigned)(key >> (64 - SET_BITS));
}

static inline uint32_t tag_of(uint64_t key)
{
    return (uint32_t)(key >> 16) | 1; /* 0: nothing is noted */
}

/* Goes as far as the simplest rule leads, beneath hi. */
MEMKIT__READS_ANYTHING static inline uint64_t key_of(_Atomic uint64_t *rules, uintptr_t hi,
                                                     uintptr_t sp, uintptr_t pc)
{
    uint64_t key = sp;
    for (unsigned i = 0; i < KEY_STEPS; i++) {
        uint32_t rule = memkit__cache_rule(rules, pc);
        if (memkit__rule_kind(rule) != MEMKIT__BY_SP || (rule & MEMKIT__RULE_T) != 0)
            break;
        sp += memkit__rule_offset(rule);
        if (sp > hi)
            break;
        pc = memkit__word(sp - WORD);
        if (pc >> MEMKIT__FRAME_BITS != 0)
            break;
        key = key * UINT64_C(0x9e3779b97f4a7c15) + pc;
    }
    return key * UINT64_C(0x9e3779b97f4a7c15);
}

MEMKIT__READS_ANYTHING static inline uintptr_t differs(uintptr_t sp, uint16_t distance,
                                                       uintptr_t value)
{
    return memkit__word(sp + distance * WORD) ^ value;
}

/* AT_ONCE of them, then a look. */
static inline bool is_here(const trail *k, uintptr_t sp)
{
    const uint16_t *at = k->distance, *end = at + k->n;
    const uintptr_t *was = k->value;
    __asm__("" : "+r"(at), "+r"(was)); /* else gcc finds both anew from the table, for each word */
    for (; at < end; at += AT_ONCE, was += AT_ONCE)
        if ((differs(sp, at[0], was[0]) | differs(sp, at[1], was[1]) | differs(sp, at[2], was[2]) |
             differs(sp, at[3], was[3])) != 0)
            return false;
    return true;
}

static inline void *find(memkit__trails *t, const memkit__trail_asked *a, uintptr_t hi)
{
    uint64_t key = key_of(t->rules, hi, a->sp, a->pc);
    unsigned set = set_of(key);
    for (unsigned i = 0; i < WAYS; i++) {
        trail *k = &t->trails[set][i];
        if (t->tags[set][i] != tag_of(key) || k->sp != a->sp || k->pc != a->pc ||
            (k->needs_bp && k->bp != a->bp) || (hi - a->sp) / WORD <= k->furthest ||
            !is_here(k, a->sp))
            continue;
        k->found = true;
        return k->what;
    }
    return NULL;
}

static __attribute__((noinline)) bool learn_stack(memkit__trails *t, uintptr_t sp)
{
    memkit__stack stack;
    if (!memkit__stack_of(&stack, sp, memkit__thread_here()) || !stack.firm)
        return false;
    t->pointer = memkit__thread_pointer();
    t->lo = stack.lo;
    t->hi = stack.hi;
    return true;
}

static inline bool on_own_stack(memkit__trails *t, uintptr_t sp)
{
    if (__builtin_expect(t->pointer == memkit__thread_pointer() && sp >= t->lo && sp < t->hi, 1))
        return true;
    return learn_stack(t, sp);
}

/* Where the assembler below goes on: with the caller's registers. */
void *memkit__trail_find_from(memkit__trails *t, memkit__trail_asked *asked, uintptr_t sp,
                              uintptr_t pc, uintptr_t bp)
    __attribute__((used, visibility("hidden")));

void *memkit__trail_find_from(memkit__trails *t, memkit__trail_asked *asked, uintptr_t sp,
                              uintptr_t pc, uintptr_t bp)
{
    asked->sp = 0;
    if (__builtin_expect(t->busy, 0))
        return NULL;
    t->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    void *what = NULL;
    if (on_own_stack(t, sp)) {
        *asked = (memkit__trail_asked){sp, pc, bp};
        if (t->rules != NULL) /* something is noted */
            what = find(t, asked, t->hi);
    }
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = false;
    return what;
}

/* ---- noted ---- */

/* Adds the word at `at`; false: it is too far off, or there are too many. */
MEMKIT__READS_ANYTHING static bool add_word(trail *k, uintptr_t at)
{
    uintptr_t distance = (at - k->sp) / WORD;
    if (k->n == WORDS || distance > UINT16_MAX || (at - k->sp) % WORD != 0)
        return false;
    k->distance[k->n] = (uint16_t)distance;
    k->value[k->n++] = memkit__word(at);
    return true;
}

/* Walks from where the trail begins, and notes the words; false: it is no stack for a trail. The
 * steps are those of unwind.c, of the simple kinds. */
MEMKIT__READS_ANYTHING static bool follow(memkit__walker *w, trail *k)
{
    uintptr_t sp = k->sp, bp = k->bp, pc = k->pc, bp_at = 0; /* bp_at: where bp is from; 0: noted */
    bool first_bp = true;
    for (unsigned frames = 0; frames <= MEMKIT_PROF_MAX_DEPTH; frames++) {
        if (pc >> MEMKIT__FRAME_BITS != 0)
            return false;
        uint32_t rule = memkit__cache_rule(w->cache, pc);
        if (rule == MEMKIT__NO_RULE) { /* of the find's own caller, the first time */
            uint64_t frame;
            w->w.sp = sp;
            rule = memkit__cache_rule_now(w, pc, &frame);
        }
        unsigned kind = memkit__rule_kind(rule);
        if ((rule & MEMKIT__RULE_T) != 0)
            return false;
        if (kind == MEMKIT__LAST)
            return true;
        if (kind != MEMKIT__BY_SP && kind != MEMKIT__BY_BP)
            return false;
        if (kind == MEMKIT__BY_BP) {
            k->needs_bp = k->needs_bp || first_bp;
            if (bp_at != 0 && !add_word(k, bp_at))
                return false;
            bp_at = 0;
        }
        uintptr_t cfa = (kind == MEMKIT__BY_BP ? bp : sp) + memkit__rule_offset(rule);
        uintptr_t below = memkit__rule_bp(rule), lowest = below > WORD ? below : WORD;
        if (cfa <= sp || cfa % WORD != 0 || cfa > w->w.stack.hi || cfa - sp < lowest)
            return false;
#if defined(__x86_64__)
        uintptr_t at = cfa - WORD;
#else
        uintptr_t at = cfa - below + WORD;
        if (below == 0)
            return false;
#endif
        if (!add_word(k, at))
            return false;
        pc = memkit__plain(memkit__word(at));
        if (below != 0) {
            bp_at = cfa - below;
            bp = memkit__word(bp_at);
            first_bp = false;
        }
        sp = cfa;
    }
    return false;
}

/* The way of a set that the next trail takes: an empty one, or each in turn. */
static unsigned choose_way(memkit__trails *t, unsigned set)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (t->tags[set][i] == 0)
            return i;
    unsigned way = t->next++ % WAYS;
    if (t->trails[set][way].found)
        t->skip /= 2;
    else
        t->skip = t->skip < MAX_SKIP ? t->skip * 2 + 1 : MAX_SKIP;
    return way;
}

static void note(memkit__trails *t, const memkit__trail_asked *asked, void *what)
{
    memkit__walker w;
    if (!memkit__stack_of(&w.w.stack, asked->sp, memkit__thread_here()) || !w.w.stack.firm)
        return;
    memkit__cache_begin(&w);
    trail fresh = {.sp = asked->sp, .pc = asked->pc, .bp = asked->bp, .what = what};
    if (w.cache == NULL || !follow(&w, &fresh) || fresh.n == 0)
        return;
    for (; fresh.n % AT_ONCE != 0; fresh.n++) {
        fresh.distance[fresh.n] = fresh.distance[fresh.n - 1];
        fresh.value[fresh.n] = fresh.value[fresh.n - 1];
    }
    for (unsigned i = 0; i < fresh.n; i++)
        if (fresh.distance[i] > fresh.furthest)
            fresh.furthest = fresh.distance[i];
    t->rules = w.cache;
    uint64_t key = key_of(t->rules, w.w.stack.hi, fresh.sp, fresh.pc);
    unsigned set = set_of(key), way = choose_way(t, set);
    t->tags[set][way] = 0; /* a handler may leave by a jump, here as well */
    atomic_signal_fence(memory_order_seq_cst);
    t->trails[set][way] = fresh;
    atomic_signal_fence(memory_order_seq_cst);
    t->tags[set][way] = tag_of(key);
}

void memkit__trail_note(memkit__trails *t, const memkit__trail_asked *asked, void *what)
{
    if (t->busy || t->skipped++ < t->skip)
        return;
    t->skipped = 0;
    t->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    note(t, asked, what);
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = false;
}

/* A function of C cannot say what its caller's registers were. */
#if defined(__x86_64__)
__asm__(".text\n\t"
        ".p2align 4\n\t"
        ".globl memkit__trail_find\n\t"
        ".hidden memkit__trail_find\n\t"
        ".type memkit__trail_find, @function\n"
        "memkit__trail_find:\n\t"
        ".cfi_startproc\n\t"
        "endbr64\n\t"
        "leaq 8(%rsp), %rdx\n\t"
        "movq (%rsp), %rcx\n\t"
        "movq %rbp, %r8\n\t"
        "jmp memkit__trail_find_from\n\t"
        ".cfi_endproc\n\t"
        ".size memkit__trail_find, . - memkit__trail_find\n");
#else
__asm__(".text\n\t"
        ".p2align 4\n\t"
        ".globl memkit__trail_find\n\t"
        ".hidden memkit__trail_find\n\t"
        ".type memkit__trail_find, %function\n"
        "memkit__trail_find:\n\t"
        ".cfi_startproc\n\t"
        "hint #34\n\t"
        "mov x2, sp\n\t"
        "mov x3, x30\n\t"
        "mov x4, x29\n\t"
        "b memkit__trail_find_from\n\t"
        ".cfi_endproc\n\t"
        ".size memkit__trail_find, . - memkit__trail_find\n");
#endif
