/* memkit/stats.h - allocation counters of the process and of the calling thread, and metrics.
 *
 *     memkit_thread_allocs_t t0, t1;
 *     memkit_thread_allocs(&t0);
 *     work();
 *     memkit_thread_allocs(&t1);               // t1.mallocs - t0.mallocs allocations, exactly
 *
 * The counters are those of libmemkit-prof, linked or preloaded; without it, or in a program with a
 * malloc of its own, `hooked` is false and they are 0. All functions are thread-safe.
 *
 * What counts: malloc, calloc, realloc, reallocarray, aligned_alloc, posix_memalign, memalign,
 * valloc, pvalloc and free of the whole process, libc's own calls of them too, and C++'s operators
 * new and delete, each once whatever is underneath. An allocation is one of mallocs, free of a
 * block is one of frees; realloc of a block is one of each; a call that fails is none. Bytes are
 * usable bytes, what malloc_usable_size says, as Go counts size classes.
 */
#ifndef MEMKIT_STATS_H
#define MEMKIT_STATS_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* Go's runtime.MemStats names beside ours. */
typedef struct {
    uint64_t alloc_bytes;       /* Alloc: in use now */
    uint64_t total_alloc_bytes; /* TotalAlloc: allocated since the start, never falls */
    uint64_t mallocs;           /* Mallocs */
    uint64_t frees;             /* Frees */
    uint64_t peak_alloc_bytes; /* most of alloc_bytes: never below the truth, above it by at most 64
                                  KiB a thread */
    uint64_t rss_bytes;        /* resident memory (VmRSS) */
    uint64_t peak_rss_bytes;   /* most of that (VmHWM) */
    uint64_t sys_bytes;        /* Sys: private writable memory mapped (VmData) */
    bool hooked;               /* malloc is counted: the first five figures mean something */
    uint64_t reserved[8];      /* zeroed */
} memkit_memstats_t;

/* Fills *out; what /proc does not tell is 0. EINVAL for NULL. Sums the threads' counters and reads
 * /proc/self/status: some 20 us, no malloc, no lock that an allocating thread takes. */
MEMKIT_API void memkit_memstats(memkit_memstats_t *out);

typedef struct {
    uint64_t mallocs;
    uint64_t frees;
    uint64_t bytes;       /* allocated, never falls */
    uint64_t reserved[5]; /* zeroed */
} memkit_thread_allocs_t;

/* The calling thread's counters since it began. 1: counted; 0: malloc is not hooked (a gate must
 * not pass on it), and *out is zeroed; -1: EINVAL (out NULL). A few loads. */
MEMKIT_API int memkit_thread_allocs(memkit_thread_allocs_t *out);

/* Appends metrics in Prometheus's text format: process memory, counters where malloc is hooked,
 * every pool, cache and named arena of this copy of the library. Labels are escaped.
 * With MEMKIT_TIMING=1 in the environment of a hooked process also the time inside each call of the
 * malloc family underneath, failing ones too, since the start of main:
 *     memkit_malloc_duration_seconds               histogram, bounds 2^4 ns, 2^5 ns ... 2^34 ns
 *     memkit_malloc_longest_duration_seconds       gauge: the longest call
 *     memkit_malloc_longest_involuntary_switches   gauge: how often its thread was preempted in it
 *                                                  or in the millisecond before it
 * 0; -1: EINVAL, or memkit_buf_append's errors, and out is unchanged. */
MEMKIT_API int memkit_metrics_write(memkit_buf *out);

MEMKIT_END_DECLS

#endif
