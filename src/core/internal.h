/* internal.h - what every file of the core shares: faults, checked sizes, option checks. */
#ifndef MEMKIT_CORE_INTERNAL_H
#define MEMKIT_CORE_INTERNAL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memkit/common.h>

/* Initial-exec where the library may be in a shared object: one load off the thread pointer. The
 * core uses at most 64 bytes of it in all, so that dlopen finds room. */
#define MEMKIT__TLS __thread __attribute__((tls_model("initial-exec")))

/* Reports proven misuse; where the handler returns, the caller ignores the misuse. */
void memkit__fault(const char *fmt, ...) MEMKIT_PRINTF(1, 2);

/* Sums and products of sizes: false, and *out untouched, when the result is no object's size. No
 * object is larger than PTRDIFF_MAX, so nothing computed here ever nears SIZE_MAX. */
static inline bool memkit__add(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum) || sum > PTRDIFF_MAX)
        return false;
    *out = sum;
    return true;
}

static inline bool memkit__mul(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product) || product > PTRDIFF_MAX)
        return false;
    *out = product;
    return true;
}

/* What a constructor asks of an options struct's last member. */
static inline bool memkit__all_zero(const uint64_t *reserved, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (reserved[i] != 0)
            return false;
    return true;
}

#define MEMKIT__RESERVED_OK(opts) \
    memkit__all_zero((opts)->reserved, sizeof((opts)->reserved) / sizeof((opts)->reserved[0]))

#endif
