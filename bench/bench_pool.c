/* bench_pool.c - the pool beside malloc: one buffer, 64 in flight, and a buffer's whole life.
 *
 * A whole life: get, append text in pieces until it has a length that is log-normal (median 512
 * bytes, one in a hundred above 8 KiB), read it, and give it back once 63 others have been got. The
 * mallocs grow by doubling, from 64 bytes or from 1 KiB; the pool knows what uses needed.
 */
#include <math.h>
#include <string.h>

#include <memkit/memkit.h>

#include "bench.h"

enum { IN_FLIGHT = 64, LENGTHS = 4096, PIECE = 200, LONGEST = 64 << 10 };

static size_t lengths[LENGTHS];
static char source[LONGEST];
static memkit_pool *warm_pool, *flight_pool, *life_pool; /* shared by the threads of a row */

static void make_lengths(void)
{
    uint64_t seed = 1;
    double sigma = log(8192.0 / 512.0) / 2.3263; /* the normal's 99th percentile */
    for (int i = 0; i < LENGTHS; i++) {
        double u = bench_uniform(&seed), v = bench_uniform(&seed);
        double normal = sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
        double n = 512 * exp(sigma * normal);
        lengths[i] = n < 1 ? 1 : n > LONGEST ? LONGEST : (size_t)n;
    }
    for (int i = 0; i < LONGEST; i++)
        source[i] = (char)bench_random(&seed);
}

/* Reads as a writer to a socket would: every line of the cache once. */
static inline uint64_t read_all(const char *p, size_t n)
{
    uint64_t sum = n;
    for (size_t i = 0; i < n; i += 64)
        sum = sum * 31 + (unsigned char)p[i];
    return sum * 31 + (unsigned char)p[n - 1];
}

/* ---- one buffer, 512 bytes ---- */

static void warm_memkit(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        memkit_buf *b = memkit_pool_get(warm_pool, 512);
        GBENCH_KEEP(b);
        memkit_pool_put(warm_pool, b);
    }
}

BENCH_INLINE void warm_with(gbench_state *s, bench_malloc m)
{
    GBENCH_LOOP(s)
    {
        void *p = m.alloc(512);
        GBENCH_KEEP(p);
        m.give(p);
    }
}

/* ---- 64 in flight: the oldest goes when the next comes ---- */

