/* tools_profiles_servers.c - the heap profiler in real servers under load: redis, nginx, memcached.
 * Each must answer as without it and end cleanly; what its dumps say is compared with the counters,
 * with the server's own figures and with what its source says allocates. The first rows of each
 * profile are printed, and so in this test's log.
 */
#include "tools_profiles.h"

static void server_needs(const char *const *programs)
{
    for (; *programs != NULL; programs++)
        need(*programs);
}

/* ---- redis ----------------------------------------------------------------------------------- */

static u64 redis_says; /* used_memory of the last session */

static void redis_session(bool hooked, result *answers)
{
    pid_t pid = redis_start(hooked);
    redis_work(answers);
    redis_says = redis_used();
    assert_ends(pid);
    add_stderr(answers, "redis.err");
}

/* Debian's is stripped, but exports its functions for modules. */
static void redis_exact(const dumps *d, const figures *f)
{
    double all = sum_of(d, "alloc_space"), live = sum_of(d, "inuse_space");
    printf("redis-server's own used_memory: %llu\n", redis_says);
    assert_true(f->mallocs >= 300000);
    assert_true(live >= (double)redis_says * 0.75 && live <= (double)redis_says * 1.05);
    assert_true(sum_at(d, "alloc_space", "z*alloc*") + sum_at(d, "alloc_space", "sds*") +
                    sum_at(d, "alloc_space", "dict*") + sum_at(d, "alloc_space", "createObject*") >=
                all * 0.5);
    assert_true(sum_through(d, "alloc_space", "*sdsnewlen") > 0);
    assert_true(sum_through(d, "alloc_space", "processCommand") >= all * 0.3);
    assert_true(sum_through(d, "alloc_space", "main") >= all * 0.9);
    assert_true(sum_through(d, "inuse_objects", "dictAdd*") >= 100000); /* keys */
    assert_true(sum_through(d, "inuse_space", "lpPrepend*") > 0 ||
                sum_through(d, "inuse_space", "quicklistPush*") > 0);
    assert_true(pprof_assert_named_as_nm(d->of[0], pprof_module(d->of[0], "/redis-")) >= 20);
    assert_true(pprof_assert_named_as_nm(d->of[0], pprof_module(d->of[0], "/libc.so.6")) >= 2);
}

/* The file that is run goes by its real name. */
static void redis_under_load(void **state)
{
    (void)state;
    char program[4096];
    server_needs((const char *const[]){"redis-server", "redis-benchmark", "redis-cli", NULL});
    const result *r = RUN(false, NULL, "sh", "-c", "readlink -f $(command -v redis-server)");
    snprintf(program, sizeof program, "%.*s", (int)strcspn(r->out, "\n"), r->out);
    subject s = {strrchr(program, '/') + 1, "redis-server", 1, redis_session, redis_exact};
    assert_profiles(&s);
}

/* ---- nginx ----------------------------------------------------------------------------------- */

static void nginx_session(bool hooked, result *answers)
{
    int port = free_port();
    pid_t pid = nginx_start(hooked, port, 2);
    nginx_work(port, answers);
    assert_ends(pid);
    add_stderr(answers, "nginx.err");
}

/* Its pools come of posix_memalign, zlib's state of a pool; each request has a pool. */
static void nginx_exact(const dumps *d, const figures *f)
{
    double requests = (double)wrk_requests(), all = sum_of(d, "alloc_space");
    (void)f;
    assert_true(requests > 100);
    assert_true(sum_through(d, "alloc_objects", "ngx_http_create_request") >= requests);
    assert_true(sum_through(d, "alloc_objects", "ngx_create_pool") >= requests);
    assert_true(sum_at(d, "alloc_space", "ngx_memalign") + sum_at(d, "alloc_space", "ngx_alloc") >=
                all * 0.9);
    /* a request's buffer for zlib's state is larger than its pool */
    assert_true(sum_at(d, "alloc_objects", "ngx_alloc") >= requests);
    assert_true(sum_through(d, "alloc_space", "ngx_process_events_and_timers") >= all * 0.9);
    for (size_t i = 0; i < d->n; i++)
        pprof_assert_named_as_nm(d->of[i], pprof_module(d->of[i], "/nginx"));
}

static void nginx_under_load(void **state)
{
    (void)state;
    server_needs((const char *const[]){"nginx", "wrk", "curl", NULL});
    nginx_page();
    assert_profiles(&(subject){"nginx", "nginx", 3, nginx_session, nginx_exact});
}

/* ---- memcached ------------------------------------------------------------------------------- */

static u64 memcached_says; /* total_malloced of its slabs, in the last session */

static void memcached_session(bool hooked, result *answers)
{
    int port = free_port();
    pid_t pid = memcached_start(hooked, port);
    memcached_says = memcached_work(port, answers);
    assert_ends(pid);
    add_stderr(answers, "memcached.err");
}

/* Debian's is stripped and exports nothing: what it allocates is known by its file alone. */
static void memcached_exact(const dumps *d, const figures *f)
{
    double own = sum_in(d, "inuse_space", "/memcached"), slabs = (double)memcached_says;
    (void)f;
    printf("memcached's own total_malloced: %llu; in use, of its own code: %.0f\n", memcached_says,
           own);
    assert_true(slabs >= 30e6);
    assert_true(own >= slabs && own <= slabs * 1.5);
    assert_true(sum_of(d, "inuse_space") - own <= 5e6);
    assert_true(sum_in(d, "alloc_objects", "libevent") >= 10);
    assert_true(sum_at(d, "alloc_objects", "event_*") + sum_at(d, "alloc_objects", "evthread*") >=
                1);
}

static void memcached_under_load(void **state)
{
    (void)state;
    server_needs((const char *const[]){"memcached", "python3", NULL});
    assert_profiles(&(subject){"memcached", "memcached", 1, memcached_session, memcached_exact});
}

int main(void)
{
    if (!prepare() || SANITIZED) {
        fprintf(stderr, "a sanitizer's malloc must be the first: build without SAN\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_under_load),
        cmocka_unit_test(nginx_under_load),
        cmocka_unit_test(memcached_under_load),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
