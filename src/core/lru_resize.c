/* lru_resize.c - new bounds, and clear: both leave the shard to others as often as they can.
 *
 * Growing sets two numbers; the index grows in later sets (lru_index.c). Shrinking sinks the bounds
 * of one shard after another, in steps of at most STEP pieces of work under one hold of the lock.
 * A piece is: an entry evicted, a slab or block given back, a few slots of the index moved.
 *
 *     bytes  |#########|        |#######|          |#####|             |####|
 *     bound  |---------|  step  |-------|  step    |-----|    ...      |----|-->| the new bound
 *
 * After each step the bound in force is what the shard still holds, so it is a true bound at every
 * moment, and the shard is an ordinary full one. Sets that come in between evict for themselves;
 * once entries have to go, no set may add to their number, so that the end comes nearer with every
 * step. With on_evict a step ends with each entry, since only what was told of can be freed.
 *
 * An index too heavy for the new bound gives way to a smaller one, allocated beforehand: when few
 * enough entries are left the two change places, and the old one drains into it as it would into a
 * larger one.
 *
 * Clear takes all entries out at once: an empty index comes, the list is hung up in `cleared`, and
 * then its entries leave in steps. A set that needs memory meanwhile takes theirs.
 *
 * Locking: resize_lock makes resizes one at a time, and covers every shard's `resized`.
 */
#include <sched.h>

#include "core/lru_unit.h"

/* MOVED: slots that count as one piece of work; LOOKED: units looked at in one step;
 * CLEARED_AT_ONCE: bytes of an index that is emptied where it is. */
enum { STEP = 64, MOVED = 8, LOOKED = 1024, SPARE_ROUNDS = 64, CLEARED_AT_ONCE = 64 << 10 };
enum { DONE = 0, AGAIN = -1 }; /* or an errno */

/* The lock is given up, what left is told of, and somebody else may have a turn. */
static void pause_between_steps(memkit__lru_shard *s, memkit__lru_leavers *leavers)
{
    memkit__lru_unlock(s);
    if (leavers->first != 0)
        memkit__lru_tell(s, leavers);
    else if (s->locked)
        sched_yield(); /* a mutex is not fair: who waits for it would hardly ever get it */
    memkit__lru_lock(s);
    memkit__lru_let_go(s, leavers);
}

static void drain_cleared(memkit__lru_shard *s)
{
    memkit__lru_leavers leavers = {0, 0, NULL};
    memkit__lru_lock(s);
    while (s->cleared != 0) {
        for (int i = 0; i < STEP && s->cleared != 0 && leavers.first == 0; i++)
            memkit__lru_leave_cleared(s, &leavers);
        pause_between_steps(s, &leavers);
    }
    memkit__lru_unlock(s);
}

/* -- what the bounds mean for a shard -- */

/* The aim of one shard's resize. */
typedef struct {
    size_t entries, bytes;
    size_t ceiling; /* the larger of the old bound and the new one */
    size_t rounds;  /* evictions left: on_evict may put back what it is told of */
    size_t idle;    /* blocks still to be given back, since fewer entries need less memory */
} aim;

/* What the shard holds once its index is the one it should have. */
static size_t weight(const memkit__lru_shard *s)
{
    const memkit__lru_table *last = s->resized.slots != NULL ? &s->resized : &s->index.now;
    return s->bytes - memkit__lru_index_bytes(s) + memkit__lru_table_bytes(last);
}

/* And what it holds at least, as long as nobody releases anything, where the table of units ends
 * with `last`. */
static size_t least_weight(const memkit__lru_shard *s, uint32_t last)
{
    return weight(s) - memkit__lru_units_excess(s, last) - (s->slab_bytes - s->pinned_slab_bytes) -
           (s->big_bytes - s->pinned_big);
}

/* True where the pinned entries alone are over the bound. The last of their units may matter, and
 * is looked for only then. */
