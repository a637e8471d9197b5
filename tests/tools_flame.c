/* tools_flame.c - flame graphs in a real browser, headless Chromium: ours, opened as a file, used
 * by a script as a person would (tests/readers/flame_probe.js); and speedscope, from npm, on our
 * pprof. Graphs of profiles made up, and of this program's own. MEMKIT_KEEP=1 keeps the pictures.
 */
#define _GNU_SOURCE

#include <sys/stat.h>

#include "support.h"

#include <memkit/prof.h>

#include "support_profile.h"
#include "tools.h"
#include "tools_chromium.h"

#define CONTRAST 4.5

static char dir[] = "/tmp/memkit-test-flame-XXXXXX";
static char text[8 << 20];
static memkit__scratch scratch;
static memkit__profile *small, *service;

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    small = small_profile(&scratch);
    service = service_profile(&scratch, 1900, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    memkit__scratch_free(&scratch);
    snprintf(command, sizeof command, "%s '%s'",
             getenv("MEMKIT_KEEP") != NULL ? "echo kept:" : "rm -rf", dir);
    return system(command) == 0 ? 0 : -1;
}

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static size_t slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("no %s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return n;
}

static const char *reader(const char *name)
{
    static char path[1024];
    const char *root = getenv("MEMKIT_ROOT");
    assert_non_null(root);
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

/* Puts the text of b into a file, with `more` in front of its end tag. */
static void save(const char *name, const memkit_buf *b, const char *end, const char *more)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    const char *at = end != NULL ? strstr(b->data, end) : b->data + b->len;
    assert_non_null(at);
    fwrite(b->data, 1, (size_t)(at - b->data), f);
    fputs(more, f);
    fputs(at, f);
    assert_int_equal(fclose(f), 0);
}

static char *replaced(const char *in, const char *what, const char *with)
{
    memkit_buf *b = memkit_buf_new(0);
    for (const char *at; (at = strstr(in, what)) != NULL; in = at + strlen(what)) {
        assert_int_equal(memkit_buf_append(b, in, (size_t)(at - in)), 0);
        assert_int_equal(memkit_buf_append_str(b, with), 0);
    }
    assert_int_equal(memkit_buf_append_str(b, in), 0);
    char *out = memkit_buf_detach(b, NULL);
    memkit_buf_free(b);
    return out;
}

static memkit_buf *graph_of(const memkit__profile *p)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit__svg_write(p, MEMKIT__ALLOC_SPACE, "Heap of a <service>", b), 0);
    return b;
}

/* ---- the probe's findings ---- */

static void says(const char *fact)
{
    char wanted[128];
    snprintf(wanted, sizeof wanted, " %s ", fact);
    const char *at = strstr(text, "PROBE ");
    if (at == NULL)
        fail_msg("the script did not run");
    const char *found = strstr(at, wanted);
    if (found == NULL)
        fail_msg("not so: %s in: %.*s", fact, (int)strcspn(at, "<"), at);
}

static double fact(const char *name)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %s=", name);
    const char *at = strstr(text, "PROBE ");
    assert_non_null(at);
    at = strstr(at, wanted);
    assert_non_null(at);
    return atof(at + strlen(wanted));
}

/* Share of what a pattern matches: of the folded stacks in which it is somewhere. Cuts them up. */
static double matched(memkit_buf *folded, const char *pattern)
{
    double all = 0, sum = 0;
    for (char *line = folded->data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        double value = atof(strrchr(line, ' ') + 1);
        all += value;
        sum += strstr(line, pattern) != NULL ? value : 0;
    }
    return sum / all * 100;
}

