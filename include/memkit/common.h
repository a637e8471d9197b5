/* memkit/common.h - what every public header needs: export, attributes, C++ linkage. */
#ifndef MEMKIT_COMMON_H
#define MEMKIT_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define MEMKIT_BEGIN_DECLS extern "C" {
#define MEMKIT_END_DECLS   }
#else
#define MEMKIT_BEGIN_DECLS
#define MEMKIT_END_DECLS
#endif

#define MEMKIT_API          __attribute__((visibility("default")))
#define MEMKIT_NODISCARD    __attribute__((warn_unused_result))
#define MEMKIT_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MEMKIT_LIKELY(x)    __builtin_expect(!!(x), 1)
#define MEMKIT_UNLIKELY(x)  __builtin_expect(!!(x), 0)

#endif
