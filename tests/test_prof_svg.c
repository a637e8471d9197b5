/* test_prof_svg.c - the flame graph as text: well-formed XML, frames that lie on each other to the
 * tenth of a pixel, names escaped. What a browser makes of it is in tools_readers.c.
 */
#include "prof/flame.h"
#include "prof/svg_page.h"
#include "support.h"
#include "support_profile.h"

enum { MOST_FRAMES = 20000, MOST_ROWS = 64 };

typedef struct {
    unsigned row, x, width; /* tenths of a pixel */
    long long start, value;
    char title[512];
} frame;

static memkit__scratch scratch;
static frame frames[MOST_FRAMES];
static unsigned n_frames, n_rows;

static int tear_down(void **state)
{
    (void)state;
    memkit__scratch_free(&scratch);
    return 0;
}

static memkit_buf *written(const memkit__profile *p, uint32_t type)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_non_null(b);
    assert_int_equal(memkit__svg_write(p, type, "Heap of <server> & \"co\"", b), 0);
    return b;
}

/* ---- XML, as far as this file uses it ---- */

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == ':';
}

/* A character or an entity of a text or an attribute's value. */
static const char *past_character(const char *at)
{
    if (*at == '&') {
        size_t n = strcspn(at, ";");
        assert_true(
            (n == 3 && memcmp(at, "&lt", 3) == 0) || (n == 3 && memcmp(at, "&gt", 3) == 0) ||
            (n == 4 && memcmp(at, "&amp", 4) == 0) || (n == 5 && memcmp(at, "&quot", 5) == 0));
        return at + n + 1;
    }
    assert_true(*at == '\n' || (unsigned char)*at >= ' ');
    assert_true(*at != '<' && *at != '>');
    if ((unsigned char)*at < 0x80)
        return at + 1;
    unsigned n = (unsigned char)*at >= 0xf0 ? 4 : (unsigned char)*at >= 0xe0 ? 3 : 2;
    assert_true((unsigned char)*at >= 0xc2 && (unsigned char)*at <= 0xf4);
    for (unsigned i = 1; i < n; i++)
        assert_int_equal((unsigned char)at[i] & 0xc0, 0x80);
    return at + n;
}

static const char *past_attributes(const char *at)
{
    while (*at == ' ') {
        at++;
        assert_true(is_name(*at));
        while (is_name(*at))
            at++;
        assert_memory_equal(at, "=\"", 2);
        for (at += 2; *at != '"';)
            at = past_character(at);
        at++;
    }
    return at;
}

