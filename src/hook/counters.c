/* counters.c - where the threads' counters live, and the peak.
 *
 *    memkit__me (TLS)        newest chunk          ...          first chunk (static)
 *    +-------------+       +----+----+----+----+            +----+----+----+----+
 *    | block ------------> | 1  | 2  | 1  | 0  |  --next--> | 1  | 1  | 2  | 1  |    + `shared`
 *    | early       |       +----+----+----+----+            +----+----+----+----+
 *    +-------------+         one block = one hot line + one cold line
 *
 * - A block has one writer, the thread that took it (state 1). When the thread ends its counts stay
 *   where they are and the block becomes free (2) for the next thread, which remembers them as its
 *   base. So a sum over all blocks is the process's counts, and nothing is ever moved or folded.
 *   Blocks are never given back; there are as many as threads lived at once.
 * - A thread without a block counts in `shared`, with atomic adds, and in its own `early`. So are
 *   counted its first EARLY_CALLS calls, and all that come once it is about to end.
 * - The end of a thread is a key's destructor. It lets END_ROUNDS rounds of destructors pass, since
 *   those of other keys allocate and free too, and then gives the block up: not in the last round,
 *   because a thread whose first call of all is in a destructor misses the first. A block is never
 *   taken once the end has begun, nor for the few calls that libc makes after the last destructor:
 *   nobody would free it. Known hole: a thread that never called before, and calls more than
 *   EARLY_CALLS times in one destructor of the second round or later, keeps its block taken.
 * - Peak. `reserved` is what all threads have reserved; a block's `room` is what of it is unused:
 *
 *       reserved = live + sum of room          0 <= room <= 64 KiB outside the slow path
 *
 *   where live is the bytes counted as allocated less those counted as freed. The fast path moves
 *   bytes between room and live only. So live <= reserved <= live + 64 KiB a thread, and
 *   peak = max(reserved) is never below the most of live, nor above it by more than that. reserved
 *   grows before room does and shrinks after it, so that who stops between errs upwards.
 * - No lock anywhere, nothing waits: all of this runs inside malloc, perhaps in a signal handler.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "hook/counters.h"
#include "hook/timing.h"
#include "prof/mem.h"
#include "prof/sampler.h"

#define CHUNK_BLOCKS 127u
#define EARLY_CALLS  8u
#define END_ROUNDS   (PTHREAD_DESTRUCTOR_ITERATIONS - 1)
#define NO_ROOM      (INT64_MIN / 2) /* far out of range, whatever threads add at once */

enum { UNUSED, TAKEN, FREE };
enum { KEY_NONE, KEY_BUSY, KEY_READY };

typedef struct chunk {
    struct chunk *next;    /* older */
    atomic_uint used;      /* blocks that ever had a thread */
    uint32_t first_number; /* of its blocks */
    memkit__block blocks[CHUNK_BLOCKS];
} chunk;

static chunk first;
static _Atomic(chunk *) newest = &first;
static atomic_int free_blocks; /* in state FREE, about: saves the search */

static memkit__block shared;
static _Atomic int64_t reserved;
static _Atomic int64_t peak;

/* Not blocks of anybody: what a thread points at before it has one, and after its end. */
static memkit__block fresh = {.room = NO_ROOM};
static memkit__block late = {.room = NO_ROOM};

/* All quiet threads' at once. Its counts are in no sum, its room is put right when it runs out. */
static memkit__block aside = {.room = MEMKIT__ROOM_HALF, .sample_at = UINT64_MAX};

MEMKIT__TLS memkit__thread memkit__me = {.block = &fresh};

static pthread_key_t key;
static atomic_int key_state;

