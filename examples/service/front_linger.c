/* front_linger.c - see front_linger.h. The duplicates of one worker, in a fixed table: whoever
 * makes us close connections by the thousand gets plain closes, and no more of our memory.
 */
#define _GNU_SOURCE /* F_DUPFD_CLOEXEC */

#include "front_linger.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISCARD (16u << 10)

static void end(front_linger *l, linger_slot *s)
{
    close(s->fd); /* takes it out of the epoll set, being the last descriptor of this socket */
    s->fd = 0;
    l->count--;
}

void front_linger_add(front_linger *l, int epoll_fd, uint64_t tag, int fd, uint64_t now_ns)
{
    char c;
    ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN) || l->count >= l->max)
        return;
    unsigned i = 0;
    while (l->slots[i].fd != 0)
        i++;
    int dup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (dup_fd < 0)
        return;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = tag + i};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, dup_fd, &ev) != 0) {
        close(dup_fd);
        return;
    }
    l->slots[i] = (linger_slot){.fd = dup_fd, .until_ns = now_ns + LINGER_NS, .left = LINGER_BYTES};
    l->count++;
}

void front_linger_event(front_linger *l, unsigned i)
{
    char nowhere[DISCARD];
    linger_slot *s = &l->slots[i];
    if (s->fd == 0)
        return;
    ssize_t n = recv(s->fd, nowhere, sizeof nowhere, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || (size_t)n >= s->left) {
        end(l, s);
        return;
    }
    s->left -= (size_t)n;
}

void front_linger_expire(front_linger *l, uint64_t now_ns)
{
    for (unsigned i = 0; l->count > 0 && i < LINGER_MAX; i++)
        if (l->slots[i].fd != 0 && l->slots[i].until_ns <= now_ns)
            end(l, &l->slots[i]);
}
