/* test_pool_model.c - a million random steps on pools of several shapes, against a model that knows
 * what is out and what is in it; the pool's invariants are walked meanwhile.
 */
#include "support.h"

#include "core/pool.h"

enum { MOST_OUT = 300 };

typedef struct {
    const char *name;
    memkit_pool_opts opts;
    size_t out, hint, grow; /* most buffers out; most bytes asked, and grown to */
    unsigned steps, walk_every;
} shape;

typedef struct {
    memkit_buf *b;
    size_t len;
    char fill;
} taken;

typedef struct {
    memkit_pool *pool;
    taken out[MOST_OUT];
    size_t n, most;
    uint64_t gets, puts, trimmed;
} model;

static void take(model *m, const shape *s, uint64_t r)
{
    size_t hint = r % 3 == 0 ? 0 : (r >> 16) % s->hint;
    memkit_buf *b = memkit_pool_get(m->pool, hint);
    assert_non_null(b);
    assert_true(b->cap >= hint && b->cap > 0 && b->len == 0 && b->data[0] == '\0');
    for (size_t i = 0; i < m->n && i < 8; i++)
        assert_ptr_not_equal(m->out[i].b, b);
    m->out[m->n++] = (taken){b, 0, (char)('a' + r % 26)};
    m->gets++;
}

static void fill(model *m, const shape *s, uint64_t r)
{
    taken *t = &m->out[(r >> 8) % m->n];
    size_t n = (r >> 30) % s->grow;
    if (memkit_buf_reserve(t->b, n) != 0)
        fail_msg("reserve: %s", strerror(errno));
    memset(t->b->data + t->len, t->fill, n);
    t->b->data[t->b->len = t->len += n] = '\0';
    if (t->len > 4 * s->grow) {
        memkit_buf_reset(t->b);
        t->len = 0;
    }
}

static void give(model *m, uint64_t r)
{
    size_t i = (r >> 8) % m->n;
    taken *t = &m->out[i];
    assert_int_equal(t->b->len, t->len);
    for (size_t k = 0; k < t->len; k += t->len / 7 + 1)
        assert_int_equal(t->b->data[k], t->fill); /* nobody else had it meanwhile */
    if ((r & 1) != 0)
        memkit_pool_put(m->pool, t->b);
    else
        memkit_buf_free(t->b);
    m->out[i] = m->out[--m->n];
    m->puts++;
}

static void walk(const model *m, const shape *s)
{
    const char *broken = memkit__pool_check(m->pool);
    if (broken != NULL)
        fail_msg("%s: %s", s->name, broken);
    memkit_pool_stats_t now;
    memkit_pool_stats(m->pool, &now);
    assert_true(now.gets == m->gets && now.puts == m->puts && now.live_buffers == m->n);
    assert_true(now.held_bytes <= s->opts.max_held_bytes &&
                now.peak_held_bytes <= s->opts.max_held_bytes);
    size_t room = 0;
    for (size_t i = 0; i < m->n; i++)
        room += m->out[i].b->cap + 1;
    assert_int_equal(now.live_bytes, room);
}

static void live(const shape *s, unsigned part)
{
    static model m;
    uint64_t seed = 11;
    m = (model){.pool = memkit_pool_new(&s->opts)};
    assert_non_null(m.pool);
    for (unsigned step = 0; step < s->steps / part; step++) {
        uint64_t r = next_random(&seed);
        unsigned what = (unsigned)(r >> 60);
        if (what < 6 && m.n < s->out)
            take(&m, s, r);
        else if (what < 9 && m.n > 0)
            fill(&m, s, r);
        else if (what < 15 && m.n > 0)
            give(&m, r);
        else if (r % 16 == 0)
            m.trimmed += memkit_pool_trim(m.pool, (r >> 16) % (s->opts.max_held_bytes / 4));
        if (step % s->walk_every == 0)
            walk(&m, s);
    }
    while (m.n > 0)
        give(&m, 1);
    walk(&m, s);
    assert_true(m.gets > s->steps / part / 5 && m.trimmed > 0);
    memkit_pool_free(m.pool);
}

static const shape shapes[] = {
    {"small",
     {.max_held_bytes = 4000, .max_thread_bytes = 1500, .idle_ms = 1},
     12,
     200,
     200,
     600000,
     1},
    {"one thread's",
     {.max_held_bytes = 60000, .max_thread_bytes = 60000, .max_buf_bytes = 5000},
     40,
     3000,
     1500,
     250000,
     4},
    {"large",
     {.max_held_bytes = 300000, .max_thread_bytes = 100000, .max_buf_bytes = 50000, .idle_ms = 2},
     MOST_OUT,
     20000,
     4000,
     150000,
     16},
};

static void a_million_random_steps_keep_every_invariant(void **state)
{
    (void)state;
    long before = blocks_out;
    unsigned all = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        all += shapes[i].steps;
    assert_int_equal(all, 1000000);
    unsigned steps = model_steps(all);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        live(&shapes[i], all / steps);
    assert_int_equal(blocks_out, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_random_steps_keep_every_invariant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
