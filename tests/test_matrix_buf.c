/* test_matrix_buf.c - every function of memkit/buf.h against bad input: plain buffers and pooled
 * ones, and what is no buffer. */
#include <limits.h>
#include <wchar.h>

#include "support_matrix.h"

#include "core/buf.h"

static void *volatile nothing; /* a NULL that no compiler knows of */
static memkit_pool *pool;

/* The bytes of one that waits in its pool are nobody's to read. */
static void record_buf(const void *object, record *r)
{
    const memkit_buf *b = object;
    note(r, "%p len %zu cap %zu limit %zu peak %zu state %zx\n", (void *)b->data, b->len, b->cap,
         b->max_len, b->peak_len, (size_t)b->state);
    if (b->state != memkit__buf_state(b, MEMKIT__BUF_HELD))
        note_bytes(r, b->data, b->len + 1);
}

/* ---- what is tried ---- */

enum { PLAIN, POOLED, KINDS };

static memkit_buf *make(int kind)
{
    pool = kind == POOLED ? memkit_pool_new(NULL) : NULL;
    memkit_buf *b = kind == POOLED ? memkit_pool_get(pool, 20) : memkit_buf_new(0);
    assert_non_null(b);
    assert_int_equal(memkit_buf_append_str(b, "kept"), 0);
    watch(record_buf, b);
    return b;
}

static void end(memkit_buf *b)
{
    watch(NULL, NULL);
    memkit_buf_free(b);
    memkit_pool_free(pool);
    pool = NULL;
}

/* What looks like a buffer and is none; each call must be a fault, and write nowhere. */
static void against_strangers(void (*misuse)(memkit_buf *stranger, const char *message))
{
    memkit_buf zero, ones, copy, *b = make(PLAIN);
    memset(&zero, 0, sizeof zero);
    memset(&ones, 0xff, sizeof ones);
    copy = *b;
    zero.data = zero.empty;
    ones.data = ones.empty;
    copy.data = copy.empty;
    ones.empty[0] = copy.empty[0] = '\0';
    memkit_buf *const strangers[] = {&zero, &ones, &copy};
    for (size_t i = 0; i < LENGTH(strangers); i++) {
        strangers[i]->len = strangers[i]->cap = 0;
        watch(record_buf, strangers[i]);
        misuse(strangers[i], "is not a memkit buffer");
    }
    end(b);
    b = make(POOLED);
    memkit_pool_put(pool, b);
    misuse(b, "already put");
    watch(NULL, NULL);
    memkit_pool_free(pool);
    pool = NULL;
}

/* ---- life ---- */

static void new_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        refused(memkit_buf_new(no_sizes[i]), NULL, EOVERFLOW);
    for (size_t i = 0; i < LENGTH(refused_sizes); i++)
        refused(memkit_buf_new(refused_sizes[i]), NULL, ENOMEM);
    refused(memkit_buf_new((size_t)PTRDIFF_MAX - 1), NULL, ENOMEM);
    for (size_t cap = 0; cap < 2; cap++) {
        memkit_buf *b = memkit_buf_new(cap);
        assert_true(b->cap >= cap);
        assert_string_equal(b->data, "");
        memkit_buf_free(b);
    }
}

static void misuse_free(memkit_buf *stranger, const char *message)
{
    misused(memkit_buf_free(stranger), message);
}

static void free_row(void **state)
{
    (void)state;
    errno = 4711;
    memkit_buf_free(NULL);
    assert_int_equal(errno, 4711);
    against_strangers(misuse_free);
}

static void misuse_reset(memkit_buf *stranger, const char *message)
{
    misused(memkit_buf_reset(stranger), message);
}

static void reset_row(void **state)
{
    (void)state;
    refused_void(memkit_buf_reset(NULL), EINVAL);
    against_strangers(misuse_reset);
}

/* ---- appending ---- */

static void misuse_append(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_append(stranger, "x", 1), -1, EINVAL), message);
    misused(assert_errno(memkit_buf_append(stranger, "", 0), -1, EINVAL), message);
}

