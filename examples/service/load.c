/* load.c - see load.h: one run, from the options to the result. The connections are load_gen.c's.
 *
 *     start ............................ end ....... send_end ......... grace over
 *     requests become due                backlog     only answers       what has none is lost
 *                                        is sent     are awaited
 *
 * The run is over as soon as nothing is left to wait for: at a service that keeps up, some
 * milliseconds after `end`.
 */
#define _GNU_SOURCE /* RUSAGE_THREAD */

#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load_gen.h"

#define GIVE_UP_NS (3 * LOAD_NS)
#define SWEEP_NS   (LOAD_NS / 10)
#define BACKLOG_S  0.5 /* at most so long for what is due and not sent at the end */

static int failed(load_result *r, const char *what, int err)
{
    snprintf(r->error, sizeof r->error, "%s: %s", what, strerror(err));
    errno = err;
    return -1;
}

int load_parse_target(const char *target, struct sockaddr_storage *out, unsigned *len)
{
    char host[64];
    const char *colon = target != NULL ? strrchr(target, ':') : NULL;
    if (colon == NULL || (size_t)(colon - target) >= sizeof host) {
        errno = EINVAL;
        return -1;
    }
    memcpy(host, target, (size_t)(colon - target));
    host[colon - target] = '\0';
    char *end;
    errno = 0;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || errno != 0 || port == 0 ||
        port > 65535) {
        errno = EINVAL;
        return -1;
    }
    memset(out, 0, sizeof *out);
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)out;
        host[n - 1] = '\0';
        a6->sin6_family = AF_INET6;
        a6->sin6_port = htons((uint16_t)port);
        if (inet_pton(AF_INET6, host + 1, &a6->sin6_addr) != 1) {
            errno = EINVAL;
            return -1;
        }
        if (!IN6_IS_ADDR_LOOPBACK(&a6->sin6_addr)) {
            errno = EACCES;
            return -1;
        }
        *len = sizeof *a6;
        return 0;
    }
    struct sockaddr_in *a4 = (struct sockaddr_in *)out;
    a4->sin_family = AF_INET;
    a4->sin_port = htons((uint16_t)port);
    *len = sizeof *a4;
    if (n == 0 || strcmp(host, "localhost") == 0) {
        a4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return 0;
    }
    /* Names are not looked up: what is not a loopback address in plain sight is refused. */
    if (inet_pton(AF_INET, host, &a4->sin_addr) != 1 || (ntohl(a4->sin_addr.s_addr) >> 24) != 127) {
        errno = EACCES;
        return -1;
    }
    return 0;
}

static int set_options(load_gen *g, const load_opts *opts, load_result *r)
{
    load_opts *o = &g->o;
    *o = *opts;
    o->path = o->path != NULL ? o->path : "/process?id=";
    o->seconds = o->seconds != 0 ? o->seconds : 10;
    o->grace_s = o->grace_s != 0 ? o->grace_s : 2;
    o->timeout_s = o->timeout_s != 0 ? o->timeout_s : 10;
    o->connect_s = o->connect_s != 0 ? o->connect_s : 5;
    o->connections = o->connections != 0 ? o->connections : 256;
    o->ids = o->ids != 0 ? o->ids : 1000000;
    o->id_bytes = o->id_bytes != 0 ? o->id_bytes : 32;
    o->theta = o->theta != 0 ? o->theta : LOAD_ZIPF_THETA;
    if (load_parse_target(o->target, &g->addr, &g->addr_len) != 0) {
        int err = errno;
        return failed(r,
                      err == EACCES ? "the target is not a loopback address"
                                    : "the target is not HOST:PORT",
                      err);
    }
    if (!(o->rate >= 0 && o->rate <= 1e7))
        return failed(r, "rate: 0 to 10,000,000 requests a second", EINVAL);
    if (!(o->seconds > 0 && o->seconds <= LOAD_SECONDS_MAX))
        return failed(r, "seconds: more than 0, at most 7200", EINVAL);
    if (!(o->grace_s > 0 && o->grace_s <= 600 && o->timeout_s > 0 && o->timeout_s <= 600 &&
          o->connect_s > 0 && o->connect_s <= 600))
        return failed(r, "grace and time-outs: more than 0, at most 600 seconds", EINVAL);
    if (o->connections > LOAD_CONNECTIONS_MAX)
        return failed(r, "connections: at most 16384", EINVAL);
    if (strlen(o->path) > 1024 || o->path[0] != '/' || strpbrk(o->path, " \r\n") != NULL)
        return failed(r, "path: begins with '/', no spaces, at most 1024 bytes", EINVAL);
    if (load_ids_init(&g->ids, o->ids_kind, o->ids, o->id_bytes, o->theta, o->seed) != 0)
        return failed(r, "ids: the id's length must hold every number, and be 15000 at most",
                      EINVAL);
    return 0;
}

