/* test_prof_pprof.c - profile.proto as written, byte by byte: zlib inflates it, a reader of the
 * wire format made for this test takes it apart, and every field is what the profile holds.
 */
#include <zlib.h>

#include "support.h"
#include "support_profile.h"

static memkit__scratch scratch;
static uint8_t raw[4 << 20];

typedef struct {
    const uint8_t *at, *end;
} span;

typedef struct {
    unsigned field, wire;
    uint64_t number;
    span bytes;
} item;

/* ---- the reader ---- */

static uint64_t varint(span *s)
{
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        assert_true(s->at < s->end && shift < 64);
        v |= (uint64_t)(*s->at & 0x7f) << shift;
        if ((*s->at++ & 0x80) == 0)
            return v;
    }
}

static bool next(span *s, item *out)
{
    if (s->at == s->end)
        return false;
    uint64_t key = varint(s);
    *out = (item){.field = (unsigned)(key >> 3), .wire = (unsigned)(key & 7)};
    assert_true(out->wire == 0 || out->wire == 2);
    out->number = varint(s);
    if (out->wire == 2) {
        assert_true(out->number <= (size_t)(s->end - s->at));
        out->bytes = (span){s->at, s->at + out->number};
        s->at += out->number;
    }
    return true;
}

/* The nth item of a field, counted from 0. */
static bool find(span message, unsigned field, unsigned n, item *out)
{
    while (next(&message, out))
        if (out->field == field && n-- == 0)
            return true;
    return false;
}

static unsigned count(span message, unsigned field)
{
    unsigned n = 0;
    for (item i; next(&message, &i);)
        n += i.field == field;
    return n;
}

static uint64_t number(span message, unsigned field)
{
    item i;
    assert_true(count(message, field) <= 1);
    return find(message, field, 0, &i) ? i.number : 0;
}

static span message_of(span whole, unsigned field, unsigned n)
{
    item i;
    assert_true(find(whole, field, n, &i));
    assert_int_equal(i.wire, 2);
    return i.bytes;
}

static span inflated(const memkit_buf *b)
{
    z_stream z = {.next_in = (Bytef *)b->data, .avail_in = (uInt)b->len};
    z.next_out = raw;
    z.avail_out = sizeof raw;
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.avail_in, 0); /* one member, nothing behind it */
    span s = {raw, raw + z.total_out};
    assert_int_equal(inflateEnd(&z), Z_OK);
    return s;
}

static void assert_string(span whole, uint64_t index, const char *want)
{
    span s = message_of(whole, 6, (unsigned)index);
    assert_int_equal(s.end - s.at, strlen(want));
    assert_memory_equal(s.at, want, strlen(want));
}

static memkit_buf *written(const memkit__profile *p)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_non_null(b);
    assert_int_equal(memkit__pprof_write(p, b), 0);
    return b;
}

static int tear_down(void **state)
{
    (void)state;
    memkit__scratch_free(&scratch);
    return 0;
}

/* Which location of the profile has that id: they are told apart by address. */
static uint32_t location_of(span whole, const memkit__profile *p, uint64_t id)
{
    span l = message_of(whole, 4, (unsigned)id - 1);
    assert_true(number(l, 1) == id);
    for (uint32_t i = 0; i < p->n_locations; i++)
        if (p->locations[i].address == number(l, 3))
            return i;
    fail_msg("a location that the profile has not");
    return 0;
}

/* ---- tests ---- */

static void the_sample_types_come_in_the_order_given(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    assert_int_equal(count(whole, 1), MEMKIT__HEAP_TYPE_COUNT);
    for (unsigned i = 0; i < p->n_types; i++) {
        span type = message_of(whole, 1, i);
        assert_string(whole, number(type, 1), p->types[i].type);
        assert_string(whole, number(type, 2), p->types[i].unit);
    }
    assert_string(whole, number(message_of(whole, 1, 0), 1), "alloc_objects");
    assert_string(whole, number(message_of(whole, 1, 3), 1), "inuse_space");
    assert_string(whole, number(whole, 14), "inuse_space");
    memkit_buf_free(b);
}

static bool is_sample(span s, const memkit__profile *p, const memkit__sample *want, span whole)
{
    span ids = message_of(s, 1, 0), values = message_of(s, 2, 0);
    for (uint32_t i = 0; i < want->depth; i++)
        if (ids.at == ids.end || location_of(whole, p, varint(&ids)) != want->locations[i])
            return false;
    if (ids.at != ids.end)
        return false;
    for (uint32_t i = 0; i < p->n_types; i++)
        if ((int64_t)varint(&values) != want->values[i])
            return false;
    assert_ptr_equal(values.at, values.end);
    assert_int_equal(count(s, 3), want->thread != NULL);
    if (want->thread != NULL) {
        span label = message_of(s, 3, 0);
        assert_string(whole, number(label, 1), "thread");
        assert_string(whole, number(label, 2), want->thread);
    }
    return true;
}

