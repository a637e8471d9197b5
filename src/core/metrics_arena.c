/* metrics_arena.c - what a named arena publishes. */
#include <memkit/arena.h>

#include "core/arena.h"
#include "core/metrics.h"
#include "core/registry.h"

static uint64_t arena_used(const memkit__node *node)
{
    uint64_t used, held;
    memkit__arena_row(node, &used, &held);
    return used;
}

static uint64_t arena_held(const memkit__node *node)
{
    uint64_t used, held;
    memkit__arena_row(node, &used, &held);
    return held;
}

static const memkit__family list[] = {
    {"memkit_arena_used_bytes", "gauge", "Memory the arena gave out, as of its last chunk.",
     arena_used},
    {"memkit_arena_held_bytes", "gauge", "Memory the arena took from malloc, as of its last chunk.",
     arena_held},
};

const memkit__families memkit__arena_families = {
    .label = "arena", .list = list, .n = sizeof list / sizeof list[0]};
