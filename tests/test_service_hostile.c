/* test_service_hostile.c - garbage at the example service's port, thousands of connections of it,
 * while a healthy client beside it must get every answer right. Afterwards the service has what it
 * had before: descriptors, blocks of memory, resident bytes.
 *
 * `make test` sends 25,000 to each service, `make soak` a million: HOSTILE_REQUESTS says how many,
 * HOSTILE_SEED which.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdatomic.h>

#include "test_service_garbage.h"

#define RING       128 /* hostile connections that are open at once */
#define IDS        50  /* `before` never forgets one: the healthy client uses always the same */
#define SLACK_RSS  (24 << 20)
#define BY_DEFAULT (SANITIZED ? 3000 : 25000)

static service svc;
static uint64_t seed;
static int slack; /* blocks that may be more: `after` keeps a slot for every request under way at
                   * once, and there may have been a moment with more than ever before */

static unsigned long setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtoul(text, NULL, 10) : otherwise;
}

/* ---- how it is sent ---- */

static struct {
    int fd; /* -1: none */
    bytes rest;
} ring[RING];

static unsigned long answered; /* hostile connections that got an answer, or its beginning */

static int connect_from(unsigned i)
{
    int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)svc.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* Of several addresses, or a million connections would run out of ports. */
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + i % 200)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail_msg("connection %u: %s", i, strerror(errno));
    return fd;
}

/* Whatever was sent: what comes back is HTTP, or nothing. */
static void finish(unsigned slot)
{
    char got[4096];
    int fd = ring[slot].fd;
    if (fd < 0)
        return;
    if (ring[slot].rest.len > 0)
        (void)send(fd, ring[slot].rest.data, ring[slot].rest.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
    if (n >= 7 && memcmp(got, "HTTP/1.", 7) != 0)
        fail_msg("no answer: \"%.60s\"", got);
    answered += n > 0;
    if (below(2) == 0) {
        struct linger reset = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(fd);
    ring[slot].fd = -1;
}

static void attack(unsigned i)
{
    static bytes b;
    unsigned slot = i % RING;
    finish(slot);
    int fd = ring[slot].fd = connect_from(i);
    bytes *rest = &ring[slot].rest;
    garbage(&b);
    size_t first = below(4) == 0 ? below((unsigned)b.len + 1) : b.len;
    (void)send(fd, b.data, first, MSG_DONTWAIT | MSG_NOSIGNAL);
    rest->len = b.len - first;
    memcpy(rest->data, b.data + first, rest->len);
    if (below(8) == 0)
        shutdown(fd, SHUT_WR);
    if (below(8) == 0)
        finish(slot);
}

static void attacks(unsigned long n)
{
    for (unsigned i = 0; i < RING; i++)
        ring[i].fd = -1;
    for (unsigned long i = 0; i < n; i++)
        attack((unsigned)i);
    for (unsigned i = 0; i < RING; i++)
        finish(i);
}

/* ---- the healthy client ---- */

static struct {
    pthread_t thread;
    atomic_bool stop, failed;
    atomic_ulong served;
    char wrong[256]; /* what went wrong first; the thread cannot fail the test itself */
} healthy;

/* Reads one answer into `got`; its body, or NULL. */
static const char *read_answer(int fd, char *got, size_t cap)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, got + len, cap - 1 - len, 0);
        if (n <= 0)
            return NULL;
        len += (size_t)n;
        got[len] = '\0';
        char *end = strstr(got, "\r\n\r\n"), *length = strcasestr(got, "\r\nContent-Length: ");
        if (end == NULL)
            continue;
        if (length == NULL || strncmp(got, "HTTP/1.1 200 ", 13) != 0)
            return NULL;
        size_t whole = (size_t)(end - got) + 4 + strtoul(length + 18, NULL, 10);
        if (whole >= cap || len > whole)
            return NULL;
        if (len == whole)
            return end + 4;
    }
}

/* `before` answers with the id as often as it was sent. */
static bool is_repeated(const char *body, const char *id)
{
    size_t n = strlen(id), times = 0;
    for (; strncmp(body, id, n) == 0; body += n)
        times++;
    return times > 0 && *body == '\0';
}

static bool ask_healthy(int fd, unsigned long i)
{
    static char got[1 << 20];
    char line[128], id[16] = "ok";
    if (i % 3 == 0) {
        strcpy(line, "GET /health" HOST "\r\n");
    } else {
        snprintf(id, sizeof id, "<%lu>", i % IDS);
        snprintf(line, sizeof line, "POST /process?id=%s" HOST "\r\n", id);
    }
    const char *body = NULL;
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line))
        body = read_answer(fd, got, sizeof got);
    if (body != NULL && is_repeated(body, id))
        return true;
    snprintf(healthy.wrong, sizeof healthy.wrong, "request %lu: %s: \"%.100s\"", i, strerror(errno),
             body != NULL ? body : got);
    return false;
}

