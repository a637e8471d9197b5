/* tools_profiles.c - the heap profiler in real programs that end by themselves: a database, an
 * interpreter, a compiler, C++ with threads, a shell's children, and over other mallocs. Each must
 * do as without; what its profile says is read by `go tool pprof` and compared with the counters,
 * with what the program knows, and with what its source says allocates. The first rows of each are
 * printed, and so in this test's log.
 */
#include "tools_profiles.h"

static const char *const *command; /* of program_session */

static void program_session(bool hooked, result *answers)
{
    *answers = *run(command, hooked, hooked ? in_scratch("stats") : NULL);
    assert_ran(answers, 0);
    assert_true(answers->out[0] != '\0');
}

/* ---- sqlite ---------------------------------------------------------------------------------- */

/* Debian's library is stripped: what is not exported has no name, but lies in it. */
static void sqlite_exact(const dumps *d, const figures *f)
{
    double all = sum_of(d, "alloc_space");
    assert_true(f->mallocs >= 1000000); /* the shell's import, a line or a field at a time */
    assert_true(sum_in(d, "alloc_space", "libsqlite3.so") >= all * 0.5);
    assert_true(sum_through(d, "alloc_space", "sqlite3_step") >= all * 0.2);
    assert_true(sum_through(d, "alloc_objects", "sqlite3_prepare_v2") >= 1);
    /* it freed all but what it keeps to the end */
    assert_true(sum_of(d, "inuse_space") <= 100000);
}

static void sqlite_loading_a_million_rows(void **state)
{
    (void)state;
    need("sqlite3");
    char read[4200];
    FILE *csv = fopen(in_scratch("rows.csv"), "w");
    assert_non_null(csv);
    for (unsigned i = 1; i <= 1000000; i++)
        fprintf(csv, "%u,name %u,%u\n", i, i * 7919u % 1000003u, i % 1000);
    assert_int_equal(fclose(csv), 0);
    char script[9000];
    snprintf(script, sizeof script,
             "create table t(id integer primary key, name text, n int);\n"
             ".import --csv %s t\n"
             "create index by_name on t(name);\n"
             "select count(*), sum(n), min(name), max(name) from t;\n"
             "pragma integrity_check;\n",
             in_scratch("rows.csv"));
    write_file("q.sql", script);
    snprintf(read, sizeof read, ".read %s", in_scratch("q.sql"));
    command = (const char *const[]){"sqlite3", ":memory:", read, NULL};
    assert_profiles(&(subject){"sqlite3", "sqlite3", 1, program_session, sqlite_exact});
}

/* ---- python ---------------------------------------------------------------------------------- */

/* PYTHONMALLOC=malloc: each object is a block. Names are those that the interpreter exports. */
static void python_exact(const dumps *d, const figures *f)
{
    double all = sum_of(d, "alloc_space");
    assert_true(f->mallocs >= 500000);
    assert_true(sum_through(d, "alloc_space", "Py_BytesMain") +
                    sum_through(d, "alloc_space", "start_thread") >=
                all * 0.95);
    assert_true(sum_through(d, "alloc_space", "_PyEval_EvalFrameDefault") >= all * 0.5);
    assert_true(sum_through(d, "alloc_objects", "PyUnicode_New") >= 10000);
    assert_true(sum_through(d, "alloc_objects", "_PyObject_GC_New*") >= 1000);
    assert_true(sum_through(d, "reallocs", "PyList_Append") >= 1000);
}

