/* test_matrix_lru.c - every function of memkit/lru.h against bad input, in each kind of cache. */
#include <limits.h>

#include "test_matrix_lru.h"

static const memkit_lru_ref empty_ref;
#define assert_empty(ref) assert_memory_equal(ref, &empty_ref, sizeof empty_ref)

/* ---- life ---- */

static void new_row(void **state)
{
    (void)state;
    refused(memkit_lru_new(NULL), NULL, EINVAL);
    refused(memkit_lru_new(&(memkit_lru_opts){0}), NULL, EINVAL);
    for (size_t i = 0; i < LENGTH(kinds[0].reserved); i++)
        for (int bit = 0; bit < 64; bit += 21) {
            memkit_lru_opts opts = kinds[0];
            opts.reserved[i] = (uint64_t)1 << bit;
            refused(memkit_lru_new(&opts), NULL, EINVAL);
        }
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        refused(memkit_lru_new(&(memkit_lru_opts){.max_entries = no_sizes[i]}), NULL, EINVAL);
    const unsigned shards[] = {1025, INT_MAX, (unsigned)INT_MAX + 1, UINT_MAX - 1};
    for (size_t i = 0; i < LENGTH(shards); i++)
        refused(memkit_lru_new(&(memkit_lru_opts){.max_entries = 5000, .shards = shards[i]}), NULL,
                EINVAL);
    const unsigned policies[] = {2, 3, 255, INT_MAX, UINT_MAX};
    for (size_t i = 0; i < LENGTH(policies); i++) {
        memkit_lru_opts opts = kinds[0];
        memcpy(&opts.policy, &policies[i], sizeof policies[i]); /* no enumerator at all */
        refused(memkit_lru_new(&opts), NULL, EINVAL);
    }
    refused(memkit_lru_new(&(memkit_lru_opts){.max_entries = 1, .policy = MEMKIT_POLICY_S3FIFO}),
            NULL, ENOTSUP);
    for (size_t bytes = 1; bytes < 512; bytes++)
        refused(memkit_lru_new(&(memkit_lru_opts){.max_bytes = bytes}), NULL, EINVAL);
    refused(memkit_lru_new(&(memkit_lru_opts){.max_bytes = 4096, .name = strange_names[2]}), NULL,
            EINVAL); /* the name alone is larger */
}

static void new_with_extreme_bounds(void **state)
{
    (void)state;
    const size_t bounds[] = {0, 1, 2, 4096, SIZE_MAX / 2, SIZE_MAX / 2 + 1, SIZE_MAX - 1, SIZE_MAX};
    const size_t expected[] = {0, 1, SIZE_MAX / 2 + 1, SIZE_MAX}, ttls[] = {0, 1, SIZE_MAX};
    for (size_t bytes = 0; bytes < LENGTH(bounds); bytes++)
        for (size_t expect = 0; expect < LENGTH(expected); expect++)
            for (size_t ttl = 0; ttl < LENGTH(ttls); ttl++) {
                unsigned shards =
                    (unsigned)(expect + ttl) % 3 - 1; /* without a lock, one, one again */
                memkit_lru *c =
                    memkit_lru_new(&(memkit_lru_opts){.max_entries = bytes % 2 == 0 ? 100 : 0,
                                                      .max_bytes = bounds[bytes],
                                                      .expect_entry_bytes = expected[expect],
                                                      .ttl_ms = ttls[ttl],
                                                      .shards = shards});
                if (c == NULL) {
                    assert_true(bounds[bytes] > 0 && bounds[bytes] <= 4096);
                    continue;
                }
                for (int i = 0; i < 20; i++)
                    assert_int_equal(memkit_lru_set(c, &i, sizeof i, &i, sizeof i), 0);
                assert_null(memkit__lru_check(c));
                memkit_lru_free(c);
            }
}

