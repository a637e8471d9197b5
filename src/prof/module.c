/* module.c - what is loaded: the program, its libraries, the vdso, as they were when first seen.
 *
 *     buckets[hash of the link map] --> node --> node      found by who it is, newest first
 *     all --------------------------> node --> node --> .. every one, newest first
 *
 * - A node is written whole, then linked in with a compare-and-swap, and its module never changes
 *   or goes away. Whoever loses the race to link one in looks again, so that a module is in only
 * once; the loser's memory is kept memory and small.
 * - Who lies at an address is asked of the loader each time: _dl_find_object (glibc 2.35) takes no
 *   lock and may be called in signal handlers. Where there is none (older glibc, musl), only what
 *   the last memkit__modules_prepare saw is known: code loaded later is in no module, and a library
 *   loaded where another was is taken for the other until prepare is called again.
 * - A library may be loaded where another lay before, even with the same link map address. So a
 *   module is the same one only if its range and its fingerprint (path, build id or else its
 *   headers) are; the fingerprint is compared where the module may be unloaded at all.
 * - What was loaded when our constructor ran stays: that is the program, what it needs, and what
 *   is preloaded. The loader lists objects in order of loading, so they are the first ones of its
 *   list. (A library that a constructor before ours loaded by dlopen counts among them.)
 * - All that is read of a module lies in its own readable segments, and the first page is asked
 *   for by a system call before it is read at all: nothing here faults.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prof/module.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "prof/frame.h"
#include "prof/mem.h"
#include "prof/unwind_impl.h"

#define PAGE     ((uintptr_t)4096)
#define BUCKETS  256u
#define MAX_ID   0xffffu /* as many as fit a frame word */
#define MAX_NOTE ((size_t)64 * 1024)

typedef struct node {
    memkit__module m;
    uint64_t fingerprint;
    atomic_bool lies_there; /* rather than another one that was noted at its place */
    struct node *in_bucket, *in_all;
} node;

/* Where an object lies, as the loader says. */
typedef struct {
    uintptr_t start, end;
    const void *identity;
    const char *path;
    const ElfW(Phdr) * phdr; /* NULL: they follow the ELF header at start */
    size_t n_phdr;
} place;

/* As glibc declares it; declared here for libcs that do not. */
typedef struct {
    unsigned long long flags;
    void *map_start, *map_end;
    struct link_map *link_map;
    void *eh_frame;
    unsigned long long reserved[7];
} found_object;
typedef int find_fn(void *, found_object *);

static _Atomic(node *) buckets[BUCKETS];
static _Atomic(node *) all;
static atomic_uint last_id;
static _Atomic(find_fn *) find_object;
static atomic_ullong startup_adds; /* objects loaded when our constructor ran; 0: not yet asked */
static char program_path[1024];    /* of the program */
static _Atomic uintptr_t vdso;
_Atomic uint32_t memkit__modules_replaced;

/* ---- reading one ---- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t fingerprint_of(const memkit__module *m, const place *at)
{
    uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), at->path, strlen(at->path));
    if (m->build_id_size > 0)
        return mix(hash, (const void *)m->build_id_at, m->build_id_size);
    hash = mix(hash, &m->eh_frame_hdr, sizeof m->eh_frame_hdr);
    if (m->eh_frame_hdr != 0) /* its table of functions tells one build from another */
        hash = mix(hash, (const void *)m->eh_frame_hdr,
                   m->eh_frame_hdr_size < 256 ? m->eh_frame_hdr_size : 256);
    return hash;
}

static bool inside(const memkit__module *m, uintptr_t from, size_t bytes)
{
    return from >= m->start && from <= m->end && bytes <= m->end - from;
}

