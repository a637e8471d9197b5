/* support_pprof.h - a profile as `go tool pprof -raw` reads it: for tests, so that no reader of
 * ours stands between a profile and what is asserted of it. Names are the file's own: pprof is told
 * to look for none itself.
 */
#ifndef MEMKIT_TESTS_SUPPORT_PPROF_H
#define MEMKIT_TESTS_SUPPORT_PPROF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pprof pprof;

/* Reads a file or a URL; fails the test where pprof does. NULL never. */
pprof *pprof_read(const char *source);
void pprof_free(pprof *p);

/* The base name of the program that it is of: the first mapping's file. */
const char *pprof_program(const pprof *p);
/* The path of a module that has this in it, which must be there. */
const char *pprof_module(const pprof *p, const char *part);
long long pprof_period(const pprof *p);
size_t pprof_samples(const pprof *p);
/* The first comment with this text in it, or NULL. */
const char *pprof_comment(const pprof *p, const char *part);

/* Sums of a sample type ("alloc_space"), which must be there: of all stacks; of those whose
 * innermost frame has a name that matches (fnmatch); of those with such a frame anywhere, each
 * stack once; of those whose innermost frame lies in a file whose path has this part. */
long long pprof_total(const pprof *p, const char *type);
long long pprof_at(const pprof *p, const char *type, const char *name);
long long pprof_through(const pprof *p, const char *type, const char *name);
long long pprof_in(const pprof *p, const char *type, const char *module);

/* Calls fn for each function that is some stack's innermost, with its sum. */
void pprof_each(const pprof *p, const char *type,
                void (*fn)(const char *name, long long value, void *arg), void *arg);

/* What holds in any heap profile that has no variance or has it: no value below 0, what is in use
 * was allocated, each block freed has lived once. */
void pprof_assert_sane(const pprof *p);

/* Compares the names of all frames in the file that has this path with what nm says lies at their
 * addresses: a function that is there is named, one that is not is not. How many were named. */
size_t pprof_assert_named_as_nm(const pprof *p, const char *path);

/* Prints pprof's own -top of a type: the first rows, with bytes. */
void pprof_show(const char *source, const char *type, const char *title);

#endif
