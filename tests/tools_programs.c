/* tools_programs.c - real programs with the hook preloaded: servers under load that are told to
 * end, a database, an interpreter, a compiler, C++ with threads. Each must print what it prints
 * without, and its counters must make sense. What each counted is printed, and so in this test's
 * log.
 */
#include "tools_servers.h"

/* Runs a shell's command twice, and compares; $0 is the scratch directory, $1 the repository. */
static void same_with_and_without(const char *command)
{
    static result plain;
    const char *root = getenv("MEMKIT_ROOT");
    const char *const argv[] = {"bash", "-c", command, scratch, root, NULL};
    plain = *run(argv, false, NULL);
    assert_ran(&plain, 0);
    assert_true(plain.out[0] != '\0');
    const result *r = run(argv, true, in_scratch("stats"));
    assert_ran(r, 0);
    assert_string_equal(r->out, plain.out);
    assert_string_equal(r->err, plain.err);
}

/* ---- programs that end by themselves --------------------------------------------------------- */

static void sqlite_does_as_ever(void **state)
{
    (void)state;
    need("sqlite3");
    write_file("q.sql", "create table t(id integer primary key, name text, n int);\n"
                        "with recursive c(i) as (select 1 union all select i+1 from c "
                        "where i < 200000) insert into t select i, 'name ' || (i * 7919 % 200003), "
                        "i % 1000 from c;\n"
                        "create index by_name on t(name);\n"
                        "select count(*), sum(n), min(name), max(name) from t;\n"
                        "select n, count(*), group_concat(id) from t where n < 3 group by n;\n"
                        "delete from t where id % 3 = 0;\n"
                        "select a.name from t a join t b on a.id = b.id + 1 "
                        "order by a.name desc limit 20;\n"
                        "pragma integrity_check;\n");
    same_with_and_without("sqlite3 :memory: < $0/q.sql");
    figures f;
    assert_int_equal(read_tables(stats_text(), "sqlite3", &f), 1);
    assert_true(f.mallocs >= 1000 && f.bytes >= 5000000);
}

static void python_does_as_ever(void **state)
{
    (void)state;
    need("python3");
    write_file(
        "p.py",
        "import json, subprocess, sys, threading, hashlib, zlib\n"
        "rows = [{'id': i, 'name': 'n%d' % (i * 31 % 977), 'tags': list(range(i % 9))}\n"
        "        for i in range(10000)]\n"
        "text = json.dumps(rows)\n"
        "sums = [None] * 8\n"
        "def work(k):\n"
        "    back = json.loads(text)\n"
        "    back.sort(key=lambda r: (r['name'], r['id'] * (k + 1)))\n"
        "    sums[k] = hashlib.sha256(zlib.compress(json.dumps(back).encode())).hexdigest()\n"
        "threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print('\\n'.join(sums))\n"
        "code = 'import sys; d = sys.stdin.read(); print(len(d), len(set(d.split())))'\n"
        "for _ in range(3):\n"
        "    r = subprocess.run([sys.executable, '-c', code], input=text, text=True,\n"
        "                       capture_output=True)\n"
        "    print(r.returncode, r.stdout, r.stderr)\n");
    same_with_and_without("PYTHONMALLOC=malloc python3 $0/p.py"); /* all of its objects */
    figures f;
    assert_int_equal(read_tables(stats_text(), "python3", &f), 4); /* it and three children */
    assert_true(f.mallocs >= 1000000 && f.bytes >= 50000000);
}

static void gcc_makes_the_same_object(void **state)
{
    (void)state;
    need("gcc");
    same_with_and_without("cd $1 && gcc -O2 -g -Iinclude -Isrc -c src/core/lru.c -o $0/a.o && "
                          "sha256sum < $0/a.o");
    const char *text = stats_text();
    figures f;
    assert_int_equal(read_tables(text, "gcc", &f), 1);
    assert_int_equal(read_tables(text, "cc1", &f), 1);
    assert_true(f.mallocs >= 10000);
    assert_int_equal(read_tables(text, "as", &f), 1);
    assert_true(f.mallocs >= 100);
}

static void cxx_with_threads_does_as_ever(void **state)
{
    (void)state;
    const result *r = RUN(true, in_scratch("stats"), in_build("tests/prog_hook_cxx"), "hooked");
    assert_ran(r, 0);
    figures f;
    assert_int_equal(read_tables(stats_text(), "prog_hook_cxx", &f), 1);
    assert_true(f.mallocs >= 3 * 8 * 1500 * 2);
    assert_true(f.in_use < 500000);
}

/* ---- servers --------------------------------------------------------------------------------- */

static u64 redis_session(bool hooked, result *answers)
{
    pid_t pid = redis_start(hooked);
    redis_work(answers);
    u64 used = redis_used();
    assert_ends(pid);
    return used;
}

static void redis_serves_as_ever_and_agrees_on_its_memory(void **state)
{
    (void)state;
    need("redis-server");
    need("redis-benchmark");
    static result plain, hooked;
    redis_session(false, &plain);
    u64 used = redis_session(true, &hooked);
    assert_string_equal(hooked.out, plain.out);
    assert_non_null(strstr(plain.out, "LPUSH"));
    figures f;
    assert_int_equal(read_tables(stats_text(), "redis-server", &f), 1);
    printf("redis-server's own used_memory: %llu\n", used);
    assert_true(f.mallocs >= 300000);
    assert_true(f.in_use >= used / 10 * 9 && f.in_use <= used / 10 * 11);
}

static void nginx_session(bool hooked, result *answers)
{
    int port = free_port();
    pid_t pid = nginx_start(hooked, port, 2);
    nginx_work(port, answers);
    assert_ends(pid);
}

static void nginx_serves_as_ever_and_each_worker_reports(void **state)
{
    (void)state;
    need("nginx");
    need("wrk");
    need("curl");
    static result plain, hooked;
    nginx_page();
    nginx_session(false, &plain);
    nginx_session(true, &hooked);
    assert_string_equal(hooked.out, plain.out);
    figures f;
    assert_int_equal(read_tables(stats_text(), "nginx", &f), 3); /* the master and two workers */
    u64 requests = wrk_requests();
    assert_true(requests > 100);
    assert_true(f.mallocs >= requests); /* a request's pool, and zlib's state */
}

int main(void)
{
    if (!prepare() || SANITIZED) {
        fprintf(stderr, "a sanitizer's malloc must be the first: build without SAN\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sqlite_does_as_ever),
        cmocka_unit_test(python_does_as_ever),
        cmocka_unit_test(gcc_makes_the_same_object),
        cmocka_unit_test(cxx_with_threads_does_as_ever),
        cmocka_unit_test(redis_serves_as_ever_and_agrees_on_its_memory),
        cmocka_unit_test(nginx_serves_as_ever_and_each_worker_reports),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