MEMKIT__READS_ANYTHING static void read_notes(memkit__module *m, uintptr_t p, size_t bytes)
{
    if (!inside(m, p, bytes) || bytes > MAX_NOTE || (p & 3) != 0 || !memkit__readable(p, bytes))
        return;
    for (uintptr_t end = p + bytes; end - p >= sizeof(ElfW(Nhdr));) {
        const ElfW(Nhdr) *note = (const void *)p;
        size_t name = ((size_t)note->n_namesz + 3) & ~(size_t)3;
        size_t desc = ((size_t)note->n_descsz + 3) & ~(size_t)3;
        size_t room = end - p - sizeof *note;
        if (name > room || desc > room - name)
            return;
        const char *text = (const char *)(note + 1);
        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(text, "GNU", 4) == 0 &&
            note->n_descsz <= sizeof m->build_id) {
            m->build_id_size = (uint8_t)note->n_descsz;
            m->build_id_at = (uintptr_t)text + name;
            memcpy(m->build_id, text + name, note->n_descsz);
        }
        p += sizeof *note + name + desc;
    }
}

/* The readable segment that holds the unwind tables bounds what the unwinder reads of them. */
static void note_tables(memkit__module *m, const ElfW(Phdr) * phdr, size_t n)
{
    uintptr_t hdr = m->eh_frame_hdr;
    for (size_t i = 0; i < n && hdr != 0; i++) {
        uintptr_t start = m->bias + phdr[i].p_vaddr;
        if (phdr[i].p_type != PT_LOAD || (phdr[i].p_flags & PF_R) == 0 || hdr < start ||
            hdr - start >= phdr[i].p_memsz || !inside(m, start, phdr[i].p_memsz))
            continue;
        uintptr_t end = start + phdr[i].p_memsz;
        if (end - hdr >= m->eh_frame_hdr_size && memkit__readable(hdr, m->eh_frame_hdr_size)) {
            m->tables_start = start;
            m->tables_end = end;
            return;
        }
    }
    m->eh_frame_hdr = 0;
    m->eh_frame_hdr_size = 0;
}

static void read_segments(memkit__module *m, const ElfW(Phdr) * phdr, size_t n)
{
    uintptr_t lowest = UINTPTR_MAX;
    for (size_t i = 0; i < n; i++)
        if (phdr[i].p_type == PT_LOAD && phdr[i].p_vaddr < lowest)
            lowest = phdr[i].p_vaddr;
    if (lowest == UINTPTR_MAX)
        return;
    m->bias = m->start - (lowest & ~(PAGE - 1));
    for (size_t i = 0; i < n; i++) {
        uintptr_t at = m->bias + phdr[i].p_vaddr;
        size_t bytes = phdr[i].p_memsz;
        if (!inside(m, at, bytes))
            continue;
        if (phdr[i].p_type == PT_LOAD && (phdr[i].p_flags & PF_X) != 0 &&
            m->n_segments < MEMKIT__SEGMENTS) {
            m->segments[m->n_segments].start = at;
            m->segments[m->n_segments].end = at + bytes;
            m->segments[m->n_segments].offset = phdr[i].p_offset;
            m->n_segments++;
        } else if (phdr[i].p_type == PT_NOTE && m->build_id_size == 0) {
            read_notes(m, at, bytes);
        } else if (phdr[i].p_type == PT_GNU_EH_FRAME) {
            m->eh_frame_hdr = at;
            m->eh_frame_hdr_size = bytes;
        }
    }
    note_tables(m, phdr, n);
}

MEMKIT__READS_ANYTHING static void read_module(memkit__module *m, const place *at)
{
    m->start = at->start;
    m->end = at->end;
    m->identity = at->identity;
    if (at->phdr != NULL) {
        read_segments(m, at->phdr, at->n_phdr);
        return;
    }
    const ElfW(Ehdr) *e = (const void *)at->start;
    if (at->end - at->start < sizeof *e || !memkit__readable(at->start, sizeof *e) ||
        memcmp(e->e_ident, ELFMAG, SELFMAG) != 0 || e->e_phentsize != sizeof(ElfW(Phdr)) ||
        e->e_phoff % sizeof(void *) != 0 || !inside(m, at->start + e->e_phoff, 0))
        return;
    size_t bytes = (size_t)e->e_phnum * sizeof(ElfW(Phdr));
    if (inside(m, at->start + e->e_phoff, bytes) && memkit__readable(at->start + e->e_phoff, bytes))
        read_segments(m, (const void *)(at->start + e->e_phoff), e->e_phnum);
}

