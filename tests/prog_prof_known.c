/* prog_prof_known.c - a program that knows what each of its functions allocates, and says so when
 * it ends: a line a function, "name alloc_objects alloc_space inuse_objects inuse_space
 * reallocs foreign_frees". A profile at rate 1 must say the same of the stacks
 * through it.
 *
 *     prog_prof_known [THREADS]
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EACH 1000 /* blocks of a thread and function */

typedef struct {
    unsigned long long objects, space, live_objects, live_space, reallocs, foreign;
} truth;

static truth sums[16]; /* each function's, of all threads */

/* One thread's blocks of one function, which another thread may be to free. */
typedef struct {
    void *blocks[EACH];
    size_t sizes[EACH];
    truth t;
} lot;

/* What a function allocated is used, so that the call is neither left out nor made a jump. */
#define KEEP(l, i, call, bytes)                              \
    do {                                                     \
        void *volatile p_ = (call);                          \
        if (p_ == NULL)                                      \
            abort();                                         \
        (l)->blocks[i] = p_;                                 \
        (l)->sizes[i] = (bytes);                             \
        (l)->t.objects++, (l)->t.space += (bytes);           \
        (l)->t.live_objects++, (l)->t.live_space += (bytes); \
    } while (0)

__attribute__((noinline)) static void known_malloc(lot *l)
{
    for (size_t i = 0; i < EACH; i++)
        KEEP(l, i, malloc(i * 7 % 300), i * 7 % 300);
}

__attribute__((noinline)) static void known_calloc(lot *l)
{
    for (size_t i = 0; i < EACH; i++)
        KEEP(l, i, calloc(i % 10 + 1, 50), (i % 10 + 1) * 50);
}

__attribute__((noinline)) static void known_aligned(lot *l)
{
    for (size_t i = 0; i < EACH; i++) {
        void *p = NULL;
        size_t n = 64 * (i % 9 + 1);
        if (i % 3 == 0)
            KEEP(l, i, aligned_alloc(64, n), n);
        else if (i % 3 == 1)
            KEEP(l, i, posix_memalign(&p, 256, n) == 0 ? p : NULL, n);
        else
            KEEP(l, i, memalign(32, n), n);
    }
}

__attribute__((noinline)) static void known_strdup(lot *l)
{
    static const char text[] = "forty characters, of which some are left";
    for (size_t i = 0; i < EACH; i++)
        KEEP(l, i, strdup(text + i % 20), strlen(text + i % 20) + 1);
}

/* Grows what it has just made: a block is allocated and one is freed each time. */
__attribute__((noinline)) static void known_realloc(lot *l)
{
    for (size_t i = 0; i < EACH; i += 10) {
        size_t n = 16 + i % 7;
        KEEP(l, i, realloc(NULL, n), n);
        for (size_t k = 1; k < 10; k++) {
            l->t.live_objects--, l->t.live_space -= l->sizes[i];
            void *old = l->blocks[i];
            n = n * 2 + k;
            KEEP(l, i, k % 2 == 1 ? realloc(old, n) : reallocarray(old, n, 1), n);
            l->t.reallocs++;
        }
    }
}

/* Beyond what mallocs keep in their heaps. */
__attribute__((noinline)) static void known_big(lot *l)
{
    for (size_t i = 0; i < 20; i++)
        KEEP(l, i, malloc(2000000 + i), 2000000 + i);
}

static const struct {
    const char *name;
    void (*run)(lot *l);
    size_t kept; /* of every `kept` blocks one stays till the end; 0: none */
    int foreign; /* the main thread frees */
} functions[] = {
    {"known_malloc", known_malloc, 4, 0},    {"known_calloc", known_calloc, 0, 1},
    {"known_aligned", known_aligned, 5, 1},  {"known_strdup", known_strdup, 3, 0},
    {"known_realloc", known_realloc, 20, 1}, {"known_big", known_big, 0, 0},
};

#define FUNCTIONS (sizeof functions / sizeof functions[0])

static void give_back(lot *l, size_t kept, int foreign)
{
    for (size_t i = 0; i < EACH; i++) {
        if (l->blocks[i] == NULL || (kept != 0 && i % kept == 0))
            continue;
        free(l->blocks[i]);
        l->blocks[i] = NULL;
        l->t.live_objects--, l->t.live_space -= l->sizes[i];
        l->t.foreign += (unsigned long long)foreign;
    }
}

static void *work(void *lots_of_it)
{
    lot *lots = lots_of_it;
    for (size_t f = 0; f < FUNCTIONS; f++) {
        functions[f].run(&lots[f]);
        if (!functions[f].foreign)
            give_back(&lots[f], functions[f].kept, 0);
    }
    return NULL;
}

static void add_up(const lot *lots)
{
    for (size_t f = 0; f < FUNCTIONS; f++) {
        const truth *t = &lots[f].t;
        sums[f].objects += t->objects, sums[f].space += t->space;
        sums[f].live_objects += t->live_objects, sums[f].live_space += t->live_space;
        sums[f].reallocs += t->reallocs, sums[f].foreign += t->foreign;
    }
}

int main(int argc, char **argv)
{
    static lot lots[16][FUNCTIONS];
    pthread_t threads[16];
    size_t n = argc > 1 ? (size_t)atoi(argv[1]) : 8;
    if (n < 1 || n > 16)
        return 2;
    for (size_t i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, work, lots[i]) != 0)
            return 2;
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        for (size_t f = 0; f < FUNCTIONS; f++)
            if (functions[f].foreign)
                give_back(&lots[i][f], functions[f].kept, 1);
        add_up(lots[i]);
    }
    for (size_t f = 0; f < FUNCTIONS; f++)
        printf("%s %llu %llu %llu %llu %llu %llu\n", functions[f].name, sums[f].objects,
               sums[f].space, sums[f].live_objects, sums[f].live_space, sums[f].reallocs,
               sums[f].foreign);
    return 0;
}
