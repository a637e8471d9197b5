/* counter.h - a counter that one thread writes and any thread reads: no lock prefix, no fence. */
#ifndef MEMKIT_CORE_COUNTER_H
#define MEMKIT_CORE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t memkit__counter;

/* On x86 one instruction, so that a signal handler that counts cannot fall in between either; gcc
 * makes three of the portable form. Adding a negative number's two's complement subtracts. */
static inline void memkit__bump(memkit__counter *c, uint64_t by)
{
#if defined(__x86_64__)
    __asm__ volatile("addq %1, %0" : "+m"(*c) : "er"(by) : "cc");
#else
    uint64_t now = atomic_load_explicit(c, memory_order_relaxed);
    atomic_store_explicit(c, now + by, memory_order_relaxed);
#endif
}

static inline uint64_t memkit__read(const memkit__counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

#endif