/* ---- the list ---- */

static _Atomic(node *) *bucket_of(const void *identity)
{
    uint64_t hash = (uintptr_t)identity * UINT64_C(0x9e3779b97f4a7c15);
    return &buckets[hash >> 56];
}

static bool is_at(const node *n, const place *at)
{
    return n->m.identity == at->identity && n->m.start == at->start && n->m.end == at->end &&
           (n->m.stays || n->fingerprint == fingerprint_of(&n->m, at));
}

static node *search(node *from, const place *at)
{
    for (node *n = from; n != NULL; n = n->in_bucket)
        if (is_at(n, at))
            return n;
    return NULL;
}

/* It is the one that lies there now. Where another did, that one's rules are void: unwind.c. */
static const memkit__module *take_place(node *n)
{
    if (atomic_load_explicit(&n->lies_there, memory_order_relaxed))
        return &n->m;
    bool replaces = false;
    for (node *o = atomic_load(&all); o != NULL; o = o->in_all)
        if (o != n && o->m.start < n->m.end && n->m.start < o->m.end)
            replaces |= atomic_exchange(&o->lies_there, false);
    atomic_store(&n->lies_there, true);
    if (replaces)
        atomic_fetch_add(&memkit__modules_replaced, 1);
    return &n->m;
}

static node *new_node(const place *at, bool stays)
{
    size_t path = strlen(at->path) + 1;
    node *n = memkit__kept_alloc(sizeof *n + path);
    if (n == NULL)
        return NULL;
    n->m.stays = stays;
    memcpy(n + 1, at->path, path);
    n->m.path = (const char *)(n + 1);
    read_module(&n->m, at);
    n->fingerprint = fingerprint_of(&n->m, at);
    n->m.id = atomic_fetch_add(&last_id, 1) + 1;
    return n;
}

/* The module there, noted if it is new. */
static const memkit__module *note(const place *at, bool stays)
{
    _Atomic(node *) *bucket = bucket_of(at->identity);
    node *head = atomic_load_explicit(bucket, memory_order_acquire);
    node *n = search(head, at);
    if (n != NULL)
        return take_place(n);
    node *made = new_node(at, stays);
    if (made == NULL)
        return NULL;
    do {
        n = search(head, at); /* another thread may have been faster */
        if (n != NULL)
            return take_place(n);
        made->in_bucket = head;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &head, made, memory_order_acq_rel,
                                                    memory_order_acquire));
    made->in_all = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &made->in_all, made))
        ;
    return take_place(made);
}

/* ---- the loader ---- */

static const char *path_of(uintptr_t start, const char *name, const void *identity)
{
    if (start == atomic_load_explicit(&vdso, memory_order_relaxed))
        return "[vdso]";
    if (name != NULL && name[0] != '\0')
        return name;
    return identity != NULL ? program_path : "";
}

/* The loader writes a link map whole before it lets _dl_find_object see it; by means of its own,
 * which the thread sanitizer does not know of. */
MEMKIT__READS_ANYTHING static bool loader_finds(uintptr_t pc, place *at)
{
    find_fn *find = atomic_load_explicit(&find_object, memory_order_acquire);
    found_object o;
    if (find == NULL || find((void *)pc, &o) != 0)
        return false;
    *at = (place){
        .start = (uintptr_t)o.map_start, .end = (uintptr_t)o.map_end, .identity = o.link_map};
    const char *name = (const char *)memkit__word((uintptr_t)&o.link_map->l_name);
    at->path = path_of(at->start, name, o.link_map);
    return true;
}

