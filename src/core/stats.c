/* stats.c - the counters as the program asks for them: libmemkit-prof's figures and /proc's. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memkit/stats.h>

#include "core/attach.h"
#include "core/internal.h"

/* The table, once it is known that malloc is counted; saves memkit_thread_allocs the question. */
static _Atomic(const memkit__prof_table *) counting;

const memkit__prof_table *memkit__counting_prof(void)
{
    const memkit__prof_table *prof = atomic_load_explicit(&counting, memory_order_acquire);
    if (MEMKIT_LIKELY(prof != NULL))
        return prof;
    prof = memkit__prof();
    if (prof == NULL || !prof->hooked())
        return NULL;
    atomic_store(&counting, prof);
    return prof;
}

/* The figure of a line "name:  N kB", in bytes; 0 when there is no such line. */
static uint64_t status_bytes(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    return line != NULL ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* One read: the file is made anew for each, so that two would not agree. */
static void read_status(memkit_memstats_t *out)
{
    char status[8192]; /* some 1,500 bytes, and up to 11 for each supplementary group */
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n;
    do {
        n = read(fd, status, sizeof status - 1);
    } while (n < 0 && errno == EINTR);
    close(fd);
    if (n <= 0)
        return;
    status[n] = '\0';
    out->peak_rss_bytes = status_bytes(status, "\nVmHWM:");
    out->rss_bytes = status_bytes(status, "\nVmRSS:");
    out->sys_bytes = status_bytes(status, "\nVmData:");
}

void memkit_memstats(memkit_memstats_t *out)
{
    if (out == NULL) {
        errno = EINVAL;
        return;
    }
    int saved = errno;
    *out = (memkit_memstats_t){0};
    read_status(out);
    const memkit__prof_table *prof = memkit__counting_prof();
    if (prof != NULL) {
        memkit__counts c;
        prof->process_counts(&c);
        /* Blocks that a library got past the hook and freed through it may outweigh the rest. */
        out->alloc_bytes = c.alloc_bytes > c.freed_bytes ? c.alloc_bytes - c.freed_bytes : 0;
        out->total_alloc_bytes = c.alloc_bytes;
        out->mallocs = c.mallocs;
        out->frees = c.frees;
        out->peak_alloc_bytes = c.peak_bytes;
        out->hooked = true;
    }
    errno = saved;
}

int memkit_thread_allocs(memkit_thread_allocs_t *out)
{
    if (MEMKIT_UNLIKELY(out == NULL)) {
        errno = EINVAL;
        return -1;
    }
    *out = (memkit_thread_allocs_t){0};
    const memkit__prof_table *prof = memkit__counting_prof();
    if (MEMKIT_UNLIKELY(prof == NULL))
        return 0;
    memkit__counts c;
    prof->thread_counts(&c);
    out->mallocs = c.mallocs;
    out->frees = c.frees;
    out->bytes = c.alloc_bytes;
    return 1;
}
