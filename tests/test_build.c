/* test_build.c - what a user builds against: headers, exported names, installation, README, deps.
 *
 * Runs the compiler and make as a user would, in a directory of its own under the build directory.
 */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static const char *root, *build, *cc;
static char work[512];

/* Runs a shell command in the work directory; its output, and its exit code in *code. */
static char *output(int *code, const char *fmt, ...) MEMKIT_PRINTF(2, 3);
static char *output(int *code, const char *fmt, ...)
{
    memkit_buf *b = memkit_buf_new(0);
    assert_int_equal(memkit_buf_appendf(b, "cd '%s' && unset MAKEFLAGS MFLAGS MAKELEVEL; ", work),
                     0);
    va_list ap;
    va_start(ap, fmt);
    memkit_buf_append_str(b, "{ ");
    memkit_buf_vappendf(b, fmt, ap);
    memkit_buf_append_str(b, "\n} 2>&1");
    va_end(ap);
    FILE *pipe = popen(b->data, "r");
    assert_non_null(pipe);
    memkit_buf_reset(b);
    char part[4096];
    size_t n;
    while ((n = fread(part, 1, sizeof part, pipe)) > 0)
        memkit_buf_append(b, part, n);
    int status = pclose(pipe);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    char *out = memkit_buf_detach(b, NULL);
    memkit_buf_free(b);
    return out;
}

#define run(...)                                       \
    do {                                               \
        int code_;                                     \
        char *out_ = output(&code_, __VA_ARGS__);      \
        if (code_ != 0)                                \
            fail_msg("exit code %d: %s", code_, out_); \
        free(out_);                                    \
    } while (0)

static void each_header_compiles_alone_and_strictly(void **state)
{
    (void)state;
    run("for h in '%s'/include/memkit/*.h; do"
        "  for std in 'c -std=c11' 'c++ -std=c++17'; do"
        "    echo \"#include <memkit/$(basename $h)>\" | %s -x $std -Wall -Wextra -Wpedantic"
        "      -Wconversion -Werror -I'%s/include' -fsyntax-only - || exit 1;"
        "  done; done",
        root, cc, root);
}

/* Names in the headers that are followed by a parenthesis, less the inline ones. */
#define DECLARED                                                           \
    "cat '%s'/include/memkit/*.h | sed '/^ \\*/d; s|/\\*.*||' | grep -oE " \
    "'\\bmemkit_[a-z0-9_]+\\(' |"                                          \
    " tr -d '(' | grep -vx 'memkit_arena_alloc' | sort -u"
#define OF_PROF  "'^memkit_(prof|debug)_'"
#define EXPORTED "nm -D --defined-only '%s/%s' | awk '$2 != \"A\" { print $3 }' | sort -u"

static void the_core_exports_what_its_headers_declare_and_nothing_else(void **state)
{
    (void)state;
    int code;
    char *declared = output(&code, DECLARED " | grep -vE " OF_PROF, root);
    char *exported = output(&code, EXPORTED " | sed 's/@@MEMKIT_0.1$//'", build, "libmemkit.so.0");
    assert_string_equal(exported, declared);
    assert_non_null(strstr(exported, "memkit_pool_get\n"));
    free(declared);
    free(exported);
}

static void the_core_needs_libc_alone_and_leaves_malloc_be(void **state)
{
    (void)state;
    if (*getenv("MEMKIT_SAN") != '\0')
        skip(); /* a sanitizer's runtime is one more library */
    int code;
    char *needed =
        output(&code,
               "readelf -d '%s/libmemkit.so.0' | sed -n 's/.*NEEDED.*\\[\\(.*\\)\\]/\\1/p'"
               " | grep -v '^ld-linux'",
               build);
    assert_string_equal(needed, "libc.so.6\n");
    free(needed);
    char *soname = output(&code,
                          "readelf -d '%s/libmemkit.so.0' '%s/libmemkit-prof.so.0' |"
                          " sed -n 's/.*SONAME.*\\[\\(.*\\)\\]/\\1/p'",
                          build, build);
    assert_string_equal(soname, "libmemkit.so.0\nlibmemkit-prof.so.0\n");
    free(soname);
}

