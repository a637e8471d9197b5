/* test_prof_symbols.c - frames become locations, functions and mappings: what is loaded. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "prof/demangle.h"
#include "sanitized.h"
#include "test_prof_symbols.h"

static char self[PATH_MAX];

/* One sample of these return addresses, resolved. */
typedef struct {
    memkit__scratch s;
    memkit__profile p;
    memkit__sample sample;
    uint64_t frames[16];
} resolved;

static void resolve(resolved *r, unsigned n, const uintptr_t *pcs)
{
    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < n; i++)
        r->frames[i] = frame_at(pcs[i]);
    r->sample = (memkit__sample){.frames = r->frames, .depth = n};
    r->p = (memkit__profile){.samples = &r->sample, .n_samples = 1};
    assert_int_equal(memkit__profile_resolve(&r->p, &r->s), 0);
}

static const memkit__location *location(const resolved *r, unsigned frame)
{
    assert_in_range(frame, 0, r->sample.depth - 1);
    return &r->p.locations[r->sample.locations[frame]];
}

static const memkit__function *function(const resolved *r, unsigned frame)
{
    uint32_t f = location(r, frame)->function;
    assert_int_not_equal(f, MEMKIT__NONE);
    assert_in_range(f, 0, r->p.n_functions - 1);
    return &r->p.functions[f];
}

static const memkit__mapping *mapping(const resolved *r, unsigned frame)
{
    uint32_t m = location(r, frame)->mapping;
    assert_int_not_equal(m, MEMKIT__NONE);
    assert_in_range(m, 0, r->p.n_mappings - 1);
    return &r->p.mappings[m];
}

/* ---- functions of this program ------------------------------------------------------------------
 */

__attribute__((noinline)) static uintptr_t here(void)
{
    __asm__ volatile("");
    return (uintptr_t)__builtin_return_address(0);
}

__attribute__((noinline)) static uintptr_t static_function(void)
{
    uintptr_t pc = here();
    __asm__ volatile("");
    return pc;
}

uintptr_t exported_function(void);
__attribute__((noinline)) uintptr_t exported_function(void)
{
    uintptr_t pc = here();
    __asm__ volatile("nop"); /* else it is the same function to gcc */
    return pc;
}

static void static_and_exported_functions_are_named(void **state)
{
    (void)state;
    resolved r;
    uintptr_t pcs[] = {static_function(), exported_function()};
    resolve(&r, 2, pcs);
    assert_int_equal(r.sample.depth, 2);
    assert_string_equal(function(&r, 0)->name, "static_function");
    assert_string_equal(function(&r, 0)->system_name, "static_function");
    assert_string_equal(function(&r, 1)->name, "exported_function");
    assert_int_equal(location(&r, 0)->address, pcs[0] - 1);
    assert_int_equal(location(&r, 0)->mapping, 0);
    /* The symbol table says which file a static function is of, and no more. */
    assert_non_null(function(&r, 0)->file);
    assert_string_equal(function(&r, 0)->file, "test_prof_symbols.c");
    assert_null(function(&r, 1)->file);
    memkit__scratch_free(&r.s);
}

static void mappings_are_segments_with_their_file_and_build_id(void **state)
{
    (void)state;
    resolved r;
    uintptr_t pcs[] = {static_function()};
    char command[PATH_MAX + 64], line[256], id[128] = "";
    resolve(&r, 1, pcs);
    assert_int_equal(r.p.n_mappings, 1);
    const memkit__mapping *m = &r.p.mappings[0];
    assert_string_equal(m->path, self);
    assert_true(m->has_functions);
    assert_true(m->start <= pcs[0] - 1 && pcs[0] - 1 < m->limit);
    snprintf(command, sizeof command, "readelf -n '%s'", self);
    FILE *f = popen(command, "re"); // NOLINT
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        sscanf(line, " Build ID: %127s", id); // NOLINT
    pclose(f);
    assert_string_equal(m->build_id, id);
    /* The kernel tells the same of the address. */
    bool found = false;
    f = fopen("/proc/self/maps", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long long start, end, offset;
        if (sscanf(line, "%llx-%llx %*s %llx", &start, &end, &offset) == 3 && start <= pcs[0] &&
            pcs[0] < end) {
            assert_int_equal(m->offset - m->start, offset - start);
            found = true;
        }
    }
    fclose(f);
    assert_true(found);
    memkit__scratch_free(&r.s);
}

