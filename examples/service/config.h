/* config.h - what the service takes from its environment.
 *
 *     service_config cfg;
 *     char why[CONFIG_WHY];
 *     if (config_load(&cfg, why) != 0)
 *         fprintf(stderr, "%s\n", why);    // names the variable, its value and what is accepted
 */
#ifndef SERVICE_CONFIG_H
#define SERVICE_CONFIG_H

#include <stddef.h>
#include <sys/socket.h>

#define CONFIG_WHY         512
#define CONFIG_ADDRS       4
#define CONFIG_WORKERS     256
#define CONFIG_CACHE_MAX   10000000
#define CONFIG_WORK_MAX    60000
#define CONFIG_DRAIN_MAX   27000
#define CONFIG_TIMEOUT_MIN 50
#define CONFIG_TIMEOUT_MAX 3600000
#define CONFIG_DEBUG_MAX   7200000
#define CONFIG_SAMPLE_MAX  1073741824

/* One address that LISTEN_ADDR may mean; they are tried in this order. */
typedef struct {
    struct sockaddr_storage addr;
    socklen_t len;
} config_addr;

typedef struct {
    config_addr addrs[CONFIG_ADDRS];
    unsigned n_addrs;
    char listen[256];     /* LISTEN_ADDR as given, for messages */
    unsigned workers;     /* MAX_WORKERS: threads, each an event loop of its own */
    size_t cache_entries; /* CACHE_SIZE: what `after` bounds its cache by */
    unsigned work_ms;     /* WORK_MS: simulated work a request */
    unsigned drain_ms;    /* DRAIN_MS: after a signal, what is under way has so long to end */
    size_t sample_bytes;  /* SAMPLE_RATE: the heap profiler's mean between samples; 0: it is off */
    /* READ_TIMEOUT_MS, WRITE_TIMEOUT_MS, DEBUG_TIMEOUT_MS, IDLE_TIMEOUT_MS: front_conn.h says what
     * they mean */
    unsigned read_timeout_ms, write_timeout_ms, debug_timeout_ms, idle_timeout_ms;
} service_config;

/* Reads the environment. 0; -1: a value is refused, and `why` is one line of text. */
int config_load(service_config *out, char why[CONFIG_WHY]);

/* The text of --help. */
void config_usage(const char *program);

#endif
