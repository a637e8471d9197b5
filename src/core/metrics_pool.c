/* metrics_pool.c - what a pool publishes. */
#include <memkit/pool.h>

#include "core/metrics.h"
#include "core/registry.h"

#define VALUE(member)                                       \
    static uint64_t pool_##member(const memkit__node *node) \
    {                                                       \
        memkit_pool_stats_t s;                              \
        memkit_pool_stats(node->object, &s);                \
        return s.member;                                    \
    }

VALUE(gets)
VALUE(hits)
VALUE(puts)
VALUE(live_buffers)
VALUE(live_bytes)
VALUE(held_buffers)
VALUE(held_bytes)
VALUE(peak_held_bytes)
VALUE(trimmed_bytes)
VALUE(calibrated_size)

static const memkit__family list[] = {
    {"memkit_pool_gets_total", "counter", "Buffers taken from the pool.", pool_gets},
    {"memkit_pool_hits_total", "counter", "Buffers taken from the pool without malloc.", pool_hits},
    {"memkit_pool_puts_total", "counter", "Buffers given back to the pool.", pool_puts},
    {"memkit_pool_live_buffers", "gauge", "Buffers taken and not given back.", pool_live_buffers},
    {"memkit_pool_live_bytes", "gauge", "Room in the buffers taken and not given back.",
     pool_live_bytes},
    {"memkit_pool_held_buffers", "gauge", "Buffers waiting in the pool.", pool_held_buffers},
    {"memkit_pool_held_bytes", "gauge", "Room in the buffers waiting in the pool.",
     pool_held_bytes},
    {"memkit_pool_held_peak_bytes", "gauge", "Most room that was reserved for waiting buffers.",
     pool_peak_held_bytes},
    {"memkit_pool_trimmed_bytes_total", "counter", "Room of waiting buffers given back to malloc.",
     pool_trimmed_bytes},
    {"memkit_pool_calibrated_bytes", "gauge", "Size of the buffer that a get without a hint gives.",
     pool_calibrated_size},
};

const memkit__families memkit__pool_families = {
    .label = "pool", .list = list, .n = sizeof list / sizeof list[0]};
