/* tools_readers.c - our profiles in readers that others wrote: go tool pprof, npm's pprof-format,
 * flamegraph.pl. What they say is compared with what the profile holds. Profiles made up, and this
 * program's own; those of others are in tools_readers_real.c, browsers in tools_flame.c.
 */
#define _GNU_SOURCE

#include "support.h"

#include <memkit/prof.h>

#include "support_profile.h"
#include "tools_readers.h"

static memkit__scratch scratch;
static memkit__profile *small, *service;

static void save(const char *name, const memkit_buf *b)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
}

static void save_pprof(const char *name, const memkit__profile *p)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit__pprof_write(p, b), 0);
    save(name, b);
    memkit_buf_free(b);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    small = small_profile(&scratch);
    service = service_profile(&scratch, 1900, 1);
    save_pprof("small.pb.gz", small);
    save_pprof("service.pb.gz", service);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    memkit__scratch_free(&scratch);
    return remove_tool_dir(dir);
}

/* ---- go tool pprof ---- */

static void pprof_top_has_our_totals_of_all_types(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const memkit__profile *p = i == 0 ? small : service;
        for (uint32_t type = 0; type < 10; type++) {
            char flags[128];
            snprintf(flags, sizeof flags, "-top -unit=B -nodefraction=0 -sample_index=%s",
                     p->types[type].type);
            pprof(flags, i == 0 ? "small.pb.gz" : "service.pb.gz");
            assert_true(total_said() == profile_total(p, type));
        }
    }
}

static void pprof_drops_the_frames_we_name(void **state)
{
    (void)state;
    pprof("-top -unit=B -nodefraction=0", "small.pb.gz"); /* the default type is inuse_space */
    assert_said("Type: inuse_space\n");
    assert_null(strstr(said, "malloc"));
    assert_said("8096B  0.72%"); /* flat, of read_all: what malloc's was */
    assert_said("[memkit held]");
    pprof("-traces", "small.pb.gz");
    assert_null(strstr(said, "malloc"));
    assert_said("read_all\n             main\n");
}

static void pprof_raw_reads_every_field(void **state)
{
    (void)state;
    pprof("-raw", "small.pb.gz");
    assert_said("PeriodType: space bytes\nPeriod: 524288\n");
    assert_said("Time: 2025-11-24 16:00:00.123456789 +0000 UTC\nDuration: 12.5\n");
    assert_said("Comment: own memory: 1.2 MiB\n");
    assert_said("alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt] "
                "take_objects/count");
    assert_said("thread:[worker 1]");
    assert_said(": 0x401050 M=1 main /src/main.c:0 s=0\n");
    assert_said("1: 0x400000/0x500000/0x1000 /usr/bin/server 0123abcd [FN]\n");
    pprof("-raw", "service.pb.gz");
    unsigned samples = 0;
    for (const char *at = strstr(said, "ge_100s/count\n"); at != NULL; at = strchr(at, '\n')) {
        at += strspn(at, "\n");
        if (strncmp(at, "Locations", 9) == 0)
            break;
        samples += *at == ' ';
    }
    assert_true(samples >= 1895); /* of 1,900: equal stacks are one there */
}

static void pprof_shows_tags_and_draws_a_graph(void **state)
{
    (void)state;
    pprof("-tags", "small.pb.gz");
    assert_said("thread: Total");
    assert_said("worker 1");
    need_tool("dot");
    pprof("-svg -output=graph.svg", "small.pb.gz");
    run("cat graph.svg");
    assert_said("<svg ");
    assert_said("push_back");
    assert_said("read_all");
}

static void pprof_takes_one_from_another(void **state)
{
    (void)state;
    memkit__profile more = *small;
    memkit__sample samples[SMALL_SAMPLES];
    int64_t values[MEMKIT__HEAP_TYPE_COUNT];
    memcpy(samples, small->samples, sizeof samples);
    memcpy(values, samples[3].values, sizeof values);
    values[MEMKIT__INUSE_SPACE] += 12345;
    samples[3].values = values;
    more.samples = samples;
    save_pprof("more.pb.gz", &more);
    pprof("-top -unit=B -nodefraction=0 -base small.pb.gz", "small.pb.gz");
    assert_true(total_said() == 0);
    pprof("-top -unit=B -nodefraction=0 -base small.pb.gz", "more.pb.gz");
    assert_true(total_said() == 12345);
    assert_said("12345B   100%");
    pprof("-top -unit=B -nodefraction=0 -diff_base small.pb.gz", "more.pb.gz");
    assert_true(total_said() == profile_total(small, MEMKIT__INUSE_SPACE));
    assert_said("12345B  1.10%");
}

/* ---- npm's pprof-format ---- */

