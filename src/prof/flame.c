/* flame.c - the layout of a flame graph, from sorted stacks in one pass.
 *
 * `open` is the path from the root to the frame the last stack ended in. A stack shares some first
 * frames with it, which grow; the others are new nodes, beginning where the stack before ended.
 */
#include "prof/flame.h"

static uint32_t add_node(memkit__flame *f, uint32_t label, uint32_t parent, int64_t start)
{
    uint32_t depth = f->n_nodes == 0 ? 0 : f->nodes[parent].depth + 1;
    f->nodes[f->n_nodes] =
        (memkit__flame_node){.label = label, .depth = depth, .parent = parent, .start = start};
    if (depth + 1 > f->depth)
        f->depth = depth + 1;
    return f->n_nodes++;
}

static void grow(memkit__flame_node *node, int64_t value, int64_t pair)
{
    node->value = memkit__saturating_add(node->value, value);
    node->pair = memkit__saturating_add(node->pair, pair);
}

static void add_stack(memkit__flame *f, uint32_t *open, uint32_t *n_open,
                      const memkit__stack *stack, int64_t pair)
{
    int64_t start = f->nodes[0].value;
    uint32_t shared = 0;
    while (shared < stack->depth && shared + 1 < *n_open &&
           f->nodes[open[shared + 1]].label == stack->labels[shared])
        shared++;
    for (uint32_t i = shared; i < stack->depth; i++)
        open[i + 1] = add_node(f, stack->labels[i], open[i], start);
    *n_open = stack->depth + 1;
    for (uint32_t i = 0; i < *n_open; i++)
        grow(&f->nodes[open[i]], stack->value, pair);
}

int memkit__flame_make(memkit__flame *f, const memkit__stacks *k, uint32_t pair, memkit__scratch *s)
{
    size_t most = 1;
    uint32_t deepest = 0, n_open = 1;
    *f = (memkit__flame){0};
    for (uint32_t i = 0; i < k->n_stacks; i++) {
        most += k->stacks[i].depth;
        deepest = k->stacks[i].depth > deepest ? k->stacks[i].depth : deepest;
    }
    f->nodes = memkit__scratch_array(s, most, sizeof *f->nodes);
    uint32_t *open = memkit__scratch_array(s, (size_t)deepest + 1, sizeof *open);
    if (f->nodes == NULL || open == NULL)
        return -1;
    open[0] = add_node(f, MEMKIT__NONE, 0, 0);
    for (uint32_t i = 0; i < k->n_stacks; i++) {
        const memkit__stack *stack = &k->stacks[i];
        f->left_out += stack->value < 0;
        if (stack->value > 0)
            add_stack(f, open, &n_open, stack,
                      pair != MEMKIT__NONE ? memkit__stack_sum(k, stack, pair) : 0);
    }
    return 0;
}

uint64_t memkit__flame_edge(const memkit__flame *f, int64_t at, uint64_t units)
{
    if (f->nodes[0].value <= 0)
        return 0;
    uint64_t total = (uint64_t)f->nodes[0].value;
    __extension__ unsigned __int128 wide = (uint64_t)at;
    return (uint64_t)((wide * units + total / 2) / total);
}
