/* takes.c - see takes.h. The way to the profiler's table, and the countdowns.
 *
 * Nothing here is called before a profiler has said that it wants takes, so none of it is on a path
 * of a program that is not profiled.
 */
#include "core/takes.h"

#include "core/internal.h"

_Atomic uint32_t memkit__takes_epoch;

/* The table, where it has all of this. */
static const memkit__prof_table *takes_table(void)
{
    const memkit__prof_table *prof = memkit__prof();
    bool whole =
        prof != NULL && prof->size >= offsetof(memkit__prof_table, side) + sizeof prof->side;
    return whole ? prof : NULL;
}

void memkit__takes_set(uint32_t epoch)
{
    uint32_t known = memkit__takes_now();
    while ((int32_t)(epoch - known) > 0 &&
           !atomic_compare_exchange_weak(&memkit__takes_epoch, &known, epoch)) {
    }
}

void memkit__countdown_sync(memkit__countdown *c)
{
    uint32_t now = memkit__takes_now();
    if (MEMKIT_LIKELY(c->epoch == now))
        return;
    const memkit__prof_table *prof = takes_table();
    c->epoch = now;
    c->mean = 0;
    c->room = (now & 1) != 0 && prof != NULL ? prof->take_room(&c->mean) : INT64_MAX;
}

bool memkit__take_due(memkit__countdown *c, size_t bytes)
{
    memkit__countdown_sync(c);
    c->room -= (int64_t)bytes;
    return MEMKIT_UNLIKELY(c->room < 0);
}

uint64_t memkit__charge(memkit__countdown *c, memkit__taking t)
{
    const memkit__prof_table *prof = takes_table();
    if (prof == NULL)
        return 0;
    t.mean = c->mean;
    uint64_t token = prof->take(&t);
    c->room = prof->take_room(&c->mean);
    return token;
}

void memkit__uncharge(uint64_t token, size_t bytes, uint64_t objects, bool whole)
{
    const memkit__prof_table *prof = takes_table();
    if (prof != NULL)
        prof->give(token, bytes, objects, whole);
}

uint64_t memkit__recharge(uint64_t token, size_t old_bytes, size_t bytes, bool whole)
{
    const memkit__prof_table *prof = takes_table();
    return prof != NULL ? prof->retake(token, old_bytes, bytes, whole) : 0;
}

void *memkit__side(void *p, size_t old_bytes, size_t bytes)
{
    const memkit__prof_table *prof = takes_table();
    return prof != NULL ? prof->side(p, old_bytes, bytes) : NULL;
}

void memkit__own_slow(const void *p)
{
    const memkit__prof_table *prof = takes_table();
    if (prof != NULL)
        prof->own(p);
}
