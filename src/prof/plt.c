/* plt.c - names addresses within a procedure linkage table: "malloc@plt".
 *
 *     .plt.sec   jmp *slot ---> GOT slot <--- .rela.plt: (slot, symbol) ---> .dynsym ---> .dynstr
 *
 * An entry has no symbol; the slot that it jumps through has one, in a relocation. The entry's
 * instructions tell the slot, so no order of entries need be known. Done only where an address
 * without a name lies in such a section: mostly one that a signal interrupted.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "prof/symtab.h"

#define NO_SLOT  UINT64_MAX
#define ROWS_MAX ((uint64_t)1 << 20) /* relocations looked at in one section */

typedef struct {
    memkit__pc *pc;
    uint64_t slot;  /* address of its GOT slot, NO_SLOT: not known */
    uint64_t index; /* or which row of .rela.plt it is of, NO_SLOT: not known */
} wanted;

#if defined(__aarch64__)

#define ENTRY_BYTES 24

static uint32_t word(const unsigned char *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* [bti c] adrp x16, page; ldr x17, [x16, offset]; add; br x17. `at` may be any of these. */
static void decode(memkit__elf *e, const Elf64_Shdr *plt, uint64_t at, wanted *w)
{
    at &= ~(uint64_t)3;
    for (int back = -1; back < 5; back++) {
        uint64_t pc = at - (uint64_t)(back * 4);
        unsigned char code[8];
        if (pc - plt->sh_addr >= plt->sh_size ||
            !memkit__elf_read(e, plt->sh_offset + (pc - plt->sh_addr), code, sizeof code))
            continue;
        uint32_t adrp = word(code), ldr = word(code + 4);
        if ((adrp & 0x9f00001fu) != 0x90000010u || (ldr & 0xffc003ffu) != 0xf9400211u)
            continue;
        uint64_t pages = (uint64_t)((adrp >> 5) & 0x7ffffu) << 2 | ((adrp >> 29) & 3u);
        if ((pages & 0x100000u) != 0)
            pages -= 0x200000u;
        w->slot = (pc & ~(uint64_t)4095) + pages * 4096 + ((ldr >> 10) & 0xfffu) * 8;
        return;
    }
}

#else

#define ENTRY_BYTES 16

/* [endbr64] [bnd] jmp *slot(%rip) in an entry that is to be jumped through; in one that only binds,
 * push $index. */
static void decode(memkit__elf *e, const Elf64_Shdr *plt, uint64_t at, wanted *w)
{
    uint64_t bytes = plt->sh_entsize == 8 ? 8 : ENTRY_BYTES;
    uint64_t start = (at - plt->sh_addr) & ~(bytes - 1);
    unsigned char code[ENTRY_BYTES];
    if (!memkit__elf_read(e, plt->sh_offset + start, code, bytes))
        return;
    for (uint64_t i = 0; i + 6 <= bytes; i++) {
        int32_t to;
        memcpy(&to, code + i + 2, sizeof to);
        if (code[i] == 0xff && code[i + 1] == 0x25) {
            w->slot = plt->sh_addr + start + i + 6 + (uint64_t)(int64_t)to;
            return;
        }
    }
    uint64_t skip = memcmp(code, "\xf3\x0f\x1e\xfa", 4) == 0 ? 4 : 0;
    if (bytes == ENTRY_BYTES && code[skip] == 0x68) {
        uint32_t index;
        memcpy(&index, code + skip + 1, sizeof index);
        w->index = index;
    }
}

#endif

static bool is_plt(memkit__elf *e, const Elf64_Shdr *sh)
{
    return sh->sh_type == SHT_PROGBITS && (sh->sh_flags & SHF_EXECINSTR) != 0 &&
           (memkit__elf_named(e, sh, ".plt") || memkit__elf_named(e, sh, ".plt.sec") ||
            memkit__elf_named(e, sh, ".plt.got"));
}

/* Fills list, of room for n, and returns how many addresses are in a PLT. */
static size_t find_wanted(memkit__elf *e, memkit__pc *pcs, size_t n, wanted *list)
{
    size_t count = 0;
    for (uint64_t i = 1; i < e->section_count; i++) {
        Elf64_Shdr sh;
        if (!memkit__elf_section(e, i, &sh))
            break;
        if (!is_plt(e, &sh))
            continue;
        for (size_t k = 0; k < n && count < n; k++) {
            if (pcs[k].name != NULL || pcs[k].at - sh.sh_addr >= sh.sh_size)
                continue;
            list[count] = (wanted){.pc = &pcs[k], .slot = NO_SLOT, .index = NO_SLOT};
            decode(e, &sh, pcs[k].at, &list[count]);
            if (list[count].slot != NO_SLOT || list[count].index != NO_SLOT)
                count++;
        }
    }
    return count;
}

/* The name of the symbol that a relocation is for. */
static int name_one(memkit__elf *e, const Elf64_Shdr *rela, const Elf64_Rela *r, memkit__pc *pc,
                    memkit__scratch *s)
{
    Elf64_Shdr symbols, strings;
    Elf64_Sym sym;
    uint64_t i = ELF64_R_SYM(r->r_info);
    if (i == 0 || !memkit__elf_section(e, rela->sh_link, &symbols) ||
        symbols.sh_type != SHT_DYNSYM || i >= symbols.sh_size / sizeof sym ||
        !memkit__elf_section(e, symbols.sh_link, &strings) || strings.sh_type != SHT_STRTAB ||
        symbols.sh_offset > e->size ||
        !memkit__elf_read(e, symbols.sh_offset + i * sizeof sym, &sym, sizeof sym))
        return 0;
    pc->name = memkit__symbol_text(e, &strings, sym.st_name, "@plt", s);
    return pc->name == NULL && errno == ENOMEM ? -1 : 0;
}

static int match_rows(memkit__elf *e, const Elf64_Shdr *rela, bool of_plt, wanted *list, size_t n,
                      memkit__scratch *s)
{
    uint64_t rows = rela->sh_size / sizeof(Elf64_Rela);
    for (uint64_t i = 0; i < rows && i < ROWS_MAX; i++) {
        Elf64_Rela r;
        const void *row = memkit__elf_row(e, rela->sh_offset, i, sizeof r);
        if (row == NULL)
            break;
        memcpy(&r, row, sizeof r);
        for (size_t k = 0; k < n; k++) {
            bool is_it =
                list[k].slot != NO_SLOT ? list[k].slot == r.r_offset : of_plt && list[k].index == i;
            if (is_it && list[k].pc->name == NULL && name_one(e, rela, &r, list[k].pc, s) != 0)
                return -1;
        }
    }
    return 0;
}

int memkit__plt_name(memkit__elf *e, memkit__pc *pcs, size_t n, memkit__scratch *s)
{
    size_t unnamed = 0;
    for (size_t i = 0; i < n; i++)
        unnamed += pcs[i].name == NULL;
    if (unnamed == 0)
        return 0;
    wanted *list = memkit__scratch_array(s, n, sizeof *list);
    if (list == NULL)
        return -1;
    size_t count = find_wanted(e, pcs, n, list);
    for (uint64_t i = 1; count > 0 && i < e->section_count; i++) {
        Elf64_Shdr sh;
        if (!memkit__elf_section(e, i, &sh))
            break;
        if (sh.sh_type != SHT_RELA || (sh.sh_flags & SHF_ALLOC) == 0)
            continue;
        bool of_plt = memkit__elf_named(e, &sh, ".rela.plt");
        if (match_rows(e, &sh, of_plt, list, count, s) != 0)
            return -1;
    }
    return 0;
}
