/* lru_evict.c - how entries leave, and how memkit_lru_set finds room.
 *
 *     in the list --leave--> [ held: its callback is due ] --> [ gone: pinned ] --> freed
 *
 * Without on_evict an evicted entry is freed at once, and the entry that comes takes its memory.
 * With on_evict the victim has to stay readable until the callback is done, outside the lock. So
 * set evicts one entry, gives up the lock, calls back, frees, and looks again: once round per
 * victim, and in the end the victim's memory is freed and taken with the lock held, so that nobody,
 * not even the callback, can take it in between. A cache bounded by entries alone need not wait for
 * that: it has one chunk more than entries, and evicts after it has stored.
 *
 * A callback that stores what it is told of could make set go round for ever. After as many rounds
 * as there were entries all of them leave at once, which nothing stored meanwhile can make up for;
 * and after a few such rounds set gives up with ENOMEM.
 *
 * Replacing: the old entry becomes the most recent before room is made, so that it is the last to
 * go; when it is the only one left the bound is crossed until it is freed (within the call).
 */
#include "core/lru_find.h"
#include "core/lru_track.h"

enum { MOVE_SLOTS = 32, SPARE_ROUNDS = 64, LAST_ROUNDS = 4 };

/* An entry that nothing leads to any more: freed, or held for what is still to come. */
static MEMKIT__FORCE_INLINE void dismiss(memkit__lru_shard *s, uint32_t handle,
                                         memkit__lru_entry *e, memkit_lru_reason reason,
                                         memkit__lru_leavers *leavers)
{
    if (reason == MEMKIT_LRU_EVICTED || reason == MEMKIT_LRU_RESIZED)
        s->evictions++;
    else if (reason == MEMKIT_LRU_EXPIRED)
        s->expirations++;
    if (s->cache->on_evict == NULL && e->pins == 0) {
        memkit__lru_release(s, handle);
        return;
    }
    if (e->pins == 0)
        memkit__lru_account_pin(s, handle);
    s->gone_pinned++;
    e->prev = MEMKIT__LRU_GONE;
    if (s->cache->on_evict == NULL)
        return;
    memkit__lru_show_value(e);
    e->prev = MEMKIT__LRU_HELD;
    e->tag = (uint32_t)reason;
    e->next = 0;
    if (leavers->first == 0) {
        leavers->first = handle;
        leavers->entry = e;
    } else {
        memkit__lru_at(s, leavers->last)->next = handle;
    }
    leavers->last = handle;
}

/* For an entry whose index slot is another's already. */
static void leave_list(memkit__lru_shard *s, uint32_t handle, memkit_lru_reason reason,
                       memkit__lru_leavers *leavers)
{
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    memkit__lru_unlink(s, e);
    s->count--;
    dismiss(s, handle, e, reason, leavers);
}

void memkit__lru_leave(memkit__lru_shard *s, uint32_t handle, memkit_lru_reason reason,
                       memkit__lru_leavers *leavers)
{
    memkit__lru_index_remove(&s->index, memkit__lru_at(s, handle)->tag, handle);
    leave_list(s, handle, reason, leavers);
}

void memkit__lru_leave_cleared(memkit__lru_shard *s, memkit__lru_leavers *leavers)
{
    uint32_t handle = s->cleared;
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    s->cleared = e->prev;
    s->cleared_count--;
    dismiss(s, handle, e, MEMKIT_LRU_CLEARED, leavers);
}

/* Nothing holds or pins the entry any more. */
static void last_hold(memkit__lru_shard *s, uint32_t handle, const memkit__lru_entry *e)
{
    memkit__lru_account_unpin(s, handle);
    if (memkit__lru_is_gone(e)) {
        s->gone_pinned--;
        memkit__lru_release(s, handle);
    }
}

void memkit__lru_unpin(memkit__lru_shard *s, uint32_t handle, memkit__lru_entry *e)
{
    if (--e->pins == 0 && e->prev != MEMKIT__LRU_HELD) {
        memkit__lru_hide_value(e);
        last_hold(s, handle, e);
    }
}

