/* test_matrix_arena.c - every function of memkit/arena.h against bad input: arenas of malloc's
 * memory and of the caller's, and marks that lead nowhere. */
#include <limits.h>
#include <wchar.h>

#include "support_matrix.h"

#include "core/arena.h"

static void *volatile nothing; /* a NULL that no compiler knows of */
static int deferred;
static char *kept; /* given out by the arena that is watched */
static _Alignas(64) char callers[4096 + 64];

static void count_call(void *arg)
{
    deferred += arg != NULL;
}

static void record_arena(const void *object, record *r)
{
    const memkit_arena *a = object;
    const char *broken = memkit__arena_check(a);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_arena_stats_t s;
    memkit_arena_stats(a, &s);
    note(r, "%p %p used %llu held %llu peak %llu chunks %llu resets %llu deferred %d\n",
         (void *)a->ptr, (void *)a->end, (unsigned long long)s.used_bytes,
         (unsigned long long)s.held_bytes, (unsigned long long)s.peak_held_bytes,
         (unsigned long long)s.chunks, (unsigned long long)s.resets, deferred);
    note_bytes(r, kept, 5);
}

enum { MALLOCED, CALLERS, KINDS };

static memkit_arena *make(int kind)
{
    memkit_arena *a =
        kind == CALLERS ? memkit_arena_init(callers + 1, 4000, NULL) : memkit_arena_new(NULL);
    assert_non_null(a);
    kept = memkit_arena_strdup(a, "kept");
    deferred = 0;
    watch(record_arena, a);
    return a;
}

static void end(memkit_arena *a)
{
    watch(NULL, NULL);
    memkit_arena_free(a);
}

/* ---- life ---- */

typedef memkit_arena *(*maker)(const memkit_arena_opts *opts);

static memkit_arena *init_in_callers(const memkit_arena_opts *opts)
{
    return memkit_arena_init(callers, sizeof callers, opts);
}

static void make_badly(maker make_one)
{
    for (size_t i = 0; i < LENGTH(((memkit_arena_opts *)0)->reserved); i++)
        for (int bit = 0; bit < 64; bit += 21) {
            memkit_arena_opts opts = {0};
            opts.reserved[i] = (uint64_t)1 << bit;
            refused(make_one(&opts), NULL, EINVAL);
        }
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        refused(make_one(&(memkit_arena_opts){.first_chunk_bytes = no_sizes[i]}), NULL, EINVAL);
    refused(make_one(&(memkit_arena_opts){.first_chunk_bytes = 4097, .max_chunk_bytes = 4096}),
            NULL, EINVAL);
    refused(make_one(&(memkit_arena_opts){.first_chunk_bytes = 2, .max_chunk_bytes = 1}), NULL,
            EINVAL);
    refused(make_one(&(memkit_arena_opts){.first_chunk_bytes = SIZE_MAX, .max_chunk_bytes = 1}),
            NULL, EINVAL);
}

/* Whatever is accepted gives memory that can be written, and takes it back. */
static void use_with_extreme_bounds(maker make_one)
{
    const size_t bounds[] = {
        0, 1, 15, 256, SIZE_MAX / 4, PTRDIFF_MAX, SIZE_MAX / 2 + 1, SIZE_MAX - 15, SIZE_MAX};
    for (size_t first = 0; first < LENGTH(bounds); first++)
        for (size_t most = 0; most < LENGTH(bounds); most++)
            for (size_t keep = 0; keep < LENGTH(bounds); keep++)
                for (size_t limit = 0; limit < LENGTH(bounds); limit++) {
                    memkit_arena *a = make_one(&(memkit_arena_opts){bounds[first] != 0 ? "" : NULL,
                                                                    bounds[first],
                                                                    bounds[most],
                                                                    bounds[keep],
                                                                    bounds[limit],
                                                                    {0}});
                    if (a == NULL) {
                        assert_true(bounds[first] > PTRDIFF_MAX / 2 ||
                                    bounds[first] > bounds[most]);
                        continue;
                    }
                    for (size_t n = 1; n < 3000; n = n * 5 + 3) {
                        char *p = memkit_arena_alloc(a, n);
                        assert_true(p != NULL || (bounds[limit] != 0 && bounds[limit] < 10000));
                        if (p != NULL)
                            memset(p, 'x', n);
                        if (n == 8)
                            memkit_arena_reset(a);
                    }
                    const char *broken = memkit__arena_check(a);
                    if (broken != NULL)
                        fail_msg("%s", broken);
                    memkit_arena_free(a);
                }
}

