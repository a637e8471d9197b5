/* symtab.c - the symbols that cover given addresses of an ELF file.
 *
 *     symbols, in the file's order, once:      addresses, sorted:
 *     [value, size) ------ binary search ----> pc  pc  pc  pc  pc
 *                                              |   covering: the best that covers it by its size
 *                                              before: the nearest that begins at or before it,
 *                                                      and after the address to the left
 *
 * - Of two that cover an address the one that begins later counts (an inner one); of those with
 *   the same value the one that people know (better()). No order of the table changes the choice.
 * - A symbol without a size (assembly) reaches to whatever symbol comes next, within its section.
 * - The work is bounded, whatever a table says: symbols that cover too much in sum end it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/symtab.h"

#include <errno.h>
#include <string.h>

#define SHORT     ((size_t)512)          /* of a name, to compare two */
#define NAME_MAX_ ((size_t)32 * 1024)    /* of one that is kept */
#define WORK_MAX  ((uint64_t)1 << 25)    /* covered addresses, in all */
#define TIES_MAX  ((uint64_t)256 * 1024) /* comparisons of names */
#define CODE_MAX  1024                   /* sections with instructions; a linker makes ten */

typedef struct {
    uint32_t index;
    uint64_t start, size;
} code_section;

typedef struct {
    memkit__elf *e;
    memkit__pc *pcs;
    size_t n;
    Elf64_Shdr symbols, strings;
    code_section *code; /* sections with instructions */
    size_t n_code;
    uint64_t work, ties;
    /* The last comparison, for the many addresses of one function. */
    uint32_t left, right;
    bool left_wins;
} pass;

static bool in_code(const pass *p, uint32_t section, uint64_t at)
{
    for (size_t i = 0; i < p->n_code; i++)
        if (p->code[i].index == section)
            return at - p->code[i].start < p->code[i].size;
    return false;
}

/* "name@@VERSION" is "name" to people. */
static size_t without_version(char *text, size_t len)
{
    char *at = len > 1 ? memchr(text + 1, '@', len - 1) : NULL;
    if (at == NULL)
        return len;
    *at = '\0';
    return (size_t)(at - text);
}

static size_t underscores(const char *name)
{
    return name[0] == '_' && (name[1] == 'Z' || name[1] == 'R') ? 0 : strspn(name, "_");
}

static int binding(const memkit__symbol *x)
{
    switch (ELF64_ST_BIND(x->info)) {
    case STB_GLOBAL:
    case STB_GNU_UNIQUE:
        return 2;
    case STB_LOCAL:
        return 1;
    default:
        return 0;
    }
}

static bool is_function(const memkit__symbol *x)
{
    return ELF64_ST_TYPE(x->info) != STT_NOTYPE;
}

/* Of two symbols at one address, whether a is the one to show. People call strdup what libc has as
 * weak strdup and global __strdup: so first the name with fewer underscores in front, then global
 * before local before weak. */
static bool compare_names(pass *p, const memkit__symbol *a, const memkit__symbol *b)
{
    char x[SHORT], y[SHORT];
    if (++p->ties > TIES_MAX)
        return a->name < b->name;
    size_t xn = memkit__elf_text(p->e, &p->strings, a->name, x, sizeof x);
    size_t yn = memkit__elf_text(p->e, &p->strings, b->name, y, sizeof y);
    if (xn == 0 || yn == 0)
        return xn > yn;
    xn = without_version(x, xn);
    yn = without_version(y, yn);
    if (underscores(x) != underscores(y))
        return underscores(x) < underscores(y);
    if (binding(a) != binding(b))
        return binding(a) > binding(b);
    if (xn != yn)
        return xn < yn;
    int order = strcmp(x, y);
    return order != 0 ? order < 0 : a->name < b->name;
}

