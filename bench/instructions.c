/* instructions.c - runs one hot path n times, for callgrind: instructions.sh takes the difference
 * of two runs, so that what is around the loop cancels out.
 *
 *     instructions
 * pool|arena|lru-hit|lru-hit-locked|lru-pinned|lru-evict|malloc|malloc-512k|malloc-1 N
 *
 * malloc-512k and malloc-1 sample with that rate: for a run with libmemkit-prof preloaded.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memkit/memkit.h>
#include <memkit/prof.h>

static void die(const char *what)
{
    perror(what);
    exit(3);
}

/* Keeps the compiler from seeing through p. */
static void use(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

static void pool(long n)
{
    memkit_pool *p = memkit_pool_new(NULL);
    if (p == NULL)
        die("memkit_pool_new");
    for (long i = 0; i < n; i++) {
        memkit_buf *b = memkit_pool_get(p, 512);
        use(b);
        memkit_pool_put(p, b);
    }
    memkit_pool_free(p);
}

/* 100 objects of 8 to 256 bytes and a reset, which counts into the 100. */
static void arena(long n)
{
    static char first[64 << 10];
    memkit_arena *a = memkit_arena_init(first, sizeof first, NULL);
    if (a == NULL)
        die("memkit_arena_init");
    static unsigned char sizes[100];
    for (int k = 0; k < 100; k++)
        sizes[k] = (unsigned char)(8 + k * 97 % 248);
    for (long i = 0; i < n; i += 100) {
        for (int k = 0; k < 100; k++)
            use(memkit_arena_alloc(a, sizes[k]));
        memkit_arena_reset(a);
    }
    memkit_arena_free(a);
}

static void lru(long n, unsigned shards, int pinned)
{
    enum { ENTRIES = 100000 };
    static char keys[ENTRIES][22];
    char value[100] = "value", out[128];
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = ENTRIES, .shards = shards});
    if (c == NULL)
        die("memkit_lru_new");
    for (unsigned i = 0; i < ENTRIES; i++) {
        snprintf(keys[i], sizeof keys[i], "user:%016x", i * 2654435761u);
        if (memkit_lru_set(c, keys[i], 21, value, sizeof value) != 0)
            die("memkit_lru_set");
    }
    size_t len;
    memkit_lru_ref ref;
    for (long i = 0; i < n; i++) {
        const char *key = keys[(unsigned long)i * 40503u % ENTRIES];
        if (pinned) {
            if (memkit_lru_get(c, key, 21, &ref) != 1)
                die("memkit_lru_get");
            use(ref.data);
            memkit_lru_release(c, &ref);
        } else if (memkit_lru_get_into(c, key, 21, out, sizeof out, &len) != 1) {
            die("memkit_lru_get_into");
        }
    }
    memkit_lru_free(c);
}

static void evict(long n)
{
    enum { ENTRIES = 100000 };
    char key[32], value[100] = "value";
    memkit_lru *c =
        memkit_lru_new(&(memkit_lru_opts){.max_entries = ENTRIES, .shards = MEMKIT_LRU_UNLOCKED});
    if (c == NULL)
        die("memkit_lru_new");
    for (long i = 0; i < n + ENTRIES; i++) {
        memset(key, 'k', sizeof key);
        memcpy(key, &i, sizeof i);
        if (memkit_lru_set(c, key, 21, value, sizeof value) != 0)
            die("memkit_lru_set");
    }
    memkit_lru_free(c);
}

static void pairs(long n)
{
    for (long i = 0; i < n; i++) {
        void *p = malloc(512);
        use(p);
        free(p);
    }
}

static void sample(size_t rate)
{
    int (*start)(const memkit_prof_opts *);
    void *fn = dlsym(RTLD_DEFAULT, "memkit_prof_start");
    memcpy(&start, &fn, sizeof start);
    if (fn == NULL || start(&(memkit_prof_opts){.sample_bytes = rate}) != 0)
        die("memkit_prof_start");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: instructions pool|arena|lru-hit|lru-hit-locked|lru-pinned|lru-evict|malloc|"
              "malloc-512k|malloc-1 N\n",
              stderr);
        return 2;
    }
    long n = atol(argv[2]);
    if (strcmp(argv[1], "pool") == 0)
        pool(n);
    else if (strcmp(argv[1], "arena") == 0)
        arena(n);
    else if (strcmp(argv[1], "lru-hit") == 0)
        lru(n, MEMKIT_LRU_UNLOCKED, 0);
    else if (strcmp(argv[1], "lru-hit-locked") == 0)
        lru(n, 0, 0);
    else if (strcmp(argv[1], "lru-pinned") == 0)
        lru(n, MEMKIT_LRU_UNLOCKED, 1);
    else if (strcmp(argv[1], "lru-evict") == 0)
        evict(n);
    else if (strcmp(argv[1], "malloc") == 0)
        pairs(n);
    else if (strcmp(argv[1], "malloc-512k") == 0)
        sample(512 << 10), pairs(n);
    else if (strcmp(argv[1], "malloc-1") == 0)
        sample(1), pairs(n);
    else
        return 2;
    return 0;
}
