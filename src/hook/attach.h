/* attach.h - inside libmemkit-prof: the cores that attached, and whether malloc is ours. The
 * exported side is core/attach.h. */
#ifndef MEMKIT_HOOK_ATTACH_H
#define MEMKIT_HOOK_ATTACH_H

#include "core/attach.h"

#pragma GCC visibility push(hidden)

/* Calls fn for each object of each attached core; fn may not call memkit. */
void memkit__each_attached(void (*fn)(void *arg, const memkit__object_row *row), void *arg);

/* Calls fn for each figure of each attached core's objects; core is 0 for the first of them, and
 * another number for each other: fn may not call memkit. */
void memkit__each_core_metric(void (*fn)(void *arg, unsigned core, const memkit__metric *m),
                              void *arg);

/* Tells each attached core of the epoch of takes. */
void memkit__tell_of_takes(uint32_t epoch);

/* 1 when calls of malloc reach the hook. */
int memkit__hooked(void);

#pragma GCC visibility pop

#endif
