/* proto.h - protocol buffers' wire format, what a profile needs of it: varints and what has a
 * length. Bytes are gathered in scratch; a failure is kept and seen at the end.
 */
#ifndef MEMKIT_PROF_PROTO_H
#define MEMKIT_PROF_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prof/mem.h"

typedef struct {
    memkit__scratch *s;
    uint8_t *data;
    size_t len, cap;
    bool failed; /* ENOMEM */
} memkit__proto;

static inline bool memkit__proto_room(memkit__proto *m, size_t n)
{
    if (m->failed || m->cap - m->len >= n)
        return !m->failed;
    size_t cap = m->cap < 512 ? 1024 : m->cap * 2;
    while (cap - m->len < n)
        cap *= 2;
    /* What it outgrows stays in the scratch: all of it together is as much again. */
    uint8_t *data = memkit__scratch_alloc(m->s, cap);
    if (data == NULL) {
        m->failed = true;
        return false;
    }
    if (m->len > 0)
        memcpy(data, m->data, m->len);
    m->data = data;
    m->cap = cap;
    return true;
}

static inline void memkit__proto_varint(memkit__proto *m, uint64_t v)
{
    if (!memkit__proto_room(m, 10))
        return;
    for (; v >= 0x80; v >>= 7)
        m->data[m->len++] = (uint8_t)(v | 0x80);
    m->data[m->len++] = (uint8_t)v;
}

/* A number; 0 is the default and is left out. */
static inline void memkit__proto_uint(memkit__proto *m, unsigned field, uint64_t v)
{
    if (v == 0)
        return;
    memkit__proto_varint(m, (uint64_t)field << 3);
    memkit__proto_varint(m, v);
}

/* Bytes, a string, a message. */
static inline void memkit__proto_bytes(memkit__proto *m, unsigned field, const void *p, size_t n)
{
    memkit__proto_varint(m, (uint64_t)field << 3 | 2);
    memkit__proto_varint(m, n);
    if (n > 0 && memkit__proto_room(m, n)) {
        memcpy(m->data + m->len, p, n);
        m->len += n;
    }
}

/* The message, and empties it for the next. */
static inline void memkit__proto_message(memkit__proto *m, unsigned field, memkit__proto *inner)
{
    memkit__proto_bytes(m, field, inner->data, inner->len);
    m->failed = m->failed || inner->failed;
    inner->len = 0;
}

#endif
