/* test_oom_buf.c - buffers while malloc fails, at each of their allocations. */
#include "support_matrix.h"

static memkit_pool *pool;

static int reason_of(int result)
{
    return result == 0 ? 0 : errno;
}

static void record_buf(const void *object, record *r)
{
    const memkit_buf *b = object;
    note(r, "%p len %zu cap %zu\n", (void *)b->data, b->len, b->cap);
    note_bytes(r, b->data, b->len + 1);
}

/* ---- objects ---- */

static void *make_plain(void)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_append_str(b, "kept"), 0);
    return b;
}

static void *make_empty(void)
{
    return memkit_buf_new(0);
}

static void end_buf(void *b)
{
    memkit_buf_free(b);
}

static void *make_pooled(void)
{
    pool = memkit_pool_new(NULL);
    memkit_buf *b = memkit_pool_get(pool, 20);
    assert_int_equal(memkit_buf_append_str(b, "kept"), 0);
    return b;
}

static void end_pooled(void *b)
{
    memkit_buf_free(b);
    memkit_pool_free(pool);
}

static void *make_full(void)
{
    memkit_buf *b = make_plain();
    while (b->len < b->cap)
        memkit_buf_append_byte(b, '.');
    return b;
}

/* ---- calls ---- */

static char thousand[1000];

static int new_empty(void *unused)
{
    (void)unused;
    memkit_buf *b = memkit_buf_new(0);
    if (b == NULL)
        return errno;
    memkit_buf_free(b);
    return 0;
}

static int new_with_room(void *unused)
{
    (void)unused;
    memkit_buf *b = memkit_buf_new(1000);
    if (b == NULL)
        return errno;
    memkit_buf_free(b);
    return 0;
}

static int append(void *b)
{
    return reason_of(memkit_buf_append(b, thousand, sizeof thousand));
}

static int append_itself(void *object)
{
    memkit_buf *b = object;
    return reason_of(memkit_buf_append(b, b->data, b->len));
}

static int append_str(void *b)
{
    return reason_of(memkit_buf_append_str(
        b, "seventy bytes are more than the least block has room for: so it grows for this text"));
}

static int append_byte(void *b)
{
    return reason_of(memkit_buf_append_byte(b, 'x'));
}

static int appendf(void *b)
{
    return reason_of(memkit_buf_appendf(b, "%1000d", 7));
}

static int vappendf_with(memkit_buf *b, const char *fmt, ...) MEMKIT_PRINTF(2, 3);
static int vappendf_with(memkit_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int reason = reason_of(memkit_buf_vappendf(b, fmt, ap));
    va_end(ap);
    return reason;
}

static int vappendf(void *b)
{
    return vappendf_with(b, "%1000d", 7);
}

static int reserve(void *b)
{
    return reason_of(memkit_buf_reserve(b, 100000));
}

static int detach(void *b)
{
    size_t len = 4711;
    char *out = memkit_buf_detach(b, &len);
    if (out == NULL)
        return len == 4711 ? errno : EPROTO;
    int wrong = strlen(out) != len;
    free(out);
    return wrong ? EPROTO : 0;
}

static int reset(void *b)
{
    memkit_buf_reset(b);
    return 0;
}

static int limit(void *b)
{
    return reason_of(memkit_buf_limit(b, 1000000));
}

static int free_new(void *b)
{
    memkit_buf_free(b);
    return 0;
}

int main(void)
{
    const oom_row rows[] = {
        {"memkit_buf_new", "empty", 1, NULL, new_empty, NULL, NULL},
        {"memkit_buf_new", "with room", 2, NULL, new_with_room, NULL, NULL},
        {"memkit_buf_append", "to a plain one", 1, make_plain, append, record_buf, end_buf},
        {"memkit_buf_append", "to an empty one", 1, make_empty, append, record_buf, end_buf},
        {"memkit_buf_append", "to a pooled one", 1, make_pooled, append, record_buf, end_pooled},
        {"memkit_buf_append", "to itself", 1, make_full, append_itself, record_buf, end_buf},
        {"memkit_buf_append_str", "to a plain one", 1, make_plain, append_str, record_buf, end_buf},
        {"memkit_buf_append_str", "to a pooled one", 1, make_pooled, append_str, record_buf,
         end_pooled},
        {"memkit_buf_append_byte", "to a full one", 1, make_full, append_byte, record_buf, end_buf},
        {"memkit_buf_append_byte", "to an empty one", 1, make_empty, append_byte, record_buf,
         end_buf},
        {"memkit_buf_appendf", "to a plain one", 1, make_plain, appendf, record_buf, end_buf},
        {"memkit_buf_appendf", "to an empty one", 1, make_empty, appendf, record_buf, end_buf},
        {"memkit_buf_appendf", "to a pooled one", 1, make_pooled, appendf, record_buf, end_pooled},
        {"memkit_buf_vappendf", NULL, 1, make_plain, vappendf, record_buf, end_buf},
        {"memkit_buf_reserve", "in a plain one", 1, make_plain, reserve, record_buf, end_buf},
        {"memkit_buf_reserve", "in a pooled one", 1, make_pooled, reserve, record_buf, end_pooled},
        {"memkit_buf_detach", "of a plain one", 0, make_plain, detach, record_buf, end_buf},
        {"memkit_buf_detach", "of an empty one", 1, make_empty, detach, record_buf, end_buf},
        {"memkit_buf_detach", "of a pooled one", 1, make_pooled, detach, record_buf, end_pooled},
        {"memkit_buf_reset", NULL, 0, make_plain, reset, record_buf, end_buf},
        {"memkit_buf_limit", NULL, 0, make_plain, limit, record_buf, end_buf},
        {"memkit_buf_free", NULL, 0, make_plain, free_new, NULL, NULL},
    };
    return run_oom("memkit_buf_", rows, LENGTH(rows), NULL, 0);
}
