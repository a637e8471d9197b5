/* test_prof_symtab.c - which symbol names an address: files of every kind, as nm and objdump see
 * them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>

#include "sanitized.h"
#include "test_prof_symbols.h"

static const char program[] =
    "#include <stdio.h>\n#include <stdlib.h>\n"
    "static __attribute__((noinline)) int hidden_one(int x) { __asm__ volatile(\"\"); return x * "
    "3; }\n"
    "__attribute__((noinline)) int shown_one(int x) { __asm__ volatile(\"\"); return hidden_one(x) "
    "+ 1; }\n"
    "int data_one = 7;\n"
    "int main(int argc, char **argv) { void *volatile p = malloc(argc); puts(argv[0]); free(p);\n"
    "    return shown_one(argc) & data_one; }\n";

static void expect_name(const char *path, const char *lookup, const char *symbol,
                        const char *expected)
{
    uint64_t at, size;
    assert_true(nm_of(lookup, symbol, &at, &size));
    const char *inside = size > 1 ? name_in(path, at + size - 1) : name_in(path, at);
    if (strcmp(inside, expected) != 0)
        fail_msg("%s in %s: '%s', not '%s'", symbol, path, inside, expected);
    assert_string_equal(name_in(path, at), expected);
}

static void programs_of_every_kind_have_their_functions(void **state)
{
    (void)state;
    static const char *const kinds[][2] = {
        {"pie", "-pie -fPIE"},
        {"no_pie", "-no-pie -fno-pie"},
        {"debug", "-pie -fPIE -g"},
        {"static", "-static -no-pie -fno-pie"},
        {"static_pie", "-static-pie -fPIE"},
        {"separate", "-pie -fPIE -Wl,-z,separate-code -Wl,-z,now"},
        {"together", "-pie -fPIE -Wl,-z,noseparate-code"},
        {"no_id", "-pie -fPIE -Wl,--build-id=none"},
        {"sections", "-pie -fPIE -ffunction-sections -Wl,--gc-sections"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *path = compile(kinds[i][0], kinds[i][1], program);
        expect_name(path, path, "hidden_one", "hidden_one");
        expect_name(path, path, "shown_one", "shown_one");
        expect_name(path, path, "main", "main");
        uint64_t at, size;
        assert_true(nm_of(path, "data_one", &at, &size));
        assert_string_equal(name_in(path, at), "");
    }
}

static void a_stripped_file_has_what_it_exports(void **state)
{
    (void)state;
    const char *path = compile("whole.so", "-shared -fPIC", program), *bare = in_dir("bare.so");
    assert_int_equal(run("strip -o '%s' '%s'", bare, path), 0);
    expect_name(bare, path, "shown_one", "shown_one");
    expect_name(bare, path, "hidden_one", "");
    /* Without section headers there is no table to find. */
    assert_int_equal(run("cp '%s' '%s.2' && dd if=/dev/zero of='%s.2' bs=1 seek=40 count=8 "
                         "conv=notrunc 2>/dev/null",
                         path, bare, bare),
                     0);
    char beheaded[PATH_MAX + 80];
    snprintf(beheaded, sizeof beheaded, "%s.2", bare);
    expect_name(beheaded, path, "shown_one", "");
}

/* In the hole, what comes before may be a label of crt1.o's, which has no size. */
static void a_symtab_with_holes_is_filled_from_dynsym(void **state)
{
    (void)state;
    const char *path = compile("full.so", "-shared -fPIC", program), *part = in_dir("part.so");
    assert_int_equal(run("objcopy --strip-symbol=shown_one '%s' '%s'", path, part), 0);
    expect_name(part, path, "shown_one", "shown_one");
    expect_name(part, path, "hidden_one", "hidden_one");

    static const char labelled[] = "__asm__(\".text\\nlabel:\\nnop\\n\");\n"
                                   "int after_label(int x) { __asm__ volatile(\"\"); return x; }\n";
    path = compile("label.so", "-shared -fPIC", labelled);
    part = in_dir("label_part.so");
    assert_int_equal(run("objcopy --strip-symbol=after_label '%s' '%s'", path, part), 0);
    expect_name(part, path, "after_label", "after_label");
}

/* ---- which of several
 * ---------------------------------------------------------------------------- */

