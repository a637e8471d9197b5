/* unwind_cache.h - the rules of the pcs that walks came by: unwind_cache.c. */
#ifndef MEMKIT_PROF_UNWIND_CACHE_H
#define MEMKIT_PROF_UNWIND_CACHE_H

#include "prof/cfi.h"
#include "prof/unwind_impl.h"

#pragma GCC visibility push(hidden)

#define MEMKIT__CACHE_WAYS    4u
#define MEMKIT__CACHE_BUCKETS ((uintptr_t)1 << 14)
#define MEMKIT__CACHE_TAGS    (~UINT64_C(0) << MEMKIT__RULE_BITS)
#define MEMKIT__CACHE_CHECKED 4u

/* Code without tables: by the frame pointer. */
#define MEMKIT__BY_POINTER memkit__rule(MEMKIT__LONG, 0, 1)

/* What a walk needs beside its registers. */
typedef struct {
    memkit__walk w;
    _Atomic uint64_t *cache;                              /* NULL: there is none */
    const memkit__module *checked[MEMKIT__CACHE_CHECKED]; /* are loaded now */
    unsigned n_checked;
    uint32_t age;   /* of the cache */
    uintptr_t from; /* sp where the walk came onto this stack */
    bool lost;      /* it ended at a frame that sp and bp are not enough for */
    memkit__cfi_common common;
} memkit__walker;

/* The cache, for a walk that begins. */
void memkit__cache_begin(memkit__walker *k);

/* The module at pc now, asked once a walk. */
const memkit__module *memkit__cache_module(memkit__walker *k, uintptr_t pc);

/* The rule and the module's part of the frame word, where the cache alone does not tell: a pc that
 * is new, or in a module that may go. NO_RULE: code in no module. */
uint32_t memkit__cache_rule_now(memkit__walker *k, uintptr_t pc, uint64_t *frame);

static inline _Atomic uint64_t *memkit__cache_bucket(_Atomic uint64_t *c, uintptr_t pc)
{
    return c + pc % MEMKIT__CACHE_BUCKETS * MEMKIT__CACHE_WAYS;
}

static inline uint64_t memkit__cache_tag(uintptr_t pc)
{
    return pc / MEMKIT__CACHE_BUCKETS << MEMKIT__RULE_BITS;
}

/* The rule of a pc below 2^48, with two bits of the tag above it that are not the rule's; NO_RULE:
 * not here. */
static inline uint32_t memkit__cache_rule(_Atomic uint64_t *c, uintptr_t pc)
{
    uint64_t tag = memkit__cache_tag(pc);
    const _Atomic uint64_t *bucket = memkit__cache_bucket(c, pc);
    for (unsigned i = 0; i < MEMKIT__CACHE_WAYS; i++) {
        uint64_t word = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        if ((word & MEMKIT__CACHE_TAGS) == tag) /* that of pcs below 2^14 is an empty word's */
            return (uint32_t)word;
    }
    return MEMKIT__NO_RULE;
}

#pragma GCC visibility pop

#endif