static void new_row(void **state)
{
    (void)state;
    make_badly(memkit_arena_new);
    use_with_extreme_bounds(memkit_arena_new);
}

static void any_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(strange_names); i++) {
        memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = strange_names[i]});
        memkit_arena *b = init_in_callers(&(memkit_arena_opts){.name = strange_names[i]});
        memkit_buf *text = memkit_buf_new(0);
        assert_int_equal(memkit_metrics_write(text), 0);
        assert_non_null(strstr(text->data, "memkit_arena_held_bytes{arena=\""));
        memkit_buf_free(text);
        memkit_arena_free(a);
        memkit_arena_free(b);
    }
}

/* At every alignment, of every size up to what the header promises: refused, or an arena that stays
 * within its bytes. */
static void init_row(void **state)
{
    (void)state;
    make_badly(init_in_callers);
    use_with_extreme_bounds(init_in_callers);
    refused(memkit_arena_init(NULL, 0, NULL), NULL, EINVAL);
    refused(memkit_arena_init(NULL, 4096, NULL), NULL, EINVAL);
    refused(memkit_arena_init(callers, 0, NULL), NULL, EINVAL);
    refused(memkit_arena_init(callers, 1, NULL), NULL, EINVAL);
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        if (no_sizes[i] > PTRDIFF_MAX)
            refused(memkit_arena_init(callers, no_sizes[i], NULL), NULL, EINVAL);
    for (size_t offset = 0; offset < 64; offset++)
        for (size_t size = 0; size <= 700; size += size < 440 ? 50 : 1) {
            char *block = malloc(offset + size + 64), *mem = block + offset;
            memset(block, 0x5a, offset + size + 64);
            memkit_arena *a = memkit_arena_init(mem, size, NULL);
            assert_true(a != NULL || size < 512); /* what the header promises */
            for (size_t n = 1; a != NULL && n < 8; n++)
                memset(memkit_arena_alloc(a, n * 7), 0, n * 7);
            memkit_arena_free(a);
            for (size_t i = 0; i < offset; i++)
                assert_int_equal(block[i], 0x5a);
            for (size_t i = offset + size; i < offset + size + 64; i++)
                assert_int_equal(block[i], 0x5a);
            free(block);
        }
}

static void free_row(void **state)
{
    (void)state;
    errno = 4711;
    memkit_arena_free(NULL);
    assert_int_equal(errno, 4711);
}

static void reset_row(void **state)
{
    (void)state;
    memkit_arena *a = make(MALLOCED);
    refused_void(memkit_arena_reset(NULL), EINVAL);
    end(a);
}

/* ---- giving out ---- */

static void alloc_badly(void *(*alloc)(memkit_arena *a, size_t n))
{
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(alloc(NULL, 0), NULL, EINVAL);
        refused(alloc(NULL, SIZE_MAX), NULL, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            refused(alloc(a, no_sizes[i]), NULL, ENOMEM);
        for (size_t i = 0; i < LENGTH(refused_sizes); i++)
            refused(alloc(a, refused_sizes[i]), NULL, ENOMEM);
        for (size_t less = 1; less < 2048; less += 15)
            refused(alloc(a, (size_t)PTRDIFF_MAX - less), NULL, ENOMEM);
        assert_non_null(alloc(a, 0));
        end(a);
    }
}

static void *alloc_inline(memkit_arena *a, size_t n)
{
    return memkit_arena_alloc(a, n);
}

static void alloc_row(void **state)
{
    (void)state;
    alloc_badly(alloc_inline);
    alloc_badly(memkit_arena_alloc_slow);
}