static void of_two_names_the_one_that_people_know(void **state)
{
    (void)state;
    static const char text[] =
        "int __known(int x) { __asm__ volatile(\"nop\"); return x + 1; }\n"
        "int known(int) __attribute__((weak, alias(\"__known\")));\n"
        "int strong(int x) { __asm__ volatile(\"nop;nop\"); return x + 2; }\n"
        "int s(int) __attribute__((weak, alias(\"strong\")));\n"
        "static int local(int x) { __asm__ volatile(\"nop;nop;nop\"); return x + 3; }\n"
        "int frail(int) __attribute__((weak, alias(\"local\")));\n"
        "int bb(int x) { __asm__ volatile(\"nop;nop;nop;nop\"); return x + 4; }\n"
        "int aa(int) __attribute__((alias(\"bb\")));\n"
        "int ccc(int) __attribute__((alias(\"bb\")));\n"
        "__asm__(\".text\\n.globl label\\nlabel:\\n.globl fn\\n.type fn,%function\\nfn:\\n"
        "nop\\nnop\\n.size fn, .-fn\\n\");\n";
    const char *path = compile("aliases.so", "-shared -fPIC", text);
    expect_name(path, path, "__known", "known");
    expect_name(path, path, "strong", "strong");
    expect_name(path, path, "local", "local");
    expect_name(path, path, "bb", "aa");
    expect_name(path, path, "fn", "fn");
}

static void a_version_is_no_part_of_the_name(void **state)
{
    (void)state;
    const char *map = in_dir("versions.map");
    static const char versions[] = "V1 { old; };\nV2 { new; } V1;\n";
    write_file(map, versions, sizeof versions - 1);
    char flags[PATH_MAX + 128];
    snprintf(flags, sizeof flags, "-shared -fPIC -Wl,--version-script='%s'", map);
    const char *path = compile(
        "versions.so", flags,
        "__attribute__((noinline)) int old_code(int x) { __asm__ volatile(\"\"); return x; }\n"
        "__asm__(\".symver old_code,old@V1\");\n"
        "int new_code(int x) { __asm__ volatile(\"nop\"); return x; }\n"
        "__asm__(\".symver new_code,new@@V2\");\n");
    uint64_t at, size;
    assert_true(nm_of(path, "old", &at, &size));
    assert_null(strchr(name_in(path, at), '@'));
    assert_true(nm_of(path, "new", &at, &size));
    assert_null(strchr(name_in(path, at), '@'));
    assert_true(strlen(name_in(path, at)) >= 3);
}

static void assembly_without_sizes_reaches_to_what_comes_next(void **state)
{
    (void)state;
    static const char text[] =
        "__asm__(\".text\\n.globl plain\\nplain:\\nnop\\nnop\\nnop\\nnop\\n"
        ".globl sized\\n.type sized,%function\\nsized:\\nnop\\nnop\\nnop\\nnop\\n.size "
        "sized,.-sized\\n"
        ".globl gap_end\\nnop\\nnop\\nnop\\nnop\\n"
        "lonely:\\n.Llabel:\\nnop\\nnop\\nnop\\nnop\\n"
        ".section "
        ".other,\\\"ax\\\"\\nnop\\nnop\\nnop\\nnop\\nlast:\\nnop\\nnop\\nnop\\nnop\\n\");\n";
    const char *path = compile("sizes.so", "-shared -fPIC -nostdlib", text);
    uint64_t plain, sized, lonely, last, size;
#if defined(__aarch64__)
    const uint64_t nop = 4;
#else
    const uint64_t nop = 1;
#endif
    assert_true(nm_of(path, "plain", &plain, &size));
    assert_true(nm_of(path, "sized", &sized, &size));
    assert_true(nm_of(path, "lonely", &lonely, &size));
    assert_true(nm_of(path, "last", &last, &size));
    assert_string_equal(name_in(path, plain), "plain");
    assert_string_equal(name_in(path, sized - nop), "plain");
    assert_string_equal(name_in(path, sized), "sized");
    assert_string_equal(name_in(path, lonely - nop), ""); /* behind the end of `sized` */
    assert_string_equal(name_in(path, lonely + nop), "lonely");
    assert_string_equal(name_in(path, last - nop), ""); /* another section than lonely's */
    assert_string_equal(name_in(path, last + nop), "last");
}

