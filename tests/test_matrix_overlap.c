/* test_matrix_overlap.c - memory that lies where it should not: bytes that are the object's own, at
 * any address, and references and places whose memory has gone. */
#include "test_matrix_lru.h"

#include "core/arena.h"

/* ---- buffers: their own bytes, any address ---- */

static memkit_pool *pool;

enum { PLAIN, POOLED, BUF_KINDS };

static memkit_buf *make_buf(int kind)
{
    pool = kind == POOLED ? memkit_pool_new(NULL) : NULL;
    memkit_buf *b = kind == POOLED ? memkit_pool_get(pool, 20) : memkit_buf_new(0);
    assert_non_null(b);
    assert_int_equal(memkit_buf_append_str(b, "kept"), 0);
    return b;
}

static void end_buf(memkit_buf *b)
{
    memkit_buf_free(b);
    memkit_pool_free(pool);
    pool = NULL;
}

/* Every part of a buffer's own bytes, the '\0' too, with room for it and without. */
static void append_of_its_own(void **state)
{
    (void)state;
    for (int kind = 0; kind < BUF_KINDS; kind++)
        for (size_t from = 0; from <= 8; from++)
            for (size_t n = 0; from + n <= 9; n++)
                for (int full = 0; full < 2; full++) {
                    memkit_buf *b = make_buf(kind);
                    char expected[200] = "kept1234";
                    memkit_buf_append_str(b, "1234");
                    size_t len = 8;
                    while (full && b->cap - b->len > 0) {
                        expected[len++] = '.';
                        memkit_buf_append_byte(b, '.');
                    }
                    assert_true(len + n < sizeof expected);
                    memmove(expected + len, expected + from, n);
                    assert_int_equal(memkit_buf_append(b, b->data + from, n), 0);
                    assert_int_equal(b->len, len + n);
                    assert_memory_equal(b->data, expected, len + n);
                    assert_int_equal(b->data[b->len], '\0');
                    end_buf(b);
                }
    memkit_buf *b = memkit_buf_new(0); /* the '\0' of a buffer that has no block yet */
    assert_int_equal(memkit_buf_append(b, b->data, 1), 0);
    assert_int_equal(b->len, 1);
    assert_int_equal(b->data[0], '\0');
    memkit_buf_free(b);
}

static void append_from_any_address(void **state)
{
    (void)state;
    static char bytes[64 + 256];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)i;
    for (size_t offset = 0; offset < 64; offset++) {
        memkit_buf *b = make_buf((int)(offset % BUF_KINDS));
        assert_int_equal(memkit_buf_append(b, bytes + offset, 256), 0);
        assert_memory_equal(b->data + 4, bytes + offset, 256);
        end_buf(b);
    }
}

/* ---- arenas: what is older than a mark ---- */

static void assert_sound(const memkit_arena *a)
{
    const char *broken = memkit__arena_check(a);
    if (broken != NULL)
        fail_msg("%s", broken);
}

/* Grown after a mark, and gone back to it: what was there at the mark is there still. */
static void realloc_across_a_mark(void **state)
{
    (void)state;
    for (size_t n = 8; n <= 1 << 20; n *= 2) {
        memkit_arena *a = memkit_arena_new(NULL);
        char *p = memkit_arena_alloc(a, n);
        memset(p, 'p', n);
        memkit_arena_mark m = memkit_arena_save(a);
        assert_ptr_equal(memkit_arena_realloc(a, p, n, n / 2),
                         p); /* smaller, and back at the mark */
        memkit_arena_rewind(a, m);
        char *grown = memkit_arena_realloc(a, p, n, n * 64);
        assert_non_null(grown);
        memset(grown, 'g', n * 64);
        memkit_arena_rewind(a, m);
        char *others = memset(malloc(n * 2), 'o', n * 2); /* who would get p, had it been freed */
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 'p');
        free(others);
        assert_sound(a);
        memkit_arena_free(a);
    }
}

/* Copies of what it gave out itself, to the last byte of it, and of a copy. */
static void dup_of_its_own(void **state)
{
    (void)state;
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.first_chunk_bytes = 256});
    char *text = memkit_arena_strdup(a, "x");
    for (size_t len = 1; len < 20000; len *= 2) {
        char *twice = memkit_arena_printf(a, "%s%s", text, text);
        assert_int_equal(strlen(twice), 2 * len);
        assert_memory_equal(memkit_arena_memdup(a, twice + len, len + 1), text, len + 1);
        assert_string_equal(memkit_arena_strndup(a, twice, len), text);
        text = memkit_arena_realloc(a, memkit_arena_strdup(a, twice), 2 * len + 1, 4 * len + 1);
        assert_string_equal(text, twice);
        assert_sound(a);
    }
    memkit_arena_free(a);
}