static void alloc_aligned_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        const size_t not_powers[] = {0,
                                     3,
                                     6,
                                     24,
                                     4095,
                                     4097,
                                     SIZE_MAX,
                                     SIZE_MAX - 1,
                                     SIZE_MAX / 2,
                                     SIZE_MAX / 2 + 2,
                                     PTRDIFF_MAX};
        for (size_t i = 0; i < LENGTH(not_powers); i++) {
            refused(memkit_arena_alloc_aligned(a, 1, not_powers[i]), NULL, EINVAL);
            refused(memkit_arena_alloc_aligned(a, SIZE_MAX, not_powers[i]), NULL, EINVAL);
        }
        refused(memkit_arena_alloc_aligned(NULL, 1, 16), NULL, EINVAL);
        refused(memkit_arena_alloc_aligned(NULL, 1, 3), NULL, EINVAL);
        for (size_t align = 1; align != 0; align *= 2) {
            for (size_t i = 0; i < LENGTH(no_sizes); i++)
                refused(memkit_arena_alloc_aligned(a, no_sizes[i], align), NULL, ENOMEM);
            for (size_t i = 0; i < LENGTH(refused_sizes); i++)
                refused(memkit_arena_alloc_aligned(a, refused_sizes[i], align), NULL, ENOMEM);
            if (align >= (size_t)1 << 60) {
                refused(memkit_arena_alloc_aligned(a, 0, align), NULL, ENOMEM);
                refused(memkit_arena_alloc_aligned(a, 1, align), NULL, ENOMEM);
            }
        }
        for (size_t align = 1; align <= 65536; align *= 2)
            for (size_t n = 0; n < 40; n += 13) {
                char *p = memkit_arena_alloc_aligned(a, n, align);
                assert_non_null(p);
                assert_int_equal((uintptr_t)p % align, 0);
                memset(p, 'x', n);
            }
        assert_string_equal(kept, "kept");
        end(a);
    }
}

static void calloc_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(memkit_arena_calloc(NULL, 1, 1), NULL, EINVAL);
        refused(memkit_arena_calloc(NULL, SIZE_MAX, SIZE_MAX), NULL, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) {
            size_t n = no_sizes[i];
            if (n > PTRDIFF_MAX) {
                refused(memkit_arena_calloc(a, n, 1), NULL, EOVERFLOW);
                refused(memkit_arena_calloc(a, 1, n), NULL, EOVERFLOW);
            }
            refused(memkit_arena_calloc(a, n, 2), NULL, EOVERFLOW);
            refused(memkit_arena_calloc(a, n, n), NULL, EOVERFLOW);
            assert_non_null(memkit_arena_calloc(a, n, 0)); /* no bytes */
            assert_non_null(memkit_arena_calloc(a, 0, n));
        }
        refused(memkit_arena_calloc(a, (size_t)1 << 32, (size_t)1 << 32), NULL, EOVERFLOW);
        refused(memkit_arena_calloc(a, PTRDIFF_MAX, 1), NULL, ENOMEM);
        refused(memkit_arena_calloc(a, (size_t)1 << 31, (size_t)1 << 31), NULL, ENOMEM);
        end(a);
    }
}

static void realloc_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        char *big = memkit_arena_alloc(a, 100000);
        refused(memkit_arena_realloc(NULL, NULL, 0, 1), NULL, EINVAL);
        refused(memkit_arena_realloc(NULL, kept, 5, 10), NULL, EINVAL);
        refused(memkit_arena_realloc(a, NULL, 1, 10), NULL, EINVAL);
        refused(memkit_arena_realloc(a, NULL, SIZE_MAX, 10), NULL, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) {
            refused(memkit_arena_realloc(a, kept, 5, no_sizes[i]), NULL, ENOMEM);
            refused(memkit_arena_realloc(a, big, 100000, no_sizes[i]), NULL, ENOMEM);
            refused(memkit_arena_realloc(a, NULL, 0, no_sizes[i]), NULL, ENOMEM);
        }
        for (size_t i = 0; i < LENGTH(refused_sizes); i++) {
            refused(memkit_arena_realloc(a, kept, 5, refused_sizes[i]), NULL, ENOMEM);
            refused(memkit_arena_realloc(a, big, 100000, refused_sizes[i]), NULL, ENOMEM);
        }
        refused(memkit_arena_realloc(a, big, 100000, 100000), big, 0);
        refused(memkit_arena_realloc(a, big, 100000, 0), big, 0);
        char *grown = memkit_arena_realloc(a, kept, 5, 50);
        assert_string_equal(grown, "kept");
        end(a);
    }
}

/* ---- copies ---- */

