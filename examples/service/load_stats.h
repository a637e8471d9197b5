/* load_stats.h - latency histogram of fixed size, log-linear as HdrHistogram's.
 *
 * Values are nanoseconds. 128 buckets to each power of two, so a bucket is at most 1/128 of its
 * value wide and its middle at most 0.4 % off; up to 255 ns every value has its own. The histogram
 * reaches 2^41 ns (36 minutes); what is longer lands in the last bucket and is exact in `max` only.
 */
#ifndef LOAD_STATS_H
#define LOAD_STATS_H

#include <stdint.h>

#define LOAD_HIST_SUB_BITS 7
#define LOAD_HIST_TOP_BITS 41
#define LOAD_HIST_BUCKETS                                                    \
    (((LOAD_HIST_TOP_BITS - LOAD_HIST_SUB_BITS - 1) << LOAD_HIST_SUB_BITS) + \
     (2 << LOAD_HIST_SUB_BITS))

typedef struct {
    uint64_t count;
    uint64_t min; /* exact; of no meaning while count is 0 */
    uint64_t max; /* exact */
    uint64_t bucket[LOAD_HIST_BUCKETS];
} load_hist;

void load_hist_reset(load_hist *h);
void load_hist_record(load_hist *h, uint64_t ns);

/* The smallest value that at least the share q (0..1) of the recorded ones do not exceed, within
 * 0.4 %; 0 when nothing was recorded. */
uint64_t load_hist_quantile(const load_hist *h, double q);

/* Adds all of `from` to h. */
void load_hist_merge(load_hist *h, const load_hist *from);

#endif
