/* debug_query.c - the arguments of a debug path. What is given is understood or refused with the
 * reason: a profile of other seconds than those asked for would be believed.
 */
#include "prof/debug.h"

#include <stdio.h>
#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int memkit__debug_decode(const char *text, size_t n, char *out, size_t room)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i] == '+' ? ' ' : text[i];
        if (c == '%') {
            if (n - i < 3 || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0)
                return -1;
            c = (char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
            i += 2;
        }
        if (c == '\0' || len + 1 >= room)
            return -1;
        out[len++] = c;
    }
    out[len] = '\0';
    return (int)len;
}

__attribute__((format(printf, 2, 3))) static bool refuse(char *why, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, MEMKIT__DEBUG_WHY, fmt, ap);
    va_end(ap);
    return false;
}

/* Digits and nothing else. */
static bool number(const char *text, unsigned max, unsigned *out)
{
    unsigned v = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (unsigned)(*text - '0');
        if (v > max)
            return false;
    }
    *out = v;
    return true;
}

typedef struct {
    bool seconds, debug, type;
} seen;

static bool take(memkit__debug_args *a, seen *s, const char *key, const char *value, char *why)
{
    bool *once = strcmp(key, "seconds") == 0 ? &s->seconds
                 : strcmp(key, "debug") == 0 ? &s->debug
                 : strcmp(key, "type") == 0  ? &s->type
                                             : NULL;
    if (once == NULL)
        return true; /* gc=1 too: there is no collector to run first */
    if (*once)
        return refuse(why, "%s is given twice", key);
    *once = true;
    if (once == &s->seconds &&
        (!number(value, MEMKIT__DEBUG_SECONDS, &a->seconds) || a->seconds == 0))
        return refuse(why, "seconds=%.64s: want a whole number from 1 to %d", value,
                      MEMKIT__DEBUG_SECONDS);
    if (once == &s->debug && !number(value, 1, &a->debug))
        return refuse(why, "debug=%.64s: want 0 (a profile for tools) or 1 (text)", value);
    if (once == &s->type)
        snprintf(a->type, sizeof a->type, "%.*s", (int)sizeof a->type - 1, value);
    return true;
}

bool memkit__debug_query(const char *query, memkit__debug_args *out, char why[MEMKIT__DEBUG_WHY])
{
    seen s = {false, false, false};
    memset(out, 0, sizeof *out);
    for (const char *at = query != NULL ? query : ""; *at != '\0';) {
        size_t n = strcspn(at, "&");
        const char *equals = memchr(at, '=', n);
        size_t key_len = equals != NULL ? (size_t)(equals - at) : n;
        const char *raw = equals != NULL ? equals + 1 : at + n;
        char key[16], value[128];
        /* A key that is too long for ours is none of ours. */
        if (memkit__debug_decode(at, key_len, key, sizeof key) >= 0) {
            if (memkit__debug_decode(raw, (size_t)(at + n - raw), value, sizeof value) < 0)
                value[0] = '?', value[1] = '\0'; /* refused where it is one of ours */
            if (!take(out, &s, key, value, why))
                return false;
        }
        at += n + (at[n] == '&');
    }
    if (out->debug != 0 && out->seconds != 0)
        return refuse(why, "debug and seconds do not go together: a delta has no text");
    return true;
}
