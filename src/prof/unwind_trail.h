/* unwind_trail.h - stacks that a thread was at before, known again without a walk: unwind_trail.c.
 */
#ifndef MEMKIT_PROF_UNWIND_TRAIL_H
#define MEMKIT_PROF_UNWIND_TRAIL_H

#include <stdint.h>

#pragma GCC visibility push(hidden)

/* What one thread knows, of one owner at a time; handlers may come in between. */
typedef struct memkit__trails memkit__trails;

/* Where a find looked, for the note that may follow it in the same function; sp 0: none may. */
typedef struct {
    uintptr_t sp, pc, bp;
} memkit__trail_asked;

/* Kept memory (mem.h), 2 MiB; all threads' together at most an eighth of its bound. NULL: no room.
 */
memkit__trails *memkit__trails_new(void);

/* What was noted of the stack that the caller of this function is at; NULL: it is not known, and
 * *asked says where it looked. */
void *memkit__trail_find(memkit__trails *t, memkit__trail_asked *asked);

/* Remembers `what`, not NULL, for the stack of that find. It may have too many words, or frames
 * that more than sp and bp are needed for: then nothing is remembered. */
void memkit__trail_note(memkit__trails *t, const memkit__trail_asked *asked, void *what);

#pragma GCC visibility pop

#endif