static void append_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(memkit_buf_append(NULL, NULL, 0), -1, EINVAL);
        refused(memkit_buf_append(NULL, "x", 1), -1, EINVAL);
        refused(memkit_buf_append(b, NULL, 1), -1, EINVAL);
        refused(memkit_buf_append(b, NULL, SIZE_MAX), -1, EINVAL);
        refused(memkit_buf_append(b, NULL, 0), 0, 0);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) {
            refused(memkit_buf_append(b, "x", no_sizes[i]), -1, EOVERFLOW);
            refused(memkit_buf_append(b, b->data + 1, no_sizes[i]), -1, EOVERFLOW);
        }
        for (size_t i = 0; i < LENGTH(refused_sizes); i++)
            refused(memkit_buf_append(b, "x", refused_sizes[i]), -1, ENOMEM);
        refused(memkit_buf_append(b, "x", (size_t)PTRDIFF_MAX - 4), -1, EOVERFLOW);
        refused(memkit_buf_append(b, "x", (size_t)PTRDIFF_MAX - 5), -1, ENOMEM);
        assert_int_equal(memkit_buf_limit(b, 6), 0);
        refused(memkit_buf_append(b, "xyz", 3), -1, EMSGSIZE);
        refused(memkit_buf_append(b, "x", refused_sizes[0]), -1, EMSGSIZE);
        refused(memkit_buf_append(b, "x", SIZE_MAX), -1, EOVERFLOW);
        end(b);
    }
    against_strangers(misuse_append);
}

static void misuse_append_str(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_append_str(stranger, "x"), -1, EINVAL), message);
    misused(assert_errno(memkit_buf_append_str(stranger, ""), -1, EINVAL), message);
}

static void append_str_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(memkit_buf_append_str(NULL, NULL), -1, EINVAL);
        refused(memkit_buf_append_str(NULL, "x"), -1, EINVAL);
        refused(memkit_buf_append_str(b, NULL), -1, EINVAL);
        refused(memkit_buf_append_str(b, ""), 0, 0);
        assert_int_equal(memkit_buf_limit(b, 4), 0);
        refused(memkit_buf_append_str(b, "x"), -1, EMSGSIZE);
        refused(memkit_buf_append_str(b, b->data), -1, EMSGSIZE);
        assert_int_equal(memkit_buf_limit(b, 0), 0);
        char expected[200] = "kept"; /* its own end, again and again */
        for (size_t len = 4; len < 100; len += len - len / 2) {
            memmove(expected + len, expected + len / 2, len - len / 2);
            assert_int_equal(memkit_buf_append_str(b, b->data + len / 2), 0);
        }
        assert_string_equal(b->data, expected);
        end(b);
    }
    against_strangers(misuse_append_str);
}

static void misuse_append_byte(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_append_byte(stranger, 'x'), -1, EINVAL), message);
}

static void append_byte_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(memkit_buf_append_byte(NULL, 'x'), -1, EINVAL);
        assert_int_equal(memkit_buf_limit(b, 4), 0);
        refused(memkit_buf_append_byte(b, 'x'), -1, EMSGSIZE);
        assert_int_equal(memkit_buf_limit(b, 0), 0);
        for (int c = 0; c < 256; c++)
            assert_int_equal(memkit_buf_append_byte(b, (unsigned char)c), 0);
        for (size_t c = 0; c < 256; c++)
            assert_int_equal((unsigned char)b->data[4 + c], c);
        end(b);
    }
    against_strangers(misuse_append_byte);
}

/* ---- formatting ---- */

static int vappendf(memkit_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int result = memkit_buf_vappendf(b, fmt, ap);
    int reason = errno;
    va_end(ap);
    errno = reason;
    return result;
}

typedef int (*formatter)(memkit_buf *b, const char *fmt, ...);

static void format_badly(formatter format)
{
    const char *none = nothing;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(format(NULL, none, 1), -1, EINVAL);
        refused(format(NULL, "%d", 1), -1, EINVAL);
        refused(format(b, none, 1), -1, EINVAL);
        refused(format(b, "%s", ""), 0, 0);
        refused(format(b, "before %lc", (wint_t)0xd800), -1, EILSEQ);
        refused(format(b, "%2147483648d", 1), -1, EOVERFLOW); /* wider than an int can say */
        assert_int_equal(memkit_buf_limit(b, 6), 0);
        refused(format(b, "%d", 100), -1, EMSGSIZE);
        refused(format(b, "%5000d", 1), -1, EMSGSIZE);
        refused(format(b, "%lc", (wint_t)0xd800), -1, EILSEQ);
        assert_int_equal(format(b, "%d", 10), 0); /* to the last byte */
        assert_string_equal(b->data, "kept10");
        end(b);
    }
}

static void misuse_appendf(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_appendf(stranger, "%d", 1), -1, EINVAL), message);
}

static void appendf_row(void **state)
{
    (void)state;
    format_badly((formatter)memkit_buf_appendf);
    against_strangers(misuse_appendf);
}

static void misuse_vappendf(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(vappendf(stranger, "%d", 1), -1, EINVAL), message);
}