static void flight_memkit(gbench_state *s)
{
    memkit_buf *out[IN_FLIGHT];
    for (int i = 0; i < IN_FLIGHT; i++)
        out[i] = memkit_pool_get(flight_pool, 512);
    unsigned at = 0;
    GBENCH_LOOP(s)
    {
        memkit_pool_put(flight_pool, out[at]);
        out[at] = memkit_pool_get(flight_pool, 512);
        GBENCH_KEEP(out[at]);
        at = (at + 1) % IN_FLIGHT;
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        memkit_pool_put(flight_pool, out[i]);
}

BENCH_INLINE void flight_with(gbench_state *s, bench_malloc m)
{
    void *out[IN_FLIGHT];
    for (int i = 0; i < IN_FLIGHT; i++)
        out[i] = m.alloc(512);
    unsigned at = 0;
    GBENCH_LOOP(s)
    {
        m.give(out[at]);
        out[at] = m.alloc(512);
        GBENCH_KEEP(out[at]);
        at = (at + 1) % IN_FLIGHT;
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        m.give(out[i]);
}

/* ---- a buffer's whole life ---- */

static inline memkit_buf *fill_memkit(size_t n)
{
    memkit_buf *b = memkit_pool_get(life_pool, 0);
    for (size_t done = 0; b != NULL && done < n; done += PIECE)
        if (memkit_buf_append(b, source + done, n - done < PIECE ? n - done : PIECE) != 0)
            abort();
    return b;
}

static void life_memkit(gbench_state *s)
{
    memkit_buf *out[IN_FLIGHT] = {NULL};
    unsigned i = (unsigned)gbench_thread(s) * 97; /* threads are not to go in step */
    uint64_t sum = 0;
    GBENCH_LOOP(s)
    {
        memkit_buf *b = fill_memkit(lengths[i % LENGTHS]);
        sum += read_all(b->data, b->len);
        memkit_pool_put(life_pool, out[i % IN_FLIGHT]);
        out[i++ % IN_FLIGHT] = b;
    }
    GBENCH_KEEP(sum); /* or nothing would have to be read */
    for (int k = 0; k < IN_FLIGHT; k++)
        memkit_pool_put(life_pool, out[k]);
}

typedef struct {
    char *data;
    size_t len, cap;
} text;

BENCH_INLINE text fill_with(size_t n, size_t first, bench_malloc m)
{
    text t = {m.alloc(first), 0, first};
    for (size_t done = 0; done < n; done += PIECE) {
        size_t piece = n - done < PIECE ? n - done : PIECE;
        if (t.cap - t.len < piece) {
            while (t.cap - t.len < piece)
                t.cap *= 2;
            t.data = m.resize(t.data, t.cap);
        }
        if (t.data == NULL)
            abort();
        memcpy(t.data + t.len, source + done, piece);
        t.len += piece;
    }
    return t;
}

BENCH_INLINE void life_with(gbench_state *s, size_t first, bench_malloc m)
{
    char *out[IN_FLIGHT] = {NULL};
    unsigned i = (unsigned)gbench_thread(s) * 97;
    uint64_t sum = 0;
    GBENCH_LOOP(s)
    {
        text t = fill_with(lengths[i % LENGTHS], first, m);
        sum += read_all(t.data, t.len);
        m.give(out[i % IN_FLIGHT]);
        out[i++ % IN_FLIGHT] = t.data;
    }
    GBENCH_KEEP(sum);
    for (int k = 0; k < IN_FLIGHT; k++)
        m.give(out[k]);
}

/* ---- rows ---- */

BENCH_BOTH(warm, warm_with(s, m))
BENCH_BOTH(flight, flight_with(s, m))
BENCH_BOTH(life64, life_with(s, 64, m))
BENCH_BOTH(life1k, life_with(s, 1024, m))

/* Every length once, both ways: the same bytes. */
static const char *differ(void)
{
    for (int i = 0; i < LENGTHS; i++) {
        memkit_buf *b = fill_memkit(lengths[i]);
        text t = fill_with(lengths[i], 64, BENCH_MALLOC);
        bool same = b->len == t.len && t.len == lengths[i] && memcmp(b->data, t.data, t.len) == 0 &&
                    memcmp(t.data, source, t.len) == 0;
        memkit_pool_put(life_pool, b);
        free(t.data);
        if (!same)
            return "pool and malloc hold different bytes";
    }
    return NULL;
}

static void add_two_threads(const char *name, gbench_fn fn)
{
    gbench_add_threads(bench_add(name, fn, differ), 2);
}

void bench_pool(void)
{
    make_lengths();
    memkit_pool **pools[] = {&warm_pool, &flight_pool, &life_pool};
    for (int i = 0; i < 3; i++)
        if ((*pools[i] = memkit_pool_new(NULL)) == NULL)
            abort();
    gbench_compare(bench_add("pool/warm_512/memkit", warm_memkit, differ), "pool/warm_512/glibc",
                   "<= 0.60 of the best malloc");
    bench_add("pool/warm_512/malloc", warm_malloc, differ);
    bench_add("pool/warm_512/glibc", warm_glibc, differ);

    gbench_compare(bench_add("pool/64_in_flight/memkit", flight_memkit, differ),
                   "pool/64_in_flight/glibc", "<= 0.50 of the best malloc");
    bench_add("pool/64_in_flight/malloc", flight_malloc, differ);
    bench_add("pool/64_in_flight/glibc", flight_glibc, differ);

    gbench *life = bench_add("pool/life/memkit", life_memkit, differ);
    gbench_compare(life, "pool/life/glibc_from_64", "<= 0.35");
    gbench_compare(life, "pool/life/glibc_from_1k", NULL);
    bench_add("pool/life/malloc_from_64", life64_malloc, differ);
    bench_add("pool/life/glibc_from_64", life64_glibc, differ);
    bench_add("pool/life/malloc_from_1k", life1k_malloc, differ);
    bench_add("pool/life/glibc_from_1k", life1k_glibc, differ);

    gbench *two = bench_add("pool/life_in_two/memkit", life_memkit, differ);
    gbench_add_threads(two, 2);
    gbench_compare(two, "pool/life/memkit", "<= 1.05 of one thread");
    gbench_compare(two, "pool/life_in_two/glibc_from_64", NULL);
    add_two_threads("pool/life_in_two/malloc_from_64", life64_malloc);
    add_two_threads("pool/life_in_two/glibc_from_64", life64_glibc);
}