static void the_program_comes_first_also_when_it_is_in_no_stack(void **state)
{
    (void)state;
    resolved r;
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    assert_non_null(libc);
    uintptr_t pcs[] = {(uintptr_t)dlsym(libc, "qsort") + 8}; /* a sanitizer's may come before */
    resolve(&r, 1, pcs);
    assert_int_equal(r.p.n_mappings, 2);
    assert_string_equal(r.p.mappings[0].path, self);
    assert_false(r.p.mappings[0].has_functions);
    assert_int_equal(location(&r, 0)->mapping, 1);
    assert_non_null(strstr(mapping(&r, 0)->path, "libc"));
    assert_string_equal(function(&r, 0)->name, "qsort");
    assert_true(mapping(&r, 0)->has_functions);
    memkit__scratch_free(&r.s);
}

static void names_of_libc_are_those_that_people_call(void **state)
{
    (void)state;
    static const char *const names[] = {"strdup",  "getline", "fopen",   "realpath",
                                        "tsearch", "opendir", "regcomp", "asprintf"};
    enum { N = sizeof names / sizeof names[0] };
    uintptr_t pcs[N];
    resolved r;
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    assert_non_null(libc);
    for (int i = 0; i < N; i++)
        pcs[i] = (uintptr_t)dlsym(libc, names[i]) + 4;
    resolve(&r, N, pcs);
    for (unsigned i = 0; i < N; i++) {
        assert_null(strchr(function(&r, i)->system_name, '@'));
        /* fopen64 and _IO_fopen are the same code. */
        assert_non_null(strstr(function(&r, i)->name, names[i]));
        assert_int_not_equal(function(&r, i)->name[0], '_');
    }
    dlclose(libc);
    memkit__scratch_free(&r.s);
}

static void an_address_has_one_location(void **state)
{
    (void)state;
    uintptr_t a = static_function(), b = exported_function();
    uint64_t frames[2][3] = {{frame_at(a), frame_at(b), frame_at(a)}, {frame_at(b), 0x1000, 0}};
    memkit__sample samples[2] = {{.frames = frames[0], .depth = 3},
                                 {.frames = frames[1], .depth = 2}};
    memkit__profile p = {.samples = samples, .n_samples = 2};
    memkit__scratch s = {0};
    assert_int_equal(memkit__profile_resolve(&p, &s), 0);
    assert_int_equal(p.n_locations, 3);
    assert_int_equal(p.n_functions, 2);
    assert_int_equal(samples[0].locations[0], samples[0].locations[2]);
    assert_int_equal(samples[0].locations[1], samples[1].locations[0]);
    /* Code in no module, a just-in-time compiler's say. */
    const memkit__location *jit = &p.locations[samples[1].locations[1]];
    assert_int_equal(jit->address, 0xfff);
    assert_int_equal(jit->mapping, MEMKIT__NONE);
    assert_int_equal(jit->function, MEMKIT__NONE);
    memkit__scratch_free(&s);
}

