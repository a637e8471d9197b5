/* heap.h - what the other parts of the profiler ask of the heap profiler. */
#ifndef MEMKIT_PROF_HEAP_H
#define MEMKIT_PROF_HEAP_H

#include "prof/profile.h"
#include "prof/types.h"

#pragma GCC visibility push(hidden)

/* The heap profile as data, since `since` or in all: samples with frames, types, comments, period;
 * not yet resolved. NULL: ENOMEM, ENODATA. The caller's thread is quiet. */
memkit__profile *memkit__heap_profile(memkit_prof_kind kind, const memkit_prof_snap *since,
                                      memkit__scratch *s);

/* The CPU profile as data (cpu.c). */
memkit__profile *memkit__cpu_profile(memkit__scratch *s);

/* memkit_prof_write with a sample type by name ("inuse_space"); NULL: the default of the kind.
 * EINVAL: there is no such type. */
int memkit__prof_write_type(memkit_buf *out, memkit_prof_kind kind, memkit_prof_format fmt,
                            const memkit_prof_snap *since, const char *type);

#pragma GCC visibility pop

#endif
