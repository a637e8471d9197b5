/* unwind_step.c - the frames that no short rule tells: signal frames, expressions, no tables at
 * all.
 *
 * - A signal frame has all registers of the code it stopped. Mostly sp and the frame pointer are
 *   enough; where a CFA hangs on another register (the loader's, while it binds a function at its
 *   first call; assembler) the walk is begun again, and all registers are followed by the tables.
 * - Code without tables is left by the frame pointer, if that points up this stack to something
 *   that looks like a frame. No guess is made from words that merely look like return addresses.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ucontext.h>

#include "prof/cfi.h"
#include "prof/unwind_impl.h"

#define WORD sizeof(uintptr_t)

/* ---- the machine's contexts ---- */

#if defined(__x86_64__)

/* DWARF's numbers 0 to 16 as the kernel's. */
static const uint8_t context_index[MEMKIT__CFI_REGS] = {
    REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
    REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};

#define CONTEXT_OFFSET 0u /* of the ucontext_t from sp, when a handler has returned */

MEMKIT__READS_ANYTHING static uintptr_t context_register(const void *context, unsigned reg)
{
    const ucontext_t *u = context;
    return memkit__word((uintptr_t)&u->uc_mcontext.gregs[context_index[reg]]);
}

MEMKIT__READS_ANYTHING static uintptr_t context_pc(const void *context)
{
    return context_register(context, MEMKIT__CFI_REGS - 1);
}

/* mov $15, %rax; syscall */
static const uint8_t sigreturn_code[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};

#else

#define CONTEXT_OFFSET 128u /* a siginfo_t comes first */

MEMKIT__READS_ANYTHING static uintptr_t context_register(const void *context, unsigned reg)
{
    const ucontext_t *u = context;
    return reg == MEMKIT__CFI_SP ? memkit__word((uintptr_t)&u->uc_mcontext.sp)
                                 : memkit__word((uintptr_t)&u->uc_mcontext.regs[reg % 31]);
}

MEMKIT__READS_ANYTHING static uintptr_t context_pc(const void *context)
{
    const ucontext_t *u = context;
    return memkit__word((uintptr_t)&u->uc_mcontext.pc);
}

/* mov x8, #139; svc #0 */
static const uint8_t sigreturn_code[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4};

#endif

bool memkit__walk_from_context(memkit__walk *w, const void *context)
{
    w->pc = context_pc(context) + 1;
    w->sp = context_register(context, MEMKIT__CFI_SP);
    w->bp = context_register(context, MEMKIT__CFI_BP);
    w->lr = 0;
#if defined(__aarch64__)
    w->lr = context_register(context, 30);
#endif
    w->context = context;
    if (w->registers != NULL)
        w->registers->known = 0;
    return memkit__stack_of(&w->stack, w->sp, w->stack.thread);
}

bool memkit__step_signal(memkit__walk *w)
{
    uintptr_t at = w->sp + CONTEXT_OFFSET;
    uintptr_t end = at + offsetof(ucontext_t, uc_mcontext) +
                    (sizeof(mcontext_t) < 320 ? sizeof(mcontext_t) : 320);
    if (end < at || !memkit__stack_holds(&w->stack, at, end))
        return false;
    return memkit__walk_from_context(w, (const void *)at);
}

MEMKIT__READS_ANYTHING bool memkit__is_sigreturn(uintptr_t pc)
{
    if (!memkit__readable(pc, sizeof sigreturn_code))
        return false;
    for (size_t i = 0; i < sizeof sigreturn_code; i++)
        if (((const volatile uint8_t *)pc)[i] != sigreturn_code[i])
            return false;
    return true;
}

/* ---- by the tables, all of them ---- */

static bool known_register(void *arg, unsigned reg, uintptr_t *value)
{
    const memkit__walk *w = arg;
    if (reg == MEMKIT__CFI_SP)
        *value = w->sp;
    else if (reg == MEMKIT__CFI_BP)
        *value = w->bp;
    else if (MEMKIT__CFI_REGS == 17 && reg == 16) /* rip */
        *value = w->pc - 1;
    else if (reg == 30 && MEMKIT__CFI_REGS > 30 && w->lr != 0)
        *value = w->lr;
    else if (w->registers != NULL && reg < MEMKIT__CFI_REGS &&
             (w->registers->known >> reg & 1) != 0)
        *value = w->registers->value[reg];
    else if (w->context != NULL && reg < MEMKIT__CFI_REGS - (MEMKIT__CFI_REGS == 33))
        *value = context_register(w->context, reg);
    else
        return false;
    return true;
}

