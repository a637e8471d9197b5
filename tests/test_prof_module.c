/* test_prof_module.c - what is loaded: segments and build ids as the kernel and readelf see them;
 * libraries that come, go, and lie where another one lay.
 */
#include "test_hook.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "prof/frame.h"
#include "prof/module.h"
#include "prog_unwind.h"

/* ---- what stays ---- */

static void the_program_and_its_libraries_are_noted_and_stay(void **state)
{
    (void)state;
    char own[4096] = "";
    assert_true(readlink("/proc/self/exe", own, sizeof own - 1) > 0);
    const memkit__module *program = memkit__module_at((uintptr_t)prepare);
    assert_non_null(program);
    assert_string_equal(program->path, own);
    assert_true(program->stays);
    const memkit__module *libc =
        memkit__module_at((uintptr_t)dlsym(RTLD_NEXT, "gnu_get_libc_version"));
    assert_non_null(libc);
    assert_non_null(strstr(libc->path, "libc.so"));
    assert_true(libc->stays);
    assert_ptr_equal(memkit__module_of((uintptr_t)prepare + 1), program);
    assert_int_not_equal(program->id, libc->id);
}

static void the_vdso_is_noted_by_a_name_of_its_own(void **state)
{
    (void)state;
    uintptr_t at = (uintptr_t)getauxval(AT_SYSINFO_EHDR);
    if (at == 0)
        skip();
    const memkit__module *m = memkit__module_at(at + 64);
    assert_non_null(m);
    assert_string_equal(m->path, "[vdso]");
    assert_true(m->stays);
    assert_true(m->n_segments > 0);
    assert_true(m->eh_frame_hdr != 0);
}

static void segments_lie_in_the_files_where_the_kernel_says(void **state)
{
    (void)state;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    char line[4500], path[4096];
    int found = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long start, end, offset;
        char perms[8];
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %4095s", &start, &end, perms, &offset, path) <
                5 ||
            perms[2] != 'x' || path[0] != '/')
            continue;
        const memkit__module *m = memkit__module_at(start);
        assert_non_null(m);
        bool in_segment = false;
        for (unsigned i = 0; i < m->n_segments; i++)
            if ((m->segments[i].start & ~(uintptr_t)4095) == start) {
                in_segment = true;
                assert_true(m->segments[i].offset - (m->segments[i].start - start) == offset);
                assert_true(m->segments[i].end <= end);
            }
        assert_true(in_segment);
        assert_true(start >= m->start && end <= ((m->end + 4095) & ~(uintptr_t)4095));
        found++;
    }
    fclose(f);
    assert_true(found >= 3);
}

static void a_build_id_is_the_one_that_readelf_reads(void **state)
{
    (void)state;
    if (!present("readelf"))
        skip();
    const memkit__module *m =
        memkit__module_at((uintptr_t)dlsym(RTLD_NEXT, "gnu_get_libc_version"));
    const result *r =
        RUN(false, NULL, "sh", "-c", "readelf -n \"$0\" | sed -n 's/.*Build ID: //p'", m->path);
    char id[80] = "";
    for (unsigned i = 0; i < m->build_id_size; i++)
        snprintf(id + 2 * i, 3, "%02x", m->build_id[i]);
    strcat(id, "\n");
    assert_int_equal(m->build_id_size, 20);
    assert_string_equal(r->out, id);
}

static void what_is_no_code_of_a_file_is_in_no_module(void **state)
{
    (void)state;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int local;
    assert_null(memkit__module_at((uintptr_t)page + 16));
    assert_null(memkit__module_at((uintptr_t)&local));
    assert_null(memkit__module_at(0));
    assert_null(memkit__module_at(UINTPTR_MAX));
    munmap(page, 4096);
}

/* ---- what comes and goes ---- */

typedef struct {
    void *handle;
    int (*calls)(int (*)(int), int);
    int (*which)(void);
} plugin;

static plugin opened(const char *path)
{
    plugin p = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    assert_non_null(p.handle);
    *(void **)&p.calls = dlsym(p.handle, "plugin_calls");
    *(void **)&p.which = dlsym(p.handle, "plugin_which");
    return p;
}

static uint64_t frame_of_plugin;

static NOINLINE int taken(int n)
{
    ENTER();
    TAKE();
    frame_of_plugin = frames[1];
    check_in_order("through a plugin", 1);
    LEAVE();
    return n;
}

static NOINLINE int through(const plugin *p)
{
    ENTER();
    int value = p->calls(taken, 1);
    LEAVE();
    return value;
}

/* The frame word that a stack through the plugin has for it. */
static uint64_t frame_through(const plugin *p)
{
    failures = 0;
    for (int twice = 0; twice < 2; twice++) {
        n_expected = 0;
        assert_int_equal(through(p), 2);
        assert_int_equal(failures, 0);
        assert_int_equal(frame_of_plugin & ((UINT64_C(1) << 48) - 1), expected[1]);
    }
    return frame_of_plugin;
}