static void python_running_a_script(void **state)
{
    (void)state;
    need("/usr/bin/python3");
    write_file(
        "p.py",
        "import hashlib, json, threading, zlib\n"
        "rows = [{'id': i, 'name': 'n%d' % (i * 31 % 977), 'tags': list(range(i % 9))}\n"
        "        for i in range(5000)]\n"
        "text = json.dumps(rows)\n"
        "sums = [None] * 4\n"
        "def work(k):\n"
        "    back = json.loads(text)\n"
        "    back.sort(key=lambda r: (r['name'], r['id'] * (k + 1)))\n"
        "    sums[k] = hashlib.sha256(zlib.compress(json.dumps(back).encode())).hexdigest()\n"
        "threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print('\\n'.join(sums))\n");
    char real[4096], script[4096];
    snprintf(script, sizeof script, "%s", in_scratch("p.py"));
    assert_non_null(realpath("/usr/bin/python3", real));
    setenv("PYTHONMALLOC", "malloc", 1);
    setenv("PYTHONHASHSEED", "0", 1);
    command = (const char *const[]){"/usr/bin/python3", script, NULL};
    subject s = {strrchr(real, '/') + 1, "python3", 1, program_session, python_exact};
    assert_profiles(&s);
    unsetenv("PYTHONMALLOC");
    unsetenv("PYTHONHASHSEED");
}

/* A recursive descent has more stacks than fit into the profiler's memory: what has no place is in
 * no sum, and how much that was is said. */
static void what_has_no_room_is_counted(void **state)
{
    (void)state;
    static dumps d;
    figures f;
    unsigned long long dropped;
    profile_at(1);
    setenv("PYTHONMALLOC", "malloc", 1);
    const result *r =
        RUN(true, in_scratch("stats"), "/usr/bin/python3", "-c",
            "import ast, glob, os\n"
            "for path in sorted(glob.glob(os.path.dirname(os.__file__) + '/[a-d]*.py'))[:12]:\n"
            "    ast.parse(open(path, encoding='utf-8').read())\n"
            "print('parsed')\n");
    unsetenv("PYTHONMALLOC");
    assert_ran(r, 0);
    assert_string_equal(r->out, "parsed\n");
    assert_string_equal(r->err, "");
    assert_int_equal(read_tables(stats_text(), "python3", &f), 1);
    read_dumps(&d, NULL);
    pprof_assert_sane(d.of[0]);
    const char *said = pprof_comment(d.of[0], "dropped for want of room");
    assert_non_null(said);
    assert_int_equal(sscanf(strchr(said, ':'), ": %llu", &dropped), 1);
    printf("%zu stacks; %s", pprof_samples(d.of[0]), said);
    assert_true(dropped > 0);
    assert_in_range(sum_of(&d, "alloc_objects") + (double)dropped, f.mallocs - UNSEEN, f.mallocs);
    free_dumps(&d);
    profile_at(0);
}

/* ---- a compiler, and its children ------------------------------------------------------------ */

static void gcc_session(bool hooked, result *answers)
{
    static const char script[] = "cd $1 && gcc -O2 -g -Iinclude -Isrc -c src/core/lru.c "
                                 "-o $0/a.o && sha256sum < $0/a.o";
    command = (const char *const[]){"bash", "-c", script, scratch, getenv("MEMKIT_ROOT"), NULL};
    program_session(hooked, answers);
}

/* cc1 exports its functions, for plugins. */
static void cc1_exact(const dumps *d, const figures *f)
{
    double all = sum_of(d, "alloc_space");
    assert_true(f->mallocs >= 10000);
    assert_true(sum_through(d, "alloc_space", "toplev::main*") >= all * 0.5);
    assert_true(sum_at(d, "alloc_space", "xmalloc") + sum_at(d, "alloc_space", "xcalloc") +
                    sum_at(d, "alloc_space", "xrealloc") >=
                all * 0.5);
    assert_true(sum_through(d, "alloc_space", "bitmap_*") > 0);
    assert_true(sum_through(d, "alloc_space", "ggc_internal_alloc*") > 0);
}

