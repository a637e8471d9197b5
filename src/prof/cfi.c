/* cfi.c - the unwind tables of a module: finding the entry of a pc, and reading it.
 *
 *     .eh_frame_hdr   [1 | encodings | address of .eh_frame | n | (function, entry) x n]  sorted
 *                                                                      |
 *     .eh_frame       [common entry: alignments, first row] <--- [entry: range, rows' changes]
 *
 * - The search table of .eh_frame_hdr finds an entry in log2(n) looks. Tables without one are not
 *   searched from end to end: all linkers have made it for twenty years.
 * - Every read is bounded by the readable segment that the tables lie in (module.c); lengths and
 *   offsets are checked before they are used; an entry longer than MAX_ENTRY is none. So garbage
 *   costs a bounded time and never faults.
 */
#include "prof/cfi.h"

#include <string.h>

#include "prof/unwind_impl.h"

#define MAX_ENTRY ((uint32_t)1 << 20)

enum { /* DW_EH_PE_* */
       PE_UDATA2 = 2,
       PE_UDATA4 = 3,
       PE_UDATA8 = 4,
       PE_ULEB = 1,
       PE_SLEB = 9,
       PE_SDATA2 = 10,
       PE_SDATA4 = 11,
       PE_SDATA8 = 12,
       PE_PCREL = 0x10,
       PE_DATAREL = 0x30,
       PE_INDIRECT = 0x80,
       PE_OMIT = 0xff
};

