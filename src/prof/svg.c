/* svg.c - a flame graph that needs nothing but a browser: root at the bottom, leaves on top.
 *
 *     <svg> style, title, facts
 *       <g id="frames"> a <g> for each depth, which holds what its frames share
 *         <rect class="colour" x width data-v="start value"><title>name, figures</title></rect>
 *         <text>name</text>                            where the frame is wide enough for it
 *     script
 *
 * Coordinates are tenths of a pixel, integers until they are printed. A frame narrower than one is
 * left out, and so is all above it, which is no wider.
 */
#include <errno.h>
#include <string.h>

#include "prof/flame.h"
#include "prof/out.h"
#include "prof/svg_page.h"

#define UNITS  ((uint64_t)MEMKIT__SVG_WIDTH * 10)
#define HUES   12
#define SHADES 4

typedef struct {
    const memkit__profile *p;
    uint32_t type, pair;
    memkit__stacks k;
    memkit__flame f;
    uint32_t *first, *next; /* nodes of each depth, as lists */
    uint32_t too_narrow;
    memkit__out o;
} svg;

/* ---- text ---- */

/* Escaped; what is no character that XML may hold becomes U+FFFD. At most `letters` characters. */
static void put_text(memkit__out *o, const char *text, size_t letters)
{
    size_t n = strlen(text);
    for (size_t step; n > 0 && letters > 0; text += step, n -= step, letters--) {
        step = memkit__utf8(text, n);
        unsigned char c = (unsigned char)*text;
        bool non_character = step == 3 && memcmp(text, "\xef\xbf\xbe", 3) >= 0 &&
                             memcmp(text, "\xef\xbf\xbf", 3) <= 0;
        if (step == 0 || c < ' ' || c == 0x7f || non_character) {
            memkit__out_str(o, "\xef\xbf\xbd");
            step = step == 0 ? 1 : step;
        } else if (c == '<') {
            memkit__out_str(o, "&lt;");
        } else if (c == '>') {
            memkit__out_str(o, "&gt;");
        } else if (c == '&') {
            memkit__out_str(o, "&amp;");
        } else if (c == '"') {
            memkit__out_str(o, "&quot;");
        } else {
            memkit__out_bytes(o, text, step);
        }
    }
}

static size_t letters_of(const char *text)
{
    size_t n = strlen(text), letters = 0;
    for (size_t step; n > 0; text += step, n -= step, letters++) {
        step = memkit__utf8(text, n);
        step = step == 0 ? 1 : step;
    }
    return letters;
}

static const char *name_of(const svg *g, const memkit__flame_node *node)
{
    return node->label == MEMKIT__NONE ? "all" : g->k.labels[node->label].name;
}

/* ---- colour: the module's hue, the function's shade, the same in every run ---- */

static uint32_t hash_of(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text != '\0'; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h ^ (h >> 15);
}

static void put_class(svg *g, const memkit__flame_node *node)
{
    const char *module = node->label != MEMKIT__NONE ? g->k.labels[node->label].module : "";
    bool grey = *module == '\0' || *module == '['; /* no file: rows of ours, threads, the vdso */
    char hue = grey ? 'z' : (char)('a' + hash_of(module) % HUES);
    memkit__out_fmt(&g->o, "%c%u", hue, hash_of(name_of(g, node)) % SHADES);
}

/* Light enough for dark text, dark enough for light text: a contrast of 4.5 in either. */
static void put_colours(memkit__out *o, unsigned saturation, unsigned lightness, unsigned step)
{
    for (unsigned s = 0; s < SHADES; s++) {
        for (unsigned h = 0; h < HUES; h++)
            memkit__out_fmt(o, ".%c%u{fill:hsl(%u,%u%%,%u%%)}", 'a' + h, s,
                            (h * 360 / HUES + s * 7) % 360, saturation, lightness + s * step);
        memkit__out_fmt(o, ".z%u{fill:hsl(220,8%%,%u%%)}\n", s, lightness + s * step);
    }
}

/* ---- head ---- */

static void put_facts(svg *g)
{
    const memkit__profile *p = g->p;
    const memkit__value_type *type = &p->types[g->type];
    const memkit__flame_node *root = &g->f.nodes[0];
    memkit__out *o = &g->o;
    memkit__out_str(o, "<text id=\"facts\" class=\"soft\" x=\"8\" y=\"46\">");
    put_text(o, type->type, SIZE_MAX);
    memkit__out_fmt(o, ": %s", memkit__short_value(root->value, type->unit).s);
    if (g->pair != MEMKIT__NONE)
        memkit__out_fmt(o, ", %s %s", memkit__short_value(root->pair, p->types[g->pair].unit).s,
                        p->types[g->pair].type);
    memkit__out_str(o, "; ");
    memkit__out_rate(o, p);
    if (p->time_ns != 0)
        memkit__out_fmt(o, "; %s", memkit__short_time(p->time_ns).s);
    if (p->duration_ns != 0)
        memkit__out_fmt(o, ", %s long", memkit__short_value(p->duration_ns, "nanoseconds").s);
    memkit__out_str(o, "</text>\n");
}

