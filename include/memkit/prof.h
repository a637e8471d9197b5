/* memkit/prof.h - sampling heap profiler and CPU profiler (libmemkit-prof).
 *
 *     memkit_prof_start(NULL);                             // one sample in 512 KiB, as Go does
 *     ...
 *     memkit_buf *out = memkit_buf_new(0);
 *     if (memkit_prof_write(out, MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF, NULL) == 0)
 *         write(fd, out->data, out->len);                  // go tool pprof reads it
 *     memkit_buf_free(out);
 *
 * Link with -lmemkit-prof (pkg-config memkit-prof), or preload it and set MEMKIT_SAMPLE (see
 * memkit-prof(7)). All functions may be called from any thread at any time, but not from a signal
 * handler. What the profiler allocates for itself is in no figure of memkit/stats.h nor in the
 * profile, but in its comments.
 */
#ifndef MEMKIT_PROF_H
#define MEMKIT_PROF_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* HEAP and ALLOCS are the same data with another default sample type: inuse_space, alloc_space. */
typedef enum { MEMKIT_PROF_HEAP, MEMKIT_PROF_ALLOCS, MEMKIT_PROF_CPU } memkit_prof_kind;

typedef enum {
    MEMKIT_FMT_PPROF,  /* profile.proto, gzip'd: github.com/google/pprof */
    MEMKIT_FMT_FOLDED, /* a line a stack, "root;...;leaf value": flamegraph.pl's input */
    MEMKIT_FMT_SVG,    /* a flame graph that needs nothing but a browser */
    MEMKIT_FMT_TEXT    /* for people: a table, the largest first */
} memkit_prof_format;

typedef struct {
    size_t sample_bytes; /* mean bytes between samples; 0: 512 KiB, 1: every allocation, exactly */
    size_t max_bytes;    /* of the profiler's own memory; 0: 64 MiB. What does not fit is counted */
    int label_threads;   /* 1: stacks are told apart by the thread's name, label "thread" */
    uint64_t reserved[5];
} memkit_prof_opts;

/* Begins to sample; NULL: the defaults. After a stop it goes on with what was known: what was
 * allocated meanwhile is in no profile, and its free changes none. 0, or -1 and nothing is
 * changed: EBUSY (already started), EINVAL, ENOMEM, ENOTSUP (malloc does not reach the hook). A
 * fork's child samples on where its parent did. Started there anew it takes the loader's lock, as
 * dlopen does: where another thread of the parent was in dlopen, a libc may leave that locked. */
MEMKIT_API int memkit_prof_start(const memkit_prof_opts *opts);

/* Ends sampling. Frees of blocks sampled before are still seen, so that inuse_* stays true. 0, or
 * -1: EINVAL, not started. */
MEMKIT_API int memkit_prof_stop(void);

/* Changes the mean while running; each sample keeps the weight it was taken with. 0 is the default
 * again. 0, or -1: EINVAL, not started. */
MEMKIT_API int memkit_prof_set_rate(size_t sample_bytes);

/* 1 while sampling, else 0. */
MEMKIT_API int memkit_prof_running(void);

typedef struct {
    uint64_t sample_bytes; /* the rate now, or the last one */
    uint64_t samples;      /* taken since the process began */
    uint64_t sites;        /* distinct stacks */
    uint64_t live_samples; /* blocks sampled and not freed */
    uint64_t dropped;      /* samples that found no room within max_bytes: in no profile */
    uint64_t own_bytes;    /* memory that the profiler holds for itself */
    uint64_t max_bytes;    /* the most it may */
    uint64_t cut_stacks;   /* stacks deeper than MEMKIT_PROF_MAX_DEPTH */
    uint64_t reserved[8];  /* zeroed */
} memkit_prof_stats_t;

/* Frames of a stack that are kept, the innermost ones. */
#define MEMKIT_PROF_MAX_DEPTH 128

/* EINVAL for NULL. */
MEMKIT_API void memkit_prof_stats(memkit_prof_stats_t *out);

/* The sums as of now, base of a delta. NULL: ENOMEM. Ended by memkit_prof_snap_free (NULL is
 * allowed). */
typedef struct memkit_prof_snap memkit_prof_snap;
MEMKIT_API MEMKIT_NODISCARD memkit_prof_snap *memkit_prof_snapshot(void);
MEMKIT_API void memkit_prof_snap_free(memkit_prof_snap *snap);

/* Appends a profile to *out. since NULL: all since the first start; else what was added since,
 * while inuse_* stays the value now. For MEMKIT_PROF_CPU: what was collected since
 * memkit_prof_cpu_start, and since must be NULL. Some milliseconds: reads the symbol tables of what
 * is in the stacks. 0, or -1 and out is unchanged: EINVAL, ENOMEM, ENODATA (never started), out's
 * own limit. */
MEMKIT_API int memkit_prof_write(memkit_buf *out, memkit_prof_kind kind, memkit_prof_format fmt,
                                 const memkit_prof_snap *since);

/* The CPU profile: each thread is interrupted hz times (0: 100, at most 1,000) for each second of
 * processor time it uses, by SIGPROF; what sleeps is not in it, nor a thread while it blocks
 * SIGPROF, nor one that lived for less than some 10 ms. System calls go on (SA_RESTART), but for
 * those that never do, as poll: EINTR. start: 0, or -1 and nothing is changed: EBUSY (the program
 * has a handler for SIGPROF, or a profile runs), EINVAL, ENOMEM, EAGAIN (no thread to be had), what
 * opening /proc/self/task says. stop: SIGPROF does again what it did; 0, or -1: EINVAL, none runs.
 * A fork's child has no profile until it starts one. */
MEMKIT_API int memkit_prof_cpu_start(unsigned hz);
MEMKIT_API int memkit_prof_cpu_stop(void);

MEMKIT_END_DECLS

#endif
