/* metrics.h - what an object publishes, and how a line of Prometheus's text is written.
 *
 *     pool, lru, arena --node->families--> metrics_objects.c --memkit__metric--> metrics.c
 *                                                                 and, through the attach table,
 *                                                                 /metrics of libmemkit-prof
 *
 * metrics_process.c is compiled into both libraries: it knows the format, and no object.
 */
#ifndef MEMKIT_CORE_METRICS_H
#define MEMKIT_CORE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include <memkit/buf.h>
#include <memkit/stats.h>

#include "core/attach.h"

struct memkit__node;

typedef struct {
    const char *name, *type, *help;
    uint64_t (*value)(const struct memkit__node *node);
} memkit__family;

/* The same for all objects of a kind. */
typedef struct memkit__families {
    const char *label; /* "pool", "cache", "arena": the label that holds the object's name */
    const memkit__family *list;
    size_t n;
} memkit__families;

extern const memkit__families memkit__pool_families, memkit__lru_families, memkit__arena_families;

/* Calls fn for each sample of each object of this copy, a family's samples one after the other.
 * Under the registry's lock: fn may not call memkit's objects. (metrics_objects.c) */
void memkit__each_metric(void (*fn)(void *arg, const memkit__metric *m), void *arg);

/* ---- metrics_process.c; all append: 0, or -1 with errno ---- */

/* # HELP and # TYPE. */
int memkit__metric_head(memkit_buf *out, const char *name, const char *type, const char *help);
/* A family of one sample without labels. */
int memkit__metric_one(memkit_buf *out, const char *name, const char *type, const char *help,
                       uint64_t value);
/* One line. core: 0, or a number that tells the copies of the core in a process apart. */
int memkit__metric_sample(memkit_buf *out, const memkit__metric *m, unsigned core);
int memkit__metrics_process(memkit_buf *out, const memkit_memstats_t *m);
int memkit__metrics_times(memkit_buf *out, const memkit__times *t);

/* Fills *out with what /proc says and, unless they are NULL, with the counters. */
void memkit__memstats_fill(memkit_memstats_t *out, const memkit__counts *counts);

#endif
