/* compare_emit.h - one way to write a report, two forms of it: for a terminal and as Markdown.
 *
 *     cmp_emit e = {.f = stdout, .color = isatty(1)};
 *     cmp_emit_heading(&e, "Uniform");
 *     cmp_table t;
 *     cmp_table_start(&t, 3, "", "before", "after");
 *     cmp_table_row(&t, "RSS, MiB", "989.0", "12.1");
 *     cmp_emit_table(&e, &t);
 */
#ifndef COMPARE_EMIT_H
#define COMPARE_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CMP_COLS 6
#define CMP_ROWS 24
#define CMP_CELL 56

typedef struct {
    FILE *f;
    bool markdown;
    bool color; /* terminal only */
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

void cmp_emit_heading(cmp_emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cmp_emit_para(cmp_emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cmp_emit_item(cmp_emit *e, const char *mark, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void cmp_emit_table(cmp_emit *e, const cmp_table *t);

/* 1234567.891 as "1,234,567.9"; NAN as "n/a". Returns buf. */
char *cmp_number(char *buf, size_t cap, double v, int decimals);

/* Writes the file `name` in `dir` through `write_fn`, under another name first, which is synced and
 * then renamed: a reader sees the old file or the new one, whole. write_fn returns 0, or -1 with
 * errno. 0, or -1 with errno and nothing changed. */
typedef int (*cmp_write_fn)(FILE *f, const void *arg);
int cmp_write_file(const char *dir, const char *name, cmp_write_fn write_fn, const void *arg);

#endif
