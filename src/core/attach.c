/* attach.c - the core's side of the meeting point: finds libmemkit-prof and shows it our objects.
 *
 * Looked up once, by the constructor or by whoever asks before it ran (another library's
 * constructor may). The answer is kept: there is no later attach, and a libmemkit-prof once found
 * stays loaded. dlsym needs no library of its own on glibc >= 2.34 and musl; in a static program it
 * finds nothing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <memkit/version.h>

#include "core/attach.h"
#include "core/internal.h"
#include "core/metrics.h"
#include "core/registry.h"
#include "core/takes.h"

/* What a libmemkit-prof's table must cover for us to use it. */
#define PROF_SIZE (offsetof(memkit__prof_table, detach) + sizeof(void (*)(void)))

#define TAKES_SIZE (offsetof(memkit__prof_table, takes_epoch) + sizeof(uint32_t(*)(void)))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool looked;
static _Atomic(const memkit__prof_table *) prof;

typedef struct {
    void (*fn)(void *arg, const memkit__object_row *row);
    void *arg;
    const char *kind;
} row_sink;

static void hand_row(void *arg, const memkit__node *node)
{
    const row_sink *sink = arg;
    memkit__object_row row = {sink->kind, node->name, 0, 0};
    node->row(node, &row.live_bytes, &row.held_bytes);
    sink->fn(sink->arg, &row);
}

static void each_object(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    static const char *const kinds[MEMKIT__KINDS] = {"pool", "lru", "arena"};
    for (int kind = 0; kind < MEMKIT__KINDS; kind++)
        memkit__each((memkit__kind)kind, hand_row, &(row_sink){fn, arg, kinds[kind]});
}

static const memkit__core_table table = {
    .abi = MEMKIT__ATTACH_ABI,
    .size = sizeof table,
    .library_version = MEMKIT_VERSION,
    .each_object = each_object,
    .each_metric = memkit__each_metric,
    .takes = memkit__takes_set,
};

static void look(void)
{
    pthread_mutex_lock(&lock);
    if (!atomic_load(&looked)) {
        const memkit__prof_table *(*attach)(const memkit__core_table *);
        void *fn = dlsym(RTLD_DEFAULT, "memkit_prof_attach");
        memcpy(&attach, &fn, sizeof fn);
        const memkit__prof_table *found = attach != NULL ? attach(&table) : NULL;
        if (found != NULL && (found->abi != MEMKIT__ATTACH_ABI || found->size < PROF_SIZE))
            found = NULL;
        atomic_store(&prof, found);
        atomic_store(&looked, true);
        /* A profiler that runs already; one that is started now tells of it by itself. */
        if (found != NULL && found->size >= TAKES_SIZE && found->takes_epoch != NULL)
            memkit__takes_set(found->takes_epoch());
    }
    pthread_mutex_unlock(&lock);
}

const memkit__prof_table *memkit__prof(void)
{
    if (MEMKIT_UNLIKELY(!atomic_load_explicit(&looked, memory_order_acquire)))
        look();
    return atomic_load_explicit(&prof, memory_order_relaxed);
}

void memkit__attach_hold(void)
{
    pthread_mutex_lock(&lock);
}

void memkit__attach_let_go(void)
{
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void begin(void)
{
    (void)memkit__prof();
}

/* The counters may still be read after this, by destructors that run later. */
__attribute__((destructor)) static void end(void)
{
    const memkit__prof_table *found = atomic_load(&prof);
    if (found != NULL)
        found->detach(&table);
}