static void every_sample_is_there_with_its_stack_values_and_thread(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    assert_int_equal(count(whole, 2), p->n_samples);
    for (unsigned i = 0; i < p->n_samples; i++) {
        unsigned found = 0;
        for (unsigned k = 0; k < p->n_samples; k++)
            found += is_sample(message_of(whole, 2, k), p, &p->samples[i], whole);
        assert_int_equal(found, 1);
    }
    memkit_buf_free(b);
}

static void mappings_locations_and_functions_are_numbered_from_one(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    assert_int_equal(count(whole, 3), p->n_mappings);
    for (unsigned i = 0; i < p->n_mappings; i++) {
        span m = message_of(whole, 3, i);
        assert_int_equal(number(m, 1), i + 1);
        assert_true(number(m, 2) == p->mappings[i].start && number(m, 3) == p->mappings[i].limit);
        assert_int_equal(number(m, 4), p->mappings[i].offset);
        assert_string(whole, number(m, 5), p->mappings[i].path);
        assert_string(whole, number(m, 6), p->mappings[i].build_id);
        assert_int_equal(number(m, 7), p->mappings[i].has_functions);
    }
    assert_int_equal(count(whole, 4), p->n_locations);
    for (unsigned i = 0; i < p->n_locations; i++) {
        span l = message_of(whole, 4, i);
        const memkit__location *want = &p->locations[location_of(whole, p, i + 1)];
        assert_int_equal(number(l, 1), i + 1);
        assert_int_equal(number(l, 2), want->mapping == MEMKIT__NONE ? 0 : want->mapping + 1);
        assert_true(number(l, 3) == want->address);
        assert_int_equal(count(l, 4), want->function != MEMKIT__NONE);
        if (want->function != MEMKIT__NONE)
            assert_int_equal(number(message_of(l, 4, 0), 1), want->function + 1);
    }
    assert_int_equal(count(whole, 5), p->n_functions);
    for (unsigned i = 0; i < p->n_functions; i++) {
        span f = message_of(whole, 5, i);
        assert_int_equal(number(f, 1), i + 1);
        assert_string(whole, number(f, 2), p->functions[i].name);
        assert_string(whole, number(f, 3), p->functions[i].system_name);
        assert_string(whole, number(f, 4),
                      p->functions[i].file != NULL ? p->functions[i].file : "");
    }
    memkit_buf_free(b);
}

/* One byte each, in the packed ids of the samples. */
static void the_locations_used_most_have_the_smallest_ids(void **state)
{
    (void)state;
    memkit__profile *p = service_profile(&scratch, 300, 1);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    static unsigned uses[2000];
    assert_true(p->n_locations > 200 && p->n_locations < 2000);
    memset(uses, 0, sizeof uses);
    for (item i, f; next(&whole, &i);)
        for (span s = i.bytes; i.field == 2 && next(&s, &f);)
            for (span ids = f.bytes; f.field == 1 && ids.at < ids.end;)
                uses[varint(&ids)]++;
    for (unsigned id = 1; id <= p->n_locations; id++)
        assert_true(id <= 127 ? id == 1 || uses[id] <= uses[id - 1] : uses[id] <= uses[127]);
    memkit_buf_free(b);
}

static void what_holds_for_the_whole_profile_is_said(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    assert_string(whole, number(whole, 7), p->drop_frames);
    assert_string(whole, number(whole, 8), p->keep_frames);
    assert_true((int64_t)number(whole, 9) == p->time_ns);
    assert_true((int64_t)number(whole, 10) == p->duration_ns);
    span period = message_of(whole, 11, 0);
    assert_string(whole, number(period, 1), "space");
    assert_string(whole, number(period, 2), "bytes");
    assert_int_equal(number(whole, 12), 524288);
    span comments = message_of(whole, 13, 0);
    for (unsigned i = 0; i < p->n_comments; i++)
        assert_string(whole, varint(&comments), p->comments[i]);
    assert_ptr_equal(comments.at, comments.end);
    memkit_buf_free(b);
}

static void the_string_table_starts_empty_and_holds_each_text_once(void **state)
{
    (void)state;
    memkit_buf *b = written(service_profile(&scratch, 50, 1));
    span whole = inflated(b);
    static span texts[2000];
    unsigned n = 0;
    for (item i; next(&whole, &i);)
        if (i.field == 6) {
            assert_true(n < sizeof texts / sizeof *texts);
            texts[n++] = i.bytes;
        }
    assert_true(n > 100);
    assert_ptr_equal(texts[0].at, texts[0].end);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = i + 1; k < n; k++)
            assert_true(texts[i].end - texts[i].at != texts[k].end - texts[k].at ||
                        memcmp(texts[i].at, texts[k].at, (size_t)(texts[i].end - texts[i].at)) !=
                            0);
    memkit_buf_free(b);
}

