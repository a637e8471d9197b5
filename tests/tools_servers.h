/* tools_servers.h - redis, nginx and memcached as tests run them: started with the hook or without,
 * given work whose answers are always the same. tools_programs.h has how they end.
 */
#ifndef MEMKIT_TESTS_TOOLS_SERVERS_H
#define MEMKIT_TESTS_TOOLS_SERVERS_H

#include "tools_programs.h"

/* Listens on redis.sock of the scratch directory; what it prints goes beside it. */
static inline pid_t redis_start(bool hooked)
{
    char socket_path[4096];
    snprintf(socket_path, sizeof socket_path, "%s/redis.sock", scratch);
    pid_t pid = spawn((const char *const[]){"redis-server", "--port", "0", "--unixsocket",
                                            socket_path, "--save", "", "--dir", scratch,
                                            "--enable-debug-command", "yes", NULL},
                      hooked, hooked ? in_scratch("stats") : NULL, in_scratch("redis.out"),
                      in_scratch("redis.err"));
    wait_until("redis-cli -s $0/redis.sock ping | grep -q PONG");
    return pid;
}

/* Gives it the same load and data each time, and leaves its answers. */
static inline void redis_work(result *answers)
{
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
            "redis-cli -s $0/redis.sock info persistence | grep -q 'bgsave_status:ok'", scratch);
    assert_ran(r, 0);
}

/* What it says it uses itself. */
static inline u64 redis_used(void)
{
    const result *r =
        RUN(false, NULL, "bash", "-c",
            "redis-cli -s $0/redis.sock info memory | sed -n 's/^used_memory:\\([0-9]*\\).*/\\1/p'",
            scratch);
    assert_ran(r, 0);
    return strtoull(r->out, NULL, 10);
}

/* On 127.0.0.1:port, its files in the scratch directory; `workers` 0: one process does it all. */
static inline pid_t nginx_start(bool hooked, int port, int workers)
{
    char conf[4096], command[1024];
    snprintf(conf, sizeof conf,
             "%s daemon off; master_process %s; worker_processes %d;\n"
             "pid nginx.pid; error_log err.log;\n"
             "events { worker_connections 256; }\n"
             "http { access_log off; default_type text/plain; gzip on; gzip_types text/plain;\n"
             "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi;\n"
             "uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"
             "server { listen 127.0.0.1:%d; root %s; } }\n",
             geteuid() == 0 ? "user root;" : "", workers > 0 ? "on" : "off",
             workers > 0 ? workers : 1, port, scratch);
    write_file("nginx.conf", conf);
    pid_t pid = spawn((const char *const[]){"nginx", "-p", scratch, "-c", "nginx.conf", NULL},
                      hooked, hooked ? in_scratch("stats") : NULL, in_scratch("nginx.out"),
                      in_scratch("nginx.err"));
    snprintf(command, sizeof command, "curl -s http://127.0.0.1:%d/ >/dev/null", port);
    wait_until(command);
    return pid;
}

/* A page of 20 kB, for nginx to serve. */
static inline void nginx_page(void)
{
    static char page[20000];
    for (size_t i = 0; i < sizeof page - 1; i++)
        page[i] = (char)('a' + i * i / 7 % 26);
    write_file("page", page);
}

/* Asks for it, plain and compressed, and for one that is not there; then two seconds of wrk. */
static inline void nginx_work(int port, result *answers)
{
    char command[1024];
    snprintf(command, sizeof command,
             "u=http://127.0.0.1:%d; curl -sf $u/page | sha256sum; curl -s $u/none; "
             "curl -sf --compressed $u/page | sha256sum; "
             "wrk -t2 -c32 -d2s -H 'Accept-Encoding: gzip' $u/page >$0/wrk; "
             "grep -c 'Requests/sec' $0/wrk; grep -E 'Non-2xx|Socket errors' $0/wrk; true",
             port);
    const result *r = RUN(false, NULL, "bash", "-c", command, scratch);
    assert_ran(r, 0);
    assert_null(strstr(r->out, "errors"));
    assert_null(strstr(r->out, "Non-2xx"));
    *answers = *r;
}

/* How many requests wrk says were answered. */
static inline u64 wrk_requests(void)
{
    char wrk[4096];
    slurp(in_scratch("wrk"), wrk, sizeof wrk);
    const char *at = strstr(wrk, " requests in ");
    assert_non_null(at);
    while (at > wrk && at[-1] >= '0' && at[-1] <= '9')
        at--;
    u64 requests = strtoull(at, NULL, 10);
    printf("nginx answered %llu requests of wrk\n", requests);
    return requests;
}

static inline pid_t memcached_start(bool hooked, int port)
{
    char number[20], ask[200];
    snprintf(number, sizeof number, "%d", port);
    pid_t pid = spawn((const char *const[]){"memcached", "-u", "root", "-l", "127.0.0.1", "-p",
                                            number, "-U", "0", "-m", "100", "-t", "4", NULL},
                      hooked, hooked ? in_scratch("stats") : NULL, in_scratch("memcached.out"),
                      in_scratch("memcached.err"));
    snprintf(ask, sizeof ask, "exec 3<>/dev/tcp/127.0.0.1/%d && echo version >&3 && head -1 <&3",
             port);
    wait_until(ask);
    return pid;
}

/* Four connections at a time set 40,000 values, and get each. Returns the bytes of its slabs, as it
 * says itself. */
static inline u64 memcached_work(int port, result *answers)
{
    char number[20];
    snprintf(number, sizeof number, "%d", port);
    write_file("m.py",
               "import hashlib, socket, sys, threading\n"
               "def work(k):\n"
               "    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
               "    f = s.makefile('rb')\n"
               "    h = hashlib.sha256()\n"
               "    for i in range(0, 10000, 100):\n"
               "        batch = range(i, i + 100)\n"
               "        s.sendall(b''.join(b'set key:%d:%d 0 0 %d\\r\\n%s\\r\\n' %\n"
               "            (k, n, n % 1900, b'v' * (n % 1900)) for n in batch))\n"
               "        for n in batch: h.update(f.readline())\n"
               "        s.sendall(b''.join(b'get key:%d:%d\\r\\n' % (k, n) for n in batch))\n"
               "        for n in batch:\n"
               "            head = f.readline(); h.update(head)\n"
               "            h.update(f.read(int(head.split()[3]) + 2)); h.update(f.readline())\n"
               "    sums[k] = h.hexdigest()\n"
               "sums = [None] * 4\n"
               "threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]\n"
               "for t in threads: t.start()\n"
               "for t in threads: t.join()\n"
               "print('\\n'.join(sums))\n"
               "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
               "s.sendall(b'stats slabs\\r\\nquit\\r\\n')\n"
               "print([l for l in s.makefile() if 'total_malloced' in l][0].split()[2],\n"
               "      file=sys.stderr)\n");
    const result *r = RUN(false, NULL, "python3", in_scratch("m.py"), number);
    assert_ran(r, 0);
    *answers = *r;
    return strtoull(r->err, NULL, 10);
}

/* What a server said on standard error becomes part of its answers. */
static inline void add_stderr(result *answers, const char *file)
{
    slurp(in_scratch(file), answers->err, sizeof answers->err);
}

#endif
