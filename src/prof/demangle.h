/* demangle.h - C++ names as people write them. For symbols.c. */
#ifndef MEMKIT_PROF_DEMANGLE_H
#define MEMKIT_PROF_DEMANGLE_H

#include <stdbool.h>
#include <stddef.h>

#include "prof/mem.h"

#pragma GCC visibility push(hidden)

/* {0}: not looked for yet. */
typedef struct {
    char *(*demangle)(const char *name, char *out, size_t *room, int *status);
    void (*free)(void *p);
    bool sought;
} memkit__demangler;

/* The name itself where it is not a C++ one or nothing can read it. NULL: ENOMEM. The calling
 * thread is quiet. */
const char *memkit__demangle(memkit__demangler *d, const char *name, memkit__scratch *s);

#pragma GCC visibility pop

#endif