static void put_head(svg *g, const char *title, unsigned height)
{
    memkit__out *o = &g->o;
    memkit__out_fmt(o,
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                    "<svg id=\"memkit-flame\" xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
                    "height=\"%u\" viewBox=\"0 0 %d %u\">\n<title>",
                    MEMKIT__SVG_WIDTH, height, MEMKIT__SVG_WIDTH, height);
    put_text(o, title, SIZE_MAX);
    memkit__out_str(o, "</title>\n<style>\n");
    put_colours(o, 68, 74, 3);
    memkit__out_str(o, "@media (prefers-color-scheme:dark){\n");
    put_colours(o, 45, 20, 3);
    memkit__out_str(o, "}\n");
    memkit__out_str(o, memkit__svg_style);
    memkit__out_str(o, "</style>\n<text id=\"title\" x=\"8\" y=\"24\">");
    put_text(o, title, SIZE_MAX);
    memkit__out_str(o, "</text>\n");
    put_facts(g);
    memkit__out_fmt(o,
                    "<foreignObject id=\"tools\" display=\"none\" x=\"8\" y=\"54\" width=\"%d\" "
                    "height=\"30\"><div xmlns=\"http://www.w3.org/1999/xhtml\">"
                    "<button id=\"reset\" disabled=\"disabled\">Reset zoom</button>"
                    "<input id=\"search\" type=\"search\" aria-label=\"Search\" "
                    "placeholder=\"Search: regular expression\"/>"
                    "<output id=\"matched\"></output></div></foreignObject>\n"
                    "<text id=\"info\" x=\"8\" y=\"102\"></text>\n",
                    MEMKIT__SVG_WIDTH - 16);
}

/* ---- frames ---- */

static void put_share(memkit__out *o, int64_t part, int64_t total)
{
    uint64_t share = memkit__share(part, total, 10000);
    memkit__out_fmt(o, "%llu.%02llu %%", (unsigned long long)share / 100,
                    (unsigned long long)share % 100);
}

static void put_tenths(memkit__out *o, const char *before, uint64_t tenths)
{
    memkit__out_fmt(o, tenths % 10 == 0 ? "%s%llu\"" : "%s%llu.%llu\"", before,
                    (unsigned long long)tenths / 10, (unsigned long long)tenths % 10);
}

static void put_figures(svg *g, const memkit__flame_node *node)
{
    const memkit__profile *p = g->p;
    memkit__out *o = &g->o;
    const char *module = node->label != MEMKIT__NONE ? g->k.labels[node->label].module : "";
    memkit__out_str(o, memkit__short_value(node->value, p->types[g->type].unit).s);
    if (g->pair != MEMKIT__NONE) {
        const memkit__value_type *pair = &p->types[g->pair];
        memkit__out_fmt(o, ", %s%s", memkit__short_value(node->pair, pair->unit).s,
                        strcmp(pair->type, "samples") == 0 ? " samples"
                        : strcmp(pair->unit, "count") == 0 ? " objects"
                                                           : "");
    }
    if (node->depth > 0) {
        memkit__out_str(o, ", ");
        put_share(o, node->value, g->f.nodes[0].value);
        memkit__out_str(o, " of all");
    }
    if (node->depth > 1) {
        memkit__out_str(o, ", ");
        put_share(o, node->value, g->f.nodes[node->parent].value);
        memkit__out_str(o, " of its caller");
    }
    if (*module != '\0') {
        memkit__out_str(o, ", ");
        put_text(o, module, SIZE_MAX);
    }
}

static void put_label(svg *g, const char *name, uint64_t left, uint64_t width)
{
    uint64_t fits = width > 60 ? (width - 60) * 10 / MEMKIT__SVG_CHAR : 0;
    if (fits < 3)
        return;
    put_tenths(&g->o, "<text y=\"12\" x=\"", left + 30);
    memkit__out_str(&g->o, ">");
    if (letters_of(name) <= fits) {
        put_text(&g->o, name, SIZE_MAX);
    } else {
        put_text(&g->o, name, fits - 1);
        memkit__out_str(&g->o, "\xe2\x80\xa6");
    }
    memkit__out_str(&g->o, "</text>");
}

/* False where it is too narrow. */
static bool edges(const svg *g, const memkit__flame_node *node, uint64_t *left, uint64_t *width)
{
    *left = memkit__flame_edge(&g->f, node->start, UNITS);
    *width = memkit__flame_edge(&g->f, node->start + node->value, UNITS) - *left;
    return *width > 0 || node->depth == 0;
}

