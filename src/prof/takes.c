/* takes.c - takes from pools, caches and arenas, as the heap profile counts them.
 *
 *               own                 take                      give
 *     maker's --------> held row ----------> taker's row ----------> held row       inuse_*
 *       row                                  + take_*
 *
 * - Every step takes off one row what it puts on another, to the bit: so the rows' sum is what the
 *   sampled blocks of malloc come to, whatever is taken. A block that is `own` is marked so in the
 *   block table, and its free goes to the held row's account (sampler.c).
 * - Takes are sampled as allocations are (chance.h): each by a Poisson process of bytes, whose
 *   countdown the core keeps, and independent of whether the block below was sampled. So with
 *   sparse samples the held row is a difference of two estimates; it may come out below 0, and is
 *   then shown as 0 (sums.c).
 * - A token is the site's address and the weight, so that what was added can be taken off without a
 *   look-up, at any later time and rate:
 *
 *       63               20 19    14 13       0
 *      +-------------------+--------+----------+
 *      | address / 16      | weight: exponent, fraction of the number, 1 at least |
 *      +-------------------+--------+----------+
 *
 * - What grows while it is out keeps its site, and its weight becomes that of its new size: had it
 *   had that from the start it would have been sampled as well. One that was not sampled is a take
 *   of the bytes added, with the whole's weight. Together that is as probable as it has to be.
 */
#include "prof/takes.h"

#include <errno.h>
#include <string.h>

#include "hook/attach.h"
#include "hook/counters.h"
#include "hook/real.h"
#include "prof/chance.h"
#include "prof/clock.h"
#include "prof/mem.h"
#include "prof/sampler.h"
#include "prof/sums.h"

#define WEIGHT_BITS   20u
#define WEIGHT_SHIFT  38u /* of a double's bits */
#define WEIGHT_OF_ONE (UINT64_C(1023) << 14)
#define STEP          UINT64_C(0x9e3779b97f4a7c15) /* chance.h's, of one number to the next */

static memkit__site_sums held_sums;
memkit__site memkit__held_site = {.id = UINT32_MAX, .sums = &held_sums};

static _Atomic uint64_t rate, most_bytes, random_state;
static _Atomic uint32_t epoch;
static _Atomic size_t side_bytes;

/* ---- tokens ---------------------------------------------------------------------------------- */

/* 0: the site's address does not fit. Rounds the weight to 14 bits behind the point. */
static uint64_t make_token(const memkit__site *site, double weight)
{
    uint64_t at = (uint64_t)(uintptr_t)site, bits;
    memcpy(&bits, &weight, sizeof bits);
    uint64_t code = ((bits + (UINT64_C(1) << (WEIGHT_SHIFT - 1))) >> WEIGHT_SHIFT) - WEIGHT_OF_ONE;
    if ((at & 15) != 0 || at >> 48 != 0 || code >> WEIGHT_BITS != 0)
        return 0;
    return at >> 4 << WEIGHT_BITS | code;
}

static memkit__site *site_of(uint64_t token)
{
    return (memkit__site *)(uintptr_t)(token >> WEIGHT_BITS << 4);
}

static double weight_of(uint64_t token)
{
    uint64_t code = token & ((UINT64_C(1) << WEIGHT_BITS) - 1);
    uint64_t bits = (code + WEIGHT_OF_ONE) << WEIGHT_SHIFT;
    double weight;
    memcpy(&weight, &bits, sizeof weight);
    return weight;
}

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t objects, bytes; /* fixed-point */
    double objects_variance, bytes_variance;
} amount;

static amount amount_of(double w, uint64_t objects, uint64_t bytes)
{
    double v = w > 1 ? w * (w - 1) : 0, size = (double)bytes;
    return (amount){memkit__sums_objects(w) * objects, memkit__sums_bytes(w, bytes), v,
                    v * size * size};
}

static void add_variances(memkit__adder to, unsigned objects_type, amount a, int sign)
{
    if (a.objects_variance > 0) {
        memkit__sums_add_variance(to, objects_type, sign * a.objects_variance);
        memkit__sums_add_variance(to, objects_type + 1, sign * a.bytes_variance);
    }
}

/* From the held row to the token's, or back with sign -1. The held row's variance is the sum of
 * both. A part of a block leaves the block where it is. */
static void move(uint64_t token, uint64_t objects, uint64_t bytes, bool whole, int sign)
{
    double w = weight_of(token);
    amount a = amount_of(w, objects, bytes);
    memkit__adder to = memkit__sums_adder(site_of(token), w);
    memkit__adder held = memkit__sums_adder(&memkit__held_site, w);
    uint64_t by = sign > 0 ? 1 : UINT64_MAX; /* modulo 2^64, as the sums are */
    memkit__sums_add(to, MEMKIT__INUSE_OBJECTS, by * a.objects);
    memkit__sums_add(to, MEMKIT__INUSE_SPACE, by * a.bytes);
    memkit__sums_add(held, MEMKIT__INUSE_SPACE, 0 - by * a.bytes);
    if (whole)
        memkit__sums_add(held, MEMKIT__INUSE_OBJECTS, 0 - by * a.objects);
    add_variances(to, MEMKIT__INUSE_OBJECTS, a, sign);
    add_variances(held, MEMKIT__INUSE_OBJECTS, a, sign);
}