static bool is_pinned_over(memkit__lru_shard *s, size_t bytes)
{
    memkit__lru_leavers none = {0, 0, NULL};
    uint32_t last = s->unit_count - 1, looked = 0;
    if (least_weight(s, last) <= bytes)
        return false;
    if (least_weight(s, memkit__lru_pinned_units(s)) > bytes)
        return true;
    while (last > 0 && (last >= s->unit_count || s->units[last].pinned == 0)) {
        last--;
        if (++looked % LOOKED == 0)
            pause_between_steps(s, &none);
    }
    return least_weight(s, last) > bytes;
}

/* Whether the shard can take the bounds, and the smaller index it may need. */
static int prepare(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    drain_cleared(s);
    memkit__lru_lock(s);
    s->resizing = true;
    size_t pinned = s->pinned - s->gone_pinned;
    size_t room = memkit__lru_wanted_index(s->cache, entries, bytes);
    if (room < pinned)
        room = pinned;
    /* An index that weighs more than a quarter of the new bound is made anew. */
    bool anew = bytes != SIZE_MAX && memkit__lru_index_bytes(s) > bytes / 4 &&
                memkit__lru_table_bytes_for(room) < memkit__lru_table_bytes(&s->index.now);
    memkit__lru_unlock(s);
    if (pinned > entries)
        return EBUSY;
    uint32_t epoch = memkit__takes_now();
    if (anew && memkit__lru_table_init(&s->resized, room) != 0)
        return ENOMEM;
    memkit__own(s->resized.slots, epoch);
    memkit__lru_lock(s);
    bool fits = !is_pinned_over(s, bytes);
    memkit__lru_unlock(s);
    return fits ? DONE : EBUSY;
}

/* -- steps -- */

static int evict(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    if (s->cleared != 0) {
        memkit__lru_leave_cleared(s, leavers);
        return AGAIN;
    }
    if (s->count == 0 || a->rounds == 0)
        return EBUSY;
    a->rounds--;
    s->sinking = true;
    memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_RESIZED, leavers);
    return AGAIN;
}

static int lighten(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    if (memkit__lru_give_back_one(s) || memkit__lru_units_trim(s, STEP))
        return AGAIN;
    return evict(s, a, leavers);
}

/* Slots of the old index go to the new one. One that finds no place there (lru_index.c says how
 * seldom) is an entry that leaves. */
static int move_slots(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    size_t before = s->index.moved;
    memkit__lru_move_index(s, MOVED);
    if (s->index.old.slots == NULL || s->index.moved != before)
        return AGAIN;
    uint32_t handle = (uint32_t)s->index.old.slots[before];
    a->rounds -= a->rounds > 0;
    memkit__lru_leave(s, handle, MEMKIT_LRU_RESIZED, leavers);
    return AGAIN;
}

static int change_index(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    if (s->index.old.slots != NULL)
        return move_slots(s, a, leavers);
    size_t bytes = memkit__lru_table_bytes(&s->resized) + MEMKIT__LRU_MALLOC_BYTES;
    if (s->bytes > a->ceiling - bytes)
        return lighten(s, a, leavers); /* for a while there are two */
    s->bytes += bytes;
    memkit__lru_index_grow(&s->index, s->resized);
    s->resized = (memkit__lru_table){NULL, 0, 0};
    return AGAIN;
}

/* True where the new bound would leave no room for a slab: a last entry keeps a long table of units
 * alive, say. Pins may make it so for good; that is no reason to refuse. */
static bool is_cramped(const memkit__lru_shard *s, const aim *a)
{
    return weight(s) - s->slab_bytes - s->big_bytes + memkit__lru_slab_cost(s->slab_granules) +
               memkit__lru_unit_growth(s) >
           a->bytes;
}

static bool can_lighten(const memkit__lru_shard *s, const aim *a)
{
    return (s->count + s->cleared_count > 0 && a->rounds > 0) || s->empty_slab != 0 ||
           s->units[s->unit_count - 1].base == NULL;
}

