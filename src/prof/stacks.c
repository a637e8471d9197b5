/* stacks.c - the stacks of a profile as people look at them: named, merged, sorted.
 *
 *     locations --name--> label of each --sort, number--> rank of each
 *     samples   --ranks, root first, without what is dropped--> sort --> equal neighbours merged
 *
 * All of it is scratch. Linear in the profile but for the two sorts, which compare numbers.
 */
#include "prof/stacks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "prof/out.h"
#include "prof/sort.h"

typedef struct {
    const memkit__profile *p;
    memkit__stacks_kind kind;
    memkit__scratch *s;
    memkit__label *names; /* of each location, then of each sample's thread, then of "no stack" */
    uint32_t n;
    uint32_t *rank; /* of each of names */
    bool *drops;    /* of each location */
    memkit__stack *rows;
} maker;

int64_t memkit__saturating_add(int64_t a, int64_t b)
{
    int64_t sum;
    if (!__builtin_add_overflow(a, b, &sum))
        return sum;
    return a < 0 ? INT64_MIN : INT64_MAX;
}

uint32_t memkit__type_named(const memkit__profile *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_types; i++)
        if (strcmp(p->types[i].type, name) == 0)
            return i;
    return MEMKIT__NONE;
}

uint32_t memkit__type_pair(const memkit__profile *p, uint32_t type)
{
    char other[64];
    const char *name = p->types[type].type, *end = strrchr(name, '_');
    if (end == NULL) /* a CPU profile's: "samples" beside "cpu" */
        return strcmp(name, "cpu") == 0 ? memkit__type_named(p, "samples") : MEMKIT__NONE;
    const char *pair = strcmp(end, "_space") == 0     ? "objects"
                       : strcmp(end, "_objects") == 0 ? "space"
                                                      : NULL;
    if (pair == NULL)
        return MEMKIT__NONE;
    int n = snprintf(other, sizeof other, "%.*s_%s", (int)(end - name), name, pair);
    return n < (int)sizeof other ? memkit__type_named(p, other) : MEMKIT__NONE;
}

/* ---- names ---- */

static const char *file_of(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL ? slash + 1 : path != NULL ? path : "";
}

/* The text without what would break a line of folded stacks. NULL: ENOMEM. */
static const char *harmless(const char *text, memkit__scratch *s)
{
    size_t n = strlen(text);
    char *copy = memkit__scratch_strndup(s, text, n);
    if (copy == NULL)
        return NULL;
    for (size_t i = 0, step; i < n; i += step) {
        step = memkit__utf8(copy + i, n - i);
        if (step == 0) {
            step = 1;
            copy[i] = '?';
        } else if ((unsigned char)copy[i] < ' ' || copy[i] == 0x7f) {
            copy[i] = ' ';
        } else if (copy[i] == ';') {
            copy[i] = ':';
        }
    }
    return copy;
}

static int name_location(maker *m, const memkit__location *l, memkit__label *out)
{
    const memkit__profile *p = m->p;
    const memkit__mapping *map = l->mapping < p->n_mappings ? &p->mappings[l->mapping] : NULL;
    const char *name = l->function < p->n_functions ? p->functions[l->function].name : NULL;
    const char *module = map != NULL ? file_of(map->path) : "";
    char text[512];
    if (name == NULL || *name == '\0') {
        if (map != NULL)
            snprintf(text, sizeof text, "%.400s+0x%llx", *module != '\0' ? module : "[anonymous]",
                     (unsigned long long)(l->address - map->start + map->offset));
        else
            snprintf(text, sizeof text, "0x%llx", (unsigned long long)l->address);
        name = memkit__scratch_strndup(m->s, text, strlen(text));
    }
    *out = (memkit__label){name, m->kind == MEMKIT__BY_NAME ? "" : module};
    return name != NULL ? 0 : -1;
}

static int order_of_names(const void *ctx, uint32_t a, uint32_t b)
{
    const memkit__label *names = ctx;
    int by_name = names[a].name == names[b].name ? 0 : strcmp(names[a].name, names[b].name);
    return by_name != 0 ? by_name : strcmp(names[a].module, names[b].module);
}

/* Gives equal names equal numbers, in their order. */
static int rank_names(maker *m, memkit__stacks *out)
{
    uint32_t *index = memkit__scratch_array(m->s, m->n, sizeof *index);
    memkit__label *labels = memkit__scratch_array(m->s, m->n, sizeof *labels);
    m->rank = memkit__scratch_array(m->s, m->n, sizeof *m->rank);
    if (index == NULL || labels == NULL || m->rank == NULL)
        return -1;
    for (uint32_t i = 0; i < m->n; i++)
        index[i] = i;
    if (memkit__sort(index, m->n, order_of_names, m->names, m->s) != 0)
        return -1;
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        if (i == 0 || order_of_names(m->names, index[i - 1], index[i]) != 0)
            labels[n++] = m->names[index[i]];
        m->rank[index[i]] = n - 1;
    }
    out->labels = labels;
    out->n_labels = n;
    return 0;
}

