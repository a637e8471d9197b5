/* unwind_cache.c - the rules of the pcs that walks came by, for all threads.
 *
 *     pc   =  | 0 16 | tag 34 | bucket 14 |        cache: 2^14 buckets of 4 words
 *                        |         |
 *                        v         v
 *                   bucket: [ tag 34 | rule 30 ] x 4      each word read and written whole
 *
 * - The low bits of a return address are as good as any hash of it, and at hand without the three
 *   cycles of a multiplication: a walk waits for each.
 * - Where the cache has no rule, the unwind tables of the module at pc are asked, once for each pc
 *   of the program. Any thread fills the cache, without a lock: a word is a whole key and its rule,
 *   so a word read is either the right rule or another pc's.
 * - Rules of modules that may be unloaded are marked. Where one is used, the loader is asked whose
 *   code lies there now (once a module and walk); when a module turned up where another was, all
 *   rules are thrown away.
 */
#include "prof/unwind_cache.h"

#include "prof/mem.h"
#include "prof/unwind.h"

#define CACHE_WORDS (MEMKIT__CACHE_WAYS * MEMKIT__CACHE_BUCKETS)

static _Atomic(_Atomic uint64_t *) cache;
/* memkit__modules_replaced that the cache was last emptied for. */
static _Atomic uint32_t cache_age;

void memkit__cache_begin(memkit__walker *k)
{
    k->cache = atomic_load_explicit(&cache, memory_order_acquire);
    k->n_checked = 0;
    k->common.m = NULL;
    k->age = atomic_load_explicit(&cache_age, memory_order_relaxed);
}

static void keep(_Atomic uint64_t *c, uintptr_t pc, uint32_t rule)
{
    _Atomic uint64_t *bucket = memkit__cache_bucket(c, pc);
    unsigned at = 0;
    while (at < MEMKIT__CACHE_WAYS && atomic_load_explicit(&bucket[at], memory_order_relaxed) != 0)
        at++;
    if (at == MEMKIT__CACHE_WAYS) /* full: any one goes */
        at = (unsigned)(pc / MEMKIT__CACHE_BUCKETS) % MEMKIT__CACHE_WAYS;
    atomic_store_explicit(&bucket[at], memkit__cache_tag(pc) | rule, memory_order_relaxed);
}

static void empty(_Atomic uint64_t *c)
{
    for (size_t i = 0; c != NULL && i < CACHE_WORDS; i++)
        if (atomic_load_explicit(&c[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&c[i], 0, memory_order_relaxed);
}

/* Throws all rules away where a module lies now where another did. */
static void check_age(memkit__walker *k)
{
    uint32_t now = atomic_load(&memkit__modules_replaced);
    uint32_t before = atomic_load(&cache_age);
    k->age = now;
    k->common.m = NULL;
    if (now != before && atomic_compare_exchange_strong(&cache_age, &before, now))
        empty(k->cache);
}

void memkit__unwind_forget(const uint64_t *frames, unsigned n)
{
    memkit__thread *t = memkit__thread_here();
    _Atomic uint64_t *c = atomic_load(&cache);
    if (t != NULL)
        memkit__memo_drop(t);
    if (n == 0)
        empty(c);
    for (unsigned i = 0; c != NULL && i < n; i++) {
        _Atomic uint64_t *bucket = memkit__cache_bucket(c, memkit__frame_pc(frames[i]));
        for (unsigned way = 0; way < MEMKIT__CACHE_WAYS; way++)
            atomic_store_explicit(&bucket[way], 0, memory_order_relaxed);
    }
}

const memkit__module *memkit__cache_module(memkit__walker *k, uintptr_t pc)
{
    for (unsigned i = 0; i < k->n_checked; i++)
        if (pc >= k->checked[i]->start && pc < k->checked[i]->end)
            return k->checked[i];
    const memkit__module *m = memkit__module_at(pc);
    if (m != NULL && k->n_checked < MEMKIT__CACHE_CHECKED)
        k->checked[k->n_checked++] = m;
    if (atomic_load_explicit(&memkit__modules_replaced, memory_order_relaxed) != k->age)
        check_age(k);
    return m;
}

static uint32_t find_rule(memkit__walker *k, const memkit__module *m, uintptr_t pc)
{
    uint32_t rule = memkit__rule_find_by(&k->common, m, pc - 1);
    if (rule == MEMKIT__NO_RULE)
        rule = memkit__is_sigreturn(pc) ? MEMKIT__SIGNAL : MEMKIT__BY_POINTER;
    if (!m->stays)
        rule |= MEMKIT__RULE_T;
    if (k->cache != NULL) {
        keep(k->cache, pc, rule);
        if (atomic_load(&memkit__modules_replaced) != k->age) /* perhaps the tables of one gone */
            check_age(k);
    }
    return rule;
}

uint32_t memkit__cache_rule_now(memkit__walker *k, uintptr_t pc, uint64_t *frame)
{
    const memkit__module *m = memkit__cache_module(k, pc - 1);
    *frame = pc;
    if (m == NULL)
        return MEMKIT__NO_RULE;
    if (!m->stays && m->id <= UINT16_MAX)
        *frame |= (uint64_t)m->id << MEMKIT__FRAME_BITS;
    uint32_t rule = k->cache != NULL ? memkit__cache_rule(k->cache, pc) : MEMKIT__NO_RULE;
    return rule != MEMKIT__NO_RULE ? rule & ~(uint32_t)MEMKIT__CACHE_TAGS : find_rule(k, m, pc);
}

int memkit__unwind_prepare(void)
{
    if (memkit__modules_prepare() != 0)
        return -1;
    if (atomic_load(&cache) != NULL)
        return 0;
    _Atomic uint64_t *made = memkit__kept_map(CACHE_WORDS * sizeof *made);
    _Atomic uint64_t *none = NULL;
    if (made == NULL)
        return -1;
    if (!atomic_compare_exchange_strong(&cache, &none, made))
        memkit__kept_unmap((void *)made, CACHE_WORDS * sizeof *made);
    return 0;
}
