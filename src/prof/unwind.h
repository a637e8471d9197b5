/* unwind.h - the stack of the calling thread, through code of any build.
 *
 * No malloc, no lock, no dl_iterate_phdr; never faults, whatever the stack holds. May be called
 * inside malloc and from a signal handler.
 */
#ifndef MEMKIT_PROF_UNWIND_H
#define MEMKIT_PROF_UNWIND_H

#include <stdbool.h>

#include "prof/frame.h"

#pragma GCC visibility push(hidden)

/* Fills frames (see frame.h), innermost first, and returns how many; frames[0] is where the caller
 * of this function goes on. At most max; *cut is true where the stack goes on beyond that. */
unsigned memkit__unwind_here(uint64_t *frames, unsigned max, bool *cut);

/* The same from a signal handler's ucontext_t: frames[0] is the interrupted pc + 1. */
unsigned memkit__unwind_context(const void *ucontext, uint64_t *frames, unsigned max, bool *cut);

/* Makes what memkit__unwind needs, outside of malloc: maps the rule cache, notes what is loaded.
 * 0, or -1: ENOMEM. More calls do nothing. */
int memkit__unwind_prepare(void);

#pragma GCC visibility pop

#endif
