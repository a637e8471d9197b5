/* unwind_rule.c - a row of the unwind tables as a rule of 30 bits, where it fits one: nearly all
 * do.
 *
 * Of 60,000 rows of Debian's libc and libcrypto those that do not fit are hand-written assembler
 * that calls nobody, and PLT stubs: no allocation comes through them, but a signal may stop there.
 */
#include "prof/cfi.h"
#include "prof/unwind_impl.h"

#define WORD ((int64_t)sizeof(uintptr_t))

/* An expression that is a register plus offset, then perhaps a deref. */
static bool is_register(memkit__cfi_bytes b, unsigned reg, bool deref, int64_t *offset)
{
    if (memkit__cfi_uint(&b, 1) != 0x70 + reg)
        return false;
    *offset = memkit__cfi_sleb(&b);
    if (deref && memkit__cfi_uint(&b, 1) != 0x06)
        return false;
    return !b.bad && b.p == b.end;
}

static bool fits(int64_t offset, int64_t most)
{
    return offset >= 0 && offset % WORD == 0 && offset / WORD <= most;
}

/* How many words below the CFA the frame pointer is saved; 0: it is not. -1: elsewhere. */
static int64_t saved_bp(const memkit__cfi_regs *r)
{
    int64_t below = -(int64_t)r->value[MEMKIT__CFI_BP];
    switch (r->how[MEMKIT__CFI_BP]) {
    case MEMKIT__CFI_SAME:
    case MEMKIT__CFI_UNDEFINED:
        return 0;
    case MEMKIT__CFI_OFFSET:
        return below > 0 && fits(below, 0x7ff) ? below / WORD : -1;
    default:
        return -1;
    }
}

/* GCC realigns a stack so: CFA is what lies just below the frame pointer, which is saved at itself.
 */
static uint32_t realigned(const memkit__module *m, const memkit__cfi_regs *r)
{
    int64_t cfa, bp;
    if (r->how[MEMKIT__CFI_BP] != MEMKIT__CFI_EXPR ||
        !is_register(memkit__cfi_expression(m, r->cfa_offset), MEMKIT__CFI_BP, true, &cfa) ||
        !is_register(memkit__cfi_expression(m, r->value[MEMKIT__CFI_BP]), MEMKIT__CFI_BP, false,
                     &bp) ||
        bp != 0 || !fits(-cfa, 0x7fff))
        return MEMKIT__LONG;
    return memkit__rule(MEMKIT__BY_SLOT, (uint32_t)(-cfa / WORD), 0);
}

#if defined(__x86_64__)

/* The return address is always the word below the CFA. */
static bool ra_is_usual(const memkit__cfi_row *row, int64_t bp)
{
    (void)bp;
    return row->regs.how[row->ra] == MEMKIT__CFI_OFFSET && row->regs.value[row->ra] == -WORD;
}

#else

/* Saved beside the frame pointer, just above it. */
static bool ra_is_usual(const memkit__cfi_row *row, int64_t bp)
{
    return row->regs.how[row->ra] == MEMKIT__CFI_OFFSET && bp > 1 &&
           row->regs.value[row->ra] == -(bp - 1) * WORD;
}

#endif

uint32_t memkit__rule_find(const memkit__module *m, uintptr_t pc)
{
    memkit__cfi_common common;
    common.m = NULL;
    return memkit__rule_find_by(&common, m, pc);
}

uint32_t memkit__rule_find_by(memkit__cfi_common *common, const memkit__module *m, uintptr_t pc)
{
    memkit__cfi_row row;
    if (!memkit__cfi_find_by(common, m, pc, &row))
        return MEMKIT__NO_RULE;
    const memkit__cfi_regs *r = &row.regs;
    if (row.signal)
        return MEMKIT__SIGNAL;
    if (r->how[row.ra] == MEMKIT__CFI_UNDEFINED)
        return MEMKIT__LAST;
    if (r->cfa_expr)
        return sizeof(uintptr_t) == 8 && MEMKIT__CFI_BP == 6 && ra_is_usual(&row, 0)
                   ? realigned(m, r)
                   : MEMKIT__LONG;
    int64_t bp = saved_bp(r);
    if (bp < 0 || !fits(r->cfa_offset, 0x7fff))
        return MEMKIT__LONG;
    unsigned kind = r->cfa_reg == MEMKIT__CFI_SP   ? MEMKIT__BY_SP
                    : r->cfa_reg == MEMKIT__CFI_BP ? MEMKIT__BY_BP
                                                   : MEMKIT__LONG;
    if (kind == MEMKIT__BY_SP && MEMKIT__CFI_BP == 29 && bp == 0) {
        int64_t below = r->how[row.ra] == MEMKIT__CFI_SAME ? 0 : -(int64_t)r->value[row.ra];
        if (below == 0 || (r->how[row.ra] == MEMKIT__CFI_OFFSET && below > 0 && fits(below, 0x7ff)))
            return memkit__rule(MEMKIT__BY_LINK, (uint32_t)(r->cfa_offset / WORD),
                                (uint32_t)(below / WORD));
    }
    if (kind == MEMKIT__LONG || !ra_is_usual(&row, bp))
        return MEMKIT__LONG;
    return memkit__rule(kind, (uint32_t)(r->cfa_offset / WORD), (uint32_t)bp);
}