static int name_all(maker *m, memkit__stacks *out)
{
    const memkit__profile *p = m->p;
    m->n = p->n_locations + p->n_samples + 1;
    m->names = memkit__scratch_array(m->s, m->n, sizeof *m->names);
    m->drops = memkit__scratch_array(m->s, (size_t)p->n_locations + 1, sizeof *m->drops);
    if (m->names == NULL || m->drops == NULL)
        return -1;
    for (uint32_t i = 0; i < p->n_locations; i++) {
        const memkit__location *l = &p->locations[i];
        if (name_location(m, l, &m->names[i]) != 0)
            return -1;
        m->drops[i] =
            l->function < p->n_functions && memkit__profile_drops(p, &p->functions[l->function]);
    }
    for (uint32_t i = 0; i < p->n_samples; i++) {
        const char *thread = p->samples[i].thread;
        m->names[p->n_locations + i] =
            (memkit__label){thread != NULL && *thread != '\0' ? thread : "[no stack]",
                            thread != NULL && m->kind == MEMKIT__BY_MODULE ? "[thread]" : ""};
    }
    m->names[m->n - 1] = (memkit__label){"[no stack]", ""};
    if (m->kind == MEMKIT__BY_NAME)
        for (uint32_t i = 0; i < m->n; i++)
            if ((m->names[i].name = harmless(m->names[i].name, m->s)) == NULL)
                return -1;
    return rank_names(m, out);
}

/* ---- stacks ---- */

/* How many of the sample's locations are left: counted from the root, up to the first dropped one
 * that has a frame before it which is not. As pprof does, so a stack never becomes empty. */
static uint32_t kept(const maker *m, const memkit__sample *x)
{
    bool any = false;
    for (uint32_t i = x->depth; i > 0; i--) {
        bool drops = m->drops[x->locations[i - 1]];
        if (drops && any)
            return x->depth - i;
        any = any || !drops;
    }
    return x->depth;
}

static int stack_of(const maker *m, uint32_t sample, memkit__stack *row)
{
    const memkit__profile *p = m->p;
    const memkit__sample *x = &p->samples[sample];
    bool thread = x->thread != NULL && *x->thread != '\0';
    for (uint32_t i = 0; i < x->depth; i++)
        if (x->locations == NULL || x->locations[i] >= p->n_locations) {
            errno = EINVAL;
            return -1;
        }
    uint32_t n = kept(m, x), at = 0;
    uint32_t *labels = memkit__scratch_array(m->s, (size_t)n + 1, sizeof *labels);
    if (labels == NULL)
        return -1;
    if (thread)
        labels[at++] = m->rank[p->n_locations + sample];
    for (uint32_t i = 0; i < n; i++)
        labels[at++] = m->rank[x->locations[x->depth - 1 - i]];
    if (at == 0)
        labels[at++] = m->rank[m->n - 1];
    row->labels = labels;
    row->depth = at;
    return 0;
}

static int order_of_stacks(const void *ctx, uint32_t a, uint32_t b)
{
    const maker *m = ctx;
    const memkit__stack *x = &m->rows[a], *y = &m->rows[b];
    uint32_t n = x->depth < y->depth ? x->depth : y->depth;
    for (uint32_t i = 0; i < n; i++)
        if (x->labels[i] != y->labels[i])
            return x->labels[i] < y->labels[i] ? -1 : 1;
    return x->depth == y->depth ? 0 : x->depth < y->depth ? -1 : 1;
}

int64_t memkit__stack_sum(const memkit__stacks *k, const memkit__stack *stack, uint32_t type)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < stack->count; i++)
        sum = memkit__saturating_add(sum, k->p->samples[k->order[stack->first + i]].values[type]);
    return sum;
}

static bool has_any(const memkit__profile *p, const memkit__sample *x)
{
    for (uint32_t i = 0; i < p->n_types; i++)
        if (x->values[i] != 0)
            return true;
    return false;
}

/* Neighbours in the order that are equal become one row. */
static int merge(const maker *m, memkit__stacks *out, uint32_t n, uint32_t type)
{
    out->stacks = memkit__scratch_array(m->s, n, sizeof *out->stacks);
    if (out->stacks == NULL)
        return -1;
    for (uint32_t i = 0, next; i < n; i = next) {
        memkit__stack row = m->rows[out->order[i]];
        for (next = i + 1; next < n; next++)
            if (order_of_stacks(m, out->order[i], out->order[next]) != 0)
                break;
        row.first = i;
        row.count = next - i;
        row.value = memkit__stack_sum(out, &row, type);
        if (m->kind == MEMKIT__BY_NAME && row.value == 0)
            continue;
        out->total = memkit__saturating_add(out->total, row.value);
        out->stacks[out->n_stacks++] = row;
    }
    return 0;
}

int memkit__stacks_make(memkit__stacks *out, const memkit__profile *p, uint32_t type,
                        memkit__stacks_kind kind, memkit__scratch *s)
{
    maker m = {.p = p, .kind = kind, .s = s};
    *out = (memkit__stacks){.p = p};
    if (type >= p->n_types) {
        errno = EINVAL;
        return -1;
    }
    if (name_all(&m, out) != 0)
        return -1;
    uint32_t n = 0, *order = memkit__scratch_array(s, p->n_samples, sizeof *order);
    m.rows = memkit__scratch_array(s, p->n_samples, sizeof *m.rows);
    if (order == NULL || m.rows == NULL)
        return -1;
    for (uint32_t i = 0; i < p->n_samples; i++) {
        if (!has_any(p, &p->samples[i]))
            continue;
        if (stack_of(&m, i, &m.rows[i]) != 0)
            return -1;
        order[n++] = i;
    }
    out->order = order;
    if (memkit__sort(order, n, order_of_stacks, &m, s) != 0)
        return -1;
    return merge(&m, out, n, type);
}
