/* cfi_eval.c - the expressions of the unwind tables, which compute a value.
 *
 * An expression has a stack of STACK words and at most STEPS operations: branches go backward too.
 * What it reads of memory and registers it asks of its world, which may not know.
 */
#include "prof/cfi.h"

#define STACK 16
#define STEPS 256

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