/* ---- caches ---- */

/* The value a key maps to, and the key itself, lie in an entry that the caller has pinned. */
static void set_from_a_pinned_entry(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++)
        for (size_t vlen = 1; vlen < 20000; vlen = vlen * 3 + 1) {
            memkit_lru *c = make(kind);
            char *value = malloc(vlen), *back = malloc(vlen);
            for (size_t i = 0; i < vlen; i++)
                value[i] = (char)(i * 31);
            assert_int_equal(memkit_lru_set(c, "self", 4, value, vlen), 0);
            memkit_lru_ref ref;
            assert_int_equal(memkit_lru_get(c, "self", 4, &ref), 1);
            /* its own value, a part of it, and under its own value as the key */
            assert_int_equal(memkit_lru_set(c, "self", 4, ref.data, ref.len), 0);
            assert_int_equal(memkit_lru_get_into(c, "self", 4, back, vlen, NULL), 1);
            assert_memory_equal(back, value, vlen);
            assert_int_equal(
                memkit_lru_set(c, "self", 4, (const char *)ref.data + vlen / 2, vlen - vlen / 2),
                0);
            assert_int_equal(memkit_lru_get_into(c, "self", 4, back, vlen, NULL), 1);
            assert_memory_equal(back, value + vlen / 2, vlen - vlen / 2);
            size_t klen = vlen < 200 ? vlen : 200;
            assert_int_equal(memkit_lru_set(c, ref.data, klen, ref.data, ref.len), 0);
            assert_int_equal(memkit_lru_get_into(c, value, klen, back, vlen, NULL), 1);
            assert_memory_equal(back, value, vlen);
            assert_memory_equal(ref.data, value, vlen); /* what is pinned stays as it is */
            memkit_lru_release(c, &ref);
            record r = {0};
            record_lru(c, &r);
            end(c);
            free(value);
            free(back);
        }
}

static void set_from_any_address(void **state)
{
    (void)state;
    static char bytes[64 + 300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    for (size_t offset = 0; offset < 64; offset++) {
        memkit_lru *c = make(offset % KINDS);
        char back[300];
        size_t len, klen = 1 + offset % 40;
        const char *key = bytes + offset, *val = bytes + 64 - offset;
        assert_int_equal(memkit_lru_set(c, key, klen, val, 300), 0);
        assert_int_equal(memkit_lru_get_into(c, key, klen, back, sizeof back, &len), 1);
        assert_int_equal(len, 300);
        assert_memory_equal(back, val, 300);
        memkit_lru_ref ref;
        assert_int_equal(memkit_lru_get(c, key, klen, &ref), 1);
        assert_int_equal((uintptr_t)ref.data % 8, 0);
        memkit_lru_release(c, &ref);
        end(c);
    }
}

/* A stale copy of a reference whose entry, and whose memory, are long gone. */
static void release_of_what_is_gone(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++)
        for (size_t vlen = 10; vlen <= 3000; vlen *= 300) {
            memkit_lru *c = make(kind);
            static char value[3000];
            memkit_lru_ref refs[12], stale[12];
            assert_int_equal(memkit_lru_resize(c, 1000, 4 << 20), 0);
            for (int i = 0; i < 1000; i++)
                assert_int_equal(memkit_lru_set(c, &i, sizeof i, value, vlen), 0);
            for (int i = 0; i < 12; i++) {
                int key = 988 + i;
                assert_int_equal(memkit_lru_get(c, &key, sizeof key, &refs[i]), 1);
                stale[i] = refs[i];
            }
            for (int i = 0; i < 12; i++)
                memkit_lru_release(c, &refs[i]);
            memkit_lru_clear(c);
            misused(memkit_lru_release(c, &stale[5]), "was released already");
            assert_int_equal(memkit_lru_resize(c, 3, 64 << 10), 0);
            for (int i = 0; i < 12; i++)
                misused(memkit_lru_release(c, &stale[i]), "was released already");
            end(c);
        }
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_buf_append", "of its own bytes", append_of_its_own},
        {"memkit_buf_append", "from any address", append_from_any_address},
        {"memkit_arena_realloc", "across a mark", realloc_across_a_mark},
        {"memkit_arena_memdup", "of its own bytes", dup_of_its_own},
        {"memkit_lru_set", "from a pinned entry", set_from_a_pinned_entry},
        {"memkit_lru_set", "from any address", set_from_any_address},
        {"memkit_lru_release", "of what is gone", release_of_what_is_gone},
    };
    return run_matrix(MORE_ROWS, rows, LENGTH(rows));
}