static void is_used_well(const memkit_buf *graph, memkit_buf *folded, const char *target,
                         const char *pattern, bool dark)
{
    need_tool("chromium");
    slurp(reader("tests/readers/flame_probe.js"));
    char *probe = replaced(text, "TARGET", target), *full = replaced(probe, "PATTERN", pattern);
    char *script = malloc(strlen(full) + 100);
    assert_non_null(script);
    sprintf(script, "<script><![CDATA[\n%s]]></script>", full);
    save("probe.svg", graph, "</svg>", script);
    run_chromium(dir, path_of("probe.svg"),
                 dark ? "--dump-dom --window-size=1200,700 --blink-settings=preferredColorScheme=0"
                      : "--dump-dom --window-size=1200,700 "
                        "--blink-settings=preferredColorScheme=1");
    slurp(path_of("err"));
    if (strstr(text, ":CONSOLE") != NULL)
        fail_msg("%s", strstr(text, ":CONSOLE"));
    slurp(path_of("dom"));
    static const char *const right[] = {
        "tools=true",  "overlaps=0",      "outside=0",      "zoomed=true",     "zoom_share=true",
        "reset=true",  "zoom_overlaps=0", "zoom_outside=0", "zoom_hides=true", "zoom_told=true",
        "ctrl_f=true", "hits_right=true", "wrong=true",     "cleared=true",    "hover=true",
        "key_up=true", "key_zoom=true",   "key_down=true",  "key_reset=true"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        says(right[i]);
    says(dark ? "dark=true" : "dark=false");
    says(dark ? "ground=rgb(20,23,28)" : "ground=rgb(255,255,255)");
    assert_true(fact("contrast") >= CONTRAST && fact("zoom_contrast") >= CONTRAST &&
                fact("hit_contrast") >= CONTRAST);
    assert_true(fact("hits") > 0);
    const char *percent = strstr(text, " matched=matched:");
    assert_non_null(percent);
    double told = atof(percent + 17), share = matched(folded, pattern);
    if (told < share - 0.1 || told > share + 0.1)
        fail_msg("matched: %.2f %%, in truth %.2f %%", told, share);
    free(probe);
    free(full);
    free(script);
}

static void both_are_used_well(const memkit__profile *p, const char *target, const char *pattern)
{
    for (int dark = 0; dark < 2; dark++) {
        memkit_buf *graph = graph_of(p), *folded = memkit_buf_new(0);
        assert_int_equal(memkit__folded_write(p, MEMKIT__ALLOC_SPACE, folded), 0);
        is_used_well(graph, folded, target, pattern, dark);
        memkit_buf_free(graph);
        memkit_buf_free(folded);
    }
}

static void a_small_graph_zooms_searches_and_is_read(void **state)
{
    (void)state;
    both_are_used_well(small, "worker 1", "read_all");
}

static void a_service_s_graph_zooms_searches_and_is_read(void **state)
{
    (void)state;
    both_are_used_well(service, "cache_lookup_35_1", "json_emit_4");
}

/* ---- this program's own ---- */

static void *volatile kept[2000];

__attribute__((noinline)) static void *fill_a_row(size_t i, size_t size)
{
    kept[i] = malloc(size);
    return kept[i];
}

__attribute__((noinline)) static void fill_the_table(void)
{
    for (size_t i = 0; i < 1000; i++)
        assert_non_null(fill_a_row(i, 1000));
}

__attribute__((noinline)) static void fill_the_rest(void)
{
    for (size_t i = 1000; i < 2000; i++)
        assert_non_null(fill_a_row(i, 3000));
}

static void a_real_program_s_graph_zooms_searches_and_is_read(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* the sanitizer's malloc is in front of the hook */
    memkit_prof_opts every = {.sample_bytes = 1};
    /* With room for all, so that they do not grow between the two profiles. */
    memkit_buf *graph = memkit_buf_new(1 << 20), *folded = memkit_buf_new(1 << 20);
    assert_int_equal(memkit_prof_start(&every), 0);
    fill_the_table();
    fill_the_rest();
    assert_int_equal(memkit_prof_write(graph, MEMKIT_PROF_ALLOCS, MEMKIT_FMT_SVG, NULL), 0);
    assert_int_equal(memkit_prof_write(folded, MEMKIT_PROF_ALLOCS, MEMKIT_FMT_FOLDED, NULL), 0);
    assert_int_equal(memkit_prof_stop(), 0);
    is_used_well(graph, folded, "fill_the_table", "fill_the_rest", false);
    memkit_buf_free(graph);
    memkit_buf_free(folded);
    for (size_t i = 0; i < 2000; i++)
        free(kept[i]);
}

/* Bytes of a picture; `name` says where it lies. */
static size_t picture(const char *name, const char *page, const char *flags)
{
    char all[256];
    struct stat st;
    snprintf(all, sizeof all, "--screenshot='%s/%s' --window-size=1200,700 %s", dir, name, flags);
    run_chromium(dir, path_of(page), all);
    if (stat(path_of(name), &st) != 0)
        fail_msg("chromium made no %s", name);
    slurp(path_of(name));
    assert_memory_equal(text, "\x89PNG", 4);
    return (size_t)st.st_size;
}

static void dark_and_light_and_without_scripts_it_is_drawn(void **state)
{
    (void)state;
    need_tool("chromium");
    memkit_buf *b = graph_of(service);
    save("graph.svg", b, NULL, "");
    memkit_buf_free(b);
    size_t light = picture("light.png", "graph.svg", "--blink-settings=preferredColorScheme=1");
    char *copy = malloc(light);
    assert_non_null(copy);
    memcpy(copy, text, light);
    size_t dark = picture("dark.png", "graph.svg", "--blink-settings=preferredColorScheme=0");
    assert_true(light > 30000 && dark > 30000);
    assert_true(light != dark || memcmp(copy, text, light) != 0);
    FILE *f = fopen(path_of("plain.html"), "w"); /* no script runs in an image */
    assert_non_null(f);
    fputs("<img src='graph.svg' width='1200'>", f);
    assert_int_equal(fclose(f), 0);
    size_t plain = picture("plain.png", "plain.html", "");
    assert_true(plain > 30000); /* no field and no button, but the graph */
    free(copy);
}

/* ---- speedscope ---- */

static void speedscope_s_graph_shows_our_names(void **state)
{
    (void)state;
    need_tool("chromium");
    char command[4096];
    const char *release = reader("build/readers/node_modules/speedscope/dist/release");
    if (access(release, R_OK) != 0)
        fail_msg("speedscope is not installed: make deps-tools");
    snprintf(command, sizeof command, "cp -r '%s' '%s/page'", release, dir);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "cp '%s' '%s/page/'",
             reader("tests/readers/speedscope_probe.js"), dir);
    assert_int_equal(system(command), 0);
    slurp(path_of("page/index.html"));
    char *page = replaced(text, "<script src=\"speedscope-",
                          "<script src=\"speedscope_probe.js\"></script><script src=\"speedscope-");
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_append_str(b, page), 0);
    free(page);
    save("page/index.html", b, NULL, "");
    memkit_buf_reset(b);
    assert_int_equal(memkit__pprof_write(small, b), 0);
    save("profile.pb.gz", b, NULL, "");
    memkit_buf_free(b);
    snprintf(command, sizeof command,
             "cd '%s' && { printf 'speedscope.loadFileFromBase64(\"profile.pb.gz\", \"'; base64 "
             "-w0 profile.pb.gz; printf '\");'; } >load.js",
             dir);
    assert_int_equal(system(command), 0);
    char url[1024];
    snprintf(url, sizeof url, "%s/page/index.html#localProfilePath=%s/load.js", dir, dir);
    run_chromium(dir, url,
                 "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
                 "--virtual-time-budget=20000 --dump-dom --window-size=1200,700");
    slurp(path_of("dom"));
    const char *drawn = strstr(text, "PROBE ");
    if (drawn == NULL)
        fail_msg("speedscope drew nothing");
    print_message("%.*s\n", (int)strcspn(drawn, "<"), drawn);
    assert_non_null(strstr(drawn, "\nmain\n"));
    assert_non_null(strstr(drawn, "\nstd::vector&lt;char, std::allocator&lt;char&gt; "
                                  "&gt;::push_back(char&amp;&amp;) \"x\"\n"));
    assert_non_null(strstr(drawn, "1.05 MB\n")); /* its axis, up to inuse_space's total */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_graph_zooms_searches_and_is_read),
        cmocka_unit_test(a_service_s_graph_zooms_searches_and_is_read),
        cmocka_unit_test(a_real_program_s_graph_zooms_searches_and_is_read),
        cmocka_unit_test(dark_and_light_and_without_scripts_it_is_drawn),
        cmocka_unit_test(speedscope_s_graph_shows_our_names),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
