/* bench_lru.c - the cache beside one as C programs have it: a hash (uthash), a list, and a malloc
 * for each entry. 100,000 entries, keys of 21 bytes "user:%016x", values of 100 bytes.
 *
 *   hit_zipf, hit_uniform   every key is there; its value is copied out
 *   aside                   a million keys after Zipf: get, and where that misses, set
 *   evict                   every key is new: set alone
 *
 * uthash's entries come from the counted malloc: that is 1 % of `evict`, and nothing elsewhere.
 * Both are unlocked; `memkit_locked` is the cache as it comes, thread-safe and one shard. Caches
 * are filled once and live as long as the program, so that all repetitions meet the same memory.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <uthash.h>

#include <memkit/memkit.h>

#include "bench.h"

enum { ENTRIES = 100000, KEYS = 1000000, KEY = 21, VALUE = 100, DRAWS = 1 << 20 };

/* ---- what is asked ---- */

static char (*keys)[24];
static uint32_t *zipf, *zipf_of_all, *uniform; /* draws of keys */

/* Ranks after Zipf with exponent 0.99, each rank's key somewhere among n. */
static uint32_t *draw_zipf(uint32_t n)
{
    double *below = bench_table(n, sizeof *below), sum = 0;
    uint32_t *draws = bench_table(DRAWS, sizeof *draws);
    uint64_t seed = n;
    for (uint32_t i = 0; i < n; i++)
        below[i] = sum += 1 / pow(i + 1.0, 0.99);
    for (int i = 0; i < DRAWS; i++) {
        double at = bench_uniform(&seed) * sum;
        uint32_t low = 0, high = n - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (below[middle] < at)
                low = middle + 1;
            else
                high = middle;
        }
        draws[i] = (uint32_t)(low * 7919ull % n); /* a prime that divides no n of ours */
    }
    free(below);
    return draws;
}

static void make_tables(void)
{
    uint64_t seed = 2;
    keys = bench_table(KEYS, sizeof *keys);
    for (uint32_t i = 0; i < KEYS; i++)
        snprintf(keys[i], sizeof keys[i], "user:%016x", i * 2654435761u);
    zipf = draw_zipf(ENTRIES);
    zipf_of_all = draw_zipf(KEYS);
    uniform = bench_table(DRAWS, sizeof *uniform);
    for (int i = 0; i < DRAWS; i++)
        uniform[i] = (uint32_t)(bench_random(&seed) % ENTRIES);
}

static void write_value(char value[VALUE], uint32_t key)
{
    memset(value, 'v', VALUE);
    memcpy(value, &key, sizeof key);
}

/* ---- the two caches ---- */

typedef struct entry {
    UT_hash_handle hh;
    struct entry *older, *newer;
    char key[KEY], value[VALUE];
} entry;

typedef struct {
    entry *hash;
    entry *oldest, *newest;
    unsigned count;
} plain_lru;

static void list_drop(plain_lru *c, entry *e)
{
    *(e->older != NULL ? &e->older->newer : &c->oldest) = e->newer;
    *(e->newer != NULL ? &e->newer->older : &c->newest) = e->older;
}

