/* test_matrix_prof.c - the functions of libmemkit-prof against bad input, in a process whose malloc
 * does not reach the hook: the library is loaded late. What they do in one where it does is in
 * test_prof_*.c.
 */
#include <dlfcn.h>
#include <unistd.h>

#include <memkit/debug.h>
#include <memkit/prof.h>

#include "support_matrix.h"

#include "core/attach.h"

/* All in children: the library cannot be unloaded. A child's answer is the line that failed. */
#define MUST(condition)      \
    do {                     \
        if (!(condition))    \
            return __LINE__; \
    } while (0)

/* The call answers -1, with this errno. */
#define FAILS(call, code)                      \
    do {                                       \
        errno = 0;                             \
        MUST((call) == -1 && errno == (code)); \
    } while (0)

static void *library;

static int load(void)
{
    const char *build = getenv("MEMKIT_BUILD");
    char path[1024];
    snprintf(path, sizeof path, "%s/libmemkit-prof.so.0", build != NULL ? build : "build/lib");
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? 0 : -1;
}

/* A function of the library under its own name and type. */
#define FIND(name)                             \
    __typeof__(name) *its_##name;              \
    do {                                       \
        MUST(load() == 0);                     \
        void *fn_ = dlsym(library, #name);     \
        MUST(fn_ != NULL);                     \
        memcpy(&its_##name, &fn_, sizeof fn_); \
    } while (0)

/* ---- memkit/prof.h ---- */

static int start_badly(int unused)
{
    (void)unused;
    FIND(memkit_prof_start);
    FIND(memkit_prof_running);
    FAILS(its_memkit_prof_start(NULL), ENOTSUP);
    for (size_t i = 0; i < LENGTH(((memkit_prof_opts *)0)->reserved); i++) {
        memkit_prof_opts opts = {.sample_bytes = 1};
        opts.reserved[i] = 1;
        FAILS(its_memkit_prof_start(&opts), EINVAL);
    }
    FAILS(its_memkit_prof_start(&(memkit_prof_opts){.label_threads = 2}), EINVAL);
    FAILS(its_memkit_prof_start(&(memkit_prof_opts){.label_threads = -1}), EINVAL);
    MUST(its_memkit_prof_running() == 0);
    return 0;
}

static int control_unstarted(int unused)
{
    (void)unused;
    FIND(memkit_prof_stop);
    FIND(memkit_prof_set_rate);
    FIND(memkit_prof_running);
    FAILS(its_memkit_prof_stop(), EINVAL);
    FAILS(its_memkit_prof_set_rate(0), EINVAL);
    FAILS(its_memkit_prof_set_rate(1), EINVAL);
    FAILS(its_memkit_prof_set_rate(SIZE_MAX), EINVAL);
    MUST(its_memkit_prof_running() == 0);
    return 0;
}

static int stats_badly(int unused)
{
    (void)unused;
    FIND(memkit_prof_stats);
    errno = 0;
    its_memkit_prof_stats(NULL);
    MUST(errno == EINVAL);
    memkit_prof_stats_t s;
    memset(&s, 0x5a, sizeof s);
    its_memkit_prof_stats(&s);
    MUST(s.samples == 0 && s.sites == 0 && s.live_samples == 0 && s.dropped == 0);
    for (size_t i = 0; i < LENGTH(s.reserved); i++)
        MUST(s.reserved[i] == 0);
    return 0;
}

static int snapshots(int unused)
{
    (void)unused;
    FIND(memkit_prof_snapshot);
    FIND(memkit_prof_snap_free);
    its_memkit_prof_snap_free(NULL);
    memkit_prof_snap *snap = its_memkit_prof_snapshot();
    MUST(snap != NULL);
    its_memkit_prof_snap_free(snap);
    return 0;
}

static int write_badly(int unused)
{
    (void)unused;
    FIND(memkit_prof_write);
    FIND(memkit_prof_snapshot);
    memkit_buf *out = memkit_buf_new(0);
    MUST(out != NULL && memkit_buf_append_str(out, "as it was") == 0);
    FAILS(its_memkit_prof_write(NULL, MEMKIT_PROF_HEAP, MEMKIT_FMT_PPROF, NULL), EINVAL);
    const int no_kinds[] = {-1, 3, 100, INT32_MAX}, no_formats[] = {-1, 4, 100, INT32_MAX};
    for (size_t i = 0; i < LENGTH(no_kinds); i++) {
        FAILS(its_memkit_prof_write(out, (memkit_prof_kind)no_kinds[i], MEMKIT_FMT_TEXT, NULL),
              EINVAL);
        FAILS(its_memkit_prof_write(out, MEMKIT_PROF_HEAP, (memkit_prof_format)no_formats[i], NULL),
              EINVAL);
    }
    memkit_prof_snap *snap = its_memkit_prof_snapshot();
    MUST(snap != NULL);
    FAILS(its_memkit_prof_write(out, MEMKIT_PROF_CPU, MEMKIT_FMT_PPROF, snap), EINVAL);
    for (int kind = MEMKIT_PROF_HEAP; kind <= MEMKIT_PROF_CPU; kind++)
        for (int fmt = MEMKIT_FMT_PPROF; fmt <= MEMKIT_FMT_TEXT; fmt++)
            FAILS(its_memkit_prof_write(out, (memkit_prof_kind)kind, (memkit_prof_format)fmt, NULL),
                  ENODATA);
    MUST(strcmp(out->data, "as it was") == 0);
    return 0;
}

static int cpu_badly(int unused)
{
    (void)unused;
    FIND(memkit_prof_cpu_start);
    FIND(memkit_prof_cpu_stop);
    FAILS(its_memkit_prof_cpu_stop(), EINVAL);
    FAILS(its_memkit_prof_cpu_start(1001), EINVAL);
    FAILS(its_memkit_prof_cpu_start(UINT32_MAX), EINVAL);
    MUST(its_memkit_prof_cpu_start(1000) == 0); /* needs no hook */
    FAILS(its_memkit_prof_cpu_start(0), EBUSY);
    MUST(its_memkit_prof_cpu_stop() == 0);
    FAILS(its_memkit_prof_cpu_stop(), EINVAL);
    return 0;
}

/* ---- memkit/debug.h ---- */

static int handle_badly(int unused)
{
    (void)unused;
    FIND(memkit_debug_handle);
    memkit_buf *body = memkit_buf_new(0);
    const char *type = "unset";
    MUST(body != NULL && memkit_buf_append_str(body, "as it was") == 0);
    FAILS(its_memkit_debug_handle(NULL, NULL, body, &type), EINVAL);
    FAILS(its_memkit_debug_handle("/metrics", NULL, NULL, &type), EINVAL);
    FAILS(its_memkit_debug_handle("/metrics", NULL, body, NULL), EINVAL);
    MUST(strcmp(body->data, "as it was") == 0 && strcmp(type, "unset") == 0);
    MUST(memkit_buf_limit(body, body->len) == 0);
    FAILS(its_memkit_debug_handle("/metrics", NULL, body, &type), EMSGSIZE);
    MUST(strcmp(body->data, "as it was") == 0);
    MUST(memkit_buf_limit(body, 0) == 0);
    for (size_t i = 0; i < LENGTH(strange_names); i++)
        MUST(its_memkit_debug_handle(strange_names[i], strange_names[i], body, &type) == 404);
    return 0;
}

static int requests_badly(int unused)
{
    (void)unused;
    FIND(memkit_debug_begin);
    FIND(memkit_debug_begin_body);
    FIND(memkit_debug_finish);
    FIND(memkit_debug_cancel);
    memkit_debug_req *req = NULL;
    memkit_buf *body = memkit_buf_new(0);
    const char *type;
    MUST(body != NULL);
    FAILS(its_memkit_debug_begin(NULL, NULL, &req), EINVAL);
    FAILS(its_memkit_debug_begin("/metrics", NULL, NULL), EINVAL);
    FAILS(its_memkit_debug_begin_body("/debug/pprof/symbol", NULL, NULL, 1, &req), EINVAL);
    MUST(req == NULL);
    FAILS(its_memkit_debug_finish(NULL, body, &type), EINVAL);
    its_memkit_debug_cancel(NULL);
    MUST(its_memkit_debug_begin("/metrics", NULL, &req) == 0 && req != NULL);
    its_memkit_debug_cancel(req);
    return 0;
}

static int headers_of(int unused)
{
    (void)unused;
    FIND(memkit_debug_headers);
    FIND(memkit_debug_takes_post);
    const memkit_debug_header *h = its_memkit_debug_headers(NULL, NULL, 200);
    MUST(h != NULL);
    for (size_t i = 0; i < LENGTH(strange_names); i++) {
        h = its_memkit_debug_headers(strange_names[i], strange_names[i], -1);
        MUST(h != NULL);
        while (h->name != NULL)
            h++;
        MUST(!its_memkit_debug_takes_post(strange_names[i]));
    }
    MUST(!its_memkit_debug_takes_post(NULL));
    MUST(its_memkit_debug_takes_post("/debug/pprof/symbol"));
    return 0;
}

static int serve_badly(int unused)
{
    (void)unused;
    FIND(memkit_debug_serve);
    static const char *const no_addresses[] = {
        NULL,     "",          ":",        "127.0.0.1",      "127.0.0.1:",     ":-1",   ":65536",
        ":6060x", "[::1:6060", "::1:6060", "no such host:1", "256.0.0.1:6060", " :6060"};
    for (size_t i = 0; i < LENGTH(no_addresses); i++)
        FAILS(its_memkit_debug_serve(no_addresses[i]), EINVAL);
    for (size_t i = 0; i < LENGTH(strange_names); i++)
        FAILS(its_memkit_debug_serve(strange_names[i]), EINVAL);
    return 0;
}

/* ---- the meeting point with libmemkit ---- */

static void no_objects(void (*fn)(void *arg, const memkit__object_row *row), void *arg)
{
    (void)fn;
    (void)arg;
}

static int attach_badly(int unused)
{
    (void)unused;
    FIND(memkit_prof_attach);
    const memkit__prof_table *(*attach)(const memkit__core_table *) = its_memkit_prof_attach;
    memkit__core_table core = {.abi = MEMKIT__ATTACH_ABI,
                               .size = sizeof core,
                               .library_version = "0.0.0",
                               .each_object = no_objects};
    MUST(attach(NULL) == NULL);
    const uint32_t abis[] = {0, MEMKIT__ATTACH_ABI + 1, INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < LENGTH(abis); i++) {
        memkit__core_table other = core;
        other.abi = abis[i];
        MUST(attach(&other) == NULL);
    }
    for (uint32_t size = 0; size < offsetof(memkit__core_table, each_metric); size++) {
        memkit__core_table smaller = core;
        smaller.size = size;
        MUST(attach(&smaller) == NULL);
    }
    core.size = UINT32_MAX; /* a much newer one */
    const memkit__prof_table *prof = attach(&core);
    MUST(prof != NULL && attach(&core) == prof); /* again */
    prof->detach(NULL);
    prof->detach(&core);
    prof->detach(&core);
    return 0;
}

#define ROW(name, child)                                           \
    static void name##_row(void **state)                           \
    {                                                              \
        (void)state;                                               \
        int line = in_child(child, 0);                             \
        if (line != 0)                                             \
            fail_msg("line %d of %s does not hold", line, #child); \
    }
ROW(start, start_badly)
ROW(control, control_unstarted)
ROW(stats, stats_badly)
ROW(snapshot, snapshots)
ROW(write, write_badly)
ROW(cpu, cpu_badly)
ROW(handle, handle_badly)
ROW(request, requests_badly)
ROW(headers, headers_of)
ROW(serve, serve_badly)
ROW(attach, attach_badly)

int main(void)
{
    const matrix_row rows[] = {
        {"memkit_prof_start", NULL, start_row},
        {"memkit_prof_stop", NULL, control_row},
        {"memkit_prof_set_rate", NULL, control_row},
        {"memkit_prof_running", NULL, control_row},
        {"memkit_prof_stats", NULL, stats_row},
        {"memkit_prof_snapshot", NULL, snapshot_row},
        {"memkit_prof_snap_free", NULL, snapshot_row},
        {"memkit_prof_write", NULL, write_row},
        {"memkit_prof_cpu_start", NULL, cpu_row},
        {"memkit_prof_cpu_stop", NULL, cpu_row},
        {"memkit_debug_handle", NULL, handle_row},
        {"memkit_debug_begin", NULL, request_row},
        {"memkit_debug_begin_body", NULL, request_row},
        {"memkit_debug_finish", NULL, request_row},
        {"memkit_debug_cancel", NULL, request_row},
        {"memkit_debug_headers", NULL, headers_row},
        {"memkit_debug_takes_post", NULL, headers_row},
        {"memkit_debug_serve", NULL, serve_row},
        {"memkit_prof_attach", NULL, attach_row},
    };
    return run_matrix(PROF_ROWS, rows, LENGTH(rows));
}
