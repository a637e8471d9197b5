/* attach.c - memkit_prof_attach: the cores in this process, and what they are told.
 *
 * There may be several copies of libmemkit in a process (a static one in the program, a shared one
 * under a plugin); each attaches its own table. One mutex guards the list; it is taken before a
 * core's registry lock, so a core must not attach or detach with that lock held. Nothing on
 * malloc's path comes here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hook/attach.h"
#include "hook/counters.h"
#include "hook/report.h"
#include "hook/timing.h"
#include "prof/takes.h"

#define MAX_CORES 16

/* The least that a core's table must cover for us to use it. */
#define CORE_SIZE (offsetof(memkit__core_table, each_object) + sizeof(void (*)(void)))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const memkit__core_table *cores[MAX_CORES];

void memkit__each_attached(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CORES; i++)
        if (cores[i] != NULL)
            cores[i]->each_object(fn, arg);
    pthread_mutex_unlock(&lock);
}

typedef struct {
    void (*fn)(void *arg, unsigned core, const memkit__metric *m);
    void *arg;
    unsigned core;
} metric_sink;

static void hand_metric(void *arg, const memkit__metric *m)
{
    const metric_sink *s = arg;
    s->fn(s->arg, s->core, m);
}

void memkit__each_core_metric(void (*fn)(void *arg, unsigned core, const memkit__metric *m),
                              void *arg)
{
    metric_sink s = {fn, arg, 0};
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CORES; i++) {
        const memkit__core_table *c = cores[i];
        if (c == NULL ||
            c->size < offsetof(memkit__core_table, each_metric) + sizeof c->each_metric ||
            c->each_metric == NULL)
            continue;
        c->each_metric(hand_metric, &s);
        s.core++;
    }
    pthread_mutex_unlock(&lock);
}

#define TAKES_SIZE (offsetof(memkit__core_table, takes) + sizeof(void (*)(uint32_t)))

void memkit__tell_of_takes(uint32_t epoch)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CORES; i++)
        if (cores[i] != NULL && cores[i]->size >= TAKES_SIZE && cores[i]->takes != NULL)
            cores[i]->takes(epoch);
    pthread_mutex_unlock(&lock);
}

/* Asks the question by trying: calls the malloc that the rest of the program finds, looks whether
 * this thread's counters moved, and puts them back. */
static int try_malloc(void)
{
    void *(*their_malloc)(size_t);
    void (*their_free)(void *);
    void *fn = dlsym(RTLD_DEFAULT, "malloc");
    memcpy(&their_malloc, &fn, sizeof fn);
    fn = dlsym(RTLD_DEFAULT, "free");
    memcpy(&their_free, &fn, sizeof fn);
    if (their_malloc == NULL || their_free == NULL)
        return 0;
    memkit__tally before;
    if (!memkit__trial_begin(
            &before)) /* at its end a thread has nothing to watch but the address */
        return their_malloc == malloc;
    void *p = their_malloc(1);
    int moved = memkit__trial_count(&before) == 1;
    their_free(p);
    moved = moved && memkit__trial_count(&before) == 2;
    memkit__trial_end(&before);
    return moved;
}

int memkit__hooked(void)
{
    static atomic_int answer; /* 0: nobody asked yet; else 1 + the answer, which does not change */
    int known = atomic_load(&answer);
    if (known == 0) {
        known = 1 + try_malloc();
        atomic_store(&answer, known);
    }
    return known - 1;
}

/* The rows of a core that leaves before the process ends are kept for the table. */
static void detach(const memkit__core_table *core)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CORES; i++)
        if (cores[i] == core) {
            if (memkit__report_wanted())
                core->each_object(memkit__report_keep, NULL);
            cores[i] = NULL;
        }
    pthread_mutex_unlock(&lock);
}

static const memkit__prof_table table = {
    .abi = MEMKIT__ATTACH_ABI,
    .size = sizeof table,
    .hooked = memkit__hooked,
    .thread_counts = memkit__thread_counts,
    .process_counts = memkit__process_counts,
    .detach = detach,
    .times = memkit__timing_read,
    .takes_epoch = memkit__takes_epoch_now,
    .own = memkit__takes_own,
    .take_room = memkit__takes_room,
    .take = memkit__takes_take,
    .retake = memkit__takes_retake,
    .give = memkit__takes_give,
    .side = memkit__takes_side,
};

const memkit__prof_table *memkit_prof_attach(const memkit__core_table *core)
{
    if (core == NULL || core->abi != MEMKIT__ATTACH_ABI || core->size < CORE_SIZE)
        return NULL;
    const memkit__prof_table *answer = NULL;
    pthread_mutex_lock(&lock);
    int place = -1;
    for (int i = MAX_CORES - 1; i >= 0; i--) {
        if (cores[i] == core) { /* again: it keeps its place */
            place = i;
            break;
        }
        if (cores[i] == NULL)
            place = i;
    }
    if (place >= 0) {
        cores[place] = core;
        answer = &table;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}
