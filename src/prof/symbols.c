/* symbols.c - gives a profile's frames their names: locations, functions, mappings.
 *
 *     samples' frame words --(distinct)--> locations --(module, segment)--> mappings
 *                                              |
 *              grouped by module, sorted:     pcs ---> one pass over each file's symbols
 *                                              |                 (symtab.c, plt.c)
 *                                          functions  <--- (distinct texts), demangled
 *
 * - Locations are told apart by frame word, so that code of a library that is gone and of one that
 *   lies at the same address now are two; functions by their texts, as pprof tells them apart.
 * - One owner, no lock; all memory is of the scratch, but for what the demangler takes and frees.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "prof/demangle.h"
#include "prof/module.h"
#include "prof/profile.h"
#include "prof/symfile.h"

#define TEXT_OF(x) #x
#define AS_TEXT(x) TEXT_OF(x)
#define CUT_TEXT   "[stack cut at " AS_TEXT(MEMKIT_PROF_MAX_DEPTH) " frames]"

/* Open addressing over indices of some array; 0 is a free place, else index + 1. */
typedef struct {
    uint32_t *places;
    uint32_t mask, used;
} table;

typedef struct {
    const memkit__module *module;
    uint32_t segment; /* n_segments: all of it */
    bool unnamed;     /* some location has no function */
    bool used;
} mapping_source;

typedef struct {
    memkit__profile *p;
    memkit__scratch *s;
    uint32_t location_room, function_room, mapping_room, module_room, named_room;
    uint32_t n_modules, n_pcs, n_named;
    uint64_t *words; /* of the locations: their frame words */
    uint32_t *named; /* the few locations that have a name only */
    table by_word, by_text;
    mapping_source *sources; /* of the mappings */
    const memkit__module **modules, *program;
    memkit__pc *pcs;
    memkit__demangler demangler;
    memkit__symfiles files;
} resolver;

static uint64_t mix(uint64_t x)
{
    x *= UINT64_C(0x9e3779b97f4a7c15);
    return x ^ (x >> 29);
}

static uint64_t hash_text(const char *text)
{
    uint64_t h = 0;
    for (; *text != '\0'; text++)
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return mix(h);
}

/* Room for n + 1 objects in *array. */
static bool grow(resolver *r, void *array, uint32_t *room, uint32_t n, size_t size)
{
    void *old, *more;
    if (n < *room)
        return true;
    uint32_t wanted = *room == 0 ? 64 : *room * 2;
    if (wanted < *room || wanted == MEMKIT__NONE) {
        errno = ENOMEM;
        return false;
    }
    more = memkit__scratch_array(r->s, wanted, size);
    if (more == NULL)
        return false;
    memcpy(&old, array, sizeof old);
    if (n > 0)
        memcpy(more, old, n * size);
    memcpy(array, &more, sizeof more);
    *room = wanted;
    return true;
}

/* Makes the table twice as large when it is half full. */
static bool table_room(resolver *r, table *t, uint64_t (*hash_of)(const resolver *, uint32_t))
{
    if (t->places != NULL && t->used < t->mask / 2)
        return true;
    uint32_t places = t->places == NULL ? 1024 : (t->mask + 1) * 2;
    table next = {.places = memkit__scratch_array(r->s, places, sizeof *t->places),
                  .mask = places - 1,
                  .used = t->used};
    if (places == 0 || next.places == NULL) {
        errno = ENOMEM;
        return false;
    }
    for (uint32_t i = 0; t->places != NULL && i <= t->mask; i++) {
        if (t->places[i] == 0)
            continue;
        uint32_t at = (uint32_t)hash_of(r, t->places[i] - 1) & next.mask;
        while (next.places[at] != 0)
            at = (at + 1) & next.mask;
        next.places[at] = t->places[i];
    }
    *t = next;
    return true;
}

/* ---- functions ---------------------------------------------------------------------------------
 */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static uint64_t function_hash(const resolver *r, uint32_t i)
{
    return hash_text(r->p->functions[i].system_name);
}

/* Functions are told apart by name and file, as pprof does it. MEMKIT__NONE: ENOMEM. */
static uint32_t function_of(resolver *r, const char *name, const char *file)
{
    if (!table_room(r, &r->by_text, function_hash))
        return MEMKIT__NONE;
    uint32_t at = (uint32_t)hash_text(name) & r->by_text.mask;
    for (; r->by_text.places[at] != 0; at = (at + 1) & r->by_text.mask) {
        const memkit__function *f = &r->p->functions[r->by_text.places[at] - 1];
        if (same_text(f->system_name, name) && same_text(f->file, file))
            return r->by_text.places[at] - 1;
    }
    uint32_t n = r->p->n_functions;
    if (!grow(r, &r->p->functions, &r->function_room, n, sizeof *r->p->functions))
        return MEMKIT__NONE;
    const char *shown = memkit__demangle(&r->demangler, name, r->s);
    if (shown == NULL)
        return MEMKIT__NONE;
    r->p->functions[n] = (memkit__function){.name = shown, .system_name = name, .file = file};
    r->p->n_functions++;
    r->by_text.places[at] = n + 1;
    r->by_text.used++;
    return n;
}

