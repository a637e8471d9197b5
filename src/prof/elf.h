/* elf.h - reads ELF files piecewise: headers, sections, symbol tables. For symbols.c. */
#ifndef MEMKIT_PROF_ELF_H
#define MEMKIT_PROF_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prof/mem.h"

#pragma GCC visibility push(hidden)

#define MEMKIT__BUILD_ID_MAX 32

/* A piece of the file, as read last. */
typedef struct {
    char *data;
    uint64_t at;
    size_t len;
} memkit__elf_window;

typedef struct {
    int fd;           /* -1: an image in memory */
    const char *base; /* of that */
    uint64_t size;
    uint64_t section_count, segment_count;
    Elf64_Ehdr head;
    Elf64_Shdr names;              /* of the sections' names; sh_size 0: none */
    memkit__elf_window rows, text; /* of tables, of strings */
} memkit__elf;

/* Opens a 64-bit file of this machine's byte order; a regular one. {.fd = -1} to begin with; after
 * a close it may be opened again and keeps its windows. 0, or -1: ENOMEM, or not such a file. */
int memkit__elf_open(memkit__elf *e, const char *path, memkit__scratch *s);
/* The same of an image in memory, all of it readable. */
int memkit__elf_open_memory(memkit__elf *e, const void *base, size_t size, memkit__scratch *s);
void memkit__elf_close(memkit__elf *e);

/* True where all n bytes are there. */
bool memkit__elf_read(memkit__elf *e, uint64_t offset, void *out, size_t n);
/* The n bytes of row i of a table at offset, in the window until the next call; NULL: not there. */
const void *memkit__elf_row(memkit__elf *e, uint64_t offset, uint64_t i, size_t n);

bool memkit__elf_section(memkit__elf *e, uint64_t i, Elf64_Shdr *out);
bool memkit__elf_segment(memkit__elf *e, uint64_t i, Elf64_Phdr *out);

/* A string of a string table, cut to room - 1; its length. 0 also where it is none: unterminated
 * at the file's end, or out of the table. */
size_t memkit__elf_text(memkit__elf *e, const Elf64_Shdr *table, uint64_t at, char *out,
                        size_t room);
/* True where the section has this name. */
bool memkit__elf_named(memkit__elf *e, const Elf64_Shdr *section, const char *name);

/* The GNU build id; its length, 0: none. */
size_t memkit__elf_build_id(memkit__elf *e, uint8_t id[MEMKIT__BUILD_ID_MAX]);

#pragma GCC visibility pop

#endif
