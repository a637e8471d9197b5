/* test_prof_debug.c - the debug paths without a network: what each answers, and how a request that
 * waits begins and ends.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#include <memkit/debug.h>
#include <memkit/lru.h>
#include <memkit/pool.h>
#include <memkit/prof.h>

#include "core/attach.h"
#include "prof/debug.h"
#include "sanitized.h"

#define OCTETS  "application/octet-stream"
#define TEXT    "text/plain; charset=utf-8"
#define METRICS "text/plain; version=0.0.4; charset=utf-8"

static memkit_buf *body;
static const char *type;

static int fresh(void **state)
{
    (void)state;
    body = memkit_buf_new(0);
    type = NULL;
    return body != NULL ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    memkit_buf_free(body);
    return 0;
}

static int ask(const char *path, const char *query)
{
    memkit_buf_reset(body);
    type = NULL;
    return memkit_debug_handle(path, query, body, &type);
}

static void answers(const char *path, const char *query, int status, const char *content_type,
                    const char *contains)
{
    int got = ask(path, query);
    if (got != status)
        fail_msg("%s?%s: %d: %s", path, query != NULL ? query : "", got, body->data);
    assert_string_equal(type, content_type);
    if (contains != NULL && memmem(body->data, body->len, contains, strlen(contains)) == NULL)
        fail_msg("%s?%s has no \"%s\": %s", path, query != NULL ? query : "", contains, body->data);
}

static void *volatile kept[64];

/* A sanitizer's malloc is in front of ours: nothing can be sampled. */
static bool started(void)
{
    if (memkit_prof_running())
        return true;
    if (memkit_prof_start(&(memkit_prof_opts){.sample_bytes = 1}) != 0)
        return false;
    for (int i = 0; i < 64; i++)
        kept[i] = malloc(1000);
    return true;
}

#define NEEDS_PROFILER() \
    do {                 \
        if (!started())  \
            skip();      \
    } while (0)

/* ---- not started: these come first ---- */

static void heap_says_how_to_start_a_profiler_that_was_not(void **state)
{
    (void)state;
    static const char *const paths[] = {"/debug/pprof/heap", "/debug/pprof/allocs",
                                        "/debug/memkit/flame.svg"};
    static const char *const queries[] = {NULL, "seconds=1"};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            memkit_debug_req *req;
            assert_int_equal(memkit_debug_begin(paths[i], queries[k], &req), 0);
            memkit_buf_reset(body);
            assert_int_equal(memkit_debug_finish(req, body, &type), 503);
            assert_string_equal(type, TEXT);
            assert_non_null(strstr(body->data, "memkit_prof_start"));
            assert_non_null(strstr(body->data, "MEMKIT_SAMPLE"));
        }
}

static void the_others_work_without_it(void **state)
{
    (void)state;
    answers("/debug/pprof/", NULL, 200, "text/html; charset=utf-8", "was not started");
    answers("/debug/pprof/cmdline", NULL, 200, TEXT, "test_prof_debug");
    answers("/debug/pprof/symbol", NULL, 200, TEXT, "num_symbols: 1\n");
    answers("/metrics", NULL, 200, METRICS, "memkit_prof_running 0\n");
}

/* ---- each path ---- */

static bool gzipped(void)
{
    return body->len > 2 && memcmp(body->data, "\x1f\x8b", 2) == 0;
}

static void a_profile_is_gzip_and_saved_text_and_picture_are_shown(void **state)
{
    (void)state;
    NEEDS_PROFILER();
    answers("/debug/pprof/heap", NULL, 200, OCTETS, NULL);
    assert_true(gzipped());
    answers("/debug/pprof/allocs", "", 200, OCTETS, NULL);
    assert_true(gzipped());
    answers("/debug/pprof/heap", "debug=0", 200, OCTETS, NULL);
    assert_true(gzipped());
    answers("/debug/pprof/heap", "debug=1", 200, TEXT, NULL);
    assert_true(body->len > 0 && !gzipped());
    answers("/debug/pprof/allocs", "debug=1", 200, TEXT, NULL);
    answers("/debug/memkit/flame.svg", NULL, 200, "image/svg+xml", "<svg");
    answers("/debug/pprof/heap", "gc=1", 200, OCTETS, NULL);
    answers("/debug/pprof/heap", "gc=1&debug=1&other=%41", 200, TEXT, NULL);
}

