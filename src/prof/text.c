/* text.c - a profile for people: what it is, a table, the largest first, and each stack in full.
 *
 * The format is memkit's own (its first line says so), made for 100 columns:
 *
 *      #    value       +-     %  cum% objects     mean temp% other median  function < callers
 *      1 10.2 MiB 1.20 MiB  82.9  82.9    1024 10.2 KiB     0     0  <10ms  json_parse < main
 *
 * The number leads from a row to its stack below the table. What a profile does not count (a CPU
 * profile no lifetimes) has no column.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "prof/out.h"
#include "prof/sort.h"
#include "prof/stacks.h"
#include "prof/types.h"

#define COLUMNS 100
#define BAR     40

typedef struct {
    int64_t value, second; /* second orders the rows that have none of the value */
    double variance;
    bool exact;
} figures;

typedef struct {
    const memkit__profile *p;
    uint32_t type, pair;
    bool counts_lives; /* has the types of a heap profile that tell of lives */
    uint32_t freed, temporary, foreign;
    memkit__stacks k;
    figures *rows; /* one a stack */
    figures total;
    uint32_t *order;
    memkit__out o;
} text;

/* ---- figures ---- */

/* Square root by Newton's steps: one that is exact to the digits shown needs no libm. */
static double root(double x)
{
    if (!(x > 0))
        return 0;
    double r = x > 1 ? x : 1;
    for (int i = 0; i < 600; i++) {
        double next = (r + x / r) / 2;
        if (next >= r)
            break;
        r = next;
    }
    return r;
}

static int64_t rounded(double x)
{
    return x >= 9e18 ? INT64_MAX : (int64_t)(x + 0.5);
}

static void add_variance(const text *t, const memkit__stack *stack, uint32_t type, figures *f)
{
    for (uint32_t i = 0; i < stack->count; i++) {
        const memkit__sample *x = &t->p->samples[t->k.order[stack->first + i]];
        if (x->variance != NULL) {
            f->variance += x->variance[type];
            f->exact = false;
        }
    }
}

static memkit__short error_of(const figures *f, const char *unit)
{
    if (f->exact)
        return (memkit__short){"exact"};
    return memkit__short_value(rounded(root(f->variance)), unit);
}

static void measure(text *t)
{
    uint32_t second = memkit__type_named(t->p, "alloc_space");
    t->total = (figures){.exact = true, .value = t->k.total};
    for (uint32_t i = 0; i < t->k.n_stacks; i++) {
        figures *f = &t->rows[i];
        const memkit__stack *stack = &t->k.stacks[i];
        *f = (figures){.exact = true, .value = stack->value};
        f->second = second != MEMKIT__NONE ? memkit__stack_sum(&t->k, stack, second) : 0;
        add_variance(t, stack, t->type, f);
        t->total.variance += f->variance;
        t->total.exact = t->total.exact && f->exact;
    }
}

static int largest_first(const void *ctx, uint32_t a, uint32_t b)
{
    const figures *x = &((const figures *)ctx)[a], *y = &((const figures *)ctx)[b];
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->second == y->second ? 0 : x->second > y->second ? -1 : 1;
}

/* ---- lifetimes ---- */

static bool is_lifetime(const memkit__profile *p, uint32_t type)
{
    const char *name = p->types[type].type;
    return strncmp(name, "lt_", 3) == 0 || strncmp(name, "ge_", 3) == 0;
}

/* "lt_10us" is "<10us", "ge_100s" ">=100s". */
static memkit__short lifetime_name(const char *type)
{
    memkit__short out;
    snprintf(out.s, sizeof out.s, "%s%.20s", type[0] == 'l' ? "<" : ">=", type + 3);
    return out;
}

