/* cfi_run.c - the instructions of the unwind tables, which change a row as the pc goes on.
 *
 * - Instructions are run until the row is past the pc that is asked for. Each takes at least one
 *   byte, and an entry's bytes are bounded, so they end. Registers that no caller needs (vectors)
 *   are read over.
 */
#include "prof/cfi.h"

#include "prof/unwind_impl.h"

#define REMEMBERED 8

typedef struct {
    memkit__cfi_machine *c;
    memkit__cfi_bytes b;
    const memkit__cfi_regs *first;
    memkit__cfi_regs *regs;
    unsigned remembered;
    memkit__cfi_regs kept[REMEMBERED];
} run;

static void set(run *r, uint64_t reg, unsigned how, int64_t value)
{
    if (reg >= MEMKIT__CFI_REGS)
        return;
    if (value < INT32_MIN || value > INT32_MAX) {
        r->b.bad = true;
        return;
    }
    r->regs->how[reg] = (uint8_t)how;
    r->regs->value[reg] = (int32_t)value;
}

static int64_t scaled(run *r, int64_t n)
{
    int64_t product;
    if (__builtin_mul_overflow(n, r->c->data_align, &product))
        r->b.bad = true;
    return r->b.bad ? 0 : product;
}

static void set_cfa(run *r, uint64_t reg, int64_t offset)
{
    if (reg > UINT16_MAX || offset < INT32_MIN || offset > INT32_MAX) {
        r->b.bad = true;
        return;
    }
    r->regs->cfa_expr = false;
    r->regs->cfa_reg = (uint16_t)reg;
    r->regs->cfa_offset = (int32_t)offset;
}

/* Steps over an expression; where it is, from the start of the tables. */
static int64_t skip_expression(run *r)
{
    int64_t where = r->b.p - (const uint8_t *)r->c->m->tables_start;
    uint64_t bytes = memkit__cfi_uleb(&r->b);
    if (bytes > (uint64_t)(r->b.end - r->b.p))
        r->b.bad = true;
    else
        r->b.p += bytes;
    return where;
}

static void restore(run *r, uint64_t reg)
{
    if (r->first == NULL)
        r->b.bad = true;
    else if (reg < MEMKIT__CFI_REGS)
        set(r, reg, r->first->how[reg], r->first->value[reg]);
}

static void advance(run *r, uint64_t delta)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(delta, r->c->code_align, &bytes) ||
        __builtin_add_overflow(r->c->at, bytes, &r->c->at))
        r->b.bad = true;
}

static void remember(run *r)
{
    if (r->remembered == REMEMBERED)
        r->b.bad = true;
    else
        r->kept[r->remembered++] = *r->regs;
}

static void restore_state(run *r)
{
    if (r->remembered == 0)
        r->b.bad = true;
    else
        *r->regs = r->kept[--r->remembered];
}

/* Instructions that begin with a register: DW_CFA_offset_extended and so on. */
static bool names_register(uint8_t op)
{
    return (op >= 0x05 && op <= 0x09) || op == 0x10 || op == 0x11 || (op >= 0x14 && op <= 0x16) ||
           op == 0x2f;
}

