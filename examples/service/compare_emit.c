/* compare_emit.c - see compare_emit.h. */
#include "compare_emit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 100 /* of text on a terminal */

static void fill_row(cmp_table *t, va_list ap)
{
    for (size_t c = 0; c < t->cols; c++) {
        snprintf(t->cell[t->rows][c], CMP_CELL, "%s", va_arg(ap, const char *));
        t->tone[t->rows][c] = TONE_NONE;
    }
    t->rows++;
}

void cmp_table_start(cmp_table *t, size_t cols, ...)
{
    va_list ap;
    t->cols = cols;
    t->rows = 0;
    va_start(ap, cols);
    fill_row(t, ap);
    va_end(ap);
}

void cmp_table_row(cmp_table *t, ...)
{
    va_list ap;
    if (t->rows == CMP_ROWS)
        return;
    va_start(ap, t);
    fill_row(t, ap);
    va_end(ap);
}

void cmp_table_tone(cmp_table *t, size_t col, cmp_tone tone)
{
    t->tone[t->rows - 1][col] = tone;
}

static void escape_markdown(FILE *f, const char *s)
{
    for (; *s != '\0'; s++) {
        if (strchr("|*_`<", *s) != NULL)
            fputc('\\', f);
        fputc(*s, f);
    }
}

static void table_markdown(FILE *f, const cmp_table *t)
{
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->cols; c++) {
            fputs("| ", f);
            escape_markdown(f, t->cell[r][c]);
            fputc(' ', f);
        }
        fputs("|\n", f);
        for (size_t c = 0; r == 0 && c < t->cols; c++)
            fputs(c == 0 ? "|---" : "|---:", f);
        if (r == 0)
            fputs("|\n", f);
    }
    fputc('\n', f);
}

static void table_text(const cmp_emit *e, const cmp_table *t)
{
    int width[CMP_COLS] = {0};
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->cols; c++) {
            int n = (int)strlen(t->cell[r][c]);
            width[c] = n > width[c] ? n : width[c];
        }
    }
    for (size_t r = 0; r < t->rows; r++) {
        size_t last = t->cols; /* no blanks at the end of a line */
        while (last > 1 && t->cell[r][last - 1][0] == '\0')
            last--;
        fprintf(e->f, "  %-*s", width[0], t->cell[r][0]);
        for (size_t c = 1; c < last; c++) {
            const char *on = "";
            if (e->color)
                on = r == 0                       ? "\033[1m"
                     : t->tone[r][c] == TONE_GOOD ? "\033[32m"
                     : t->tone[r][c] == TONE_BAD  ? "\033[31m"
                                                  : "";
            fprintf(e->f, "  %s%*s%s", on, width[c], t->cell[r][c], *on != '\0' ? "\033[0m" : "");
        }
        fputc('\n', e->f);
    }
    fputc('\n', e->f);
}

/* Bytes of the UTF-8 character at s, 0 where there is none that XML allows. */
static size_t character(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (p[0] > 0xf4 || (p[0] >= 0x80 && p[0] < 0xc2) || p[0] == 0x7f ||
        (p[0] < 0x20 && p[0] != '\n' && p[0] != '\t'))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool wrong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                 (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f) ||
                 (p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe);
    return wrong ? 0 : n;
}

void cmp_html_text(FILE *f, const char *s)
{
    while (*s != '\0') {
        size_t n = character(s);
        if (n == 0)
            fputc('?', f);
        else if (*s == '&' || *s == '<' || *s == '>' || *s == '"' || *s == '\'')
            fprintf(f, "&#%d;", *s); /* the same in text and in attributes */
        else
            fwrite(s, 1, n, f);
        s += n > 0 ? n : 1;
    }
}

