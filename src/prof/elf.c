/* elf.c - reads ELF files piecewise: headers, sections, symbol tables.
 *
 *     file   [ehdr|phdrs| .note ... .dynsym .dynstr .text ... | .debug_info ... | .symtab .strtab |
 *                                                                shdrs]
 *     windows          rows: 64 KiB of a table ^        text: 4 KiB of strings ^
 *
 * - Nothing is mapped: a file that is cut short under a mapping kills who reads it, and pread just
 *   returns less. What is not asked for (debug information) is never read.
 * - Every figure in a file may be a lie. Offsets are only used through read_at, which knows the
 *   size; counts are bounded by what fits into the file, so that loops over them end.
 * - Memory is two windows of the scratch, kept over many files.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/elf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS_BYTES   ((size_t)64 * 1024)
#define TEXT_BYTES   ((size_t)4096)
#define NOTES_MAX    64 /* notes looked at in one segment */
#define SECTIONS_MAX ((uint64_t)1 << 17)

/* As much of n bytes as there is. */
static size_t read_at(memkit__elf *e, uint64_t offset, void *out, size_t n)
{
    if (offset >= e->size)
        return 0;
    if (n > e->size - offset)
        n = (size_t)(e->size - offset);
    if (e->fd < 0) {
        memcpy(out, e->base + offset, n);
        return n;
    }
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(e->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

bool memkit__elf_read(memkit__elf *e, uint64_t offset, void *out, size_t n)
{
    return read_at(e, offset, out, n) == n;
}

/* Bytes of the file from offset on that the window holds, filled anew where it holds less than
 * `least`. */
static const char *look(memkit__elf *e, memkit__elf_window *w, size_t room, uint64_t offset,
                        size_t least, size_t *have)
{
    if (offset < w->at || offset - w->at > w->len || w->len - (offset - w->at) < least) {
        w->at = offset;
        w->len = read_at(e, offset, w->data, room);
    }
    *have = w->len - (size_t)(offset - w->at);
    return w->data + (offset - w->at);
}

const void *memkit__elf_row(memkit__elf *e, uint64_t offset, uint64_t i, size_t n)
{
    uint64_t at;
    size_t have;
    if (__builtin_mul_overflow(i, (uint64_t)n, &at) || __builtin_add_overflow(at, offset, &at))
        return NULL;
    const char *p = look(e, &e->rows, ROWS_BYTES, at, n, &have);
    return have < n ? NULL : p;
}

bool memkit__elf_section(memkit__elf *e, uint64_t i, Elf64_Shdr *out)
{
    const void *row =
        i < e->section_count ? memkit__elf_row(e, e->head.e_shoff, i, sizeof *out) : NULL;
    if (row != NULL)
        memcpy(out, row, sizeof *out);
    return row != NULL;
}

bool memkit__elf_segment(memkit__elf *e, uint64_t i, Elf64_Phdr *out)
{
    return i < e->segment_count &&
           memkit__elf_read(e, e->head.e_phoff + i * sizeof *out, out, sizeof *out);
}

size_t memkit__elf_text(memkit__elf *e, const Elf64_Shdr *table, uint64_t at, char *out,
                        size_t room)
{
    size_t len = 0;
    out[0] = '\0';
    while (at < table->sh_size && table->sh_offset <= e->size && len < room - 1) {
        size_t have;
        const char *p = look(e, &e->text, TEXT_BYTES, table->sh_offset + at, 1, &have);
        if (have > table->sh_size - at)
            have = (size_t)(table->sh_size - at);
        if (have > room - 1 - len)
            have = room - 1 - len;
        size_t n = strnlen(p, have);
        memcpy(out + len, p, n);
        len += n;
        at += n;
        if (have == 0)
            break;
        if (n < have || len == room - 1) {
            out[len] = '\0';
            return len;
        }
    }
    out[0] = '\0';
    return 0;
}

bool memkit__elf_named(memkit__elf *e, const Elf64_Shdr *section, const char *name)
{
    char text[64];
    return memkit__elf_text(e, &e->names, section->sh_name, text, sizeof text) > 0 &&
           strcmp(text, name) == 0;
}

/* Counts that do not fit into the header's 16 bits are in section 0. */
static void count_headers(memkit__elf *e)
{
    Elf64_Ehdr *h = &e->head;
    Elf64_Shdr zero = {0};
    uint64_t room = e->size > h->e_shoff ? (e->size - h->e_shoff) / sizeof zero : 0;
    e->section_count = 0;
    memset(&e->names, 0, sizeof e->names);
    if (h->e_shoff != 0 && h->e_shentsize == sizeof zero && room > 0) {
        e->section_count = 1;
        if (!memkit__elf_section(e, 0, &zero))
            memset(&zero, 0, sizeof zero);
        uint64_t n = h->e_shnum != 0 ? h->e_shnum : zero.sh_size;
        n = n < room ? n : room;
        e->section_count = n < SECTIONS_MAX ? n : SECTIONS_MAX;
        uint64_t names = h->e_shstrndx == SHN_XINDEX ? zero.sh_link : h->e_shstrndx;
        if (names == 0 || !memkit__elf_section(e, names, &e->names) ||
            e->names.sh_type != SHT_STRTAB)
            memset(&e->names, 0, sizeof e->names);
    }
    room = e->size > h->e_phoff ? (e->size - h->e_phoff) / sizeof(Elf64_Phdr) : 0;
    uint64_t n = h->e_phnum == PN_XNUM ? zero.sh_info : h->e_phnum;
    n = n < room ? n : room;
    e->segment_count = h->e_phoff == 0 || h->e_phentsize != sizeof(Elf64_Phdr) ? 0 : n;
}

/* Takes the headers of what fd or base is set to. */
static int begin(memkit__elf *e, memkit__scratch *s)
{
    static const unsigned char order =
        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
    if (e->rows.data == NULL)
        e->rows.data = memkit__scratch_alloc(s, ROWS_BYTES);
    if (e->text.data == NULL)
        e->text.data = memkit__scratch_alloc(s, TEXT_BYTES);
    if (e->rows.data == NULL || e->text.data == NULL) {
        memkit__elf_close(e);
        errno = ENOMEM;
        return -1;
    }
    e->rows.len = e->text.len = 0;
    e->rows.at = e->text.at = 0;
    const unsigned char *id = e->head.e_ident;
    if (!memkit__elf_read(e, 0, &e->head, sizeof e->head) || memcmp(id, ELFMAG, SELFMAG) != 0 ||
        id[EI_CLASS] != ELFCLASS64 || id[EI_DATA] != order) {
        memkit__elf_close(e);
        errno = ENOEXEC;
        return -1;
    }
    count_headers(e);
    return 0;
}

int memkit__elf_open(memkit__elf *e, const char *path, memkit__scratch *s)
{
    /* The name may by now be a pipe's or a terminal's: neither waits, nor becomes ours. */
    struct stat st;
    e->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    e->base = NULL;
    if (e->fd < 0)
        return -1;
    if (fstat(e->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        memkit__elf_close(e);
        errno = ENOEXEC;
        return -1;
    }
    e->size = (uint64_t)st.st_size;
    return begin(e, s);
}

int memkit__elf_open_memory(memkit__elf *e, const void *base, size_t size, memkit__scratch *s)
{
    e->fd = -1;
    e->base = base;
    e->size = size;
    return begin(e, s);
}

void memkit__elf_close(memkit__elf *e)
{
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
    e->base = NULL;
    e->size = e->section_count = e->segment_count = 0;
}

/* The build id among the notes of one segment or section. */
static size_t build_id_in(memkit__elf *e, uint64_t at, uint64_t size, uint64_t align, uint8_t *id)
{
    uint64_t mask = align == 8 ? 7 : 3;
    uint64_t end;
    if (__builtin_add_overflow(at, size, &end) || end > e->size)
        end = e->size;
    for (int i = 0; i < NOTES_MAX && at < end; i++) {
        Elf64_Nhdr note;
        char owner[4];
        if (!memkit__elf_read(e, at, &note, sizeof note))
            return 0;
        uint64_t desc = at + sizeof note + ((note.n_namesz + mask) & ~mask);
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && note.n_descsz > 0 &&
            note.n_descsz <= MEMKIT__BUILD_ID_MAX && desc + note.n_descsz <= end &&
            memkit__elf_read(e, at + sizeof note, owner, 4) && memcmp(owner, "GNU", 4) == 0)
            return memkit__elf_read(e, desc, id, note.n_descsz) ? note.n_descsz : 0;
        at = desc + ((note.n_descsz + mask) & ~mask);
    }
    return 0;
}

size_t memkit__elf_build_id(memkit__elf *e, uint8_t id[MEMKIT__BUILD_ID_MAX])
{
    /* Sections first: the segments of a file of debug information lead nowhere in it. */
    for (uint64_t i = 0; i < e->section_count; i++) {
        Elf64_Shdr sh;
        if (!memkit__elf_section(e, i, &sh))
            break;
        size_t n = sh.sh_type != SHT_NOTE
                       ? 0
                       : build_id_in(e, sh.sh_offset, sh.sh_size, sh.sh_addralign, id);
        if (n > 0)
            return n;
    }
    for (uint64_t i = 0; i < e->segment_count; i++) {
        Elf64_Phdr ph;
        if (!memkit__elf_segment(e, i, &ph))
            break;
        size_t n =
            ph.p_type != PT_NOTE ? 0 : build_id_in(e, ph.p_offset, ph.p_filesz, ph.p_align, id);
        if (n > 0)
            return n;
    }
    return 0;
}