static void run_register(run *r, uint8_t op)
{
    memkit__cfi_bytes *b = &r->b;
    uint64_t reg = memkit__cfi_uleb(b);
    switch (op) {
    case 0x05: /* offset_extended */
        set(r, reg, MEMKIT__CFI_OFFSET, scaled(r, (int64_t)memkit__cfi_uleb(b)));
        break;
    case 0x06: /* restore_extended */
        restore(r, reg);
        break;
    case 0x07: /* undefined */
        set(r, reg, MEMKIT__CFI_UNDEFINED, 0);
        break;
    case 0x08: /* same_value */
        set(r, reg, MEMKIT__CFI_SAME, 0);
        break;
    case 0x09: /* register */
        set(r, reg, MEMKIT__CFI_REGISTER, (int64_t)(memkit__cfi_uleb(b) & INT32_MAX));
        break;
    case 0x10: /* expression */
        set(r, reg, MEMKIT__CFI_EXPR, skip_expression(r));
        break;
    case 0x16: /* val_expression */
        set(r, reg, MEMKIT__CFI_VAL_EXPR, skip_expression(r));
        break;
    case 0x11: /* offset_extended_sf */
        set(r, reg, MEMKIT__CFI_OFFSET, scaled(r, memkit__cfi_sleb(b)));
        break;
    case 0x14: /* val_offset */
        set(r, reg, MEMKIT__CFI_VAL_OFFSET, scaled(r, (int64_t)memkit__cfi_uleb(b)));
        break;
    case 0x15: /* val_offset_sf */
        set(r, reg, MEMKIT__CFI_VAL_OFFSET, scaled(r, memkit__cfi_sleb(b)));
        break;
    default: /* 0x2f, GNU_negative_offset_extended */
        set(r, reg, MEMKIT__CFI_OFFSET, scaled(r, -(int64_t)(memkit__cfi_uleb(b) & INT32_MAX)));
    }
}

static void run_other(run *r, uint8_t op)
{
    memkit__cfi_bytes *b = &r->b;
    uint64_t reg;
    switch (op) {
    case 0x00: /* nop */
        break;
    case 0x01: /* set_loc */
        r->c->at = memkit__cfi_pointer(b, r->c->encoding, r->c->m->eh_frame_hdr);
        break;
    case 0x02: /* advance_loc1, 2, 4 */
    case 0x03:
    case 0x04:
        advance(r, memkit__cfi_uint(b, (size_t)1 << (op - 2)));
        break;
    case 0x0a:
        remember(r);
        break;
    case 0x0b:
        restore_state(r);
        break;
    case 0x0c: /* def_cfa */
        reg = memkit__cfi_uleb(b);
        set_cfa(r, reg, (int64_t)memkit__cfi_uleb(b));
        break;
    case 0x0d: /* def_cfa_register */
        set_cfa(r, memkit__cfi_uleb(b), r->regs->cfa_offset);
        break;
    case 0x0e: /* def_cfa_offset */
        set_cfa(r, r->regs->cfa_reg, (int64_t)memkit__cfi_uleb(b));
        break;
    case 0x0f: /* def_cfa_expression */
        set_cfa(r, 0, skip_expression(r));
        r->regs->cfa_expr = true;
        break;
    case 0x12: /* def_cfa_sf */
        reg = memkit__cfi_uleb(b);
        set_cfa(r, reg, scaled(r, memkit__cfi_sleb(b)));
        break;
    case 0x13: /* def_cfa_offset_sf */
        set_cfa(r, r->regs->cfa_reg, scaled(r, memkit__cfi_sleb(b)));
        break;
#if defined(__aarch64__)
    case 0x2d: /* AARCH64_negate_ra_state */
        r->regs->ra_signed = !r->regs->ra_signed;
        break;
#endif
    case 0x2e: /* GNU_args_size */
        memkit__cfi_uleb(b);
        break;
    default:
        b->bad = true;
    }
}

bool memkit__cfi_run(memkit__cfi_machine *c, memkit__cfi_bytes b, const memkit__cfi_regs *first,
                     memkit__cfi_regs *regs)
{
    run r;
    r.c = c;
    r.b = b;
    r.first = first;
    r.regs = regs;
    r.remembered = 0;
    while (!r.b.bad && r.b.p < r.b.end && c->at <= c->pc) {
        uint8_t op = (uint8_t)memkit__cfi_uint(&r.b, 1);
        uint8_t low = op & 0x3f;
        switch (op >> 6) {
        case 1: /* advance_loc */
            advance(&r, low);
            break;
        case 2: /* offset */
            set(&r, low, MEMKIT__CFI_OFFSET, scaled(&r, (int64_t)memkit__cfi_uleb(&r.b)));
            break;
        case 3: /* restore */
            restore(&r, low);
            break;
        default:
            if (names_register(op))
                run_register(&r, op);
            else
                run_other(&r, op);
        }
    }
    return !r.b.bad;
}
