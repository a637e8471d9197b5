/* serve.c - the listener from libmemkit-prof's side: the address, the socket, the library.
 *
 *     "127.0.0.1:6060" --> parsed --> libmemkit-listen.so dlopened --> bound --> its thread started
 *
 * The library lies beside ours, or where the loader looks. It is opened in a scope of its own, and
 * what that allocates, libmicrohttpd and gnutls included, is the profiler's. Whatever fails, the
 * program runs on. One listener a process; a child of fork has none, and may start its own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hook/report.h"
#include "listen/listen.h"
#include "prof/debug.h"
#include "prof/lone.h"
#include "prof/quiet.h"

#define LIBRARY "libmemkit-listen.so.0"
#define BACKLOG 64

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } u;
    socklen_t len;
    bool loopback;
    char text[INET6_ADDRSTRLEN + 16]; /* as in a URL */
} address;

static atomic_bool serving;
static _Atomic(const memkit__listen_table *) listener;

static void begin_thread(void)
{
    memkit__quiet_begin();
    memkit__lone_begin(MEMKIT__LONE_LISTEN);
}

static const memkit__listen_host host = {
    .abi = MEMKIT__LISTEN_ABI,
    .size = sizeof host,
    .begin = memkit_debug_begin_body,
    .finish = memkit_debug_finish,
    .cancel = memkit_debug_cancel,
    .headers = memkit_debug_headers,
    .takes_post = memkit_debug_takes_post,
    .buf_new = memkit_buf_new,
    .buf_free = memkit_buf_free,
    .quiet = begin_thread,
    .idle = memkit__lone_check,
};

/* ---- the address ---- */

static bool parse_port(const char *text, in_port_t *out)
{
    unsigned v = 0;
    if (*text == '\0' || strlen(text) > 5)
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (unsigned)(*text - '0');
    }
    *out = htons((uint16_t)v);
    return v <= 65535;
}

/* Addresses as numbers, and localhost, which is always 127.0.0.1: a resolver is nothing to draw
 * into a program before its main. */
static bool parse_host(char *name, in_port_t port, address *out)
{
    size_t n = strlen(name);
    if (n > 2 && name[0] == '[' && name[n - 1] == ']') {
        name[n - 1] = '\0';
        out->u.v6.sin6_family = AF_INET6;
        out->u.v6.sin6_port = port;
        out->len = sizeof out->u.v6;
        out->loopback = false;
        if (inet_pton(AF_INET6, name + 1, &out->u.v6.sin6_addr) != 1)
            return false;
        out->loopback = IN6_IS_ADDR_LOOPBACK(&out->u.v6.sin6_addr);
        return true;
    }
    if (n == 0 || strcmp(name, "localhost") == 0)
        strcpy(name, "127.0.0.1");
    out->u.v4.sin_family = AF_INET;
    out->u.v4.sin_port = port;
    out->len = sizeof out->u.v4;
    if (inet_pton(AF_INET, name, &out->u.v4.sin_addr) != 1)
        return false;
    out->loopback = ntohl(out->u.v4.sin_addr.s_addr) >> 24 == 127;
    return true;
}

static int parse(const char *text, address *out)
{
    char name[64];
    in_port_t port;
    memset(out, 0, sizeof *out);
    const char *colon = text != NULL ? strrchr(text, ':') : NULL;
    if (colon == NULL || (size_t)(colon - text) >= sizeof name - 12 ||
        !parse_port(colon + 1, &port)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = '\0';
    if (parse_host(name, port, out))
        return 0;
    errno = EINVAL;
    return -1;
}

static void name_address(address *a)
{
    char name[INET6_ADDRSTRLEN];
    bool v6 = a->u.any.sa_family == AF_INET6;
    inet_ntop(a->u.any.sa_family, v6 ? (void *)&a->u.v6.sin6_addr : (void *)&a->u.v4.sin_addr, name,
              sizeof name);
    unsigned port = ntohs(v6 ? a->u.v6.sin6_port : a->u.v4.sin_port);
    snprintf(a->text, sizeof a->text, v6 ? "[%s]:%u" : "%s:%u", name, port);
}

/* ---- the socket ---- */

/* The socket, listening; -1: errno. The address becomes the one it has: a port in place of 0. */
static int open_socket(address *a)
{
    int on = 1;
    int fd = socket(a->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, MEMKIT__LISTEN_FD);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, &a->u.any, a->len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, &a->u.any, &a->len) != 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    name_address(a);
    return fd;
}

