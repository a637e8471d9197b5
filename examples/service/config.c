/* config.c - see config.h. A value that is set is taken or refused, never silently replaced by its
 * default: a typo in a deployment must not become another configuration.
 */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LISTEN ":8080"
#define DEFAULT_CACHE  1000
#define DEFAULT_WORK   10
#define DEFAULT_DRAIN  24000
#define DEFAULT_READ   5000
#define DEFAULT_WRITE  10000
#define DEFAULT_IDLE   15000
#define DEFAULT_DEBUG  3660000 /* an hour of profiling and a minute */
#define DEFAULT_SAMPLE 524288

#define LISTEN_FORMS "\":8080\", \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\""

__attribute__((format(printf, 2, 3))) static int refuse(char why[CONFIG_WHY], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, CONFIG_WHY, fmt, ap);
    va_end(ap);
    return -1;
}

/* Decimal digits and nothing else: strtoul would let signs, blanks and "0x" pass. */
static bool parse_number(const char *text, unsigned long max, unsigned long *out)
{
    unsigned long v = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (unsigned long)(*text - '0');
        if (v > max)
            return false;
    }
    *out = v;
    return true;
}

static int number(const char *name, unsigned long min, unsigned long max, unsigned long otherwise,
                  unsigned long *out, char why[CONFIG_WHY])
{
    const char *text = getenv(name);
    *out = otherwise;
    if (text == NULL)
        return 0;
    if (!parse_number(text, max, out) || *out < min)
        return refuse(why, "%s=\"%.64s\": want a whole number from %lu to %lu", name, text, min,
                      max);
    return 0;
}

/* ":8080" is every address of the machine: one IPv6 socket that takes IPv4 too, or IPv4 alone where
 * the machine has no IPv6. */
static void any_address(service_config *c, unsigned port)
{
    struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)&c->addrs[0].addr;
    a6->sin6_family = AF_INET6;
    a6->sin6_addr = in6addr_any;
    a6->sin6_port = htons((uint16_t)port);
    c->addrs[0].len = sizeof *a6;
    struct sockaddr_in *a4 = (struct sockaddr_in *)&c->addrs[1].addr;
    a4->sin_family = AF_INET;
    a4->sin_port = htons((uint16_t)port);
    c->addrs[1].len = sizeof *a4;
    c->n_addrs = 2;
}

/* A name may have several addresses; IPv4 first, as most clients of a test service expect. */
static void keep_addresses(service_config *c, const struct addrinfo *list)
{
    static const int order[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        for (const struct addrinfo *a = list; a != NULL; a = a->ai_next)
            if (a->ai_family == order[i] && c->n_addrs < CONFIG_ADDRS) {
                memcpy(&c->addrs[c->n_addrs].addr, a->ai_addr, a->ai_addrlen);
                c->addrs[c->n_addrs++].len = a->ai_addrlen;
            }
}

static int resolve(service_config *c, const char *host, const char *port, bool literal,
                   char why[CONFIG_WHY])
{
    /* The C library takes "*" for no name at all, and no name for the loopback address. */
    if (strcmp(host, "*") == 0)
        return refuse(why, "LISTEN_ADDR=\"%.200s\": \"*\" is no address; want %s", c->listen,
                      LISTEN_FORMS);
    struct addrinfo want = {.ai_family = literal ? AF_INET6 : AF_UNSPEC,
                            .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICSERV | (literal ? AI_NUMERICHOST : 0)};
    struct addrinfo *list = NULL;
    int err = getaddrinfo(host, port, &want, &list);
    if (err != 0)
        return refuse(why, "LISTEN_ADDR=\"%.200s\": no such address: %s; want %s", c->listen,
                      err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err), LISTEN_FORMS);
    keep_addresses(c, list);
    freeaddrinfo(list);
    if (c->n_addrs == 0)
        return refuse(why, "LISTEN_ADDR=\"%.200s\": neither IPv4 nor IPv6", c->listen);
    return 0;
}

static int listen_addr(service_config *c, char why[CONFIG_WHY])
{
    const char *text = getenv("LISTEN_ADDR");
    if (text == NULL)
        text = DEFAULT_LISTEN;
    if (strlen(text) >= sizeof c->listen)
        return refuse(why, "LISTEN_ADDR=\"%.64s...\": longer than %zu bytes", text,
                      sizeof c->listen - 1);
    strcpy(c->listen, text);

    char host[sizeof c->listen];
    strcpy(host, text);
    char *port = strrchr(host, ':');
    unsigned long number_of_port;
    if (port == NULL || !parse_number(port + 1, 65535, &number_of_port))
        return refuse(why,
                      "LISTEN_ADDR=\"%.200s\": want %s, with a port from 0 (any free one) to 65535",
                      text, LISTEN_FORMS);
    *port++ = '\0';

    size_t n = strlen(host);
    if (n == 0) {
        any_address(c, (unsigned)number_of_port);
        return 0;
    }
    if (host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = '\0';
        return resolve(c, host + 1, port, true, why);
    }
    if (strpbrk(host, "[]:") != NULL)
        return refuse(why, "LISTEN_ADDR=\"%.200s\": an IPv6 address wants brackets; want %s", text,
                      LISTEN_FORMS);
    return resolve(c, host, port, false, why);
}

