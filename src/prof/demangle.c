/* demangle.c - C++ names as people write them, by the C++ library's own __cxa_demangle.
 *
 * - Looked for when the first such name comes: the program's, else one in a library that was loaded
 *   out of sight (a plugin's), else libstdc++ is loaded for it. Where there is none names stay raw.
 *   What was loaded stays.
 * - It mallocs through whatever malloc the process has, so what frees is looked up the same way:
 * the hook's own free may be another malloc's.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#include "prof/demangle.h"

/* libstdc++'s takes stack in proportion, 64 bytes a character. */
#define NAME_MAX_ 2048

static void *find_in(const char *library, int flags)
{
    void *handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL | flags);
    return handle != NULL ? dlsym(handle, "__cxa_demangle") : NULL;
}

static void seek(memkit__demangler *d)
{
    static const char *const loaded[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};
    void *fn = dlsym(RTLD_DEFAULT, "__cxa_demangle");
    for (size_t i = 0; fn == NULL && i < sizeof loaded / sizeof loaded[0]; i++)
        fn = find_in(loaded[i], RTLD_NOLOAD);
    if (fn == NULL)
        fn = find_in(loaded[0], 0);
    void *end = dlsym(RTLD_DEFAULT, "free");
    d->sought = true;
    if (fn == NULL || end == NULL)
        return;
    memcpy(&d->demangle, &fn, sizeof fn);
    memcpy(&d->free, &end, sizeof end);
}

const char *memkit__demangle(memkit__demangler *d, const char *name, memkit__scratch *s)
{
    size_t len = strnlen(name, NAME_MAX_);
    if (strncmp(name, "_Z", 2) != 0 || len == NAME_MAX_)
        return name;
    if (!d->sought)
        seek(d);
    if (d->demangle == NULL)
        return name;
    /* "@plt" is ours, not the language's. */
    size_t tail = len > 4 && strcmp(name + len - 4, "@plt") == 0 ? 4 : 0;
    char *raw = memkit__scratch_strndup(s, name, len - tail);
    if (raw == NULL)
        return NULL;
    int status = 0;
    char *text = d->demangle(raw, NULL, NULL, &status);
    if (text == NULL || status != 0 || text[0] == '\0')
        return name;
    size_t n = strlen(text);
    char *copy = memkit__scratch_alloc(s, n + tail + 1);
    if (copy != NULL) {
        memcpy(copy, text, n);
        memcpy(copy + n, name + len - tail, tail);
    }
    d->free(text);
    return copy;
}
