/* load.h - the load generator: POST /process?id=ID over kept-alive connections, from one thread.
 *
 *     load_result r;
 *     if (load_run(&(load_opts){.target = "127.0.0.1:8080", .rate = 10000, .seconds = 30}, &r) !=
 * 0) fprintf(stderr, "%s\n", r.error); printf("p99 %.1f ms\n",
 * (double)load_hist_quantile(&r.latency, 0.99) / 1e6); load_result_free(&r);
 *
 * Open loop (rate > 0): request i is due at start + i / rate whether or not the service keeps up,
 * and its latency runs from that moment, not from the one when a connection was free to send it.
 * A service that stalls for a second so shows the second in every request that was due in it
 * ("coordinated omission" is what it is called to miss that). Closed loop (rate 0): every
 * connection sends as soon as it has its answer; that measures what is reached, not latency.
 *
 * At the end of `seconds` no more requests become due; those that are and wait for a connection may
 * still be sent for half a second, and what is under way has grace_s in all to be answered.
 *
 * The rate reached counts answers to what was due over the time in which it was due: an answer is
 * as much later than its request as the service takes, also at the end. Those that came later after
 * the end than the fastest answer took and LOAD_PROMPT_S are `late` and do not count: a queue had
 * formed.
 *
 * What was due and got no answer (unsent, unanswered, timed out) is in the histogram with the time
 * it had waited when the run gave up on it: a lower bound, counted in `lower_bounds`. Refused and
 * broken answers (status, closed, malformed) are not in it.
 *
 * It connects to loopback addresses only: this is a bench, not a weapon.
 */
#ifndef LOAD_H
#define LOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load_ids.h"
#include "load_stats.h"

#define LOAD_CONNECTIONS_MAX 16384
#define LOAD_SECONDS_MAX     7200
#define LOAD_PROMPT_S        0.02

/* How far it is, about once a second and at the end of sending. */
typedef struct {
    double elapsed_s;
    uint64_t due, sent, answered, failed;
    uint64_t waiting;     /* due, and no connection was free yet */
    uint64_t last_rate;   /* answers in the last second */
    uint64_t last_p99_ns; /* of those */
} load_tick;

/* Zero in a field means its default. */
typedef struct {
    const char *target;   /* "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" */
    const char *path;     /* what the id is appended to; default "/process?id=" */
    double rate;          /* requests a second; 0: closed loop */
    double seconds;       /* of sending; default 10 */
    double grace_s;       /* at most so long for what is under way at the end; default 2 */
    double timeout_s;     /* of one request, from its sending; default 10 */
    double connect_s;     /* for all connections to be there; default 5 */
    unsigned connections; /* default 256 */
    load_ids_kind ids_kind;
    uint64_t ids;                      /* default 1,000,000 */
    size_t id_bytes;                   /* default 32 */
    double theta;                      /* Zipf only; default 0.99 */
    uint64_t seed;                     /* any, also 0 */
    const volatile sig_atomic_t *stop; /* not NULL: the run ends when it is not 0 any more */
    /* All called in the generator's thread, where every microsecond delays requests; each may be
     * NULL. on_start: connected, the clock not yet started. on_end: drained, still connected. */
    void (*on_start)(void *arg);
    void (*on_tick)(void *arg, const load_tick *t);
    void (*on_end)(void *arg);
    void *arg;
} load_opts;

/* One second of the run. Answers belong to the second in which they came. */
typedef struct {
    double t_s; /* its end, since the start */
    uint64_t answered, failed, waiting;
    uint64_t p50_ns, p99_ns, max_ns;
} load_second;

typedef struct {
    char error[160]; /* why load_run failed */
    uint64_t due;    /* open loop: in the time that sending lasted; closed: what was sent */
    uint64_t sent;
    uint64_t answered;                                 /* status 200, complete */
    uint64_t bad_status, closed, malformed, timed_out; /* of those sent */
    uint64_t unsent;       /* due, but no connection was free until the end */
    uint64_t unanswered;   /* sent, and still under way when the grace was over */
    uint64_t late;         /* open loop: answered, but not promptly after the end of sending */
    uint64_t lower_bounds; /* in `latency` with less than what they would have taken */
    uint64_t reconnects, connect_failures;
    uint64_t body_bytes; /* received */
    double elapsed_s;    /* from the start to the later of the end of sending and the last answer */
    double drain_s;      /* of that, after the end of sending */
    double rate_reached; /* open loop: prompt answers / time of sending; closed: / elapsed_s */
    double cpu_s;        /* the generator's own */
    bool interrupted;    /* by *stop */
    bool gave_up;        /* nothing could be reached for 3 s */
    load_hist latency;
    load_hist
        lateness; /* the generator's own: sent after it was due though a connection was free */
    load_second *second; /* `seconds` of them */
    size_t seconds;
} load_result;

/* Runs the load and fills *r, which load_result_free empties again, also after an error.
 * 0: it ran (look at the counts); -1: it could not, r->error says why: EINVAL, EACCES (not a
 * loopback address), ENOMEM, ECONNREFUSED or ETIMEDOUT (not all connections came to be), ... */
int load_run(const load_opts *opts, load_result *r);
void load_result_free(load_result *r);

/* Requests that got an answer that is not right, and requests that got none. */
uint64_t load_errors(const load_result *r);
uint64_t load_lost(const load_result *r);

/* Whether requests queued up behind a service that was too slow, rather than that a few were slow
 * at the end: answers came late, and half of all requests had waited for a good part of the
 * longest wait. */
bool load_backlog(const load_result *r);

/* The quantile, and whether it may be larger than that because of requests that were given up. */
uint64_t load_latency(const load_result *r, double q, bool *lower_bound);

/* Reads "host:port" into *out (a struct sockaddr_storage); loopback only. 0, or -1: EINVAL, EACCES.
 */
struct sockaddr_storage;
int load_parse_target(const char *target, struct sockaddr_storage *out, unsigned *len);

#endif
