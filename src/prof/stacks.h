/* stacks.h - the stacks of a profile as people look at them: named, frames of the allocator left
 * out, equal ones once, sorted root first. folded.c, flame.c and text.c begin with it.
 *
 *     sample: locations, leaf first         stack: labels, root first
 *     [malloc, read_all, main]         ->   [main, read_all]
 */
#ifndef MEMKIT_PROF_STACKS_H
#define MEMKIT_PROF_STACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "prof/profile.h"

#pragma GCC visibility push(hidden)

/* What a frame is called. Numbered in the order of the names, so comparing numbers is enough. */
typedef struct {
    const char *name;   /* never empty */
    const char *module; /* file name without directories, "" for none */
} memkit__label;

typedef struct {
    const uint32_t *labels; /* root first; the thread is the first where the profile tells them */
    uint32_t depth;         /* at least 1 */
    uint32_t first, count;  /* which of `order`: the samples that have this stack */
    int64_t value;          /* of `type`; as all sums here it stays at the most an int64_t holds */
} memkit__stack;

typedef struct {
    const memkit__profile *p;
    const memkit__label *labels;
    uint32_t n_labels;
    memkit__stack *stacks;
    uint32_t n_stacks;
    const uint32_t *order; /* indices of samples */
    int64_t total;
} memkit__stacks;

typedef enum {
    MEMKIT__BY_MODULE, /* functions of one name in two modules are two; samples all zero left out */
    MEMKIT__BY_NAME    /* names alone, made harmless for a line: no ';', no control characters;
                          stacks whose value is 0 left out */
} memkit__stacks_kind;

/* 0, or -1: ENOMEM; EINVAL: no such type, or samples that were not resolved. */
int memkit__stacks_make(memkit__stacks *out, const memkit__profile *p, uint32_t type,
                        memkit__stacks_kind kind, memkit__scratch *s);

/* Sum of one type over the samples of a stack. */
int64_t memkit__stack_sum(const memkit__stacks *k, const memkit__stack *stack, uint32_t type);

int64_t memkit__saturating_add(int64_t a, int64_t b);

/* Index of the type of that name; of the one that counts the objects of a type's bytes, or the
 * other way round. MEMKIT__NONE: there is none. */
uint32_t memkit__type_named(const memkit__profile *p, const char *name);
uint32_t memkit__type_pair(const memkit__profile *p, uint32_t type);

#pragma GCC visibility pop

#endif
