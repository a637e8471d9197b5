/* prog_pool_misuse.c - one misuse of a buffer or of an arena's memory, by name, that a tool should
 * see; `fine` does a lot that is allowed. Built by test_track.c, not knowing what the core tracks.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memkit/memkit.h>

static memkit_pool *pool;
static memkit_arena *arena;

/* Keeps the compiler from knowing where p points. */
static char *opaque(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static void read_byte(void *p)
{
    volatile char c = *opaque(p);
    (void)c;
}

/* What is done with the byte depends on it, which is when memcheck asks whether it was written. */
static void judge_byte(void *p)
{
    if (*opaque(p) == 'x')
        puts("x");
}

static void write_byte(void *p)
{
    *opaque(p) = 'x';
}

static char *put(memkit_buf *b)
{
    char *data = b->data;
    memkit_pool_put(pool, b);
    return data;
}

static memkit_buf *get(size_t n)
{
    memkit_buf *b = memkit_pool_get(pool, n);
    if (b == NULL)
        abort();
    memset(b->data, 'x', b->cap);
    return b;
}

static void read_after_put(void)
{
    read_byte(put(get(100)) + 50);
}

static void write_after_put(void)
{
    write_byte(put(get(5000)));
}

static void *put_it(void *b)
{
    return put(b);
}

static void read_after_put_elsewhere(void)
{
    pthread_t thread;
    void *data;
    if (pthread_create(&thread, NULL, put_it, get(100)) != 0)
        abort();
    pthread_join(thread, &data);
    read_byte(data);
}

static void write_past_cap(void)
{
    memkit_buf *b = get(100);
    write_byte(b->data + b->cap + 1);
}

static void judge_what_was_not_written(void)
{
    put(get(100));
    judge_byte(memkit_pool_get(pool, 100)->data + 50);
}

static void read_after_growing(void)
{
    memkit_buf *b = get(100);
    char *before = b->data;
    b->len = 50;
    memkit_buf_reserve(b, 100000);
    read_byte(before + 10);
}

static void read_after_rewind(void)
{
    memkit_arena_alloc(arena, 100);
    memkit_arena_mark m = memkit_arena_save(arena);
    char *p = memkit_arena_calloc(arena, 1, 100);
    memkit_arena_rewind(arena, m);
    read_byte(p + 50);
}

static void read_after_reset(void)
{
    char *p = memkit_arena_strdup(arena, "gone");
    memkit_arena_reset(arena);
    read_byte(p);
}

static void write_after_reset_of_chunks(void)
{
    char *p = NULL;
    for (int i = 0; i < 500; i++) /* several, of which some are kept */
        if (i % 100 == 0 || p == NULL)
            p = memkit_arena_alloc(arena, 64);
        else
            memkit_arena_alloc(arena, 64);
    memkit_arena_reset(arena);
    write_byte(p);
}

static void read_big_after_rewind(void)
{
    memkit_arena_mark m = memkit_arena_save(arena);
    char *p = memkit_arena_calloc(arena, 1, 100000);
    memkit_arena_rewind(arena, m);
    read_byte(p);
}

static void write_one_past_16(void)
{
    char *p = memkit_arena_alloc(arena, 16); /* no bytes of rounding behind it */
    memkit_arena_alloc(arena, 16);
    write_byte(p + 16);
}

static void write_one_past_13(void)
{
    write_byte((char *)memkit_arena_alloc(arena, 13) + 13);
}

static void write_one_past_big(void)
{
    write_byte((char *)memkit_arena_alloc(arena, 100000) + 100000);
}

static void write_one_past_aligned(void)
{
    write_byte((char *)memkit_arena_alloc_aligned(arena, 64, 256) + 64);
}

static void read_before_aligned(void)
{
    memkit_arena_alloc(arena, 16);
    read_byte((char *)memkit_arena_alloc_aligned(arena, 64, 256) - 1);
}

static void read_past_string(void)
{
    char *p = memkit_arena_printf(arena, "%s", "hello");
    read_byte(p + 6);
}

static void write_past_shrunk(void)
{
    char *p = memkit_arena_alloc(arena, 100);
    if (memkit_arena_realloc(arena, p, 100, 40) != p)
        abort();
    write_byte(p + 40);
}

static void write_past_grown(void)
{
    char *before = memkit_arena_alloc(arena, 10);
    char *p = opaque(memkit_arena_realloc(arena, before, 10, 300));
    if (p != before)
        abort();
    memset(p, 'x', 300);
    write_byte(p + 300);
}

static void read_before_moved(void)
{
    char *p = memkit_arena_calloc(arena, 1, 10);
    memkit_arena_alloc(arena, 1);
    if (memkit_arena_realloc(arena, p, 10, 300) == p)
        abort();
    read_byte(p);
}

static void read_free_end(void)
{
    read_byte((char *)memkit_arena_alloc(arena, 16) + 1000);
}

static char own[4096];

static void read_callers_memory_after_reset(void)
{
    memkit_arena *a = memkit_arena_init(own, sizeof own, NULL);
    char *p = memkit_arena_strdup(a, "gone");
    memkit_arena_reset(a);
    read_byte(p);
}

static void judge_what_an_arena_gave(void)
{
    memset(memkit_arena_alloc(arena, 100), 'x', 100);
    memkit_arena_reset(arena);
    judge_byte((char *)memkit_arena_alloc(arena, 100) + 50);
}

/* ---- what is allowed ---- */

static void fine_arena(memkit_arena *a)
{
    for (int request = 0; request < 4; request++) {
        char *kept = memkit_arena_strdup(a, "kept");
        memkit_arena_mark m = memkit_arena_save(a);
        for (size_t n = 0; n < 400; n++) {
            char *p = memkit_arena_alloc(a, n);
            memset(p, 'x', n);
            p = memkit_arena_realloc(a, p, n, n / 2 + 100);
            memset(p, 'y', n / 2 + 100);
            p = memkit_arena_alloc_aligned(a, n, (size_t)1 << (n % 10));
            memset(p, 'z', n);
            judge_byte(memkit_arena_calloc(a, n + 1, 3));
            judge_byte(memkit_arena_printf(a, "%zu", n));
            judge_byte(memkit_arena_memdup(a, "abc", 3));
        }
        char *big = memkit_arena_alloc(a, 50000);
        memset(big, 'b', 50000);
        big = memkit_arena_realloc(a, big, 50000, 150000);
        judge_byte(big + 49999);
        memset(big, 'b', 150000);
        memkit_arena_rewind(a, m);
        memset(memkit_arena_alloc(a, 1000), 'x', 1000);
        if (strcmp(kept, "kept") != 0)
            abort();
        memkit_arena_reset(a);
    }
    memkit_arena_free(a);
}

static void fine(void)
{
    memkit_buf *b[50];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 50; i++) {
            b[i] = get(i * 100);
            memkit_buf_appendf(b[i], "%zu", i);
            memkit_buf_reserve(b[i], i * 200);
            memset(b[i]->data, 'y', b[i]->cap);
            judge_byte(b[i]->data);
            free(memkit_buf_detach(b[i], NULL));
        }
        for (int i = 0; i < 50; i++)
            memkit_buf_free(b[i]);
        memkit_pool_trim(pool, (size_t)round * 10000);
    }
    fine_arena(memkit_arena_new(&(memkit_arena_opts){.name = "fine"}));
    char on_stack[4096];
    fine_arena(memkit_arena_init(on_stack, sizeof on_stack, NULL));
    memset(on_stack, 'x', sizeof on_stack); /* the caller's again */
    judge_byte(on_stack + 3000);
}