static void new_with_any_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(strange_names); i++) {
        size_t length = strlen(strange_names[i]);
        char *name = memcpy(malloc(length + 1), strange_names[i], length + 1);
        memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = name, .max_entries = 9});
        memset(name, 'x', length); /* it was copied */
        free(name);
        assert_string_equal(c->node.name, strange_names[i]);
        memkit_lru_ref ref;
        memkit_lru_set(c, "k", 1, "v", 1);
        assert_int_equal(memkit_lru_get(c, "k", 1, &ref), 1);
        assert_faults(memkit_lru_free(c), "memkit_lru_free");
        for (const char *p = last_fault; *p != '\0'; p++)
            assert_true((unsigned char)*p >= ' ');
        memkit_lru_release(c, &ref);
        memkit_lru_free(c);
    }
}

static void free_row(void **state)
{
    (void)state;
    errno = 4711;
    memkit_lru_free(NULL);
    assert_int_equal(errno, 4711);
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        memkit_lru_ref ref;
        assert_int_equal(memkit_lru_peek(c, "k", 1, &ref), 1);
        misused(memkit_lru_free(c), "cache \"mine\": 1 entries are still referenced");
        assert_memory_equal(ref.data, "value", 5);
        assert_int_equal(memkit_lru_del(c, "k", 1), 1);
        misused(memkit_lru_free(c), "cache \"mine\": 1 entries are still referenced");
        assert_memory_equal(ref.data, "value", 5);
        memkit_lru_release(c, &ref);
        end(c);
    }
}

/* ---- set ---- */

static void set_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        refused(memkit_lru_set(NULL, NULL, 0, NULL, 0), -1, EINVAL);
        refused(memkit_lru_set(NULL, "k", 1, "v", 1), -1, EINVAL);
        refused(memkit_lru_set(c, NULL, 1, "v", 1), -1, EINVAL);
        refused(memkit_lru_set(c, "k", 1, NULL, 1), -1, EINVAL);
        refused(memkit_lru_set(c, NULL, SIZE_MAX, NULL, SIZE_MAX), -1, EINVAL);
        refused(memkit_lru_set(c, NULL, 0, NULL, SIZE_MAX), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++) {
            refused(memkit_lru_set(c, "k", no_sizes[i], "v", 1), -1, E2BIG);
            refused(memkit_lru_set(c, "k", 1, "v", no_sizes[i]), -1, E2BIG);
            refused(memkit_lru_set(c, "k", no_sizes[i], "v", no_sizes[i]), -1, E2BIG);
        }
        end(c);
    }
}

/* Lengths that only malloc refuses: heavier than a bound, or ENOMEM where there is none. */
static void set_with_huge_values(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        bool bounded = kinds[kind].max_bytes != 0 && kinds[kind].max_bytes != SIZE_MAX;
        for (size_t i = 0; i < LENGTH(refused_sizes); i++)
            for (int there = 0; there < 2; there++)
                assert_errno(
                    memkit_lru_set(c, there ? "k" : "new", there ? 1 : 3, "v", refused_sizes[i]),
                    -1, bounded ? E2BIG : ENOMEM);
        char value[5];
        assert_int_equal(memkit_lru_get_into(c, "k", 1, value, 5, NULL), 1);
        assert_memory_equal(value, "value", 5);
        assert_int_equal(memkit_lru_get_into(c, "new", 3, NULL, 0, NULL), 0);
        record r = {0};
        record_lru(c, &r);
        end(c);
    }
}

/* ---- get and its kin ---- */

typedef int (*getter)(memkit_lru *c, const void *key, size_t klen, memkit_lru_ref *ref);

