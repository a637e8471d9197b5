/* compare_report.h - the text of the report. */
#ifndef COMPARE_REPORT_H
#define COMPARE_REPORT_H

#include "compare.h"
#include "compare_emit.h"

void cmp_report_emit(cmp_emit *e, const cmp_report *r);
int cmp_write_markdown(FILE *f, const void *report); /* a cmp_write_fn */

#endif