MEMKIT__READS_ANYTHING static bool read_memory(void *arg, uintptr_t at, size_t bytes,
                                               uintptr_t *value)
{
    memkit__walk *w = arg;
    bool in_window = at >= w->sp && at + bytes > at && at + bytes <= w->stack.hi;
    if (!in_window && !memkit__readable(at, bytes))
        return false;
    *value = 0;
    for (size_t i = 0; i < bytes; i++)
        *value |= (uintptr_t)((const volatile uint8_t *)at)[i] << (8 * i);
    return true;
}

/* What a register was in the caller. */
static bool caller_register(memkit__walk *w, const memkit__module *m, const memkit__cfi_regs *r,
                            unsigned reg, uintptr_t cfa, uintptr_t *value)
{
    const memkit__cfi_world world = {known_register, read_memory, w};
    uintptr_t offset = (uintptr_t)(intptr_t)r->value[reg], at;
    switch (r->how[reg]) {
    case MEMKIT__CFI_SAME:
        return known_register(w, reg, value);
    case MEMKIT__CFI_REGISTER:
        return known_register(w, (unsigned)offset, value);
    case MEMKIT__CFI_OFFSET:
        if (cfa + offset < w->sp && reg != 16 && known_register(w, reg, value))
            return true; /* popped already */
        return read_memory(w, cfa + offset, WORD, value);
    case MEMKIT__CFI_VAL_OFFSET:
        *value = cfa + offset;
        return true;
    case MEMKIT__CFI_EXPR:
        return memkit__cfi_eval(memkit__cfi_expression(m, r->value[reg]), true, cfa, &world, &at) &&
               read_memory(w, at, WORD, value);
    case MEMKIT__CFI_VAL_EXPR:
        return memkit__cfi_eval(memkit__cfi_expression(m, r->value[reg]), true, cfa, &world, value);
    default:
        return false;
    }
}

/* All that is known of the caller's registers. */
static void follow_registers(memkit__walk *w, const memkit__module *m, const memkit__cfi_regs *r,
                             uintptr_t cfa)
{
    memkit__registers next = {.known = 0};
    for (unsigned reg = 0; reg < MEMKIT__CFI_REGS; reg++)
        if (caller_register(w, m, r, reg, cfa, &next.value[reg]))
            next.known |= UINT64_C(1) << reg;
    *w->registers = next;
}

bool memkit__step_long(memkit__walk *w, const memkit__module *m)
{
    const memkit__cfi_world world = {known_register, read_memory, w};
    memkit__cfi_row row;
    uintptr_t cfa, pc, bp;
    if (m == NULL || !memkit__cfi_find(m, w->pc - 1, &row))
        return false;
    if (row.regs.cfa_expr) {
        if (!memkit__cfi_eval(memkit__cfi_expression(m, row.regs.cfa_offset), false, 0, &world,
                              &cfa))
            return false;
    } else {
        if (!known_register(w, row.regs.cfa_reg, &cfa))
            return false;
        cfa += (uintptr_t)(intptr_t)row.regs.cfa_offset;
    }
    if (!caller_register(w, m, &row.regs, row.ra, cfa, &pc))
        return false;
    if (!caller_register(w, m, &row.regs, MEMKIT__CFI_BP, cfa, &bp))
        bp = 0;
    if (w->registers != NULL)
        follow_registers(w, m, &row.regs, cfa);
    /* Only a frame that a signal stopped may have nothing on the stack. */
    if (cfa < w->sp || (cfa == w->sp && w->context == NULL))
        return false;
    w->pc = memkit__plain(pc);
    w->bp = bp;
    w->lr = 0;
    w->context = NULL;
    w->sp = cfa;
    return cfa == w->stack.hi ? w->stack.firm : memkit__stack_holds(&w->stack, cfa, cfa + WORD);
}

MEMKIT__READS_ANYTHING bool memkit__step_by_pointer(memkit__walk *w)
{
    uintptr_t bp = w->bp;
    if (bp < w->sp || bp % WORD != 0 || bp + 2 * WORD < bp ||
        !memkit__stack_holds(&w->stack, bp, bp + 2 * WORD))
        return false;
    uintptr_t next = memkit__word(bp), pc = memkit__plain(memkit__word(bp + WORD));
    bool goes_on = next > bp && next % WORD == 0 && (!w->stack.firm || next < w->stack.hi);
    if (pc < 4096 || (!goes_on && memkit__module_at(pc - 1) == NULL))
        return false;
    w->pc = pc;
    w->bp = next;
    w->sp = bp + 2 * WORD;
    w->lr = 0;
    w->context = NULL;
    return true;
}
