/* drops.c - which functions pprof leaves out: drop_frames and keep_frames of a profile.
 *
 * - The same rule as pprof's own reader (profile/prune.go): the expression must match the whole
 *   name, and of a C++ name what is before its parameters; keep_frames overrules it.
 * - Expressions are POSIX extended ones here and RE2 there: what the profiler emits must mean the
 *   same in both (literals, '.', '*', '[...]', '|', '\.').
 * - Compiled ones wait in a few slots for the next call with the same texts. Whoever takes one out
 *   has it for himself: no lock that a fork could leave held, and regexec may change it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <regex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prof/profile.h"

#define SLOTS 4
#define ROOM  512 /* a longer name is cut: pprof's drop_frames are of short ones */

typedef struct {
    char *text; /* of the expression, "" for none */
    regex_t re;
    bool good;
} expression;

typedef struct {
    expression drop, keep;
} rules;

static _Atomic(rules *) slots[SLOTS];

static void expression_end(expression *x)
{
    if (x->good)
        regfree(&x->re);
    free(x->text);
}

/* One that does not compile matches nothing: the reader at the other end will complain of it. */
static bool expression_begin(expression *x, const char *text)
{
    size_t len = strlen(text);
    char *whole = malloc(len + 5);
    x->text = strdup(text);
    if (whole != NULL && x->text != NULL && len > 0) {
        snprintf(whole, len + 5, "^(%s)$", text);
        x->good = regcomp(&x->re, whole, REG_EXTENDED | REG_NOSUB) == 0;
    }
    free(whole);
    return x->text != NULL;
}

static void rules_free(rules *r)
{
    if (r == NULL)
        return;
    expression_end(&r->drop);
    expression_end(&r->keep);
    free(r);
}

static rules *rules_new(const char *drop, const char *keep)
{
    rules *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    if (expression_begin(&r->drop, drop) && expression_begin(&r->keep, keep))
        return r;
    rules_free(r);
    return NULL;
}

static rules *rules_take(const char *drop, const char *keep)
{
    for (int i = 0; i < SLOTS; i++) {
        rules *r = atomic_exchange(&slots[i], NULL);
        if (r != NULL && strcmp(r->drop.text, drop) == 0 && strcmp(r->keep.text, keep) == 0)
            return r;
        rules_free(r);
    }
    return rules_new(drop, keep);
}

static void rules_put(rules *r)
{
    for (int i = 0; i < SLOTS; i++) {
        rules *none = NULL;
        if (atomic_compare_exchange_strong(&slots[i], &none, r))
            return;
    }
    rules_free(r);
}

/* As pprof's simplifyFunc: without a leading '.', up to the parameters. */
static void simplify(const char *name, char *out, size_t room)
{
    static const char *const reserved[] = {"(anonymous namespace)", "operator()"};
    if (name[0] == '.')
        name++;
    size_t n = 0;
    while (name[n] != '\0' && n < room - 1) {
        size_t skip = 0;
        for (int i = 0; i < 2 && skip == 0; i++)
            if (strncmp(name + n, reserved[i], strlen(reserved[i])) == 0)
                skip = strlen(reserved[i]);
        if (skip == 0 && name[n] == '(')
            break;
        n += skip > 0 ? skip : 1;
    }
    if (n > room - 1)
        n = room - 1;
    memcpy(out, name, n);
    out[n] = '\0';
}

static bool matches(const expression *x, const char *name)
{
    return x->good && regexec(&x->re, name, 0, NULL, 0) == 0;
}

bool memkit__profile_drops(const memkit__profile *p, const memkit__function *f)
{
    if (p->drop_frames == NULL || p->drop_frames[0] == '\0' || f->name[0] == '\0')
        return false;
    rules *r = rules_take(p->drop_frames, p->keep_frames != NULL ? p->keep_frames : "");
    if (r == NULL)
        return false;
    char name[ROOM];
    simplify(f->name, name, sizeof name);
    bool drops = matches(&r->drop, name) && !matches(&r->keep, name);
    rules_put(r);
    return drops;
}
