/* test_matrix_pool.c - every function of memkit/pool.h against bad input. */
#include <limits.h>

#include "support_matrix.h"

#include "core/pool.h"

static memkit_buf *out; /* one that is out, with content */

static void record_pool(const void *object, record *r)
{
    memkit_pool *p = (memkit_pool *)(uintptr_t)object;
    const char *broken = memkit__pool_check(p);
    if (broken != NULL)
        fail_msg("%s", broken);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    note(r, "gets %llu hits %llu misses %llu puts %llu\n", (unsigned long long)s.gets,
         (unsigned long long)s.hits, (unsigned long long)s.misses, (unsigned long long)s.puts);
    note(r, "live %llu %llu held %llu %llu peak %llu\n", (unsigned long long)s.live_buffers,
         (unsigned long long)s.live_bytes, (unsigned long long)s.held_buffers,
         (unsigned long long)s.held_bytes, (unsigned long long)s.peak_held_bytes);
    note(r, "trimmed %llu calibrated %llu\n", (unsigned long long)s.trimmed_bytes,
         (unsigned long long)s.calibrated_size);
    note_bytes(r, out->data, out->len);
}

/* One buffer out, one waiting. */
static memkit_pool *make(void)
{
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "mine", .idle_ms = UINT_MAX});
    assert_non_null(p);
    out = memkit_pool_get(p, 50);
    memkit_buf *waiting = memkit_pool_get(p, 1000);
    assert_int_equal(memkit_buf_append_str(out, "kept"), 0);
    memkit_pool_put(p, waiting);
    watch(record_pool, p);
    return p;
}

static void end(memkit_pool *p)
{
    watch(NULL, NULL);
    memkit_pool_put(p, out);
    memkit_pool_free(p);
}

/* ---- life ---- */

static void new_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(((memkit_pool_opts *)0)->reserved); i++)
        for (int bit = 0; bit < 64; bit += 21) {
            memkit_pool_opts opts = {0};
            opts.reserved[i] = (uint64_t)1 << bit;
            refused(memkit_pool_new(&opts), NULL, EINVAL);
        }
    for (size_t i = 0; i < LENGTH(no_sizes); i++) {
        if (no_sizes[i] == PTRDIFF_MAX)
            continue;
        refused(memkit_pool_new(&(memkit_pool_opts){.max_held_bytes = no_sizes[i]}), NULL, EINVAL);
        refused(memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = no_sizes[i]}), NULL, EINVAL);
        refused(memkit_pool_new(&(memkit_pool_opts){.max_thread_bytes = no_sizes[i]}), NULL,
                EINVAL);
    }
    refused(memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = ((size_t)1 << 30) + 1}), NULL,
            EINVAL);
    refused(memkit_pool_new(&(memkit_pool_opts){.max_buf_bytes = PTRDIFF_MAX}), NULL, EINVAL);
    refused(memkit_pool_new(&(memkit_pool_opts){.background = 2}), NULL, EINVAL);
    refused(memkit_pool_new(&(memkit_pool_opts){.background = UINT_MAX}), NULL, EINVAL);
}

/* What looks mad and is allowed works, to the smallest bound and the largest. */
static void new_with_extreme_bounds(void **state)
{
    (void)state;
    const size_t bounds[] = {1, 2, 63, 64, 65, 1 << 20, (size_t)1 << 30, PTRDIFF_MAX};
    for (size_t held = 0; held < LENGTH(bounds); held++)
        for (size_t thread = 0; thread < LENGTH(bounds); thread++)
            for (size_t buf = 0; buf < LENGTH(bounds) - 1; buf++) {
                memkit_pool *p = memkit_pool_new(
                    &(memkit_pool_opts){.max_held_bytes = bounds[held],
                                        .max_thread_bytes = bounds[thread],
                                        .max_buf_bytes = bounds[buf],
                                        .idle_ms = (unsigned)(held % 2 == 0 ? 1 : UINT_MAX)});
                assert_non_null(p);
                memkit_buf *b[3];
                for (size_t i = 0; i < 3; i++)
                    assert_non_null(b[i] = memkit_pool_get(p, i * 60));
                for (size_t i = 0; i < 3; i++)
                    memkit_pool_put(p, b[i]);
                const char *broken = memkit__pool_check(p);
                if (broken != NULL)
                    fail_msg("%s", broken);
                memkit_pool_stats_t s;
                memkit_pool_stats(p, &s);
                assert_true(s.held_bytes <= bounds[held]);
                assert_int_equal(s.live_buffers, 0);
                memkit_pool_free(p);
            }
}