static void flame_draws_every_type_and_lists_them_for_one_that_is_none(void **state)
{
    (void)state;
    NEEDS_PROFILER();
    const char *meaning, *name;
    unsigned n = 0;
    for (; (name = memkit__debug_type(n, &meaning)) != NULL; n++) {
        char query[64];
        snprintf(query, sizeof query, "type=%s", name);
        if (strcmp(name, "cpu") != 0)
            answers("/debug/memkit/flame.svg", query, 200, "image/svg+xml", "<svg");
    }
    assert_true(n > 4);
    answers("/debug/memkit/flame.svg", "type=space", 400, TEXT, "inuse_space");
    answers("/debug/memkit/flame.svg", "type=%3Cb%3E", 400, TEXT, "cpu");
    answers("/debug/memkit/flame.svg", "type=inuse_space&type=inuse_space", 400, TEXT, "twice");
    answers("/debug/memkit/flame.svg", "debug=1", 400, TEXT, "picture");
}

static void the_page_links_all_there_is_relatively(void **state)
{
    (void)state;
    static const char *const links[] = {"heap",
                                        "heap?debug=1",
                                        "heap?seconds=30",
                                        "allocs",
                                        "profile?seconds=30",
                                        "cmdline",
                                        "symbol",
                                        "../../metrics",
                                        "../memkit/flame.svg?type=inuse_space",
                                        "../memkit/flame.svg?type=cpu&amp;seconds=10"};
    answers("/debug/pprof/", NULL, 200, "text/html; charset=utf-8", "test_prof_debug");
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        char href[128];
        snprintf(href, sizeof href, "href=\"%s\"", links[i]);
        if (strstr(body->data, href) == NULL)
            fail_msg("no link %s", links[i]);
    }
    assert_null(strstr(body->data, "href=\"/"));
    assert_null(strstr(body->data, "<base"));
    /* without the slash at its end, relative links would miss */
    answers("/debug/pprof", NULL, 200, "text/html; charset=utf-8", "<base href=\"pprof/\">");
}

static void cmdline_has_nuls_between_the_arguments_alone(void **state)
{
    (void)state;
    char want[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t n = read(fd, want, sizeof want);
    close(fd);
    assert_true(n > 1);
    answers("/debug/pprof/cmdline", NULL, 200, TEXT, NULL);
    assert_int_equal(body->len, n - 1);
    assert_memory_equal(body->data, want, (size_t)n - 1);
}

__attribute__((noinline)) static void known_by_name(void)
{
    __asm__ volatile("" ::: "memory");
}

static void symbol_names_addresses_of_body_and_query(void **state)
{
    (void)state;
    char asked[128], line[128];
    uintptr_t at = (uintptr_t)known_by_name;
    snprintf(asked, sizeof asked, "0x%lx+0x10+nonsense", (unsigned long)at);
    snprintf(line, sizeof line, "0x%lx known_by_name\n", (unsigned long)at);
    answers("/debug/pprof/symbol", asked, 200, TEXT, line);
    assert_memory_equal(body->data, "num_symbols: 1\n", 15);
    assert_null(strstr(body->data, "nonsense"));

    memkit_debug_req *req;
    assert_true(memkit_debug_takes_post("/debug/pprof/symbol"));
    assert_false(memkit_debug_takes_post("/debug/pprof/heap"));
    assert_int_equal(
        memkit_debug_begin_body("/debug/pprof/symbol", NULL, asked, strlen(asked), &req), 0);
    memkit_buf_reset(body);
    assert_int_equal(memkit_debug_finish(req, body, &type), 200);
    assert_non_null(strstr(body->data, line));
}

/* ---- bad requests ---- */

static void a_bad_query_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *query, *reason;
    } table[] = {
        {"seconds=0", "1 to 3600"},
        {"seconds=3601", "1 to 3600"},
        {"seconds=", "1 to 3600"},
        {"seconds", "1 to 3600"},
        {"seconds=-1", "1 to 3600"},
        {"seconds=1.5", "1 to 3600"},
        {"seconds=+5", "1 to 3600"},
        {"seconds=5s", "1 to 3600"},
        {"seconds=99999999999999999999", "1 to 3600"},
        {"seconds=%zz", "1 to 3600"},
        {"seconds=1%00", "1 to 3600"},
        {"%73econds=0", "1 to 3600"},
        {"seconds=1&seconds=1", "twice"},
        {"debug=2", "debug=2"},
        {"debug=", "debug"},
        {"debug=on", "debug=on"},
        {"debug=1&debug=1", "twice"},
        {"debug=1&seconds=1", "together"},
        {"seconds=1&debug=1", "together"},
    };
    static const char *const paths[] = {"/debug/pprof/heap", "/debug/pprof/allocs",
                                        "/debug/pprof/profile"};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (int p = 0; p < 3; p++)
            answers(paths[p], table[i].query, 400, TEXT, table[i].reason);
}

