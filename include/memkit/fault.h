/* memkit/fault.h - what happens on proven misuse: a double put, a foreign buffer, a live reference
 * into a cache that is being freed. Bad arguments are not faults: they are EINVAL.
 */
#ifndef MEMKIT_FAULT_H
#define MEMKIT_FAULT_H

#include <memkit/common.h>

MEMKIT_BEGIN_DECLS

/* Gets one line of text without a newline (control characters in an object's name are shown as
 * '?'), at most 255 bytes, valid during the call only. May be called from any thread that uses
 * memkit, possibly with locks of the object at fault held: it must not call memkit with that
 * object. Where it returns, the misuse is ignored and nothing changes. */
typedef void (*memkit_fault_fn)(const char *message);

/* Sets the handler for the whole process; NULL restores the default, which writes the message to
 * standard error and aborts. Returns the handler that was set before, NULL for the default.
 * Thread-safe. */
MEMKIT_API memkit_fault_fn memkit_set_fault_handler(memkit_fault_fn fn);

MEMKIT_END_DECLS

#endif
