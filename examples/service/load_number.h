/* load_number.h - a number on the command line, for service-load and service-compare. */
#ifndef LOAD_NUMBER_H
#define LOAD_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* Reads all of s as a number from min to max, a whole one where asked, into *out. 0; -1: it is
 * none, and `what` says what `name` takes. */
int load_number(const char *name, const char *s, double min, double max, bool whole, double *out,
                char *what, size_t cap);

#endif
