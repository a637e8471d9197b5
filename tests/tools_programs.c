/* tools_programs.c - real programs with the hook preloaded: servers under load that are told to
 * end, a database, an interpreter, a compiler, C++ with threads. Each must print what it prints
 * without, and its counters must make sense. What each counted is printed, and so in this test's
 * log.
 */
#include "test_hook.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

typedef unsigned long long u64;

typedef struct {
    u64 mallocs, frees, bytes, in_use, peak;
} figures;

static void need(const char *program)
{
    if (!present(program))
        fail_msg("%s is not installed: make deps-tools", program);
}

static u64 figure(const char *table, const char *label)
{
    char line[64];
    u64 n = 0;
    snprintf(line, sizeof line, "\n  %-24s ", label);
    const char *at = strstr(table, line);
    if (at == NULL || sscanf(at + strlen(line), " %llu", &n) != 1)
        fail_msg("no '%s' in:\n%s", label, table);
    return n;
}

/* Adds up the tables in `text` of the processes of this name: how many there are. */
static int read_tables(const char *text, const char *name, figures *sum)
{
    char head[100];
    int n = 0;
    *sum = (figures){0};
    snprintf(head, sizeof head, "memkit: %s, process ", name);
    for (const char *at = text; (at = strstr(at, head)) != NULL; n++) {
        at += strlen(head);
        figures f = {figure(at, "mallocs"), figure(at, "frees"), figure(at, "allocated in total"),
                     figure(at, "in use at exit"), figure(at, "peak")};
        assert_true(f.frees <= f.mallocs);
        assert_true(f.in_use <= f.peak && f.peak <= f.bytes);
        sum->mallocs += f.mallocs;
        sum->frees += f.frees;
        sum->bytes += f.bytes;
        sum->in_use += f.in_use;
        sum->peak += f.peak;
    }
    printf("%s: %d processes, mallocs %llu, frees %llu, bytes %llu, in use at exit %llu\n", name, n,
           sum->mallocs, sum->frees, sum->bytes, sum->in_use);
    return n;
}

static const char *stats_text(void)
{
    static char text[65536];
    slurp(in_scratch("stats"), text, sizeof text);
    unlink(in_scratch("stats"));
    return text;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(in_scratch(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

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

/* Runs the shell's command until it succeeds, 10 s at most. */
static void wait_until(const char *command)
{
    for (int i = 0; i < 100; i++) {
        const result *r = RUN(false, NULL, "bash", "-c", command, scratch);
        if (r->code == 0)
            return;
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    fail_msg("in 10 s this did not succeed: %s", command);
}

/* Ended by SIGTERM, as a supervisor does, within 20 s. */
static void assert_ends(pid_t pid)
{
    int status = 0;
    kill(pid, SIGTERM);
    for (int i = 0; i < 200; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
            return;
        }
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fail_msg("the server did not end");
}

/* Fills it with the same data and load, and leaves its answers; returns what it says it uses
 * itself. */
static u64 redis_session(bool hooked, result *answers)
{
    char socket_path[4096];
    snprintf(socket_path, sizeof socket_path, "%s/redis.sock", scratch);
    pid_t pid = spawn((const char *const[]){"redis-server", "--port", "0", "--unixsocket",
                                            socket_path, "--save", "", "--dir", scratch,
                                            "--enable-debug-command", "yes", NULL},
                      hooked, hooked ? in_scratch("stats") : NULL, in_scratch("redis.out"),
                      in_scratch("redis.err"));
    wait_until("redis-cli -s $0/redis.sock ping | grep -q PONG");
    const result *r = RUN(false, NULL, "bash", "-c",
                          "redis-benchmark -s $0/redis.sock -c 20 -n 100000 -d 200 -r 50000 "
                          "-t set,get,lpush --csv | cut -d, -f1 && "
                          "redis-cli -s $0/redis.sock flushall && "
                          "redis-cli -s $0/redis.sock eval \""
                          "for i = 1, 100000 do redis.call('set', 'key:' .. i, "
                          "string.rep('v', i * 7919 % 500)) "
                          "redis.call('lpush', 'list:' .. i % 100, i) end "
                          "return redis.call('dbsize')\" 0 && "
                          "redis-cli -s $0/redis.sock bgsave && "
                          "redis-cli -s $0/redis.sock debug digest",
                          scratch);
    assert_ran(r, 0);
    *answers = *r;
    wait_until("redis-cli -s $0/redis.sock info persistence | grep -q 'bgsave_in_progress:0'");
    r = RUN(false, NULL, "bash", "-c",
            "redis-cli -s $0/redis.sock info persistence | grep -q 'bgsave_status:ok' && "
            "redis-cli -s $0/redis.sock info memory | sed -n 's/^used_memory:\\([0-9]*\\).*/\\1/p'",
            scratch);
    assert_ran(r, 0);
    u64 used = strtoull(r->out, NULL, 10);
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

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void nginx_session(bool hooked, result *answers)
{
    char conf[4096], command[1024];
    int port = free_port();
    snprintf(conf, sizeof conf,
             "%s daemon off; worker_processes 2; pid nginx.pid; error_log err.log;\n"
             "events { worker_connections 256; }\n"
             "http { access_log off; default_type text/plain; gzip on; gzip_types text/plain;\n"
             "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi;\n"
             "uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
             "server { listen 127.0.0.1:%d; root %s; } }\n",
             geteuid() == 0 ? "user root;" : "", port, scratch);
    write_file("nginx.conf", conf);
    pid_t pid = spawn((const char *const[]){"nginx", "-p", scratch, "-c", "nginx.conf", NULL},
                      hooked, hooked ? in_scratch("stats") : NULL, in_scratch("nginx.out"),
                      in_scratch("nginx.err"));
    snprintf(command, sizeof command, "curl -sf http://127.0.0.1:%d/page >/dev/null", port);
    wait_until(command);
    snprintf(command, sizeof command,
             "u=http://127.0.0.1:%d; curl -sf $u/page | sha256sum; curl -s $u/none; "
             "curl -sf --compressed $u/page | sha256sum; "
             "wrk -t2 -c32 -d2s -H 'Accept-Encoding: gzip' $u/page >$0/wrk; "
             "grep -c 'Requests/sec' $0/wrk; grep -E 'Non-2xx|Socket errors' $0/wrk; true",
             port);
    const result *r = RUN(false, NULL, "bash", "-c", command, scratch);
    assert_ran(r, 0);
    *answers = *r;
    assert_ends(pid);
}

static void nginx_serves_as_ever_and_each_worker_reports(void **state)
{
    (void)state;
    need("nginx");
    need("wrk");
    need("curl");
    static result plain, hooked;
    static char page[20000];
    for (size_t i = 0; i < sizeof page - 1; i++)
        page[i] = (char)('a' + i * i / 7 % 26);
    write_file("page", page);
    nginx_session(false, &plain);
    nginx_session(true, &hooked);
    assert_string_equal(hooked.out, plain.out);
    assert_null(strstr(plain.out, "errors"));
    assert_null(strstr(plain.out, "Non-2xx"));
    figures f;
    assert_int_equal(read_tables(stats_text(), "nginx", &f), 3); /* the master and two workers */
    char wrk[4096];
    u64 requests = 0;
    slurp(in_scratch("wrk"), wrk, sizeof wrk);
    const char *at = strstr(wrk, " requests in ");
    assert_non_null(at);
    while (at > wrk && at[-1] >= '0' && at[-1] <= '9')
        at--;
    requests = strtoull(at, NULL, 10);
    printf("nginx answered %llu requests of wrk\n", requests);
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
