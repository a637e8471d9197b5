/* module.h - what is loaded: the program, its libraries, the vdso, as they were when first seen.
 *
 * A module once noted is kept for good, also after dlclose: its name, build id and segments are
 * what a profile written later needs. All may be called inside malloc and in a signal handler, by
 * any thread: the list only grows, entries never change once they are in it. No malloc.
 */
#ifndef MEMKIT_PROF_MODULE_H
#define MEMKIT_PROF_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define MEMKIT__SEGMENTS 8

typedef struct memkit__module {
    uint32_t id;           /* from 1 */
    bool stays;            /* cannot be unloaded */
    uintptr_t start, end;  /* addresses of all its segments */
    uintptr_t bias;        /* address in memory - p_vaddr */
    const char *path;      /* of the file; "[vdso]"; "" where it is not known */
    uint8_t build_id[32];  /* GNU build id */
    uint8_t build_id_size; /* 0: none */
    uint8_t n_segments;
    struct {
        uintptr_t start, end;     /* addresses */
        uint64_t offset;          /* of start in the file */
    } segments[MEMKIT__SEGMENTS]; /* the executable ones */
    uintptr_t eh_frame_hdr;       /* address, 0: none */
    size_t eh_frame_hdr_size;
    const void *identity; /* the loader's link map, to compare alone */
    uintptr_t tables_start, tables_end; /* the readable segment that holds the unwind tables */
    uintptr_t build_id_at;              /* address of the build id while loaded, 0: none */
} memkit__module;

/* The module loaded at pc now, noted if it is new; NULL: code in no module, or no room. */
const memkit__module *memkit__module_at(uintptr_t pc);

/* The module of a frame word (frame.h), as of when it was made; NULL: none. */
const memkit__module *memkit__module_of(uint64_t frame);

/* Notes all that is loaded now, and which of it stays. Not inside malloc. 0, or -1: ENOMEM. */
int memkit__modules_prepare(void);

#pragma GCC visibility pop

#endif
