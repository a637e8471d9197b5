/* load_number.c - see load_number.h. */
#include "load_number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int load_number(const char *name, const char *s, double min, double max, bool whole, double *out,
                char *what, size_t cap)
{
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    if (end == s || *end != '\0' || errno != 0 || !isfinite(v) || v < min || v > max ||
        (whole && v != floor(v))) {
        snprintf(what, cap, "%s takes a %snumber from %g to %.15g, not", name,
                 whole ? "whole " : "", min, max);
        return -1;
    }
    *out = v;
    return 0;
}
