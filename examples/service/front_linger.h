/* front_linger.h - closes connections without losing the answer that was sent last.
 *
 * A socket that is closed while bytes of the client are unread, or still on their way, makes the
 * kernel send a reset, and a reset makes the client's kernel drop what it had received: the 413 or
 * 414 that explains it all. So a connection that we end first, and not the client, is kept for a
 * moment through a duplicate of its descriptor, and what arrives is thrown away until the client
 * closes too, or its time is over.
 */
#ifndef SERVICE_FRONT_LINGER_H
#define SERVICE_FRONT_LINGER_H

#include <stddef.h>
#include <stdint.h>

#define LINGER_MAX   64         /* connections a worker can keep; further ones are just closed */
#define LINGER_NS    2000000000 /* kept for so long */
#define LINGER_BYTES (8u << 20) /* and for so many bytes */

typedef struct {
    int fd; /* 0: free */
    uint64_t until_ns;
    size_t left;
} linger_slot;

typedef struct {
    unsigned count;
    unsigned max; /* set by the owner, up to LINGER_MAX: what it has descriptors for; 0: none */
    linger_slot slots[LINGER_MAX];
} front_linger;

/* fd is about to be closed by its owner. Watches a duplicate in epoll_fd, with data.u64 = tag + its
 * number, unless the client has closed already. */
void front_linger_add(front_linger *l, int epoll_fd, uint64_t tag, int fd, uint64_t now_ns);

/* Something arrived at number i. */
void front_linger_event(front_linger *l, unsigned i);

/* Ends those whose time is over; now_ns = UINT64_MAX: all. */
void front_linger_expire(front_linger *l, uint64_t now_ns);

#endif
