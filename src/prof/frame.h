/* frame.h - a frame of a stack, as one word.
 *
 *      63        48 47                                             0
 *     +------------+------------------------------------------------+
 *     | module id  |                return address                  |
 *     +------------+------------------------------------------------+
 *
 * - The return address, also for the pc that a signal interrupted: one is added to that. So a
 *   reader always takes one off, and is then within the call.
 * - The module id is that of module.h where the module may be unloaded, so that two that lay at
 *   the same address after each other are not taken for one; 0 where it stays for good, or where
 *   the code is in none.
 */
#ifndef MEMKIT_PROF_FRAME_H
#define MEMKIT_PROF_FRAME_H

#include <stdint.h>

#include <memkit/prof.h>

#define MEMKIT__FRAME_BITS 48u

static inline uintptr_t memkit__frame_pc(uint64_t frame)
{
    return (uintptr_t)(frame & ((UINT64_C(1) << MEMKIT__FRAME_BITS) - 1));
}

static inline uint32_t memkit__frame_module(uint64_t frame)
{
    return (uint32_t)(frame >> MEMKIT__FRAME_BITS);
}

#endif