/* One piece of work towards the aim. */
static int piece(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    if (least_weight(s, memkit__lru_pinned_units(s)) > a->bytes)
        return EBUSY; /* nothing that could leave would help */
    if (s->count > a->entries)
        return evict(s, a, leavers);
    if (s->resized.slots != NULL && s->count > memkit__lru_table_room(&s->resized))
        return evict(s, a, leavers);
    if (weight(s) > a->bytes || (is_cramped(s, a) && can_lighten(s, a)))
        return lighten(s, a, leavers);
    if (s->resized.slots != NULL)
        return change_index(s, a, leavers);
    if (s->bytes > a->bytes)
        return move_slots(s, a, leavers);
    if (a->idle == 0 || !memkit__lru_give_back_one(s))
        return DONE;
    a->idle--;
    return AGAIN;
}

/* The bound in force: what is held, or the new one; and as long as the old index is there, room for
 * a slab beside it, lest a set find none. With two indexes it may rise again, below the ceiling. */
static void sink_bytes(memkit__lru_shard *s, const aim *a)
{
    size_t least = s->bytes - s->slab_bytes - s->big_bytes +
                   memkit__lru_slab_cost(s->slab_granules) + memkit__lru_unit_growth(s);
    least = least > s->bytes ? least : s->bytes;
    least = least > a->bytes ? least : a->bytes;
    if (least < s->max_bytes || s->max_bytes < s->bytes)
        s->max_bytes = least < a->ceiling ? least : a->ceiling;
}

static int step(memkit__lru_shard *s, aim *a, memkit__lru_leavers *leavers)
{
    int result = AGAIN;
    for (int i = 0; i < STEP && result == AGAIN && leavers->first == 0; i++)
        result = piece(s, a, leavers);
    if (s->sinking)
        s->max_entries = s->count > 0 ? s->count : 1;
    sink_bytes(s, a);
    return result;
}

static void set_slab_size(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    uint32_t granules =
        memkit__lru_slab_granules(memkit__lru_slab_bytes_for(s->cache, entries, bytes));
    uint32_t id = 0;
    memkit__lru_leavers none = {0, 0, NULL};
    while (granules != s->slab_granules && !memkit__lru_age_slabs(s, &id))
        pause_between_steps(s, &none);
    memkit__lru_set_slab_granules(s, granules);
}

static void set_bounds(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    s->resizing = s->sinking = false;
    s->max_entries = entries;
    s->max_bytes = bytes;
}

/* 0, and the bounds are in force; or EBUSY, and they are somewhere between old and new. */
static int apply(memkit__lru_shard *s, size_t entries, size_t bytes)
{
    memkit__lru_leavers leavers = {0, 0, NULL};
    memkit__lru_lock(s);
    aim a = {.entries = entries,
             .bytes = bytes,
             .ceiling = s->max_bytes > bytes ? s->max_bytes : bytes,
             .rounds = s->count + SPARE_ROUNDS,
             .idle = entries < s->max_entries ? s->unit_count : 0};
    set_slab_size(s, entries, bytes);
    int result;
    while ((result = step(s, &a, &leavers)) == AGAIN)
        pause_between_steps(s, &leavers);
    if (result == DONE)
        set_bounds(s, entries, bytes);
    memkit__lru_unlock(s);
    return result;
}

/* -- resize -- */

/* After an error: the bounds that were, which hold all there is, and no index left over. */
static void undo(memkit_lru *c)
{
    size_t entries, bytes;
    memkit__lru_shares(c, c->max_entries, c->max_bytes, &entries, &bytes);
    for (uint32_t i = 0; i < c->shard_count; i++) {
        memkit__lru_shard *s = memkit__lru_shard_at(c, i);
        memkit__lru_table_free(&s->resized);
        memkit__lru_lock(s);
        set_slab_size(s, entries, bytes);
        set_bounds(s, entries, bytes);
        memkit__lru_unlock(s);
    }
}