static int timeout(const char *name, unsigned long max, unsigned long otherwise, unsigned *out,
                   char why[CONFIG_WHY])
{
    unsigned long ms;
    if (number(name, CONFIG_TIMEOUT_MIN, max, otherwise, &ms, why) != 0)
        return -1;
    *out = (unsigned)ms;
    return 0;
}

static unsigned online_cpus(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > CONFIG_WORKERS ? CONFIG_WORKERS : (unsigned)n;
}

int config_load(service_config *out, char why[CONFIG_WHY])
{
    unsigned long workers, cache, work, drain, sample;
    memset(out, 0, sizeof *out);
    if (listen_addr(out, why) != 0 ||
        number("MAX_WORKERS", 1, CONFIG_WORKERS, online_cpus(), &workers, why) != 0 ||
        number("CACHE_SIZE", 1, CONFIG_CACHE_MAX, DEFAULT_CACHE, &cache, why) != 0 ||
        number("WORK_MS", 0, CONFIG_WORK_MAX, DEFAULT_WORK, &work, why) != 0 ||
        number("DRAIN_MS", 0, CONFIG_DRAIN_MAX, DEFAULT_DRAIN, &drain, why) != 0 ||
        number("SAMPLE_RATE", 0, CONFIG_SAMPLE_MAX, DEFAULT_SAMPLE, &sample, why) != 0 ||
        timeout("READ_TIMEOUT_MS", CONFIG_TIMEOUT_MAX, DEFAULT_READ, &out->read_timeout_ms, why) !=
            0 ||
        timeout("DEBUG_TIMEOUT_MS", CONFIG_DEBUG_MAX, DEFAULT_DEBUG, &out->debug_timeout_ms, why) !=
            0 ||
        timeout("WRITE_TIMEOUT_MS", CONFIG_TIMEOUT_MAX, DEFAULT_WRITE, &out->write_timeout_ms,
                why) != 0 ||
        timeout("IDLE_TIMEOUT_MS", CONFIG_TIMEOUT_MAX, DEFAULT_IDLE, &out->idle_timeout_ms, why) !=
            0)
        return -1;
    out->workers = (unsigned)workers;
    out->cache_entries = cache;
    out->work_ms = (unsigned)work;
    out->drain_ms = (unsigned)drain;
    out->sample_bytes = sample;
    return 0;
}

void config_usage(const char *program)
{
    printf(
        "usage: %s [--help]\n"
        "\n"
        "Serves POST /process?id=ID, GET /health, /metrics and /debug/pprof/. The environment says "
        "how:\n"
        "\n"
        "  LISTEN_ADDR   " LISTEN_FORMS ";\n"
        "                port 0 takes a free one, see the line \"listening on\"; default %s\n"
        "  MAX_WORKERS   threads, each with an event loop, 1 to %d; default: online CPUs\n"
        "  CACHE_SIZE    entries that service-after's cache holds, 1 to %d; default %d\n"
        "  WORK_MS       simulated work a request in milliseconds, 0 to %d; default %d\n"
        "  DRAIN_MS      for what is under way at the end, milliseconds, 0 to %d; default %d\n"
        "  SAMPLE_RATE   bytes between samples of the heap profiler on average, 0 (off) or 1 "
        "(every\n"
        "                allocation) to %d; default %d\n"
        "\n"
        "Time-outs in milliseconds, %d to %d, each a total; a connection that takes longer is "
        "closed:\n"
        "\n"
        "  READ_TIMEOUT_MS   until a request is received whole, default %d\n"
        "  WRITE_TIMEOUT_MS  from the end of its head until the answer is sent, default %d\n"
        "  DEBUG_TIMEOUT_MS  the same for what is under /debug/, up to %d, default %d\n"
        "  IDLE_TIMEOUT_MS   between two requests of a connection, default %d\n"
        "\n"
        "SIGINT or SIGTERM ends it: requests under way get their answers, at most 30 s later it "
        "is\n"
        "gone; a second one ends it at once. Exit code 0; 1: cannot start; 2: a value is "
        "refused.\n",
        program, DEFAULT_LISTEN, CONFIG_WORKERS, CONFIG_CACHE_MAX, DEFAULT_CACHE, CONFIG_WORK_MAX,
        DEFAULT_WORK, CONFIG_DRAIN_MAX, DEFAULT_DRAIN, CONFIG_SAMPLE_MAX, DEFAULT_SAMPLE,
        CONFIG_TIMEOUT_MIN, CONFIG_TIMEOUT_MAX, DEFAULT_READ, DEFAULT_WRITE, CONFIG_DEBUG_MAX,
        DEFAULT_DEBUG, DEFAULT_IDLE);
}