static uint64_t peek(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static memkit__tally counts_of(const memkit__block *b)
{
    return (memkit__tally){.mallocs = peek(&b->mallocs),
                           .frees = peek(&b->frees),
                           .alloc_bytes = peek(&b->alloc_bytes),
                           .freed_bytes = peek(&b->freed_bytes)};
}

/* a - b; differences may wrap and come right again. */
static memkit__tally minus(memkit__tally a, memkit__tally b)
{
    return (memkit__tally){.mallocs = a.mallocs - b.mallocs,
                           .frees = a.frees - b.frees,
                           .alloc_bytes = a.alloc_bytes - b.alloc_bytes,
                           .freed_bytes = a.freed_bytes - b.freed_bytes};
}

static void reserve(int64_t bytes)
{
    int64_t now = atomic_fetch_add(&reserved, bytes) + bytes;
    int64_t top = atomic_load(&peak);
    while (now > top && !atomic_compare_exchange_weak(&peak, &top, now)) {
    }
}

/* Brings a block's room to the middle. Adds, not stores: a signal may come in between. */
static void settle(memkit__block *b)
{
    int64_t room = atomic_load_explicit(&b->room, memory_order_relaxed);
    if (room >= 0 && room <= MEMKIT__ROOM_MAX)
        return;
    int64_t more = MEMKIT__ROOM_HALF - room;
    if (more > 0)
        reserve(more);
    memkit__room_add(&b->room, (uint64_t)more);
    if (more < 0)
        reserve(more);
}

static memkit__block *find_free(void)
{
    if (atomic_load(&free_blocks) <= 0)
        return NULL;
    for (chunk *c = atomic_load(&newest); c != NULL; c = c->next) {
        unsigned used = atomic_load(&c->used);
        for (unsigned i = 0; i < used; i++) {
            uint32_t state = FREE;
            if (atomic_load_explicit(&c->blocks[i].taken, memory_order_relaxed) == FREE &&
                atomic_compare_exchange_strong(&c->blocks[i].taken, &state, TAKEN)) {
                atomic_fetch_sub(&free_blocks, 1);
                return &c->blocks[i];
            }
        }
    }
    return NULL;
}

static memkit__block *take_block(void)
{
    memkit__block *b = find_free();
    while (b == NULL) {
        chunk *c = atomic_load(&newest);
        unsigned i = atomic_load(&c->used);
        while (i < CHUNK_BLOCKS && !atomic_compare_exchange_weak(&c->used, &i, i + 1)) {
        }
        if (i < CHUNK_BLOCKS) {
            b = &c->blocks[i];
            b->number = c->first_number + i;
            atomic_store(&b->taken, TAKEN);
            break;
        }
        chunk *more =
            mmap(NULL, sizeof *more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED)
            return NULL;
        more->next = c;
        more->first_number = c->first_number + CHUNK_BLOCKS;
        if (!atomic_compare_exchange_strong(&newest, &c, more))
            munmap(more, sizeof *more); /* another thread was faster */
    }
    return b;
}

/* The block's thread counts elsewhere already. */
static void leave_block(memkit__block *b)
{
    int64_t room = atomic_exchange(&b->room, 0);
    reserve(-room);
    atomic_store(&b->taken, FREE);
    atomic_fetch_add(&free_blocks, 1);
}

/* Where the thread counts, when it is not quiet. */
static memkit__block **place(void)
{
    return memkit__me.quiet > 0 ? &memkit__me.loud : &memkit__me.block;
}

static void at_thread_end(void *armed)
{
    if (++memkit__me.rounds < END_ROUNDS && pthread_setspecific(key, armed) == 0)
        return;
    memkit__block **at = place();
    memkit__block *b = *at;
    *at = &late;
    if (b != &fresh && b != &late) {
        memkit__me.early = minus(counts_of(b), b->base);
        leave_block(b);
    }
}

/* Sees to it that at_thread_end will run. False while another thread, or the code under this signal
 * handler, is making the key. */
static bool arm(void)
{
    int state = atomic_load(&key_state);
    if (state == KEY_NONE && atomic_compare_exchange_strong(&key_state, &state, KEY_BUSY)) {
        bool made = pthread_key_create(&key, at_thread_end) == 0;
        state = made ? KEY_READY : KEY_NONE;
        atomic_store(&key_state, state);
    }
    return state == KEY_READY && pthread_setspecific(key, &key) == 0; /* which may allocate */
}

memkit__block *memkit__block_if_any(void)
{
    memkit__block *b = *place();
    return b != &fresh && b != &late ? b : NULL;
}

memkit__block *memkit__own_block(void)
{
    memkit__block *own = memkit__block_if_any();
    if (own != NULL || *place() == &late || memkit__me.rounds > 0)
        return own;
    int saved = errno;
    memkit__block *b = arm() ? take_block() : NULL;
    if (b != NULL && *place() != &fresh) {
        leave_block(b); /* arm allocated, or a signal handler: it took one meanwhile */
        b = *place();
    } else if (b != NULL) {
        b->base = minus(counts_of(b), memkit__me.early);
        b->label_age = 0;
        memkit__timing_new_thread(b);
        *place() = b;
    }
    errno = saved;
    return b;
}

/* True when the thread has a block now. */
static bool early_call(void)
{
    if (memkit__me.early_calls >= EARLY_CALLS)
        return memkit__own_block() != NULL;
    uint32_t n = ++memkit__me.early_calls;
    if (n == 1) { /* armed this early it sees the end begin */
        int saved = errno;
        (void)arm();
        errno = saved;
    }
    return false;
}

static void count_shared(uint64_t allocated, uint64_t freed, unsigned mallocs, unsigned frees)
{
    reserve((int64_t)(allocated - freed));
    atomic_fetch_add(&shared.mallocs, mallocs);
    atomic_fetch_add(&shared.frees, frees);
    atomic_fetch_add(&shared.alloc_bytes, allocated);
    atomic_fetch_add(&shared.freed_bytes, freed);
    memkit__tally *early = &memkit__me.early;
    early->mallocs += mallocs;
    early->frees += frees;
    early->alloc_bytes += allocated;
    early->freed_bytes += freed;
}

void memkit__count_slow(uint64_t allocated, uint64_t freed, unsigned mallocs, unsigned frees)
{
    memkit__block *b = memkit__me.block;
    if (b == &fresh || b == &late) {
        atomic_store(&b->room, NO_ROOM);
        if (b == &late || !early_call()) {
            count_shared(allocated, freed, mallocs, frees);
            return;
        }
        b = memkit__me.block;
        memkit__room_add(&b->room, freed - allocated);
    }
    if (b == &aside)
        atomic_store(&b->room, MEMKIT__ROOM_HALF);
    else
        settle(b);
    memkit__bump(&b->mallocs, mallocs);
    memkit__bump(&b->alloc_bytes, allocated);
    memkit__bump(&b->frees, frees);
    memkit__bump(&b->freed_bytes, freed);
}

/* Nor does the sampler see it; and a quiet thread counts as others do meanwhile. */
bool memkit__trial_begin(memkit__tally *before)
{
    memkit__block *b = memkit__own_block();
    if (b == NULL)
        return false;
    *before = counts_of(b);
    memkit__me.unobserved++;
    if (memkit__me.quiet > 0)
        memkit__me.block = b;
    return true;
}

uint64_t memkit__trial_count(const memkit__tally *before)
{
    memkit__tally c = minus(counts_of(memkit__me.block), *before);
    return c.mallocs + c.frees;
}

void memkit__trial_end(const memkit__tally *before)
{
    memkit__block *b = memkit__me.block;
    atomic_store(&b->mallocs, before->mallocs);
    atomic_store(&b->frees, before->frees);
    atomic_store(&b->alloc_bytes, before->alloc_bytes);
    atomic_store(&b->freed_bytes, before->freed_bytes);
    if (memkit__me.quiet > 0)
        memkit__me.block = &aside;
    memkit__me.unobserved--;
}

void memkit__count_aside(void)
{
    if (memkit__me.quiet == 0) {
        memkit__me.loud = memkit__me.block;
        memkit__me.quiet = 1; /* before: a signal handler is counted in one of the two */
        memkit__me.block = &aside;
    } else {
        memkit__me.quiet++;
    }
}

void memkit__count_again(void)
{
    if (memkit__me.quiet == 1)
        memkit__me.block = memkit__me.loud;
    memkit__me.quiet--;
}

uint64_t memkit__thread_mallocs(void)
{
    const memkit__block *b = memkit__block_if_any();
    return b != NULL ? peek(&b->mallocs) - b->base.mallocs : memkit__me.early.mallocs;
}

void memkit__blocks_resample(void)
{
    for (chunk *c = atomic_load(&newest); c != NULL; c = c->next)
        for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
            atomic_store(&c->blocks[i].sample_at, 0);
}

void memkit__each_block(void (*fn)(const memkit__block *b, void *arg), void *arg)
{
    for (const chunk *c = atomic_load(&newest); c != NULL; c = c->next) {
        unsigned used = atomic_load(&c->used);
        for (unsigned i = 0; i < used; i++)
            fn(&c->blocks[i], arg);
    }
}

void memkit__thread_counts(memkit__counts *out)
{
    const memkit__block *b = memkit__block_if_any();
    memkit__tally t = b == NULL ? memkit__me.early : minus(counts_of(b), b->base);
    *out = (memkit__counts){.mallocs = t.mallocs,
                            .frees = t.frees,
                            .alloc_bytes = t.alloc_bytes,
                            .freed_bytes = t.freed_bytes};
}

static void add_frees(const memkit__block *b, void *sum)
{
    memkit__counts *to = sum;
    to->frees += peek(&b->frees);
    to->freed_bytes += peek(&b->freed_bytes);
}

static void add_mallocs(const memkit__block *b, void *sum)
{
    memkit__counts *to = sum;
    to->mallocs += peek(&b->mallocs);
    to->alloc_bytes += peek(&b->alloc_bytes);
}

/* Two passes, frees first: a block that was freed had been allocated before, so that however the
 * threads go on meanwhile the sum of frees is never above that of mallocs. */
void memkit__process_counts(memkit__counts *out)
{
    memkit__counts sum = {0};
    add_frees(&shared, &sum);
    memkit__each_block(add_frees, &sum);
    atomic_thread_fence(memory_order_acquire);
    add_mallocs(&shared, &sum);
    memkit__each_block(add_mallocs, &sum);
    /* What came between the passes may be on top. A program that frees what never came through
     * here can make live negative. */
    int64_t live = (int64_t)(sum.alloc_bytes - sum.freed_bytes);
    int64_t top = atomic_load(&peak);
    sum.peak_bytes = (uint64_t)(top > live ? top : live);
    if (sum.peak_bytes > sum.alloc_bytes) /* what is reserved ahead of a process's first bytes */
        sum.peak_bytes = sum.alloc_bytes;
    *out = sum;
}

/* The other threads are gone, and some may have been between `reserved` and `room`. Their counts
 * stay: the child has their memory too. */
static void in_child(void)
{
    memkit__block *own = memkit__own_block();
    int free_now = 0;
    for (chunk *c = atomic_load(&newest); c != NULL; c = c->next) {
        unsigned used = atomic_load(&c->used);
        for (unsigned i = 0; i < used; i++) {
            memkit__block *b = &c->blocks[i];
            if (b == own)
                continue;
            atomic_store(&b->room, 0);
            atomic_store(&b->taken, FREE);
            free_now++;
        }
    }
    atomic_store(&free_blocks, free_now);
    memkit__counts now;
    memkit__process_counts(&now);
    int64_t room = own != NULL ? atomic_load(&own->room) : 0;
    atomic_store(&reserved, (int64_t)(now.alloc_bytes - now.freed_bytes) + room);
    memkit__timing_in_child();
    memkit__kept_in_child();
    memkit__sampler_in_child();
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(memkit__kept_before_fork, memkit__kept_after_fork, in_child);
}
