/* symfile.h - the files that know the names of a module's functions. For symbols.c. */
#ifndef MEMKIT_PROF_SYMFILE_H
#define MEMKIT_PROF_SYMFILE_H

#include "prof/module.h"
#include "prof/symtab.h"

#pragma GCC visibility push(hidden)

/* What is open meanwhile, and windows kept from one module to the next. Both .fd = -1 to begin. */
typedef struct {
    memkit__elf file, debug;
} memkit__symfiles;

/* Names the n addresses of one module, sorted by `at`. `program`: it is the one that runs. 0, or
 * -1: ENOMEM; what no file knows stays without a name. */
int memkit__symfile_name(memkit__symfiles *f, const memkit__module *m, bool program,
                         memkit__pc *pcs, size_t n, memkit__scratch *s);

/* Hexadecimal; its length, 0 where the module has none. */
size_t memkit__build_id_text(const memkit__module *m, char out[2 * MEMKIT__BUILD_ID_MAX + 1]);

#pragma GCC visibility pop

#endif
