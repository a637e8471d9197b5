/* flame.h - the layout of a flame graph: a tree of frames, each as wide as its value.
 *
 *     stacks, sorted, root first            nodes, a parent before its children
 *     a;b;c 2                               all [0, 6)
 *     a;b   1                          ->     a [0, 5)
 *     a;d   2                                   b [0, 3)    (1 of it is its own)
 *     e     1                                     c [0, 2)
 *                                               d [3, 5)
 *                                             e [5, 6)
 *
 * Where a frame begins and ends is an integer, in the unit of the values. Its edges on paper are
 * computed from those alone, so that where one frame ends the next one begins, to the pixel.
 */
#ifndef MEMKIT_PROF_FLAME_H
#define MEMKIT_PROF_FLAME_H

#include "prof/stacks.h"

#pragma GCC visibility push(hidden)

typedef struct {
    uint32_t label;  /* of the stacks' labels; MEMKIT__NONE: the root, "all" */
    uint32_t depth;  /* the root's is 0 */
    uint32_t parent; /* index of a node; the root's own for the root */
    int64_t start, value;
    int64_t pair; /* the same of the other type, such as the objects of these bytes */
} memkit__flame_node;

typedef struct {
    memkit__flame_node *nodes;
    uint32_t n_nodes;
    uint32_t depth;    /* rows: the deepest node's depth + 1 */
    uint32_t left_out; /* stacks of a value below 0: they have no width */
} memkit__flame;

/* pair: a type, or MEMKIT__NONE. 0, or -1: ENOMEM. */
int memkit__flame_make(memkit__flame *f, const memkit__stacks *k, uint32_t pair,
                       memkit__scratch *s);

/* Where `at`, of [0, total], lies when the root is `units` wide, rounded. */
uint64_t memkit__flame_edge(const memkit__flame *f, int64_t at, uint64_t units);

#pragma GCC visibility pop

#endif