/* ---- mappings ----------------------------------------------------------------------------------
 */

/* The mapping of one segment, added if new. MEMKIT__NONE: ENOMEM. */
static uint32_t mapping_of_segment(resolver *r, const memkit__module *m, uint32_t segment)
{
    uint32_t n = r->p->n_mappings, room = r->mapping_room;
    /* The latest are the likeliest, and there are some dozens. */
    for (uint32_t i = n; i-- > 0;)
        if (r->sources[i].module == m && r->sources[i].segment == segment)
            return i;
    if (!grow(r, &r->p->mappings, &r->mapping_room, n, sizeof *r->p->mappings) ||
        !grow(r, &r->sources, &room, n, sizeof *r->sources))
        return MEMKIT__NONE;
    memkit__mapping *x = &r->p->mappings[n];
    *x = (memkit__mapping){.start = m->start, .limit = m->end, .path = m->path};
    if (segment < m->n_segments) {
        x->start = m->segments[segment].start;
        x->limit = m->segments[segment].end;
        x->offset = m->segments[segment].offset;
    }
    char id[2 * MEMKIT__BUILD_ID_MAX + 1];
    x->build_id = memkit__scratch_strndup(r->s, id, memkit__build_id_text(m, id));
    if (x->build_id == NULL)
        return MEMKIT__NONE;
    r->sources[n] = (mapping_source){.module = m, .segment = segment};
    r->p->n_mappings++;
    return n;
}

static uint32_t segment_of(const memkit__module *m, uint64_t address)
{
    for (uint32_t i = 0; i < m->n_segments; i++)
        if (address >= m->segments[i].start && address < m->segments[i].end)
            return i;
    return m->n_segments;
}

/* Index in modules, added if new; MEMKIT__NONE: ENOMEM. Module ids are small and dense, but for the
 * list to be short a search from its end does. */
static uint32_t module_index(resolver *r, const memkit__module *m)
{
    for (uint32_t i = r->n_modules; i-- > 0;)
        if (r->modules[i] == m)
            return i;
    if (!grow(r, &r->modules, &r->module_room, r->n_modules, sizeof(const memkit__module *)))
        return MEMKIT__NONE;
    r->modules[r->n_modules] = m;
    return r->n_modules++;
}

/* The program's own mapping is the first in any case. */
static int add_program(resolver *r)
{
    uintptr_t entry = getauxval(AT_ENTRY);
    const memkit__module *m = entry != 0 ? memkit__module_at(entry) : NULL;
    if (m == NULL)
        return 0;
    r->program = m;
    uint32_t i = module_index(r, m);
    if (i == MEMKIT__NONE || mapping_of_segment(r, m, segment_of(m, entry)) == MEMKIT__NONE)
        return -1;
    return 0;
}

/* ---- locations ---------------------------------------------------------------------------------
 */

static uint64_t location_hash(const resolver *r, uint32_t i)
{
    return mix(r->words[i]);
}

static uint32_t add_location(resolver *r, uint64_t word, memkit__location l)
{
    uint32_t n = r->p->n_locations, room = r->location_room;
    if (!grow(r, &r->words, &room, n, sizeof *r->words) ||
        !grow(r, &r->p->locations, &r->location_room, n, sizeof *r->p->locations))
        return MEMKIT__NONE;
    r->words[n] = word;
    r->p->locations[n] = l;
    r->p->n_locations++;
    return n;
}

static uint32_t location_of_name(resolver *r, const char *name)
{
    uint32_t f = function_of(r, name, NULL);
    if (f == MEMKIT__NONE)
        return MEMKIT__NONE;
    for (uint32_t i = 0; i < r->n_named; i++)
        if (r->p->locations[r->named[i]].function == f)
            return r->named[i];
    if (!grow(r, &r->named, &r->named_room, r->n_named, sizeof *r->named))
        return MEMKIT__NONE;
    uint32_t at = add_location(r, 0, (memkit__location){.mapping = MEMKIT__NONE, .function = f});
    if (at != MEMKIT__NONE)
        r->named[r->n_named++] = at;
    return at;
}

