/* listen.h - where libmemkit-prof and libmemkit-listen.so meet.
 *
 * Nothing links either to the other: libmemkit-prof dlopens the listener where one is asked for,
 * and hands it all that it may call. So nobody else pays for libmicrohttpd and what it brings.
 */
#ifndef MEMKIT_LISTEN_LISTEN_H
#define MEMKIT_LISTEN_LISTEN_H

#include <stdint.h>

#include <memkit/debug.h>

#define MEMKIT__LISTEN_ABI  1u
#define MEMKIT__LISTEN_NAME "memkit_listen_table"

/* Descriptors of ours are not below this, where it can be had: a program may count on the numbers
 * that it gets, and a shell takes those that its script names. */
#define MEMKIT__LISTEN_FD 100

typedef struct {
    uint32_t abi;
    uint32_t size;
    int (*begin)(const char *path, const char *query, const void *data, size_t len,
                 memkit_debug_req **req);
    int (*finish)(memkit_debug_req *req, memkit_buf *body, const char **content_type);
    void (*cancel)(memkit_debug_req *req);
    const memkit_debug_header *(*headers)(const char *path, const char *query, int status);
    bool (*takes_post)(const char *path);
    memkit_buf *(*buf_new)(size_t cap);
    void (*buf_free)(memkit_buf *b);
    /* What the calling thread allocates from here on is in no figure and no profile. */
    void (*quiet)(void);
    /* To be called about once a second: ends a process of which only our threads are left. */
    void (*idle)(void);
} memkit__listen_host;

typedef struct {
    uint32_t abi;
    uint32_t size;
    /* Serves on a socket that listens, in a thread of its own, and owns it then. On loopback only
     * requests whose Host is this machine are answered. 0, or -1 with errno and fd is still the
     * caller's. */
    int (*start)(const memkit__listen_host *host, int fd, bool loopback);
    /* In the child of a fork: closes what was inherited; start may be called again. */
    void (*in_child)(void);
} memkit__listen_table;

/* The one exported function. */
MEMKIT_API const memkit__listen_table *memkit_listen_table(void);

#endif