/* ---- everything that others know
 * ------------------------------------------------------------------ */

typedef struct {
    uint64_t at, size;
    char name[128];
} known;

/* Each function of a file by nm must be named as one of those that nm has at its address. */
static void check_against_nm(const char *path, const char *options)
{
    enum { MAX = 20000 };
    static known all[MAX];
    static memkit__pc pcs[MAX];
    char line[1024];
    size_t n = 0;
    memkit__scratch s = {0};
    memkit__symfiles files = {.file.fd = -1, .debug.fd = -1};
    memkit__module m = module_of_file(path, 0);
    snprintf(line, sizeof line, "nm %s --defined-only -n -S '%s' 2>/dev/null", options, path);
    FILE *f = popen(line, "re"); // NOLINT
    assert_non_null(f);
    while (n < MAX && fgets(line, sizeof line, f) != NULL) {
        unsigned long long at, size;
        char type;
        if (sscanf(line, "%llx %llx %c %127s", &at, &size, &type, all[n].name) != 4 ||
            strchr("tTwWi", type) == NULL || size < 2)
            continue;
        all[n].name[1 + strcspn(all[n].name + 1, "@")] = '\0';
        all[n].at = at;
        all[n++].size = size;
    }
    while (fgets(line, sizeof line, f) != NULL)
        ;
    pclose(f);
    assert_in_range(n, 10, MAX);
    for (size_t i = 0; i < n; i++)
        pcs[i] = (memkit__pc){.at = all[i].at + 1};
    assert_int_equal(memkit__symfile_name(&files, &m, false, pcs, n, &s), 0);
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        assert_non_null(pcs[i].name);
        for (size_t k = i > 64 ? i - 64 : 0; k < n && k < i + 64 && !found; k++)
            found = pcs[i].at - all[k].at < all[k].size &&
                    strncmp(pcs[i].name, all[k].name, sizeof all[k].name - 1) == 0;
        if (!found)
            fail_msg("%s: %s at %llx is called %s", path, all[i].name,
                     (unsigned long long)all[i].at, pcs[i].name);
    }
    memkit__scratch_free(&s);
}

static void every_function_that_nm_knows_is_found(void **state)
{
    (void)state;
    char self[PATH_MAX] = "";
    assert_in_range(readlink("/proc/self/exe", self, sizeof self - 1), 1, sizeof self - 1);
    check_against_nm(self, "");
    const char *path = compile("static_all", "-static", program);
    check_against_nm(path, "");
    char libc[PATH_MAX];
    snprintf(libc, sizeof libc, "%s", "/lib/x86_64-linux-gnu/libc.so.6");
    if (access(libc, R_OK) == 0)
        check_against_nm(libc, "-D");
}

/* Calls fn for each PLT entry as objdump labels it. */
static int check_plt(const char *path)
{
    char line[1024];
    int count = 0;
    snprintf(line, sizeof line, "objdump -d --no-show-raw-insn '%s'", path);
    FILE *f = popen(line, "re"); // NOLINT
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long long at;
        char label[256];
        if (sscanf(line, "%llx <%255[^>]>:", &at, label) != 2)
            continue;
        size_t len = strlen(label);
        if (len < 5 || strcmp(label + len - 4, "@plt") != 0)
            continue;
        for (int i = 0; i < 6; i += 5)
            if (strcmp(name_in(path, at + (unsigned)i), label) != 0)
                fail_msg("%s: %llx is %s, not %s", path, at + (unsigned)i,
                         name_in(path, at + (unsigned)i), label);
        count++;
    }
    pclose(f);
    return count;
}

