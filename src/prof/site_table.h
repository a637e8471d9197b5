/* site_table.h - of site.c, what its owners alone need. */
#ifndef MEMKIT_PROF_SITE_TABLE_H
#define MEMKIT_PROF_SITE_TABLE_H

#include "prof/site.h"

#pragma GCC visibility push(hidden)

#define MEMKIT__SITE_PARTS 27 /* of the list: enough for any 32-bit id */

/* What the CPU profiler's sites have for sums. */
#define MEMKIT__CPU_SUMS_BYTES 64

/* In a fork's child: sites that a thread which is no more had not yet brought into the list. */
void memkit__sites_in_child(memkit__sites *t);

#pragma GCC visibility pop

#endif
