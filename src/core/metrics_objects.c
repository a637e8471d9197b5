/* metrics_objects.c - walks what the pools, caches and named arenas publish.
 *
 * Family by family, as the text format wants a family's samples together, so the objects are walked
 * once a family. An object brings its families along (node->families): a program that has pools
 * alone does not draw caches and arenas in.
 */
#include "core/internal.h"
#include "core/metrics.h"
#include "core/registry.h"

typedef struct {
    size_t index; /* of the family */
    bool there;
    void (*fn)(void *arg, const memkit__metric *m);
    void *arg;
} walk;

static void hand(void *arg, const memkit__node *node)
{
    walk *w = arg;
    if (w->index >= node->families->n)
        return;
    const memkit__family *f = &node->families->list[w->index];
    w->there = true;
    memkit__metric m = {.family = f->name,
                        .type = f->type,
                        .help = f->help,
                        .label = node->families->label,
                        .name = node->name,
                        .id = node->id,
                        .value = f->value(node)};
    w->fn(w->arg, &m);
}

void memkit__each_metric(void (*fn)(void *arg, const memkit__metric *m), void *arg)
{
    for (int kind = 0; kind < MEMKIT__KINDS; kind++) {
        walk w = {.fn = fn, .arg = arg};
        do {
            w.there = false;
            memkit__each((memkit__kind)kind, hand, &w);
            w.index++;
        } while (w.there);
    }
}
