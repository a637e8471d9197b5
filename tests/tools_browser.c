/* tools_browser.c - report.html of a real comparison in a real browser, headless Chromium: it
 * raises no error, draws every curve, and on a wide screen, a phone's, in light and in dark nothing
 * is cut off, nothing overlaps, and all text has the contrast that it takes to be read.
 *
 * The browser measures by itself: a copy of the page gets a script that writes what it found to the
 * page's end, from where --dump-dom brings it here. The report itself has no script.
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../examples/service/compare_curves.h"
#include "sanitized.h"
#include "tools.h"
#include "tools_chromium.h"

#define POPULATIONS 2 /* with --id-bytes */
#define CONTRAST    4.5

static char dir[] = "/tmp/memkit-test-browser-XXXXXX";
static char text[8 << 20];

/* Finds, in the page as laid out: text of a chart that is out of it or over another; what is wider
 * than the page; the least contrast of text to its ground. */
static const char probe[] =
    "<script>\n"
    "function box(e) { return e.getBoundingClientRect(); }\n"
    "function over(a, b) { return a.left < b.right - 1 && b.left < a.right - 1 &&\n"
    "  a.top < b.bottom - 1 && b.top < a.bottom - 1; }\n"
    "function rgb(s) { return s.match(/[0-9.]+/g).map(Number); }\n"
    "function light(c) { c = c.slice(0, 3).map(v => { v /= 255;\n"
    "  return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });\n"
    "  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; }\n"
    "function ground(e) { for (; e; e = e.parentElement) {\n"
    "  const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; "
    "}\n"
    "  return [255, 255, 255]; }\n"
    "function contrast(a, b) { const l = [light(a), light(b)].sort((x, y) => y - x);\n"
    "  return (l[0] + 0.05) / (l[1] + 0.05); }\n"
    "const found = { cut: 0, overlaps: 0, charts: 0, curves: 0, contrast: 99, line: 99, font: 99 "
    "};\n"
    "for (const svg of document.querySelectorAll('svg.chart')) {\n"
    "  found.charts++; const s = box(svg), t = [...svg.querySelectorAll('text')];\n"
    "  t.forEach((a, i) => { const r = box(a);\n"
    "    if (r.left < s.left - 1 || r.right > s.right + 1 || r.top < s.top - 1 ||\n"
    "        r.bottom > s.bottom + 1) found.cut++;\n"
    "    found.font = Math.min(found.font, parseFloat(getComputedStyle(a).fontSize) *\n"
    "      s.width / svg.viewBox.baseVal.width);\n"
    "    t.slice(i + 1).forEach(b => { if (over(r, box(b))) found.overlaps++; }); });\n"
    "  for (const p of svg.querySelectorAll('path.curve')) { found.curves++;\n"
    "    if (p.getTotalLength() < 50) found.cut++;\n"
    "    found.line = Math.min(found.line, contrast(rgb(getComputedStyle(p).stroke), "
    "ground(svg))); }\n"
    "}\n"
    "for (const e of document.querySelectorAll('h1, h2, h3, p, li, th, td, strong, summary, "
    "text')) {\n"
    "  const s = getComputedStyle(e), c = e.namespaceURI.includes('svg') ? s.fill : s.color;\n"
    "  found.contrast = Math.min(found.contrast, contrast(rgb(c), ground(e))); }\n"
    "const page = document.body;\n"
    "const out = document.createElement('output');\n"
    "out.textContent = `PROBE charts=${found.charts} curves=${found.curves} cut=${found.cut} ` +\n"
    "  `overlaps=${found.overlaps} wider=${Math.max(0, page.scrollWidth - page.clientWidth)} ` +\n"
    "  `width=${page.clientWidth} contrast=${found.contrast.toFixed(2)} ` +\n"
    "  `line=${found.line.toFixed(2)} font=${found.font.toFixed(1)} ` +\n"
    "  `dark=${matchMedia('(prefers-color-scheme: dark)').matches} END`;\n"
    "document.body.append(out);\n"
    "</script>\n";

static const char *slurp(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("no %s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

/* A comparison of the real services, short: what is looked at is the page. */
static int set_up(void **state)
{
    (void)state;
    const char *b = getenv("MEMKIT_BUILD");
    char command[8192];
    if (b == NULL || mkdtemp(dir) == NULL)
        return -1;
    /* before breaks down in the second population: WORK_MS=0 would let it get away. */
    snprintf(command, sizeof command,
             "cd '%s' && '%s/service-compare' --before '%s/service-before' --after "
             "'%s/service-after' --prof '%s/libmemkit-prof.so.0' --out out --duration 2.4 "
             "--rate 2000 --id-bytes 1024 --ids 100000 --connections 64 --saturation-seconds 0.5 "
             "--timing-seconds 1 >said 2>&1",
             dir, b, b, b, b);
    int rc = system(command);
    if (rc != 0 && !SANITIZED)
        print_error("%s: %d: %s\n", command, rc, slurp("said"));
    return rc == 0 || SANITIZED ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    const char *keep = getenv("MEMKIT_KEEP"); /* pictures, to be looked at */
    snprintf(command, sizeof command, "%s '%s'", keep != NULL ? "echo kept:" : "rm -rf", dir);
    return system(command) == 0 ? 0 : -1;
}

/* Runs Chromium on a file of `dir`. What it dumps is in the file `dom`, what it says in `err`. */
static void browse(const char *page, const char *flags)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, page);
    run_chromium(dir, path, flags);
}