static void vappendf_row(void **state)
{
    (void)state;
    format_badly(vappendf);
    against_strangers(misuse_vappendf);
}

/* ---- room ---- */

static void misuse_reserve(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_reserve(stranger, 0), -1, EINVAL), message);
    misused(assert_errno(memkit_buf_reserve(stranger, 100), -1, EINVAL), message);
}

static void reserve_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(memkit_buf_reserve(NULL, 0), -1, EINVAL);
        refused(memkit_buf_reserve(NULL, SIZE_MAX), -1, EINVAL);
        refused(memkit_buf_reserve(b, 0), 0, 0);
        refused(memkit_buf_reserve(b, b->cap - b->len), 0, 0);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            refused(memkit_buf_reserve(b, no_sizes[i]), -1, EOVERFLOW);
        for (size_t i = 0; i < LENGTH(refused_sizes); i++)
            refused(memkit_buf_reserve(b, refused_sizes[i]), -1, ENOMEM);
        assert_int_equal(memkit_buf_limit(b, 100), 0);
        refused(memkit_buf_reserve(b, 97), -1, EMSGSIZE);
        refused(memkit_buf_reserve(b, SIZE_MAX), -1, EOVERFLOW);
        assert_int_equal(memkit_buf_reserve(b, 96), 0);
        assert_true(b->cap - b->len >= 96);
        assert_string_equal(b->data, "kept");
        end(b);
    }
    against_strangers(misuse_reserve);
}

static void misuse_limit(memkit_buf *stranger, const char *message)
{
    misused(assert_errno(memkit_buf_limit(stranger, 0), -1, EINVAL), message);
    misused(assert_errno(memkit_buf_limit(stranger, SIZE_MAX), -1, EINVAL), message);
}

static void limit_row(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        refused(memkit_buf_limit(NULL, 0), -1, EINVAL);
        refused(memkit_buf_limit(NULL, SIZE_MAX), -1, EINVAL);
        for (size_t limit = 1; limit < 4; limit++)
            refused(memkit_buf_limit(b, limit), -1, EINVAL);
        assert_int_equal(memkit_buf_limit(b, 4), 0);
        refused(memkit_buf_append_byte(b, 'x'), -1, EMSGSIZE);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) { /* no bound at all, in effect */
            assert_int_equal(memkit_buf_limit(b, no_sizes[i]), 0);
            assert_int_equal(memkit_buf_append(b, "0123456789", 10), 0);
            refused(memkit_buf_append(b, "x", SIZE_MAX), -1, EOVERFLOW);
        }
        end(b);
    }
    against_strangers(misuse_limit);
}

static void misuse_detach(memkit_buf *stranger, const char *message)
{
    size_t len = 4711;
    misused(assert_errno(memkit_buf_detach(stranger, &len), NULL, EINVAL), message);
    assert_int_equal(len, 4711);
}

static void detach_row(void **state)
{
    (void)state;
    size_t len = 4711;
    refused(memkit_buf_detach(NULL, NULL), NULL, EINVAL);
    refused(memkit_buf_detach(NULL, &len), NULL, EINVAL);
    assert_int_equal(len, 4711);
    for (int kind = 0; kind < KINDS; kind++) {
        memkit_buf *b = make(kind);
        assert_int_equal(memkit_buf_limit(b, 4), 0);
        char *first = memkit_buf_detach(b, NULL), *second = memkit_buf_detach(b, &len);
        assert_string_equal(first, "kept");
        assert_string_equal(second, "");
        assert_int_equal(len, 0);
        assert_int_equal(memkit_buf_append(b, first, 4), 0);
        assert_string_equal(b->data, "kept");
        refused(memkit_buf_append_byte(b, 'x'), -1, EMSGSIZE); /* it keeps its limit */
        free(first);
        free(second);
        end(b);
    }
    against_strangers(misuse_detach);
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_buf_new", NULL, new_row},
        {"memkit_buf_free", NULL, free_row},
        {"memkit_buf_append", NULL, append_row},
        {"memkit_buf_append_str", NULL, append_str_row},
        {"memkit_buf_append_byte", NULL, append_byte_row},
        {"memkit_buf_appendf", NULL, appendf_row},
        {"memkit_buf_vappendf", NULL, vappendf_row},
        {"memkit_buf_reserve", NULL, reserve_row},
        {"memkit_buf_reset", NULL, reset_row},
        {"memkit_buf_limit", NULL, limit_row},
        {"memkit_buf_detach", NULL, detach_row},
    };
    return run_matrix("memkit_buf_", rows, LENGTH(rows));
}