/* The dynamic loader gives a versioned `malloc` to nobody who asks for malloc@GLIBC_2.2.5. */
static void the_hook_exports_mallocs_family_unversioned(void **state)
{
    (void)state;
    int code;
    char *exported = output(&code, EXPORTED " | grep -v '^_Z[dn]' | grep -v '^memkit_'", build,
                            "libmemkit-prof.so.0");
    assert_string_equal(exported, "aligned_alloc\ncalloc\nfree\nmalloc\nmemalign\n"
                                  "posix_memalign\npvalloc\nrealloc\nreallocarray\nvalloc\n");
    free(exported);
}

static void the_profiler_exports_what_its_headers_declare_and_nothing_else(void **state)
{
    (void)state;
    run("{ " DECLARED " | grep -E " OF_PROF "; echo memkit_prof_attach; } | sort -u > declared;"
        " { " EXPORTED "; } | sed -n 's/^\\(memkit_.*\\)@@MEMKIT_PROF_0.1$/\\1/p' > exported;"
        " grep -qx memkit_prof_start exported && comm -13 declared exported > undeclared &&"
        " ! test -s undeclared",
        root, build, "libmemkit-prof.so.0");
}

static void internal_names_begin_with_memkit__in_the_static_libraries(void **state)
{
    (void)state;
    int code;
    char *other =
        output(&code,
               "nm -g --defined-only '%s/libmemkit.a' | awk 'NF == 3 { print $3 }' |"
               " grep -v '^memkit_' | grep -v '^__\\(asan\\|odr_asan\\|tsan\\)' | sort -u",
               build);
    assert_string_equal(other, "");
    free(other);
}

#define MAKE "make -s -C '%s' CC='%s' SAN='%s' "

static void install_puts_what_uninstall_takes_away(void **state)
{
    (void)state;
    const char *san = getenv("MEMKIT_SAN");
    run("rm -rf dest; " MAKE "install DESTDIR=\"$PWD/dest\" PREFIX=/opt/m", root, cc, san);
    run("cd dest/opt/m && test -f include/memkit/lru.h && test -f lib/libmemkit.a &&"
        " test -f lib/libmemkit-prof.a && test \"$(readlink lib/libmemkit.so)\" = libmemkit.so.0 &&"
        " test -e lib/libmemkit-prof.so.0 && grep -q '^prefix=/opt/m$' lib/pkgconfig/memkit.pc &&"
        " grep -q '^Version: %s$' lib/pkgconfig/memkit-prof.pc",
        MEMKIT_VERSION);
    run(MAKE "uninstall DESTDIR=\"$PWD/dest\" PREFIX=/opt/m", root, cc, san);
    int code;
    char *left = output(&code, "find dest -type f -o -type l");
    assert_string_equal(left, "");
    free(left);
    run(MAKE "install libdir=\"$PWD/dest/lib64\" PREFIX=\"$PWD/dest/other\"", root, cc, san);
    run("test -e dest/lib64/libmemkit.so.0 && test -f dest/other/include/memkit/buf.h && rm -rf "
        "dest");
}

/* The README's program, linked in each of the README's ways. */
static void the_quick_start_compiles_and_runs(void **state)
{
    (void)state;
    if (*getenv("MEMKIT_SAN") != '\0')
        skip(); /* a user's program is not built with it */
    run("sed -n '/<!-- quick start/,/<!-- end/p' '%s/README.md' | sed '/^<!--/d; /^```/d' > "
        "quick.c",
        root);
    run("test $(wc -l < quick.c) -le 24");
    run("rm -rf usr; " MAKE "install PREFIX=\"$PWD/usr\"", root, cc, "");
    const char *pkg = "PKG_CONFIG_PATH=$PWD/usr/lib/pkgconfig pkg-config";
    const char *want = "<h1>Hello, world</h1>";
    run("%s -Wall -Werror quick.c -o dynamic $(%s --cflags --libs memkit) &&"
        " test \"$(LD_LIBRARY_PATH=usr/lib ./dynamic)\" = '%s'",
        cc, pkg, want);
    run("%s -Wall -Werror quick.c -o counted $(%s --cflags --libs memkit-prof memkit) &&"
        " test \"$(LD_LIBRARY_PATH=usr/lib ./counted)\" = '%s'",
        cc, pkg, want);
    run("%s quick.c -I'%s/include' '%s/libmemkit.a' -pthread -o static &&"
        " test \"$(./static)\" = '%s'",
        cc, root, build, want);
    run("MEMKIT_STATS=./stats LD_PRELOAD='%s/libmemkit-prof.so.0' ./static && grep -qi malloc "
        "stats",
        build);
}

