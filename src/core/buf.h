/* buf.h - what a buffer's creator must provide, and the states both kinds of buffer share. */
#ifndef MEMKIT_CORE_BUF_H
#define MEMKIT_CORE_BUF_H

#include <memkit/buf.h>

/* A plain buffer's data comes from malloc; a pooled buffer's too, in the pool's size classes. */
struct memkit__buf_ops {
    /* Makes cap >= cap_wanted (> cap), keeping content. 0, or -1 with errno and nothing changed. */
    int (*grow)(memkit_buf *b, size_t cap_wanted);
    /* Ends a live buffer: frees a plain one, puts a pooled one. */
    void (*release)(memkit_buf *b);
};

/* The state word: a constant mixed with the address, so that neither a stray pointer nor a copied
 * struct passes for a buffer. Checked wherever a buffer changes hands, and before it grows. */
#define MEMKIT__BUF_LIVE ((uintptr_t)0x6d6b6275664c6976u)
#define MEMKIT__BUF_CHARGED ((uintptr_t)0x6d6b627566436867u) /* live, and charged: see takes.h */
#define MEMKIT__BUF_HELD ((uintptr_t)0x6d6b627566486c64u)
#define MEMKIT__BUF_DEAD ((uintptr_t)0x6d6b627566446561u)

static inline uintptr_t memkit__buf_state(const memkit_buf *b, uintptr_t state)
{
    return state ^ (uintptr_t)b;
}

/* True for a live buffer; else reports the fault, naming the function that found it. */
bool memkit__buf_live(const memkit_buf *b, const char *function);

#endif
