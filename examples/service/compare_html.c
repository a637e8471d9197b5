/* compare_html.c - report.html: the report's text and tables, and the curves, in one file that asks
 * for no other: no script, no font, no picture from elsewhere. It is written so that an XML parser
 * reads it too.
 */
#include <errno.h>

#include "compare.h"
#include "compare_report.h"

/* Colours have a contrast of 4.5 or more to the ground they stand on, and the lines also differ by
 * their dashes. */
static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
    "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
    "<title>memkit: the service before and after</title>\n"
    "<style>\n"
    ":root { color-scheme: light dark; --ground: #ffffff; --raised: #f5f6f8; --ink: #1b1f24;\n"
    "  --muted: #4f5967; --grid: #d8dce2; --axis: #6b7583; --before: #b8400e; --after: #1d4fc4;\n"
    "  --good: #116b32; --bad: #ad1f1f; }\n"
    "@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --raised: #1d2128;\n"
    "  --ink: #e8eaed; --muted: #a9b2be; --grid: #363c46; --axis: #828c9a; --before: #ff9d57;\n"
    "  --after: #7fb2ff; --good: #62d28a; --bad: #ff8b80; } }\n"
    "* { box-sizing: border-box; }\n"
    "body { margin: 0 auto; max-width: 80rem; padding: .75rem; background: var(--ground);\n"
    "  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }\n"
    "h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }\n"
    "h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.5rem 0 .75rem; padding-top: .75rem;\n"
    "  border-top: 1px solid var(--grid); }\n"
    "h3 { font-size: 1rem; margin: 0; }\n"
    "ul { padding-left: 1.2rem; max-width: 60rem; }\n"
    ".wide { overflow-x: auto; }\n"
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }\n"
    "th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--grid);\n"
    "  white-space: nowrap; }\n"
    "th:first-child { text-align: left; padding-left: 0; white-space: normal; }\n"
    "thead th { color: var(--muted); }\n"
    "tbody th { font-weight: normal; }\n"
    ".good { color: var(--good); } .bad, .finding { color: var(--bad); }\n"
    ".curves { display: grid; gap: 1rem; margin-top: 1rem;\n"
    "  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }\n"
    "figure { margin: 0; padding: .6rem; background: var(--raised); border-radius: .4rem;\n"
    "  min-width: 0; display: flex; flex-direction: column; }\n"
    "figcaption { flex: 1; }\n"
    ".legend, .finding { margin: .15rem 0; font-size: .85rem; }\n"
    ".legend span { margin-right: 1rem; white-space: nowrap; }\n"
    ".key { width: 30px; height: 8px; vertical-align: middle; }\n"
    ".chart { display: block; width: 100%; height: auto; margin-top: .25rem; }\n"
    ".chart text { font-size: 12.5px; fill: var(--muted); }\n"
    ".chart .y, .chart .end { text-anchor: end; } .chart .x { text-anchor: middle; }\n"
    ".grid { stroke: var(--grid); } .axis { stroke: var(--axis); }\n"
    ".curve, .stroke { fill: none; stroke-width: 2; stroke-linejoin: round; }\n"
    ".before { stroke: var(--before); } .after { stroke: var(--after); }\n"
    "path.before { stroke-dasharray: 5 3; }\n"
    ".mark { stroke-width: 2; fill: var(--raised); } .mark.after { fill: var(--after); }\n"
    "@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding: .2rem .3rem; } }\n"
    "details { margin-top: .25rem; } summary { cursor: pointer; font-size: .85rem; }\n"
    "details .wide { max-height: 20rem; overflow-y: auto; }\n"
    "</style>\n</head>\n<body>\n<main>\n";

static const char intro[] =
    "<p>The same service as it was found and mended with memkit, one after the other under the "
    "same "
    "load. In every curve <em>before</em> is dashed and <em>after</em> is solid. How all of it was "
    "measured is said under Notes.</p>\n";

int cmp_write_html(FILE *f, const void *report)
{
    cmp_emit e = {.f = f, .form = FORM_HTML};
    fputs(head, f);
    cmp_emit_title(&e, "memkit: the service before and after");
    fputs(intro, f);
    cmp_report_emit(&e, report);
    fputs("</main>\n</body>\n</html>\n", f);
    if (e.failed)
        errno = ENOMEM;
    return e.failed ? -1 : 0;
}
