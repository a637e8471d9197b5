/* front_target.c - see front_target.h. Two passes over the id: one that counts, so that the handler
 * can make room of the right size, and one that decodes into that room.
 */
#define _GNU_SOURCE /* memmem */

#include "front_target.h"

#include <stdbool.h>
#include <string.h>

#define LONGEST_PATH 16 /* decoded; every route but /debug/ is shorter */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Every '%' is followed by two hexadecimal digits. */
static bool escapes_ok(const char *s, size_t n)
{
    const char *end = s + n;
    while ((s = memchr(s, '%', (size_t)(end - s))) != NULL) {
        if (end - s < 3 || hex(s[1]) < 0 || hex(s[2]) < 0)
            return false;
        s += 3;
    }
    return true;
}

/* Decodes at most cap bytes; returns how many all of s comes to. Escapes are known to be good. */
static size_t decode(const char *s, size_t n, bool plus_is_blank, char *dst, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            c = (char)(hex(s[i + 1]) << 4 | hex(s[i + 2]));
            i += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        if (len < cap)
            dst[len] = c;
        len++;
    }
    return len;
}

static size_t decoded_length(const char *s, size_t n)
{
    size_t escapes = 0;
    const char *end = s + n;
    for (; (s = memchr(s, '%', (size_t)(end - s))) != NULL; s += 3)
        escapes++;
    return n - 2 * escapes;
}

static void find_route(front_target *t, const char *path, size_t n)
{
    static const struct {
        const char *path;
        front_route route;
    } routes[] = {
        {"/process", ROUTE_PROCESS}, {"/health", ROUTE_HEALTH}, {"/metrics", ROUTE_METRICS}};
    static const char debug[] = "/debug/";

    char plain[LONGEST_PATH];
    size_t len = decode(path, n, false, plain, sizeof plain);
    if (len >= sizeof debug - 1 && memcmp(plain, debug, sizeof debug - 1) == 0 &&
        memmem(path, n, "%00", 3) == NULL) {
        t->route = ROUTE_DEBUG;
        t->id = path;
        t->id_raw = n;
        t->id_len = len + 1 + strlen(t->query) + 1;
    }
    if (len > sizeof plain)
        return;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (strlen(routes[i].path) == len && memcmp(routes[i].path, plain, len) == 0)
            t->route = routes[i].route;
}

static bool is_id(const char *key, size_t n)
{
    char plain[2];
    return decode(key, n, true, plain, sizeof plain) == 2 && plain[0] == 'i' && plain[1] == 'd';
}

static void find_id(front_target *t, const char *end)
{
    for (const char *arg = t->query; arg < end;) {
        const char *next = memchr(arg, '&', (size_t)(end - arg));
        const char *stop = next != NULL ? next : end;
        const char *equals = memchr(arg, '=', (size_t)(stop - arg));
        if (is_id(arg, (size_t)((equals != NULL ? equals : stop) - arg))) {
            t->id = equals != NULL ? equals + 1 : stop;
            t->id_raw = (size_t)(stop - t->id);
            t->id_len = decoded_length(t->id, t->id_raw);
            return;
        }
        arg = stop + 1;
    }
}

/* A server must also take "http://host/path". */
static const char *path_of(const char *target)
{
    static const char scheme[] = "http://";
    if (strncmp(target, scheme, sizeof scheme - 1) != 0)
        return target;
    const char *host = target + sizeof scheme - 1;
    return host + strcspn(host, "/?");
}

void front_target_parse(const char *target, front_target *out)
{
    memset(out, 0, sizeof *out);
    out->len = strlen(target);
    const char *end = target + out->len;
    const char *path = path_of(target);
    const char *mark = memchr(path, '?', (size_t)(end - path));
    out->query = mark != NULL ? mark + 1 : end;
    out->malformed = !escapes_ok(path, (size_t)(end - path));
    if (out->malformed)
        return;
    find_route(out, path, (size_t)((mark != NULL ? mark : end) - path));
    if (out->route == ROUTE_PROCESS)
        find_id(out, end);
}

void front_target_id(const front_target *t, char *dst)
{
    if (t->route == ROUTE_DEBUG) {
        size_t len = decode(t->id, t->id_raw, false, dst, t->id_len);
        dst[len] = '\0';
        strcpy(dst + len + 1, t->query);
        return;
    }
    if (t->id != NULL)
        decode(t->id, t->id_raw, true, dst, t->id_len);
}