/* Each exported function by its address, as the headers declare it, and a use of each part that C++
 * sees otherwise than C: options, enumerators, the arena's inline path. */
static void a_cpp17_program_uses_every_function(void **state)
{
    (void)state;
    if (*getenv("MEMKIT_SAN") != '\0')
        skip(); /* a user's program is not built with it */
    static const char program[] =
        "#include <memkit/memkit.h>\n"
        "#include <cstring>\n"
        "#include \"names.h\"\n"
        "static void visit(void *, const void *, size_t, const void *, size_t, memkit_lru_reason)\n"
        "{ calls++; }\n"
        "int main()\n"
        "{\n"
        "    memkit_lru_opts lo = {}; lo.max_entries = 1; lo.on_evict = visit;\n"
        "    memkit_pool_opts po = {}; po.name = \"cpp\";\n"
        "    memkit_arena_opts ao = {}; ao.max_bytes = 1 << 20;\n"
        "    memkit_lru *c = memkit_lru_new(&lo);\n"
        "    memkit_pool *p = memkit_pool_new(&po);\n"
        "    memkit_arena *a = memkit_arena_new(&ao);\n"
        "    memkit_buf *b = memkit_pool_get(p, 0);\n"
        "    auto *n = static_cast<long double *>(memkit_arena_alloc(a, sizeof(long double)));\n"
        "    *n = 1;\n"
        "    bool good = reinterpret_cast<uintptr_t>(n) % MEMKIT_ARENA_ALIGN == 0 &&\n"
        "        memkit_buf_appendf(b, \"%d\", 7) == 0 && memkit_lru_set(c, \"k\", 1, b->data, "
        "b->len) == 0;\n"
        "    memkit_lru_ref ref = {};\n"
        "    good = good && memkit_lru_get(c, \"k\", 1, &ref) == 1 && std::memcmp(ref.data, \"7\", "
        "1) == 0;\n"
        "    memkit_lru_release(c, &ref);\n"
        "    memkit_arena_rewind(a, memkit_arena_save(a));\n"
        "    for (auto f : functions) good = good && f != nullptr;\n"
        "    memkit_lru_free(c); memkit_pool_put(p, b); memkit_pool_free(p); "
        "memkit_arena_free(a);\n"
        "    return good && calls == 1 ? 0 : 1;\n"
        "}\n";
    char path[600];
    snprintf(path, sizeof path, "%s/whole.cpp", work);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(program, f) >= 0);
    fclose(f);
    run("{ echo 'static int calls; static void (*const functions[])() = {';"
        "  sed -n 's/^ *\\(memkit_[a-z0-9_]*\\);$/  reinterpret_cast<void (*)()>(\\&\\1),/p'"
        "      '%s/src/core/libmemkit.map'; echo '};'; } > names.h && test $(wc -l < names.h) -gt "
        "50",
        root);
    run("%s -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Wconversion -Wno-cast-function-type -Werror"
        " -I'%s/include' whole.cpp -x none '%s/libmemkit.a' -pthread -o whole && ./whole",
        cc, root, build);
}