static int resize(memkit_lru *c, size_t max_entries, size_t max_bytes)
{
    size_t entries, bytes;
    if (!memkit__lru_shares(c, max_entries, max_bytes, &entries, &bytes))
        return EINVAL;
    int error = DONE;
    for (uint32_t i = 0; error == DONE && i < c->shard_count; i++)
        error = prepare(memkit__lru_shard_at(c, i), entries, bytes);
    for (uint32_t i = 0; error == DONE && i < c->shard_count; i++)
        error = apply(memkit__lru_shard_at(c, i), entries, bytes);
    if (error != DONE) {
        undo(c);
        return error;
    }
    c->max_entries = max_entries;
    c->max_bytes = max_bytes;
    return DONE;
}

int memkit_lru_resize(memkit_lru *c, size_t max_entries, size_t max_bytes)
{
    if (c == NULL) {
        errno = EINVAL;
        return -1;
    }
    uintptr_t self = (uintptr_t)pthread_self();
    if (c->resizer == self) { /* nobody else writes that */
        errno = EDEADLK;
        return -1;
    }
    if (c->locked)
        pthread_mutex_lock(&c->resize_lock);
    memkit__open_set(&c->resize_open); /* what a child makes of a half done one: lru_fork.c */
    c->resizer = self;
    int error = resize(c, max_entries, max_bytes);
    c->resizer = 0;
    memkit__open_clear(&c->resize_open);
    if (c->locked)
        pthread_mutex_unlock(&c->resize_lock);
    if (error == DONE)
        return 0;
    errno = error;
    return -1;
}

/* -- clear -- */

/* The list's entries, least recent first, to those that are cleared already. */
static void hang_up(memkit__lru_shard *s)
{
    if (s->count == 0)
        return;
    memkit__lru_at(s, s->ends.next)->prev = s->cleared;
    s->cleared = s->ends.prev;
    s->cleared_count += s->count;
    s->count = 0;
    s->ends.next = s->ends.prev = 0;
}

/* A small index is emptied, which costs less than page faults would; else an empty one comes, of
 * the size the bounds want: one that grew for many small entries would leave no room for large
 * ones. */
static void clear_shard(memkit__lru_shard *s)
{
    memkit__lru_table fresh = {NULL, 0, 0};
    memkit__lru_lock(s);
    size_t now = memkit__lru_table_bytes(&s->index.now);
    size_t room = memkit__lru_wanted_index(s->cache, s->max_entries, s->max_bytes);
    if (memkit__lru_table_bytes_for(room) >= now)
        room = now > CLEARED_AT_ONCE ? memkit__lru_table_room(&s->index.now) : 0;
    memkit__lru_unlock(s);
    uint32_t epoch = memkit__takes_now();
    if (room != 0 && memkit__lru_table_init(&fresh, room) != 0)
        fresh.slots = NULL; /* the old one has to do */
    memkit__own(fresh.slots, epoch);
    memkit__lru_lock(s);
    size_t before = memkit__lru_index_bytes(s);
    memkit__lru_table left = fresh, old = s->index.old;
    /* Not where a resize has made the index smaller meanwhile. */
    if (fresh.slots != NULL &&
        memkit__lru_table_bytes(&fresh) <= memkit__lru_table_bytes(&s->index.now)) {
        left = s->index.now;
        s->index.now = fresh;
    } else {
        memkit__lru_table_clear(&s->index.now);
    }
    s->index.old = (memkit__lru_table){NULL, 0, 0};
    s->index.moved = 0;
    s->bytes -= before - memkit__lru_index_bytes(s);
    hang_up(s);
    memkit__lru_unlock(s);
    memkit__lru_table_free(&left);
    memkit__lru_table_free(&old);
    drain_cleared(s);
}

void memkit_lru_clear(memkit_lru *c)
{
    if (c == NULL) {
        errno = EINVAL;
        return;
    }
    for (uint32_t i = 0; i < c->shard_count; i++)
        clear_shard(memkit__lru_shard_at(c, i));
}