static void ten_thousand_addresses_are_told_apart(void **state)
{
    (void)state;
    enum { N = 10000, DEPTH = 10 };
    static uint64_t frames[N];
    static memkit__sample samples[N / DEPTH];
    for (uint64_t i = 0; i < N; i++)
        frames[i] = 0x10000 + i * 16;
    for (int i = 0; i < N / DEPTH; i++)
        samples[i] = (memkit__sample){.frames = frames + (size_t)i * DEPTH, .depth = DEPTH};
    memkit__profile p = {.samples = samples, .n_samples = N / DEPTH};
    memkit__scratch s = {0};
    assert_int_equal(memkit__profile_resolve(&p, &s), 0);
    assert_int_equal(p.n_locations, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(p.locations[samples[i / DEPTH].locations[i % DEPTH]].address,
                         frames[i] - 1);
    memkit__scratch_free(&s);
}

static void a_name_without_a_stack_and_a_cut_one_are_locations(void **state)
{
    (void)state;
    uint64_t frames[] = {frame_at(static_function())};
    memkit__sample samples[] = {{.name = "[memkit held]"},
                                {.frames = frames, .depth = 1, .cut = true},
                                {.name = "[memkit held]"},
                                {.frames = frames, .depth = 1, .cut = true}};
    memkit__profile p = {.samples = samples, .n_samples = 4};
    memkit__scratch s = {0};
    assert_int_equal(memkit__profile_resolve(&p, &s), 0);
    assert_int_equal(samples[0].depth, 1);
    assert_int_equal(samples[1].depth, 2);
    assert_int_equal(samples[0].locations[0], samples[2].locations[0]);
    assert_int_equal(samples[1].locations[1], samples[3].locations[1]);
    const memkit__location *held = &p.locations[samples[0].locations[0]];
    const memkit__location *cut = &p.locations[samples[1].locations[1]];
    assert_string_equal(p.functions[held->function].name, "[memkit held]");
    assert_string_equal(p.functions[cut->function].name, "[stack cut at 128 frames]");
    assert_int_equal(held->address, 0);
    assert_int_equal(held->mapping, MEMKIT__NONE);
    assert_int_equal(p.n_locations, 3);
    memkit__scratch_free(&s);
}

static void an_empty_profile_has_the_program_alone(void **state)
{
    (void)state;
    memkit__profile p = {0};
    memkit__scratch s = {0};
    assert_int_equal(memkit__profile_resolve(&p, &s), 0);
    assert_int_equal(p.n_locations, 0);
    assert_int_equal(p.n_functions, 0);
    assert_int_equal(p.n_mappings, 1);
    memkit__scratch_free(&s);
}

static void functions_of_the_vdso_are_read_where_it_lies(void **state)
{
    (void)state;
    void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void *fn = vdso != NULL ? dlsym(vdso, "__vdso_clock_gettime") : NULL;
    if (fn == NULL)
        fn = vdso != NULL ? dlsym(vdso, "__kernel_clock_gettime") : NULL;
    if (fn == NULL)
        skip();
    resolved r;
    uintptr_t pcs[] = {(uintptr_t)fn + 2};
    resolve(&r, 1, pcs);
    assert_non_null(strstr(function(&r, 0)->name, "clock_gettime"));
    assert_string_equal(mapping(&r, 0)->path, "[vdso]");
    memkit__scratch_free(&r.s);
}

/* ---- libraries that come and go -----------------------------------------------------------------
 */

#define LIBRARY(name)                                           \
    "static __attribute__((noinline)) int " name                \
    "_inner(int x) { __asm__ volatile(\"\"); return x + 1; }\n" \
    "int " name "(int x) { return " name "_inner(x) + 2; }\n"   \
    "void *address_of_inner(void) { return (void *)" name "_inner; }\n"

static uint64_t load_frame(const char *path, void **handle)
{
    void *(*address_of_inner)(void);
    *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*handle == NULL)
        fail_msg("%s", dlerror());
    void *fn = dlsym(*handle, "address_of_inner");
    assert_non_null(fn);
    memcpy(&address_of_inner, &fn, sizeof fn);
    return frame_at((uintptr_t)address_of_inner() + 1);
}

static void resolve_frame(resolved *r, uint64_t frame)
{
    memset(r, 0, sizeof *r);
    r->frames[0] = frame;
    r->sample = (memkit__sample){.frames = r->frames, .depth = 1};
    r->p = (memkit__profile){.samples = &r->sample, .n_samples = 1};
    assert_int_equal(memkit__profile_resolve(&r->p, &r->s), 0);
}

static void a_library_that_is_gone_still_has_names(void **state)
{
    (void)state;
    void *handle;
    resolved r;
    const char *path = compile("gone.so", "-shared -fPIC", LIBRARY("gone"));
    uint64_t frame = load_frame(path, &handle);
    assert_int_equal(dlclose(handle), 0);
    assert_null(dlopen(path, RTLD_NOW | RTLD_NOLOAD));
    resolve_frame(&r, frame);
    assert_string_equal(function(&r, 0)->name, "gone_inner");
    assert_string_equal(mapping(&r, 0)->path, path);
    assert_int_equal(strlen(mapping(&r, 0)->build_id), 40);
    memkit__scratch_free(&r.s);
}