static bool better(pass *p, const memkit__symbol *a, const memkit__symbol *b)
{
    if (!b->there || a->value != b->value)
        return !b->there || a->value > b->value;
    if ((a->size > 0) != (b->size > 0))
        return a->size > 0;
    if (is_function(a) != is_function(b))
        return is_function(a);
    if (a->name == b->name)
        return binding(a) > binding(b);
    if (a->name != p->left || b->name != p->right) {
        p->left_wins = compare_names(p, a, b);
        p->left = a->name;
        p->right = b->name;
    }
    return p->left_wins;
}

/* Index of the first address that is not below `value`. */
static size_t first_from(const pass *p, uint64_t value)
{
    size_t low = 0, high = p->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->pcs[mid].at < value)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Marks of aarch64's and the assembler's that say what kind of bytes follow: no functions. */
static bool is_mark(pass *p, const memkit__symbol *x)
{
    char text[8];
    if (is_function(x) || binding(x) != 1)
        return false;
    return memkit__elf_text(p->e, &p->strings, x->name, text, sizeof text) == 0 || text[0] == '$' ||
           (text[0] == '.' && text[1] == 'L');
}

/* False when the table asks for too much work. */
static bool offer(pass *p, const memkit__symbol *x)
{
    size_t i = first_from(p, x->value);
    if (i == p->n)
        return true;
    bool counts_before = better(p, x, &p->pcs[i].before);
    bool covers = x->size > 0 && p->pcs[i].at - x->value < x->size;
    if ((!counts_before && !covers) || is_mark(p, x))
        return true;
    if (counts_before)
        p->pcs[i].before = *x;
    for (; covers && i < p->n && p->pcs[i].at - x->value < x->size; i++) {
        if (++p->work > WORK_MAX)
            return false;
        if (better(p, x, &p->pcs[i].covering))
            p->pcs[i].covering = *x;
    }
    return true;
}

static bool is_code(const pass *p, const Elf64_Sym *sym)
{
    unsigned type = ELF64_ST_TYPE(sym->st_info);
    if (sym->st_name == 0 || sym->st_shndx == SHN_UNDEF)
        return false;
    if (type == STT_NOTYPE)
        return in_code(p, sym->st_shndx, sym->st_value);
    return (type == STT_FUNC || type == STT_GNU_IFUNC) &&
           (sym->st_shndx < SHN_LORESERVE || sym->st_shndx == SHN_XINDEX);
}

static void read_symbols(pass *p)
{
    uint64_t count = p->symbols.sh_size / sizeof(Elf64_Sym);
    uint32_t file = 0;
    for (uint64_t i = 1; i < count; i++) {
        Elf64_Sym sym;
        const void *row = memkit__elf_row(p->e, p->symbols.sh_offset, i, sizeof sym);
        if (row == NULL)
            return;
        memcpy(&sym, row, sizeof sym);
        if (ELF64_ST_TYPE(sym.st_info) == STT_FILE)
            file = sym.st_name;
        if (!is_code(p, &sym))
            continue;
        memkit__symbol x = {.value = sym.st_value,
                            .size = sym.st_size,
                            .name = sym.st_name,
                            .file = ELF64_ST_BIND(sym.st_info) == STB_LOCAL ? file : 0,
                            .section = sym.st_shndx,
                            .info = sym.st_info,
                            .there = true};
        if (!offer(p, &x))
            return;
    }
}

/* What is shown for an address; NULL: nothing. */
static const memkit__symbol *choose(const pass *p, const memkit__pc *pc,
                                    const memkit__symbol *before)
{
    if (pc->covering.there)
        return &pc->covering;
    if (before->there && before->size == 0 && in_code(p, before->section, before->value) &&
        in_code(p, before->section, pc->at))
        return before;
    return NULL;
}

