/* profile.h - a profile as data, between those who collect and those who write.
 *
 *     sites (heap.c), CPU samples (cpu.c)  --build-->  memkit__profile  --resolve-->  names
 *                                                            |
 *                                           pprof.c folded.c svg.c text.c
 *
 * All memory is of one scratch (mem.h); texts live as long. One owner.
 */
#ifndef MEMKIT_PROF_PROFILE_H
#define MEMKIT_PROF_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memkit/buf.h>

#include "prof/frame.h"
#include "prof/mem.h"

#pragma GCC visibility push(hidden)

#define MEMKIT__NONE UINT32_MAX

typedef struct {
    const char *name;        /* as people read it: demangled */
    const char *system_name; /* as the linker reads it; the same where there is no other */
    const char *file;        /* NULL: not known */
} memkit__function;

typedef struct {
    uint64_t address;  /* of the call: the return address - 1; 0 for one that has a name only */
    uint32_t mapping;  /* index, MEMKIT__NONE: in none */
    uint32_t function; /* index, MEMKIT__NONE: no name known; a writer shows module+0xoffset */
} memkit__location;

/* One executable segment of one module. */
typedef struct {
    uint64_t start, limit, offset;
    const char *path;
    const char *build_id; /* hexadecimal, "" for none */
    bool has_functions;
} memkit__mapping;

typedef struct {
    const uint64_t *frames;    /* frame words, leaf first; NULL where `name` stands for a stack */
    uint32_t depth;            /* of frames, then of locations */
    bool cut;                  /* the outer frames are missing */
    const char *name;          /* "[memkit held]"; NULL: a stack */
    const char *thread;        /* label; NULL: none */
    const uint32_t *locations; /* indices, leaf first; made by resolve, which adds a location named
                                  "[stack cut at 128 frames]" as the root where `cut` is set, and
                                  one for `name` */
    const int64_t *values;     /* one a type */
    const double *variance;    /* of the values, one a type; NULL: they are exact */
} memkit__sample;

typedef struct {
    const char *type, *unit;
} memkit__value_type;

typedef struct {
    const memkit__value_type *types;
    uint32_t n_types, default_type;
    memkit__sample *samples;
    uint32_t n_samples;
    memkit__location *locations;
    uint32_t n_locations;
    memkit__function *functions;
    uint32_t n_functions;
    memkit__mapping *mappings; /* the program's own is first */
    uint32_t n_mappings;
    memkit__value_type period_type;
    int64_t period;
    int64_t time_ns, duration_ns; /* since the epoch; 0: not told */
    const char *drop_frames;      /* regular expressions as pprof's; NULL: none */
    const char *keep_frames;
    const char *const *comments;
    uint32_t n_comments;
} memkit__profile;

/* Names the samples' frames: fills locations, functions, mappings. 0, or -1: ENOMEM. Symbol tables
 * that cannot be read leave functions unnamed; that is no error. symbols.c */
int memkit__profile_resolve(memkit__profile *p, memkit__scratch *s);

/* True where drop_frames would have pprof leave the function out: the hook's, the allocator's.
 * Shared by the writers, which drop as pprof does: such a frame and all towards the leaf. */
bool memkit__profile_drops(const memkit__profile *p, const memkit__function *f);

/* Append to out; 0, or -1 with errno and out is unchanged. `type` is an index of types. */
int memkit__pprof_write(const memkit__profile *p, memkit_buf *out);
int memkit__folded_write(const memkit__profile *p, uint32_t type, memkit_buf *out);
int memkit__svg_write(const memkit__profile *p, uint32_t type, const char *title, memkit_buf *out);
int memkit__text_write(const memkit__profile *p, uint32_t type, memkit_buf *out);

#pragma GCC visibility pop

#endif
