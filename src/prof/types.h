/* types.h - what a heap profile counts for each stack: the sample types, in the profile's order.
 *
 * The first four are pprof's, with exact names and order. Objects are blocks, space is requested
 * bytes. All but inuse_* only grow. The names are short, as `go tool pprof` makes the name of the
 * file that it keeps of all of them together: with the program's that must be below 255 bytes.
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
    X(REALLOC_OBJECTS, "reallocs", "count", "allocations that were realloc of a block")           \
    X(FREED_OBJECTS, "frees", "count", "blocks freed")                                            \
    X(TEMPORARY_OBJECTS, "temporary_frees", "count",                                              \
      "blocks freed before the same thread's next allocation")                                    \
    X(FOREIGN_FREED_OBJECTS, "foreign_frees", "count", "blocks freed by another thread")          \
    X(LIFE_1US, "lt_1us", "count", "blocks that lived less than that")                            \
    X(LIFE_10US, "lt_10us", "count", "blocks that lived less than that")                          \
    X(LIFE_100US, "lt_100us", "count", "blocks that lived less than that")                        \
    X(LIFE_1MS, "lt_1ms", "count", "blocks that lived less than that")                            \
    X(LIFE_10MS, "lt_10ms", "count", "blocks that lived less than that")                          \
    X(LIFE_100MS, "lt_100ms", "count", "blocks that lived less than that")                        \
    X(LIFE_1S, "lt_1s", "count", "blocks that lived less than that")                              \
    X(LIFE_10S, "lt_10s", "count", "blocks that lived less than that")                            \
    X(LIFE_100S, "lt_100s", "count", "blocks that lived less than that")                          \
    X(LIFE_LONGER, "ge_100s", "count", "blocks that lived so long or longer")

#define MEMKIT__TYPE_NAME(name, ...) MEMKIT__##name,
enum { MEMKIT__HEAP_TYPES(MEMKIT__TYPE_NAME) MEMKIT__HEAP_TYPE_COUNT };
#undef MEMKIT__TYPE_NAME

#endif