static void two_that_lay_at_one_address_are_two(void **state)
{
    (void)state;
    void *handle;
    uint64_t frames[2];
    static const char *const text[] = {LIBRARY("first"), LIBRARY("second")};
    static const char *const names[] = {"first.so", "second.so"};
    for (int i = 0; i < 2; i++) {
        frames[i] = load_frame(compile(names[i], "-shared -fPIC", text[i]), &handle);
        assert_int_equal(dlclose(handle), 0);
    }
    memkit__sample sample = {.frames = frames, .depth = 2};
    memkit__profile p = {.samples = &sample, .n_samples = 1};
    memkit__scratch s = {0};
    assert_int_equal(memkit__profile_resolve(&p, &s), 0);
    assert_int_equal(p.n_locations, 2);
    uint32_t a = p.locations[sample.locations[0]].function;
    uint32_t b = p.locations[sample.locations[1]].function;
    assert_string_equal(p.functions[a].name, "first_inner");
    assert_string_equal(p.functions[b].name, "second_inner");
    memkit__scratch_free(&s);
}

static void another_build_of_the_file_gives_no_name_rather_than_a_wrong_one(void **state)
{
    (void)state;
    void *handle;
    resolved r;
    const char *path = compile("swapped.so", "-shared -fPIC", LIBRARY("swapped"));
    uint64_t frame = load_frame(path, &handle);
    assert_int_equal(unlink(path), 0);
    compile("swapped.so", "-shared -fPIC", LIBRARY("stranger"));
    resolve_frame(&r, frame);
    assert_int_equal(location(&r, 0)->function, MEMKIT__NONE);
    assert_false(mapping(&r, 0)->has_functions);
    assert_string_equal(mapping(&r, 0)->path, path);
    memkit__scratch_free(&r.s);
    /* Nor does one that is gone, or is no file. */
    assert_int_equal(unlink(path), 0);
    resolve_frame(&r, frame);
    assert_int_equal(location(&r, 0)->function, MEMKIT__NONE);
    memkit__scratch_free(&r.s);
    assert_int_equal(mkfifo(path, 0600), 0);
    resolve_frame(&r, frame);
    assert_int_equal(location(&r, 0)->function, MEMKIT__NONE);
    memkit__scratch_free(&r.s);
    dlclose(handle);
}

/* ---- C++ ----------------------------------------------------------------------------------------
 */

static const char cxx_text[] =
    "namespace { struct hidden { __attribute__((noinline)) static int work(const char *p)\n"
    "    { __asm__ volatile(\"\"); return p != nullptr; } }; }\n"
    "extern \"C\" void *address_of_inner() { return reinterpret_cast<void *>(&hidden::work); }\n";

static void cxx_names_are_read_and_the_raw_ones_kept(void **state)
{
    (void)state;
    void *handle;
    resolved r;
    const char *source = in_dir("names.cc"), *path = in_dir("names.so");
    write_file(source, cxx_text, sizeof cxx_text - 1);
    if (run("c++ -O1 -shared -fPIC -o '%s' '%s' 2>/dev/null", path, source) != 0)
        skip();
    uint64_t frame = load_frame(path, &handle);
    resolve_frame(&r, frame);
    assert_string_equal(function(&r, 0)->name, "(anonymous namespace)::hidden::work(char const*)");
    assert_string_equal(function(&r, 0)->system_name, "_ZN12_GLOBAL__N_16hidden4workEPKc");
    memkit__scratch_free(&r.s);
    dlclose(handle);
}

static void names_that_nothing_can_read_stay_raw(void **state)
{
    (void)state;
    memkit__scratch s = {0};
    memkit__demangler none = {.sought = true}, real = {0};
    assert_string_equal(memkit__demangle(&none, "_Z1fv", &s), "_Z1fv");
    assert_string_equal(memkit__demangle(&real, "main", &s), "main");
    assert_false(real.sought); /* no library is loaded for C */
    assert_string_equal(memkit__demangle(&real, "_Z1fv", &s), "f()");
    assert_string_equal(memkit__demangle(&real, "_Znwm@plt", &s),
                        "operator new(unsigned long)@plt");
    assert_string_equal(memkit__demangle(&real, "_Z", &s), "_Z");
    assert_string_equal(memkit__demangle(&real, "_ZN", &s), "_ZN");
    static char deep[200000];
    memcpy(deep, "_Z1f", 4);
    memset(deep + 4, 'P', sizeof deep - 6);
    deep[sizeof deep - 2] = 'i';
    assert_ptr_equal(memkit__demangle(&real, deep, &s), deep);
    memkit__scratch_free(&s);
}

