/* test_arena.h - what the tests of the arena share. */
#ifndef TEST_ARENA_H
#define TEST_ARENA_H

#include "support.h"

#include "core/arena.h"
#include "core/track.h"

/* Where a tool looks on, so much lies between two blocks. */
enum { GAP = MEMKIT__TRACKED ? 16 : 0 };

__attribute__((unused)) static void *check(memkit_arena *a, void *p)
{
    const char *broken = memkit__arena_check(a);
    if (broken != NULL)
        fail_msg("%s", broken);
    return p;
}

__attribute__((unused)) static uint64_t held(const memkit_arena *a)
{
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    return s.held_bytes;
}

__attribute__((unused)) static uint64_t used(const memkit_arena *a)
{
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    return s.used_bytes;
}

/* A defer. */
__attribute__((unused)) static void nothing(void *arg)
{
    (void)arg;
}

#endif
