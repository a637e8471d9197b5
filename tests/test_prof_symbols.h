/* test_prof_symbols.h - for tests of names: loaded modules, files made with the compiler. */
#ifndef MEMKIT_TESTS_PROF_SYMBOLS_H
#define MEMKIT_TESTS_PROF_SYMBOLS_H

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "prof/module.h"
#include "prof/profile.h"
#include "prof/symfile.h"

static char test_dir[PATH_MAX]; /* of this run, with all that it makes */

__attribute__((format(printf, 1, 2))) static inline int run(const char *fmt, ...)
{
    char command[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    assert_in_range(n, 1, sizeof command - 1);
    return system(command); // NOLINT
}

static inline int make_test_dir(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(test_dir, sizeof test_dir, "%s/memkit-symbols-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (memkit__modules_prepare() != 0)
        return -1;
    return mkdtemp(test_dir) != NULL ? 0 : -1;
}

static inline int remove_test_dir(void **state)
{
    (void)state;
    return run("rm -rf '%s'", test_dir);
}

static inline const char *compiler(void)
{
    const char *cc = getenv("CC");
    return cc != NULL && cc[0] != '\0' ? cc : "cc";
}

/* A path in the directory; a few at a time. */
static inline const char *in_dir(const char *name)
{
    static char paths[8][PATH_MAX + 64];
    static int next;
    char *path = paths[next++ & 7];
    snprintf(path, sizeof paths[0], "%s/%s", test_dir, name);
    return path;
}

static inline void write_file(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    assert_int_equal(close(fd), 0);
}

/* Compiles text to a file of that name in the directory; its path. */
static inline const char *compile(const char *name, const char *flags, const char *text)
{
    char source[PATH_MAX + 64];
    const char *out = in_dir(name);
    snprintf(source, sizeof source, "%s.c", out);
    write_file(source, text, strlen(text));
    assert_int_equal(run("%s -O1 -w %s -o '%s' '%s'", compiler(), flags, out, source), 0);
    return out;
}

/* The frame word of a return address, as the unwinder makes it. */
static inline uint64_t frame_at(uintptr_t pc)
{
    const memkit__module *m = memkit__module_at(pc);
    return pc | (m != NULL && !m->stays ? (uint64_t)m->id << MEMKIT__FRAME_BITS : 0);
}

/* A module as if the file were loaded at `bias`. */
static inline memkit__module module_of_file(const char *path, uintptr_t bias)
{
    memkit__scratch s = {0};
    memkit__elf e = {.fd = -1};
    memkit__module m = {.id = 1, .bias = bias, .path = path};
    assert_int_equal(memkit__elf_open(&e, path, &s), 0);
    for (uint64_t i = 0; i < e.segment_count; i++) {
        Elf64_Phdr ph;
        assert_true(memkit__elf_segment(&e, i, &ph));
        if (ph.p_type != PT_LOAD || (ph.p_flags & PF_X) == 0)
            continue;
        m.segments[m.n_segments].start = bias + ph.p_vaddr;
        m.segments[m.n_segments].end = bias + ph.p_vaddr + ph.p_memsz;
        m.segments[m.n_segments].offset = ph.p_offset;
        m.n_segments++;
    }
    m.build_id_size = (uint8_t)memkit__elf_build_id(&e, m.build_id);
    memkit__elf_close(&e);
    memkit__scratch_free(&s);
    return m;
}

/* What one address of a file is called; "" for nothing. Until the next call. */
static inline const char *name_in(const char *path, uint64_t at)
{
    static char name[1024];
    memkit__scratch s = {0};
    memkit__symfiles files = {.file.fd = -1, .debug.fd = -1};
    memkit__module m = module_of_file(path, 0x10000000);
    memkit__pc pc = {.at = at};
    assert_int_equal(memkit__symfile_name(&files, &m, false, &pc, 1, &s), 0);
    snprintf(name, sizeof name, "%s", pc.name != NULL ? pc.name : "");
    memkit__scratch_free(&s);
    return name;
}

/* A symbol's address and size as nm tells them; false: it knows none. */
static inline bool nm_of(const char *path, const char *symbol, uint64_t *at, uint64_t *size)
{
    char line[512], name[256];
    bool found = false;
    *at = *size = 0;
    snprintf(line, sizeof line, "nm -S '%s' 2>/dev/null; nm -DS '%s' 2>/dev/null", path, path);
    FILE *f = popen(line, "re"); // NOLINT
    assert_non_null(f);
    while (!found && fgets(line, sizeof line, f) != NULL) {
        unsigned long long a, n = 0;
        char type;
        if (sscanf(line, "%llx %llx %c %255s", &a, &n, &type, name) != 4 &&
            (n = 0, sscanf(line, "%llx %c %255s", &a, &type, name) != 3))
            continue;
        name[strcspn(name, "@")] = '\0';
        found = strcmp(name, symbol) == 0;
        *at = a;
        *size = n;
    }
    while (fgets(line, sizeof line, f) != NULL)
        ;
    pclose(f);
    return found;
}

#endif
