/* unwind_stack.c - what of a stack may be read, so that no walk ever faults.
 *
 *     first thread    sp ............................ AT_RANDOM   the kernel keeps the 128 MiB
 *                                                                 below the top free for it
 *     other threads   [guard] low ... sp .......... thread pointer   libc puts its block on top
 *     anything else   sp .. end of page | next page ...           asked of the kernel, as needed:
 *                                                                 coroutines, signal stacks
 *
 * - A thread's low end is not known to us (pthread_getattr_np allocates), so its first walk is one
 *   of the third kind. Where that comes near the thread pointer, all pages from its sp to there are
 *   asked for once; from then on sp at or above that lowest page means the thread's own stack. The
 *   page below a stack is a guard page, so a coroutine's stack below it is never taken in (a stack
 *   given to pthread_attr_setstack may lack the guard).
 * - A page is asked for by a system call that reads from it and fails: rt_sigprocmask with a `how`
 *   there is not says EFAULT where it could not read the set, and EINVAL else. It changes nothing.
 * - What is known of a thread is found by an index in two bytes of thread-local storage, which a
 *   new thread has as zero. So a thread that got a dead one's place starts anew. The table is
 *   searched by the thread pointer, which libc uses again; entries are never taken away. With more
 *   than SLOTS distinct pointers the later ones do without: their walks ask for each page.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/internal.h"
#include "prof/mem.h"
#include "prof/unwind_impl.h"

#define PAGE         ((uintptr_t)4096) /* the smallest there is; larger ones are asked for twice */
#define MAIN_BYTES   ((uintptr_t)100 << 20)
#define THREAD_BYTES ((uintptr_t)256 << 20)
#define NEAR         ((uintptr_t)64 << 10) /* of start_thread's frame to the thread pointer */
#define STEP_BYTES   ((uintptr_t)256 << 10)
#define MAX_FAILED   8u
#define SLOTS        1024u
#define PROBES       8u

static _Atomic(memkit__thread *) slots[SLOTS];
static MEMKIT__TLS uint16_t my_slot; /* index + 1; 0: a new thread */

static bool page_readable(uintptr_t at)
{
    return syscall(SYS_rt_sigprocmask, ~0, at & ~(uintptr_t)7, NULL, (size_t)8) == -1 &&
           errno == EINVAL;
}

bool memkit__readable(uintptr_t from, size_t bytes)
{
    int before = errno;
    bool all = true;
    uintptr_t last = from + (bytes > 0 ? bytes - 1 : 0);
    if (last < from)
        return false;
    for (uintptr_t at = from; all; at = (at & ~(PAGE - 1)) + PAGE) {
        all = page_readable(at);
        if (last - at < PAGE && (last & ~(PAGE - 1)) == (at & ~(PAGE - 1)))
            break;
    }
    errno = before;
    return all;
}

/* Upper end of the first thread's stack. */
static uintptr_t main_end(void)
{
    static _Atomic uintptr_t end;
    uintptr_t known = atomic_load_explicit(&end, memory_order_relaxed);
    if (known == 0) {
        known = (uintptr_t)getauxval(AT_RANDOM) & ~(uintptr_t)7;
        atomic_store_explicit(&end, known, memory_order_relaxed);
    }
    return known;
}

/* ---- threads ---- */

static memkit__thread *claim(unsigned slot, uintptr_t pointer)
{
    memkit__thread *t = atomic_load_explicit(&slots[slot], memory_order_acquire);
    if (t == NULL) {
        memkit__thread *made = memkit__kept_alloc(sizeof *made);
        if (made == NULL)
            return NULL;
        atomic_store_explicit(&made->pointer, pointer, memory_order_relaxed);
        if (atomic_compare_exchange_strong(&slots[slot], &t, made))
            return made;
        /* another thread took the slot; the piece is lost, and small */
    }
    return atomic_load_explicit(&t->pointer, memory_order_relaxed) == pointer ? t : NULL;
}

static memkit__thread *thread_anew(void)
{
    uintptr_t pointer = memkit__thread_pointer();
    unsigned first = (unsigned)(pointer * UINT64_C(0x9e3779b97f4a7c15) >> 54);
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned slot = (first + i) % SLOTS;
        memkit__thread *t = claim(slot, pointer);
        if (t != NULL) {
            t->low = 0;
            t->failed = 0;
            memkit__memo_drop(t);
            t->pause = 0;
            t->idle = 0;
            t->busy = false;
            my_slot = (uint16_t)(slot + 1);
            return t;
        }
    }
    return NULL;
}

memkit__thread *memkit__thread_here(void)
{
    unsigned slot = my_slot;
    return slot != 0 ? atomic_load_explicit(&slots[slot - 1], memory_order_relaxed) : thread_anew();
}

/* ---- stacks ---- */

bool memkit__stack_of(memkit__stack *s, uintptr_t sp, memkit__thread *t)
{
    uintptr_t end = main_end();
    *s = (memkit__stack){
        .hi = end, .lo = end - MAIN_BYTES + 1, .firm = true, .main = true, .thread = t};
    if (sp < end && end - sp < MAIN_BYTES)
        return true;
    s->main = false;
    s->hi = memkit__thread_pointer();
    s->lo = t != NULL && t->low != 0 ? t->low : s->hi;
    if (sp >= s->lo && sp < s->hi)
        return true;
    s->firm = false;
    s->hi = (sp & ~(PAGE - 1)) + PAGE;
    return memkit__readable(sp, 1);
}

bool memkit__stack_extend(memkit__stack *s, uintptr_t from, uintptr_t to)
{
    if (s->firm || to < from || to - from > STEP_BYTES)
        return false;
    const memkit__thread *t = s->thread;
    if (t != NULL && t->low != 0 && from >= t->low && to <= memkit__thread_pointer()) {
        s->hi = memkit__thread_pointer();
        s->firm = true;
        return true;
    }
    uintptr_t first = from >= s->hi ? from : s->hi;
    if (!memkit__readable(first, to - first))
        return false;
    s->hi = ((to - 1) & ~(PAGE - 1)) + PAGE;
    return true;
}

void memkit__stack_learn(memkit__thread *t, uintptr_t from, uintptr_t to)
{
    if (t == NULL || t->failed >= MAX_FAILED)
        return;
    uintptr_t pointer = memkit__thread_pointer();
    from &= ~(PAGE - 1);
    uintptr_t known = t->low != 0 ? t->low : pointer;
    if (from >= known || pointer - from > THREAD_BYTES)
        return;
    /* Near what is known; or the walk itself went there. */
    if (known - from > STEP_BYTES && (to > pointer || pointer - to > NEAR))
        return;
    if (memkit__readable(from, known - from))
        t->low = from;
    else
        t->failed++;
}
