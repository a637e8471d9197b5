/* main.c - the example service: start, wait for a signal, drain, end.
 *
 *     LISTEN_ADDR=127.0.0.1:8080 CACHE_SIZE=1000 service-after &
 *     curl -X POST 'http://127.0.0.1:8080/process?id=42'
 *
 * The workers do everything else (front.c); this thread sleeps in poll. What memory the process
 * has is logged at both ends. Allocations are counted, and sampled for /debug/pprof/, as
 * libmemkit-prof is linked.
 */
#define _GNU_SOURCE /* program_invocation_short_name */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <memkit/memkit.h>
#include <memkit/prof.h>

#include "config.h"
#include "front.h"
#include "handler.h"

#define FEW_CONNECTIONS 64   /* a worker: fewer are probably not meant, and are warned of */
#define LAST_RESORT_MS  2500 /* after DRAIN_MS; the workers end within 2 s of it: front.c */

static void log_memory(const char *when)
{
    const double mib = 1024 * 1024;
    memkit_memstats_t m;
    memkit_memstats(&m);
    fprintf(stderr, "memory at %-5s  rss %8.1f MiB  peak %8.1f MiB  sys %8.1f MiB", when,
            (double)m.rss_bytes / mib, (double)m.peak_rss_bytes / mib, (double)m.sys_bytes / mib);
    if (m.hooked)
        fprintf(stderr,
                "  allocated %8.1f MiB  in total %10.1f MiB  mallocs %10llu  frees %10llu\n",
                (double)m.alloc_bytes / mib, (double)m.total_alloc_bytes / mib,
                (unsigned long long)m.mallocs, (unsigned long long)m.frees);
    else
        fprintf(stderr,
                "  allocations not counted (another malloc is in front of libmemkit-prof's)\n");
}

static void log_connections(const front *f, unsigned workers)
{
    unsigned each = front_connections_each(f);
    fprintf(stderr, "%u workers, each with at most %u connections\n", workers, each);
    if (each < FEW_CONNECTIONS)
        fprintf(stderr,
                "warning: %u connections a worker are few: raise the limit on open files "
                "(ulimit -n) or lower MAX_WORKERS\n",
                each);
}

/* Go's WriteTimeout holds for the handler too; a service that is never let answer is meant by
 * nobody. */
static void log_timeouts(const service_config *cfg)
{
    if (cfg->work_ms >= cfg->write_timeout_ms)
        fprintf(stderr,
                "warning: WORK_MS=%u takes as long as WRITE_TIMEOUT_MS=%u allows: /process will "
                "close connections, and not answer\n",
                cfg->work_ms, cfg->write_timeout_ms);
}

/* Where it cannot be, with a sanitizer's malloc in front say, the service does without. */
static void start_profiler(const service_config *cfg)
{
    if (cfg->sample_bytes == 0)
        return;
    memkit_prof_opts opts = {.sample_bytes = cfg->sample_bytes};
    if (memkit_prof_start(&opts) == 0 || errno == EBUSY) /* MEMKIT_SAMPLE has started it */
        return;
    fprintf(stderr, "warning: no heap profile: %s\n",
            errno == ENOTSUP ? "another malloc is in front of libmemkit-prof's" : strerror(errno));
}

static void raise_descriptor_limit(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur != lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
}

/* The signals are blocked before the first thread is made, so that no other takes them. */
static int open_signals(void)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static int next_signal(int fd)
{
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : SIGTERM;
}

static void await(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    while (poll(fds, n, timeout_ms) < 0 && errno == EINTR)
        continue;
}

static void serve(front *f, int signals, int drain_ms)
{
    struct pollfd fds[] = {{.fd = signals, .events = POLLIN},
                           {.fd = front_done_fd(f), .events = POLLIN}};
    await(fds, 1, -1);
    fprintf(stderr, "%s: draining\n", strsignal(next_signal(signals)));
    front_stop(f);
    await(fds, 2, drain_ms + LAST_RESORT_MS);
    if (fds[0].revents != 0) {
        int sig = next_signal(signals);
        fprintf(stderr, "%s again: ending at once\n", strsignal(sig));
        _exit(128 + sig);
    }
    if (fds[1].revents == 0) {
        fprintf(stderr, "not drained after %d ms: ending\n", drain_ms + LAST_RESORT_MS);
        log_memory("end");
        _exit(0);
    }
}

static int run(const service_config *cfg)
{
    char why[CONFIG_WHY];
    int signals = open_signals();
    raise_descriptor_limit();
    start_profiler(cfg);
    if (signals < 0 || handler_init(cfg) != 0) {
        fprintf(stderr, "%s: cannot start: %s\n", program_invocation_short_name, strerror(errno));
        return EXIT_FAILURE;
    }
    front *f = front_open(cfg, why);
    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
        handler_finish();
        return EXIT_FAILURE;
    }
    int status = EXIT_SUCCESS;
    log_memory("start");
    if (front_start(f) == 0) {
        log_connections(f, cfg->workers);
        log_timeouts(cfg);
        fprintf(stderr, "listening on %s\n", front_address(f));
        serve(f, signals, (int)cfg->drain_ms);
    } else {
        fprintf(stderr, "%s: cannot start %u workers: %s\n", program_invocation_short_name,
                cfg->workers, strerror(errno));
        status = EXIT_FAILURE;
    }
    front_close(f);
    handler_finish();
    log_memory("end");
    close(signals);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        config_usage(program_invocation_short_name);
        return EXIT_SUCCESS;
    }
    if (argc > 1) {
        fprintf(stderr, "%s: unknown argument \"%s\"; try --help\n", program_invocation_short_name,
                argv[1]);
        return 2;
    }
    service_config cfg;
    char why[CONFIG_WHY];
    if (config_load(&cfg, why) != 0) {
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
        return 2;
    }
    return run(&cfg);
}
