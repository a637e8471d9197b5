/* out.c - appending to a memkit_buf all or nothing, and figures for people. */
#include "prof/out.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

memkit__out memkit__out_begin(memkit_buf *b)
{
    return (memkit__out){.b = b, .start = b != NULL ? b->len : 0, .error = b != NULL ? 0 : EINVAL};
}

int memkit__out_end(memkit__out *o)
{
    if (o->error == 0)
        return 0;
    if (o->b != NULL && o->b->len != o->start) {
        o->b->len = o->start;
        o->b->data[o->start] = '\0';
    }
    errno = o->error;
    return -1;
}

void memkit__out_bytes(memkit__out *o, const void *p, size_t n)
{
    if (o->error == 0 && memkit_buf_append(o->b, p, n) != 0)
        o->error = errno;
}

void memkit__out_str(memkit__out *o, const char *s)
{
    memkit__out_bytes(o, s, strlen(s));
}

void memkit__out_fmt(memkit__out *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (o->error == 0 && memkit_buf_vappendf(o->b, fmt, ap) != 0)
        o->error = errno;
    va_end(ap);
}

/* ---- figures ---- */

static uint64_t magnitude(int64_t v)
{
    return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

/* Three digits, rounded, and the name of the step; below the first step as it is. */
static memkit__short scaled(int64_t value, uint64_t step, const char *const *names, size_t n)
{
    memkit__short out;
    const char *sign = value < 0 ? "-" : "";
    uint64_t v = magnitude(value), unit = 1;
    size_t i = 0;
    while (v / unit >= step && i + 1 < n) {
        unit *= step;
        i++;
    }
    uint64_t whole = v / unit;
    unsigned decimals = i == 0 || whole >= 100 ? 0 : whole >= 10 ? 1 : 2;
    unsigned scale = decimals == 0 ? 1 : decimals == 1 ? 10 : 100;
    __extension__ unsigned __int128 wide = v;
    uint64_t shown = (uint64_t)((wide * scale + unit / 2) / unit);
    if (decimals == 0)
        snprintf(out.s, sizeof out.s, "%s%llu%s", sign, (unsigned long long)shown, names[i]);
    else
        snprintf(out.s, sizeof out.s, "%s%llu.%0*llu%s", sign, (unsigned long long)shown / scale,
                 (int)decimals, (unsigned long long)shown % scale, names[i]);
    return out;
}

memkit__short memkit__short_value(int64_t v, const char *unit)
{
    static const char *const bytes[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    static const char *const times[] = {" ns", " us", " ms", " s"};
    static const char *const counts[] = {"", "k", "M", "G", "T", "P", "E"};
    if (strcmp(unit, "bytes") == 0)
        return scaled(v, 1024, bytes, sizeof bytes / sizeof *bytes);
    if (strcmp(unit, "nanoseconds") == 0)
        return scaled(v, 1000, times, sizeof times / sizeof *times);
    if (magnitude(v) < 100000) { /* short enough as it is */
        memkit__short out;
        snprintf(out.s, sizeof out.s, "%lld", (long long)v);
        return out;
    }
    return scaled(v, 1000, counts, sizeof counts / sizeof *counts);
}

memkit__short memkit__short_tenths(uint64_t tenths)
{
    memkit__short out;
    snprintf(out.s, sizeof out.s, "%llu.%llu", (unsigned long long)tenths / 10,
             (unsigned long long)tenths % 10);
    return out;
}

memkit__short memkit__short_thousands(int64_t v)
{
    memkit__short out;
    uint64_t left = magnitude(v);
    char *at = out.s + sizeof out.s - 1;
    *at = '\0';
    for (unsigned digits = 0;; digits++) {
        if (digits > 0 && digits % 3 == 0)
            *--at = ',';
        *--at = (char)('0' + left % 10);
        left /= 10;
        if (left == 0)
            break;
    }
    if (v < 0)
        *--at = '-';
    memmove(out.s, at, strlen(at) + 1);
    return out;
}

uint64_t memkit__share(int64_t part, int64_t total, uint64_t scale)
{
    if (part <= 0 || total <= 0)
        return 0;
    __extension__ unsigned __int128 wide = (uint64_t)part;
    return (uint64_t)((wide * scale + (uint64_t)total / 2) / (uint64_t)total);
}

memkit__short memkit__short_time(int64_t ns_since_epoch)
{
    memkit__short out;
    time_t seconds = (time_t)(ns_since_epoch / 1000000000);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(out.s, sizeof out.s, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        snprintf(out.s, sizeof out.s, "%lld s", (long long)seconds);
    return out;
}

void memkit__out_rate(memkit__out *o, const memkit__profile *p)
{
    const char *type = p->period_type.type != NULL ? p->period_type.type : "";
    const char *unit = p->period_type.unit != NULL ? p->period_type.unit : "";
    if (p->period == 1 && strcmp(unit, "bytes") == 0)
        memkit__out_str(o, "every allocation");
    else if (strcmp(unit, "bytes") == 0)
        memkit__out_fmt(o, "one sample in %s", memkit__short_value(p->period, unit).s);
    else
        memkit__out_fmt(o, "one sample in %s of %s", memkit__short_value(p->period, unit).s, type);
}

/* ---- UTF-8 ---- */

/* Bytes that the first one announces; 0: it starts no character. */
static size_t announced(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef)
        return 3;
    return c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

size_t memkit__utf8(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t length = announced(u[0]);
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    /* No longer forms than needed, no halves of UTF-16 pairs, nothing beyond U+10FFFF. */
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
        (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return length;
}
