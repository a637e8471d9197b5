/* memkit/pool.h - pool of byte buffers: thread-safe, self-calibrating, bounded.
 *
 *     memkit_pool *p = memkit_pool_default();
 *     memkit_buf *b = memkit_pool_get(p, 0);      // empty, as large as recent uses needed
 *     if (b == NULL) return -1;                   // ENOMEM
 *     memkit_buf_append(b, data, n);
 *     ...
 *     memkit_pool_put(p, b);                      // from any thread
 *
 * Every function is thread-safe but memkit_pool_free. Buffers wait for their next use in a cache of
 * the thread that put them, and in a depot of the pool behind it. What was idle for idle_ms goes
 * back to malloc at the next put, or get that the thread's own cache does not answer, whoever makes
 * it; while less than 64 KiB wait in the calling thread and in the depot, at the latest at the
 * sixteenth put, since a look at the clock costs as much as a get.
 */
#ifndef MEMKIT_POOL_H
#define MEMKIT_POOL_H

#include <memkit/buf.h>
#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

typedef struct memkit_pool memkit_pool;

/* Zero in a field means its default. */
typedef struct {
    const char *name;      /* label in the metrics, copied; NULL: "pool" */
    size_t max_held_bytes; /* most that waits unused, all threads together; default 64 MiB */
    size_t
        max_buf_bytes; /* a larger block goes back to malloc at put; default 1 MiB, at most 1 GiB */
    size_t max_thread_bytes; /* most that waits in one thread's cache; default 1 MiB */
    unsigned idle_ms;     /* what nobody used for so long goes back, as said above; default 1000 */
    unsigned background;  /* 1: a thread of the pool's own gives it back, also when no call comes */
    uint64_t reserved[6]; /* zero */
} memkit_pool_opts;

typedef struct {
    uint64_t gets;            /* memkit_pool_get calls that returned a buffer */
    uint64_t hits;            /* of those, answered by a buffer that waited */
    uint64_t misses;          /* of those, answered by malloc */
    uint64_t puts;            /* buffers that came back */
    uint64_t live_buffers;    /* out at this moment */
    uint64_t live_bytes;      /* room in those */
    uint64_t held_buffers;    /* waiting at this moment */
    uint64_t held_bytes;      /* room in those: never above max_held_bytes */
    uint64_t peak_held_bytes; /* the most that was reserved for waiting: never below the truth,
                                 never above max_held_bytes */
    uint64_t trimmed_bytes;   /* given back to malloc in all, by idleness, bounds and trim */
    uint64_t calibrated_size; /* what get(p, 0) gives now */
    uint64_t reserved[5];     /* zeroed */
} memkit_pool_stats_t;

/* A new pool; opts NULL: all defaults. Copies opts. Free it with memkit_pool_free.
 * The first pool of a process is best made before its threads: the kernel then registers it for
 * membarrier(2) at once, else after some 20 ms. From then on a child of fork may use every pool;
 * what other threads' caches held is in the depot there, and buffers they had out stay out. (The
 * first pool or cache should not be made while another thread forks.)
 * NULL: ENOMEM, EAGAIN (no thread for `background`), EINVAL (reserved not zero, background above 1,
 * a bound that is no size). */
MEMKIT_API MEMKIT_NODISCARD memkit_pool *memkit_pool_new(const memkit_pool_opts *opts);

/* Ends the pool and all that waits in it, in every thread's cache; threads that used it may live
 * on. No other call on the pool may be under way. Buffers still out are a fault, and then nothing
 * is freed; so is the default pool. NULL is allowed. */
MEMKIT_API void memkit_pool_free(memkit_pool *p);

/* The process's own pool with all defaults, made at the first call and never freed. NULL: ENOMEM,
 * and the next call tries again. */
MEMKIT_API memkit_pool *memkit_pool_default(void);

/* An empty buffer with cap >= hint; hint 0: the calibrated size, which is what 95 % of the recent
 * uses fitted in. It grows as any buffer does. Give it back with memkit_pool_put or
 * memkit_buf_free. NULL: EINVAL, EOVERFLOW (hint + 1 is no size), ENOMEM. No malloc and no lock
 * where the calling thread's cache has one. */
MEMKIT_API MEMKIT_NODISCARD memkit_buf *memkit_pool_get(memkit_pool *p, size_t hint);

/* Gives a buffer back, from any thread; its content is lost. It never fails: what cannot wait goes
 * back to malloc. b NULL is allowed; else p NULL is EINVAL. A buffer that is not
 * of this pool, or that was put already, is a fault; a second put is found as long as the pool
 * lives, for certain when one thread does both, as best it can be when two race. */
MEMKIT_API void memkit_pool_put(memkit_pool *p, memkit_buf *b);

/* Gives waiting buffers back to malloc until at most keep_bytes wait, in all threads' caches too.
 * Returns the bytes given back; 0 with EINVAL for NULL. */
MEMKIT_API size_t memkit_pool_trim(memkit_pool *p, size_t keep_bytes);

/* Reads the pool's figures; EINVAL for NULL, and *out is untouched. A sum over threads that keep
 * working meanwhile, so figures of one read need not agree to the last buffer. O(threads). */
MEMKIT_API void memkit_pool_stats(memkit_pool *p, memkit_pool_stats_t *out);

MEMKIT_END_DECLS

#endif