static void the_same_profile_gives_the_same_bytes(void **state)
{
    (void)state;
    memkit_buf *a = written(service_profile(&scratch, 300, 5));
    memkit_buf *b = written(service_profile(&scratch, 300, 5));
    memkit_buf *c = written(service_profile(&scratch, 300, 6));
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->data, b->data, a->len);
    assert_true(a->len != c->len || memcmp(a->data, c->data, a->len) != 0);
    assert_memory_equal(a->data, "\x1f\x8b\x08\0\0\0\0\0", 8); /* gzip, no name, no time */
    memkit_buf_free(a);
    memkit_buf_free(b);
    memkit_buf_free(c);
}

static void values_at_the_ends_of_their_range_come_through(void **state)
{
    (void)state;
    memkit__profile *p = cpu_profile(&scratch);
    static const int64_t ends[] = {INT64_MIN, INT64_MAX};
    p->samples[2].values = ends;
    memkit_buf *b = written(p);
    span whole = inflated(b);
    unsigned found = 0;
    for (unsigned k = 0; k < p->n_samples; k++)
        found += is_sample(message_of(whole, 2, k), p, &p->samples[2], whole);
    assert_int_equal(found, 1);
    memkit_buf_free(b);
}

static void a_profile_without_samples_is_a_profile(void **state)
{
    (void)state;
    memkit__profile p = *small_profile(&scratch);
    p.n_samples = p.n_locations = p.n_functions = p.n_mappings = p.n_comments = 0;
    p.drop_frames = p.keep_frames = NULL;
    memkit_buf *b = written(&p);
    span whole = inflated(b);
    assert_int_equal(count(whole, 1), MEMKIT__HEAP_TYPE_COUNT);
    assert_int_equal(count(whole, 2) + count(whole, 7) + count(whole, 8) + count(whole, 13), 0);
    memkit_buf_free(b);
}

static void it_is_appended(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0), *alone = written(small_profile(&scratch));
    assert_int_equal(memkit_buf_append_str(b, "before"), 0);
    assert_int_equal(memkit__pprof_write(small_profile(&scratch), b), 0);
    assert_int_equal(b->len, 6 + alone->len);
    assert_memory_equal(b->data, "before", 6);
    assert_memory_equal(b->data + 6, alone->data, alone->len);
    memkit_buf_free(b);
    memkit_buf_free(alone);
}

static void what_was_not_resolved_is_refused(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = memkit_buf_new(0);
    p->n_locations = 3;
    assert_errno(memkit__pprof_write(p, b), -1, EINVAL);
    p = small_profile(&scratch);
    p->samples[0].locations = NULL;
    assert_errno(memkit__pprof_write(p, b), -1, EINVAL);
    p = small_profile(&scratch);
    p->default_type = p->n_types;
    assert_errno(memkit__pprof_write(p, b), -1, EINVAL);
    assert_int_equal(b->len, 0);
    memkit_buf_free(b);
}

static void a_limited_buffer_stays_as_it_was(void **state)
{
    (void)state;
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_append_str(b, "before"), 0);
    assert_int_equal(memkit_buf_limit(b, 100), 0);
    assert_errno(memkit__pprof_write(small_profile(&scratch), b), -1, EMSGSIZE);
    assert_string_equal(b->data, "before");
    memkit_buf_free(b);
}

/* What it comes to is said in the log; that gzip and the order of samples do their work is
 * tested: raw it is four times as much. */
static void a_service_s_profile_is_small(void **state)
{
    (void)state;
    memkit__profile *p = service_profile(&scratch, 1900, 1);
    memkit_buf *b = written(p);
    span whole = inflated(b);
    print_message("1,900 stacks, %u locations, %u functions, %u types: %zu bytes, %zu inflated\n",
                  p->n_locations, p->n_functions, p->n_types, b->len, (size_t)(whole.end - raw));
    assert_true(b->len * 3 < (size_t)(whole.end - raw));
    memkit_buf_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_sample_types_come_in_the_order_given, tear_down),
        cmocka_unit_test_teardown(every_sample_is_there_with_its_stack_values_and_thread,
                                  tear_down),
        cmocka_unit_test_teardown(mappings_locations_and_functions_are_numbered_from_one,
                                  tear_down),
        cmocka_unit_test_teardown(the_locations_used_most_have_the_smallest_ids, tear_down),
        cmocka_unit_test_teardown(what_holds_for_the_whole_profile_is_said, tear_down),
        cmocka_unit_test_teardown(the_string_table_starts_empty_and_holds_each_text_once,
                                  tear_down),
        cmocka_unit_test_teardown(the_same_profile_gives_the_same_bytes, tear_down),
        cmocka_unit_test_teardown(values_at_the_ends_of_their_range_come_through, tear_down),
        cmocka_unit_test_teardown(a_profile_without_samples_is_a_profile, tear_down),
        cmocka_unit_test_teardown(it_is_appended, tear_down),
        cmocka_unit_test_teardown(what_was_not_resolved_is_refused, tear_down),
        cmocka_unit_test_teardown(a_limited_buffer_stays_as_it_was, tear_down),
        cmocka_unit_test_teardown(a_service_s_profile_is_small, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
