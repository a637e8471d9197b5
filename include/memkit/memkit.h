/* memkit/memkit.h - all of the core in one include.
 *
 *     SEE    memkit/stats.h    allocation counters, process memory, Prometheus text
 *     FIX    memkit/buf.h      growable byte buffer
 *            memkit/pool.h     bounded, self-calibrating pool of byte buffers
 *            memkit/lru.h      bounded cache, O(1), by entries and by bytes
 *            memkit/arena.h    bump allocator for what dies together
 *
 * Conventions, the same everywhere: what returns a pointer returns NULL and sets errno; what
 * returns int returns -1 and sets errno, or 0 or a count. Not found is no error. A NULL object
 * where one is needed is EINVAL (also in functions that return nothing: they set errno and do
 * nothing else). After an error the object is as it was. Options: zero means the documented
 * default. Read more in docs/conventions.md.
 */
#ifndef MEMKIT_MEMKIT_H
#define MEMKIT_MEMKIT_H

#include <memkit/common.h>
#include <memkit/version.h>
#include <memkit/fault.h>
#include <memkit/buf.h>
#include <memkit/pool.h>
#include <memkit/lru.h>
#include <memkit/arena.h>
#include <memkit/stats.h>

#endif