static void gcc_and_each_of_its_children(void **state)
{
    (void)state;
    need("gcc");
    static dumps d;
    assert_profiles(&(subject){"cc1", "cc1", 1, gcc_session, cc1_exact});
    static result answers;
    profile_at(1);
    gcc_session(true, &answers);
    read_dumps(&d, NULL);
    stats_text();
    int bash = 0, as = 0, gcc = 0, sum = 0;
    for (size_t i = 0; i < d.n; i++) {
        const char *name = pprof_program(d.of[i]);
        printf("%s: %s: %lld bytes in %lld blocks\n", strrchr(d.paths[i], '/') + 1, name,
               pprof_total(d.of[i], "alloc_space"), pprof_total(d.of[i], "alloc_objects"));
        bash += strcmp(name, "bash") == 0;
        gcc += strstr(name, "gcc") != NULL;
        as += strstr(name, "-as") != NULL || strcmp(name, "as") == 0;
        sum += strcmp(name, "sha256sum") == 0;
    }
    assert_true(bash == 1 && gcc == 1 && as == 1 && sum == 1);
    free_dumps(&d);
}

/* bash forks for each: 100 that stay bash, 100 that become another program. */
static void a_hundred_children_dump_each_for_itself(void **state)
{
    (void)state;
    static dumps d;
    static bool seen[1 << 22];
    profile_at(1);
    const result *r = RUN(true, in_scratch("stats"), "bash", "-c",
                          "for i in {1..100}; do (echo $((i * 1))); uname >/dev/null; done");
    assert_ran(r, 0);
    assert_non_null(strstr(r->out, "\n100\n"));
    assert_string_equal(r->err, "");
    stats_text();
    read_dumps(&d, NULL);
    int bash = 0, uname = 0;
    for (size_t i = 0; i < d.n; i++) {
        int pid = 0, n = -1;
        sscanf(strrchr(d.paths[i], '/'), "/heap_%d_%d.pb.gz", &pid, &n);
        assert_true(pid > 0 && pid < 1 << 22 && !seen[pid]);
        seen[pid] = true;
        pprof_assert_sane(d.of[i]);
        assert_true(pprof_total(d.of[i], "alloc_objects") > 0);
        bash += strcmp(pprof_program(d.of[i]), "bash") == 0;
        uname += strcmp(pprof_program(d.of[i]), "uname") == 0;
    }
    printf("%d dumps of bash, %d of uname\n", bash, uname);
    assert_int_equal(bash, 101);
    assert_int_equal(uname, 100);
    free_dumps(&d);
    profile_at(0);
}

/* ---- C++ ------------------------------------------------------------------------------------- */

/* The thread's function has work(unsigned int) in it, or calls it, as the compiler likes. */
static void cxx_exact(const dumps *d, const figures *f)
{
    static const char thread[] = "std::thread::_State_impl<*eight_threads()::*";
    double work = sum_through(d, "alloc_objects", thread);
    (void)f;
    printf("through the threads' function: %.0f blocks\n", work);
    assert_true(work >= 3 * 8 * 1500 * 2);
    assert_true(sum_at(d, "alloc_objects", "*basic_string<char*") >= 3 * 8 * 97);
    assert_true(sum_at(d, "alloc_objects", "*std::vector<int*") >= 3 * 8 * 97);
    assert_true(sum_at(d, "alloc_objects", "__cxa_allocate_exception") >= 3 * 8 * 150);
    assert_true(sum_through(d, "alloc_objects", "_Z*") == 0);
    assert_true(sum_through(d, "inuse_objects", thread) == 0);
}

static void cxx_with_threads(void **state)
{
    (void)state;
    char program[4096];
    snprintf(program, sizeof program, "%s", in_build("tests/prog_hook_cxx"));
    command = (const char *const[]){
        "bash", "-c", "[ -n \"$MEMKIT_SAMPLE\" ] && exec $0 hooked; exec $0 none", program, NULL};
    assert_profiles(&(subject){"prog_hook_cxx", "prog_hook_cxx", 1, program_session, cxx_exact});
}

/* ---- exactly, over other mallocs too --------------------------------------------------------- */