static void new_with_any_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(strange_names); i++) {
        size_t length = strlen(strange_names[i]);
        char *name = memcpy(malloc(length + 1), strange_names[i], length + 1);
        memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = name});
        memset(name, 'x', length); /* it was copied */
        free(name);
        assert_string_equal(p->node.name, strange_names[i]);
        memkit_buf *plain = memkit_buf_new(0), *b = memkit_pool_get(p, 1);
        assert_faults(memkit_pool_put(p, plain), "is not of pool");
        assert_faults(memkit_pool_free(p), "buffers of pool");
        for (const char *c = last_fault; *c != '\0'; c++)
            assert_true((unsigned char)*c >= ' '); /* one line of text, whatever the name */
        memkit_buf_free(plain);
        memkit_pool_put(p, b);
        memkit_pool_free(p);
    }
}

static void free_row(void **state)
{
    (void)state;
    errno = 4711;
    memkit_pool_free(NULL);
    assert_int_equal(errno, 4711);
    memkit_pool *p = make();
    misused(memkit_pool_free(p), "buffers of pool \"mine\" are still out");
    assert_int_equal(memkit_buf_append_str(out, " and alive"), 0);
    end(p);
}

/* In a child: a default pool stays as long as its process. */
static int use_default(int unused)
{
    (void)unused;
    memkit_pool *p = memkit_pool_default();
    if (p == NULL || memkit_pool_default() != p)
        return 1;
    int before = faults;
    memkit_pool_free(p);
    if (faults != before + 1 || strstr(last_fault, "default pool") == NULL)
        return 2;
    memkit_buf *b = memkit_pool_get(p, 10);
    memkit_pool_put(p, b);
    return memkit_pool_default() == p && b != NULL && memkit__pool_check(p) == NULL ? 0 : 3;
}

static void default_row(void **state)
{
    (void)state;
    assert_int_equal(in_child(use_default, 0), 0);
}

/* ---- get and put ---- */

static void get_row(void **state)
{
    (void)state;
    memkit_pool *p = make();
    refused(memkit_pool_get(NULL, 0), NULL, EINVAL);
    refused(memkit_pool_get(NULL, SIZE_MAX), NULL, EINVAL);
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        refused(memkit_pool_get(p, no_sizes[i]), NULL, EOVERFLOW);
    for (size_t i = 0; i < LENGTH(refused_sizes); i++)
        refused(memkit_pool_get(p, refused_sizes[i]), NULL, ENOMEM);
    refused(memkit_pool_get(p, (size_t)PTRDIFF_MAX - 1), NULL, ENOMEM);
    const size_t hints[] = {1, 62, 63, 64, 79, 80, 81, (1 << 20) - 1, 1 << 20, (1 << 20) + 1};
    for (size_t i = 0; i < LENGTH(hints); i++) {
        memkit_buf *b = memkit_pool_get(p, hints[i]);
        assert_true(b->cap >= hints[i]);
        memset(b->data, 'x', b->cap + 1);
        memkit_pool_put(p, b);
    }
    end(p);
}

