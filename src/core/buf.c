/* buf.c - growable byte buffer.
 *
 *     memkit_buf        data block (malloc)
 *     +--------+        +----------------------+---+------ - -
 *     | data  ------->  | content, len bytes   | 0 | spare
 *     | len    |        +----------------------+---+------ - -
 *     | cap    |        <------------- cap + 1 bytes -------->
 *     | ...    |
 *     +--------+        While cap is 0, data points at the header's own `empty`: no block at all.
 *
 * Invariants: len <= cap; data[len] == '\0'; state says live. A buffer waiting in a pool has len
 * and cap 0, so that whoever still appends to it ends in the slow path, which looks at the state.
 * Locking: none; one owner at a time.
 */
#include <memkit/buf.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/internal.h"

enum { MIN_BLOCK = 64, DOUBLE_UP_TO = 1 << 20 };

static int plain_grow(memkit_buf *b, size_t cap_wanted)
{
    size_t block;
    if (!memkit__add(cap_wanted, 1, &block)) {
        errno = EOVERFLOW;
        return -1;
    }
    char *data = realloc(b->cap != 0 ? b->data : NULL, block);
    if (data == NULL)
        return -1;
    if (b->cap == 0)
        data[0] = '\0';
    b->data = data;
    b->cap = cap_wanted;
    return 0;
}

static void plain_release(memkit_buf *b)
{
    b->state = memkit__buf_state(b, MEMKIT__BUF_DEAD);
    if (b->cap != 0)
        free(b->data);
    free(b);
}

static const struct memkit__buf_ops plain_ops = {plain_grow, plain_release};

bool memkit__buf_live(const memkit_buf *b, const char *function)
{
    if (MEMKIT_LIKELY(b->state == memkit__buf_state(b, MEMKIT__BUF_LIVE)))
        return true;
    if (b->state == memkit__buf_state(b, MEMKIT__BUF_CHARGED))
        return true;
    if (b->state == memkit__buf_state(b, MEMKIT__BUF_HELD))
        memkit__fault("%s: buffer %p was already put into its pool", function, (const void *)b);
    else if (b->state == memkit__buf_state(b, MEMKIT__BUF_DEAD))
        memkit__fault("%s: buffer %p was already freed", function, (const void *)b);
    else
        memkit__fault("%s: %p is not a memkit buffer", function, (const void *)b);
    return false;
}

memkit_buf *memkit_buf_new(size_t cap)
{
    memkit_buf *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->data = b->empty;
    b->ops = &plain_ops;
    b->state = memkit__buf_state(b, MEMKIT__BUF_LIVE);
    if (cap > 0 && plain_grow(b, cap) != 0) {
        int reason = errno;
        free(b);
        errno = reason;
        return NULL;
    }
    return b;
}

void memkit_buf_free(memkit_buf *b)
{
    if (b != NULL && memkit__buf_live(b, "memkit_buf_free"))
        b->ops->release(b);
}

/* Room for n more bytes, at least doubled (by a quarter from 1 MiB on) so that appends are O(1). */
static int make_room(memkit_buf *b, size_t n)
{
    if (!memkit__buf_live(b, "memkit_buf")) {
        errno = EINVAL;
        return -1;
    }
    size_t wanted;
    if (!memkit__add(b->len, n, &wanted)) {
        errno = EOVERFLOW;
        return -1;
    }
    if (b->max_len != 0 && wanted > b->max_len) {
        errno = EMSGSIZE;
        return -1;
    }
    if (wanted <= b->cap)
        return 0;
    size_t step = b->cap < DOUBLE_UP_TO ? b->cap + 1 : b->cap / 4, better;
    if (memkit__add(b->cap, step, &better) && better > wanted)
        wanted = b->max_len != 0 && better > b->max_len ? b->max_len : better;
    return b->ops->grow(b, wanted < MIN_BLOCK - 1 ? MIN_BLOCK - 1 : wanted);
}

/* The limit is looked at here too: a limited buffer may have more room than it may use. */
static inline bool fits(const memkit_buf *b, size_t n)
{
    return n <= b->cap - b->len && (b->max_len == 0 || b->len + n <= b->max_len) && b->cap != 0;
}

