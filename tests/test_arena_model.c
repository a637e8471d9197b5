/* test_arena_model.c - a million random steps on arenas of several shapes: every live block is
 * filled with its own byte, and looked at before it goes; the invariants are walked meanwhile.
 */
#include "support.h"

#include "core/arena.h"

enum { MOST_BLOCKS = 4000, MOST_MARKS = 16, OWN_MEMORY = 8192 };

typedef struct {
    const char *name;
    memkit_arena_opts opts;
    bool own_memory;      /* begins in the caller's */
    size_t blocks, bytes; /* most of them live; most bytes of a usual one */
    unsigned steps, walk_every;
} shape;

typedef struct {
    unsigned char *p;
    size_t n;
    unsigned char fill;
} block;

typedef struct {
    memkit_arena *a;
    block blocks[MOST_BLOCKS];
    struct {
        memkit_arena_mark mark;
        size_t blocks, defers;
    } marks[MOST_MARKS];
    size_t count, depth, defers, refused, moved, in_place;
} model;

static size_t defers_run;

static void count_defer(void *unused)
{
    (void)unused;
    defers_run++;
}

static void look_at(const block *b, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (b->p[k] != b->fill)
            fail_msg("byte %zu of a block of %zu is another's", k, b->n);
}

static void refused(model *m, const shape *s)
{
    assert_int_equal(errno, ENOMEM);
    assert_true(s->opts.max_bytes != 0); /* nothing else refuses */
    m->refused++;
}

static void take(model *m, const shape *s, uint64_t r)
{
    size_t n = r % 512 == 7 ? (r >> 20) % (s->bytes * 200) : (r >> 20) % s->bytes;
    size_t align = 16;
    unsigned char *p;
    switch (r % 8) {
    case 0:
    case 1:
        align = (size_t)1 << ((r >> 40) % 8);
        p = memkit_arena_alloc_aligned(m->a, n, align);
        break;
    case 2:
        p = memkit_arena_calloc(m->a, n, 1);
        for (size_t k = 0; p != NULL && k < n; k++)
            assert_int_equal(p[k], 0);
        break;
    default:
        p = memkit_arena_alloc(m->a, n);
    }
    if (p == NULL) {
        refused(m, s);
        return;
    }
    assert_int_equal((uintptr_t)p % align, 0);
    block *b = &m->blocks[m->count++];
    *b = (block){p, n, (unsigned char)r};
    memset(p, b->fill, n);
}

static void resize(model *m, const shape *s, uint64_t r)
{
    size_t floor = m->depth > 0 ? m->marks[m->depth - 1].blocks : 0, own = m->count - floor;
    block *b = &m->blocks[m->count - 1 - (r >> 30) % (own > 3 ? 3 : own)];
    size_t n = (r >> 20) % (s->bytes * 2);
    unsigned char *p = memkit_arena_realloc(m->a, b->p, b->n, n);
    if (p == NULL) {
        refused(m, s);
        look_at(b, b->n);
        return;
    }
    m->moved += p != b->p;
    m->in_place += p == b->p && n > b->n;
    b->p = p;
    look_at(b, n < b->n ? n : b->n);
    b->n = n;
    memset(p, b->fill, n);
}

static void go_back(model *m, size_t depth)
{
    size_t due = m->defers - m->marks[depth].defers, before = defers_run;
    memkit_arena_rewind(m->a, m->marks[depth].mark);
    assert_int_equal(defers_run - before, due);
    m->depth = depth;
    m->count = m->marks[depth].blocks;
    m->defers = m->marks[depth].defers;
}

static void step(model *m, const shape *s, uint64_t r)
{
    size_t floor = m->depth > 0 ? m->marks[m->depth - 1].blocks : 0;
    unsigned what = (unsigned)(r >> 58);
    if (m->count == s->blocks || (what == 63 && r % 16 == 0)) {
        size_t before = defers_run;
        memkit_arena_reset(m->a);
        assert_int_equal(defers_run - before, m->defers);
        m->count = m->depth = m->defers = 0;
    } else if (what < 46) {
        take(m, s, r);
    } else if (what < 56) {
        if (m->count > floor)
            resize(m, s, r);
    } else if (what < 57) {
        if (memkit_arena_defer(m->a, count_defer, NULL) == 0)
            m->defers++;
        else
            refused(m, s);
    } else if (what < 60) {
        if (m->depth < MOST_MARKS) {
            m->marks[m->depth].blocks = m->count;
            m->marks[m->depth].defers = m->defers;
            m->marks[m->depth++].mark = memkit_arena_save(m->a);
        }
    } else if (m->depth > 0) {
        go_back(m, m->depth - 1 - (r >> 30) % m->depth);
    }
}

static void live(const shape *s, unsigned part)
{
    static model m;
    static char own[OWN_MEMORY];
    uint64_t seed = 1;
    m.count = m.depth = m.defers = m.refused = m.moved = m.in_place = 0;
    m.a = s->own_memory ? memkit_arena_init(own, sizeof own, &s->opts) : memkit_arena_new(&s->opts);
    assert_non_null(m.a);
    for (unsigned i = 0; i < s->steps / part; i++) {
        step(&m, s, next_random(&seed));
        if (i % s->walk_every == 0) {
            const char *broken = memkit__arena_check(m.a);
            if (broken != NULL)
                fail_msg("%s: %s", s->name, broken);
        }
        if (i % (s->blocks * 2) == 0)
            for (size_t k = 0; k < m.count; k++)
                look_at(&m.blocks[k], m.blocks[k].n);
    }
    assert_true(m.moved > 0 && m.in_place > 0);
    assert_true(s->opts.max_bytes == 0 || m.refused > 0);
    size_t before = defers_run;
    memkit_arena_free(m.a);
    assert_int_equal(defers_run - before, m.defers);
}

static const shape shapes[] = {
    {"small",
     {.first_chunk_bytes = 256, .max_chunk_bytes = 1024, .keep_bytes = 2000},
     false,
     60,
     100,
     500000,
     1},
    {"bounded, in the caller's memory",
     {.max_bytes = 20000, .name = "model"},
     true,
     300,
     200,
     300000,
     1},
    {"large", {.max_chunk_bytes = 32768}, false, MOST_BLOCKS, 300, 200000, 16},
};

static void a_million_random_steps_keep_every_byte(void **state)
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
        cmocka_unit_test(a_million_random_steps_keep_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