/* ---- the library ---- */

static void *open_library(void)
{
    Dl_info self;
    char path[4096];
    const char *slash = dladdr((const void *)&host, &self) != 0 && self.dli_fname != NULL
                            ? strrchr(self.dli_fname, '/')
                            : NULL;
    if (slash != NULL) {
        int n = snprintf(path, sizeof path, "%.*s/%s", (int)(slash - self.dli_fname),
                         self.dli_fname, LIBRARY);
        void *library =
            n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
        if (library != NULL)
            return library;
    }
    return dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
}

/* Never closed again. NULL: ENOSYS. */
static const memkit__listen_table *find_listener(void)
{
    const memkit__listen_table *t = atomic_load(&listener);
    if (t != NULL)
        return t;
    const memkit__listen_table *(*get)(void) = NULL;
    void *library = open_library();
    void *fn = library != NULL ? dlsym(library, MEMKIT__LISTEN_NAME) : NULL;
    memcpy(&get, &fn, sizeof fn);
    t = get != NULL ? get() : NULL;
    if (t == NULL || t->abi != MEMKIT__LISTEN_ABI || t->size < sizeof *t) {
        errno = ENOSYS;
        return NULL;
    }
    atomic_store(&listener, t);
    return t;
}

static void in_child(void)
{
    const memkit__listen_table *t = atomic_load(&listener);
    if (t != NULL)
        t->in_child();
    atomic_store(&serving, false);
}

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

/* ---- start ---- */

static int start(address *a)
{
    const memkit__listen_table *t = find_listener();
    if (t == NULL)
        return -1;
    int fd = open_socket(a);
    if (fd < 0)
        return -1;
    pthread_once(&fork_once, watch_forks);
    if (t->start(&host, fd, a->loopback) == 0)
        return 0;
    int err = errno;
    close(fd);
    errno = err;
    return -1;
}

static int serve(const char *addr, address *a)
{
    if (parse(addr, a) != 0)
        return -1;
    if (atomic_exchange(&serving, true)) {
        errno = EBUSY;
        return -1;
    }
    memkit__quiet_begin();
    int failed = start(a);
    int err = errno;
    memkit__quiet_end();
    if (failed != 0) {
        atomic_store(&serving, false);
        errno = err;
    }
    return failed;
}

static void say_where(const address *a)
{
    memkit__complain("memkit: process %ld serves its profiles at http://%s/debug/pprof/%s\n",
                     (long)getpid(), a->text,
                     a->loopback ? "" : ", to every machine that can reach it");
}

int memkit_debug_serve(const char *addr)
{
    address a;
    if (serve(addr, &a) != 0)
        return -1;
    size_t n = strlen(addr);
    if (!a.loopback || strcmp(addr + n - 2, ":0") == 0)
        say_where(&a);
    return 0;
}

static const char *reason(int err)
{
    switch (err) {
    case EINVAL:
        return "want \"127.0.0.1:6060\", \":6060\", \"localhost:6060\" or \"[::1]:6060\"";
    case ENOSYS:
        return LIBRARY " is not to be found, or not of this version";
    default:
        return strerror(err);
    }
}

int memkit__serve_from_env(const char *addr)
{
    address a;
    if (serve(addr, &a) != 0) {
        int err = errno;
        memkit__complain("memkit: MEMKIT_LISTEN=%.100s: %s; going on without\n", addr, reason(err));
        errno = err;
        return -1;
    }
    say_where(&a);
    const char *sample = getenv("MEMKIT_SAMPLE");
    if ((sample == NULL || sample[0] == '\0') && !memkit_prof_running() &&
        memkit_prof_start(NULL) != 0)
        memkit__complain("memkit: MEMKIT_LISTEN: cannot sample: %s\n",
                         errno == ENOTSUP ? "malloc is not hooked" : strerror(errno));
    return 0;
}