/* A reference is empty after every error: to release it does nothing. */
static void get_badly(getter get)
{
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        memkit_lru_ref ref, rubbish;
        memset(&rubbish, 0x5a, sizeof rubbish);
#define GET_REFUSED(c_, key, klen, code)               \
    do {                                               \
        ref = rubbish;                                 \
        refused(get(c_, key, klen, &ref), -1, code);   \
        assert_empty(&ref);                            \
        refused(get(c_, key, klen, NULL), -1, EINVAL); \
    } while (0)
        GET_REFUSED(NULL, "k", 1, EINVAL);
        GET_REFUSED(NULL, NULL, 0, EINVAL);
        GET_REFUSED(c, NULL, 1, EINVAL);
        GET_REFUSED(c, NULL, SIZE_MAX, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            if (no_sizes[i] > PTRDIFF_MAX)
                GET_REFUSED(c, "k", no_sizes[i], EOVERFLOW);
        refused(get(c, "k", 1, NULL), -1, EINVAL);
        ref = rubbish;
        assert_int_equal(get(c, "absent", 6, &ref), 0);
        assert_empty(&ref);
        assert_int_equal(get(c, NULL, 0, &ref), 1); /* the empty key is one */
        assert_non_null(ref.data);
        memkit_lru_release(c, &ref);
        end(c);
    }
}

static void get_row(void **state)
{
    (void)state;
    get_badly(memkit_lru_get);
}

static void peek_row(void **state)
{
    (void)state;
    get_badly(memkit_lru_peek);
}

static void get_into_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        char dst[8] = "before";
        size_t len = 4711;
        refused(memkit_lru_get_into(NULL, "k", 1, dst, 8, &len), -1, EINVAL);
        refused(memkit_lru_get_into(c, NULL, 1, dst, 8, &len), -1, EINVAL);
        refused(memkit_lru_get_into(c, "k", 1, NULL, 1, &len), -1, EINVAL);
        refused(memkit_lru_get_into(c, "k", 1, NULL, SIZE_MAX, &len), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            if (no_sizes[i] > PTRDIFF_MAX)
                refused(memkit_lru_get_into(c, "k", no_sizes[i], dst, 8, &len), -1, EOVERFLOW);
        assert_int_equal(memkit_lru_get_into(c, "absent", 6, dst, 8, &len), 0);
        assert_int_equal(len, 4711); /* untouched, as dst is */
        assert_string_equal(dst, "before");
        assert_int_equal(memkit_lru_get_into(c, "k", 1, NULL, 0, NULL), 1);
        for (size_t cap = 0; cap < 8; cap++) {
            memset(dst, '.', sizeof dst);
            assert_int_equal(memkit_lru_get_into(c, "k", 1, dst, cap, &len), 1);
            assert_int_equal(len, 5);
            assert_memory_equal(dst, "value", cap < 5 ? cap : 5);
            for (size_t i = cap < 5 ? cap : 5; i < 8; i++)
                assert_int_equal(dst[i], '.');
        }
        memset(dst, '.', sizeof dst);
        assert_int_equal(memkit_lru_get_into(c, "k", 1, dst, SIZE_MAX, &len), 1);
        assert_memory_equal(dst, "value...", 8);
        end(c);
    }
}

static void get_buf_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        memkit_buf *out = memkit_buf_new(0);
        refused(memkit_lru_get_buf(NULL, "k", 1, out), -1, EINVAL);
        refused(memkit_lru_get_buf(c, NULL, 1, out), -1, EINVAL);
        refused(memkit_lru_get_buf(c, "k", 1, NULL), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            if (no_sizes[i] > PTRDIFF_MAX)
                refused(memkit_lru_get_buf(c, "k", no_sizes[i], out), -1, EOVERFLOW);
        assert_int_equal(memkit_lru_get_buf(c, "absent", 6, out), 0);
        assert_int_equal(out->len, 0);
        memkit_buf_append_str(out, "k"); /* the key lies in the buffer that grows */
        for (size_t n = 0; n < 60; n++) {
            assert_int_equal(memkit_lru_get_buf(c, out->data, 1, out), 1);
            assert_int_equal(out->len, 1 + 5 * (n + 1));
            assert_memory_equal(out->data + out->len - 5, "value", 6);
        }
        assert_int_equal(memkit_buf_limit(out, out->len + 4), 0);
        size_t before = out->len;
        assert_errno(memkit_lru_get_buf(c, "k", 1, out), -1, EMSGSIZE);
        assert_int_equal(out->len, before);
        memkit_buf_free(out);
        memkit_buf stray;
        memset(&stray, 0, sizeof stray);
        stray.data = stray.empty;
        assert_faults(assert_errno(memkit_lru_get_buf(c, "k", 1, &stray), -1, EINVAL),
                      "is not a memkit buffer");
        assert_faults(assert_errno(memkit_lru_get_buf(c, "", 0, &stray), -1, EINVAL),
                      "is not a memkit buffer");
        memkit_lru_stats_t s;
        memkit_lru_stats(c, &s);
        assert_int_equal(s.pinned_bytes, 0); /* no reference is left behind */
        end(c);
    }
}