/* ---- the program's own file ---------------------------------------------------------------------
 */

/* In a copy of this program: prints what its functions are called. */
static int as_child(const char *what, const char *path)
{
    if (strcmp(what, "deleted") == 0 && unlink(path) != 0)
        return 3;
    if (strcmp(what, "replaced") == 0) {
        unlink(path);
        if (run("cp /bin/true '%s'", path) != 0)
            return 3;
    }
    memkit__scratch s = {0};
    uint64_t frames[] = {frame_at(static_function()), frame_at(exported_function())};
    memkit__sample sample = {.frames = frames, .depth = 2};
    memkit__profile p = {.samples = &sample, .n_samples = 1};
    if (memkit__profile_resolve(&p, &s) != 0)
        return 4;
    for (int i = 0; i < 2; i++) {
        uint32_t f = p.locations[sample.locations[i]].function;
        printf("%s ", f != MEMKIT__NONE ? p.functions[f].name : "-");
    }
    memkit__scratch_free(&s);
    return 0;
}

static void expect_of_copy(const char *what, const char *prepare, const char *expected)
{
    char command[3 * PATH_MAX], out[256] = "";
    snprintf(command, sizeof command, "%s '%s' '%s' && '%s' --child %s '%s'", prepare, self,
             in_dir("copy"), in_dir("copy"), what, in_dir("copy"));
    FILE *f = popen(command, "re"); // NOLINT
    assert_non_null(f);
    assert_non_null(fgets(out, sizeof out, f));
    assert_int_equal(pclose(f), 0);
    assert_string_equal(out, expected);
}

static void a_deleted_or_replaced_program_still_has_names(void **state)
{
    (void)state;
    expect_of_copy("kept", "cp", "static_function exported_function ");
    expect_of_copy("deleted", "cp", "static_function exported_function ");
    expect_of_copy("replaced", "cp", "static_function exported_function ");
}

static void a_stripped_program_has_no_wrong_names(void **state)
{
    (void)state;
    expect_of_copy("stripped", "objcopy --strip-all", "- - ");
}

/* ---- memory -------------------------------------------------------------------------------------
 */

static void no_memory_is_an_error(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    uintptr_t pc = static_function();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint64_t frames[] = {frame_at(pc)};
        memkit__sample sample = {.frames = frames, .depth = 1};
        memkit__profile p = {.samples = &sample, .n_samples = 1};
        memkit__scratch s = {0};
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_AS, &none);
        _exit(memkit__profile_resolve(&p, &s) == -1 && errno == ENOMEM ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return 1;
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return memkit__modules_prepare() == 0 ? as_child(argv[2], argv[3]) : 5;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(static_and_exported_functions_are_named),
        cmocka_unit_test(mappings_are_segments_with_their_file_and_build_id),
        cmocka_unit_test(the_program_comes_first_also_when_it_is_in_no_stack),
        cmocka_unit_test(names_of_libc_are_those_that_people_call),
        cmocka_unit_test(an_address_has_one_location),
        cmocka_unit_test(ten_thousand_addresses_are_told_apart),
        cmocka_unit_test(a_name_without_a_stack_and_a_cut_one_are_locations),
        cmocka_unit_test(an_empty_profile_has_the_program_alone),
        cmocka_unit_test(functions_of_the_vdso_are_read_where_it_lies),
        cmocka_unit_test(a_library_that_is_gone_still_has_names),
        cmocka_unit_test(two_that_lay_at_one_address_are_two),
        cmocka_unit_test(another_build_of_the_file_gives_no_name_rather_than_a_wrong_one),
        cmocka_unit_test(cxx_names_are_read_and_the_raw_ones_kept),
        cmocka_unit_test(names_that_nothing_can_read_stay_raw),
        cmocka_unit_test(a_deleted_or_replaced_program_still_has_names),
        cmocka_unit_test(a_stripped_program_has_no_wrong_names),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