/* The report with the script, its body as wide as that (the browser's own least width is 500). */
static void write_probe(int width)
{
    char path[256];
    snprintf(path, sizeof path, "%s/probe.html", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    slurp("out/report.html");
    char *end = strstr(text, "</body>");
    assert_non_null(end);
    fwrite(text, 1, (size_t)(end - text), f);
    fprintf(f, "<style>body { width: %dpx; }</style>\n%s%s", width, probe, end);
    assert_int_equal(fclose(f), 0);
}

static double found(const char *name)
{
    const char *at = strstr(text, "<output>PROBE charts=");
    if (at == NULL)
        fail_msg("the script did not run");
    at = strstr(at, name);
    assert_non_null(at);
    return atof(at + strlen(name));
}

static void is_laid_out_well(int width, bool dark)
{
    write_probe(width);
    browse("probe.html", dark ? "--dump-dom --blink-settings=preferredColorScheme=0"
                              : "--dump-dom --blink-settings=preferredColorScheme=1");
    slurp("dom");
    const char *said = strstr(text, "<output>PROBE charts=");
    assert_non_null(said);
    assert_non_null(strstr(said, dark ? "dark=true" : "dark=false"));
    print_message("%.*s\n", (int)strcspn(said + 8, "<"), said + 8);
    assert_int_equal((int)found(" width="), width);
    assert_int_equal((int)found("charts="), POPULATIONS * CURVE_COUNT);
    assert_int_equal((int)found(" curves="), 2 * POPULATIONS * CURVE_COUNT);
    assert_int_equal((int)found(" cut="), 0);
    assert_int_equal((int)found(" overlaps="), 0);
    assert_int_equal((int)found(" wider="), 0);
    assert_true(found(" contrast=") >= CONTRAST);
    assert_true(found(" line=") >= CONTRAST);
    assert_true(found(" font=") >= 10); /* pixels: also on a phone */
}

static void on_a_wide_screen(void **state)
{
    (void)state;
    need_tool("chromium");
    is_laid_out_well(1200, false);
    is_laid_out_well(1200, true);
}

static void on_a_phone(void **state)
{
    (void)state;
    need_tool("chromium");
    is_laid_out_well(400, false);
    is_laid_out_well(320, true);
}

static void no_error_is_raised(void **state)
{
    (void)state;
    need_tool("chromium");
    char path[256];
    snprintf(path, sizeof path, "%s/wrong.html", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("<p>hello</p><script>console.error('it is wrong')</script><img src='none.png'>", f);
    assert_int_equal(fclose(f), 0);
    browse("wrong.html", "--dump-dom"); /* an error would be seen */
    assert_non_null(strstr(slurp("err"), ":CONSOLE"));
    browse("out/report.html", "--dump-dom");
    assert_null(strstr(slurp("err"), ":CONSOLE"));
    slurp("dom");
    unsigned charts = 0;
    for (const char *at = text; (at = strstr(at, "<svg class=\"chart\"")) != NULL; at++)
        charts++;
    assert_int_equal(charts, POPULATIONS * CURVE_COUNT);
}

/* Bytes of a picture of the report, which starts as a PNG does. */
static size_t picture(const char *name, const char *scheme)
{
    char flags[256];
    snprintf(
        flags, sizeof flags,
        "--screenshot='%s/%s' --window-size=1280,3000 --blink-settings=preferredColorScheme=%s",
        dir, name, scheme);
    browse("out/report.html", flags);
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(stat(path, &st), 0);
    assert_memory_equal(slurp(name), "\x89PNG", 4);
    return (size_t)st.st_size;
}

static void light_and_dark_look_different(void **state)
{
    (void)state;
    need_tool("chromium");
    size_t light = picture("light.png", "1");
    char *copy = malloc(light);
    assert_non_null(copy);
    memcpy(copy, text, light);
    size_t dark = picture("dark.png", "0");
    assert_true(light > 50000 && dark > 50000); /* not a blank page */
    assert_true(light != dark || memcmp(copy, text, light) != 0);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_error_is_raised),
        cmocka_unit_test(on_a_wide_screen),
        cmocka_unit_test(on_a_phone),
        cmocka_unit_test(light_and_dark_look_different),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
