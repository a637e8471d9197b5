/* compare_emit.h - one way to write a report, three forms of it: for a terminal, Markdown, HTML.
 *
 *     cmp_emit e = {.f = stdout, .color = isatty(1)};
 *     cmp_emit_heading(&e, "Uniform");
 *     cmp_table t;
 *     cmp_table_start(&t, 3, "", "before", "after");
 *     cmp_table_row(&t, "RSS, MiB", "989.0", "12.1");
 *     cmp_emit_table(&e, &t);
 *     cmp_emit_end(&e);
 */
#ifndef COMPARE_EMIT_H
#define COMPARE_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CMP_COLS 6
#define CMP_ROWS 24
#define CMP_CELL 56

typedef enum { FORM_TEXT = 0, FORM_MARKDOWN, FORM_HTML } cmp_form;

typedef struct {
    FILE *f;
    cmp_form form;
    bool color;               /* terminal only */
    bool in_section, in_list; /* HTML: what is open */
    bool failed;              /* what a function below could not write, for want of memory */
} cmp_emit;

typedef enum { TONE_NONE = 0, TONE_GOOD, TONE_BAD } cmp_tone;

/* The first column is text, to the left; the others are figures, to the right. */
typedef struct {
    size_t cols, rows;
    char cell[CMP_ROWS][CMP_COLS][CMP_CELL]; /* row 0: the headings */
    cmp_tone tone[CMP_ROWS][CMP_COLS];
} cmp_table;

/* Both take as many strings as there are columns; what does not fit is cut. */
void cmp_table_start(cmp_table *t, size_t cols, ...);
void cmp_table_row(cmp_table *t, ...);
/* Colours a cell of the last row. */
void cmp_table_tone(cmp_table *t, size_t col, cmp_tone tone);

/* The report's own heading, which a terminal does not need. */
void cmp_emit_title(cmp_emit *e, const char *text);
void cmp_emit_heading(cmp_emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A paragraph that must not be overlooked. */
void cmp_emit_strong(cmp_emit *e, const char *text);
void cmp_emit_item(cmp_emit *e, const char *mark, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends a list of items. */
void cmp_emit_list_end(cmp_emit *e);
void cmp_emit_table(cmp_emit *e, const cmp_table *t);
/* Ends what is open. */
void cmp_emit_end(cmp_emit *e);

/* Text as HTML and XML want it: markup escaped; what is no UTF-8, or a control character, becomes a
 * question mark. */
void cmp_html_text(FILE *f, const char *s);

/* 1234567.891 as "1,234,567.9"; NAN as "n/a". Returns buf. */
char *cmp_number(char *buf, size_t cap, double v, int decimals);

/* Writes the file `name` in `dir` through `write_fn`, under another name first, which is synced and
 * then renamed: a reader sees the old file or the new one, whole. write_fn returns 0, or -1 with
 * errno. 0, or -1 with errno and nothing changed. */
typedef int (*cmp_write_fn)(FILE *f, const void *arg);
int cmp_write_file(const char *dir, const char *name, cmp_write_fn write_fn, const void *arg);

#endif