/* The one block of memory for all requests, each complete but for its id. */
static int make_requests(load_gen *g)
{
    char host[80], head[1200], tail[160];
    const char *colon = strrchr(g->o.target, ':');
    snprintf(host, sizeof host, "%.*s%s", (int)(colon - g->o.target), g->o.target,
             colon == g->o.target ? "localhost" : "");
    size_t nh = (size_t)snprintf(head, sizeof head, "POST %s", g->o.path);
    size_t nt = (size_t)snprintf(
        tail, sizeof tail, " HTTP/1.1\r\nHost: %s%s\r\nContent-Length: 0\r\n\r\n", host, colon);
    g->id_at = nh;
    g->req_len = nh + g->o.id_bytes + nt;
    g->reqs = malloc(g->req_len * g->o.connections);
    if (g->reqs == NULL)
        return -1;
    for (unsigned i = 0; i < g->o.connections; i++) {
        char *req = g->reqs + i * g->req_len;
        memcpy(req, head, nh);
        memset(req + nh, '0', g->o.id_bytes);
        memcpy(req + nh + g->o.id_bytes, tail, nt);
        g->conn[i].req = req;
    }
    return 0;
}

static int raise_file_limit(unsigned need)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) != 0 || rl.rlim_cur >= need)
        return 0;
    if (rl.rlim_max < need) {
        errno = EMFILE;
        return -1;
    }
    rl.rlim_cur = need;
    return setrlimit(RLIMIT_NOFILE, &rl);
}

static int prepare(load_gen *g, load_result *r)
{
    if (raise_file_limit(g->o.connections + 64) != 0)
        return failed(r, "the limit on open files (ulimit -n) is below the connections", errno);
    g->conn = calloc(g->o.connections, sizeof *g->conn);
    g->scratch = malloc(LOAD_SCRATCH);
    /* One slot a second, and the parts of a second at the end. */
    r->second = calloc((size_t)(g->o.seconds + g->o.grace_s) + 4, sizeof *r->second);
    if (g->conn == NULL || g->scratch == NULL || r->second == NULL || make_requests(g) != 0)
        return failed(r, "memory", ENOMEM);
    for (unsigned i = 0; i < g->o.connections; i++)
        g->conn[i].fd = -1;
    g->epfd = epoll_create1(EPOLL_CLOEXEC);
    return g->epfd < 0 ? failed(r, "epoll", errno) : 0;
}

static bool stopped(const load_gen *g)
{
    return g->o.stop != NULL && *g->o.stop != 0;
}

static int connect_all(load_gen *g)
{
    uint64_t until = load_gen_now() + (uint64_t)(g->o.connect_s * 1e9);
    g->send_end = until;
    for (uint32_t i = 0; i < g->o.connections; i++) {
        if (load_gen_connect(g, i, load_gen_now()) != 0)
            return failed(g->r, "connect", errno);
    }
    while (g->up < g->o.connections && !stopped(g)) {
        uint64_t now = load_gen_now();
        if (g->r->connect_failures > 0 && g->up == 0)
            return failed(g->r, "connect", ECONNREFUSED);
        if (now >= until) {
            char what[80];
            snprintf(what, sizeof what, "only %u of %u connections in %g s", g->up,
                     g->o.connections, g->o.connect_s);
            return failed(g->r, what, ETIMEDOUT);
        }
        load_gen_wait(g, now + SWEEP_NS < until ? now + SWEEP_NS : until);
        load_gen_sweep(g, load_gen_now());
    }
    g->r->connect_failures = 0; /* of the run alone, from here on */
    return 0;
}