static void put_frame(svg *g, const memkit__flame_node *node)
{
    memkit__out *o = &g->o;
    uint64_t left, width;
    if (!edges(g, node, &left, &width)) {
        g->too_narrow++;
        return;
    }
    memkit__out_str(o, "<rect class=\"");
    put_class(g, node);
    put_tenths(o, "\" x=\"", left);
    put_tenths(o, " width=\"", width);
    memkit__out_fmt(o, " height=\"%d\" data-v=\"%lld %lld\"><title>", MEMKIT__SVG_ROW - 1,
                    (long long)node->start, (long long)node->value);
    put_text(o, name_of(g, node), SIZE_MAX);
    memkit__out_str(o, "\n");
    put_figures(g, node);
    memkit__out_str(o, "</title></rect>");
    put_label(g, name_of(g, node), left, width);
    memkit__out_str(o, "\n");
}

/* Rows that have a frame wide enough: the others would be empty paper. */
static uint32_t visible_rows(const svg *g)
{
    uint32_t rows = 1;
    uint64_t left, width;
    for (uint32_t i = 0; i < g->f.n_nodes; i++)
        if (g->f.nodes[i].depth >= rows && edges(g, &g->f.nodes[i], &left, &width))
            rows = g->f.nodes[i].depth + 1;
    return rows;
}

static void put_frames(svg *g, uint32_t rows)
{
    memkit__out_str(&g->o, "<g id=\"frames\">\n");
    for (uint32_t d = 0; d < g->f.depth; d++) {
        if (d < rows)
            memkit__out_fmt(&g->o, "<g transform=\"translate(0,%u)\">\n",
                            MEMKIT__SVG_TOP + (rows - 1 - d) * MEMKIT__SVG_ROW);
        for (uint32_t i = g->first[d]; i != MEMKIT__NONE; i = g->next[i])
            put_frame(g, &g->f.nodes[i]);
        if (d < rows)
            memkit__out_str(&g->o, "</g>\n");
    }
    memkit__out_str(&g->o, "</g>\n");
}

static int list_by_depth(svg *g, memkit__scratch *s)
{
    g->first = memkit__scratch_array(s, g->f.depth, sizeof *g->first);
    g->next = memkit__scratch_array(s, g->f.n_nodes, sizeof *g->next);
    if (g->first == NULL || g->next == NULL)
        return -1;
    for (uint32_t d = 0; d < g->f.depth; d++)
        g->first[d] = MEMKIT__NONE;
    for (uint32_t i = g->f.n_nodes; i > 0;
         i--) { /* backwards, so that the lists go left to right */
        uint32_t depth = g->f.nodes[i - 1].depth;
        g->next[i - 1] = g->first[depth];
        g->first[depth] = i - 1;
    }
    return 0;
}

/* ---- all of it ---- */

static void put_notes(svg *g, unsigned height)
{
    memkit__out *o = &g->o;
    if (g->f.nodes[0].value == 0) {
        memkit__out_fmt(o, "<text class=\"soft\" x=\"8\" y=\"%u\">Nothing was counted.",
                        height - 8);
    } else {
        memkit__out_fmt(o, "<text class=\"soft\" x=\"8\" y=\"%u\">", height - 8);
        memkit__out_fmt(o, "%u frames, %u narrower than 0.1 pixel left out", g->f.n_nodes - 1,
                        g->too_narrow);
    }
    if (g->f.left_out > 0)
        memkit__out_fmt(o, "; %u stacks of less than nothing left out", g->f.left_out);
    memkit__out_str(o, "</text>\n");
}

static int write_graph(const memkit__profile *p, uint32_t type, const char *title, memkit_buf *out,
                       memkit__scratch *s)
{
    svg g = {.p = p, .type = type, .o = memkit__out_begin(out)};
    if (memkit__stacks_make(&g.k, p, type, MEMKIT__BY_MODULE, s) != 0)
        return -1;
    g.pair = memkit__type_pair(p, type);
    if (memkit__flame_make(&g.f, &g.k, g.pair, s) != 0 || list_by_depth(&g, s) != 0)
        return -1;
    uint32_t rows = visible_rows(&g);
    unsigned height = MEMKIT__SVG_TOP + rows * MEMKIT__SVG_ROW + MEMKIT__SVG_BELOW;
    put_head(&g, title != NULL ? title : "Flame graph", height);
    put_frames(&g, rows);
    put_notes(&g, height);
    memkit__out_str(&g.o, "<script><![CDATA[\n");
    for (const char *const *part = memkit__svg_script; *part != NULL; part++)
        memkit__out_str(&g.o, *part);
    memkit__out_str(&g.o, "]]></script>\n</svg>\n");
    return memkit__out_end(&g.o);
}

int memkit__svg_write(const memkit__profile *p, uint32_t type, const char *title, memkit_buf *out)
{
    memkit__scratch s = {0};
    int result = write_graph(p, type, title, out, &s);
    int reason = errno;
    memkit__scratch_free(&s);
    errno = reason;
    return result;
}
