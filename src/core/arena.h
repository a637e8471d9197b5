/* arena.h - what the metrics and the attach table read of a named arena. */
#ifndef MEMKIT_CORE_ARENA_H
#define MEMKIT_CORE_ARENA_H

#include <stdint.h>

#include "core/registry.h"

#include <memkit/arena.h>

/* Figures of the last chunk taken or given back; the owner may be at work meanwhile. */
void memkit__arena_row(const memkit__node *node, uint64_t *live_bytes, uint64_t *held_bytes);

/* NULL when the arena's invariants hold, else what is broken. For tests. O(chunks + defers). */
const char *memkit__arena_check(const memkit_arena *a);

#endif