/* Closes the current second and tells on_tick. */
static void second_ends(load_gen *g, uint64_t now, uint64_t last)
{
    load_result *r = g->r;
    uint64_t due = g->o.rate > 0 ? load_gen_due_by(g, now) : g->next;
    load_second *s = &r->second[r->seconds++];
    *s = (load_second){.t_s = (double)(now - g->start) / 1e9,
                       .answered = g->sec.count,
                       .failed = g->sec_failed,
                       .waiting = due - g->next,
                       .p50_ns = load_hist_quantile(&g->sec, 0.5),
                       .p99_ns = load_hist_quantile(&g->sec, 0.99),
                       .max_ns = g->sec.max};
    load_hist_reset(&g->sec);
    g->sec_failed = 0;
    if (g->o.on_tick != NULL && now > last) {
        load_tick t = {.elapsed_s = s->t_s,
                       .due = due,
                       .sent = r->sent,
                       .answered = r->answered,
                       .failed = load_errors(r),
                       .waiting = s->waiting,
                       .last_rate =
                           (uint64_t)((double)s->answered * 1e9 / (double)(now - last) + 0.5),
                       .last_p99_ns = s->p99_ns};
        g->o.on_tick(g->o.arg, &t);
    }
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The run itself. Returns when it ended. */
static uint64_t run(load_gen *g)
{
    bool open = g->o.rate > 0;
    uint64_t grace_end = g->end + (uint64_t)(g->o.grace_s * 1e9);
    uint64_t last_tick = g->start, tick = g->start + LOAD_NS, sweep = g->start + SWEEP_NS;
    uint64_t last_up = g->start, now;
    for (;;) {
        now = load_gen_now();
        if (now < g->send_end)
            load_gen_fire(g, now);
        if (now >= tick) {
            second_ends(g, now, last_tick);
            last_tick = now;
            tick += LOAD_NS * ((now - tick) / LOAD_NS + 1);
        }
        if (now >= sweep) {
            load_gen_sweep(g, now);
            sweep = now + SWEEP_NS;
            if (g->up > 0)
                last_up = now;
            g->r->gave_up = now - last_up > GIVE_UP_NS;
        }
        g->r->interrupted = stopped(g);
        bool sent_all = now >= g->end && (!open || g->next == g->total || now >= g->send_end);
        if (g->r->interrupted || g->r->gave_up || now >= grace_end || (sent_all && g->busy == 0))
            break;
        uint64_t until = min64(min64(tick, sweep), now < g->end ? g->end : grace_end);
        if (open && g->idle_first != LOAD_NONE && g->next < g->total && now < g->send_end)
            until = min64(until, load_gen_due_at(g, g->next));
        load_gen_wait(g, until);
    }
    if (g->sec.count + g->sec_failed > 0 || last_tick == g->start)
        second_ends(g, now, last_tick);
    return now;
}

static void sum_up(load_gen *g, uint64_t now)
{
    load_result *r = g->r;
    r->due = r->sent;
    if (g->o.rate > 0) {
        r->due = load_gen_due_by(g, now);
        r->unsent = r->due - g->next;
        for (uint64_t i = g->next; i < r->due; i++)
            load_gen_lower_bound(g, load_gen_due_at(g, i), now);
    }
    for (uint32_t i = 0; i < g->o.connections; i++) {
        if (g->conn[i].state == LOAD_BUSY) {
            r->unanswered++;
            load_gen_lower_bound(g, g->conn[i].intended, now);
        }
    }
    /* An answer may come a little after the end of sending, and a run may be cut short. */
    uint64_t sending_ends = min64(now, g->end);
    uint64_t last = g->last_answer > sending_ends ? g->last_answer : sending_ends;
    r->elapsed_s = (double)(last - g->start) / 1e9;
    r->drain_s = (double)(now - sending_ends) / 1e9;
    double over_s = g->o.rate > 0 ? (double)(sending_ends - g->start) / 1e9 : r->elapsed_s;
    r->rate_reached = over_s > 0 ? (double)(r->answered - r->late) / over_s : 0;
}

static double thread_cpu_s(void)
{
    struct rusage ru;
    getrusage(RUSAGE_THREAD, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* Asks for turns on the CPU of so many nanoseconds, 0: the usual. Since Linux 6.12 short ones come
 * sooner after the thread wakes: in a machine that is busy with the service, requests are half as
 * late. No privilege, no larger share of the CPU; older kernels ignore it. */
static void ask_for_turns(uint64_t ns)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t util_min, util_max;
    } attr = {.size = sizeof attr, .nice = getpriority(PRIO_PROCESS, 0), .runtime = ns};
    syscall(SYS_sched_setattr, 0, &attr, 0u);
}

static int drive(load_gen *g)
{
    if (prepare(g, g->r) != 0 || connect_all(g) != 0)
        return -1;
    if (g->o.on_start != NULL)
        g->o.on_start(g->o.arg);
    int slack = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, 1ul);
    ask_for_turns(100000);
    double cpu = thread_cpu_s();
    g->start = load_gen_now();
    g->end = g->start + (uint64_t)(g->o.seconds * 1e9);
    g->send_end =
        g->o.rate > 0 ? g->end + (uint64_t)(fmin(BACKLOG_S, g->o.grace_s / 2) * 1e9) : g->end;
    g->total = (uint64_t)(g->o.rate * g->o.seconds);
    uint64_t now = run(g);
    g->r->cpu_s = thread_cpu_s() - cpu;
    prctl(PR_SET_TIMERSLACK, slack > 0 ? (unsigned long)slack : 0ul);
    ask_for_turns(0); /* children would inherit it */
    sum_up(g, now);
    if (g->o.on_end != NULL)
        g->o.on_end(g->o.arg);
    return 0;
}

