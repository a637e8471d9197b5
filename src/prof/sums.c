/* sums.c - adding up and reading what sums.h describes. */
#include "prof/sums.h"

#include <string.h>

#include "hook/counters.h"
#include "prof/mem.h"

static memkit__sums *make_own(_Atomic(memkit__sums *) *at)
{
    int saved = errno;
    memkit__sums *s = memkit__kept_alloc(sizeof *s), *none = NULL;
    errno = saved;
    if (s != NULL && !atomic_compare_exchange_strong(at, &none, s))
        s = none; /* a signal handler was faster */
    return s;
}

memkit__adder memkit__sums_adder(memkit__site *site, double weight)
{
    memkit__site_sums *all = site->sums;
    const memkit__block *b = weight == 1 ? memkit__block_if_any() : NULL;
    if (b != NULL && b->number < MEMKIT__OWN_SUMS) {
        memkit__sums *own = atomic_load_explicit(&all->own[b->number], memory_order_acquire);
        if (MEMKIT_UNLIKELY(own == NULL))
            own = make_own(&all->own[b->number]);
        if (MEMKIT_LIKELY(own != NULL))
            return (memkit__adder){own, true};
    }
    return (memkit__adder){&all->common, false};
}

void memkit__sums_add(memkit__adder to, unsigned which, uint64_t by)
{
#if defined(__x86_64__) /* where a bump is one instruction, and a handler cannot come in between \
                         */
    if (MEMKIT_LIKELY(to.alone)) {
        memkit__bump(&to.sums->sum[which], by);
        return;
    }
#endif
    atomic_fetch_add_explicit(&to.sums->sum[which], by, memory_order_relaxed);
}

static double as_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

void memkit__sums_add_variance(memkit__adder to, unsigned which, double by)
{
    uint64_t before = atomic_load(&to.sums->variance[which]), after;
    do {
        double sum = as_double(before) + by;
        memcpy(&after, &sum, sizeof after);
    } while (!atomic_compare_exchange_weak(&to.sums->variance[which], &before, after));
}

static void add_up(const memkit__sums *s, memkit__sums_read *out)
{
    for (unsigned i = 0; i < MEMKIT__SUM_COUNT; i++)
        out->sum[i] += atomic_load_explicit(&s->sum[i], memory_order_relaxed);
    for (unsigned i = 0; i < MEMKIT__VARIANCES; i++)
        out->variance[i] += as_double(atomic_load_explicit(&s->variance[i], memory_order_relaxed));
}

void memkit__sums_get(const memkit__site *site, memkit__sums_read *out)
{
    const memkit__site_sums *all = site->sums;
    memset(out, 0, sizeof *out);
    add_up(&all->common, out);
    for (unsigned i = 0; i < MEMKIT__OWN_SUMS; i++) {
        const memkit__sums *own = atomic_load_explicit(&all->own[i], memory_order_acquire);
        if (own != NULL)
            add_up(own, out);
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
