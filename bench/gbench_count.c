/* gbench_count.c - counts the allocations of a bench's timed iterations, and finds their peak.
 *
 * Allocations are exact: each thread reads its own counters at both ends of what is timed, and
 * reading does not allocate.
 *
 * The peak is harder, since memkit_memstats knows only that of the process since its start, which
 * an earlier bench may have set. So before the loop the last thread to arrive raises what is in use
 * to that peak, with a block that is never touched and never freed (the peak never falls either):
 *
 *     peak so far ----------------+-------------- live, after the block --+-- peak afterwards
 *                                 | the block                             | the bench's own
 *     live before ----------------+                                       |
 *
 * The block costs addresses, not memory, and is larger than glibc's largest threshold for a mapping
 * of its own: it leaves alone the heap that the bench is about to use. Where the peak is nearer
 * than what the counters err by, there is no block.
 *
 * One bench runs at a time; `run` is of that one, under its lock.
 */
#include <pthread.h>
#include <stdlib.h>

#include <memkit/memkit.h>

#include "gbench_count.h"

/* What the counters' peak may be above the truth, for each thread (memkit/stats.h). */
#define PEAK_ERROR ((uint64_t)64 * 1024)
/* mallopt(3): M_MMAP_THRESHOLD never rises above 32 MiB. */
#define OWN_MAPPING ((uint64_t)33 << 20)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int here;        /* threads at the meeting */
    unsigned meets;  /* meetings held: tells one from the next */
    bool peak_known; /* of this run */
    uint64_t live;   /* at the meeting */
    uint64_t total;  /* bytes allocated since, by the threads that handed it in */
} run = {.lock = PTHREAD_MUTEX_INITIALIZER, .all_here = PTHREAD_COND_INITIALIZER};

static void prepare_peak(int threads)
{
    memkit_memstats_t m;
    memkit_memstats(&m);
    run.total = 0;
    run.peak_known = m.hooked;
    if (!m.hooked)
        return;
    uint64_t room = m.peak_alloc_bytes - m.alloc_bytes;
    if (room > PEAK_ERROR * (uint64_t)threads) {
        void *block = malloc(room > OWN_MAPPING ? room : OWN_MAPPING);
        __asm__ volatile("" : : "r"(block) : "memory"); /* a compiler may drop what nobody uses */
        run.peak_known = block != NULL;
        memkit_memstats(&m);
    }
    run.live = m.alloc_bytes;
}

void gbench__count_meet(int threads)
{
    pthread_mutex_lock(&run.lock);
    if (++run.here == threads) {
        prepare_peak(threads);
        run.here = 0;
        run.meets++;
        pthread_cond_broadcast(&run.all_here);
    } else {
        for (unsigned now = run.meets; run.meets == now;)
            pthread_cond_wait(&run.all_here, &run.lock);
    }
    pthread_mutex_unlock(&run.lock);
}

void gbench__count_on(gbench__count *c)
{
    memkit_thread_allocs_t t;
    c->counted = memkit_thread_allocs(&t) == 1;
    c->allocs_at = t.mallocs;
    c->bytes_at = t.bytes;
    if (!c->begun)
        c->bytes_first = t.bytes;
    c->begun = true;
}

void gbench__count_off(gbench__count *c)
{
    memkit_thread_allocs_t t;
    c->counted = memkit_thread_allocs(&t) == 1 && c->counted;
    c->allocs += t.mallocs - c->allocs_at;
    c->bytes += t.bytes - c->bytes_at;
}

void gbench__count_total(const gbench__count *c)
{
    memkit_thread_allocs_t t;
    if (memkit_thread_allocs(&t) != 1)
        return;
    pthread_mutex_lock(&run.lock);
    run.total += t.bytes - c->bytes_first;
    pthread_mutex_unlock(&run.lock);
}

int64_t gbench__count_peak(void)
{
    memkit_memstats_t m;
    memkit_memstats(&m);
    pthread_mutex_lock(&run.lock);
    uint64_t above = m.peak_alloc_bytes > run.live ? m.peak_alloc_bytes - run.live : 0;
    /* Nothing can have been in use that was not allocated: exact where that is nothing. */
    int64_t peak = (int64_t)(above < run.total ? above : run.total);
    bool known = run.peak_known;
    pthread_mutex_unlock(&run.lock);
    return known ? peak : -1;
}
