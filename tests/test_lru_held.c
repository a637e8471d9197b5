/* test_lru_held.c - what memkit_lru_stats says is what the process holds for the cache.
 *
 * Twice: by what malloc gave (usable bytes, and its word before each block; the core's calls are
 * counted on their way), after every phase of a cache's life; and by what the kernel says is
 * resident, in a process of its own with a cache of 64 MiB. Both within 2 %.
 */
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_lru.h"

/* Valgrind preloads its malloc. */
#define UNDER_TOOL (SANITIZED || getenv("LD_PRELOAD") != NULL)

typedef struct {
    const char *name;
    size_t max_entries, max_bytes;
    size_t least, most; /* lengths of values */
    uint64_t ttl_ms;
    unsigned shards;
    size_t expect;
} shape;

/* Bounds for 64 MiB; the smaller caches of the first test divide them. */
static const shape shapes[] = {
    {"100 B, bytes", 0, 64 << 20, 100, 100, 0, 0, 0},
    {"100 B, entries", 400000, 0, 100, 100, 0, 0, 0},
    {"64 to 1024 B, bytes", 0, 64 << 20, 64, 1024, 0, 0, 0},
    {"64 to 1024 B, entries", 100000, 0, 64, 1024, 0, 0, 544},
    {"no value at all", 0, 64 << 20, 0, 0, 0, 0, 8},
    {"0 to 8 B", 0, 64 << 20, 0, 8, 0, 0, 0},
    {"20 to 60 KiB", 0, 64 << 20, 20 << 10, 60 << 10, 0, 0, 40000},
    {"130 to 290 KiB", 0, 64 << 20, 130 << 10, 290 << 10, 0, 0, 200000},
    {"100 B, ttl", 0, 64 << 20, 100, 100, 1000000, 0, 0},
    {"100 B, both bounds, 8 shards", 300000, 64 << 20, 100, 100, 0, 8, 0},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static double off(double said, double held)
{
    return held == 0 ? 0 : 100 * (said - held) / held;
}

/* Stores n entries, from the first number on, of lengths that the number gives. */
static uint64_t put(memkit_lru *c, const shape *s, uint64_t first, size_t n)
{
    for (uint64_t key = first; key < first + n; key++) {
        uint64_t mixed = key * 0x9e3779b97f4a7c15u >> 32;
        assert_int_equal(set_number(c, key, s->least + mixed % (s->most - s->least + 1)), 0);
    }
    return first + n;
}

static memkit_lru *make_shape(const shape *s, size_t part)
{
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.max_entries = s->max_entries / part,
                                                      .max_bytes = s->max_bytes / part,
                                                      .ttl_ms = s->ttl_ms,
                                                      .shards = s->shards,
                                                      .expect_entry_bytes = s->expect});
    assert_non_null(c);
    return c;
}

static size_t entries_for(const shape *s, size_t part)
{
    size_t by_bytes = s->max_bytes / part / ((s->least + s->most) / 2 + 32);
    return s->max_bytes == 0 ? s->max_entries / part : by_bytes;
}

static double worst;
static const char *worst_name;

static void compare(const shape *s, memkit_lru *c, long before, const char *when)
{
    double held = (double)(bytes_out - before), said = (double)stats_of(c).bytes;
    double d = off(said, held), size = d < 0 ? -d : d;
    if (size > worst) {
        worst = size;
        worst_name = s->name;
    }
    /* A tool's malloc gives what was asked for, to the byte: we count up to 16 bytes more. */
    if (size > 2 && !UNDER_TOOL)
        fail_msg("%s, %s: says %.0f, holds %.0f: %.2f %% off", s->name, when, said, held, d);
}