char *memkit__symbol_text(memkit__elf *e, const Elf64_Shdr *strings, uint32_t at, const char *tail,
                          memkit__scratch *s)
{
    char text[SHORT], *name = text;
    size_t room = sizeof text;
    size_t len = memkit__elf_text(e, strings, at, text, room);
    if (len == room - 1) {
        room = NAME_MAX_;
        name = memkit__scratch_alloc(s, room);
        if (name == NULL)
            return NULL;
        len = memkit__elf_text(e, strings, at, name, room);
    }
    len = without_version(name, len);
    if (len == 0) {
        errno = 0;
        return NULL;
    }
    char *copy = memkit__scratch_alloc(s, len + strlen(tail) + 1);
    if (copy != NULL) {
        memcpy(copy, name, len);
        memcpy(copy + len, tail, strlen(tail));
    }
    return copy;
}

/* Turns what was found into texts. */
static int take_names(pass *p, memkit__scratch *s)
{
    memkit__symbol before = {0}, last = {0};
    const char *name = NULL, *file = NULL;
    for (size_t i = 0; i < p->n; i++) {
        memkit__pc *pc = &p->pcs[i];
        if (pc->before.there)
            before = pc->before;
        const memkit__symbol *x = choose(p, pc, &before);
        if (x == NULL || (pc->name != NULL && !(pc->guessed && x->size > 0)))
            continue;
        if (!last.there || last.name != x->name || last.file != x->file) {
            last = *x;
            file = NULL;
            name = memkit__symbol_text(p->e, &p->strings, x->name, "", s);
            if (name != NULL && x->file != 0)
                file = memkit__symbol_text(p->e, &p->strings, x->file, "", s);
            if (errno == ENOMEM && (name == NULL || (x->file != 0 && file == NULL)))
                return -1;
        }
        pc->name = name;
        pc->file = file;
        pc->guessed = x->size == 0;
    }
    return 0;
}

static int find_code(pass *p, memkit__scratch *s)
{
    for (int round = 0; round < 2; round++) {
        p->n_code = 0;
        for (uint64_t i = 1; i < p->e->section_count; i++) {
            Elf64_Shdr sh;
            if (!memkit__elf_section(p->e, i, &sh))
                break;
            if ((sh.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) != (SHF_ALLOC | SHF_EXECINSTR))
                continue;
            if (p->n_code == CODE_MAX)
                break;
            if (p->code != NULL)
                p->code[p->n_code] =
                    (code_section){.index = (uint32_t)i, .start = sh.sh_addr, .size = sh.sh_size};
            p->n_code++;
        }
        if (p->code == NULL)
            p->code = memkit__scratch_array(s, p->n_code + 1, sizeof *p->code);
        if (p->code == NULL)
            return -1;
    }
    return 0;
}

/* Finds the table of this type and its strings. */
static bool find_table(pass *p, uint32_t type)
{
    for (uint64_t i = 1; i < p->e->section_count; i++) {
        if (!memkit__elf_section(p->e, i, &p->symbols))
            return false;
        if (p->symbols.sh_type == type && p->symbols.sh_entsize == sizeof(Elf64_Sym))
            return memkit__elf_section(p->e, p->symbols.sh_link, &p->strings) &&
                   p->strings.sh_type == SHT_STRTAB;
    }
    return false;
}

int memkit__symtab_name(memkit__elf *e, memkit__pc *pcs, size_t n, memkit__scratch *s)
{
    static const uint32_t types[] = {SHT_SYMTAB, SHT_DYNSYM};
    pass p = {.e = e, .pcs = pcs, .n = n};
    if (n == 0 || e->section_count == 0)
        return 0;
    if (find_code(&p, s) != 0)
        return -1;
    for (int t = 0; t < 2; t++) {
        /* A .symtab may hold a few for debuggers alone: what it leaves goes to the second. */
        size_t unnamed = 0;
        for (size_t i = 0; i < n; i++) {
            unnamed += pcs[i].name == NULL || pcs[i].guessed;
            pcs[i].covering.there = pcs[i].before.there = false;
        }
        if (unnamed == 0)
            break;
        p.work = p.ties = 0;
        p.left = p.right = 0;
        if (!find_table(&p, types[t]))
            continue;
        read_symbols(&p);
        if (take_names(&p, s) != 0)
            return -1;
    }
    return 0;
}
