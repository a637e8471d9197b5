/* compare_scrape.c - a GET over a connection of its own, and what /metrics says.
 *
 * One deadline covers connect, send and receive, so that a service that is overloaded or stands
 * still costs a known time and no more.
 */
#define _GNU_SOURCE /* memmem */

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"
#include "load_http.h"

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd p = {.fd = fd, .events = events};
        int rc = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (rc > 0)
            return 0;
        if (rc == 0)
            errno = ETIMEDOUT;
        if (rc == 0 || errno != EINTR)
            return -1;
    }
}

static int connect_to(const char *target, int64_t deadline)
{
    struct sockaddr_storage addr;
    unsigned len;
    if (load_parse_target(target, &addr, &len) != 0)
        return -1;
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int err = 0;
    socklen_t err_len = sizeof err;
    if (connect(fd, (struct sockaddr *)&addr, len) != 0) {
        err = errno;
        if (err == EINPROGRESS) {
            if (wait_for(fd, POLLOUT, deadline) != 0)
                err = errno;
            else
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len);
        }
    }
    if (err != 0) {
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

typedef struct {
    char *buf;
    size_t len, cap;
    bool full;
} sink;

static void take(void *arg, const char *data, size_t n)
{
    sink *s = arg;
    if (n >= s->cap - s->len) {
        s->full = true;
        return;
    }
    memcpy(s->buf + s->len, data, n);
    s->len += n;
}

static int exchange(int fd, const char *req, size_t n, sink *s, int64_t deadline)
{
    while (n > 0) {
        ssize_t k = send(fd, req, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (k < 0 && wait_for(fd, POLLOUT, deadline) != 0)
            return -1;
        req += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
    load_http p = {.body = take, .arg = s};
    load_http_reset(&p);
    while (p.state < LOAD_HTTP_DONE) {
        char part[8192];
        if (wait_for(fd, POLLIN, deadline) != 0)
            return -1;
        ssize_t k = recv(fd, part, sizeof part, 0);
        if (k < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (k < 0)
            return -1;
        if (k == 0 && !load_http_eof(&p)) {
            errno = ECONNRESET;
            return -1;
        }
        load_http_feed(&p, part, (size_t)k);
    }
    errno = s->full ? EMSGSIZE : EBADMSG;
    return p.state == LOAD_HTTP_DONE && !s->full ? p.status : -1;
}

int cmp_http_get(const char *target, const char *path, char *buf, size_t cap, int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    char req[256];
    int n = snprintf(req, sizeof req, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                     path, target);
    if (n < 0 || (size_t)n >= sizeof req || cap == 0) {
        errno = EINVAL;
        return -1;
    }
    int fd = connect_to(target, deadline);
    if (fd < 0)
        return -1;
    sink s = {.buf = buf, .cap = cap};
    int rc = exchange(fd, req, (size_t)n, &s, deadline);
    int err = errno;
    buf[s.len] = '\0';
    close(fd);
    errno = err;
    return rc;
}

bool cmp_metric(const char *text, const char *series, double *out)
{
    size_t n = strlen(series);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, series, n) == 0 && line[n] == ' ') {
            char *end;
            *out = strtod(line + n, &end);
            return end != line + n;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

/* Prometheus writes integers as floats at will. */
static bool metric(const char *text, const char *name, uint64_t *out)
{
    double v;
    if (!cmp_metric(text, name, &v) || !isfinite(v) || v < 0 || v > 0x1p63)
        return false;
    *out = (uint64_t)v;
    return true;
}

void cmp_counters_parse(const char *text, cmp_counters *out)
{
    memset(out, 0, sizeof *out);
    uint64_t hooked = 0;
    out->ok = metric(text, "memkit_malloc_hooked", &hooked) &&
              metric(text, "memkit_process_sys_bytes", &out->sys_bytes);
    /* All of them or none: half a set of counters would be a wrong report. */
    out->hooked = hooked == 1 && metric(text, "memkit_heap_alloc_bytes", &out->alloc_bytes) &&
                  metric(text, "memkit_heap_alloc_peak_bytes", &out->peak_alloc_bytes) &&
                  metric(text, "memkit_heap_allocated_bytes_total", &out->total_alloc_bytes) &&
                  metric(text, "memkit_mallocs_total", &out->mallocs) &&
                  metric(text, "memkit_frees_total", &out->frees);
}

int cmp_scrape(const char *target, int timeout_ms, cmp_counters *out, cmp_timing *timing)
{
    enum { CAP = 1 << 20 };
    char *text = malloc(CAP);
    memset(out, 0, sizeof *out);
    if (text == NULL)
        return -1;
    int status = cmp_http_get(target, "/metrics", text, CAP, timeout_ms);
    if (status == 200)
        cmp_counters_parse(text, out);
    cmp_timing t;
    if (status == 200 && timing != NULL) {
        cmp_timing_parse(text, &t);
        *timing = t.ok ? t : *timing;
    }
    if (status >= 0)
        errno = EBADMSG;
    free(text);
    return out->ok ? 0 : -1;
}
