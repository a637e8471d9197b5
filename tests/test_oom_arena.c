/* test_oom_arena.c - arenas while malloc fails, at each of their allocations. */
#include "support_matrix.h"

#include "core/arena.h"

static char *kept; /* what the arena gave out before */
static int deferred;

static void count_call(void *arg)
{
    deferred += arg != NULL;
}

/* Held bytes are left out: what was kept for the next request may go for this one. */
static void record_arena(const void *object, record *r)
{
    const memkit_arena *a = object;
    const char *broken = memkit__arena_check(a);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    note(r, "%p %p used %llu deferred %d\n", (void *)a->ptr, (void *)a->end,
         (unsigned long long)s.used_bytes, deferred);
    note_bytes(r, kept, 5);
}

/* ---- objects ---- */

static void *make_new(void)
{
    memkit_arena *a = memkit_arena_new(NULL);
    kept = memkit_arena_strdup(a, "kept");
    deferred = 0;
    return a;
}

static _Alignas(16) char callers[1024];

static void *make_in_callers(void)
{
    memkit_arena *a = memkit_arena_init(callers, sizeof callers, NULL);
    kept = memkit_arena_strdup(a, "kept");
    deferred = 0;
    return a;
}

/* The next that is asked is malloc's to give. */
static void *make_full(void)
{
    memkit_arena *a = make_new();
    fail_malloc(1, true);
    while (memkit_arena_alloc(a, 16) != NULL) {
    }
    fail_malloc(0, false);
    return a;
}

static void *make_named(void)
{
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "named"});
    kept = memkit_arena_strdup(a, "kept");
    deferred = 0;
    return a;
}

static void *make_near_limit(void)
{
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.max_bytes = 20000});
    for (int i = 0; i < 200; i++)
        assert_non_null(memkit_arena_alloc(a, 64));
    memkit_arena_reset(a);
    kept = memkit_arena_strdup(a, "kept");
    deferred = 0;
    return a;
}

static char *big;

static void *make_with_big(void)
{
    memkit_arena *a = make_new();
    big = memkit_arena_alloc(a, 10000);
    memset(big, 'b', 10000);
    return a;
}

static void end(void *a)
{
    memkit_arena_free(a);
}

/* ---- calls ---- */

#define ANSWER(expression) ((expression) != NULL ? 0 : errno)

static int new_default(void *unused)
{
    (void)unused;
    memkit_arena *a = memkit_arena_new(NULL);
    if (a == NULL)
        return errno;
    memkit_arena_free(a);
    return 0;
}

static int new_named(void *unused)
{
    (void)unused;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "named"});
    if (a == NULL)
        return errno;
    memkit_arena_free(a);
    return 0;
}

static int init(void *unused)
{
    (void)unused;
    memkit_arena *a =
        memkit_arena_init(callers, sizeof callers, &(memkit_arena_opts){.name = "named"});
    int answer = ANSWER(memkit_arena_alloc(a, 100));
    memkit_arena_free(a);
    return answer;
}

static int alloc(void *a)
{
    return ANSWER(memkit_arena_alloc(a, 2000));
}

static int alloc_big(void *a)
{
    return ANSWER(memkit_arena_alloc(a, 1 << 20));
}

static int alloc_near_limit(void *a)
{
    return ANSWER(memkit_arena_alloc(a, 15000));
}

static int alloc_slow(void *a)
{
    return ANSWER(memkit_arena_alloc_slow(a, 64));
}

static int alloc_aligned(void *a)
{
    return ANSWER(memkit_arena_alloc_aligned(a, 64, 65536));
}

static int alloc_calloc(void *a)
{
    char *p = memkit_arena_calloc(a, 100, 200);
    for (size_t i = 0; p != NULL && i < 20000; i++)
        if (p[i] != 0)
            return EPROTO;
    return ANSWER(p);
}

static int realloc_copy(void *a)
{
    char *p = memkit_arena_realloc(a, kept, 5, 5000);
    return p == NULL ? errno : strcmp(p, "kept") == 0 ? 0 : EPROTO;
}

static int realloc_null(void *a)
{
    return ANSWER(memkit_arena_realloc(a, NULL, 0, 9000));
}

static int realloc_big(void *a)
{
    char *p = memkit_arena_realloc(a, big, 10000, 200000);
    if (p == NULL)
        return big[0] == 'b' && big[9999] == 'b' ? errno : EPROTO;
    return p[0] == 'b' && p[9999] == 'b' ? 0 : EPROTO;
}

static int strdup_long(void *a)
{
    static char text[9000];
    memset(text, 't', sizeof text - 1);
    return ANSWER(memkit_arena_strdup(a, text));
}

static int strndup_long(void *a)
{
    static char text[9000];
    memset(text, 't', sizeof text);
    return ANSWER(memkit_arena_strndup(a, text, sizeof text));
}

static int print_long(void *a)
{
    char *p = memkit_arena_printf(a, "%s%8000d", kept, 7);
    return p == NULL ? errno : strlen(p) == 8004 ? 0 : EPROTO;
}

static int print_short(void *a)
{
    return ANSWER(memkit_arena_printf(a, "%s", kept));
}

static int memdup(void *a)
{
    static char bytes[9000];
    return ANSWER(memkit_arena_memdup(a, bytes, sizeof bytes));
}

static int defer(void *a)
{
    return memkit_arena_defer(a, count_call, a) == 0 ? 0 : errno;
}