static void strdup_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(memkit_arena_strdup(NULL, NULL), NULL, EINVAL);
        refused(memkit_arena_strdup(NULL, "x"), NULL, EINVAL);
        refused(memkit_arena_strdup(a, NULL), NULL, EINVAL);
        assert_string_equal(memkit_arena_strdup(a, ""), "");
        assert_string_equal(memkit_arena_strdup(a, kept), "kept");
        end(a);
    }
}

static void strndup_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(memkit_arena_strndup(NULL, "x", 1), NULL, EINVAL);
        refused(memkit_arena_strndup(a, NULL, 0), NULL, EINVAL);
        refused(memkit_arena_strndup(a, NULL, SIZE_MAX), NULL, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) /* no size, and only a bound */
            assert_string_equal(memkit_arena_strndup(a, kept, no_sizes[i]), "kept");
        for (size_t n = 0; n < 6; n++)
            assert_memory_equal(memkit_arena_strndup(a, kept, n), "kept", n < 4 ? n : 4);
        char unterminated[3] = {'a', 'b', 'c'};
        assert_string_equal(memkit_arena_strndup(a, unterminated, 3), "abc");
        end(a);
    }
}

static void printf_row(void **state)
{
    (void)state;
    const char *volatile too_wide = "%2147483648d"; /* than an int can say */
    const char *none = nothing;
    char *(*format)(memkit_arena * a, const char *fmt, ...) = memkit_arena_printf;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(format(NULL, none, 1), NULL, EINVAL);
        refused(format(NULL, "%d", 1), NULL, EINVAL);
        refused(format(a, none, 1), NULL, EINVAL);
        refused(format(a, "%lc", (wint_t)0xd800), NULL, EILSEQ);
        refused(format(a, too_wide, 1), NULL, EOVERFLOW);
        assert_string_equal(format(a, "%s", ""), "");
        assert_string_equal(format(a, "%s%s", kept, kept), "keptkept");
        assert_int_equal(strlen(format(a, "%9999s", kept)), 9999);
        end(a);
    }
}

static void memdup_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(memkit_arena_memdup(NULL, NULL, 0), NULL, EINVAL);
        refused(memkit_arena_memdup(NULL, "x", 1), NULL, EINVAL);
        refused(memkit_arena_memdup(a, NULL, 1), NULL, EINVAL);
        refused(memkit_arena_memdup(a, NULL, SIZE_MAX), NULL, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            refused(memkit_arena_memdup(a, kept, no_sizes[i]), NULL, ENOMEM);
        for (size_t i = 0; i < LENGTH(refused_sizes); i++)
            refused(memkit_arena_memdup(a, kept, refused_sizes[i]), NULL, ENOMEM);
        assert_non_null(memkit_arena_memdup(a, NULL, 0));
        for (size_t offset = 0; offset < 5; offset++)
            assert_memory_equal(memkit_arena_memdup(a, kept + offset, 5 - offset), &"kept"[offset],
                                5 - offset);
        end(a);
    }
}

/* ---- marks and defers ---- */

static void save_row(void **state)
{
    (void)state;
    memkit_arena *a = make(MALLOCED);
    static const memkit_arena_mark empty;
    errno = 0;
    memkit_arena_mark m = memkit_arena_save(NULL);
    assert_int_equal(errno, EINVAL);
    assert_memory_equal(&m, &empty, sizeof m);
    misused(memkit_arena_rewind(a, m), "mark is not of arena");
    end(a);
}

static void rewind_row(void **state)
{
    (void)state;
    memkit_arena *a = make(MALLOCED), *other = memkit_arena_new(NULL);
    memkit_arena_mark empty = {0}, theirs = memkit_arena_save(other), before = memkit_arena_save(a);
    assert_non_null(memkit_arena_alloc(a, 100));
    assert_int_equal(memkit_arena_defer(a, count_call, a), 0);
    memkit_arena_mark later = memkit_arena_save(a), forged;
    refused_void(memkit_arena_rewind(NULL, empty), EINVAL);
    refused_void(memkit_arena_rewind(NULL, before), EINVAL);
    misused(memkit_arena_rewind(a, empty), "mark is not of arena");
    misused(memkit_arena_rewind(a, theirs), "mark is not of arena");
    misused(memkit_arena_rewind(other, before), "mark is not of arena");
    forged = later;
    forged.serial++; /* one that was never given */
    misused(memkit_arena_rewind(a, forged), "mark is not of arena");
    forged = later;
    forged.bigs++;
    misused(memkit_arena_rewind(a, forged), "mark is not of arena");
    forged = later;
    forged.ptr += 64; /* not given out yet */
    misused(memkit_arena_rewind(a, forged), "mark is not of arena");
    forged = later;
    forged.chunk = &forged;
    misused(memkit_arena_rewind(a, forged), "mark is not of arena");
    memkit_arena_rewind(a, before);
    assert_int_equal(deferred, 1);
    misused(memkit_arena_rewind(a, later), "passed by a rewind");
    memkit_arena_rewind(a, before); /* again is allowed */
    memkit_arena_reset(a);
    kept = memkit_arena_strdup(a, "kept");
    misused(memkit_arena_rewind(a, before), "or reset");
    misused(memkit_arena_rewind(a, later), "or reset");
    memkit_arena_free(other);
    end(a);
}