static void list_add(plain_lru *c, entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

/* uthash's macros, and what our warnings say about them. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"

static inline entry *hash_find(plain_lru *c, const char *key)
{
    entry *e;
    HASH_FIND(hh, c->hash, key, KEY, e);
    return e;
}

static inline void hash_drop(plain_lru *c, entry *e)
{
    HASH_DEL(c->hash, e);
}

static inline void hash_add(plain_lru *c, entry *e)
{
    HASH_ADD(hh, c->hash, key, KEY, e);
}

#pragma GCC diagnostic pop

static inline bool plain_get(void *cache, const char *key, char out[VALUE])
{
    plain_lru *c = cache;
    entry *e = hash_find(c, key);
    if (e == NULL)
        return false;
    if (e != c->newest) {
        list_drop(c, e);
        list_add(c, e);
    }
    memcpy(out, e->value, VALUE);
    return true;
}

static inline void plain_set(void *cache, const char *key, const char value[VALUE])
{
    plain_lru *c = cache;
    entry *e = hash_find(c, key);
    if (e != NULL) {
        list_drop(c, e);
    } else {
        if (c->count == ENTRIES) {
            entry *old = c->oldest;
            list_drop(c, old);
            hash_drop(c, old);
            free(old);
            c->count--;
        }
        e = malloc(sizeof *e);
        if (e == NULL)
            abort();
        memcpy(e->key, key, KEY);
        hash_add(c, e);
        c->count++;
    }
    memcpy(e->value, value, VALUE);
    list_add(c, e);
}

static void *plain_new(void)
{
    return bench_table(1, sizeof(plain_lru));
}

static inline bool memkit_get(void *cache, const char *key, char out[VALUE])
{
    size_t len;
    return memkit_lru_get_into(cache, key, KEY, out, VALUE, &len) == 1;
}

static inline void memkit_set(void *cache, const char *key, const char value[VALUE])
{
    if (memkit_lru_set(cache, key, KEY, value, VALUE) != 0)
        abort();
}

static void *memkit_new(unsigned shards)
{
    void *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = ENTRIES, .shards = shards});
    if (c == NULL)
        abort();
    return c;
}

static void *memkit_new_unlocked(void)
{
    return memkit_new(MEMKIT_LRU_UNLOCKED);
}

static void *memkit_new_locked(void)
{
    return memkit_new(0);
}

typedef struct {
    void *(*make)(void);
    bool (*get)(void *cache, const char *key, char out[VALUE]);
    void (*set)(void *cache, const char *key, const char value[VALUE]);
} cache_kind;

#define MEMKIT        ((cache_kind){memkit_new_unlocked, memkit_get, memkit_set})
#define MEMKIT_LOCKED ((cache_kind){memkit_new_locked, memkit_get, memkit_set})
#define UTHASH        ((cache_kind){plain_new, plain_get, plain_set})

static void *filled(cache_kind k)
{
    char value[VALUE];
    void *c = k.make();
    for (uint32_t i = 0; i < ENTRIES; i++) {
        write_value(value, i);
        k.set(c, keys[i], value);
    }
    return c;
}

/* ---- the work ---- */

BENCH_INLINE void hit_with(gbench_state *s, void *cache, cache_kind k, const uint32_t *draws)
{
    char out[VALUE];
    unsigned i = 0;
    GBENCH_LOOP(s)
    {
        if (!k.get(cache, keys[draws[i++ % DRAWS]], out))
            abort();
        GBENCH_KEEP(&out);
    }
}

BENCH_INLINE uint64_t aside_once(void *cache, cache_kind k, uint32_t key)
{
    char value[VALUE];
    if (k.get(cache, keys[key], value)) {
        GBENCH_KEEP(&value);
        return 1;
    }
    write_value(value, key);
    k.set(cache, keys[key], value);
    return 0;
}

/* Goes on where the last run left off: the same draws again would all be hits. */
BENCH_INLINE void aside_with(gbench_state *s, void *cache, cache_kind k, uint32_t *next)
{
    uint64_t hits = 0;
    uint32_t i = *next;
    GBENCH_LOOP(s)
    {
        hits += aside_once(cache, k, zipf_of_all[i++ % DRAWS]);
    }
    *next = i;
    gbench_counter(s, "hits", (double)hits, GBENCH_PER_ROUND);
}

/* Ten times as many keys as there is room for, in order: each was evicted long ago. */
BENCH_INLINE void evict_with(gbench_state *s, void *cache, cache_kind k, uint32_t *next)
{
    char value[VALUE];
    uint32_t i = *next;
    write_value(value, 0);
    GBENCH_LOOP(s)
    {
        k.set(cache, keys[i], value);
        i = i + 1 < KEYS ? i + 1 : 0;
    }
    *next = i;
}

#define ROW(name, kind, call)           \
    static void name(gbench_state *s)   \
    {                                   \
        const cache_kind k = kind;      \
        static void *c;                 \
        static uint32_t next = ENTRIES; \
        (void)next;                     \
        if (c == NULL)                  \
            c = filled(k);              \
        call;                           \
    }
#define ROWS(name, call)                    \
    ROW(name##_memkit, MEMKIT, call)        \
    ROW(name##_locked, MEMKIT_LOCKED, call) \
    ROW(name##_uthash, UTHASH, call)

ROWS(hit_zipf, hit_with(s, c, k, zipf))
ROWS(hit_uniform, hit_with(s, c, k, uniform))
ROWS(aside, aside_with(s, c, k, &next))
ROWS(evict, evict_with(s, c, k, &next))

/* The same requests, hit for hit, and what a hit gives is what was set. */
static const char *differ(void)
{
    make_tables();
    void *ours = filled(MEMKIT), *theirs = filled(UTHASH);
    uint64_t our_hits = 0, their_hits = 0, wrong = 0;
    for (uint32_t i = 0; i < 300000; i++) {
        char a[VALUE], b[VALUE];
        uint32_t key = zipf_of_all[i];
        our_hits += aside_once(ours, MEMKIT, key);
        their_hits += aside_once(theirs, UTHASH, key);
        wrong += our_hits != their_hits;
        wrong += !memkit_get(ours, keys[key], a) || !plain_get(theirs, keys[key], b) ||
                 memcmp(a, b, VALUE) != 0 || memcmp(a, &key, sizeof key) != 0;
    }
    memkit_lru_free(ours);
    for (entry *e = ((plain_lru *)theirs)->oldest, *newer; e != NULL; e = newer) {
        newer = e->newer;
        hash_drop(theirs, e);
        free(e);
    }
    free(theirs);
    if (wrong > 0)
        return "the two caches answered differently";
    return our_hits > 0 && our_hits < 300000 ? NULL : "no hits, or no misses";
}

static void add(const char *work, const gbench_fn rows[3], const char *target)
{
    static const char *const who[] = {"memkit", "memkit_locked", "uthash"};
    char names[3][64];
    for (int i = 0; i < 3; i++)
        snprintf(names[i], sizeof names[i], "lru/%s/%s", work, who[i]);
    gbench *b = bench_add(names[0], rows[0], differ);
    gbench *locked = bench_add(names[1], rows[1], differ);
    bench_add(names[2], rows[2], differ);
    gbench_compare(b, names[2], target);
    gbench_compare(locked, names[2], NULL);
}

void bench_lru(void)
{
#define THREE(name) ((const gbench_fn[]){name##_memkit, name##_locked, name##_uthash})
    add("hit_zipf", THREE(hit_zipf), "<= 0.80 of the best LRU");
    add("hit_uniform", THREE(hit_uniform), "<= 0.80 of the best LRU");
    add("aside", THREE(aside), "<= 0.60 of the best LRU");
    add("evict", THREE(evict), "<= 0.55 of the best LRU");
}