int load_run(const load_opts *opts, load_result *r)
{
    memset(r, 0, sizeof *r);
    load_hist_reset(&r->latency);
    load_hist_reset(&r->lateness);
    load_gen *g = calloc(1, sizeof *g);
    if (g == NULL)
        return failed(r, "memory", ENOMEM);
    g->r = r;
    g->epfd = -1;
    g->idle_first = g->idle_last = LOAD_NONE;
    load_hist_reset(&g->sec);
    int rc = set_options(g, opts, r);
    if (rc == 0)
        rc = drive(g);
    int err = errno;
    for (uint32_t i = 0; g->conn != NULL && i < g->o.connections; i++) {
        if (g->conn[i].fd >= 0)
            close(g->conn[i].fd);
    }
    if (g->epfd >= 0)
        close(g->epfd);
    free(g->conn);
    free(g->reqs);
    free(g->scratch);
    free(g);
    errno = err;
    return rc;
}

void load_result_free(load_result *r)
{
    free(r->second);
    r->second = NULL;
    r->seconds = 0;
}

uint64_t load_errors(const load_result *r)
{
    return r->bad_status + r->closed + r->malformed + r->timed_out;
}

uint64_t load_lost(const load_result *r)
{
    return r->unsent + r->unanswered;
}

bool load_backlog(const load_result *r)
{
    const load_hist *h = &r->latency;
    return r->late > 0 && load_hist_quantile(h, 0.5) - h->min > (h->max - h->min) / 4;
}

uint64_t load_latency(const load_result *r, double q, bool *lower_bound)
{
    /* The bounds may in truth lie anywhere above. They matter to a quantile as soon as they could
     * move it by a tenth of the share that lies beyond it. */
    double beyond = (1 - q) * (double)r->latency.count;
    if (lower_bound != NULL)
        *lower_bound = r->lower_bounds > 0 && (double)r->lower_bounds > beyond / 10;
    return load_hist_quantile(&r->latency, q);
}
