/* front_listen.c - the listening sockets: one for each worker on the same port (SO_REUSEPORT), and
 * the kernel spreads the connections over them by a hash of the client's address and port. With
 * hundreds of connections that is even to a few per cent, and no worker wakes for another's.
 */
#define _GNU_SOURCE /* SOCK_NONBLOCK */

#include <errno.h>
#include <netinet/in.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front_worker.h"

static int open_socket(const config_addr *a, bool shared)
{
    int on = 1, off = 0;
    int fd = socket(a->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
        (a->addr.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) ||
        bind(fd, (const struct sockaddr *)&a->addr, a->len) != 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

static in_port_t *port_of(config_addr *a)
{
    return a->addr.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&a->addr)->sin6_port
                                         : &((struct sockaddr_in *)&a->addr)->sin_port;
}

static void close_all(front *f)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->workers[i].listen_fd >= 0) {
            close(f->workers[i].listen_fd);
            f->workers[i].listen_fd = -1;
        }
}

static int listen_on(front *f, config_addr a)
{
    /* SO_REUSEPORT would let a second service share the port of one that runs already, and each
     * would get half of the clients. A bind without it tells. */
    if (*port_of(&a) != 0) {
        int probe = open_socket(&a, false);
        if (probe < 0)
            return -1;
        close(probe);
    }
    for (unsigned i = 0; i < f->n; i++) {
        int fd = f->workers[i].listen_fd = open_socket(&a, true);
        /* The first socket of port 0 is given one; the others take the same. */
        if (fd < 0 || listen(fd, SOMAXCONN) != 0 ||
            (i == 0 && getsockname(fd, (struct sockaddr *)&a.addr, &a.len) != 0)) {
            int err = errno;
            close_all(f);
            errno = err;
            return -1;
        }
    }
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo((struct sockaddr *)&a.addr, a.len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -1;
    snprintf(f->address, sizeof f->address,
             a.addr.ss_family == AF_INET6 ? "[%.60s]:%.8s" : "%.60s:%.8s", host, port);
    return 0;
}

int front_listen(front *f, char why[CONFIG_WHY])
{
    int err = 0;
    for (unsigned i = 0; i < f->cfg.n_addrs; i++) {
        if (listen_on(f, f->cfg.addrs[i]) == 0)
            return 0;
        /* Of several, the first that exists on this machine is the one to hear about. */
        if (err == 0 || err == EAFNOSUPPORT || err == EADDRNOTAVAIL)
            err = errno;
    }
    snprintf(why, CONFIG_WHY, "LISTEN_ADDR=\"%.200s\": cannot listen there: %s", f->cfg.listen,
             strerror(err));
    return -1;
}
