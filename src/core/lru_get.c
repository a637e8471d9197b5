/* lru_get.c - the calls that look for a key: get and its kin, release, del.
 *
 * A hit: hash (no lock), search, compare, four links, copy or pin. A reference carries where its
 * entry is and a seal of the cache's cookie, so that release believes only what this cache gave
 * out; the unit's serial shows that the memory has become something else since. Locking: the
 * shard's mutex, for the search and the links; get_buf gives it up before it allocates.
 */
#include "core/lru_find.h"
#include "core/lru_track.h"

enum { LINE = 64, MAX_PINS = UINT16_MAX };

static int invalid(void)
{
    errno = EINVAL;
    return -1;
}

/* A length that no object has would be read far beyond the key, before it is found to be absent. */
static inline bool bad_key(const memkit_lru *c, const void *key, size_t klen)
{
    return MEMKIT_UNLIKELY(c == NULL || (key == NULL && klen > 0) || klen > PTRDIFF_MAX);
}

static __attribute__((noinline)) int refuse_key(const memkit_lru *c, const void *key)
{
    errno = c == NULL || key == NULL ? EINVAL : EOVERFLOW;
    return -1;
}

/* The lookup of one call: shard locked from begin to end. */
typedef struct {
    memkit__lru_shard *shard;
    memkit__lru_entry *entry;
    uint32_t handle; /* 0: a miss, and counted */
    memkit__lru_leavers leavers;
} look;

static __attribute__((noinline)) void expire(look *l)
{
    memkit__lru_leave(l->shard, l->handle, MEMKIT_LRU_EXPIRED, &l->leavers);
    l->handle = 0;
}

uint32_t memkit__lru_find_old(const memkit__lru_shard *s, uint32_t tag, const void *key,
                              size_t klen)
{
    const memkit__lru_table *t = &s->index.old;
    size_t home = memkit__lru_home(t, tag);
    uint64_t *p = memkit__lru_seek(t, tag, home > s->index.moved ? home : s->index.moved);
    return memkit__lru_match(s, p, tag, key, klen);
}

static MEMKIT__FORCE_INLINE void begin(memkit_lru *c, const void *key, size_t klen, bool promote,
                                       look *l)
{
    uint32_t tag;
    memkit__lru_shard *s = l->shard = memkit__lru_locate(c, key, klen, &tag);
    uint64_t now = c->ttl_ms == 0 ? 0 : memkit__lru_now(c);
    l->leavers.first = 0;
    memkit__lru_lock(s);
    l->handle = memkit__lru_find(s, tag, key, klen);
    if (MEMKIT_LIKELY(l->handle != 0)) {
        l->entry = memkit__lru_at(s, l->handle);
        if (MEMKIT_LIKELY(!s->has_ttl || memkit__lru_expiry(l->entry) > now)) {
            s->hits++;
            if (promote)
                memkit__lru_touch(s, l->handle, l->entry);
            return;
        }
        expire(l);
    }
    s->misses++;
}

static MEMKIT__FORCE_INLINE void end(look *l)
{
    memkit__lru_unlock(l->shard);
    if (MEMKIT_UNLIKELY(l->leavers.first != 0))
        memkit__lru_part(l->shard, &l->leavers);
}

/* False with 2^16 - 1 references out. */
static inline bool pin(memkit__lru_shard *s, uint32_t handle, memkit__lru_entry *e)
{
    if (MEMKIT_UNLIKELY(e->pins == MAX_PINS))
        return false;
    if (e->pins++ == 0) {
        memkit__lru_account_pin(s, handle);
        memkit__lru_show_value(e);
    }
    return true;
}

/* -- references -- */

static inline uint64_t place_of(const memkit_lru *c, const memkit__lru_shard *s, uint32_t handle)
{
    uint64_t line = (uint64_t)((const char *)s - c->shards) / LINE;
    return line << 48 | (uint64_t)s->units[handle >> 12].serial << 32 | handle;
}

static inline uint64_t seal_of(const memkit_lru *c, uint64_t place, const void *data)
{
    return c->cookie ^ place * 0x9e3779b97f4a7c15u ^ (uintptr_t)data;
}

static MEMKIT__FORCE_INLINE int get_pinned(memkit_lru *c, const void *key, size_t klen,
                                           memkit_lru_ref *ref, bool promote)
{
    if (MEMKIT_UNLIKELY(ref == NULL))
        return invalid();
    if (bad_key(c, key, klen)) {
        *ref = (memkit_lru_ref){NULL, 0, {0, 0}};
        return refuse_key(c, key);
    }
    look l;
    int result = 0;
    begin(c, key, klen, promote, &l);
    if (MEMKIT_UNLIKELY(l.handle == 0)) {
        *ref = (memkit_lru_ref){NULL, 0, {0, 0}};
    } else if (MEMKIT_UNLIKELY(!pin(l.shard, l.handle, l.entry))) {
        *ref = (memkit_lru_ref){NULL, 0, {0, 0}};
        errno = EAGAIN;
        result = -1;
    } else {
        ref->data = memkit__lru_value(l.entry);
        ref->len = memkit__lru_vlen(l.entry);
        ref->priv[0] = place_of(c, l.shard, l.handle);
        ref->priv[1] = seal_of(c, ref->priv[0], ref->data);
        result = 1;
    }
    end(&l);
    return result;
}

