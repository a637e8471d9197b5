/* lone.h - our threads must not keep a process that its own threads have left: lone.c. */
#ifndef MEMKIT_PROF_LONE_H
#define MEMKIT_PROF_LONE_H

#pragma GCC visibility push(hidden)

/* Which of our threads the calling one is. */
enum { MEMKIT__LONE_DUMP, MEMKIT__LONE_LISTEN, MEMKIT__LONE_THREADS };
void memkit__lone_begin(unsigned which);

/* To be called by these about once a second: ends the process, as the end of its last thread would
 * have, where only ours are left. Some 10 us. */
void memkit__lone_check(void);

#pragma GCC visibility pop

#endif
