/* cfi.h - the unwind tables (.eh_frame) of a module: from a pc to the row that tells how its frame
 * is left. No malloc, no lock; never reads outside of the module's tables, whatever they hold. */
#ifndef MEMKIT_PROF_CFI_H
#define MEMKIT_PROF_CFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prof/module.h"

#pragma GCC visibility push(hidden)

#if defined(__x86_64__)
#define MEMKIT__CFI_REGS 17u
#define MEMKIT__CFI_BP   6u
#define MEMKIT__CFI_SP   7u
#elif defined(__aarch64__)
#define MEMKIT__CFI_REGS 33u
#define MEMKIT__CFI_BP   29u
#define MEMKIT__CFI_SP   31u
#else
#error "the unwinder knows x86-64 and aarch64"
#endif

/* Where a register of the caller is. */
enum {
    MEMKIT__CFI_SAME,
    MEMKIT__CFI_UNDEFINED,
    MEMKIT__CFI_OFFSET,     /* at CFA + value */
    MEMKIT__CFI_VAL_OFFSET, /* is CFA + value */
    MEMKIT__CFI_REGISTER,   /* in another register, value */
    MEMKIT__CFI_EXPR,       /* at what the expression computes; value: where it is */
    MEMKIT__CFI_VAL_EXPR    /* is what it computes */
};

typedef struct {
    int32_t cfa_offset; /* or where its expression is */
    uint16_t cfa_reg;
    bool cfa_expr;
    bool ra_signed; /* aarch64: the return address carries a signature */
    uint8_t how[MEMKIT__CFI_REGS];
    int32_t value[MEMKIT__CFI_REGS]; /* expressions: bytes from the tables' start */
} memkit__cfi_regs;

typedef struct {
    memkit__cfi_regs regs;
    unsigned ra; /* the register that has the return address */
    bool signal; /* a signal handler's return: the registers are those of what it interrupted */
} memkit__cfi_row;

/* Bytes of the tables that are still to be read; one read past the end gives 0 and sets bad. */
typedef struct {
    const uint8_t *p, *end;
    bool bad;
} memkit__cfi_bytes;

uint64_t memkit__cfi_uleb_long(memkit__cfi_bytes *b);

/* 1, 2, 4 or 8 bytes; both targets have the lowest first, as the tables do. */
static inline uint64_t memkit__cfi_uint(memkit__cfi_bytes *b, size_t bytes)
{
    uint64_t value = 0;
    if ((size_t)(b->end - b->p) < bytes) {
        b->bad = true;
        b->p = b->end;
        return 0;
    }
    if (bytes == 1)
        value = *b->p;
    else if (bytes == 2)
        memcpy(&value, b->p, 2);
    else if (bytes == 4)
        memcpy(&value, b->p, 4);
    else
        memcpy(&value, b->p, bytes < 8 ? bytes : 8);
    b->p += bytes;
    return value;
}

static inline uint64_t memkit__cfi_uleb(memkit__cfi_bytes *b)
{
    if (b->p < b->end && *b->p < 0x80)
        return *b->p++;
    return memkit__cfi_uleb_long(b);
}

int64_t memkit__cfi_sleb(memkit__cfi_bytes *b);
/* A pointer encoded as DW_EH_PE says; `text` what is relative to the tables' header. */
uintptr_t memkit__cfi_pointer(memkit__cfi_bytes *b, uint8_t encoding, uintptr_t hdr);
/* The expression at an offset of the tables; bad where there is none. */
memkit__cfi_bytes memkit__cfi_expression(const memkit__module *m, int32_t offset);

/* The row for the instruction at pc. False: the tables tell none. */
bool memkit__cfi_find(const memkit__module *m, uintptr_t pc, memkit__cfi_row *row);

/* What running instructions takes: cfi_run.c. */
typedef struct {
    const memkit__module *m;
    uint64_t code_align;
    int64_t data_align;
    uint8_t encoding; /* of addresses */
    bool augmented;   /* entries carry data of their augmentation, which is skipped */
    uintptr_t at, pc; /* rows begin at `at`; wanted is that of pc */
} memkit__cfi_machine;

/* What was read of a module's tables, for the entries after it: the search table, and a common
 * entry. */
typedef struct memkit__cfi_common {
    const memkit__module *m; /* NULL: nothing was read */
    const uint8_t *table;    /* pairs of 4 bytes: function, entry */
    uint64_t n;              /* 0: it cannot be searched */
    uintptr_t at;            /* of the common entry; 0: none was read */
    memkit__cfi_machine c;
    memkit__cfi_row row;
} memkit__cfi_common;

/* memkit__cfi_find with that remembered from call to call; m = NULL before the first. */
bool memkit__cfi_find_by(memkit__cfi_common *common, const memkit__module *m, uintptr_t pc,
                         memkit__cfi_row *row);

/* Runs instructions until their row is past pc. first: the row of the common part, for restore;
 * NULL while that is being made. False: they make no sense. */
bool memkit__cfi_run(memkit__cfi_machine *c, memkit__cfi_bytes b, const memkit__cfi_regs *first,
                     memkit__cfi_regs *regs);

/* What an expression asks for: registers and memory, where they are known. */
typedef struct {
    bool (*reg)(void *arg, unsigned number, uintptr_t *value);
    bool (*word)(void *arg, uintptr_t at, size_t bytes, uintptr_t *value);
    void *arg;
} memkit__cfi_world;

/* cfi_eval.c: evaluates an expression, with `first` on its stack where push is set. False: not
 * computable. */
bool memkit__cfi_eval(memkit__cfi_bytes b, bool push, uintptr_t first, const memkit__cfi_world *w,
                      uintptr_t *value);

#pragma GCC visibility pop

#endif
