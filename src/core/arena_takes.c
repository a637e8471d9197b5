/* arena_takes.c - what an arena gave out in the profile (takes.h): charged to whoever asked, until
 * a rewind, reset or free takes it back.
 *
 *     chunk   | taken            |                        |              |
 *                          counted_to, ptr       end: the next sample    chunk's end
 *                                <-- countdown.room -->
 *
 * The inline path is not told: it finds less room. When a request does not fit, the slow path sees
 * that the countdown has run out (and not the chunk), gives out the block and samples it. How many
 * bytes the inline path gave out since is what ptr moved by. So the owner's own calls begin and end
 * it, the first that is not inline: another thread may not touch `end`.
 *
 * Charges are a stack, as marks are; each has the serial of the mark to come, so that a rewind to
 * mark m takes back those of larger serials than m's. At a mean of 1 byte all blocks are charged:
 * what one stack takes in a row is one charge. Memory that is not stock - the caller's, the chunks
 * from before the profiler was started - is charged to nobody, but its takes are counted.
 * Locking: none, the arena's owner's.
 */
#include "core/arena_impl.h"

enum { FIRST_CHARGES = 16 };

void memkit__arena_watch(arena *a)
{
    if (is_watched(a))
        count_inline(a);
    memkit__countdown_sync(&a->takes);
    a->counted_to = a->pub.ptr;
    set_end(a);
}

static big *big_at(const arena *a, const char *p)
{
    return a->bigs != NULL && p == (char *)a->bigs + BIG_HEADER ? a->bigs : NULL;
}

static bool ensure_charge(arena *a)
{
    if (a->charge_count < a->charge_room)
        return true;
    uint32_t room = a->charge_room != 0 ? a->charge_room * 2 : FIRST_CHARGES;
    size_t bytes = room * sizeof(charge);
    charge *more = room <= UINT32_MAX / 2
                       ? memkit__side(a->charges, a->charge_room * sizeof(charge), bytes)
                       : NULL;
    if (more == NULL)
        return false;
    a->charges = more;
    a->charge_room = room;
    return true;
}

static charge *latest(const arena *a)
{
    return a->charge_count > 0 ? &a->charges[a->charge_count - 1] : NULL;
}

/* What cannot be remembered is not charged. */
static void remember(arena *a, charge c, big *b, bool exact)
{
    charge *before = latest(a);
    if (exact && b == NULL && before != NULL && before->token == c.token &&
        before->serial == c.serial && before->end != NULL) {
        before->bytes += c.bytes;
        before->objects++;
        before->end = c.end;
    } else if (ensure_charge(a)) {
        a->charges[a->charge_count++] = c;
        if (b != NULL)
            b->charge = a->charge_count;
    } else {
        memkit__uncharge(c.token, c.bytes, 1, false);
    }
}

static void sample(arena *a, char *p, memkit__taking t)
{
    big *b = big_at(a, p);
    bool exact = a->takes.mean == 1;
    t.stocked = b != NULL ? b->stocked : a->chunk->stocked;
    uint64_t token = memkit__charge(&a->takes, t);
    if (token != 0)
        remember(a,
                 (charge){.token = token,
                          .bytes = t.bytes,
                          .objects = 1,
                          .serial = a->serial,
                          .end = b != NULL ? NULL : a->pub.ptr},
                 b, exact);
    set_end(a);
}

void memkit__arena_charge(arena *a, char *p, size_t need, const void *from)
{
    /* The name of the inline function, of which this is a copy. */
    sample(a, p,
           (memkit__taking){.function = (const void *)(uintptr_t)memkit_arena_alloc,
                            .from = from,
                            .bytes = need});
}

/* More of a block that nobody is charged for: a take of what was added. */
static void grown(arena *a, char *p, size_t old_need, size_t need)
{
    if (!is_watched(a) || need <= old_need)
        return;
    if (memkit__take_due(&a->takes, need - old_need))
        sample(a, p, (memkit__taking){.bytes = need, .old_bytes = old_need});
    else
        set_end(a);
}

/* The charge of what ended at ptr, where that was the latest; there may be big blocks since. */
static charge *charge_to(const arena *a, const char *ptr)
{
    for (uint32_t i = a->charge_count; i-- > 0;)
        if (a->charges[i].end != NULL)
            return a->charges[i].end == ptr ? &a->charges[i] : NULL;
    return NULL;
}

void memkit__arena_resized(arena *a, char *p, size_t old_need, size_t need, char *old_ptr)
{
    charge *c = old_need != 0 ? charge_to(a, old_ptr) : NULL;
    if (c == NULL) {
        grown(a, p, old_need, need);
        return;
    }
    c->end = a->pub.ptr;
    c->token = memkit__recharge(c->token, c->bytes, c->bytes - old_need + need, false);
    c->bytes += need - old_need;
}

void memkit__arena_big_resized(arena *a, big *b, size_t old_need)
{
    if (b->charge == 0) {
        grown(a, (char *)b + BIG_HEADER, old_need, b->used);
        return;
    }
    charge *c = &a->charges[b->charge - 1];
    if (b->stocked) {
        c->token = memkit__recharge(c->token, old_need, b->used, false);
        c->bytes = b->used;
    } else { /* it moved while nobody looked */
        memkit__uncharge(c->token, c->bytes, 1, false);
        c->bytes = c->objects = 0;
        b->charge = 0;
    }
}

void memkit__arena_give(arena *a, uint64_t serial)
{
    for (charge *c; (c = latest(a)) != NULL && c->serial > serial; a->charge_count--)
        if (c->objects != 0)
            memkit__uncharge(c->token, c->bytes, c->objects, false);
    if (a->charge_count == 0 && !is_watched(a))
        memkit__arena_forget(a);
}

void memkit__arena_forget(arena *a)
{
    if (a->charges != NULL)
        memkit__side(a->charges, a->charge_room * sizeof(charge), 0);
    a->charges = NULL;
    a->charge_room = 0;
}