void memkit__lru_tell(memkit__lru_shard *s, const memkit__lru_leavers *leavers)
{
    const memkit_lru *c = s->cache;
    const memkit__lru_entry *e = leavers->entry;
    for (uint32_t handle = leavers->first; handle != 0;) {
        c->on_evict(c->arg, memkit__lru_key(e), memkit__lru_klen(e), memkit__lru_value(e),
                    memkit__lru_vlen(e), (memkit_lru_reason)e->tag);
        /* Nobody else writes to a held entry's links; but units may be moving. */
        handle = e->next;
        if (handle != 0) {
            memkit__lru_lock(s);
            e = memkit__lru_at(s, handle);
            memkit__lru_unlock(s);
        }
    }
}

void memkit__lru_let_go(memkit__lru_shard *s, memkit__lru_leavers *leavers)
{
    for (uint32_t handle = leavers->first; handle != 0;) {
        memkit__lru_entry *e = memkit__lru_at(s, handle);
        uint32_t next = e->next;
        e->prev = MEMKIT__LRU_GONE;
        if (e->pins == 0)
            last_hold(s, handle, e);
        handle = next;
    }
    *leavers = (memkit__lru_leavers){0, 0, NULL};
}

void memkit__lru_part(memkit__lru_shard *s, memkit__lru_leavers *leavers)
{
    /* One at a time: what is kept for no reason would be in the way of a callback that stores. */
    while (leavers->first != 0) {
        memkit__lru_leavers one = {leavers->first, leavers->first, leavers->entry};
        uint32_t next = one.entry->next;
        one.entry->next = 0;
        memkit__lru_tell(s, &one);
        memkit__lru_lock(s);
        memkit__lru_let_go(s, &one);
        leavers->first = next;
        leavers->entry = memkit__lru_at(s, next);
        memkit__lru_unlock(s);
    }
}

/* -- set -- */

typedef struct {
    const void *key, *val;
    size_t klen, vlen, entry_bytes;
    uint32_t tag;
    uint64_t now;
    bool evicted;  /* in an earlier round */
    bool all_must; /* evict all there is, at once */
} set_op;

enum { DONE = 0, AGAIN = -1, ALL_AGAIN = -2 /* all had to leave */ }; /* or an errno */

static void write_value(memkit__lru_shard *s, memkit__lru_entry *e, const set_op *op)
{
    bool big = op->klen >= UINT16_MAX || op->vlen >= UINT32_MAX;
    if (MEMKIT_UNLIKELY(big)) {
        memkit__lru_big_of(e)->klen = op->klen;
        memkit__lru_big_of(e)->vlen = op->vlen;
    }
    e->klen = op->klen < UINT16_MAX ? (uint16_t)op->klen : UINT16_MAX;
    e->vlen = op->vlen < UINT32_MAX ? (uint32_t)op->vlen : UINT32_MAX;
    if (s->has_ttl) {
        uint64_t expiry;
        if (__builtin_add_overflow(op->now, s->cache->ttl_ms, &expiry))
            expiry = UINT64_MAX;
        memkit__lru_set_expiry(e, expiry);
    }
    char *value = (char *)e + memkit__lru_value_offset(op->klen);
    memkit__fresh(value, op->vlen);
    /* Both can only lie in other entries, but for an unlocked cache's owner who looks at an entry
     * without a pin: memmove costs nothing and spares him. */
    if (op->vlen > 0)
        memmove(value, op->val, op->vlen);
    memkit__hide(value, op->vlen);
}

static void write_entry(memkit__lru_shard *s, memkit__lru_entry *e, const set_op *op)
{
    e->tag = op->tag;
    memkit__fresh(memkit__lru_key(e), op->klen);
    if (op->klen > 0)
        memcpy(memkit__lru_key(e), op->key, op->klen);
    write_value(s, e, op);
}

/* Where the index is full and the bounds allow more entries: a larger one, as large as the entries
 * so far let expect. Costs one allocation; the entries move over in later calls. */
