/* out.h - appending to a memkit_buf: all of it, or nothing.
 *
 *     memkit__out o = memkit__out_begin(buf);
 *     memkit__out_str(&o, ...);                // after a failure the calls do nothing
 *     return memkit__out_end(&o);              // 0; or -1, errno, and buf is as it was
 *
 * No floating point is printed through printf: the program may have a locale with another decimal
 * point.
 */
#ifndef MEMKIT_PROF_OUT_H
#define MEMKIT_PROF_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memkit/buf.h>

#include "prof/profile.h"

#pragma GCC visibility push(hidden)

typedef struct {
    memkit_buf *b;
    size_t start;
    int error; /* errno of what failed first, 0 */
} memkit__out;

memkit__out memkit__out_begin(memkit_buf *b);
int memkit__out_end(memkit__out *o);

void memkit__out_bytes(memkit__out *o, const void *p, size_t n);
void memkit__out_str(memkit__out *o, const char *s);
void memkit__out_fmt(memkit__out *o, const char *fmt, ...) MEMKIT_PRINTF(2, 3);

/* For people, in few characters: what a value of that unit is. At most MEMKIT__SHORT - 1 bytes. */
#define MEMKIT__SHORT 32
typedef struct {
    char s[MEMKIT__SHORT];
} memkit__short;

memkit__short memkit__short_value(int64_t v, const char *unit); /* "1.25 MiB", "12.5 ms", "12.3k" */
memkit__short memkit__short_tenths(uint64_t tenths);            /* "12.3" */
memkit__short memkit__short_thousands(int64_t v);               /* "1,234,567" */

/* part/total in tenths, hundredths ... of a percent (scale 1000, 10000), rounded; 0 of nothing. */
uint64_t memkit__share(int64_t part, int64_t total, uint64_t scale);

/* "2026-11-24 14:10:58 UTC" */
memkit__short memkit__short_time(int64_t ns_since_epoch);

/* What the samples were taken at: "one sample in 512 KiB", "every allocation". */
void memkit__out_rate(memkit__out *o, const memkit__profile *p);

/* The bytes of the valid UTF-8 character at s, which has n > 0 bytes left; 0: it is none. */
size_t memkit__utf8(const char *s, size_t n);

#pragma GCC visibility pop

#endif
