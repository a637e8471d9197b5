/* symtab.h - the symbols that cover given addresses of an ELF file. For symbols.c. */
#ifndef MEMKIT_PROF_SYMTAB_H
#define MEMKIT_PROF_SYMTAB_H

#include "prof/elf.h"

#pragma GCC visibility push(hidden)

/* A symbol as far as it matters here. */
typedef struct {
    uint64_t value, size;
    uint32_t name, file; /* offsets in the string table; file 0: not known */
    uint16_t section;
    uint8_t info;
    bool there;
} memkit__symbol;

/* An address that wants a name. */
typedef struct {
    uint64_t at;       /* as in the file: address in memory - bias */
    uint32_t module;   /* of the caller's */
    uint32_t location; /* of the caller's */
    const char *name;  /* what was found, of the scratch; NULL: nothing */
    bool guessed;      /* by a symbol without a size, which reaches to the next: one with a size
                          that covers it, in another table, is better */
    const char *file;  /* of static functions, as the compiler was given it, less directories */
    memkit__symbol covering, before;
} memkit__pc;

/* Names those of the n addresses, sorted by `at`, that have none: from .symtab, else from .dynsym.
 * -1: ENOMEM. What cannot be read names nothing. */
int memkit__symtab_name(memkit__elf *e, memkit__pc *pcs, size_t n, memkit__scratch *s);

/* The same for addresses within a PLT: "name@plt". plt.c */
int memkit__plt_name(memkit__elf *e, memkit__pc *pcs, size_t n, memkit__scratch *s);

/* Text without "@VERSION", at most 32 KiB of it. NULL: ENOMEM, or "" (errno 0). */
char *memkit__symbol_text(memkit__elf *e, const Elf64_Shdr *strings, uint32_t at, const char *tail,
                          memkit__scratch *s);

#pragma GCC visibility pop

#endif