static void grow_index(memkit__lru_shard *s)
{
    size_t room = memkit__lru_table_room(&s->index.now), wanted = room * 2 + 8;
    if (s->max_bytes != SIZE_MAX) {
        size_t used = s->bytes - memkit__lru_table_bytes(&s->index.now);
        size_t expected = s->max_bytes / (used / (s->count + 1) + 10) + 8;
        size_t least = room + room / 8 + 1;
        if (wanted > expected)
            wanted = expected > least ? expected : least;
    }
    if (wanted > s->max_entries)
        wanted = s->max_entries;
    size_t bytes = memkit__lru_table_bytes_for(wanted) + MEMKIT__LRU_MALLOC_BYTES, total;
    if (!memkit__add(s->bytes, bytes, &total) ||
        !memkit__add(total, memkit__lru_slab_cost(s->slab_granules), &total) ||
        total > s->max_bytes)
        return;
    memkit__lru_table table;
    uint32_t epoch = memkit__takes_now();
    if (memkit__lru_table_init(&table, wanted) != 0)
        return;
    memkit__own(table.slots, epoch);
    memkit__lru_index_grow(&s->index, table);
    s->bytes += bytes;
}

void memkit__lru_move_index(memkit__lru_shard *s, size_t slots)
{
    size_t freed = memkit__lru_index_move(&s->index, slots);
    if (freed != 0)
        s->bytes -= freed + MEMKIT__LRU_MALLOC_BYTES;
}

/* True where one more entry needs one to go. */
static bool is_full(memkit__lru_shard *s)
{
    if (s->count >= s->max_entries)
        return true;
    if (MEMKIT_LIKELY(s->count < memkit__lru_table_room(&s->index.now)))
        return false;
    /* While a change of size is under way, it has to end first: a few sets at most. */
    if (s->index.old.slots != NULL || s->resizing)
        return true;
    grow_index(s);
    return s->count >= memkit__lru_table_room(&s->index.now);
}

/* Entries that were cleared, and not freed yet, go first. False: there is none but `old`. */
static bool evict_one(memkit__lru_shard *s, uint32_t old, memkit__lru_leavers *leavers)
{
    if (MEMKIT_UNLIKELY(s->cleared != 0)) {
        memkit__lru_leave_cleared(s, leavers);
        return true;
    }
    if (s->ends.prev == old)
        return false;
    memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_EVICTED, leavers);
    return true;
}

/* Memory for the entry, evicting for it. `old` is the entry it replaces, or 0. */
static int make_room(memkit__lru_shard *s, const set_op *op, uint32_t old, uint32_t *out,
                     memkit__lru_leavers *leavers)
{
    while ((*out = memkit__lru_alloc(s, op->entry_bytes, false)) == 0) {
        if (errno == ENOMEM)
            return ENOMEM;
        if (!evict_one(s, old, leavers)) {
            *out = old == 0 ? 0 : memkit__lru_alloc(s, op->entry_bytes, true);
            return *out == 0 ? ENOMEM : DONE;
        }
        while (op->all_must && evict_one(s, old, leavers)) {
        }
        if (s->cache->on_evict != NULL)
            return AGAIN;
    }
    return DONE;
}