static void defer_row(void **state)
{
    (void)state;
    void (*no_function)(void *) = NULL;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_arena *a = make(kind);
        refused(memkit_arena_defer(NULL, no_function, NULL), -1, EINVAL);
        refused(memkit_arena_defer(NULL, count_call, NULL), -1, EINVAL);
        refused(memkit_arena_defer(a, no_function, a), -1, EINVAL);
        assert_int_equal(memkit_arena_defer(a, count_call, NULL), 0);
        assert_int_equal(memkit_arena_defer(a, count_call, a), 0);
        end(a);
        assert_int_equal(deferred, 1);
    }
}

static void stats_row(void **state)
{
    (void)state;
    memkit_arena *a = make(MALLOCED);
    memkit_arena_stats_t s, untouched;
    memset(&s, 0x5a, sizeof s);
    untouched = s;
    refused_void(memkit_arena_stats(NULL, NULL), EINVAL);
    refused_void(memkit_arena_stats(a, NULL), EINVAL);
    refused_void(memkit_arena_stats(NULL, &s), EINVAL);
    assert_memory_equal(&s, &untouched, sizeof s);
    memkit_arena_stats(a, &s);
    for (size_t i = 0; i < LENGTH(s.reserved); i++)
        assert_int_equal(s.reserved[i], 0);
    end(a);
}

/* A request over max_bytes takes nothing away from the next: what is kept stays. */
static void a_refused_size_costs_nothing(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.max_bytes = 100000});
    for (int i = 0; i < 1000; i++)
        kept = memkit_arena_alloc(a, 60);
    memkit_arena_reset(a);
    kept = memkit_arena_strdup(a, "kept");
    watch(record_arena, a);
    refused(memkit_arena_alloc(a, 100001), NULL, ENOMEM);
    refused(memkit_arena_alloc(a, SIZE_MAX), NULL, ENOMEM);
    refused(memkit_arena_calloc(a, 2, 50000), NULL, ENOMEM);
    refused(memkit_arena_alloc_aligned(a, 60000, 65536), NULL, ENOMEM);
    assert_non_null(memkit_arena_alloc(a, 60000)); /* now they give way */
    end(a);
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_arena_new", NULL, new_row},
        {"memkit_arena_new", "with any name", any_name},
        {"memkit_arena_init", NULL, init_row},
        {"memkit_arena_free", NULL, free_row},
        {"memkit_arena_reset", NULL, reset_row},
        {"memkit_arena_alloc", NULL, alloc_row},
        {"memkit_arena_alloc_slow", NULL, alloc_row},
        {"memkit_arena_alloc", "over max_bytes", a_refused_size_costs_nothing},
        {"memkit_arena_alloc_aligned", NULL, alloc_aligned_row},
        {"memkit_arena_calloc", NULL, calloc_row},
        {"memkit_arena_realloc", NULL, realloc_row},
        {"memkit_arena_strdup", NULL, strdup_row},
        {"memkit_arena_strndup", NULL, strndup_row},
        {"memkit_arena_printf", NULL, printf_row},
        {"memkit_arena_memdup", NULL, memdup_row},
        {"memkit_arena_save", NULL, save_row},
        {"memkit_arena_rewind", NULL, rewind_row},
        {"memkit_arena_defer", NULL, defer_row},
        {"memkit_arena_stats", NULL, stats_row},
    };
    return run_matrix("memkit_arena_", rows, LENGTH(rows));
}