static const struct {
    const char *name;
    void (*run)(void);
} misuses[] = {
    {"fine", fine},
    {"read-after-put", read_after_put},
    {"write-after-put", write_after_put},
    {"read-after-put-elsewhere", read_after_put_elsewhere},
    {"write-past-cap", write_past_cap},
    {"read-after-growing", read_after_growing},
    {"read-after-rewind", read_after_rewind},
    {"read-after-reset", read_after_reset},
    {"write-after-reset-of-chunks", write_after_reset_of_chunks},
    {"read-big-after-rewind", read_big_after_rewind},
    {"write-one-past-16", write_one_past_16},
    {"write-one-past-13", write_one_past_13},
    {"write-one-past-big", write_one_past_big},
    {"write-one-past-aligned", write_one_past_aligned},
    {"read-before-aligned", read_before_aligned},
    {"read-past-string", read_past_string},
    {"write-past-shrunk", write_past_shrunk},
    {"write-past-grown", write_past_grown},
    {"read-before-moved", read_before_moved},
    {"read-free-end", read_free_end},
    {"read-callers-memory-after-reset", read_callers_memory_after_reset},
    {"judge-what-was-not-written", judge_what_was_not_written},
    {"judge-what-an-arena-gave", judge_what_an_arena_gave},
};
enum { MISUSES = sizeof misuses / sizeof misuses[0] };

/* NAME: does it. `all`: does one after the other, and says which on standard error. Without: lists
 * the names. */
int main(int argc, char **argv)
{
    pool = memkit_pool_new(NULL);
    arena = memkit_arena_new(NULL);
    if (pool == NULL || arena == NULL)
        return 3;
    bool all = argc > 1 && strcmp(argv[1], "all") == 0, known = all;
    for (int i = 0; i < MISUSES; i++) {
        if (argc < 2)
            puts(misuses[i].name);
        if (all)
            fprintf(stderr, "\n<%s>\n", misuses[i].name);
        if (all || (argc > 1 && strcmp(argv[1], misuses[i].name) == 0)) {
            misuses[i].run();
            memkit_arena_reset(arena);
            known = true;
        }
    }
    return argc < 2 || known ? 0 : 2;
}
