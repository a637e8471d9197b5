/* sums.c - adding up and reading what sums.h describes. */
#include "prof/sums.h"

#include <errno.h>
#include <string.h>

#include "prof/mem.h"

/* ---- the threads' own ------------------------------------------------------------------------ */

/* Counts of one thread, after each other: so that no two threads write one line. */
#define SLAB 12u

struct memkit__slab {
    atomic_uint used;
    memkit__own own[SLAB];
};

/* A signal handler may come in between, and both make one: what is left of one is lost. */
static memkit__own *carve(memkit__block *b)
{
    memkit__exact *x = atomic_load_explicit(&b->exact, memory_order_relaxed);
    if (x == NULL) {
        x = memkit__kept_alloc(sizeof *x);
        if (x == NULL)
            return NULL;
        atomic_store_explicit(&b->exact, x, memory_order_relaxed);
    }
    struct memkit__slab *s = atomic_load_explicit(&x->slab, memory_order_relaxed);
    unsigned at = s != NULL ? atomic_fetch_add(&s->used, 1) : SLAB;
    if (at < SLAB)
        return &s->own[at];
    s = memkit__kept_alloc(sizeof *s);
    if (s == NULL)
        return NULL;
    atomic_store_explicit(&s->used, 1, memory_order_relaxed);
    atomic_store_explicit(&x->slab, s, memory_order_relaxed);
    return &s->own[0];
}

memkit__own *memkit__own_new(memkit__site *site, memkit__block *b)
{
    memkit__site_sums *all = site->sums;
    if (b->number >= MEMKIT__OWN_SUMS)
        return NULL;
    int saved = errno;
    memkit__own *own = carve(b), *none = NULL;
    errno = saved;
    if (own == NULL)
        return NULL;
    own->site = site;
    if (!atomic_compare_exchange_strong(&all->own[b->number], &none, own))
        own = none; /* a signal handler was faster */
    return own;
}

memkit__adder memkit__sums_adder(memkit__site *site, double weight)
{
    memkit__block *b = weight == 1 ? memkit__block_here() : NULL;
    memkit__site_sums *all = site->sums;
    return (memkit__adder){&all->common, b != NULL ? memkit__own_of(site, b) : NULL};
}

void memkit__sums_add(memkit__adder to, unsigned which, uint64_t by)
{
    unsigned beyond = which - MEMKIT__INUSE_OBJECTS;
    if (to.own != NULL && beyond < 4)
        memkit__own_add(&to.own->beyond[beyond], by);
    else
        atomic_fetch_add_explicit(&to.common->sum[which], by, memory_order_relaxed);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static double as_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

void memkit__sums_add_variance(memkit__adder to, unsigned which, double by)
{
    uint64_t before = atomic_load(&to.common->variance[which]), after;
    do {
        double sum = as_double(before) + by;
        memcpy(&after, &sum, sizeof after);
    } while (!atomic_compare_exchange_weak(&to.common->variance[which], &before, after));
}

static void add_up(const memkit__sums *s, memkit__sums_read *out)
{
    for (unsigned i = 0; i < MEMKIT__SUM_COUNT; i++)
        out->sum[i] += atomic_load_explicit(&s->sum[i], memory_order_relaxed);
    for (unsigned i = 0; i < MEMKIT__VARIANCES; i++)
        out->variance[i] += as_double(atomic_load_explicit(&s->variance[i], memory_order_relaxed));
}

/* Frees first: what is freed meanwhile was allocated before. */
static void add_up_own(const memkit__own *own, memkit__sums_read *out)
{
    uint64_t freed = 0, freed_bytes = atomic_load_explicit(&own->freed_bytes, memory_order_acquire);
    for (unsigned i = 0; i < MEMKIT__LIVES; i++) {
        uint64_t n = atomic_load_explicit(&own->lives[i], memory_order_acquire);
        freed += n;
        out->sum[MEMKIT__LIFE_1US + i] += n << MEMKIT__OBJECT_BITS;
    }
    uint64_t allocs = memkit__read(&own->allocs), bytes = memkit__read(&own->alloc_bytes);
    out->sum[MEMKIT__SAMPLES] += allocs;
    out->sum[MEMKIT__SAMPLES_FREED] += freed;
    out->sum[MEMKIT__ALLOC_OBJECTS] += allocs << MEMKIT__OBJECT_BITS;
    out->sum[MEMKIT__ALLOC_SPACE] += bytes << MEMKIT__SPACE_BITS;
    out->sum[MEMKIT__FREED_OBJECTS] += freed << MEMKIT__OBJECT_BITS;
    out->sum[MEMKIT__INUSE_OBJECTS] += (allocs - freed) << MEMKIT__OBJECT_BITS;
    out->sum[MEMKIT__INUSE_SPACE] += (bytes - freed_bytes) << MEMKIT__SPACE_BITS;
    out->sum[MEMKIT__TEMPORARY_OBJECTS] += memkit__read(&own->temporary) << MEMKIT__OBJECT_BITS;
    out->sum[MEMKIT__FOREIGN_FREED_OBJECTS] += memkit__read(&own->foreign) << MEMKIT__OBJECT_BITS;
    out->sum[MEMKIT__REALLOC_OBJECTS] += memkit__read(&own->reallocs) << MEMKIT__OBJECT_BITS;
    for (unsigned i = 0; i < 4; i++)
        out->sum[MEMKIT__INUSE_OBJECTS + i] += memkit__read(&own->beyond[i]);
}

void memkit__sums_get(const memkit__site *site, memkit__sums_read *out)
{
    const memkit__site_sums *all = site->sums;
    memset(out, 0, sizeof *out);
    add_up(&all->common, out);
    for (unsigned i = 0; i < MEMKIT__OWN_SUMS; i++) {
        const memkit__own *own = atomic_load_explicit(&all->own[i], memory_order_acquire);
        if (own != NULL)
            add_up_own(own, out);
    }
    for (unsigned i = 0; i < MEMKIT__VARIANCES; i++)
        if (out->variance[i] < 0) /* what is taken off again leaves a rounding error */
            out->variance[i] = 0;
}

static bool is_space(unsigned type)
{
    return type == MEMKIT__ALLOC_SPACE || type == MEMKIT__INUSE_SPACE || type == MEMKIT__TAKE_SPACE;
}

int64_t memkit__sums_value(const memkit__sums_read *r, unsigned type)
{
    if (type >= MEMKIT__HEAP_TYPE_COUNT)
        return (int64_t)r->sum[type];
    unsigned bits = is_space(type) ? MEMKIT__SPACE_BITS : MEMKIT__OBJECT_BITS;
    uint64_t rounded = r->sum[type] + (UINT64_C(1) << (bits - 1));
    if ((int64_t)rounded < 0 && (type == MEMKIT__INUSE_OBJECTS || type == MEMKIT__INUSE_SPACE))
        return 0;
    return (int64_t)(rounded >> bits);
}
