/* test_hook_preload.c - libmemkit-prof preloaded, into tests/prog_hook_*.c and into real programs;
 * MEMKIT_STATS; what the shared object exports.
 */
#include "test_hook.h"

/* ---- preloaded ------------------------------------------------------------------------------- */

static void preloaded_it_counts_the_family_exactly(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_family")), 0);
}

static void preloaded_it_counts_threads_exactly(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_threads")), 0);
}

static void a_non_pie_program_is_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(false, NULL, "readelf", "-hW", in_build("tests/prog_hook_nopie"));
    if (r->code == 0)
        assert_non_null(strstr(r->out, "EXEC (Executable file)"));
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_nopie")), 0);
}

static void blocks_that_dlsym_itself_allocates_live_and_are_freed(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_boot")), 0);
}

static void a_program_with_its_own_malloc_is_not_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(true, NULL, in_build("tests/prog_hook_ownmalloc")), 0);
}

static void loaded_by_dlopen_it_hooks_nothing_and_says_so(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    assert_ran(RUN(false, NULL, in_build("tests/prog_hook_family"), "dlopen",
                   in_build("libmemkit-prof.so.0")),
               0);
}

static void same_with_and_without(const char *const argv[])
{
    static result plain;
    plain = *run(argv, false, NULL);
    const result *hooked = run(argv, true, in_scratch("stats"));
    assert_int_equal(hooked->code, plain.code);
    assert_string_equal(hooked->out, plain.out);
    assert_string_equal(hooked->err, plain.err);
    assert_true(plain.out[0] != '\0' || plain.code == 0);
    char table[4096];
    slurp(in_scratch("stats"), table, sizeof table);
    unlink(in_scratch("stats"));
    unsigned long long mallocs_said = 0;
    const char *line = strstr(table, "\n  mallocs ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " mallocs %llu", &mallocs_said), 1);
    assert_true(mallocs_said > 10);
}

static void ls_and_sort_do_as_ever(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    same_with_and_without((const char *const[]){"ls", "-la", "/usr/bin", NULL});
    same_with_and_without((const char *const[]){"ls", "/does/not/exist", "/usr", NULL});
    FILE *f = fopen(in_scratch("lines"), "w");
    assert_non_null(f);
    uint64_t seed = 1;
    for (int i = 0; i < 3000; i++)
        fprintf(f, "%llx\n", (unsigned long long)next_random(&seed));
    fclose(f);
    same_with_and_without((const char *const[]){"sort", "--parallel=2", in_scratch("lines"), NULL});
}

static void the_compiler_does_as_ever(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    if (!present("cc"))
        skip();
    FILE *f = fopen(in_scratch("a.c"), "w");
    assert_non_null(f);
    fputs("#include <stdio.h>\nint main(void) { return puts(\"x\") < 0; }\n", f);
    fclose(f);
    static const char command[] =
        "cd \"$0\" && cc -O2 -c a.c -o a.o && cksum < a.o && cc -c b.c"; /* and one that fails */
    const char *const argv[] = {"sh", "-c", command, scratch, NULL};
    static result plain;
    plain = *run(argv, false, NULL);
    const result *r = run(argv, true, NULL);
    assert_int_equal(r->code, plain.code);
    assert_string_equal(r->out, plain.out);
    assert_string_equal(r->err, plain.err);
    assert_true(plain.out[0] != '\0');
}

/* ---- MEMKIT_STATS ---------------------------------------------------------------------------- */

static unsigned long long figure(const char *table, const char *label)
{
    char line[64];
    unsigned long long n = ~0ull;
    snprintf(line, sizeof line, "\n  %s ", label);
    const char *at = strstr(table, line);
    if (at == NULL || sscanf(at + strlen(line), " %llu", &n) != 1)
        fail_msg("no '%s' in the table:\n%s", label, table);
    return n;
}

/* The table, against what the program read just before its end. */
static void assert_table(const char *table, const char *said)
{
    unsigned long long mallocs_said, frees_said, total, live, peak;
    assert_int_equal(
        sscanf(said, "%llu %llu %llu %llu %llu", &mallocs_said, &frees_said, &total, &live, &peak),
        5);
    assert_ptr_equal(strstr(table, "memkit: prog_hook_exit, process "), table);
    assert_int_equal(figure(table, "mallocs"), mallocs_said);
    assert_int_equal(figure(table, "frees"), frees_said);
    assert_int_equal(figure(table, "allocated in total"), total);
    assert_int_equal(figure(table, "in use at exit"), live);
    assert_int_equal(figure(table, "peak"), peak);
    assert_true(live >= 100 * 100 && peak >= 10000000 && total >= peak);
    unsigned long long rss = figure(table, "RSS peak");
    assert_true(rss > 500000 && rss < 500000000);
}

static void stats_1_prints_a_table_to_standard_error(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const char *program = in_build("tests/prog_hook_exit");
    const result *r = RUN(true, "1", program);
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    assert_null(strstr(r->err, "held"));
    r = RUN(true, "1", program, "close"); /* as ls does: its own descriptor 2 is another file's */
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    r = RUN(true, "1", program, "quick");
    assert_ran(r, 0);
    assert_string_equal(r->err, "");
}

static void stats_table_has_a_line_for_each_object(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(true, "1", in_build("tests/prog_hook_exit"), "rows");
    assert_ran(r, 0);
    assert_table(r->err, r->out);
    const char *line = strstr(r->err, "\n  pool stays ");
    assert_non_null(line);
    int a = 0, b = 0;
    assert_int_equal(sscanf(line, " pool stays %d bytes live %d held", &a, &b), 2);
    assert_true(a == 111 && b == 222);
    line = strstr(r->err, "\n  arena left-early ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " arena left-early %d bytes live %d held", &a, &b), 2);
    assert_true(a == 444 && b == 555);
    assert_non_null(strstr(r->err, "\n  lru "));
}

/* This program, started again, makes real ones: see main. */
static void stats_table_shows_the_cores_own_objects(void **state)
{
    (void)state;
    const result *r = RUN(false, "1", "/proc/self/exe", "--objects");
    assert_ran(r, 0);
    const char *line = strstr(r->err, "\n  pool fish ");
    assert_non_null(line);
    int live = 0, held = 0;
    assert_int_equal(sscanf(line, " pool fish %d bytes live %d held", &live, &held), 2);
    assert_true(live >= 5000 && live < 50000);
    assert_true(held >= 1000 && held < 50000);
    line = strstr(r->err, "\n  lru cat ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " lru cat %d bytes live", &live), 1);
    assert_true(live >= 2000);
    line = strstr(r->err, "\n  arena cow ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, " arena cow %d bytes live", &live), 1);
    assert_true(live >= 3000);
}

static void stats_file_is_appended_to_wherever_the_program_went(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    char table[8192], said[8192];
    char back[4096];
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(scratch), 0);
    const result *r = RUN(true, "t.txt", in_build("tests/prog_hook_exit"), "chdir", "/");
    assert_int_equal(chdir(back), 0);
    assert_ran(r, 0);
    assert_string_equal(r->err, "");
    memcpy(said, r->out, sizeof said);
    slurp(in_scratch("t.txt"), table, sizeof table);
    assert_table(table, said);
    size_t len = strlen(table);
    r = RUN(true, in_scratch("t.txt"), in_build("tests/prog_hook_exit"));
    assert_ran(r, 0);
    slurp(in_scratch("t.txt"), table, sizeof table);
    assert_true(strlen(table) > len);
    assert_table(table + len, r->out);
}

static void stats_off_prints_nothing_and_nonsense_is_said_once(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const char *program = in_build("tests/prog_hook_exit");
    assert_string_equal(RUN(true, NULL, program)->err, "");
    assert_string_equal(RUN(true, "", program)->err, "");
    assert_string_equal(RUN(true, "0", program)->err, "");
    static const char *const nonsense[] = {"yes", "2", "/does/not/exist/x"};
    for (int i = 0; i < 3; i++) {
        const result *r = RUN(true, nonsense[i], program);
        assert_ran(r, 0);
        assert_ptr_equal(strstr(r->err, "memkit: MEMKIT_STATS="), r->err);
        assert_non_null(strstr(r->err, nonsense[i]));
        assert_ptr_equal(strchr(r->err, '\n'), r->err + strlen(r->err) - 1);
    }
}

static void stats_says_when_malloc_is_not_hooked(void **state)
{
    (void)state;
    NEEDS_PRELOAD();
    const result *r = RUN(true, "1", in_build("tests/prog_hook_ownmalloc"));
    assert_ran(r, 0);
    assert_non_null(strstr(r->err, "malloc is not hooked"));
    assert_null(strstr(r->err, "mallocs"));
    assert_non_null(strstr(r->err, "RSS peak"));
}

/* ---- the shared object ----------------------------------------------------------------------- */

static void exactly_the_family_and_the_operators_are_exported_beside_memkits(void **state)
{
    (void)state;
    if (!present("nm"))
        skip();
    NEEDS_PRELOAD(); /* and sanitizers export names of their own */
    static const char want[] = "MEMKIT_PROF_0.1\n"
                               "_ZdaPv\n"
                               "_ZdaPvRKSt9nothrow_t\n"
                               "_ZdaPvSt11align_val_t\n"
                               "_ZdaPvSt11align_val_tRKSt9nothrow_t\n"
                               "_ZdaPvm\n"
                               "_ZdaPvmSt11align_val_t\n"
                               "_ZdlPv\n"
                               "_ZdlPvRKSt9nothrow_t\n"
                               "_ZdlPvSt11align_val_t\n"
                               "_ZdlPvSt11align_val_tRKSt9nothrow_t\n"
                               "_ZdlPvm\n"
                               "_ZdlPvmSt11align_val_t\n"
                               "_Znam\n"
                               "_ZnamRKSt9nothrow_t\n"
                               "_ZnamSt11align_val_t\n"
                               "_ZnamSt11align_val_tRKSt9nothrow_t\n"
                               "_Znwm\n"
                               "_ZnwmRKSt9nothrow_t\n"
                               "_ZnwmSt11align_val_t\n"
                               "_ZnwmSt11align_val_tRKSt9nothrow_t\n"
                               "aligned_alloc\n"
                               "calloc\n"
                               "free\n"
                               "malloc\n"
                               "memalign\n"
                               "posix_memalign\n"
                               "pvalloc\n"
                               "realloc\n"
                               "reallocarray\n"
                               "valloc\n";
    const result *r = RUN(false, NULL, "sh", "-c",
                          "nm -D --defined-only \"$0\" | awk '{ print $NF }' | grep -v ^memkit_ |"
                          " LC_ALL=C sort",
                          in_build("libmemkit-prof.so.0"));
    assert_ran(r, 0);
    assert_string_equal(r->out, want);
}

/* Objects for stats_table_shows_the_cores_own_objects. They are in use at exit. */
static int make_objects(void)
{
    static memkit_buf *out;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "fish"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "cat", .max_entries = 10});
    memkit_arena *a = memkit_arena_new(&(memkit_arena_opts){.name = "cow"});
    if (p == NULL || c == NULL || a == NULL)
        return 1;
    memkit_buf *waits = memkit_pool_get(p, 1000);
    out = memkit_pool_get(p, 5000);
    memkit_pool_put(p, waits);
    static char value[2000];
    if (out == NULL || memkit_lru_set(c, "k", 1, value, sizeof value) != 0)
        return 1;
    return memkit_arena_alloc(a, 3000) != NULL && memkit_arena_alloc(a, 9000) != NULL ? 0 : 1;
}

/* As `make compare` does to count nothing in a program that links the hook. */
static void with_libc_itself_in_front_it_stays_out_of_the_way(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    const result *r = RUN(false, NULL, "sh", "-c", "LD_PRELOAD=\"libc.so.6 $0\" true",
                          in_build("libmemkit-prof.so.0"));
    assert_ran(r, 0);
    assert_string_equal(r->err, "");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--objects") == 0)
        return make_objects();
    if (!prepare())
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_libc_itself_in_front_it_stays_out_of_the_way),
        cmocka_unit_test(preloaded_it_counts_the_family_exactly),
        cmocka_unit_test(preloaded_it_counts_threads_exactly),
        cmocka_unit_test(a_non_pie_program_is_hooked),
        cmocka_unit_test(blocks_that_dlsym_itself_allocates_live_and_are_freed),
        cmocka_unit_test(a_program_with_its_own_malloc_is_not_hooked),
        cmocka_unit_test(loaded_by_dlopen_it_hooks_nothing_and_says_so),
        cmocka_unit_test(ls_and_sort_do_as_ever),
        cmocka_unit_test(the_compiler_does_as_ever),
        cmocka_unit_test(stats_1_prints_a_table_to_standard_error),
        cmocka_unit_test(stats_table_has_a_line_for_each_object),
        cmocka_unit_test(stats_table_shows_the_cores_own_objects),
        cmocka_unit_test(stats_file_is_appended_to_wherever_the_program_went),
        cmocka_unit_test(stats_off_prints_nothing_and_nonsense_is_said_once),
        cmocka_unit_test(stats_says_when_malloc_is_not_hooked),
        cmocka_unit_test(exactly_the_family_and_the_operators_are_exported_beside_memkits),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