static int save_and_rewind(void *object)
{
    memkit_arena *a = object;
    memkit_arena_rewind(a, memkit_arena_save(a));
    return 0;
}

static int reset(void *object)
{
    memkit_arena *a = object;
    memkit_arena_reset(a);
    kept = memkit_arena_strdup(a, "kept");
    return 0;
}

static int stats(void *a)
{
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    return s.used_bytes > 0 ? 0 : EPROTO;
}

static int free_new(void *a)
{
    memkit_arena_free(a);
    return 0;
}

/* ---- a request's worth of calls, with marks and defers ---- */

/* Each call works or says ENOMEM and changes nothing; every defer that was taken runs once. Returns
 * how many failed. */
static int serve(memkit_arena *a)
{
    int failed = 0, taken_in_all = 0, at_first = deferred;
    memkit_arena_mark outer = memkit_arena_save(a);
    for (int round = 0; round < 12; round++) {
        memkit_arena_mark inner = memkit_arena_save(a);
        int here = 0, before = deferred;
        for (int i = 0; i < 10; i++) {
            size_t n = (size_t)(round * 170 + i * 90 + 1);
            char *p = i == 7 ? memkit_arena_calloc(a, n, 30) : memkit_arena_alloc(a, n);
            if (p != NULL)
                memset(p, round, n);
            failed += p == NULL;
            assert_true(p != NULL || errno == ENOMEM);
            bool taken = memkit_arena_defer(a, count_call, a) == 0;
            failed += !taken;
            here += taken;
            taken_in_all += taken;
            const char *broken = memkit__arena_check(a);
            if (broken != NULL)
                fail_msg("%s", broken);
        }
        if (round % 3 == 1) {
            memkit_arena_rewind(a, inner);
            assert_int_equal(deferred - before, here);
        }
    }
    if (failed % 2 == 0)
        memkit_arena_rewind(a, outer);
    memkit_arena_reset(a);
    assert_int_equal(deferred - at_first, taken_in_all);
    return failed;
}

static void requests_with_marks_and_defers(void **state)
{
    (void)state;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
        unsigned nth = 0, met;
        do {
            memkit_arena *a = memkit_arena_new(
                &(memkit_arena_opts){.first_chunk_bytes = 512, .keep_bytes = 8192});
            fail_malloc(++nth, from_then_on);
            for (int request = 0; request < 4; request++)
                serve(a);
            met = mallocs_failed;
            fail_malloc(0, false);
            assert_int_equal(serve(a), 0);
            memkit_arena_free(a);
        } while (met > 0);
        assert_true(nth > 10);
    }
}

int main(void)
{
    const oom_row rows[] = {
        {"memkit_arena_new", NULL, 1, NULL, new_default, NULL, NULL},
        {"memkit_arena_new", "named", 1, NULL, new_named, NULL, NULL},
        {"memkit_arena_init", NULL, 0, NULL, init, NULL, NULL},
        {"memkit_arena_alloc", NULL, 1, make_full, alloc, record_arena, end},
        {"memkit_arena_alloc", "of a big block", 1, make_new, alloc_big, record_arena, end},
        {"memkit_arena_alloc", "beyond the caller's memory", 1, make_in_callers, alloc,
         record_arena, end},
        {"memkit_arena_alloc", "of a named one", 1, make_named, alloc_big, record_arena, end},
        {"memkit_arena_alloc", "that what is kept gives way to", 1, make_near_limit,
         alloc_near_limit, record_arena, end},
        {"memkit_arena_alloc_slow", NULL, 1, make_full, alloc_slow, record_arena, end},
        {"memkit_arena_alloc_aligned", NULL, 1, make_new, alloc_aligned, record_arena, end},
        {"memkit_arena_calloc", NULL, 1, make_new, alloc_calloc, record_arena, end},
        {"memkit_arena_realloc", "to a copy", 1, make_full, realloc_copy, record_arena, end},
        {"memkit_arena_realloc", "of nothing", 1, make_new, realloc_null, record_arena, end},
        {"memkit_arena_realloc", "of a big block", 1, make_with_big, realloc_big, record_arena,
         end},
        {"memkit_arena_strdup", NULL, 1, make_new, strdup_long, record_arena, end},
        {"memkit_arena_strndup", NULL, 1, make_new, strndup_long, record_arena, end},
        {"memkit_arena_printf", NULL, 1, make_new, print_long, record_arena, end},
        {"memkit_arena_printf", "without room", 1, make_full, print_short, record_arena, end},
        {"memkit_arena_memdup", NULL, 1, make_new, memdup, record_arena, end},
        {"memkit_arena_defer", NULL, 1, make_full, defer, record_arena, end},
        {"memkit_arena_save", NULL, 0, make_new, save_and_rewind, record_arena, end},
        {"memkit_arena_rewind", NULL, 0, make_new, save_and_rewind, record_arena, end},
        {"memkit_arena_reset", NULL, 0, make_new, reset, record_arena, end},
        {"memkit_arena_stats", NULL, 0, make_new, stats, record_arena, end},
        {"memkit_arena_free", NULL, 0, make_with_big, free_new, NULL, NULL},
    };
    const struct CMUnitTest more[] = {more_test(requests_with_marks_and_defers)};
    return run_oom("memkit_arena_", rows, LENGTH(rows), more, LENGTH(more));
}
