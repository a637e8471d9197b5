/* memkit/buf.h - growable byte buffer; data[len] is always '\0'.
 *
 *     memkit_buf *b = memkit_buf_new(0);
 *     if (b == NULL || memkit_buf_appendf(b, "%s=%d\n", key, n) != 0)
 *         return -1;                        // errno says why; b holds what it held before
 *     write(fd, b->data, b->len);
 *     memkit_buf_free(b);
 *
 * One owner at a time: no function here may run on the same buffer in two threads at once. A buffer
 * may be handed to another thread, and may be put or freed there.
 */
#ifndef MEMKIT_BUF_H
#define MEMKIT_BUF_H

#include <stdarg.h>

#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* `data` and `len` may be read and written by the owner: to fill the buffer by hand, reserve, write
 * behind data[len], raise len by at most cap - len, and set data[len] = '\0'. `cap` is the number
 * of content bytes there is room for, the '\0' not counted. The private fields are not for use; a
 * buffer comes from memkit_buf_new or memkit_pool_get only. */
typedef struct memkit_buf {
    char *data;
    size_t len;
    size_t cap;
    /* private */
    const struct memkit__buf_ops *ops; /* the creator's: two copies of the core never mix memory */
    struct memkit_pool *pool;
    struct memkit_buf *next, *prev;
    uintptr_t state;
    size_t max_len;
    size_t peak_len;
    size_t held_cap;
    uint64_t held_since; /* of one that is out: the token of a charged one */
    uint16_t class_index;
    uint16_t stocked;
    char empty[4];
} memkit_buf;

/* An empty buffer with room for at least cap bytes; cap = 0 allocates no room yet.
 * NULL: ENOMEM, or EOVERFLOW where cap + 1 is no size. The caller frees it. Two allocations (one
 * for cap = 0). */
MEMKIT_API MEMKIT_NODISCARD memkit_buf *memkit_buf_new(size_t cap);

/* Ends the buffer; a pooled one goes back to its pool, as memkit_pool_put does. NULL is allowed.
 * What is no buffer, was copied as a struct, or waits in its pool is a fault here and wherever a
 * buffer has to grow or is asked for something; what answers then answers EINVAL. */
MEMKIT_API void memkit_buf_free(memkit_buf *b);

/* Appends n bytes from p, which may lie in b itself. 0, or -1: EINVAL (b NULL, or p NULL with n >
 * 0), EOVERFLOW, ENOMEM, EMSGSIZE (over the buffer's limit); b is unchanged then. Amortized O(n):
 * room doubles up to 1 MiB and grows by a quarter from there; in a pooled buffer it is then rounded
 * up to the next size the pool has, of which there are four to a doubling. */
MEMKIT_API int memkit_buf_append(memkit_buf *b, const void *p, size_t n);

/* Appends the string without its '\0'. Errors as memkit_buf_append; EINVAL for NULL. */
MEMKIT_API int memkit_buf_append_str(memkit_buf *b, const char *s);

/* Appends one byte. Errors as memkit_buf_append. */
MEMKIT_API int memkit_buf_append_byte(memkit_buf *b, unsigned char c);

/* Appends as printf would print. Formats once where the result fits in the room there is, twice
 * where not. An argument must not point into b. Errors as memkit_buf_append, and vsnprintf's own.
 */
MEMKIT_API int memkit_buf_appendf(memkit_buf *b, const char *fmt, ...) MEMKIT_PRINTF(2, 3);
MEMKIT_API int memkit_buf_vappendf(memkit_buf *b, const char *fmt, va_list ap) MEMKIT_PRINTF(2, 0);

/* Makes room for `extra` more bytes: cap - len >= extra afterwards. Errors as memkit_buf_append. */
MEMKIT_API int memkit_buf_reserve(memkit_buf *b, size_t extra);

/* Empties the buffer and keeps its room, and its limit. EINVAL for NULL. */
MEMKIT_API void memkit_buf_reset(memkit_buf *b);

/* Bounds what the buffer may ever hold: an append beyond max_len bytes fails with EMSGSIZE. 0 takes
 * the bound away. EINVAL: b is NULL, or already longer. A pooled buffer forgets its limit when put.
 */
MEMKIT_API int memkit_buf_limit(memkit_buf *b, size_t max_len);

/* Gives the content away: a '\0'-terminated block that the caller frees with free(); *len (where
 * len is not NULL) is its length. b is empty afterwards and still usable, under the limit it had. A
 * plain buffer gives its own memory, without a copy; a pooled or an empty one allocates. NULL:
 * EINVAL, or ENOMEM and b and *len are unchanged. */
MEMKIT_API MEMKIT_NODISCARD char *memkit_buf_detach(memkit_buf *b, size_t *len);

MEMKIT_END_DECLS

#endif