/* The bucket in which half of the blocks that died had died. */
static memkit__short median(const text *t, const memkit__stack *stack)
{
    int64_t all = 0, seen = 0;
    for (uint32_t i = 0; i < t->p->n_types; i++)
        if (is_lifetime(t->p, i))
            all = memkit__saturating_add(all, memkit__stack_sum(&t->k, stack, i));
    for (uint32_t i = 0; i < t->p->n_types && all > 0; i++) {
        if (!is_lifetime(t->p, i))
            continue;
        seen = memkit__saturating_add(seen, memkit__stack_sum(&t->k, stack, i));
        if (seen >= all - seen)
            return lifetime_name(t->p->types[i].type);
    }
    return (memkit__short){"-"};
}

/* ---- head ---- */

static void put_head(text *t)
{
    const memkit__profile *p = t->p;
    const memkit__value_type *type = &p->types[t->type];
    memkit__out *o = &t->o;
    memkit__out_fmt(o, "memkit profile for people, in a format of its own: %s, %s\n\n", type->type,
                    type->unit);
    if (p->time_ns != 0)
        memkit__out_fmt(o, "taken    %s\n", memkit__short_time(p->time_ns).s);
    if (p->duration_ns != 0)
        memkit__out_fmt(o, "over     %s\n", memkit__short_value(p->duration_ns, "nanoseconds").s);
    memkit__out_str(o, "rate     ");
    memkit__out_rate(o, p);
    memkit__out_fmt(o, "\ntotal    %s", memkit__short_value(t->total.value, type->unit).s);
    if (!t->total.exact)
        memkit__out_fmt(o, " +- %s", error_of(&t->total, type->unit).s);
    memkit__out_fmt(o, " (%s %s%s), %u stacks\n", memkit__short_thousands(t->total.value).s,
                    type->unit, t->total.exact ? ", exact" : "", t->k.n_stacks);
    for (uint32_t i = 0; i < p->n_comments; i++)
        memkit__out_fmt(o, "note     %s\n", p->comments[i]);
    memkit__out_str(o, "\n");
}

/* ---- table ---- */

static bool is_space(const memkit__value_type *type)
{
    return strcmp(type->unit, "count") != 0;
}

/* Bytes have a mean an object; time a sample has none worth a column. */
static bool has_mean(const text *t)
{
    return strcmp(t->p->types[t->type].unit, "nanoseconds") != 0 &&
           strcmp(t->p->types[t->pair].unit, "nanoseconds") != 0;
}

static void put_columns(text *t)
{
    memkit__out *o = &t->o;
    memkit__out_fmt(o, "%4s %8s %8s %5s %5s", "#", "value", "+-", "%", "cum%");
    if (t->pair != MEMKIT__NONE && !has_mean(t))
        memkit__out_fmt(o, " %7s", t->p->types[t->pair].type);
    else if (t->pair != MEMKIT__NONE)
        memkit__out_fmt(o, is_space(&t->p->types[t->type]) ? " %7s %8s" : " %8s %8s",
                        is_space(&t->p->types[t->type]) ? "objects" : "size", "mean");
    if (t->counts_lives)
        memkit__out_fmt(o, " %5s %5s %6s", "temp%", "other", "median");
    memkit__out_str(o, "  function < callers\n");
}

static void put_pair(text *t, const memkit__stack *stack)
{
    const memkit__value_type *type = &t->p->types[t->type], *pair = &t->p->types[t->pair];
    int64_t other = memkit__stack_sum(&t->k, stack, t->pair);
    bool space = is_space(type);
    int64_t bytes = space ? stack->value : other, objects = space ? other : stack->value;
    memkit__out_fmt(&t->o, space ? " %7s" : " %8s", memkit__short_value(other, pair->unit).s);
    if (!has_mean(t))
        return;
    const char *unit = space ? type->unit : pair->unit;
    memkit__out_fmt(&t->o, " %8s",
                    objects > 0 ? memkit__short_value(bytes / objects, unit).s : "-");
}

