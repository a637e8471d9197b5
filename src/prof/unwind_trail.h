/* unwind_trail.h - stacks that a thread was at before, known again without a walk: unwind_trail.c.
 */
#ifndef MEMKIT_PROF_UNWIND_TRAIL_H
#define MEMKIT_PROF_UNWIND_TRAIL_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

/* What one thread knows, of one owner at a time; handlers may come in between. */
typedef struct memkit__trails memkit__trails;

/* Kept memory (mem.h), 2 MiB. NULL: no room. */
memkit__trails *memkit__trails_new(void);

/* What was noted of the stack that the caller of this function is at; NULL: it is not known, and
 * memkit__trail_note must follow, by the same function, before the next find. */
void *memkit__trail_find(memkit__trails *t);

/* Remembers `what` for the stack of the find before; NULL: does not. It may have too many words, or
 * frames that more than sp and bp are needed for: then nothing is remembered. */
void memkit__trail_note(memkit__trails *t, void *what);

#pragma GCC visibility pop

#endif