static void del_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        refused(memkit_lru_del(NULL, "k", 1), -1, EINVAL);
        refused(memkit_lru_del(c, NULL, 1), -1, EINVAL);
        refused(memkit_lru_del(c, NULL, SIZE_MAX), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            if (no_sizes[i] > PTRDIFF_MAX)
                refused(memkit_lru_del(c, "k", no_sizes[i]), -1, EOVERFLOW);
        refused(memkit_lru_del(c, "absent", 6), 0, 0);
        memkit_lru_ref ref; /* the key lies in the entry that goes */
        assert_int_equal(memkit_lru_set(c, "value", 5, "value", 5), 0);
        assert_int_equal(memkit_lru_get(c, "value", 5, &ref), 1);
        assert_int_equal(memkit_lru_del(c, ref.data, ref.len), 1);
        memkit_lru_release(c, &ref);
        end(c);
    }
}

/* ---- references ---- */

static void release_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind), *other = memkit_lru_new(&kinds[kind]);
        memkit_lru_ref ref, copy, theirs, bad;
        assert_int_equal(memkit_lru_set(other, "k", 1, "value", 5), 0);
        assert_int_equal(memkit_lru_get(c, "k", 1, &ref), 1);
        assert_int_equal(memkit_lru_get(other, "k", 1, &theirs), 1);
        refused_void(memkit_lru_release(NULL, NULL), EINVAL);
        refused_void(memkit_lru_release(c, NULL), EINVAL);
        refused_void(memkit_lru_release(NULL, &ref), EINVAL);
        bad = empty_ref;
        refused_void(memkit_lru_release(c, &bad), 0); /* nothing to do */
        misused(memkit_lru_release(c, &theirs), "no reference into cache \"mine\"");
        misused(memkit_lru_release(other, &ref), "no reference into cache");
        memset(&bad, 0x5a, sizeof bad);
        misused(memkit_lru_release(c, &bad), "no reference into cache");
        for (int bit = 0; bit < 64; bit++) {
            bad = ref;
            bad.priv[0] ^= (uint64_t)1 << bit;
            misused(memkit_lru_release(c, &bad), "no reference into cache");
            bad = ref;
            bad.priv[1] ^= (uint64_t)1 << bit;
            misused(memkit_lru_release(c, &bad), "no reference into cache");
        }
        bad = ref;
        bad.data = (const char *)bad.data + 1;
        misused(memkit_lru_release(c, &bad), "no reference into cache");
        copy = ref;
        memkit_lru_release(c, &ref);
        assert_empty(&ref);
        refused_void(memkit_lru_release(c, &ref), 0);
        misused(memkit_lru_release(c, &copy), "was released already");
        memkit_lru_release(other, &theirs);
        memkit_lru_free(other);
        end(c);
    }
}

/* ---- the cache as a whole ---- */