static void pprof_format_reads_what_we_wrote(void **state)
{
    (void)state;
    decode("small.pb.gz");
    char line[256];
    for (uint32_t i = 0; i < small->n_types; i++) {
        snprintf(line, sizeof line, "type %s %s %lld\n", small->types[i].type, small->types[i].unit,
                 (long long)profile_total(small, i));
        assert_said(line);
    }
    for (uint32_t i = 0; i < small->n_locations; i++) {
        const memkit__location *l = &small->locations[i];
        char function[16] = "";
        if (l->function != MEMKIT__NONE)
            snprintf(function, sizeof function, "%u", l->function + 1);
        snprintf(line, sizeof line, " %u %llu %s\n", /* behind "location" and its id */
                 l->mapping == MEMKIT__NONE ? 0 : l->mapping + 1, (unsigned long long)l->address,
                 function);
        assert_said(line);
    }
    assert_said("period space bytes 524288\ndefault inuse_space\n");
    assert_said("time 1764000000123456789 duration 12500000000\n");
    assert_said("drop malloc|memkit__.* keep memkit__kept\n");
    assert_said("comment dropped: 0\ncomment own memory: 1.2 MiB\n");
    assert_said("mapping 1 4194304 5242880 4096 /usr/bin/server 0123abcd\n");
    assert_said("function 1 \"main\"\nfunction 2 \"read_all\"\n");
    assert_said("function 3 \"std::vector<char, std::allocator<char> >::push_back(char&&) "
                "\\\"x\\\"\"\n");
    assert_said("label thread worker 1\n");
}

/* ---- flamegraph.pl ---- */

static void flamegraph_pl_draws_our_folded_stacks(void **state)
{
    (void)state;
    need_tool("perl");
    char script[512];
    tool_says("perl -e 'for (@INC) { my $f = \"$_/Devel/NYTProf/flamegraph.pl\"; "
              "if (-e $f) { print $f; last } }'",
              script, sizeof script);
    if (script[0] == '\0')
        fail_msg("flamegraph.pl (libdevel-nytprof-perl) is not installed: make deps-tools");
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit__folded_write(small, MEMKIT__INUSE_SPACE, b), 0);
    save("small.folded", b);
    run("perl '%s' small.folded", script);
    assert_said("<title>all (1,122,508 samples, 100%)");
    assert_said("<title>[memkit held] (65,536 samples, 5.84%)");
    assert_said("<title>read_all (8,396 samples, 0.75%)");
    assert_said("push_back(char&amp;&amp;) &quot;x&quot; (1,048,576 samples, 93.41%)");
    memkit_buf_reset(b);
    assert_int_equal(memkit__folded_write(service, MEMKIT__ALLOC_SPACE, b), 0);
    save("service.folded", b);
    run("perl '%s' service.folded", script);
    char all[64], plain[32];
    snprintf(plain, sizeof plain, "%lld", (long long)profile_total(service, MEMKIT__ALLOC_SPACE));
    int n = snprintf(all, sizeof all, "<title>all (");
    for (size_t i = 0, digits = strlen(plain); i < digits; i++) { /* as it groups them */
        all[n++] = plain[i];
        if (i + 1 < digits && (digits - 1 - i) % 3 == 0)
            all[n++] = ',';
    }
    snprintf(all + n, sizeof all - (size_t)n, " samples, 100%%)");
    assert_said(all);
    memkit_buf_free(b);
}

/* ---- a program's own profile ---- */

static void *volatile kept[1000];

__attribute__((noinline)) static void *fill_a_row(size_t i)
{
    kept[i] = malloc(1000);
    return kept[i];
}

__attribute__((noinline)) static void fill_the_table(void)
{
    for (size_t i = 0; i < 1000; i++)
        assert_non_null(fill_a_row(i));
}

static void pprof_names_what_a_real_program_allocates(void **state)
{
    (void)state;
    need_tool("go");
    if (SANITIZED)
        skip(); /* the sanitizer's malloc is in front of the hook */
    memkit_prof_opts every = {.sample_bytes = 1};
    assert_int_equal(memkit_prof_start(&every), 0);
    fill_the_table();
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_prof_write(b, MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF, NULL), 0);
    assert_int_equal(memkit_prof_stop(), 0);
    save("real.pb.gz", b);
    pprof("-top -unit=B", "real.pb.gz");
    const char *row = strstr(said, "fill_a_row");
    assert_non_null(row);
    while (row > said && row[-1] != '\n')
        row--;
    assert_true(atoll(row) == 1000000); /* flat, exact to the byte */
    pprof("-traces", "real.pb.gz");
    assert_said("fill_a_row\n             fill_the_table\n");
    for (size_t i = 0; i < 1000; i++)
        free(kept[i]);
    memkit_buf_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pprof_top_has_our_totals_of_all_types),
        cmocka_unit_test(pprof_drops_the_frames_we_name),
        cmocka_unit_test(pprof_raw_reads_every_field),
        cmocka_unit_test(pprof_shows_tags_and_draws_a_graph),
        cmocka_unit_test(pprof_takes_one_from_another),
        cmocka_unit_test(pprof_format_reads_what_we_wrote),
        cmocka_unit_test(flamegraph_pl_draws_our_folded_stacks),
        cmocka_unit_test(pprof_names_what_a_real_program_allocates),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
