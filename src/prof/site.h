/* site.h - distinct stacks, each once: a table that only grows.
 *
 * Finding and adding takes no lock and no malloc, so that it may run inside malloc and in a signal
 * handler. There are two tables: of the heap profiler and of the CPU profiler.
 */
#ifndef MEMKIT_PROF_SITE_H
#define MEMKIT_PROF_SITE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "prof/frame.h"

#pragma GCC visibility push(hidden)

typedef struct memkit__sites memkit__sites; /* site.c */
extern memkit__sites memkit__heap_sites, memkit__cpu_sites;

typedef struct memkit__site {
    uint64_t hash;
    uint32_t id; /* from 0, in order of appearance, without gaps once all adds are done */
    uint16_t depth;
    bool cut;
    uint32_t label; /* id of the thread's name, 0: none */
    void *sums;     /* of the table's owner; made with the site, `sums_bytes` of it, zeroed */
    uint64_t frames[];
} memkit__site;

/* The site of a stack, added if new. NULL: no room within the bound. */
memkit__site *memkit__site_find(memkit__sites *t, const uint64_t *frames, unsigned depth, bool cut,
                                uint32_t label);

/* How many sites there are, and one of them; NULL while it is just being added. */
uint32_t memkit__site_count(const memkit__sites *t);
memkit__site *memkit__site_at(const memkit__sites *t, uint32_t id);

#pragma GCC visibility pop

#endif