static void bytes_are_what_malloc_gave(void **state)
{
    (void)state;
    const size_t parts[] = {1024, 128, 16}; /* from 64 KiB on */
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
            const shape *s = &shapes[i];
            size_t n = entries_for(s, parts[p]);
            if (n < 8 * (s->shards + 1))
                continue;
            long before = bytes_out;
            memkit_lru *c = make_shape(s, parts[p]);
            compare(s, c, before, "new");
            uint64_t next = put(c, s, 0, n / 3);
            compare(s, c, before, "a third full");
            next = put(c, s, next, n * 3);
            compare(s, c, before, "after churn");
            for (uint64_t key = next - n / 2; key < next; key += 2)
                memkit_lru_del(c, &key, 8);
            compare(s, c, before, "half of it deleted");
            assert_int_equal(
                memkit_lru_resize(c, s->max_entries / parts[p] / 2, s->max_bytes / parts[p] / 2),
                0);
            compare(s, c, before, "shrunk");
            next = put(c, s, next, n);
            compare(s, c, before, "churned again");
            memkit_lru_clear(c);
            compare(s, c, before, "cleared");
            sound(c);
            memkit_lru_free(c);
            assert_int_equal(bytes_out, before);
        }
    print_message("furthest off what malloc gave: %.2f %% (%s)\n", worst, worst_name);
}

/* An index that grows, caches of the least size, and one pinned through and through. */
static void bytes_are_true_at_the_edges(void **state)
{
    (void)state;
    const shape edges[] = {{"few bytes", 0, 8192, 10, 30, 0, MEMKIT_LRU_UNLOCKED, 40},
                           {"three entries", 3, 0, 0, 3000, 0, 0, 0},
                           {"many for the index", 0, 8 << 20, 4, 4, 0, 0, 4000},
                           {"1024 shards", 20000, 0, 20, 20, 0, 1024, 0}};
    for (size_t i = 0; i < 4; i++) {
        long before = bytes_out;
        memkit_lru *c = make_shape(&edges[i], 1);
        memkit_lru_ref refs[64];
        uint64_t next = 0;
        for (int round = 0; round < 40; round++) {
            next = put(c, &edges[i], next, edges[i].max_bytes > 8192 ? 2000 : 100);
            compare(&edges[i], c, before, "filling");
            uint64_t last = next - 1;
            assert_int_equal(memkit_lru_get(c, &last, 8, &refs[round % 2]), 1);
            if (round % 2 == 1)
                for (int r = 0; r < 2; r++)
                    memkit_lru_release(c, &refs[r]);
        }
        sound(c);
        memkit_lru_free(c);
        assert_int_equal(bytes_out, before);
    }
}

/* -- what is resident -- */

static size_t resident(void)
{
    malloc_trim(0); /* what is freed is the kernel's again */
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size, rss;
    if (f == NULL || fscanf(f, "%lu %lu", &size, &rss) != 2)
        return 0;
    fclose(f);
    return rss * (size_t)sysconf(_SC_PAGESIZE);
}

/* In a child: exit code 0 where all is within 2 %. What is wrong goes to its standard error. */
static int child_life(const shape *s)
{
    size_t n = entries_for(s, 1);
    static char lent[300 << 10]; /* set_number's own page faults are not the cache's */
    memset(lent, 1, sizeof lent);
    set_number(NULL, 0, sizeof lent);
    size_t before = resident();
    memkit_lru *c = make_shape(s, 1);
    uint64_t next = put(c, s, 0, n * 3 / 2);
    size_t full_held = resident() - before, full_said = stats_of(c).bytes;
    assert_int_equal(memkit_lru_resize(c, s->max_entries / 2, s->max_bytes / 2), 0);
    put(c, s, next, n / 2);
    size_t half_held = resident() - before, half_said = stats_of(c).bytes;
    double full = off((double)full_said, (double)full_held);
    double half = off((double)half_said, (double)half_held);
    printf(
        "%-28s %6.1f MiB, resident %6.1f: %+.2f %%; shrunk %5.1f MiB, resident %5.1f: %+.2f %%\n",
        s->name, (double)full_said / 1048576, (double)full_held / 1048576, full,
        (double)half_said / 1048576, (double)half_held / 1048576, half);
    fflush(stdout);
    return full < -2 || full > 2 || half < -2 || half > 2;
}

static void bytes_are_what_is_resident(void **state)
{
    (void)state;
    if (UNDER_TOOL)
        skip(); /* valgrind and sanitizers keep more beside each block than the cache itself */
    for (size_t i = 0; i < SHAPES; i++) {
        fflush(stdout);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(child_life(&shapes[i]));
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: more than 2 %% off what is resident", shapes[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_what_malloc_gave),
        cmocka_unit_test(bytes_are_true_at_the_edges),
        cmocka_unit_test(bytes_are_what_is_resident),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
