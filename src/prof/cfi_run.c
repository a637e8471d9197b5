/* cfi_run.c - the two little languages of the unwind tables: instructions that change a row as the
 * pc goes on, and expressions that compute a value.
 *
 * - Instructions are run until the row is past the pc that is asked for. Each takes at least one
 *   byte, and an entry's bytes are bounded, so they end. Registers that no caller needs (vectors)
 *   are read over.
 * - An expression has a stack of STACK words and at most STEPS operations: branches go backward
 *   too. What it reads of memory and registers it asks of its world, which may not know.
 */
#include "prof/cfi.h"

#include "prof/unwind_impl.h"

#define REMEMBERED 8
#define STACK      16
#define STEPS      256

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

/* ---- expressions ---- */

typedef struct {
    memkit__cfi_bytes b;
    const uint8_t *begin;
    const memkit__cfi_world *world;
    uintptr_t stack[STACK];
    unsigned depth;
    bool bad;
} calc;

static void push(calc *e, uintptr_t value)
{
    if (e->depth == STACK)
        e->bad = true;
    else
        e->stack[e->depth++] = value;
}

static uintptr_t pop(calc *e)
{
    if (e->depth == 0) {
        e->bad = true;
        return 0;
    }
    return e->stack[--e->depth];
}

static void push_register(calc *e, unsigned reg, int64_t offset)
{
    uintptr_t value = 0;
    if (!e->world->reg(e->world->arg, reg, &value))
        e->bad = true;
    push(e, value + (uintptr_t)offset);
}

static void deref(calc *e, uint64_t bytes)
{
    uintptr_t value = 0, at = pop(e);
    if (e->bad || bytes == 0 || bytes > sizeof value ||
        !e->world->word(e->world->arg, at, (size_t)bytes, &value))
        e->bad = true;
    push(e, value);
}

static void pick(calc *e, uint64_t from_top)
{
    if (from_top >= e->depth)
        e->bad = true;
    else
        push(e, e->stack[e->depth - 1 - from_top]);
}

static void jump(calc *e)
{
    int16_t by = (int16_t)memkit__cfi_uint(&e->b, 2);
    if (by > e->b.end - e->b.p || by < e->begin - e->b.p)
        e->bad = true;
    else
        e->b.p += by;
}

/* Operators of two operands. False: not one of them. */
static bool two_operands(calc *e, uint8_t op)
{
    static const uint8_t known[] = {0x1a, 0x1c, 0x1e, 0x21, 0x22, 0x24, 0x25, 0x26,
                                    0x27, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e};
    bool is_known = false;
    for (size_t i = 0; i < sizeof known; i++)
        is_known |= known[i] == op;
    if (!is_known)
        return false;
    uintptr_t b = pop(e), a = pop(e);
    intptr_t sa = (intptr_t)a, sb = (intptr_t)b;
    switch (op) {
    case 0x1a:
        push(e, a & b);
        break;
    case 0x1c:
        push(e, a - b);
        break;
    case 0x1e:
        push(e, a * b);
        break;
    case 0x21:
        push(e, a | b);
        break;
    case 0x22:
        push(e, a + b);
        break;
    case 0x24:
        push(e, b < 64 ? a << b : 0);
        break;
    case 0x25:
        push(e, b < 64 ? a >> b : 0);
        break;
    case 0x26:
        push(e, (uintptr_t)(sa >> (b < 64 ? b : 63)));
        break;
    case 0x27:
        push(e, a ^ b);
        break;
    case 0x29:
        push(e, sa == sb);
        break;
    case 0x2a:
        push(e, sa >= sb);
        break;
    case 0x2b:
        push(e, sa > sb);
        break;
    case 0x2c:
        push(e, sa <= sb);
        break;
    case 0x2d:
        push(e, sa < sb);
        break;
    default:
        push(e, sa != sb);
    }
    return true;
}

/* DW_OP_const1u to DW_OP_consts. */
static void constant(calc *e, uint8_t op)
{
    if (op == 0x10 || op == 0x11) {
        push(e,
             op == 0x10 ? (uintptr_t)memkit__cfi_uleb(&e->b) : (uintptr_t)memkit__cfi_sleb(&e->b));
        return;
    }
    size_t bytes = (size_t)1 << ((op - 8) / 2);
    uint64_t value = memkit__cfi_uint(&e->b, bytes);
    if (op % 2 != 0 && bytes < 8 && value >> (8 * bytes - 1) != 0)
        value |= ~UINT64_C(0) << (8 * bytes);
    push(e, value);
}

static void rearrange(calc *e, uint8_t op)
{
    uintptr_t a = pop(e), b, c;
    switch (op) {
    case 0x13: /* drop */
        break;
    case 0x16: /* swap */
        b = pop(e);
        push(e, a);
        push(e, b);
        break;
    default: /* rot */
        b = pop(e);
        c = pop(e);
        push(e, a);
        push(e, c);
        push(e, b);
    }
}

static void other_operation(calc *e, uint8_t op)
{
    uintptr_t a;
    switch (op) {
    case 0x03: /* addr */
        push(e, memkit__cfi_uint(&e->b, sizeof(uintptr_t)));
        break;
    case 0x06:
        deref(e, sizeof(uintptr_t));
        break;
    case 0x94: /* deref_size */
        deref(e, memkit__cfi_uint(&e->b, 1));
        break;
    case 0x12: /* dup, over, pick */
    case 0x14:
        pick(e, op == 0x14);
        break;
    case 0x15:
        pick(e, memkit__cfi_uint(&e->b, 1));
        break;
    case 0x13:
    case 0x16:
    case 0x17:
        rearrange(e, op);
        break;
    case 0x19: /* abs */
        a = pop(e);
        push(e, (intptr_t)a < 0 ? 0 - a : a);
        break;
    case 0x1f: /* neg, not, plus_uconst */
        push(e, 0 - pop(e));
        break;
    case 0x20:
        push(e, ~pop(e));
        break;
    case 0x23:
        a = (uintptr_t)memkit__cfi_uleb(&e->b);
        push(e, pop(e) + a);
        break;
    case 0x28: /* bra, skip */
        if (pop(e) != 0)
            jump(e);
        else
            memkit__cfi_uint(&e->b, 2);
        break;
    case 0x2f:
        jump(e);
        break;
    case 0x92: /* bregx */
        a = (uintptr_t)memkit__cfi_uleb(&e->b);
        push_register(e, (unsigned)a, memkit__cfi_sleb(&e->b));
        break;
    case 0x96: /* nop */
        break;
    default:
        e->bad = true;
    }
}

bool memkit__cfi_eval(memkit__cfi_bytes b, bool push_first, uintptr_t first,
                      const memkit__cfi_world *w, uintptr_t *value)
{
    calc e = {.b = b, .begin = b.p, .world = w};
    if (push_first)
        push(&e, first);
    unsigned steps = 0;
    while (!e.bad && !e.b.bad && e.b.p < e.b.end) {
        if (++steps > STEPS)
            return false;
        uint8_t op = (uint8_t)memkit__cfi_uint(&e.b, 1);
        if (op >= 0x08 && op <= 0x11)
            constant(&e, op);
        else if (op >= 0x30 && op <= 0x4f) /* lit0.. */
            push(&e, (uintptr_t)(op - 0x30));
        else if (op >= 0x70 && op <= 0x8f) /* breg0.. */
            push_register(&e, op - 0x70u, memkit__cfi_sleb(&e.b));
        else if (!two_operands(&e, op))
            other_operation(&e, op);
    }
    *value = pop(&e);
    return !e.bad && !e.b.bad;
}
