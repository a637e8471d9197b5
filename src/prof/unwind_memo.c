/* unwind_memo.c - a thread's last stack, which the next one shares its outer frames with.
 *
 *     memo[memo_first]   memo[memo_first + 1]   ...   memo[MEMKIT__MEMO - 1]    innermost first
 *     where it was taken                              main      _start
 *
 * - A walk looks first, from the outermost frame inward, how far the words that the last one read
 *   (return addresses, and frame pointers where they matter) are still the same: that waits for
 *   nothing, unlike a walk, and ends at one branch. It then goes from frame to frame until it comes
 *   to a remembered one of that part in the same state (pc, sp, and bp where that matters): the
 *   rest is as it was, and is copied. Until there it costs a comparison of sp a frame.
 * - Only the new frames are written; they go in front of those that stay, whose places they leave.
 *   As writing costs as much as a step, three of four walks that share much leave it be.
 * - Frames left by anything but a simple rule, or of modules that may be unloaded, end the part
 *   that is looked for.
 * - Remembering costs as much as it saves where less than half is shared: then the next 1, 3, .. 31
 *   walks do without (unwind.c).
 * - All is the calling thread's own, and in use by one walk of it at a time.
 */
#include "prof/unwind_impl.h"

#define WORD sizeof(uintptr_t)

MEMKIT__READS_ANYTHING unsigned memkit__memo_intact(const memkit__thread *t, uintptr_t sp)
{
    unsigned first = t->memo_first, k = MEMKIT__MEMO - 1;
    if (first >= MEMKIT__MEMO)
        return MEMKIT__MEMO;
    for (; k > first; k--) {
        const memkit__memo *m = &t->memo[k];
        if (m->bp_at < sp) /* the lower one of the two */
            break;
        if (memkit__plain(memkit__word(m->at)) != t->memo_frames[k] ||
            memkit__plain(memkit__word(m->bp_at)) != m->bp_is)
            return k + 1; /* not this frame, then */
    }
    return k;
}

unsigned memkit__memo_beside(const memkit__thread *t, unsigned from, uintptr_t sp)
{
    while (from < MEMKIT__MEMO && t->memo[from].sp < sp)
        from++;
    return from;
}

/* Notes how the step that left *f came to the remembered frame k. */
static void reach(memkit__thread *t, unsigned k, const memkit__left *f)
{
    memkit__memo *m = &t->memo[k];
    unsigned kind = memkit__rule_kind(f->rule);
    m->at = m->bp_at = m->bp_is = 0;
    if ((kind != MEMKIT__BY_SP && kind != MEMKIT__BY_BP) || (f->rule & MEMKIT__RULE_T) != 0)
        return;
#if defined(__x86_64__)
    m->at = m->sp - WORD;
#else
    m->at = m->sp - f->below + WORD;
#endif
    bool read = f->below != 0 && m->needs_bp;
    m->bp_at = read ? m->sp - f->below : m->at;
    m->bp_is = read ? m->bp : t->memo_frames[k];
}

void memkit__memo_keep(memkit__thread *t, const uint64_t *frames, unsigned n, unsigned kept,
                       bool ends)
{
    memkit__memo_drop(t);
    if (n > kept) /* no room for so many */
        return;
    if (kept == MEMKIT__MEMO)
        t->memo_ends = ends;
    /* Where the walk may go on from the outermost frame, it goes on with the right bp. */
    bool needed = kept < MEMKIT__MEMO ? t->memo[kept].needs_bp : !ends;
    for (unsigned i = n, k = kept; i-- > 0;) {
        const memkit__left *f = &t->fresh[i];
        if (k < MEMKIT__MEMO)
            reach(t, k, f);
        needed = memkit__rule_kind(f->rule) != MEMKIT__BY_SP || (f->below == 0 && needed);
        k--;
        t->memo_frames[k] = frames[i];
        t->memo[k].sp = f->sp;
        t->memo[k].bp = f->bp;
        t->memo[k].needs_bp = needed;
    }
    t->memo_first = kept - n;
}