static int try_set(memkit__lru_shard *s, const set_op *op, memkit__lru_leavers *leavers)
{
    uint32_t old = memkit__lru_find(s, op->tag, op->key, op->klen);
    if (old != 0 && s->has_ttl && memkit__lru_expiry(memkit__lru_at(s, old)) <= op->now) {
        memkit__lru_leave(s, old, MEMKIT_LRU_EXPIRED, leavers);
        old = 0;
    }
    bool calls = s->cache->on_evict != NULL;
    if (old != 0 && !calls) {
        memkit__lru_entry *e = memkit__lru_at(s, old);
        if (e->pins == 0 && memkit__lru_fits_in(s, old, op->entry_bytes)) {
            memkit__lru_touch(s, old, e);
            if (MEMKIT_UNLIKELY(s->charge_count != 0))
                memkit__lru_give(s, old);
            write_value(s, e, op);
            return DONE;
        }
    }
    int error;
    if (MEMKIT_UNLIKELY(!memkit__lru_can_fit(s, op->entry_bytes))) {
        /* EBUSY and E2BIG promise that nothing has left: after an eviction they are ENOMEM. */
        if ((error = memkit__lru_make_way(s, op->entry_bytes, old, leavers)) != 0)
            return op->evicted ? ENOMEM : error;
        if (calls && leavers->first != 0)
            return ALL_AGAIN;
    }
    bool full = false;
    if (old != 0) {
        memkit__lru_touch(s, old, memkit__lru_at(s, old));
    } else if ((full = is_full(s))) {
        if (MEMKIT_UNLIKELY(s->pinned - s->gone_pinned == s->count) && !s->sinking &&
            s->cleared == 0) /* else what is full, or pinned, will not be so for long */
            return op->evicted ? ENOMEM : EBUSY;
        if (!calls)
            memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_EVICTED, leavers);
    }
    uint32_t handle;
    if ((error = make_room(s, op, old, &handle, leavers)) != 0)
        return error;
    memkit__lru_entry *e = memkit__lru_at(s, handle);
    write_entry(s, e, op);
    if (old != 0) {
        memkit__lru_index_replace(&s->index, op->tag, old, handle);
        leave_list(s, old, MEMKIT_LRU_REPLACED, leavers);
    } else {
        if (full && calls)
            memkit__lru_leave(s, s->ends.prev, MEMKIT_LRU_EVICTED, leavers);
        if (MEMKIT_UNLIKELY(!memkit__lru_index_insert(&s->index, op->tag, handle))) {
            memkit__lru_release(s, handle);
            return ENOMEM;
        }
    }
    memkit__lru_link_first(s, handle, e);
    s->count++;
    return DONE;
}

int memkit_lru_set(memkit_lru *c, const void *key, size_t klen, const void *val, size_t vlen)
{
    if (c == NULL || (key == NULL && klen > 0) || (val == NULL && vlen > 0)) {
        errno = EINVAL;
        return -1;
    }
    set_op op = {.key = key, .val = val, .klen = klen, .vlen = vlen};
    if (!memkit__lru_entry_bytes(c, klen, vlen, &op.entry_bytes)) {
        errno = E2BIG;
        return -1;
    }
    if (MEMKIT_UNLIKELY(c->closing)) {
        errno = EBUSY;
        return -1;
    }
    memkit__lru_shard *s = memkit__lru_locate(c, key, klen, &op.tag);
    op.now = memkit__lru_now(c);
    memkit__lru_leavers leavers = {0, 0, NULL};
    memkit__lru_lock(s);
    if (MEMKIT_UNLIKELY(s->index.old.slots != NULL))
        memkit__lru_move_index(s, MOVE_SLOTS);
    size_t rounds = 0, many = s->count + s->cleared_count + SPARE_ROUNDS;
    int error;
    while ((error = try_set(s, &op, &leavers)) < 0) {
        if (error == ALL_AGAIN && rounds < many)
            rounds = many; /* a few of those are enough */
        memkit__lru_unlock(s);
        memkit__lru_tell(s, &leavers);
        memkit__lru_lock(s);
        memkit__lru_let_go(s, &leavers);
        op.evicted = true;
        op.all_must = ++rounds > many;
        if (rounds > many + LAST_ROUNDS) {
            error = ENOMEM;
            break;
        }
    }
    if (error == DONE) {
        s->sets++;
        if (memkit__takes_wanted()) /* what was set is the most recent */
            memkit__lru_take(s, s->ends.next, op.entry_bytes, MEMKIT__RETURNS_TO);
    }
    memkit__lru_unlock(s);
    if (MEMKIT_UNLIKELY(leavers.first != 0))
        memkit__lru_part(s, &leavers);
    if (MEMKIT_LIKELY(error == DONE))
        return 0;
    errno = error;
    return -1;
}
