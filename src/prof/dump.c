/* dump.c - MEMKIT_DUMP: heap profiles as files, heap_<pid>_<n>.pb.gz, at exit and when asked.
 *
 *     .heap_<pid>_<n>.tmp --write, fsync--> --rename, not over another--> heap_<pid>_<n>.pb.gz
 *
 * - Under its name there is never half a profile, and never one in the place of another: n goes on
 *   to the next that is free. What cannot be written is said in one line, and leaves nothing.
 * - One mutex, for one profile at a time; the exit waits for one that a signal asked for. In the
 *   child of a fork it is a new one: the parent's may be held by a thread that is not here.
 * - At exit means that the process returns from main or calls exit; not after _exit, abort, or a
 *   signal. A child of a fork writes its own, under its own pid, from 1 on.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memkit/prof.h>

#include "hook/report.h"
#include "prof/env.h"
#include "prof/quiet.h"

#define PATH_ROOM 4096
#define NAME_ROOM 64
#define TRIES     1000000u

static char directory[PATH_ROOM]; /* absolute: the program may change its own; "": no profiles */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t writer;     /* whose numbers they are */
static unsigned written; /* the last number that was taken */

static void say(const char *what)
{
    memkit__complain("memkit: MEMKIT_DUMP=%.200s: %.100s: %s\n", directory, what, strerror(errno));
}

bool memkit__dump_into(const char *dir)
{
    size_t at = 0;
    struct stat st = {0};
    memkit__keep_stderr();
    if (dir[0] != '/' && getcwd(directory, sizeof directory) != NULL) {
        at = strlen(directory);
        directory[at++] = '/';
    }
    if (strlen(dir) + NAME_ROOM >= sizeof directory - at) {
        memkit__complain("memkit: MEMKIT_DUMP: the directory's name is too long\n");
        directory[0] = '\0';
        return false;
    }
    strcpy(directory + at, dir);
    int error = stat(directory, &st) != 0 ? errno : ENOTDIR;
    if (S_ISDIR(st.st_mode))
        return true;
    memkit__complain("memkit: MEMKIT_DUMP=%.200s: %s; no profile will be written\n", dir,
                     strerror(error));
    directory[0] = '\0';
    return false;
}

static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done == 0 ? ENOSPC : errno;
            return false;
        }
        data += done;
        n -= (size_t)done;
    }
    return true;
}

/* Renames, but not over a file that is there: EEXIST. */
static bool move(int dir, const char *from, const char *to)
{
    if (renameat2(dir, from, dir, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS)
        return false;
    /* A file system that cannot: a second name is refused in the same way, and then it has both. */
    if (linkat(dir, from, dir, to, 0) == 0)
        return unlinkat(dir, from, 0) == 0;
    if (errno == EEXIST)
        return false;
    /* One without second names: nobody else makes files of this process's number. */
    if (faccessat(dir, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return false;
    }
    return renameat(dir, from, dir, to) == 0;
}

/* Gives the complete file the first name that is free. */
static bool name_it(int dir, const char *temporary, char *name)
{
    for (unsigned i = 0; i < TRIES; i++) {
        snprintf(name, NAME_ROOM, "heap_%ld_%u.pb.gz", (long)writer, ++written);
        if (move(dir, temporary, name))
            return true;
        if (errno != EEXIST)
            break;
    }
    return false;
}

static void save(const char *data, size_t n)
{
    char temporary[NAME_ROOM], name[NAME_ROOM] = "a profile";
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
    for (unsigned i = 1; dir >= 0 && fd < 0 && i < 1000; i++) {
        snprintf(temporary, sizeof temporary, ".heap_%ld_%u.tmp", (long)writer, written + i);
        fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        say(name);
    } else {
        bool good = write_all(fd, data, n) && (fsync(fd) == 0 || errno == EINVAL);
        int error = errno;
        if (close(fd) != 0 && good) {
            good = false;
            error = errno;
        }
        errno = error;
        if (!good || !name_it(dir, temporary, name)) {
            say(name);
            unlinkat(dir, temporary, 0);
        }
    }
    if (dir >= 0)
        close(dir);
}

void memkit__dump(void)
{
    int saved = errno;
    if (directory[0] == '\0')
        return;
    memkit__quiet_begin();
    pthread_mutex_lock(&lock);
    if (writer != getpid()) {
        writer = getpid();
        written = 0;
    }
    memkit_buf *out = memkit_buf_new(0);
    if (out == NULL || memkit_prof_write(out, MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF, NULL) != 0)
        say("a profile");
    else
        save(out->data, out->len);
    memkit_buf_free(out);
    pthread_mutex_unlock(&lock);
    memkit__quiet_end();
    errno = saved;
}

void memkit__dump_in_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

__attribute__((destructor)) static void at_exit(void)
{
    memkit__dump();
}
