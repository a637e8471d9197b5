/* memkit/version.h - the library's version, the one place that states it.
 *
 * The Makefile, the .pc files and memkit_version() all take it from here. Semantic versioning:
 * within 0.x a minor step may change the ABI, and then the SONAME changes with it.
 */
#ifndef MEMKIT_VERSION_H
#define MEMKIT_VERSION_H

#include <memkit/common.h>

#define MEMKIT_VERSION       "0.1.0"
#define MEMKIT_VERSION_MAJOR 0
#define MEMKIT_VERSION_MINOR 1
#define MEMKIT_VERSION_PATCH 0

MEMKIT_BEGIN_DECLS

/* The version of the library that is linked, which may be newer than MEMKIT_VERSION, the one the
 * program was compiled against. A static string; never NULL; thread-safe. */
MEMKIT_API const char *memkit_version(void);

MEMKIT_END_DECLS

#endif