static uint32_t location_of_word(resolver *r, uint64_t word)
{
    if (!table_room(r, &r->by_word, location_hash))
        return MEMKIT__NONE;
    uint32_t at = (uint32_t)mix(word) & r->by_word.mask;
    for (; r->by_word.places[at] != 0; at = (at + 1) & r->by_word.mask)
        if (r->words[r->by_word.places[at] - 1] == word)
            return r->by_word.places[at] - 1;
    uintptr_t pc = memkit__frame_pc(word);
    memkit__location l = {
        .address = pc > 0 ? pc - 1 : 0, .mapping = MEMKIT__NONE, .function = MEMKIT__NONE};
    const memkit__module *m = memkit__module_of(word);
    if (m != NULL) {
        l.mapping = mapping_of_segment(r, m, segment_of(m, l.address));
        if (l.mapping == MEMKIT__NONE)
            return MEMKIT__NONE;
    }
    uint32_t i = add_location(r, word, l);
    if (i == MEMKIT__NONE)
        return MEMKIT__NONE;
    r->by_word.places[at] = i + 1;
    r->by_word.used++;
    r->n_pcs += m != NULL;
    return i;
}

static int locate_sample(resolver *r, memkit__sample *x)
{
    uint32_t frames = x->frames != NULL ? x->depth : 0, n = 0;
    uint32_t *list = memkit__scratch_array(r->s, (size_t)frames + 2, sizeof *list);
    if (list == NULL)
        return -1;
    if (x->frames == NULL && x->name != NULL)
        list[n++] = location_of_name(r, x->name);
    for (uint32_t i = 0; i < frames; i++)
        list[n++] = location_of_word(r, x->frames[i]);
    if (x->cut)
        list[n++] = location_of_name(r, CUT_TEXT);
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == MEMKIT__NONE)
            return -1;
    x->locations = list;
    x->depth = n;
    return 0;
}

/* ---- names -------------------------------------------------------------------------------------
 */

static bool pc_before(const memkit__pc *a, const memkit__pc *b)
{
    return a->module != b->module ? a->module < b->module : a->at < b->at;
}

static void sift(memkit__pc *pcs, size_t i, size_t n)
{
    memkit__pc x = pcs[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && pc_before(&pcs[child], &pcs[child + 1]))
            child++;
        if (!pc_before(&x, &pcs[child]))
            break;
        pcs[i] = pcs[child];
    }
    pcs[i] = x;
}

/* In place: qsort may malloc. */
static void sort_pcs(memkit__pc *pcs, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(pcs, i, n);
    for (size_t end = n; end-- > 1;) {
        memkit__pc first = pcs[0];
        pcs[0] = pcs[end];
        pcs[end] = first;
        sift(pcs, 0, end);
    }
}

static int collect_pcs(resolver *r)
{
    uint32_t n = 0;
    r->pcs = memkit__scratch_array(r->s, r->n_pcs, sizeof *r->pcs);
    if (r->pcs == NULL)
        return -1;
    for (uint32_t i = 0; i < r->p->n_locations; i++) {
        const memkit__location *l = &r->p->locations[i];
        if (l->mapping == MEMKIT__NONE)
            continue;
        const memkit__module *m = r->sources[l->mapping].module;
        uint32_t module = module_index(r, m);
        if (module == MEMKIT__NONE)
            return -1;
        r->pcs[n++] = (memkit__pc){.at = l->address - m->bias, .module = module, .location = i};
    }
    sort_pcs(r->pcs, n);
    return 0;
}

static int name_locations(resolver *r)
{
    for (size_t i = 0, end; i < r->n_pcs; i = end) {
        for (end = i + 1; end < r->n_pcs && r->pcs[end].module == r->pcs[i].module;)
            end++;
        if (memkit__symfile_name(&r->files, r->modules[r->pcs[i].module],
                                 r->modules[r->pcs[i].module] == r->program, r->pcs + i, end - i,
                                 r->s) != 0)
            return -1;
    }
    for (size_t i = 0; i < r->n_pcs; i++) {
        memkit__location *l = &r->p->locations[r->pcs[i].location];
        mapping_source *source = &r->sources[l->mapping];
        source->used = true;
        if (r->pcs[i].name == NULL) {
            source->unnamed = true;
            continue;
        }
        l->function = function_of(r, r->pcs[i].name, r->pcs[i].file);
        if (l->function == MEMKIT__NONE)
            return -1;
    }
    for (uint32_t i = 0; i < r->p->n_mappings; i++)
        r->p->mappings[i].has_functions = r->sources[i].used && !r->sources[i].unnamed;
    return 0;
}

int memkit__profile_resolve(memkit__profile *p, memkit__scratch *s)
{
    resolver r = {.p = p, .s = s, .files = {.file.fd = -1, .debug.fd = -1}};
    p->n_locations = p->n_functions = p->n_mappings = 0;
    p->locations = NULL;
    p->functions = NULL;
    p->mappings = NULL;
    if (add_program(&r) != 0)
        return -1;
    for (uint32_t i = 0; i < p->n_samples; i++)
        if (locate_sample(&r, &p->samples[i]) != 0)
            return -1;
    return collect_pcs(&r) == 0 && name_locations(&r) == 0 ? 0 : -1;
}
