/* tools_flame.c - flame graphs in a real browser, headless Chromium: ours, opened as a file, used
 * by a script as a person would (tests/readers/flame_probe.js); and speedscope, from npm, on our
 * pprof. What is not installed (make deps-tools) is skipped. MEMKIT_KEEP=1 keeps the pictures.
 */
#define _GNU_SOURCE

#include <sys/stat.h>

#include "support.h"
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

static void skip_without_chromium(void)
{
    if (have_tool("chromium"))
        return;
    print_message("chromium is not installed: make deps-tools\n");
    skip();
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

/* Share of what a pattern matches, of alloc_space: of the folded stacks in which it is somewhere.
 */
static double matched(const memkit__profile *p, const char *pattern)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit__folded_write(p, MEMKIT__ALLOC_SPACE, b), 0);
    double all = 0, sum = 0;
    for (char *line = b->data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        double value = atof(strrchr(line, ' ') + 1);
        all += value;
        sum += strstr(line, pattern) != NULL ? value : 0;
    }
    memkit_buf_free(b);
    return sum / all * 100;
}

static void is_used_well(const memkit__profile *p, const char *target, const char *pattern,
                         bool dark)
{
    skip_without_chromium();
    slurp(reader("tests/readers/flame_probe.js"));
    char *probe = replaced(text, "TARGET", target), *full = replaced(probe, "PATTERN", pattern);
    char *script = malloc(strlen(full) + 100);
    assert_non_null(script);
    sprintf(script, "<script><![CDATA[\n%s]]></script>", full);
    memkit_buf *b = graph_of(p);
    save("probe.svg", b, "</svg>", script);
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
    double off = atof(percent + 17) - matched(p, pattern);
    assert_true(off > -0.1 && off < 0.1);
    free(probe);
    free(full);
    free(script);
    memkit_buf_free(b);
}

static void a_small_graph_zooms_searches_and_is_read(void **state)
{
    (void)state;
    is_used_well(small, "worker 1", "read_all", false);
    is_used_well(small, "worker 1", "read_all", true);
}

static void a_service_s_graph_zooms_searches_and_is_read(void **state)
{
    (void)state;
    is_used_well(service, "cache_lookup_35_1", "json_emit_4", false);
    is_used_well(service, "cache_lookup_35_1", "json_emit_4", true);
}

/* Bytes of a picture; `name` says where it lies. */
static size_t picture(const char *name, const char *flags)
{
    char all[256];
    struct stat st;
    snprintf(all, sizeof all, "--screenshot='%s/%s' --window-size=1200,700 %s", dir, name, flags);
    run_chromium(dir, path_of("graph.svg"), all);
    assert_int_equal(stat(path_of(name), &st), 0);
    slurp(path_of(name));
    assert_memory_equal(text, "\x89PNG", 4);
    return (size_t)st.st_size;
}

static void dark_and_light_and_without_scripts_it_is_drawn(void **state)
{
    (void)state;
    skip_without_chromium();
    memkit_buf *b = graph_of(service);
    save("graph.svg", b, NULL, "");
    memkit_buf_free(b);
    size_t light = picture("light.png", "--blink-settings=preferredColorScheme=1");
    char *copy = malloc(light);
    assert_non_null(copy);
    memcpy(copy, text, light);
    size_t dark = picture("dark.png", "--blink-settings=preferredColorScheme=0");
    assert_true(light > 30000 && dark > 30000);
    assert_true(light != dark || memcmp(copy, text, light) != 0);
    size_t plain = picture("plain.png", "--blink-settings=scriptEnabled=false");
    assert_true(plain > 30000); /* no field and no button, but the graph */
    free(copy);
}

/* ---- speedscope ---- */

static void speedscope_s_graph_shows_our_names(void **state)
{
    (void)state;
    skip_without_chromium();
    char command[4096];
    const char *release = reader("build/readers/node_modules/speedscope/dist/release");
    if (access(release, R_OK) != 0) {
        print_message("speedscope is not installed: make deps-tools\n");
        skip();
    }
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
        cmocka_unit_test(dark_and_light_and_without_scripts_it_is_drawn),
        cmocka_unit_test(speedscope_s_graph_shows_our_names),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