/* Fails unless all elements are closed in the order they were opened, by their names. */
static void is_well_formed(const char *at)
{
    static const char declaration[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    const char *open[32];
    size_t length[32];
    unsigned depth = 0;
    assert_memory_equal(at, declaration, strlen(declaration));
    for (at += strlen(declaration); *at != '\0';) {
        if (strncmp(at, "<![CDATA[", 9) == 0) {
            at = strstr(at, "]]>");
            assert_non_null(at);
            at += 3;
        } else if (strncmp(at, "</", 2) == 0) {
            assert_true(depth > 0);
            depth--;
            assert_memory_equal(at + 2, open[depth], length[depth]);
            assert_int_equal(at[2 + length[depth]], '>');
            at += 3 + length[depth];
        } else if (*at == '<') {
            assert_true(depth < 32);
            open[depth] = ++at;
            while (is_name(*at))
                at++;
            length[depth] = (size_t)(at - open[depth]);
            assert_true(length[depth] > 0);
            at = past_attributes(at);
            if (*at == '/')
                at++;
            else
                depth++;
            assert_int_equal(*at++, '>');
        } else {
            assert_true(depth > 0 || *at == '\n');
            at = past_character(at);
        }
    }
    assert_int_equal(depth, 0);
}

/* ---- frames ---- */

static unsigned tenths(const char *at, const char *name)
{
    char attribute[32];
    snprintf(attribute, sizeof attribute, " %s=\"", name);
    at = strstr(at, attribute);
    assert_non_null(at);
    char *end;
    unsigned long whole = strtoul(at + strlen(attribute), &end, 10), part = 0;
    if (*end == '.')
        part = strtoul(end + 1, &end, 10);
    assert_true(*end == '"' && part < 10);
    return (unsigned)(whole * 10 + part);
}

static void read_frames(const char *at)
{
    n_frames = n_rows = 0;
    at = strstr(at, "<g id=\"frames\">");
    assert_non_null(at);
    for (at++; *at != '\0'; at++) {
        if (strncmp(at, "<g transform=\"translate(0,", 26) == 0)
            n_rows++;
        if (strncmp(at, "<rect", 5) != 0)
            continue;
        assert_true(n_frames < MOST_FRAMES);
        frame *f = &frames[n_frames++];
        f->row = n_rows - 1;
        f->x = tenths(at, "x");
        f->width = tenths(at, "width");
        const char *title = strstr(at, "<title>");
        assert_int_equal(
            sscanf(strstr(at, "data-v=\""), "data-v=\"%lld %lld\"", &f->start, &f->value), 2);
        snprintf(f->title, sizeof f->title, "%.*s", (int)(strstr(title, "</title>") - title - 7),
                 title + 7);
    }
}

static const frame *titled(const char *name)
{
    for (unsigned i = 0; i < n_frames; i++)
        if (strncmp(frames[i].title, name, strlen(name)) == 0 &&
            frames[i].title[strlen(name)] == '\n')
            return &frames[i];
    fail_msg("no frame is called %s", name);
    return NULL;
}

/* ---- tests ---- */

static void it_is_well_formed(void **state)
{
    (void)state;
    memkit__profile *profiles[] = {small_profile(&scratch), cpu_profile(&scratch),
                                   service_profile(&scratch, 200, 2)};
    for (size_t i = 0; i < 3; i++)
        for (uint32_t type = 0; type < profiles[i]->n_types; type++) {
            memkit_buf *b = written(profiles[i], type);
            is_well_formed(b->data);
            memkit_buf_free(b);
        }
}

static void names_are_escaped(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    read_frames(b->data);
    const frame *f = titled("std::vector&lt;char, std::allocator&lt;char&gt; "
                            "&gt;::push_back(char&amp;&amp;) &quot;x&quot;");
    assert_int_equal(f->value, 1048576);
    f = titled("odd;name\xef\xbf\xbdof \xef\xbf\xbd\xef\xbf\xbd");
    assert_non_null(strstr(f->title, "libodd &amp; &lt;co&gt;.so.1"));
    assert_non_null(strstr(b->data, "<title>Heap of &lt;server&gt; &amp; &quot;co&quot;</title>"));
    memkit_buf_free(b);
}

/* In tenths of a pixel, rounded, from integers alone. */
static long long edge(long long at)
{
    return (2 * at * MEMKIT__SVG_WIDTH * 10 + frames[0].value) / (2 * frames[0].value);
}

/* Each frame lies within the one below it, and its neighbours begin where it ends. */
static void frames_fill_the_one_below_to_the_pixel(void **state)
{
    (void)state;
    memkit_buf *b =
        written(service_profile(&scratch, SANITIZED ? 400 : 1900, 1), MEMKIT__ALLOC_SPACE);
    read_frames(b->data);
    assert_true(n_frames > 1000);
    assert_int_equal(frames[0].width, MEMKIT__SVG_WIDTH * 10);
    unsigned compared = 0;
    for (unsigned i = 1; i < n_frames; i++) {
        const frame *f = &frames[i], *below = NULL;
        assert_true(f->width >= 1);
        for (unsigned k = 0; k < i; k++) {
            const frame *g = &frames[k];
            if (g->row + 1 == f->row && g->start <= f->start && f->start < g->start + g->value)
                below = g;
        }
        assert_non_null(below);
        assert_true(f->x >= below->x && f->x + f->width <= below->x + below->width);
        assert_true(f->start + f->value <= below->start + below->value);
        assert_int_equal(f->x, edge(f->start));
        assert_int_equal(f->x + f->width, edge(f->start + f->value));
        const frame *next = i + 1 < n_frames && f[1].row == f->row ? f + 1 : NULL;
        if (next != NULL && next->start == f->start + f->value) {
            assert_int_equal(next->x, f->x + f->width);
            compared++;
        }
    }
    assert_true(compared > 100);
    memkit_buf_free(b);
}

static void the_root_is_at_the_bottom(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    unsigned last = 0, rows = 0;
    for (const char *at = b->data; (at = strstr(at, "translate(0,")) != NULL; rows++) {
        at += 12;
        unsigned y = (unsigned)strtoul(at, NULL, 10);
        assert_true(rows == 0 || y + MEMKIT__SVG_ROW == last);
        last = y;
    }
    assert_int_equal(rows, 5); /* all, worker 1, main, server+0x2999, push_back */
    assert_int_equal(last, MEMKIT__SVG_TOP);
    read_frames(b->data);
    assert_int_equal(titled("all")->row, 0);
    assert_int_equal(titled("worker 1")->row, 1);
    memkit_buf_free(b);
}

static void a_frame_says_bytes_objects_and_shares(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    read_frames(b->data);
    assert_string_equal(titled("all")->title, "all\n1.07 MiB, 15 objects");
    assert_string_equal(titled("[memkit held]")->title,
                        "[memkit held]\n64.0 KiB, 4 objects, 5.84 % of all");
    /* Two functions are called so: each has the figures of its module's. */
    unsigned found = 0;
    for (unsigned i = 0; i < n_frames; i++)
        found += strcmp(frames[i].title, "read_all\n7.91 KiB, 6 objects, 0.72 % of all, 96.43 % of "
                                         "its caller, server") == 0 ||
                 strcmp(frames[i].title, "read_all\n300 B, 3 objects, 0.03 % of all, 3.57 % of its "
                                         "caller, libodd &amp; &lt;co&gt;.so.1") == 0;
    assert_int_equal(found, 2);
    memkit_buf_free(b);
}

static void the_head_says_what_when_and_at_which_rate(void **state)
{
    (void)state;
    memkit_buf *b = written(small_profile(&scratch), MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, ">inuse_space: 1.07 MiB, 15 inuse_objects; one sample in 512 "
                                    "KiB; 2025-11-24 16:00:00 UTC, 12.5 s long</text>"));
    memkit_buf_free(b);
    b = written(cpu_profile(&scratch), 1);
    assert_non_null(strstr(b->data, ">cpu: 210 ms, 21 samples; one sample in 10.0 ms of cpu; "));
    memkit_buf_free(b);
}