static void a_counted_program_sees_its_own_allocations(void **state)
{
    (void)state;
    if (*getenv("MEMKIT_SAN") != '\0')
        skip(); /* the sanitizer has malloc already */
    run("cat > counted.c <<'END'\n"
        "#include <memkit/memkit.h>\n#include <stdlib.h>\n"
        "int main(void) {\n"
        "    memkit_thread_allocs_t a, b;\n"
        "    if (memkit_thread_allocs(&a) != 1) return 2;\n"
        "    for (int i = 0; i < 100; i++) { void *volatile p = malloc(100); free(p); }\n"
        "    memkit_thread_allocs(&b);\n"
        "    return b.mallocs - a.mallocs == 100 && b.frees - a.frees == 100 ? 0 : 1;\n"
        "}\nEND\n");
    run("rm -rf usr; " MAKE "install PREFIX=\"$PWD/usr\"", root, cc, "");
    const char *pkg = "PKG_CONFIG_PATH=$PWD/usr/lib/pkgconfig pkg-config";
    run("%s counted.c -o counted $(%s --cflags --libs memkit-prof memkit) &&"
        " LD_LIBRARY_PATH=usr/lib ./counted",
        cc, pkg);
    /* both static: here the .pc file's flag is what makes the two meet */
    run("mkdir -p a && cp usr/lib/*.a a/ && %s counted.c -o counted_static -La"
        " $(%s --cflags --libs memkit-prof memkit | sed \"s|-L$PWD/usr/lib||g\") -pthread -ldl -lz "
        "&& "
        "./counted_static",
        cc, pkg);
    run("%s counted.c -Iusr/include a/libmemkit.a -pthread -o plain && ! ./plain &&"
        " LD_PRELOAD='%s/libmemkit-prof.so.0' ./plain",
        cc, build);
}

static void help_names_every_target(void **state)
{
    (void)state;
    run("make -s -C '%s' help > help && for t in all lib test compare deps install uninstall "
        "clean; do"
        " grep -q \"^$t \" help || { echo \"no $t\"; exit 1; }; done",
        root);
}

static void deps_asks_nothing_when_all_is_there_and_lists_where_there_is_no_apt(void **state)
{
    (void)state;
    int code;
    char *out = output(&code, "'%s/scripts/deps.sh'", root);
    assert_int_equal(code, 0); /* the tests could not have been built otherwise */
    assert_string_equal(out, "");
    free(out);
    out = output(&code,
                 "mkdir -p bin && ln -sf \"$(command -v sh)\" bin/sh && PATH=$PWD/bin sh "
                 "'%s/scripts/deps.sh'",
                 root);
    assert_int_not_equal(code, 0);
    assert_non_null(strstr(out, "libmicrohttpd-dev"));
    free(out);
    out = output(&code, "'%s/scripts/deps.sh' nonsense", root);
    assert_int_equal(code, 2);
    free(out);
}

static int prepare(void **state)
{
    (void)state;
    root = getenv("MEMKIT_ROOT");
    build = getenv("MEMKIT_BUILD");
    cc = getenv("CC");
    if (root == NULL || build == NULL || cc == NULL || getenv("MEMKIT_SAN") == NULL) {
        fprintf(stderr,
                "run by `make test`: MEMKIT_ROOT, MEMKIT_BUILD, MEMKIT_SAN and CC are not set\n");
        return -1;
    }
    snprintf(work, sizeof work, "%s/tests/work", build);
    return mkdir(work, 0777) == 0 || errno == EEXIST ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_header_compiles_alone_and_strictly),
        cmocka_unit_test(the_core_exports_what_its_headers_declare_and_nothing_else),
        cmocka_unit_test(the_core_needs_libc_alone_and_leaves_malloc_be),
        cmocka_unit_test(the_hook_exports_mallocs_family_unversioned),
        cmocka_unit_test(the_profiler_exports_what_its_headers_declare_and_nothing_else),
        cmocka_unit_test(internal_names_begin_with_memkit__in_the_static_libraries),
        cmocka_unit_test(install_puts_what_uninstall_takes_away),
        cmocka_unit_test(the_quick_start_compiles_and_runs),
        cmocka_unit_test(a_cpp17_program_uses_every_function),
        cmocka_unit_test(a_counted_program_sees_its_own_allocations),
        cmocka_unit_test(help_names_every_target),
        cmocka_unit_test(deps_asks_nothing_when_all_is_there_and_lists_where_there_is_no_apt),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
