/* quiet.h - what a thread allocates between begin and end is the profiler's own: in no counter, in
 * no profile, and so is what it frees. Nests. For writing profiles, and for the listener's thread,
 * which is quiet for all its life. */
#ifndef MEMKIT_PROF_QUIET_H
#define MEMKIT_PROF_QUIET_H

void memkit__quiet_begin(void) __attribute__((visibility("hidden")));
void memkit__quiet_end(void) __attribute__((visibility("hidden")));

#endif