static const memkit__module *noted_at(uintptr_t pc, bool staying_only)
{
    for (node *n = atomic_load(&all); n != NULL; n = n->in_all)
        if (pc >= n->m.start && pc < n->m.end && (n->m.stays || !staying_only))
            return &n->m;
    return NULL;
}

const memkit__module *memkit__module_at(uintptr_t pc)
{
    place at;
    if (loader_finds(pc, &at))
        return note(&at, false);
    if (atomic_load_explicit(&find_object, memory_order_relaxed) != NULL)
        return NULL;
    return noted_at(pc, false);
}

const memkit__module *memkit__module_of(uint64_t frame)
{
    uint32_t id = memkit__frame_module(frame);
    uintptr_t pc = memkit__frame_pc(frame) - 1;
    if (id != 0) {
        for (node *n = atomic_load(&all); n != NULL; n = n->in_all)
            if (n->m.id == id)
                return &n->m;
        return NULL;
    }
    const memkit__module *m = noted_at(pc, true);
    if (m != NULL || atomic_load(&last_id) <= MAX_ID)
        return m;
    m = noted_at(pc, false); /* one whose number did not fit the word */
    return m != NULL && m->id > MAX_ID ? m : NULL;
}

/* Counts what was loaded so far, from the first object alone. */
static int count_adds(struct dl_phdr_info *info, size_t size, void *arg)
{
    if (size >= offsetof(struct dl_phdr_info, dlpi_adds) + sizeof info->dlpi_adds)
        *(unsigned long long *)arg = info->dlpi_adds;
    return 1;
}

__attribute__((constructor)) static void remember_startup(void)
{
    unsigned long long adds = 0, none = 0;
    if (atomic_load(&startup_adds) != 0) /* a later start; the loader's lock is spared */
        return;
    dl_iterate_phdr(count_adds, &adds);
    atomic_compare_exchange_strong(&startup_adds, &none, adds);
}

typedef struct {
    unsigned long long index;
    bool failed;
} noting;

static bool range_of(const struct dl_phdr_info *info, place *at)
{
    uintptr_t low = UINTPTR_MAX, high = 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD)
            continue;
        low = p->p_vaddr < low ? p->p_vaddr : low;
        high = p->p_vaddr + p->p_memsz > high ? p->p_vaddr + p->p_memsz : high;
    }
    if (low >= high)
        return false;
    *at = (place){.start = info->dlpi_addr + (low & ~(PAGE - 1)),
                  .end = info->dlpi_addr + high,
                  .identity = info->dlpi_phdr,
                  .phdr = info->dlpi_phdr,
                  .n_phdr = info->dlpi_phnum};
    at->path = path_of(at->start, info->dlpi_name, info);
    return true;
}

static int note_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    noting *n = arg;
    bool stays = n->index++ < atomic_load(&startup_adds);
    place by_headers, by_loader;
    if (!range_of(info, &by_headers))
        return 0;
    /* The loader's own answer, where it gives one, so that it compares equal later. */
    const place *at = loader_finds(by_headers.start, &by_loader) ? &by_loader : &by_headers;
    n->failed |= note(at, stays) == NULL;
    return 0;
}

static void find_loader(void)
{
    void *f = dlsym(RTLD_DEFAULT, "_dl_find_object");
    find_fn *find;
    memcpy(&find, &f, sizeof find);
    atomic_store(&find_object, find);
    atomic_store(&vdso, (uintptr_t)getauxval(AT_SYSINFO_EHDR));
    ssize_t n = readlink("/proc/self/exe", program_path, sizeof program_path - 1);
    program_path[n > 0 ? n : 0] = '\0';
}

int memkit__modules_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    remember_startup();
    pthread_once(&once, find_loader);
    noting n = {0, false};
    dl_iterate_phdr(note_one, &n);
    if (n.failed) {
        errno = ENOMEM;
        return -1;
    }
    return 0;
}
