/* load_stats.c - see load_stats.h.
 *
 * The index of a value v >= 256 is made of the position of its highest bit and of the 7 bits below
 * it:
 *
 *     v = 1 m m m m m m m r r r r     shift s = number of r bits
 *         \_____________/             v >> s lies in [128, 256)
 *     index = s * 128 + (v >> s)      continues v < 256 (s = 0) without a gap
 */
#include "load_stats.h"

#include <math.h>
#include <string.h>

#define SUB ((uint64_t)1 << LOAD_HIST_SUB_BITS)

static unsigned index_of(uint64_t v)
{
    if (v < 2 * SUB)
        return (unsigned)v;
    unsigned s = 63u - (unsigned)__builtin_clzll(v) - LOAD_HIST_SUB_BITS;
    uint64_t i = s * SUB + (v >> s);
    return i < LOAD_HIST_BUCKETS ? (unsigned)i : LOAD_HIST_BUCKETS - 1;
}

/* The middle of a bucket. */
static uint64_t value_of(unsigned i)
{
    if (i < 2 * SUB)
        return i;
    unsigned s = i / (unsigned)SUB - 1;
    uint64_t low = (i - s * SUB) << s;
    return low + (((uint64_t)1 << s) >> 1);
}

void load_hist_reset(load_hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void load_hist_record(load_hist *h, uint64_t ns)
{
    h->count++;
    h->bucket[index_of(ns)]++;
    if (ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
}

uint64_t load_hist_quantile(const load_hist *h, double q)
{
    if (h->count == 0)
        return 0;
    /* The epsilon keeps 0.99 * 100, which is 99.00000000000001 or so, at rank 99. */
    double want = ceil(q * (double)h->count - 1e-9 * (double)h->count);
    uint64_t rank = want < 1 ? 1 : (uint64_t)want;
    if (rank >= h->count)
        return h->max;
    uint64_t seen = 0;
    for (unsigned i = 0; i < LOAD_HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank) {
            /* The first and last buckets' middles may lie outside of what was recorded. */
            uint64_t v = i == LOAD_HIST_BUCKETS - 1 ? h->max : value_of(i);
            return v < h->min ? h->min : v > h->max ? h->max : v;
        }
    }
    return h->max;
}

void load_hist_merge(load_hist *h, const load_hist *from)
{
    h->count += from->count;
    if (from->min < h->min)
        h->min = from->min;
    if (from->max > h->max)
        h->max = from->max;
    for (unsigned i = 0; i < LOAD_HIST_BUCKETS; i++)
        h->bucket[i] += from->bucket[i];
}