int memkit_lru_get(memkit_lru *c, const void *key, size_t klen, memkit_lru_ref *ref)
{
    return get_pinned(c, key, klen, ref, true);
}

int memkit_lru_peek(memkit_lru *c, const void *key, size_t klen, memkit_lru_ref *ref)
{
    return get_pinned(c, key, klen, ref, false);
}

/* True where the reference's memory is still what it was when it was given out. The seal vouches
 * for the handle; the unit may have been given back since, or serve other entries. */
static inline bool still_pinned(const memkit__lru_shard *s, const memkit_lru_ref *ref)
{
    uint32_t handle = (uint32_t)ref->priv[0];
    if (handle >> 12 >= s->unit_count) /* the table was shortened since */
        return false;
    const memkit__lru_unit *u = &s->units[handle >> 12];
    if (u->base == NULL || u->serial != (uint16_t)(ref->priv[0] >> 32))
        return false;
    const memkit__lru_entry *e = memkit__lru_at(s, handle);
    return e->pins > 0 && memkit__lru_value(e) == ref->data;
}

void memkit_lru_release(memkit_lru *c, memkit_lru_ref *ref)
{
    if (c == NULL || ref == NULL) {
        errno = EINVAL;
        return;
    }
    if (ref->data == NULL)
        return;
    if (MEMKIT_UNLIKELY(ref->priv[1] != seal_of(c, ref->priv[0], ref->data))) {
        memkit__fault("memkit_lru_release: %p is no reference into cache \"%s\"", ref->data,
                      c->name);
        return;
    }
    memkit__lru_shard *s = (memkit__lru_shard *)(void *)(c->shards + (ref->priv[0] >> 48) * LINE);
    memkit__lru_lock(s);
    bool pinned = still_pinned(s, ref);
    if (MEMKIT_LIKELY(pinned)) {
        uint32_t handle = (uint32_t)ref->priv[0];
        memkit__lru_unpin(s, handle, memkit__lru_at(s, handle));
    }
    memkit__lru_unlock(s);
    if (MEMKIT_UNLIKELY(!pinned)) {
        memkit__fault("memkit_lru_release: reference %p into cache \"%s\" was released already",
                      ref->data, c->name);
        return;
    }
    *ref = (memkit_lru_ref){NULL, 0, {0, 0}};
}

/* -- copies -- */

int memkit_lru_get_into(memkit_lru *c, const void *key, size_t klen, void *dst, size_t cap,
                        size_t *len)
{
    if (bad_key(c, key, klen))
        return refuse_key(c, key);
    if (dst == NULL && cap > 0)
        return invalid();
    look l;
    begin(c, key, klen, true, &l);
    if (MEMKIT_LIKELY(l.handle != 0)) {
        size_t vlen = memkit__lru_vlen(l.entry), n = vlen < cap ? vlen : cap;
        memkit__lru_show_value(l.entry);
        if (n > 0)
            memcpy(dst, memkit__lru_value(l.entry), n);
        memkit__lru_looked(l.entry);
        if (len != NULL)
            *len = vlen;
    }
    end(&l);
    return l.handle != 0;
}

int memkit_lru_get_buf(memkit_lru *c, const void *key, size_t klen, memkit_buf *out)
{
    if (bad_key(c, key, klen))
        return refuse_key(c, key);
    if (out == NULL)
        return invalid();
    look l;
    begin(c, key, klen, true, &l);
    if (l.handle == 0) {
        end(&l);
        return 0;
    }
    const char *val = memkit__lru_value(l.entry);
    size_t vlen = memkit__lru_vlen(l.entry);
    int result;
    /* Where the buffer must grow, or all references are out, the shard would wait for malloc. */
    if (vlen <= out->cap - out->len || !pin(l.shard, l.handle, l.entry)) {
        memkit__lru_show_value(l.entry);
        result = memkit_buf_append(out, val, vlen);
        memkit__lru_looked(l.entry);
        end(&l);
    } else {
        end(&l);
        result = memkit_buf_append(out, val, vlen);
        int reason = errno;
        memkit__lru_lock(l.shard);
        memkit__lru_unpin(l.shard, l.handle, l.entry);
        memkit__lru_unlock(l.shard);
        errno = reason;
    }
    return result == 0 ? 1 : -1;
}

/* -- removal -- */

int memkit_lru_del(memkit_lru *c, const void *key, size_t klen)
{
    if (bad_key(c, key, klen))
        return refuse_key(c, key);
    uint32_t tag;
    memkit__lru_shard *s = memkit__lru_locate(c, key, klen, &tag);
    uint64_t now = c->ttl_ms == 0 ? 0 : memkit__lru_now(c);
    look l = {.shard = s};
    int result = 0;
    memkit__lru_lock(s);
    l.handle = memkit__lru_find(s, tag, key, klen);
    if (l.handle != 0) {
        bool expired = s->has_ttl && memkit__lru_expiry(memkit__lru_at(s, l.handle)) <= now;
        memkit__lru_leave(s, l.handle, expired ? MEMKIT_LRU_EXPIRED : MEMKIT_LRU_DELETED,
                          &l.leavers);
        result = !expired;
    }
    end(&l);
    return result;
}
