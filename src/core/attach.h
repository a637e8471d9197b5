/* attach.h - the one point where libmemkit and libmemkit-prof meet.
 *
 * At its start each copy of libmemkit in the process looks up `memkit_prof_attach` with
 * dlsym(RTLD_DEFAULT) and hands it a memkit__core_table; it gets a memkit__prof_table back. Nothing
 * links either library to the other. Both tables are versioned: a reader uses a member only when
 * `size` covers it, and refuses another `abi`. Both live as long as their library is loaded.
 */
#ifndef MEMKIT_CORE_ATTACH_H
#define MEMKIT_CORE_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memkit/common.h>

#define MEMKIT__ATTACH_ABI 1u

/* One pool, cache or named arena, as of now. Bytes: in use by the program / waiting unused. */
typedef struct {
    const char *kind; /* "pool", "lru", "arena" */
    const char *name;
    uint64_t live_bytes;
    uint64_t held_bytes;
} memkit__object_row;

/* One figure of one object. The texts live as long as the library; name as long as the object. */
typedef struct {
    const char *family, *type, *help; /* Prometheus's, e.g. "memkit_pool_gets_total" */
    const char *label;                /* which holds the name: "pool", "cache", "arena" */
    const char *name;
    unsigned id; /* tells those of one name apart */
    uint64_t value;
} memkit__metric;

typedef struct {
    uint32_t abi;
    uint32_t size;               /* of this table, bytes */
    const char *library_version; /* MEMKIT_VERSION of that copy */
    /* Calls fn for each object of that copy, under its registry's lock: fn may not call memkit. */
    void (*each_object)(void (*fn)(void *arg, const memkit__object_row *row), void *arg);
    /* Calls fn for each figure of each object, in the same way, family by family. */
    void (*each_metric)(void (*fn)(void *arg, const memkit__metric *m), void *arg);
    /* From now on takes_epoch is this one: called whenever it changes. Late news do no harm. */
    void (*takes)(uint32_t epoch);
} memkit__core_table;

/* Sums over threads, or one thread's own. */
typedef struct {
    uint64_t mallocs;
    uint64_t frees;
    uint64_t alloc_bytes; /* usable bytes allocated, never falls */
    uint64_t freed_bytes; /* usable bytes freed, never falls */
    uint64_t peak_bytes;  /* most of alloc_bytes - freed_bytes; 0 for one thread */
} memkit__counts;

/* Bounds of the times, nanoseconds: 2^4, 2^5 ... 2^34. A call is in the first bucket whose bound it
 * is not above; the last has none. */
#define MEMKIT__TIMES_FIRST_BIT 4u
#define MEMKIT__TIMES_BUCKETS   32u

/* Times of calls of the malloc family since the process began; one call is in one bucket. */
typedef struct {
    uint64_t buckets[MEMKIT__TIMES_BUCKETS];
    uint64_t total_ns;
    uint64_t longest_ns;
    uint64_t longest_bytes;       /* that it was about: asked for; of free, usable */
    uint64_t longest_switches;    /* involuntary, see hook/timing.c */
    uint64_t clock_ns;            /* what reading the clock adds to each call's time, about */
    const char *longest_function; /* NULL while there was none */
} memkit__times;

/* A take: a pooled buffer is got, an entry of a cache set, a block of an arena given out, and the
 * countdown of the bytes so taken has run out; or one of them grew since it was taken. */
typedef struct {
    const void
        *function;    /* of memkit, that was called: the stack begins with it. NULL: not known */
    const void *from; /* where that returns to: what is closer to the leaf is left out */
    size_t bytes;
    size_t old_bytes; /* of them were taken before, unsampled; 0: a new object */
    size_t mean;      /* of the countdown */
    bool stocked;     /* it lies in memory of `own`: may be charged */
    bool whole;       /* it is such a block, not a part of one */
} memkit__taking;

typedef struct {
    uint32_t abi;
    uint32_t size;
    /* 1 when calls of malloc reach the hook, 0 when another malloc got in front of it. */
    int (*hooked)(void);
    void (*thread_counts)(memkit__counts *out);
    void (*process_counts)(memkit__counts *out);
    /* The core is being unloaded: its table must not be used after this. */
    void (*detach)(const memkit__core_table *core);
    /* True, and *out filled, where MEMKIT_TIMING is on. */
    bool (*times)(memkit__times *out);

    /* Takes: what is charged to whom of memory that the core got from malloc, and gives out itself.
     * All of these are there or none. They may be called with the core's locks held, call no malloc
     * that is counted, and nothing of the core.
     *
     * Odd: takes are wanted. Rises with each start, stop and change of the rate. */
    uint32_t (*takes_epoch)(void);
    /* A block just had from malloc is stock: in use by `[memkit held]`, not by the stack that asked
     * for it. It ends with free or realloc. */
    void (*own)(const void *p);
    /* Bytes until the next sample, and the mean of that number. An object of so many bytes or fewer
     * is not sampled. */
    int64_t (*take_room)(size_t *mean);
    /* The sample: charged, from held to its stack. A token, or 0 where nothing is charged: not
     * stocked, or no room in the profile. */
    uint64_t (*take)(const memkit__taking *t);
    /* What the token is of has another size now. The new token. */
    uint64_t (*retake)(uint64_t token, size_t old_bytes, size_t bytes, bool whole);
    /* So many objects with that token, `bytes` in all, came back: to held again. */
    void (*give)(uint64_t token, size_t bytes, uint64_t objects, bool whole);
    /* realloc for what the core has to remember of samples; 0 bytes frees. In no figure. */
    void *(*side)(void *p, size_t old_bytes, size_t bytes);
} memkit__prof_table;

/* Exported by libmemkit-prof. NULL where the abi differs or there is no place for one more core. */
MEMKIT_API const memkit__prof_table *memkit_prof_attach(const memkit__core_table *core);

/* The core's side: the table of the attached libmemkit-prof, NULL when there is none. */
const memkit__prof_table *memkit__prof(void);

/* The same, but NULL also where that does not see the calls of malloc. */
const memkit__prof_table *memkit__counting_prof(void);

/* For fork.c: nobody is looking meanwhile. */
void memkit__attach_hold(void);
void memkit__attach_let_go(void);

#endif
