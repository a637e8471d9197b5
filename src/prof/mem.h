/* mem.h - the profiler's own memory: mappings, never malloc.
 *
 * Kept memory is counted and bounded (max_bytes); scratch is what writing a profile takes and gives
 * back whole.
 */
#ifndef MEMKIT_PROF_MEM_H
#define MEMKIT_PROF_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* The bound until another is set, also for a CPU profile alone. */
#define MEMKIT__KEPT_LIMIT ((size_t)64 * 1024 * 1024)

/* Bound of the kept memory, bytes; lowering it below what is kept stops it from growing. */
void memkit__kept_limit(size_t max_bytes);
size_t memkit__kept_bound(void);
/* Bytes kept now, in whole pages. */
size_t memkit__kept_bytes(void);

/* A mapping of its own, zeroed. NULL: ENOMEM, also where the bound is reached. Any thread, inside
 * malloc too. */
void *memkit__kept_map(size_t bytes);
/* The same, but leaves a quarter of the bound: for what grows in leaps and can do with less. */
void *memkit__kept_map_spare(size_t bytes);
void memkit__kept_unmap(void *p, size_t bytes);

/* One thread at a time makes the kept memory grow: so who has to find out whether another has done
 * it meanwhile, maps, and makes known what it mapped, does so between these two. Waits for another
 * thread, though not for ever. False: went on without, as in a signal handler that came in between;
 * then leave is not called, and another may be as fast. */
bool memkit__kept_enter(void);
void memkit__kept_leave(void);

/* Around a fork: no other thread is in between then, so that the child's memory is what is counted.
 */
void memkit__kept_before_fork(void);
void memkit__kept_after_fork(void);
void memkit__kept_in_child(void);

/* A small piece, zeroed, aligned to 16, kept for good; carved from mappings without a lock. */
void *memkit__kept_alloc(size_t bytes);

/* Bump memory of one owner. {0} is an empty one. */
typedef struct memkit__scratch {
    struct memkit__scratch_chunk *newest;
    char *ptr, *end;
} memkit__scratch;

/* Zeroed, aligned to 16. NULL: ENOMEM. */
void *memkit__scratch_alloc(memkit__scratch *s, size_t bytes);
/* n objects of size bytes, overflow checked. */
void *memkit__scratch_array(memkit__scratch *s, size_t n, size_t size);
char *memkit__scratch_strndup(memkit__scratch *s, const char *text, size_t n);
void memkit__scratch_free(memkit__scratch *s);

#pragma GCC visibility pop

#endif
