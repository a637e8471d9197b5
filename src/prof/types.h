/* types.h - what a heap profile counts for each stack: the sample types, in the profile's order.
 *
 * The first four are pprof's, with exact names and order. Objects are blocks, space is requested
 * bytes. All but inuse_* only grow.
 */
#ifndef MEMKIT_PROF_TYPES_H
#define MEMKIT_PROF_TYPES_H

/* X(NAME, "type", "unit", "what it means") */
#define MEMKIT__HEAP_TYPES(X)                                                                     \
    X(ALLOC_OBJECTS, "alloc_objects", "count", "allocations")                                     \
    X(ALLOC_SPACE, "alloc_space", "bytes", "bytes asked for")                                     \
    X(INUSE_OBJECTS, "inuse_objects", "count", "blocks, and objects of memkit's, not given back") \
    X(INUSE_SPACE, "inuse_space", "bytes", "bytes not given back")                                \
    X(TAKE_OBJECTS, "take_objects", "count", "objects taken from pools, caches and arenas")       \
    X(TAKE_SPACE, "take_space", "bytes", "bytes of them")                                         \
    X(REALLOC_OBJECTS, "realloc_objects", "count", "allocations that were realloc of a block")    \
    X(FREED_OBJECTS, "freed_objects", "count", "blocks freed")                                    \
    X(TEMPORARY_OBJECTS, "temporary_objects", "count",                                            \
      "blocks freed before the same thread's next allocation")                                    \
    X(FOREIGN_FREED_OBJECTS, "foreign_freed_objects", "count", "blocks freed by another thread")  \
    X(LIFE_1US, "lifetime_under_1us", "count", "blocks that lived so long")                       \
    X(LIFE_10US, "lifetime_under_10us", "count", "blocks that lived so long")                     \
    X(LIFE_100US, "lifetime_under_100us", "count", "blocks that lived so long")                   \
    X(LIFE_1MS, "lifetime_under_1ms", "count", "blocks that lived so long")                       \
    X(LIFE_10MS, "lifetime_under_10ms", "count", "blocks that lived so long")                     \
    X(LIFE_100MS, "lifetime_under_100ms", "count", "blocks that lived so long")                   \
    X(LIFE_1S, "lifetime_under_1s", "count", "blocks that lived so long")                         \
    X(LIFE_10S, "lifetime_under_10s", "count", "blocks that lived so long")                       \
    X(LIFE_100S, "lifetime_under_100s", "count", "blocks that lived so long")                     \
    X(LIFE_LONGER, "lifetime_100s_or_more", "count", "blocks that lived so long")

#define MEMKIT__TYPE_NAME(name, ...) MEMKIT__##name,
enum { MEMKIT__HEAP_TYPES(MEMKIT__TYPE_NAME) MEMKIT__HEAP_TYPE_COUNT };
#undef MEMKIT__TYPE_NAME

#endif
