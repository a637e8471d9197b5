/* report.h - MEMKIT_STATS: a table at the end of the process. */
#ifndef MEMKIT_HOOK_REPORT_H
#define MEMKIT_HOOK_REPORT_H

#include "core/attach.h"

#pragma GCC visibility push(hidden)

/* Keeps a row for the table; for a core that is about to leave. */
void memkit__report_keep(void *unused, const memkit__object_row *row);

/* Keeps the standard error of the start, for what is said at the end: many programs close theirs
 * before. */
void memkit__keep_stderr(void);

/* To standard error, at most 511 bytes, without allocating. Nowhere, where it was kept and then
 * closed under both numbers. */
__attribute__((format(printf, 1, 2))) void memkit__complain(const char *fmt, ...);

/* Whether there will be a table. */
int memkit__report_wanted(void);

#pragma GCC visibility pop

#endif