static void what_go_has_and_c_has_not_is_not_found_and_explained(void **state)
{
    (void)state;
    static const char *const paths[] = {"goroutine", "threadcreate", "block", "mutex", "trace"};
    char path[64];
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "/debug/pprof/%s", paths[i]);
        answers(path, NULL, 404, TEXT, "/debug/pprof/");
        assert_null(strstr(body->data, "no such path"));
    }
    static const char *const none[] = {"",
                                       "/",
                                       "/debug",
                                       "/debug/pprof/heap/",
                                       "heap",
                                       "/heap",
                                       "//debug/pprof/heap",
                                       "/debug/pprof/../pprof/heap"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        answers(none[i], NULL, 404, TEXT, "no such path");
}

static void a_call_without_its_arguments_is_an_error(void **state)
{
    (void)state;
    memkit_debug_req *req = NULL;
    errno = 0;
    assert_int_equal(memkit_debug_begin(NULL, NULL, &req), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(memkit_debug_begin("/metrics", NULL, NULL), -1);
    assert_int_equal(memkit_debug_begin_body("/debug/pprof/symbol", NULL, NULL, 1, &req), -1);
    assert_int_equal(memkit_debug_handle("/metrics", NULL, NULL, &type), -1);
    assert_int_equal(memkit_debug_handle("/metrics", NULL, body, NULL), -1);
    assert_int_equal(memkit_debug_handle(NULL, NULL, body, &type), -1);
    errno = 0;
    assert_int_equal(memkit_debug_finish(NULL, body, &type), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(memkit_debug_begin("/metrics", NULL, &req), 0);
    assert_int_equal(memkit_debug_finish(req, NULL, &type), -1); /* and it is ended: no leak */
    memkit_debug_cancel(NULL);
}

static void a_body_that_may_not_grow_is_unchanged(void **state)
{
    (void)state;
    assert_int_equal(memkit_buf_append_str(body, "before"), 0);
    assert_int_equal(memkit_buf_limit(body, 40), 0);
    errno = 0;
    assert_int_equal(memkit_debug_handle("/metrics", NULL, body, &type), -1);
    assert_int_equal(errno, EMSGSIZE);
    assert_string_equal(body->data, "before");
    assert_null(type);
}

/* ---- those that wait ---- */

static void a_delta_waits_as_long_as_asked_and_finish_may_come_early(void **state)
{
    (void)state;
    NEEDS_PROFILER();
    memkit_debug_req *req[3];
    assert_int_equal(memkit_debug_begin("/debug/pprof/heap", "seconds=3600", &req[0]), 3600000);
    assert_int_equal(memkit_debug_begin("/debug/pprof/allocs", "seconds=5&gc=1", &req[1]), 5000);
    assert_int_equal(
        memkit_debug_begin("/debug/memkit/flame.svg", "type=alloc_space&seconds=1", &req[2]), 1000);
    for (int i = 0; i < 3; i++) { /* now: none has waited */
        memkit_buf_reset(body);
        assert_int_equal(memkit_debug_finish(req[i], body, &type), 200);
        assert_true(i == 2 ? strstr(body->data, "<svg") != NULL : gzipped());
    }
}

static void handle_waits_through_signals(void **state)
{
    (void)state;
    NEEDS_PROFILER();
    struct timespec a, b;
    struct sigaction sa = {.sa_handler = SIG_IGN};
    sigaction(SIGALRM, &sa, NULL);
    clock_gettime(CLOCK_MONOTONIC, &a);
    answers("/debug/pprof/heap", "seconds=1", 200, OCTETS, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double took = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    assert_true(took >= 0.999);
}

/* Begins a CPU profile's request; skips where a profile cannot be had, as under a tool. */
static memkit_debug_req *begin_cpu(const char *path, const char *query, int want_ms)
{
    memkit_debug_req *req;
    int ms = memkit_debug_begin(path, query, &req);
    assert_int_equal(ms, want_ms);
    return req;
}

static void one_cpu_profile_at_a_time_and_cancel_ends_it(void **state)
{
    (void)state;
    memkit_debug_req *req = begin_cpu("/debug/pprof/profile", NULL, 30000);
    answers("/debug/pprof/profile", "seconds=1", 409, TEXT, "another request");
    answers("/debug/memkit/flame.svg", "type=cpu&seconds=1", 409, TEXT, "another request");
    memkit_debug_cancel(req);

    req = begin_cpu("/debug/memkit/flame.svg", "type=cpu&seconds=7", 7000);
    errno = 0;
    assert_int_equal(memkit_prof_cpu_start(0), -1); /* it runs, and the program cannot take it */
    assert_int_equal(errno, EBUSY);
    memkit_buf_reset(body);
    assert_int_equal(memkit_debug_finish(req, body, &type), 200);
    assert_string_equal(type, "image/svg+xml");

    assert_int_equal(memkit_prof_cpu_start(0), 0); /* it is stopped */
    answers("/debug/pprof/profile", "seconds=1", 409, TEXT, "the program");
    assert_int_equal(memkit_prof_cpu_stop(), 0);

    req = begin_cpu("/debug/pprof/profile", "seconds=2", 2000);
    memkit_buf_reset(body);
    assert_int_equal(memkit_debug_finish(req, body, &type), 200);
    assert_string_equal(type, OCTETS);
    assert_true(gzipped());
    req = begin_cpu("/debug/pprof/profile", "debug=1", 30000);
    memkit_buf_reset(body);
    assert_int_equal(memkit_debug_finish(req, body, &type), 200);
    assert_string_equal(type, TEXT);
}

static void a_child_has_none_of_its_parents_cpu_profile(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        skip(); /* no threads in the child of a process with threads */
    memkit_debug_req *mine = begin_cpu("/debug/pprof/profile", NULL, 30000);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        memkit_debug_req *req = NULL;
        int ms = memkit_debug_begin("/debug/pprof/profile", NULL, &req);
        memkit_debug_cancel(req);
        _exit(ms == 30000 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    memkit_debug_cancel(mine);
    assert_int_equal(status, 0);
}

static void *one_in_a_thread(void *arg)
{
    memkit_debug_req *req;
    memkit_buf *b = memkit_buf_new(0);
    const char *t;
    for (int i = 0; i < 50; i++) {
        if (memkit_debug_begin(arg, i % 2 != 0 ? "seconds=9" : NULL, &req) < 0)
            break;
        memkit_buf_reset(b);
        if (i % 3 == 0)
            memkit_debug_cancel(req);
        else
            memkit_debug_finish(req, b, &t);
    }
    memkit_buf_free(b);
    return NULL;
}

static void requests_of_many_threads_do_not_meet(void **state)
{
    (void)state;
    started();
    static const char *const paths[] = {"/debug/pprof/heap", "/debug/pprof/profile", "/metrics",
                                        "/debug/pprof/"};
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, one_in_a_thread, (void *)(uintptr_t)paths[i]),
                         0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    memkit_debug_cancel(begin_cpu("/debug/pprof/profile", NULL, 30000)); /* nobody owns it still */
}

/* ---- header fields ---- */

static const char *header(const char *path, const char *query, int status, const char *name)
{
    for (const memkit_debug_header *h = memkit_debug_headers(path, query, status); h->name != NULL;
         h++)
        if (strcmp(h->name, name) == 0)
            return h->value;
    return NULL;
}

static void header_fields_are_gos(void **state)
{
    (void)state;
#define DISPOSITION(path, query, status) header(path, query, status, "Content-Disposition")
    assert_string_equal(DISPOSITION("/debug/pprof/heap", NULL, 200),
                        "attachment; filename=\"heap\"");
    assert_string_equal(DISPOSITION("/debug/pprof/heap", "seconds=3", 200),
                        "attachment; filename=\"heap-delta\"");
    assert_string_equal(DISPOSITION("/debug/pprof/allocs", "gc=1", 200),
                        "attachment; filename=\"allocs\"");
    assert_string_equal(DISPOSITION("/debug/pprof/profile", "seconds=3", 200),
                        "attachment; filename=\"profile\"");
    assert_null(DISPOSITION("/debug/pprof/heap", "debug=1", 200));
    assert_null(DISPOSITION("/debug/pprof/heap", NULL, 503));
    assert_null(DISPOSITION("/debug/pprof/", NULL, 200));
    assert_null(DISPOSITION("/debug/memkit/flame.svg", NULL, 200));
    assert_null(DISPOSITION(NULL, NULL, 200));
    assert_string_equal(header("/metrics", NULL, 200, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(header("/debug/pprof/heap", "seconds=0", 400, "X-Content-Type-Options"),
                        "nosniff");
    /* go tool pprof shows the text of an answer that has it */
    assert_string_equal(header("/debug/pprof/heap", "seconds=0", 400, "X-Go-Pprof"), "1");
    assert_null(header("/debug/pprof/heap", NULL, 200, "X-Go-Pprof"));
}

/* ---- metrics ---- */

/* Families announced twice, or interrupted by another one's sample, void a scrape. */
static void check_families(const char *text)
{
    static char seen[128][96];
    int n = 0;
    char *copy = strdup(text), *save = NULL;
    for (char *line = strtok_r(copy, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char name[96];
        if (sscanf(line, "# TYPE %95s", name) == 1) {
            for (int i = 0; i < n; i++)
                if (strcmp(seen[i], name) == 0)
                    fail_msg("%s is there twice", name);
            assert_true(n < 128);
            strcpy(seen[n++], name);
        } else if (line[0] != '#') {
            size_t len = strlen(seen[n - 1]);
            if (n == 0 || strncmp(line, seen[n - 1], len) != 0 || strchr("{ _", line[len]) == NULL)
                fail_msg("%s is not under its family", line);
        }
    }
    free(copy);
}

static void fake_metrics(void (*fn)(void *arg, const memkit__metric *m), void *arg)
{
    memkit__metric m = {"memkit_pool_gets_total", "counter", "Theirs.", "pool", "default", 1, 77};
    fn(arg, &m);
    m = (memkit__metric){"memkit_new_things", "gauge", "Not known here.", "thing", "a\"b", 1, 5};
    fn(arg, &m);
}

static void fake_rows(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    (void)fn;
    (void)arg;
}

static void metrics_of_two_cores_have_each_family_once(void **state)
{
    (void)state;
    const memkit__core_table other = {.abi = MEMKIT__ATTACH_ABI,
                                      .size = sizeof other,
                                      .library_version = "9",
                                      .each_object = fake_rows,
                                      .each_metric = fake_metrics};
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "mine"});
    memkit_lru *c = memkit_lru_new(&(memkit_lru_opts){.name = "c", .max_entries = 10});
    const memkit__prof_table *prof = memkit_prof_attach(&other);
    assert_non_null(prof);
    answers("/metrics", NULL, 200, METRICS, "memkit_pool_gets_total{pool=\"mine\",id=\"");
    prof->detach(&other);
    check_families(body->data);
    assert_non_null(
        strstr(body->data, "memkit_new_things{thing=\"a\\\"b\",id=\"1\",core=\"1\"} 5\n"));
    assert_non_null(
        strstr(body->data, "memkit_pool_gets_total{pool=\"default\",id=\"1\",core=\"1\"} 77\n"));
    assert_non_null(strstr(body->data, "memkit_lru_max_entries{cache=\"c\",id=\""));
    static const char *const families[] = {
        "memkit_process_resident_bytes", "memkit_prof_samples_total", "memkit_prof_sites",
        "memkit_prof_dropped_total",     "memkit_prof_own_bytes",     "memkit_prof_sample_bytes"};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strstr(body->data, families[i]) == NULL)
            fail_msg("no %s", families[i]);
    answers("/metrics", NULL, 200, METRICS, NULL);
    assert_null(strstr(body->data, "memkit_new_things"));
    memkit_lru_free(c);
    memkit_pool_free(p);
}

/* One that is older than the figures of objects has none. */
static void a_core_of_before_is_not_asked(void **state)
{
    (void)state;
    const memkit__core_table old = {.abi = MEMKIT__ATTACH_ABI,
                                    .size = offsetof(memkit__core_table, each_metric),
                                    .library_version = "0",
                                    .each_object = fake_rows,
                                    .each_metric = fake_metrics};
    const memkit__prof_table *prof = memkit_prof_attach(&old);
    assert_non_null(prof);
    answers("/metrics", NULL, 200, METRICS, NULL);
    prof->detach(&old);
    assert_null(strstr(body->data, "memkit_new_things"));
}

static void metrics_are_the_cores_own_and_more(void **state)
{
    (void)state;
    memkit_pool *p = memkit_pool_new(&(memkit_pool_opts){.name = "both"});
    memkit_buf *own = memkit_buf_new(0);
    assert_int_equal(memkit_metrics_write(own), 0);
    answers("/metrics", NULL, 200, METRICS, NULL);
    char *save = NULL;
    for (char *line = strtok_r(own->data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save))
        if (line[0] == '#' && strstr(body->data, line) == NULL)
            fail_msg("/metrics has no %s", line);
    memkit_buf_free(own);
    memkit_pool_free(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(heap_says_how_to_start_a_profiler_that_was_not),
        TEST(the_others_work_without_it),
        TEST(symbol_names_addresses_of_body_and_query),
        TEST(a_profile_is_gzip_and_saved_text_and_picture_are_shown),
        TEST(flame_draws_every_type_and_lists_them_for_one_that_is_none),
        TEST(the_page_links_all_there_is_relatively),
        TEST(cmdline_has_nuls_between_the_arguments_alone),
        TEST(a_bad_query_is_refused_with_the_reason),
        TEST(what_go_has_and_c_has_not_is_not_found_and_explained),
        TEST(a_call_without_its_arguments_is_an_error),
        TEST(a_body_that_may_not_grow_is_unchanged),
        TEST(a_delta_waits_as_long_as_asked_and_finish_may_come_early),
        TEST(handle_waits_through_signals),
        TEST(one_cpu_profile_at_a_time_and_cancel_ends_it),
        TEST(a_child_has_none_of_its_parents_cpu_profile),
        TEST(requests_of_many_threads_do_not_meet),
        TEST(header_fields_are_gos),
        TEST(metrics_of_two_cores_have_each_family_once),
        TEST(a_core_of_before_is_not_asked),
        TEST(metrics_are_the_cores_own_and_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
