/* test_prof_table.c - the table of sampled blocks against a model, the sites, and what both do when
 * there is no more room. Addresses are made up: nothing is ever read through them.
 */
#include "test_prof.h"

#include <stdlib.h>

#include "prof/blocks.h"
#include "prof/mem.h"

#define ADDRESSES 20000
#define OPS       300000

typedef struct {
    uint64_t base; /* of the addresses of one thread */
    unsigned seed;
    uint64_t known[ADDRESSES]; /* bytes of the record, 0: not in the table */
    uint64_t in;
    const char *wrong;
} model;

static const void *address(const model *m, unsigned i)
{
    return (const void *)(uintptr_t)(m->base + i * UINT64_C(48));
}

static const char *step(model *m, unsigned i, uint64_t n)
{
    const void *p = address(m, i);
    memkit__record r = {.bytes = n, .born = m->base + i};
    if (m->known[i] == 0) {
        MUST(memkit__blocks_put(p, &r));
        MUST(memkit__perhaps_sampled(p));
        m->known[i] = n;
        m->in++;
        return NULL;
    }
    MUST(memkit__perhaps_sampled(p));
    MUST(memkit__blocks_take(p, &r));
    MUST(r.bytes == m->known[i] && r.born == m->base + i);
    MUST(!memkit__blocks_take(p, &r));
    m->known[i] = 0;
    m->in--;
    return NULL;
}

static void *random_steps(void *arg)
{
    model *m = arg;
    for (uint64_t i = 1; m->wrong == NULL && i <= OPS; i++)
        m->wrong = step(m, (unsigned)rand_r(&m->seed) % ADDRESSES, i);
    return NULL;
}

static void take_all(model *m)
{
    for (unsigned i = 0; m->wrong == NULL && i < ADDRESSES; i++)
        if (m->known[i] != 0)
            m->wrong = step(m, i, 0);
}

static model models[2] = {{.base = 0x100000000, .seed = 1}, {.base = 0x7f0000000000, .seed = 2}};

/* While the filter is put in and taken out of use. */
static void two_threads_find_what_they_put_in(void **state)
{
    (void)state;
    pthread_t t[2];
    assert_true(memkit__blocks_prepare(false));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, random_steps, &models[i]), 0);
    for (int i = 0; i < 50; i++) {
        assert_true(memkit__blocks_prepare(i % 2 == 0));
        usleep(1000);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++)
        if (models[i].wrong != NULL)
            fail_msg("%s", models[i].wrong);
    assert_true(models[0].in > ADDRESSES / 4);
    assert_int_equal(memkit__blocks_count(), models[0].in + models[1].in);
    assert_true(memkit__blocks_prepare(false));
    for (int i = 0; i < 2; i++) {
        take_all(&models[i]);
        assert_null(models[i].wrong);
    }
    assert_int_equal(memkit__blocks_count(), 0);
}

/* A filter that let everything pass would go unnoticed else. */
static void the_filter_passes_few_of_those_that_are_not_in(void **state)
{
    (void)state;
    assert_true(memkit__blocks_prepare(false));
    model *m = &models[0];
    for (unsigned i = 0; i < 500; i++)
        assert_null(step(m, i, 1));
    unsigned passed = 0;
    for (unsigned i = 0; i < ADDRESSES; i++)
        passed += memkit__perhaps_sampled(address(&models[1], i));
    assert_true(passed < ADDRESSES / 10);
    take_all(m);
    passed = 0;
    for (unsigned i = 0; i < ADDRESSES; i++)
        passed += memkit__perhaps_sampled(address(&models[1], i));
    assert_int_equal(passed, 0);
}

static void *adds_sites(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < 60000; i++) {
        uint64_t frames[20];
        unsigned n = 1 + (unsigned)rand_r(&seed) % 19, which = (unsigned)rand_r(&seed) % 200;
        for (unsigned k = 0; k < n; k++)
            frames[k] = which * 1000 + k;
        memkit__site *s = memkit__site_find(&memkit__cpu_sites, frames, n, which % 2 == 0, 0);
        if (s == NULL || s->depth != n || memcmp(s->frames, frames, n * sizeof frames[0]) != 0)
            return "not what was added";
        atomic_fetch_add((_Atomic uint64_t *)s->sums, 1);
    }
    return NULL;
}

static void a_stack_is_one_site_whoever_adds_it(void **state)
{
    (void)state;
    pthread_t t[2];
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, adds_sites, (void *)(i + 1)), 0);
    for (int i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        assert_null(wrong);
    }
    uint32_t n = memkit__site_count(&memkit__cpu_sites);
    assert_int_equal(n, 200 * 19);
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++) {
        memkit__site *s = memkit__site_at(&memkit__cpu_sites, i);
        assert_non_null(s);
        assert_int_equal(s->id, i);
        assert_ptr_equal(memkit__site_find(&memkit__cpu_sites, s->frames, s->depth, s->cut, 0), s);
        all += *(uint64_t *)s->sums;
    }
    assert_int_equal(all, 2 * 60000);
    assert_null(memkit__site_at(&memkit__cpu_sites, n));
}

static void a_full_table_refuses_and_goes_on(void **state)
{
    (void)state;
    size_t limit = memkit__kept_bytes();
    memkit__kept_limit(limit);
    const void *base = (const void *)(uintptr_t)0x5000000000;
    memkit__record r = {.bytes = 7};
    size_t in = 0, n = 2000000;
    for (size_t i = 0; i < n; i++)
        in += memkit__blocks_put((const char *)base + i * 32, &r);
    assert_true(in > 10000 && in < n);
    assert_int_equal(memkit__blocks_count(), in);
    assert_true(memkit__kept_bytes() <= limit);
    uint64_t frames[128];
    size_t refused = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        for (uint64_t k = 0; k < 128; k++)
            frames[k] = i * 1000000 + k;
        refused += memkit__site_find(&memkit__heap_sites, frames, 128, false, 0) == NULL;
    }
    assert_true(refused > 1000);
    for (size_t i = 0; i < n; i++)
        in -= memkit__blocks_take((const char *)base + i * 32, &r);
    assert_int_equal(in, 0);
    memkit__kept_limit(SIZE_MAX);
    assert_true(memkit__blocks_put(base, &r) && memkit__blocks_take(base, &r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads_find_what_they_put_in),
        cmocka_unit_test(the_filter_passes_few_of_those_that_are_not_in),
        cmocka_unit_test(a_stack_is_one_site_whoever_adds_it),
        cmocka_unit_test(a_full_table_refuses_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