int memkit_buf_append(memkit_buf *b, const void *p, size_t n)
{
    if (b == NULL || (p == NULL && n > 0)) {
        errno = EINVAL;
        return -1;
    }
    if (n == 0)
        return b->cap != 0 ? 0 : make_room(b, 0);
    if (MEMKIT_UNLIKELY(!fits(b, n))) {
        /* Growing may move data, and p with it. */
        uintptr_t offset = (uintptr_t)p - (uintptr_t)b->data;
        bool inside = b->cap != 0 && offset <= b->cap;
        if (make_room(b, n) != 0)
            return -1;
        if (inside)
            p = b->data + offset;
    }
    memmove(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
    return 0;
}

int memkit_buf_append_str(memkit_buf *b, const char *s)
{
    if (s == NULL) {
        errno = EINVAL;
        return -1;
    }
    return memkit_buf_append(b, s, strlen(s));
}

int memkit_buf_append_byte(memkit_buf *b, unsigned char c)
{
    if (b == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (MEMKIT_UNLIKELY(!fits(b, 1)) && make_room(b, 1) != 0)
        return -1;
    b->data[b->len++] = (char)c;
    b->data[b->len] = '\0';
    return 0;
}

int memkit_buf_vappendf(memkit_buf *b, const char *fmt, va_list ap)
{
    if (b == NULL || fmt == NULL) {
        errno = EINVAL;
        return -1;
    }
    if (b->cap == 0 && !memkit__buf_live(b, "memkit_buf_appendf")) {
        errno = EINVAL;
        return -1;
    }
    va_list again;
    va_copy(again, ap);
    size_t room = b->cap - b->len + 1;
    int n = vsnprintf(b->data + b->len, room, fmt, ap);
    if (n >= 0 && !fits(b, (size_t)n) && n > 0) {
        b->data[b->len] = '\0';
        n = make_room(b, (size_t)n) != 0
                ? -1
                : vsnprintf(b->data + b->len, b->cap - b->len + 1, fmt, again);
    }
    va_end(again);
    if (n < 0) {
        b->data[b->len] = '\0';
        return -1;
    }
    b->len += (size_t)n;
    return 0;
}

int memkit_buf_appendf(memkit_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int result = memkit_buf_vappendf(b, fmt, ap);
    va_end(ap);
    return result;
}

int memkit_buf_reserve(memkit_buf *b, size_t extra)
{
    if (b == NULL) {
        errno = EINVAL;
        return -1;
    }
    return make_room(b, extra);
}

void memkit_buf_reset(memkit_buf *b)
{
    if (b == NULL) {
        errno = EINVAL;
        return;
    }
    if (!memkit__buf_live(b, "memkit_buf_reset"))
        return;
    /* What the use before this one needed: the pool calibrates by it. */
    if (b->len > b->peak_len)
        b->peak_len = b->len;
    b->len = 0;
    b->data[0] = '\0';
}

int memkit_buf_limit(memkit_buf *b, size_t max_len)
{
    if (b == NULL || (max_len != 0 && max_len < b->len) ||
        !memkit__buf_live(b, "memkit_buf_limit")) {
        errno = EINVAL;
        return -1;
    }
    b->max_len = max_len;
    return 0;
}

char *memkit_buf_detach(memkit_buf *b, size_t *len)
{
    if (b == NULL || !memkit__buf_live(b, "memkit_buf_detach")) {
        errno = EINVAL;
        return NULL;
    }
    char *out = b->data;
    if (b->ops != &plain_ops || b->cap == 0) {
        out = malloc(b->len + 1);
        if (out == NULL)
            return NULL;
        memcpy(out, b->data, b->len + 1);
        if (len != NULL)
            *len = b->len;
        memkit_buf_reset(b);
        return out;
    }
    if (len != NULL)
        *len = b->len;
    b->data = b->empty;
    b->empty[0] = '\0';
    b->len = b->cap = 0;
    return out;
}