static void copy(const char *from, const char *to)
{
    assert_ran(RUN(false, NULL, "sh", "-c", "rm -f \"$1\" && cp \"$0\" \"$1\"", from, to), 0);
}

static void a_library_loaded_where_another_lay_is_another_with_its_own_rules(void **state)
{
    (void)state;
    int same_place = 0;
    for (int i = 0; i < 20; i++) {
        plugin a = opened(in_build("tests/lib_unwind_a.so"));
        uintptr_t a_at = (uintptr_t)a.calls;
        uint64_t a_frame = frame_through(&a);
        const memkit__module *am = memkit__module_of(a_frame);
        assert_non_null(am);
        assert_false(am->stays);
        assert_int_equal(memkit__frame_module(a_frame), am->id);
        assert_int_equal(a.which(), 1024);
        dlclose(a.handle);

        plugin b = opened(in_build("tests/lib_unwind_b.so"));
        uint64_t b_frame = frame_through(&b);
        const memkit__module *bm = memkit__module_of(b_frame);
        assert_non_null(bm);
        assert_int_equal(b.which(), 2048);
        assert_non_null(strstr(bm->path, "lib_unwind_b.so"));
        assert_non_null(strstr(memkit__module_of(a_frame)->path, "lib_unwind_a.so"));
        assert_int_not_equal(am->id, bm->id);
        same_place += a_at == (uintptr_t)b.calls;
        dlclose(b.handle);
    }
    assert_true(same_place > 0); /* else nothing was tried */
}

static void a_file_replaced_under_its_name_is_another_module(void **state)
{
    (void)state;
    const char *path = in_scratch("plugin.so");
    int same_place = 0;
    for (int i = 0; i < 10; i++) {
        copy(in_build("tests/lib_unwind_a.so"), path);
        plugin a = opened(path);
        uintptr_t a_at = (uintptr_t)a.calls;
        uint32_t a_id = memkit__module_of(frame_through(&a))->id;
        dlclose(a.handle);
        copy(in_build("tests/lib_unwind_b.so"), path);
        plugin b = opened(path);
        uint32_t b_id = memkit__module_of(frame_through(&b))->id;
        same_place += a_at == (uintptr_t)b.calls;
        assert_int_equal(b.which(), 2048);
        assert_int_not_equal(a_id, b_id);
        dlclose(b.handle);
    }
    assert_true(same_place > 0);
}

static void a_library_that_comes_back_to_its_place_is_the_same(void **state)
{
    (void)state;
    uint32_t ids[5];
    uintptr_t places[5];
    for (int i = 0; i < 5; i++) {
        plugin a = opened(in_build("tests/lib_unwind_a.so"));
        ids[i] = memkit__module_of(frame_through(&a))->id;
        places[i] = (uintptr_t)a.calls;
        dlclose(a.handle);
        assert_null(memkit__module_at(places[i]));
    }
    /* The address sanitizer's malloc gives the loader another link map each time. */
    for (int i = 1; i < 5 && !SANITIZED; i++)
        if (places[i] == places[0])
            assert_int_equal(ids[i], ids[0]);
}

static pthread_barrier_t barrier;

static void *asks(void *pc)
{
    pthread_barrier_wait(&barrier);
    return (void *)(uintptr_t)memkit__module_at((uintptr_t)pc);
}

static void threads_that_ask_at_once_are_told_the_same(void **state)
{
    (void)state;
    enum { THREADS = 6, ROUNDS = 20 };
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < ROUNDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "plugin%d.so", i);
        copy(in_build("tests/lib_unwind_a.so"), in_scratch(name));
        plugin p = opened(in_scratch(name));
        pthread_t t[THREADS];
        void *answer[THREADS];
        for (int k = 0; k < THREADS; k++)
            assert_int_equal(pthread_create(&t[k], NULL, asks, *(void **)&p.calls), 0);
        for (int k = 0; k < THREADS; k++)
            pthread_join(t[k], &answer[k]);
        assert_non_null(answer[0]);
        for (int k = 1; k < THREADS; k++)
            assert_ptr_equal(answer[k], answer[0]);
        dlclose(p.handle);
    }
    pthread_barrier_destroy(&barrier);
}

int main(void)
{
    if (!prepare() || memkit__unwind_prepare() != 0)
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_program_and_its_libraries_are_noted_and_stay),
        cmocka_unit_test(the_vdso_is_noted_by_a_name_of_its_own),
        cmocka_unit_test(segments_lie_in_the_files_where_the_kernel_says),
        cmocka_unit_test(a_build_id_is_the_one_that_readelf_reads),
        cmocka_unit_test(what_is_no_code_of_a_file_is_in_no_module),
        cmocka_unit_test(a_library_loaded_where_another_lay_is_another_with_its_own_rules),
        cmocka_unit_test(a_file_replaced_under_its_name_is_another_module),
        cmocka_unit_test(a_library_that_comes_back_to_its_place_is_the_same),
        cmocka_unit_test(threads_that_ask_at_once_are_told_the_same),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