static void entries_of_the_plt_have_the_name_of_their_function(void **state)
{
    (void)state;
    static const char *const kinds[][2] = {
        {"lazy", "-pie -fPIE -Wl,-z,lazy"},
        {"now", "-pie -fPIE -Wl,-z,now"},
        {"fixed", "-no-pie -fno-pie -Wl,-z,lazy"},
#if defined(__x86_64__)
        {"ibt", "-pie -fPIE -fcf-protection=full -Wl,-z,ibtplt -Wl,-z,lazy"},
        {"no_ibt", "-pie -fPIE -fcf-protection=none -Wl,-z,lazy"},
#endif
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        assert_in_range(check_plt(compile(kinds[i][0], kinds[i][1], program)), 3, 20);
}

static void a_debug_file_elsewhere_knows_static_functions(void **state)
{
    (void)state;
    /* Only where the system has one, for its libc say: what nm finds there must be found. */
    char line[PATH_MAX + 128], debug[PATH_MAX];
    const char *libc = "/lib/x86_64-linux-gnu/libc.so.6";
    char id[2 * MEMKIT__BUILD_ID_MAX + 1];
    if (access(libc, R_OK) != 0)
        skip();
    memkit__module m = module_of_file(libc, 0);
    if (memkit__build_id_text(&m, id) == 0)
        skip();
    snprintf(debug, sizeof debug, "/usr/lib/debug/.build-id/%.2s/%s.debug", id, id + 2);
    if (access(debug, R_OK) != 0)
        skip();
    snprintf(line, sizeof line, "%s", "_int_malloc");
    expect_name(libc, debug, line, "_int_malloc");
}

/* ---- how much is read
 * ----------------------------------------------------------------------------- */

static uint64_t figure(const char *file, const char *label)
{
    char line[256];
    unsigned long long value = 0;
    FILE *f = fopen(file, "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, label, strlen(label)) == 0)
            value = strtoull(line + strlen(label), NULL, 10);
    fclose(f);
    return value;
}

/* A file whose tables come behind 2 GiB of debug information, a hole: the file, the hole, and the
 * file once more with offsets that lead there. */
static void write_large(const char *path, const char *from)
{
    enum { ROOM = 1 << 20 };
    static char data[ROOM];
    static const off_t hole = (off_t)2 << 30;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, data, ROOM);
    close(fd);
    assert_in_range(n, sizeof(Elf64_Ehdr), ROOM - 1);
    Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)data;
    for (unsigned i = 1; i < head->e_shnum; i++) {
        Elf64_Shdr *sh = (Elf64_Shdr *)(void *)(data + head->e_shoff) + i;
        if ((sh->sh_flags & SHF_ALLOC) != 0)
            continue;
        if (sh->sh_type == SHT_PROGBITS) /* one of them stands for all the hole */
            sh->sh_size = (uint64_t)hole;
        else
            sh->sh_offset += (uint64_t)hole;
    }
    head->e_shoff += (uint64_t)hole;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, (size_t)n, 0), n);
    assert_int_equal(pwrite(fd, data, (size_t)n, hole), n);
    assert_int_equal(close(fd), 0);
}

static void debug_information_is_not_read(void **state)
{
    (void)state;
    const char *path = compile("small", "-g", program), *large = in_dir("large");
    uint64_t at, size;
    write_large(large, path);
    assert_true(nm_of(path, "hidden_one", &at, &size));
    assert_string_equal(name_in(large, at), "hidden_one"); /* all that is only once is there now */
    uint64_t before = figure("/proc/self/io", "rchar:");
    uint64_t rss = figure("/proc/self/status", "VmRSS:");
    assert_string_equal(name_in(large, at), "hidden_one");
    uint64_t read = figure("/proc/self/io", "rchar:") - before;
    int64_t grown = (int64_t)(figure("/proc/self/status", "VmRSS:") - rss);
    print_message("read %llu bytes of 2 GiB, RSS + %lld KiB\n", (unsigned long long)read,
                  (long long)grown);
    assert_in_range(read, 1, 256 * 1024);
    if (!SANITIZED)
        assert_true(grown < 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_of_every_kind_have_their_functions),
        cmocka_unit_test(a_stripped_file_has_what_it_exports),
        cmocka_unit_test(a_symtab_with_holes_is_filled_from_dynsym),
        cmocka_unit_test(of_two_names_the_one_that_people_know),
        cmocka_unit_test(a_version_is_no_part_of_the_name),
        cmocka_unit_test(assembly_without_sizes_reaches_to_what_comes_next),
        cmocka_unit_test(every_function_that_nm_knows_is_found),
        cmocka_unit_test(entries_of_the_plt_have_the_name_of_their_function),
        cmocka_unit_test(a_debug_file_elsewhere_knows_static_functions),
        cmocka_unit_test(debug_information_is_not_read),
    };
    return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