static void put_row(void **state)
{
    (void)state;
    memkit_pool *p = make(), *other = memkit_pool_new(NULL);
    errno = 4711;
    memkit_pool_put(p, NULL);
    memkit_pool_put(NULL, NULL);
    assert_int_equal(errno, 4711);
    refused_void(memkit_pool_put(NULL, out), EINVAL);
    memkit_buf *plain = memkit_buf_new(10), zero, ones, copy = *out;
    memset(&zero, 0, sizeof zero);
    memset(&ones, 0xff, sizeof ones);
    misused(memkit_pool_put(p, plain), "is not of pool \"mine\"");
    misused(memkit_pool_put(other, out), "is not of pool \"pool\"");
    misused(memkit_pool_put(p, &zero), "is not a memkit buffer");
    misused(memkit_pool_put(p, &ones), "is not a memkit buffer");
    misused(memkit_pool_put(p, &copy), "is not a memkit buffer");
    memkit_buf *twice = memkit_pool_get(p, 2000);
    memkit_pool_put(p, twice);
    misused(memkit_pool_put(p, twice), "already put");
    misused(memkit_pool_put(other, twice), "already put");
    misused(memkit_buf_free(twice), "already put");
    memkit_pool_trim(p, 0); /* also when it does not even wait */
    misused(memkit_pool_put(p, twice), "already put");
    memkit_buf_free(plain);
    memkit_pool_free(other);
    end(p);
}

/* Lengths that an owner wrote wrongly into the public fields must not lead the pool astray. */
static void put_with_any_content(void **state)
{
    (void)state;
    memkit_pool *p = make();
    const size_t lengths[] = {0, 1, 50, SIZE_MAX, SIZE_MAX / 2 + 1, (size_t)1 << 30};
    for (size_t i = 0; i < LENGTH(lengths); i++) {
        memkit_buf *b = memkit_pool_get(p, 100);
        memset(b->data, 0xee, b->cap + 1);
        b->len = lengths[i];
        memkit_pool_put(p, b);
        b = memkit_pool_get(p, 100);
        assert_int_equal(b->len, 0);
        assert_string_equal(b->data, "");
        memkit_pool_put(p, b);
    }
    end(p);
}

/* ---- trim, stats ---- */

static void trim_row(void **state)
{
    (void)state;
    memkit_pool *p = make();
    refused(memkit_pool_trim(NULL, 0), 0, EINVAL);
    refused(memkit_pool_trim(NULL, SIZE_MAX), 0, EINVAL);
    for (size_t i = 0; i < LENGTH(no_sizes); i++)
        refused(memkit_pool_trim(p, no_sizes[i]), 0, 0);
    memkit_pool_stats_t s;
    memkit_pool_stats(p, &s);
    refused(memkit_pool_trim(p, s.held_bytes), 0, 0);
    assert_int_equal(memkit_pool_trim(p, s.held_bytes - 1), s.held_bytes);
    refused(memkit_pool_trim(p, 0), 0, 0);
    end(p);
}

static void stats_row(void **state)
{
    (void)state;
    memkit_pool *p = make();
    memkit_pool_stats_t s, untouched;
    memset(&s, 0x5a, sizeof s);
    untouched = s;
    refused_void(memkit_pool_stats(NULL, NULL), EINVAL);
    refused_void(memkit_pool_stats(p, NULL), EINVAL);
    refused_void(memkit_pool_stats(NULL, &s), EINVAL);
    assert_memory_equal(&s, &untouched, sizeof s);
    memkit_pool_stats(p, &s);
    for (size_t i = 0; i < LENGTH(s.reserved); i++)
        assert_int_equal(s.reserved[i], 0);
    end(p);
}

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_pool_new", NULL, new_row},
        {"memkit_pool_new", "with extreme bounds", new_with_extreme_bounds},
        {"memkit_pool_new", "with any name", new_with_any_name},
        {"memkit_pool_free", NULL, free_row},
        {"memkit_pool_default", NULL, default_row},
        {"memkit_pool_get", NULL, get_row},
        {"memkit_pool_put", NULL, put_row},
        {"memkit_pool_put", "with any content", put_with_any_content},
        {"memkit_pool_trim", NULL, trim_row},
        {"memkit_pool_stats", NULL, stats_row},
    };
    return run_matrix("memkit_pool_", rows, LENGTH(rows));
}