static void table_html(FILE *f, const cmp_table *t)
{
    static const char *const tone[] = {"", " class=\"good\"", " class=\"bad\""};
    fputs("<div class=\"wide\"><table>\n", f);
    for (size_t r = 0; r < t->rows; r++) {
        fputs(r == 0 ? "<thead><tr>" : "<tr>", f);
        for (size_t c = 0; c < t->cols; c++) {
            bool head = r == 0 || c == 0;
            fprintf(f, "<%s%s%s>", head ? "th" : "td",
                    r == 0   ? " scope=\"col\""
                    : c == 0 ? " scope=\"row\""
                             : "",
                    tone[t->tone[r][c]]);
            cmp_html_text(f, t->cell[r][c]);
            fputs(head ? "</th>" : "</td>", f);
        }
        fputs(r == 0 ? "</tr></thead>\n<tbody>\n" : "</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

void cmp_emit_list_end(cmp_emit *e)
{
    if (e->form == FORM_HTML && e->in_list)
        fputs("</ul>\n", e->f);
    else if (e->form != FORM_HTML)
        fputc('\n', e->f);
    e->in_list = false;
}

void cmp_emit_end(cmp_emit *e)
{
    if (e->in_list)
        cmp_emit_list_end(e);
    if (e->in_section)
        fputs("</section>\n", e->f);
    e->in_section = false;
}

void cmp_emit_table(cmp_emit *e, const cmp_table *t)
{
    switch (e->form) {
    case FORM_TEXT:
        table_text(e, t);
        break;
    case FORM_MARKDOWN:
        table_markdown(e->f, t);
        break;
    case FORM_HTML:
        table_html(e->f, t);
        break;
    }
}

void cmp_emit_title(cmp_emit *e, const char *text)
{
    if (e->form == FORM_MARKDOWN)
        fprintf(e->f, "# %s\n\n", text);
    if (e->form != FORM_HTML)
        return;
    fputs("<h1>", e->f);
    cmp_html_text(e->f, text);
    fputs("</h1>\n", e->f);
}

void cmp_emit_heading(cmp_emit *e, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    switch (e->form) {
    case FORM_TEXT:
        fprintf(e->f, "%s%s%s\n", e->color ? "\033[1m" : "", text, e->color ? "\033[0m" : "");
        break;
    case FORM_MARKDOWN:
        fprintf(e->f, "## %s\n\n", text);
        break;
    case FORM_HTML:
        cmp_emit_end(e);
        fputs("<section>\n<h2>", e->f);
        cmp_html_text(e->f, text);
        fputs("</h2>\n", e->f);
        e->in_section = true;
        break;
    }
}

/* Breaks the text at spaces; what follows the first line is indented by `indent`. */
static void wrap(FILE *f, const char *text, int at, int indent)
{
    while (*text != '\0') {
        int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", n, text);
        at += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

void cmp_emit_strong(cmp_emit *e, const char *text)
{
    switch (e->form) {
    case FORM_TEXT:
        wrap(e->f, text, 0, 0);
        fputc('\n', e->f);
        break;
    case FORM_MARKDOWN:
        fprintf(e->f, "**%s**\n\n", text);
        break;
    case FORM_HTML:
        fputs("<p class=\"bad\"><strong>", e->f);
        cmp_html_text(e->f, text);
        fputs("</strong></p>\n", e->f);
        break;
    }
}

static void item_html(cmp_emit *e, const char *mark, const char *text)
{
    fputs(e->in_list ? "" : "<ul>\n", e->f);
    e->in_list = true;
    fputs(*mark == '!' ? "<li class=\"bad\">" : "<li>", e->f);
    if (*mark != '\0')
        fprintf(e->f, "<strong>%s</strong> ", mark);
    cmp_html_text(e->f, text);
    fputs("</li>\n", e->f);
}

void cmp_emit_item(cmp_emit *e, const char *mark, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (e->form == FORM_MARKDOWN) {
        fprintf(e->f, "- %s%s%s\n", mark, *mark != '\0' ? " " : "", text);
    } else if (e->form == FORM_HTML) {
        item_html(e, mark, text);
    } else {
        bool bad = e->color && *mark == '!';
        fprintf(e->f, "  %s%s%s ", bad ? "\033[31m" : "", *mark != '\0' ? mark : "-",
                bad ? "\033[0m" : "");
        wrap(e->f, text, 4, 4);
    }
}

char *cmp_number(char *buf, size_t cap, double v, int decimals)
{
    char plain[64];
    if (!isfinite(v)) {
        snprintf(buf, cap, "n/a");
        return buf;
    }
    snprintf(plain, sizeof plain, "%.*f", decimals, v);
    size_t whole = strcspn(plain, "."), out = 0;
    size_t sign = plain[0] == '-' || plain[0] == '+';
    for (size_t i = 0; plain[i] != '\0' && out + 2 < cap; i++) {
        if (i > sign && i < whole && (whole - i) % 3 == 0)
            buf[out++] = ',';
        buf[out++] = plain[i];
    }
    buf[out] = '\0';
    return buf;
}

static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

int cmp_write_file(const char *dir, const char *name, cmp_write_fn write_fn, const void *arg)
{
    char path[PATH_MAX], temp[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    int m = snprintf(temp, sizeof temp, "%s/.%s.%d", dir, name, (int)getpid());
    if (n < 0 || m < 0 || (size_t)n >= sizeof path || (size_t)m >= sizeof temp) {
        errno = ENAMETOOLONG;
        return -1;
    }
    FILE *f = fopen(temp, "we");
    if (f == NULL)
        return -1;
    int rc = write_fn(f, arg);
    if (rc == 0 && (fflush(f) != 0 || ferror(f) != 0 || fsync(fileno(f)) != 0))
        rc = -1;
    int err = errno;
    if (fclose(f) != 0 && rc == 0) {
        err = errno;
        rc = -1;
    }
    if (rc == 0 && (rename(temp, path) != 0 || sync_dir(dir) != 0)) {
        err = errno;
        rc = -1;
    }
    if (rc != 0)
        unlink(temp);
    errno = err;
    return rc;
}