static void what_is_too_narrow_is_left_out_and_counted(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    int64_t huge[MEMKIT__HEAP_TYPE_COUNT] = {0};
    huge[MEMKIT__INUSE_SPACE] = INT64_C(1) << 50;
    p->samples[3].values = huge;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    read_frames(b->data);
    assert_int_equal(n_frames, 2); /* all, [memkit held] */
    assert_int_equal(n_rows, 2);
    assert_non_null(strstr(b->data, ">9 frames, 8 narrower than 0.1 pixel left out</text>"));
    memkit_buf_free(b);
}

static void less_than_nothing_has_no_width(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    int64_t less[MEMKIT__HEAP_TYPE_COUNT] = {0};
    less[MEMKIT__INUSE_SPACE] = -5;
    p->samples[3].values = less;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    assert_non_null(strstr(b->data, "; 1 stacks of less than nothing left out</text>"));
    read_frames(b->data);
    assert_int_equal(titled("all")->value, 1048576 + 8096 + 300);
    memkit_buf_free(b);
}

static void nothing_counted_is_a_graph_too(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = written(p, MEMKIT__TAKE_SPACE);
    is_well_formed(b->data);
    assert_non_null(strstr(b->data, ">Nothing was counted.</text>"));
    memkit_buf_free(b);
    p->n_samples = 0;
    b = written(p, MEMKIT__INUSE_SPACE);
    is_well_formed(b->data);
    memkit_buf_free(b);
}

static void the_same_profile_gives_the_same_graph(void **state)
{
    (void)state;
    memkit_buf *a = written(service_profile(&scratch, 300, 4), 1);
    memkit_buf *b = written(service_profile(&scratch, 300, 4), 1);
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->data, b->data, a->len);
    memkit_buf_free(a);
    memkit_buf_free(b);
}

static void long_names_end_in_an_ellipsis(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit__function functions[7];
    memcpy(functions, p->functions, sizeof functions);
    char name[1001];
    memset(name, 'w', 1000);
    name[1000] = '\0';
    functions[0].name = name;
    p->functions = functions;
    memkit_buf *b = written(p, MEMKIT__INUSE_SPACE);
    const char *at = strstr(b->data, "\">wwww"); /* of a <text>, not of a <title> */
    assert_non_null(at);
    at = strchr(at, 'w');
    size_t letters = strspn(at, "w");
    assert_true(letters > 100 && letters < MEMKIT__SVG_WIDTH * 100 / MEMKIT__SVG_CHAR);
    assert_memory_equal(at + letters, "\xe2\x80\xa6</text>", 10);
    memkit_buf_free(b);
}

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    memkit__profile *p = small_profile(&scratch);
    memkit_buf *b = memkit_buf_new(0);
    assert_errno(memkit__svg_write(p, p->n_types, "t", b), -1, EINVAL);
    assert_errno(memkit__svg_write(p, 0, "t", NULL), -1, EINVAL);
    assert_int_equal(memkit_buf_append_str(b, "before"), 0);
    assert_int_equal(memkit_buf_limit(b, 5000), 0);
    assert_errno(memkit__svg_write(p, 0, "t", b), -1, EMSGSIZE);
    assert_string_equal(b->data, "before");
    assert_int_equal(memkit_buf_limit(b, 0), 0);
    assert_int_equal(memkit__svg_write(p, 0, NULL, b), 0);
    assert_memory_equal(b->data, "before<?xml", 11);
    memkit_buf_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(it_is_well_formed, tear_down),
        cmocka_unit_test_teardown(names_are_escaped, tear_down),
        cmocka_unit_test_teardown(frames_fill_the_one_below_to_the_pixel, tear_down),
        cmocka_unit_test_teardown(the_root_is_at_the_bottom, tear_down),
        cmocka_unit_test_teardown(a_frame_says_bytes_objects_and_shares, tear_down),
        cmocka_unit_test_teardown(the_head_says_what_when_and_at_which_rate, tear_down),
        cmocka_unit_test_teardown(what_is_too_narrow_is_left_out_and_counted, tear_down),
        cmocka_unit_test_teardown(less_than_nothing_has_no_width, tear_down),
        cmocka_unit_test_teardown(nothing_counted_is_a_graph_too, tear_down),
        cmocka_unit_test_teardown(the_same_profile_gives_the_same_graph, tear_down),
        cmocka_unit_test_teardown(long_names_end_in_an_ellipsis, tear_down),
        cmocka_unit_test_teardown(what_is_not_there_is_refused, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
