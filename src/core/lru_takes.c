/* lru_takes.c - a cache's entries in the profile (takes.h): an entry's bytes are charged to whoever
 * set it, until it has gone and its last reference is released.
 *
 *     charges   [handle, bytes, token][ ][ ][handle, ...][ ] ...     2^n slots, at most half taken
 *
 * Few entries are charged where samples are sparse, and bytes an entry matter: so the tokens are
 * not in the entries but in a table by handle, with linear probing and shifting back. It is there
 * only once an entry was sampled, and is the profiler's memory. Whether a unit is stock is noted in
 * bytes that are unused otherwise: the first 4 of a slab, the 4 before a big entry's ttl word.
 * Locking: the shard's.
 */
#include "core/lru_unit.h"
#include "core/track.h"

enum { FIRST_SLOTS = 16 };

static uint32_t home_of(const memkit__lru_shard *s, uint32_t handle)
{
    return (uint32_t)(handle * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (s->charge_slots - 1);
}

/* The slot of the handle, or the empty one where its search ends. */
static uint32_t seek(const memkit__lru_shard *s, uint32_t handle)
{
    uint32_t i = home_of(s, handle);
    while (s->charges[i].handle != 0 && s->charges[i].handle != handle)
        i = (i + 1) & (s->charge_slots - 1);
    return i;
}

static bool ensure_slot(memkit__lru_shard *s)
{
    if (s->charge_count < s->charge_slots / 2)
        return true;
    uint32_t old_slots = s->charge_slots, slots = old_slots != 0 ? old_slots * 2 : FIRST_SLOTS;
    memkit__lru_charge *old = s->charges, *more = memkit__side(NULL, 0, slots * sizeof *more);
    if (more == NULL)
        return false;
    memset(more, 0, slots * sizeof *more);
    s->charges = more;
    s->charge_slots = slots;
    for (uint32_t i = 0; i < old_slots; i++)
        if (old[i].handle != 0)
            more[seek(s, old[i].handle)] = old[i];
    memkit__side(old, old_slots * sizeof *old, 0);
    return true;
}

static char *stocked_word(memkit__lru_shard *s, uint32_t id)
{
    const memkit__lru_unit *u = &s->units[id];
    return u->cls == s->big_class ? u->base - MEMKIT__LRU_TTL_BYTES - sizeof(uint32_t)
                                  : memkit__lru_slab_memory(s, u);
}

/* A slab's head is hidden from the tools, but for this moment; they keep account of 8 bytes. */
void memkit__lru_set_stocked(memkit__lru_shard *s, uint32_t unit, bool stocked)
{
    uint32_t word = stocked;
    char *at = stocked_word(s, unit);
    if (s->units[unit].cls != s->big_class)
        memkit__show(at, 8);
    memcpy(at, &word, sizeof word);
}

static bool is_stocked(memkit__lru_shard *s, uint32_t unit)
{
    uint32_t word;
    char *at = stocked_word(s, unit);
    if (s->units[unit].cls != s->big_class)
        memkit__show(at, 8);
    memcpy(&word, at, sizeof word);
    return word != 0;
}

void memkit__lru_take(memkit__lru_shard *s, uint32_t handle, size_t entry_bytes, const void *from)
{
    if (!memkit__take_due(&s->takes, entry_bytes))
        return;
    uint64_t token = memkit__charge(
        &s->takes, (memkit__taking){.function = (const void *)(uintptr_t)memkit_lru_set,
                                    .from = from,
                                    .bytes = entry_bytes,
                                    .stocked = is_stocked(s, handle >> 12)});
    if (token == 0)
        return;
    if (!ensure_slot(s)) { /* what cannot be remembered is not charged */
        memkit__uncharge(token, entry_bytes, 1, false);
        return;
    }
    s->charges[seek(s, handle)] = (memkit__lru_charge){handle, entry_bytes, token};
    s->charge_count++;
}

/* Empties slot i; who was pushed on by it moves up. */
static void remove_slot(memkit__lru_shard *s, uint32_t i)
{
    const uint32_t mask = s->charge_slots - 1;
    for (uint32_t next = (i + 1) & mask; s->charges[next].handle != 0; next = (next + 1) & mask) {
        uint32_t home = home_of(s, s->charges[next].handle);
        if (((next - home) & mask) >= ((next - i) & mask)) {
            s->charges[i] = s->charges[next];
            i = next;
        }
    }
    s->charges[i].handle = 0;
    s->charge_count--;
}

void memkit__lru_give(memkit__lru_shard *s, uint32_t handle)
{
    uint32_t i = seek(s, handle);
    if (s->charges[i].handle == 0)
        return;
    memkit__uncharge(s->charges[i].token, s->charges[i].bytes, 1, false);
    remove_slot(s, i);
}

void memkit__lru_give_all(memkit__lru_shard *s)
{
    if (s->charges == NULL)
        return;
    for (uint32_t i = 0; i < s->charge_slots; i++)
        if (s->charges[i].handle != 0)
            memkit__uncharge(s->charges[i].token, s->charges[i].bytes, 1, false);
    memkit__side(s->charges, s->charge_slots * sizeof *s->charges, 0);
    s->charges = NULL;
    s->charge_slots = s->charge_count = 0;
}