uint64_t memkit__cfi_uleb_long(memkit__cfi_bytes *b)
{
    uint64_t value = 0;
    for (unsigned shift = 0; !b->bad; shift += 7) {
        uint64_t byte = memkit__cfi_uint(b, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            break;
    }
    return value;
}

int64_t memkit__cfi_sleb(memkit__cfi_bytes *b)
{
    uint64_t value = 0;
    for (unsigned shift = 0; !b->bad;) {
        uint64_t byte = memkit__cfi_uint(b, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        shift += 7;
        if ((byte & 0x80) == 0) {
            if (shift < 64 && (byte & 0x40) != 0)
                value |= ~UINT64_C(0) << shift;
            break;
        }
    }
    return (int64_t)value;
}

static uint64_t encoded_value(memkit__cfi_bytes *b, uint8_t encoding)
{
    switch (encoding & 15) {
    case PE_ULEB:
        return memkit__cfi_uleb(b);
    case PE_SLEB:
        return (uint64_t)memkit__cfi_sleb(b);
    case PE_UDATA2:
        return memkit__cfi_uint(b, 2);
    case PE_SDATA2:
        return (uint64_t)(int16_t)memkit__cfi_uint(b, 2);
    case PE_UDATA4:
        return memkit__cfi_uint(b, 4);
    case PE_SDATA4:
        return (uint64_t)(int32_t)memkit__cfi_uint(b, 4);
    case 0:
    case PE_UDATA8:
    case PE_SDATA8:
        return memkit__cfi_uint(b, 8);
    default:
        b->bad = true;
        return 0;
    }
}

uintptr_t memkit__cfi_pointer(memkit__cfi_bytes *b, uint8_t encoding, uintptr_t hdr)
{
    if (encoding == PE_OMIT)
        return 0;
    uintptr_t here = (uintptr_t)b->p;
    uintptr_t value = (uintptr_t)encoded_value(b, encoding);
    switch (encoding & 0x70) {
    case 0:
        return value;
    case PE_PCREL:
        return here + value;
    case PE_DATAREL:
        return hdr + value;
    default:
        b->bad = true;
        return 0;
    }
}

/* All of the tables from an address on; bad where it is not in them. */
static memkit__cfi_bytes bytes_at(const memkit__module *m, uintptr_t at)
{
    if (at < m->tables_start || at >= m->tables_end)
        return (memkit__cfi_bytes){.bad = true};
    return (memkit__cfi_bytes){(const uint8_t *)at, (const uint8_t *)m->tables_end, false};
}

memkit__cfi_bytes memkit__cfi_expression(const memkit__module *m, int32_t offset)
{
    memkit__cfi_bytes b = bytes_at(m, m->tables_start + (uintptr_t)(intptr_t)offset);
    uint64_t bytes = memkit__cfi_uleb(&b);
    if (b.bad || bytes > (uint64_t)(b.end - b.p))
        return (memkit__cfi_bytes){.bad = true};
    b.end = b.p + bytes;
    return b;
}

/* The bytes of one entry, after its length. */
static memkit__cfi_bytes entry_at(const memkit__module *m, uintptr_t at)
{
    memkit__cfi_bytes b = bytes_at(m, at);
    uint64_t bytes = memkit__cfi_uint(&b, 4);
    if (b.bad || bytes < 4 || bytes > MAX_ENTRY || bytes > (uint64_t)(b.end - b.p))
        return (memkit__cfi_bytes){.bad = true};
    b.end = b.p + bytes;
    return b;
}

/* Finds the search table of a module. */
static void read_header(memkit__cfi_common *common, const memkit__module *m)
{
    uintptr_t hdr = m->eh_frame_hdr;
    common->m = m;
    common->at = 0;
    common->n = 0;
    if (hdr == 0)
        return;
    memkit__cfi_bytes b = {(const uint8_t *)hdr, (const uint8_t *)hdr + m->eh_frame_hdr_size,
                           false};
    uint64_t version = memkit__cfi_uint(&b, 1);
    uint8_t frame_encoding = (uint8_t)memkit__cfi_uint(&b, 1);
    uint8_t count_encoding = (uint8_t)memkit__cfi_uint(&b, 1);
    uint8_t table_encoding = (uint8_t)memkit__cfi_uint(&b, 1);
    memkit__cfi_pointer(&b, frame_encoding, hdr);
    uint64_t n = memkit__cfi_pointer(&b, count_encoding, hdr);
    if (b.bad || version != 1 || count_encoding == PE_OMIT ||
        table_encoding != (PE_DATAREL | PE_SDATA4) || n > (uint64_t)(b.end - b.p) / 8)
        return;
    common->table = b.p;
    common->n = n;
}

/* The entry that may hold pc, by the search table; 0: none. */
MEMKIT__READS_ANYTHING static uintptr_t search_table(const memkit__cfi_common *common, uintptr_t pc)
{
    uintptr_t hdr = common->m->eh_frame_hdr;
    const uint8_t *table = common->table;
    int64_t wanted = (int64_t)(pc - hdr);
    if (common->n == 0)
        return 0;
    uint64_t low = 0; /* the last that begins at or before pc, if any does */
    for (uint64_t left = common->n; left > 1;) { /* no branch: half of the guesses would fail */
        uint64_t half = left / 2;
        int32_t begins;
        memcpy(&begins, table + (low + half) * 8, 4);
        low += half & -(uint64_t)(begins <= wanted);
        left -= half;
    }
    int32_t pair[2];
    memcpy(pair, table + low * 8, 8);
    return pair[0] <= wanted ? hdr + (uintptr_t)(intptr_t)pair[1] : 0;
}

/* What the letters of a common entry's augmentation add to it. */
static bool augmented(memkit__cfi_bytes *b, const uint8_t *letters, memkit__cfi_machine *c,
                      memkit__cfi_row *row)
{
    if (*letters == '\0')
        return true;
    if (*letters++ != 'z')
        return false;
    c->augmented = true;
    uint64_t bytes = memkit__cfi_uleb(b);
    if (b->bad || bytes > (uint64_t)(b->end - b->p))
        return false;
    memkit__cfi_bytes data = {b->p, b->p + bytes, false};
    b->p += bytes;
    for (; *letters != '\0' && !data.bad; letters++) {
        if (*letters == 'R')
            c->encoding = (uint8_t)memkit__cfi_uint(&data, 1);
        else if (*letters == 'P')
            memkit__cfi_pointer(&data, (uint8_t)memkit__cfi_uint(&data, 1) & 0x0f, 0);
        else if (*letters == 'L')
            memkit__cfi_uint(&data, 1);
        else if (*letters == 'S')
            row->signal = true;
        else if (*letters != 'B') /* B: return addresses signed by the other key */
            break;
    }
    return !data.bad;
}

/* Reads the common entry and runs its instructions. */
static bool read_common(uintptr_t at, memkit__cfi_machine *c, memkit__cfi_row *row)
{
    memkit__cfi_bytes b = entry_at(c->m, at);
    if (b.bad || memkit__cfi_uint(&b, 4) != 0)
        return false;
    uint64_t version = memkit__cfi_uint(&b, 1);
    const uint8_t *letters = b.p;
    while (!b.bad && memkit__cfi_uint(&b, 1) != 0)
        ;
    if (b.bad || (version != 1 && version != 3))
        return false;
    c->code_align = memkit__cfi_uleb(&b);
    c->data_align = memkit__cfi_sleb(&b);
    uint64_t ra = version == 1 ? memkit__cfi_uint(&b, 1) : memkit__cfi_uleb(&b);
    if (b.bad || ra >= MEMKIT__CFI_REGS || !augmented(&b, letters, c, row))
        return false;
    row->ra = (unsigned)ra;
    return memkit__cfi_run(c, b, NULL, &row->regs);
}

bool memkit__cfi_find(const memkit__module *m, uintptr_t pc, memkit__cfi_row *row)
{
    memkit__cfi_common common;
    common.m = NULL;
    return memkit__cfi_find_by(&common, m, pc, row);
}

/* Reads the common entry at `at`, if it is not the one that was read. */
static bool common_at(memkit__cfi_common *common, uintptr_t at)
{
    if (common->at == at && at != 0)
        return true;
    common->at = 0;
    common->c = (memkit__cfi_machine){.m = common->m, .pc = UINTPTR_MAX};
    memset(&common->row, 0, sizeof common->row);
    if (!read_common(at, &common->c, &common->row))
        return false;
    common->at = at;
    return true;
}

bool memkit__cfi_find_by(memkit__cfi_common *common, const memkit__module *m, uintptr_t pc,
                         memkit__cfi_row *row)
{
    if (common->m != m)
        read_header(common, m);
    memkit__cfi_bytes b = entry_at(m, search_table(common, pc));
    uintptr_t field = (uintptr_t)b.p;
    uint64_t back = memkit__cfi_uint(&b, 4);
    if (b.bad || back == 0) /* 0: a common entry */
        return false;
    if (!common_at(common, field - back))
        return false;
    memkit__cfi_machine c = common->c;
    uintptr_t start = memkit__cfi_pointer(&b, c.encoding, m->eh_frame_hdr);
    uintptr_t size = memkit__cfi_pointer(&b, c.encoding & 0x0f, 0);
    uint64_t skip = c.augmented ? memkit__cfi_uleb(&b) : 0;
    if (b.bad || pc < start || pc - start >= size || (c.encoding & PE_INDIRECT) != 0 ||
        skip > (uint64_t)(b.end - b.p))
        return false;
    b.p += skip;
    c.at = start;
    c.pc = pc;
    *row = common->row;
    return memkit__cfi_run(&c, b, &common->row.regs, &row->regs);
}