static int truth_is_told(const char *text, const pprof *p)
{
    int functions = 0;
    for (const char *at = text; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n') {
        static const char *const types[] = {"alloc_objects",   "alloc_space",
                                            "inuse_objects",   "inuse_space",
                                            "reallocs", "foreign_frees"};
        char name[64];
        long long truth[6];
        assert_int_equal(sscanf(at, "%63s %lld %lld %lld %lld %lld %lld", name, &truth[0],
                                &truth[1], &truth[2], &truth[3], &truth[4], &truth[5]),
                         7);
        for (int i = 0; i < 6; i++) {
            long long says = pprof_through(p, types[i], name);
            if (says != truth[i])
                fail_msg("%s, %s: %lld, in truth %lld", name, types[i], says, truth[i]);
        }
        functions++;
    }
    return functions;
}

static void known_truth_under(const char *list, const char *title)
{
    static const char *const threads[] = {"1", "8"};
    for (int i = 0; i < 2; i++) {
        static dumps d;
        profile_at(1);
        preload_list = list;
        const result *r = RUN(true, NULL, in_build("tests/prog_prof_known"), threads[i]);
        preload_list = NULL;
        assert_ran(r, 0);
        assert_string_equal(r->err, "");
        read_dumps(&d, "prog_prof_known");
        assert_int_equal(d.n, 1);
        pprof_assert_sane(d.of[0]);
        int functions = truth_is_told(r->out, d.of[0]);
        assert_int_equal(functions, 6);
        printf("%s, %s threads: %d functions' six figures exact\n", title, threads[i], functions);
        free_dumps(&d);
    }
    profile_at(0);
}

static const char *const mallocs[] = {"libjemalloc.so.2", "libmimalloc.so.2",
                                      "libtcmalloc_minimal.so.4"};

static void what_a_program_knows_is_what_its_profile_says(void **state)
{
    (void)state;
    known_truth_under(NULL, "glibc");
    for (size_t i = 0; i < sizeof mallocs / sizeof mallocs[0]; i++) {
        char list[9000];
        snprintf(list, sizeof list, "%s:%s", in_build("libmemkit-prof.so.0"), mallocs[i]);
        known_truth_under(list, mallocs[i]);
    }
}

/* Behind one it sees no malloc: the program does as ever, and is told so, once. */
static void behind_another_malloc_it_says_that_there_is_nothing_to_sample(void **state)
{
    (void)state;
    static result plain;
    for (size_t i = 0; i < sizeof mallocs / sizeof mallocs[0]; i++) {
        char list[9000];
        snprintf(list, sizeof list, "%s:%s", mallocs[i], in_build("libmemkit-prof.so.0"));
        profile_at(0);
        plain = *RUN(false, NULL, in_build("tests/prog_prof_known"));
        profile_at(1);
        preload_list = list;
        const result *r = RUN(true, NULL, in_build("tests/prog_prof_known"));
        preload_list = NULL;
        assert_ran(r, 0);
        assert_string_equal(r->out, plain.out);
        printf("behind %s: %s", mallocs[i], r->err);
        assert_non_null(strstr(r->err, "memkit: "));
        assert_ptr_equal(strchr(r->err, '\n') + 1, r->err + strlen(r->err));
    }
    profile_at(0);
}

int main(void)
{
    if (!prepare() || SANITIZED) {
        fprintf(stderr, "a sanitizer's malloc must be the first: build without SAN\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_program_knows_is_what_its_profile_says),
        cmocka_unit_test(behind_another_malloc_it_says_that_there_is_nothing_to_sample),
        cmocka_unit_test(cxx_with_threads),
        cmocka_unit_test(sqlite_loading_a_million_rows),
        cmocka_unit_test(python_running_a_script),
        cmocka_unit_test(what_has_no_room_is_counted),
        cmocka_unit_test(gcc_and_each_of_its_children),
        cmocka_unit_test(a_hundred_children_dump_each_for_itself),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