static void put_lives(text *t, const memkit__stack *stack)
{
    int64_t freed = memkit__stack_sum(&t->k, stack, t->freed);
    int64_t temporary = memkit__stack_sum(&t->k, stack, t->temporary);
    int64_t foreign = memkit__stack_sum(&t->k, stack, t->foreign);
    if (freed > 0)
        memkit__out_fmt(&t->o, " %5s %5s",
                        memkit__short_tenths(memkit__share(temporary, freed, 1000)).s,
                        memkit__short_tenths(memkit__share(foreign, freed, 1000)).s);
    else
        memkit__out_fmt(&t->o, " %5s %5s", "-", "-");
    memkit__out_fmt(&t->o, " %6s", median(t, stack).s);
}

/* A name without what would break the line, and no more of it than there is room for. */
static void put_name(memkit__out *o, const char *name, size_t *room)
{
    size_t n = strlen(name);
    for (size_t step; n > 0 && *room > 0; name += step, n -= step, --*room) {
        step = memkit__utf8(name, n);
        if (step == 0 || (unsigned char)*name < ' ' || *name == 0x7f)
            memkit__out_str(o, "?");
        else
            memkit__out_bytes(o, name, step);
        step = step == 0 ? 1 : step;
    }
}

static size_t letters_of(const char *name)
{
    size_t letters = 0, n = strlen(name);
    for (size_t step; n > 0; name += step, n -= step, letters++) {
        step = memkit__utf8(name, n);
        step = step == 0 ? 1 : step;
    }
    return letters;
}

/* "leaf < caller < its caller", as much of it as there is room for, "..." included. */
static void put_short_stack(text *t, const memkit__stack *stack, size_t room)
{
    static const char less[] = " < ", more[] = "...";
    memkit__out_str(&t->o, "  ");
    room -= 2;
    for (uint32_t i = stack->depth; i > 0; i--) {
        const char *name = t->k.labels[stack->labels[i - 1]].name;
        size_t letters = letters_of(name), between = i > 1 ? strlen(less) : 0;
        size_t reserved = i > 1 ? between + strlen(more) : 0;
        if (letters + reserved > room) { /* the rest is cut off within this name */
            size_t left = room - strlen(more);
            put_name(&t->o, name, &left);
            memkit__out_str(&t->o, more);
            break;
        }
        room -= letters + between;
        put_name(&t->o, name, &letters);
        memkit__out_bytes(&t->o, less, between);
    }
    memkit__out_str(&t->o, "\n");
}

static void put_table(text *t)
{
    const char *unit = t->p->types[t->type].unit;
    int64_t so_far = 0;
    put_columns(t);
    for (uint32_t i = 0; i < t->k.n_stacks; i++) {
        uint32_t row = t->order[i];
        const memkit__stack *stack = &t->k.stacks[row];
        size_t start = t->o.error == 0 ? t->o.b->len : 0;
        so_far = memkit__saturating_add(so_far, stack->value);
        memkit__out_fmt(&t->o, "%4u %8s %8s %5s %5s", i + 1,
                        memkit__short_value(stack->value, unit).s, error_of(&t->rows[row], unit).s,
                        memkit__short_tenths(memkit__share(stack->value, t->k.total, 1000)).s,
                        memkit__short_tenths(memkit__share(so_far, t->k.total, 1000)).s);
        if (t->pair != MEMKIT__NONE)
            put_pair(t, stack);
        if (t->counts_lives)
            put_lives(t, stack);
        if (t->o.error != 0)
            return;
        size_t used = t->o.b->len - start; /* figures may be wider than their columns */
        put_short_stack(t, stack, used + 20 < COLUMNS ? COLUMNS - used : 20);
    }
}

/* ---- stacks in full ---- */

