/* symfile.c - the files that know the names of a module's functions.
 *
 * - A file speaks for a module only where its build id and its code segments are those that were
 *   noted when the module was loaded: a name is right or there is none. A file without a build id
 *   must at least have its code where the module's was.
 * - The program is read through /proc/self/exe, which is the file that runs, also after it was
 *   replaced or deleted. The vdso has no file and is read where it lies.
 * - Files in which addresses stay without a name (stripped ones) may have a file of debug
 *   information elsewhere, found by build id: its symbols are read, not what else is in it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/symfile.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEBUG_DIR "/usr/lib/debug/.build-id"

size_t memkit__build_id_text(const memkit__module *m, char out[2 * MEMKIT__BUILD_ID_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < m->build_id_size && i < MEMKIT__BUILD_ID_MAX; i++) {
        out[n++] = digits[m->build_id[i] >> 4];
        out[n++] = digits[m->build_id[i] & 15];
    }
    out[n] = '\0';
    return n;
}

/* Whether the file's code lies where the module's did. Compared in pages: the one may tell segments
 * as they are in the file, the other as they were mapped. */
static bool same_layout(memkit__elf *e, const memkit__module *m)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < m->n_segments; i++) {
        bool found = false;
        for (uint64_t k = 0; k < e->segment_count && !found; k++) {
            Elf64_Phdr ph;
            if (!memkit__elf_segment(e, k, &ph))
                break;
            found = ph.p_type == PT_LOAD && (ph.p_flags & PF_X) != 0 &&
                    (ph.p_vaddr + m->bias) / page == m->segments[i].start / page;
        }
        if (!found)
            return false;
    }
    return true;
}

static bool same_id(memkit__elf *e, const memkit__module *m)
{
    uint8_t id[MEMKIT__BUILD_ID_MAX];
    size_t n = memkit__elf_build_id(e, id);
    return n == m->build_id_size && memcmp(id, m->build_id, n) == 0;
}

static bool opens(memkit__elf *e, const char *path, const memkit__module *m, memkit__scratch *s)
{
    if (path[0] == '\0' || memkit__elf_open(e, path, s) != 0)
        return false;
    if (same_id(e, m) && same_layout(e, m))
        return true;
    memkit__elf_close(e);
    return false;
}

/* False where no file is what was loaded. */
static bool open_module(memkit__symfiles *f, const memkit__module *m, bool program,
                        memkit__scratch *s)
{
    if (strcmp(m->path, "[vdso]") == 0) {
        /* Its section headers come after its only segment, in the same or the next page of it. */
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
        uintptr_t end = (m->end + page - 1) & ~(page - 1);
        return memkit__elf_open_memory(&f->file, (const void *)m->start, end - m->start, s) == 0;
    }
    if (program && opens(&f->file, "/proc/self/exe", m, s))
        return true;
    return opens(&f->file, m->path, m, s);
}

static bool open_debug_file(memkit__symfiles *f, const memkit__module *m, memkit__scratch *s)
{
    char path[sizeof DEBUG_DIR + 2 * MEMKIT__BUILD_ID_MAX + 16];
    char id[2 * MEMKIT__BUILD_ID_MAX + 1];
    if (memkit__build_id_text(m, id) < 4)
        return false;
    snprintf(path, sizeof path, DEBUG_DIR "/%.2s/%s.debug", id, id + 2);
    if (memkit__elf_open(&f->debug, path, s) != 0)
        return false;
    if (same_id(&f->debug, m))
        return true;
    memkit__elf_close(&f->debug);
    return false;
}

static bool any_unnamed(const memkit__pc *pcs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (pcs[i].name == NULL)
            return true;
    return false;
}

int memkit__symfile_name(memkit__symfiles *f, const memkit__module *m, bool program,
                         memkit__pc *pcs, size_t n, memkit__scratch *s)
{
    int rc = 0;
    if (open_module(f, m, program, s)) {
        rc = memkit__symtab_name(&f->file, pcs, n, s);
        if (rc == 0 && any_unnamed(pcs, n))
            rc = memkit__plt_name(&f->file, pcs, n, s);
        memkit__elf_close(&f->file);
    }
    if (rc == 0 && any_unnamed(pcs, n) && open_debug_file(f, m, s)) {
        rc = memkit__symtab_name(&f->debug, pcs, n, s);
        memkit__elf_close(&f->debug);
    }
    return rc;
}
