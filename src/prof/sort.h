/* sort.h - a stable merge sort of indices. qsort would take the memory from malloc, and equal rows
 * would lie as they happen to. */
#ifndef MEMKIT_PROF_SORT_H
#define MEMKIT_PROF_SORT_H

#include <stdint.h>
#include <string.h>

#include "prof/mem.h"

/* Below 0, 0, above 0, as strcmp. */
typedef int memkit__order_fn(const void *ctx, uint32_t a, uint32_t b);

static inline void memkit__sort_merge(const uint32_t *from, uint32_t *to, size_t left,
                                      size_t middle, size_t right, memkit__order_fn *order,
                                      const void *ctx)
{
    size_t a = left, b = middle;
    for (size_t i = left; i < right; i++)
        to[i] =
            a < middle && (b >= right || order(ctx, from[a], from[b]) <= 0) ? from[a++] : from[b++];
}

/* Sorts the n indices. 0, or -1: ENOMEM. */
static inline int memkit__sort(uint32_t *index, size_t n, memkit__order_fn *order, const void *ctx,
                               memkit__scratch *s)
{
    uint32_t *other = memkit__scratch_array(s, n, sizeof *other);
    if (other == NULL)
        return -1;
    uint32_t *from = index, *to = other;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t left = 0; left < n; left += 2 * run) {
            size_t middle = left + run < n ? left + run : n;
            size_t right = middle + run < n ? middle + run : n;
            memkit__sort_merge(from, to, left, middle, right, order, ctx);
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != index)
        memcpy(index, from, n * sizeof *index);
    return 0;
}

#endif