static void count_take(memkit__site *site, double w, uint64_t objects, uint64_t bytes)
{
    amount a = amount_of(w, objects, bytes);
    memkit__adder to = memkit__sums_adder(site, w);
    memkit__sums_add(to, MEMKIT__TAKE_OBJECTS, a.objects);
    memkit__sums_add(to, MEMKIT__TAKE_SPACE, a.bytes);
    add_variances(to, MEMKIT__TAKE_OBJECTS, a, 1);
}

/* ---- the attach table ------------------------------------------------------------------------ */

uint32_t memkit__takes_epoch_now(void)
{
    return atomic_load(&epoch);
}

void memkit__takes_own(const void *p)
{
    if (memkit__perhaps_sampled(p))
        memkit__sample_own((void *)(uintptr_t)p);
}

int64_t memkit__takes_room(size_t *mean)
{
    uint64_t now = atomic_load(&rate);
    *mean = (size_t)now;
    if (now == 0)
        return INT64_MAX / 2; /* stopped at this moment */
    if (now == 1)
        return 0;
    uint64_t state = atomic_fetch_add_explicit(&random_state, STEP, memory_order_relaxed);
    return (int64_t)memkit__chance_gap(&state, now) - 1;
}

uint64_t memkit__takes_take(const memkit__taking *t)
{
    if (memkit__me.unobserved > 0 || memkit__me.quiet > 0)
        return 0;
    int saved = errno;
    double weight = t->mean <= 1 ? 1 : memkit__chance_weight(t->bytes, t->mean);
    memkit__site *site =
        memkit__sample_site((memkit__asked){t->bytes, (uintptr_t)t->function, t->from});
    uint64_t token = site != NULL ? make_token(site, weight) : 0;
    if (token == 0) {
        atomic_fetch_add(&memkit__sampler_dropped, 1);
    } else {
        count_take(site, weight, t->old_bytes == 0, t->bytes - t->old_bytes);
        if (t->stocked)
            move(token, 1, t->bytes, t->whole, 1);
        else
            token = 0;
    }
    errno = saved;
    return token;
}

/* A weight says how probable an object of those bytes was, and so how one of others is. */
static double other_weight(double w, size_t old_bytes, size_t bytes)
{
    if (w <= 1 || bytes == 0)
        return w;
    double x = -memkit__chance_ln(1 - 1 / w) * (double)bytes / (double)old_bytes;
    return 1 / memkit__chance_hit(x);
}

uint64_t memkit__takes_retake(uint64_t token, size_t old_bytes, size_t bytes, bool whole)
{
    uint64_t after = make_token(site_of(token), other_weight(weight_of(token), old_bytes, bytes));
    /* Its objects, of which only a charge of weight 1 has more than one, stay what they were. */
    bool single = after != token;
    move(token, single, old_bytes, whole, -1);
    move(after, single, bytes, whole, 1);
    if (bytes > old_bytes)
        count_take(site_of(after), weight_of(after), 0, bytes - old_bytes);
    return after;
}

void memkit__takes_give(uint64_t token, size_t bytes, uint64_t objects, bool whole)
{
    move(token, objects, bytes, whole, -1);
}

/* By the real malloc: in no counter and no profile, and bounded with the rest. */
void *memkit__takes_side(void *p, size_t old_bytes, size_t bytes)
{
    if (bytes > old_bytes && memkit__kept_bytes() + atomic_load(&side_bytes) + (bytes - old_bytes) >
                                 atomic_load(&most_bytes))
        return NULL;
    int saved = errno;
    void *q = NULL;
    if (bytes == 0)
        memkit__real.free(p);
    else
        q = p == NULL ? memkit__real.malloc(bytes) : memkit__real.realloc(p, bytes);
    if (q != NULL || bytes == 0)
        atomic_fetch_add(&side_bytes, bytes - old_bytes);
    errno = saved;
    return q;
}

size_t memkit__takes_side_bytes(void)
{
    return atomic_load(&side_bytes);
}

/* ---- control --------------------------------------------------------------------------------- */

void memkit__takes_seed(uint64_t seed)
{
    atomic_store(&random_state, memkit__chance_mix(seed));
}

void memkit__takes_rate(uint64_t mean, uint64_t max_bytes)
{
    if (atomic_load(&random_state) == 0)
        memkit__takes_seed(memkit__clock_ticks());
    if (mean != 0)
        atomic_store(&most_bytes, max_bytes);
    atomic_store(&rate, mean);
    uint32_t next = (atomic_load(&epoch) | 1) + (mean != 0 ? 2 : 1);
    atomic_store(&epoch, next);
    memkit__tell_of_takes(next);
}
