/* env.h - the profiler's start from the environment, and its profiles at the end and on a signal.
 */
#ifndef MEMKIT_PROF_ENV_H
#define MEMKIT_PROF_ENV_H

#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

/* Does what the variables ask for; from the library's constructor, once. env.c */
void memkit__env_start(void);

/* "512", "512KiB", "1M": bytes from 1 on, in units of 1024. False: it is no such text. */
bool memkit__env_bytes(const char *text, size_t *out);
/* "SIGUSR2", "usr2", "12", "RTMIN+3"; 0: no signal's name, or one that cannot be had. */
int memkit__env_signal(const char *text);

/* From now on a heap profile comes into `dir` at exit. False, and it was said why: there is no such
 * directory. dump.c */
bool memkit__dump_into(const char *dir);
/* And whenever the signal comes. False, and it was said why. dump_signal.c */
bool memkit__dump_on(int sig, const char *said);
/* Writes one now. Any thread; not in a signal handler. */
void memkit__dump(void);
/* In the child of a fork: whoever wrote one in the parent is not here. */
void memkit__dump_in_child(void);

#pragma GCC visibility pop

#endif
