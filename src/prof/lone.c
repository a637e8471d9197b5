/* lone.c - our threads must not keep a process that its own threads have left.
 *
 * A process ends with its last thread: where main calls pthread_exit, with the last of the others.
 * A thread of ours that waits for a signal or a request would keep it for good, and as it takes no
 * signals not even SIGTERM would end it. So it looks now and then: once the first thread has ended
 * (/proc/self/stat says Z) and all others are ours, it calls exit(0), as the last one would have.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/lone.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long ours[MEMKIT__LONE_THREADS]; /* thread ids; 0: there is none */

void memkit__lone_begin(unsigned which)
{
    atomic_store(&ours[which], syscall(SYS_gettid));
}

static bool first_has_ended(void)
{
    char text[256]; /* "pid (name of at most 15) S ..." */
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' && end[2] == 'Z';
}

static bool is_ours(long tid)
{
    for (unsigned i = 0; i < MEMKIT__LONE_THREADS; i++)
        if (atomic_load(&ours[i]) == tid)
            return true;
    return false;
}

static bool others_are_left(void)
{
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL)
        return true;
    bool others = false;
    const long first = getpid();
    for (struct dirent *e; !others && (e = readdir(tasks)) != NULL;) {
        long tid = strtol(e->d_name, NULL, 10);
        others = tid > 0 && tid != first && !is_ours(tid);
    }
    closedir(tasks);
    return others;
}

void memkit__lone_check(void)
{
    if (first_has_ended() && !others_are_left())
        exit(0);
}