static void resize_row(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        refused(memkit_lru_resize(NULL, 0, 0), -1, EINVAL);
        refused(memkit_lru_resize(NULL, 1, 1 << 20), -1, EINVAL);
        refused(memkit_lru_resize(c, 0, 0), -1, EINVAL);
        refused(memkit_lru_resize(c, 0, 1), -1, EINVAL);
        refused(memkit_lru_resize(c, SIZE_MAX, 1), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            refused(memkit_lru_resize(c, no_sizes[i], 0), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(no_sizes); i++)
            assert_int_equal(memkit_lru_resize(c, 0, no_sizes[i]), 0);
        assert_int_equal(memkit_lru_resize(c, (size_t)1 << 31, SIZE_MAX), 0);
        memkit_lru_ref refs[3];
        assert_int_equal(memkit_lru_get(c, "k", 1, &refs[0]), 1);
        assert_int_equal(memkit_lru_get(c, "other", 5, &refs[1]), 1);
        assert_int_equal(memkit_lru_get(c, "", 0, &refs[2]), 1);
        if (kinds[kind].shards == 0) /* all are in one */
            refused(memkit_lru_resize(c, 2, 0), -1, EBUSY);
        for (int i = 0; i < 3; i++)
            memkit_lru_release(c, &refs[i]);
        record r = {0};
        record_lru(c, &r);
        end(c);
    }
}

static void clear_row(void **state)
{
    (void)state;
    memkit_lru *c = make(0);
    refused_void(memkit_lru_clear(NULL), EINVAL);
    end(c);
}

static int stop(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    (void)key;
    (void)klen;
    (void)val;
    (void)vlen;
    return *(int *)arg;
}

static void each_row(void **state)
{
    (void)state;
    memkit_lru_each_fn no_function = NULL;
    for (size_t kind = 0; kind < KINDS; kind++) {
        memkit_lru *c = make(kind);
        const int answers[] = {1, -1, INT_MAX, INT_MIN};
        refused(memkit_lru_each(NULL, no_function, NULL), -1, EINVAL);
        refused(memkit_lru_each(NULL, stop, NULL), -1, EINVAL);
        refused(memkit_lru_each(c, no_function, NULL), -1, EINVAL);
        for (size_t i = 0; i < LENGTH(answers); i++)
            refused(memkit_lru_each(c, stop, (void *)(uintptr_t)&answers[i]), answers[i], 0);
        end(c);
    }
}

static void stats_row(void **state)
{
    (void)state;
    memkit_lru *c = make(0);
    memkit_lru_stats_t s, untouched;
    memset(&s, 0x5a, sizeof s);
    untouched = s;
    refused_void(memkit_lru_stats(NULL, NULL), EINVAL);
    refused_void(memkit_lru_stats(c, NULL), EINVAL);
    refused_void(memkit_lru_stats(NULL, &s), EINVAL);
    assert_memory_equal(&s, &untouched, sizeof s);
    memkit_lru_stats(c, &s);
    for (size_t i = 0; i < LENGTH(s.reserved); i++)
        assert_int_equal(s.reserved[i], 0);
    end(c);
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_lru_new", NULL, new_row},
        {"memkit_lru_new", "with extreme bounds", new_with_extreme_bounds},
        {"memkit_lru_new", "with any name", new_with_any_name},
        {"memkit_lru_free", NULL, free_row},
        {"memkit_lru_set", NULL, set_row},
        {"memkit_lru_set", "with huge values", set_with_huge_values},
        {"memkit_lru_get", NULL, get_row},
        {"memkit_lru_peek", NULL, peek_row},
        {"memkit_lru_get_into", NULL, get_into_row},
        {"memkit_lru_get_buf", NULL, get_buf_row},
        {"memkit_lru_del", NULL, del_row},
        {"memkit_lru_release", NULL, release_row},
        {"memkit_lru_resize", NULL, resize_row},
        {"memkit_lru_clear", NULL, clear_row},
        {"memkit_lru_each", NULL, each_row},
        {"memkit_lru_stats", NULL, stats_row},
    };
    return run_matrix("memkit_lru_", rows, LENGTH(rows));
}
