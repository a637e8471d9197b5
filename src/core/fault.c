/* fault.c - the fault handler and the library's version. One atomic pointer, no lock. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memkit/fault.h>
#include <memkit/version.h>

#include "core/internal.h"

static _Atomic(memkit_fault_fn) handler;

memkit_fault_fn memkit_set_fault_handler(memkit_fault_fn fn)
{
    return atomic_exchange(&handler, fn);
}

/* write, not stdio: a process whose heap is misused should not be asked to allocate. */
static void print_and_abort(const char *message)
{
    static const char prefix[] = "memkit: ";
    ssize_t ignored = write(STDERR_FILENO, prefix, sizeof prefix - 1);
    ignored = write(STDERR_FILENO, message, strlen(message));
    ignored = write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    abort();
}

void memkit__fault(const char *fmt, ...)
{
    char message[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    for (char *c = message; *c != '\0'; c++) /* an object's name may hold anything */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    memkit_fault_fn fn = atomic_load(&handler);
    if (fn == NULL)
        fn = print_and_abort;
    fn(message);
}

const char *memkit_version(void)
{
    return MEMKIT_VERSION;
}
