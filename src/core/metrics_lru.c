/* metrics_lru.c - what a cache publishes. */
#include <memkit/lru.h>

#include "core/metrics.h"
#include "core/registry.h"

#define VALUE(member)                                      \
    static uint64_t lru_##member(const memkit__node *node) \
    {                                                      \
        memkit_lru_stats_t s;                              \
        memkit_lru_stats(node->object, &s);                \
        return s.member;                                   \
    }

VALUE(entries)
VALUE(bytes)
VALUE(pinned_bytes)
VALUE(hits)
VALUE(misses)
VALUE(sets)
VALUE(evictions)
VALUE(expirations)
VALUE(max_entries)
VALUE(max_bytes)

static const memkit__family list[] = {
    {"memkit_lru_entries", "gauge", "Entries in the cache.", lru_entries},
    {"memkit_lru_bytes", "gauge", "Memory held for entries, overhead included.", lru_bytes},
    {"memkit_lru_pinned_bytes", "gauge", "Memory held for entries that are referenced.",
     lru_pinned_bytes},
    {"memkit_lru_hits_total", "counter", "Look-ups that found an entry.", lru_hits},
    {"memkit_lru_misses_total", "counter", "Look-ups that found none.", lru_misses},
    {"memkit_lru_sets_total", "counter", "Entries stored.", lru_sets},
    {"memkit_lru_evictions_total", "counter", "Entries evicted for room.", lru_evictions},
    {"memkit_lru_expirations_total", "counter", "Entries that grew too old.", lru_expirations},
    {"memkit_lru_max_entries", "gauge", "Bound on entries: 0 for none.", lru_max_entries},
    {"memkit_lru_max_bytes", "gauge", "Bound on bytes: 0 for none.", lru_max_bytes},
};

const memkit__families memkit__lru_families = {
    .label = "cache", .list = list, .n = sizeof list / sizeof list[0]};