static void put_types(text *t, const memkit__stack *stack)
{
    const memkit__profile *p = t->p;
    for (uint32_t i = 0; i < p->n_types; i++) {
        int64_t v = memkit__stack_sum(&t->k, stack, i);
        if (v == 0 || is_lifetime(p, i))
            continue;
        figures f = {.exact = true};
        add_variance(t, stack, i, &f);
        memkit__out_fmt(&t->o, "  %-22s %20s", p->types[i].type, memkit__short_thousands(v).s);
        if (is_space(&p->types[i]))
            memkit__out_fmt(&t->o, " %8s", memkit__short_value(v, p->types[i].unit).s);
        if (!f.exact)
            memkit__out_fmt(&t->o, " +- %s", error_of(&f, p->types[i].unit).s);
        memkit__out_str(&t->o, "\n");
    }
}

static void put_histogram(text *t, const memkit__stack *stack)
{
    static const char bar[] = "########################################";
    _Static_assert(sizeof bar - 1 == BAR, "the longest bar");
    int64_t most = 0;
    for (uint32_t i = 0; i < t->p->n_types; i++)
        if (is_lifetime(t->p, i)) {
            int64_t v = memkit__stack_sum(&t->k, stack, i);
            most = v > most ? v : most;
        }
    for (uint32_t i = 0; i < t->p->n_types; i++) {
        int64_t v = is_lifetime(t->p, i) ? memkit__stack_sum(&t->k, stack, i) : 0;
        if (v > 0)
            memkit__out_fmt(&t->o, "  lived %-16s %20s %.*s\n",
                            lifetime_name(t->p->types[i].type).s, memkit__short_thousands(v).s,
                            (int)memkit__share(v, most, BAR), bar);
    }
}

static void put_stack(text *t, uint32_t number, const memkit__stack *stack)
{
    memkit__out_fmt(&t->o, "\n#%u\n", number);
    put_types(t, stack);
    put_histogram(t, stack);
    for (uint32_t i = stack->depth; i > 0; i--) {
        const memkit__label *label = &t->k.labels[stack->labels[i - 1]];
        size_t all = SIZE_MAX;
        memkit__out_str(&t->o, "    ");
        put_name(&t->o, label->name, &all);
        if (*label->module != '\0') {
            memkit__out_str(&t->o, "  (");
            put_name(&t->o, label->module, &all);
            memkit__out_str(&t->o, ")");
        }
        memkit__out_str(&t->o, "\n");
    }
}

/* ---- all of it ---- */

static int write_text(const memkit__profile *p, uint32_t type, memkit_buf *out, memkit__scratch *s)
{
    text t = {.p = p, .type = type, .o = memkit__out_begin(out)};
    if (memkit__stacks_make(&t.k, p, type, MEMKIT__BY_MODULE, s) != 0)
        return -1;
    t.pair = memkit__type_pair(p, type);
    t.freed = memkit__type_named(p, "frees");
    t.temporary = memkit__type_named(p, "temporary_frees");
    t.foreign = memkit__type_named(p, "foreign_frees");
    t.counts_lives =
        t.freed != MEMKIT__NONE && t.temporary != MEMKIT__NONE && t.foreign != MEMKIT__NONE;
    t.rows = memkit__scratch_array(s, t.k.n_stacks, sizeof *t.rows);
    t.order = memkit__scratch_array(s, t.k.n_stacks, sizeof *t.order);
    if (t.rows == NULL || t.order == NULL)
        return -1;
    for (uint32_t i = 0; i < t.k.n_stacks; i++)
        t.order[i] = i;
    measure(&t);
    if (memkit__sort(t.order, t.k.n_stacks, largest_first, t.rows, s) != 0)
        return -1;
    put_head(&t);
    put_table(&t);
    for (uint32_t i = 0; i < t.k.n_stacks; i++)
        put_stack(&t, i + 1, &t.k.stacks[t.order[i]]);
    return memkit__out_end(&t.o);
}

int memkit__text_write(const memkit__profile *p, uint32_t type, memkit_buf *out)
{
    memkit__scratch s = {0};
    int result = write_text(p, type, out, &s);
    int reason = errno;
    memkit__scratch_free(&s);
    errno = reason;
    return result;
}
