/* debug_profile.c - the paths that answer with a profile: heap, allocs, profile (CPU), flame.svg.
 *
 *     begin     ?seconds=N takes a snapshot, or starts the CPU profile; N seconds to wait
 *     finish    writes what was added since, whether the time is up or not: a profile says itself
 *               how long it was
 *
 * The process has one CPU profile. Who begins it owns it until it is written, so that the next
 * one's beginning does not throw it away.
 */
#include "prof/debug.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "prof/heap.h"
#include "prof/types.h"

#define CPU_SECONDS 30 /* as Go */

/* The process whose request it is, 0: nobody's. A child of fork has none of its parent's. */
static atomic_long cpu_owner;

static bool own_cpu(void)
{
    long me = (long)getpid(), owner = atomic_load(&cpu_owner);
    return owner != me && atomic_compare_exchange_strong(&cpu_owner, &owner, me);
}

static void disown_cpu(void)
{
    atomic_store(&cpu_owner, 0);
}

#define TYPE_ROW(id, type, unit, meaning) {type, meaning},
static const struct {
    const char *type, *meaning;
} types[] = {
    MEMKIT__HEAP_TYPES(TYPE_ROW){MEMKIT__CPU_TYPE, "processor time"},
};
#undef TYPE_ROW
#define TYPES (sizeof types / sizeof types[0])

const char *memkit__debug_type(unsigned i, const char **meaning)
{
    if (i >= TYPES)
        return NULL;
    *meaning = types[i].meaning;
    return types[i].type;
}

static bool is_svg(const memkit_debug_req *req)
{
    return req->route->format == MEMKIT_FMT_SVG;
}

static memkit_prof_kind kind_of(const memkit_debug_req *req)
{
    return is_svg(req) && strcmp(req->args.type, MEMKIT__CPU_TYPE) == 0 ? MEMKIT_PROF_CPU
                                                                        : req->route->kind;
}

static bool type_known(const char *type)
{
    for (size_t i = 0; i < TYPES; i++)
        if (strcmp(types[i].type, type) == 0)
            return true;
    return false;
}

static int refuse_type(memkit_debug_req *req)
{
    char list[MEMKIT__DEBUG_WHY] = "";
    size_t len = 0;
    for (size_t i = 0; i < TYPES; i++) {
        size_t n = strlen(types[i].type);
        if (len + n + 3 > sizeof list - 96) { /* more than fit are said to be there */
            memcpy(list + len, " ...", 5);
            break;
        }
        list[len++] = ' ';
        memcpy(list + len, types[i].type, n + 1);
        len += n;
    }
    return memkit__debug_refuse(req, 400, "type=%.32s: want one of%s", req->args.type, list);
}

static int refuse_unstarted(memkit_debug_req *req)
{
    return memkit__debug_refuse(req, 503,
                                "the heap profiler was not started: call memkit_prof_start in the "
                                "program, or set MEMKIT_SAMPLE in its environment");
}

static int begin_cpu(memkit_debug_req *req)
{
    if (!own_cpu())
        return memkit__debug_refuse(req, 409, "another request's CPU profile is being taken");
    if (memkit_prof_cpu_start(0) != 0) {
        int err = errno;
        disown_cpu();
        if (err == EBUSY)
            return memkit__debug_refuse(req, 409,
                                        "the program takes a CPU profile itself, or has a handler "
                                        "for SIGPROF");
        return memkit__debug_refuse(req, 500, "cannot start the CPU profile: %s", strerror(err));
    }
    req->cpu = true;
    return (int)(req->args.seconds != 0 ? req->args.seconds : CPU_SECONDS) * 1000;
}

static int begin_heap(memkit_debug_req *req)
{
    memkit_prof_stats_t s;
    memkit_prof_stats(&s);
    if (s.sample_bytes == 0 && s.samples == 0 && !memkit_prof_running())
        return refuse_unstarted(req);
    if (req->args.seconds == 0)
        return 0;
    req->since = memkit_prof_snapshot();
    if (req->since == NULL)
        return memkit__debug_refuse(req, 503, "cannot take a snapshot: %s", strerror(errno));
    return (int)req->args.seconds * 1000;
}

int memkit__debug_profile_begin(memkit_debug_req *req)
{
    if (is_svg(req) && req->args.debug != 0)
        return memkit__debug_refuse(req, 400, "debug=1 is for the profiles, a picture has no text");
    if (is_svg(req) && req->args.type[0] != '\0' && !type_known(req->args.type))
        return refuse_type(req);
    return kind_of(req) == MEMKIT_PROF_CPU ? begin_cpu(req) : begin_heap(req);
}

int memkit__debug_profile_finish(memkit_debug_req *req, memkit_buf *out)
{
    memkit_prof_format format = req->args.debug != 0 ? MEMKIT_FMT_TEXT : req->route->format;
    const char *type = is_svg(req) && req->args.type[0] != '\0' ? req->args.type : NULL;
    if (req->cpu)
        memkit_prof_cpu_stop();
    int failed = memkit__prof_write_type(out, kind_of(req), format, req->since, type);
    int err = errno;
    memkit__debug_profile_cancel(req);
    if (failed != 0 && err == ENODATA) {
        refuse_unstarted(req);
        return 0;
    }
    errno = err;
    return failed;
}

void memkit__debug_profile_cancel(memkit_debug_req *req)
{
    if (req->cpu) {
        memkit_prof_cpu_stop(); /* EINVAL where it is stopped already */
        req->cpu = false;
        disown_cpu();
    }
    memkit_prof_snap_free(req->since);
    req->since = NULL;
}