static void *be_healthy(void *arg)
{
    (void)arg;
    struct timeval t = {.tv_sec = WAIT_MS / 1000};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)svc.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = -1;
    for (unsigned long i = 0; !atomic_load(&healthy.stop); i++) {
        if (i % 64 == 0) { /* some come, some stay */
            if (fd >= 0)
                close(fd);
            fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
            if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
                snprintf(healthy.wrong, sizeof healthy.wrong, "connect: %s", strerror(errno));
                break;
            }
        }
        if (!ask_healthy(fd, i))
            break;
        atomic_fetch_add(&healthy.served, 1);
        sleep_ms(1);
    }
    atomic_store(&healthy.failed, healthy.wrong[0] != '\0');
    close(fd);
    return NULL;
}

static void attacks_beside_a_healthy_client(unsigned long n)
{
    healthy.wrong[0] = '\0';
    healthy.stop = healthy.failed = false;
    healthy.served = 0;
    assert_int_equal(pthread_create(&healthy.thread, NULL, be_healthy, NULL), 0);
    attacks(n);
    while (atomic_load(&healthy.served) < 3 * IDS && !atomic_load(&healthy.failed))
        sleep_ms(1); /* until it has asked for all of its ids */
    atomic_store(&healthy.stop, true);
    pthread_join(healthy.thread, NULL);
    if (healthy.wrong[0] != '\0')
        fail_msg("the healthy client: %s", healthy.wrong);
}

/* ---- before and after ---- */

typedef struct {
    int fds;
    double blocks, resident;
} figures;

/* Once nothing is under way and nothing lingers. */
static void take(figures *f, int fds)
{
    await_metric(&svc, "service_connections", 1); /* itself */
    await_metric(&svc, "service_requests_in_flight", 1);
    double end = now_s() + WAIT_MS / 1000.0;
    while ((f->fds = service_fds(&svc)) > fds && now_s() < end)
        sleep_ms(10);
    if (!SANITIZED)
        f->blocks = metric(&svc, "memkit_mallocs_total") - metric(&svc, "memkit_frees_total");
    f->resident = metric(&svc, "memkit_process_resident_bytes");
}

static int start(void **state)
{
    static char preload[4200];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s/libmemkit-prof.so.0", build_dir());
    const char *settings[] = {"LISTEN_ADDR=127.0.0.1:0", "MAX_WORKERS=2", "WORK_MS=1",
                              SANITIZED ? NULL : preload, NULL};
    service_start(&svc, *state, settings);
    if (!SANITIZED && metric(&svc, "memkit_malloc_hooked") != 1)
        fail_msg("malloc is not hooked");
    seed = setting("HOSTILE_SEED", 20240817);
    chance = seed * 2 + 1;
    answered = 0;
    slack = strcmp(*state, "service-after") == 0 ? 512 : 64;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    return service_ends_well(&svc);
}

static void garbage_changes_nothing_for_others_and_leaves_nothing_behind(void **state)
{
    (void)state;
    const unsigned long n = setting("HOSTILE_REQUESTS", BY_DEFAULT);
    figures before = {0}, after = {0};
    int fds = service_own_fds(&svc);
    attacks_beside_a_healthy_client(n / 10); /* what a service of this load keeps for good */
    take(&before, fds);
    attacks_beside_a_healthy_client(n - n / 10);
    take(&after, fds);
    print_message("%lu hostile requests (seed %llu), %lu with an answer, %lu healthy ones beside; "
                  "descriptors %d -> %d, blocks %.0f -> %.0f, resident %.0f -> %.0f KiB, read "
                  "time-outs %.0f\n",
                  n, (unsigned long long)seed, answered, atomic_load(&healthy.served), fds,
                  after.fds, before.blocks, after.blocks, before.resident / 1024,
                  after.resident / 1024, metric(&svc, "service_timeouts_total{kind=\"read\"}"));
    assert_true(answered > n / 10);
    assert_int_equal(after.fds, fds);
    assert_true(after.blocks <= before.blocks + slack);
    if (!SANITIZED) /* which keep what was freed for a while, and tell of leaks themselves */
        assert_true(after.resident <= before.resident + SLACK_RSS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(garbage_changes_nothing_for_others_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
