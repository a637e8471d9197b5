/* metrics.c - memkit_metrics_write: Prometheus's text exposition format, version 0.0.4.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/ : one # HELP and # TYPE a family,
 * then its samples together; so the objects are walked once a family. A family with no sample is
 * left out. `id` tells objects of one name apart: two series with the same labels would void the
 * scrape. Everything goes to a buffer of our own first, so that the caller's is unchanged on an
 * error.
 */
#include <memkit/stats.h>

#include <inttypes.h>

#include <memkit/arena.h>
#include <memkit/lru.h>
#include <memkit/pool.h>

#include "core/arena.h"
#include "core/attach.h"
#include "core/internal.h"
#include "core/registry.h"

typedef struct {
    const char *name, *type, *help;
    uint64_t (*value)(const memkit__node *node);
} family;

typedef struct {
    memkit_buf *out;
    const family *family;
    const char *label; /* "pool", "cache", "arena": the label that holds the object's name */
    bool started;
    int failed;
} walk;

static int head(memkit_buf *out, const char *name, const char *type, const char *help)
{
    return memkit_buf_appendf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Bytes of the UTF-8 character at s (RFC 3629), 0 where there is none: cut off, overlong, a
 * surrogate. */
static size_t utf8_length(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (n == 4 && (p[0] < 0xf0 || p[0] > 0xf4))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool wrong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                 (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return wrong ? 0 : n;
}

/* A label's value: backslash, quote and newline escaped, as the format asks; a byte that is no
 * UTF-8, for which a scrape would be refused whole, becomes a question mark. */
static int append_escaped(memkit_buf *out, const char *s)
{
    while (*s != '\0') {
        size_t n = utf8_length(s);
        int failed = n == 0                    ? memkit_buf_append_byte(out, '?')
                     : *s == '\n'              ? memkit_buf_append_str(out, "\\n")
                     : *s == '"' || *s == '\\' ? memkit_buf_appendf(out, "\\%c", *s)
                                               : memkit_buf_append(out, s, n);
        if (failed != 0)
            return -1;
        s += n != 0 ? n : 1;
    }
    return 0;
}

static void write_sample(void *arg, const memkit__node *node)
{
    walk *w = arg;
    if (w->failed != 0)
        return;
    if (!w->started)
        w->failed = head(w->out, w->family->name, w->family->type, w->family->help);
    w->started = true;
    w->failed = w->failed != 0 ||
                memkit_buf_appendf(w->out, "%s{%s=\"", w->family->name, w->label) != 0 ||
                append_escaped(w->out, node->name) != 0 ||
                memkit_buf_appendf(w->out, "\",id=\"%u\"} %" PRIu64 "\n", node->id,
                                   w->family->value(node)) != 0;
}

/* ---- values ---- */

#define POOL_VALUE(member)                                  \
    static uint64_t pool_##member(const memkit__node *node) \
    {                                                       \
        memkit_pool_stats_t s;                              \
        memkit_pool_stats(node->object, &s);                \
        return s.member;                                    \
    }
#define LRU_VALUE(member)                                  \
    static uint64_t lru_##member(const memkit__node *node) \
    {                                                      \
        memkit_lru_stats_t s;                              \
        memkit_lru_stats(node->object, &s);                \
        return s.member;                                   \
    }

POOL_VALUE(gets)
POOL_VALUE(hits)
POOL_VALUE(puts)
POOL_VALUE(live_buffers)
POOL_VALUE(live_bytes)
POOL_VALUE(held_buffers)
POOL_VALUE(held_bytes)
POOL_VALUE(peak_held_bytes)
POOL_VALUE(trimmed_bytes)
POOL_VALUE(calibrated_size)
LRU_VALUE(entries)
LRU_VALUE(bytes)
LRU_VALUE(pinned_bytes)
LRU_VALUE(hits)
LRU_VALUE(misses)
LRU_VALUE(sets)
LRU_VALUE(evictions)
LRU_VALUE(expirations)
LRU_VALUE(max_entries)
LRU_VALUE(max_bytes)

static uint64_t arena_used(const memkit__node *node)
{
    uint64_t used, held;
    memkit__arena_row(node, &used, &held);
    return used;
}

static uint64_t arena_held(const memkit__node *node)
{
    uint64_t used, held;
    memkit__arena_row(node, &used, &held);
    return held;
}

static const family pool_families[] = {
    {"memkit_pool_gets_total", "counter", "Buffers taken from the pool.", pool_gets},
    {"memkit_pool_hits_total", "counter", "Buffers taken from the pool without malloc.", pool_hits},
    {"memkit_pool_puts_total", "counter", "Buffers given back to the pool.", pool_puts},
    {"memkit_pool_live_buffers", "gauge", "Buffers taken and not given back.", pool_live_buffers},
    {"memkit_pool_live_bytes", "gauge", "Room in the buffers taken and not given back.",
     pool_live_bytes},
    {"memkit_pool_held_buffers", "gauge", "Buffers waiting in the pool.", pool_held_buffers},
    {"memkit_pool_held_bytes", "gauge", "Room in the buffers waiting in the pool.",
     pool_held_bytes},
    {"memkit_pool_held_peak_bytes", "gauge", "Most room that was reserved for waiting buffers.",
     pool_peak_held_bytes},
    {"memkit_pool_trimmed_bytes_total", "counter", "Room of waiting buffers given back to malloc.",
     pool_trimmed_bytes},
    {"memkit_pool_calibrated_bytes", "gauge", "Size of the buffer that a get without a hint gives.",
     pool_calibrated_size},
};

static const family lru_families[] = {
    {"memkit_lru_entries", "gauge", "Entries in the cache.", lru_entries},
    {"memkit_lru_bytes", "gauge", "Memory held for entries, overhead included.", lru_bytes},
    {"memkit_lru_pinned_bytes", "gauge", "Memory held for entries that are referenced.",
     lru_pinned_bytes},
    {"memkit_lru_hits_total", "counter", "Look-ups that found an entry.", lru_hits},
    {"memkit_lru_misses_total", "counter", "Look-ups that found none.", lru_misses},
    {"memkit_lru_sets_total", "counter", "Entries stored.", lru_sets},
    {"memkit_lru_evictions_total", "counter", "Entries evicted for room.", lru_evictions},
    {"memkit_lru_expirations_total", "counter", "Entries that grew too old.", lru_expirations},
    {"memkit_lru_max_entries", "gauge", "Bound on entries: 0 for none.", lru_max_entries},
    {"memkit_lru_max_bytes", "gauge", "Bound on bytes: 0 for none.", lru_max_bytes},
};

static const family arena_families[] = {
    {"memkit_arena_used_bytes", "gauge", "Memory the arena gave out, as of its last chunk.",
     arena_used},
    {"memkit_arena_held_bytes", "gauge", "Memory the arena took from malloc, as of its last chunk.",
     arena_held},
};

static int write_objects(memkit_buf *out, memkit__kind kind, const char *label,
                         const family *families, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        walk w = {.out = out, .family = &families[i], .label = label};
        memkit__each(kind, write_sample, &w);
        if (w.failed != 0)
            return -1;
    }
    return 0;
}

/* ---- the process ---- */

static int write_one(memkit_buf *out, const char *name, const char *type, const char *help,
                     uint64_t value)
{
    return head(out, name, type, help) != 0 ||
                   memkit_buf_appendf(out, "%s %" PRIu64 "\n", name, value) != 0
               ? -1
               : 0;
}

static int write_process(memkit_buf *out)
{
    memkit_memstats_t m;
    memkit_memstats(&m);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"memkit_process_resident_bytes", "gauge", "Resident memory of the process.", m.rss_bytes},
        {"memkit_process_resident_peak_bytes", "gauge", "Most resident memory so far.",
         m.peak_rss_bytes},
        {"memkit_process_sys_bytes", "gauge", "Private writable memory mapped by the process.",
         m.sys_bytes},
        {"memkit_malloc_hooked", "gauge", "Whether malloc is counted: 1 or 0.", m.hooked},
        {"memkit_heap_alloc_bytes", "gauge", "Usable bytes allocated and not freed.",
         m.alloc_bytes},
        {"memkit_heap_alloc_peak_bytes", "gauge",
         "Most usable bytes allocated and not freed so far.", m.peak_alloc_bytes},
        {"memkit_heap_allocated_bytes_total", "counter", "Usable bytes allocated since the start.",
         m.total_alloc_bytes},
        {"memkit_mallocs_total", "counter", "Allocations since the start.", m.mallocs},
        {"memkit_frees_total", "counter", "Frees since the start.", m.frees},
    };
    enum { ROWS = sizeof rows / sizeof rows[0], ALWAYS = 4 };
    for (size_t i = 0; i < (m.hooked ? (size_t)ROWS : (size_t)ALWAYS); i++)
        if (write_one(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value) != 0)
            return -1;
    return 0;
}

/* ---- MEMKIT_TIMING ---- */

#define NS 1000000000u

/* Seconds in full: what %g prints depends on the locale. */
static int append_seconds(memkit_buf *out, uint64_t ns)
{
    return memkit_buf_appendf(out, "%" PRIu64 ".%09u", ns / NS, (unsigned)(ns % NS));
}

static int write_histogram(memkit_buf *out, const char *name, const memkit__times *t)
{
    int failed = head(out, name, "histogram",
                      "Time inside each call of malloc, free and their kin (MEMKIT_TIMING=1).");
    uint64_t sum = 0;
    for (unsigned i = 0; failed == 0 && i < MEMKIT__TIMES_BUCKETS; i++) {
        sum += t->buckets[i];
        failed = memkit_buf_appendf(out, "%s_bucket{le=\"", name) != 0 ||
                 (i + 1 < MEMKIT__TIMES_BUCKETS
                      ? append_seconds(out, UINT64_C(1) << (MEMKIT__TIMES_FIRST_BIT + i))
                      : memkit_buf_append_str(out, "+Inf")) != 0 ||
                 memkit_buf_appendf(out, "\"} %" PRIu64 "\n", sum) != 0;
    }
    return failed != 0 || memkit_buf_appendf(out, "%s_sum ", name) != 0 ||
                   append_seconds(out, t->total_ns) != 0 ||
                   memkit_buf_appendf(out, "\n%s_count %" PRIu64 "\n", name, sum) != 0
               ? -1
               : 0;
}

/* Nothing where the calls are not timed. */
static int write_times(memkit_buf *out)
{
    static const char longest[] = "memkit_malloc_longest_duration_seconds";
    const memkit__prof_table *prof = memkit__counting_prof();
    memkit__times t;
    if (prof == NULL || prof->size < offsetof(memkit__prof_table, times) + sizeof prof->times ||
        !prof->times(&t))
        return 0;
    return write_histogram(out, "memkit_malloc_duration_seconds", &t) != 0 ||
                   head(out, longest, "gauge", "The longest of these calls.") != 0 ||
                   memkit_buf_appendf(out, "%s ", longest) != 0 ||
                   append_seconds(out, t.longest_ns) != 0 ||
                   memkit_buf_append_byte(out, '\n') != 0 ||
                   write_one(out, "memkit_malloc_longest_involuntary_switches", "gauge",
                             "Involuntary context switches of its thread meanwhile.",
                             t.longest_switches) != 0
               ? -1
               : 0;
}

#define WRITE_OBJECTS(kind, label, families) \
    write_objects(text, kind, label, families, sizeof(families) / sizeof(families)[0])

int memkit_metrics_write(memkit_buf *out)
{
    if (out == NULL) {
        errno = EINVAL;
        return -1;
    }
    memkit_buf *text = memkit_buf_new(8192);
    if (text == NULL)
        return -1;
    int failed = write_process(text) != 0 || write_times(text) != 0 ||
                 WRITE_OBJECTS(MEMKIT__POOL, "pool", pool_families) != 0 ||
                 WRITE_OBJECTS(MEMKIT__LRU, "cache", lru_families) != 0 ||
                 WRITE_OBJECTS(MEMKIT__ARENA, "arena", arena_families) != 0 ||
                 memkit_buf_append(out, text->data, text->len) != 0;
    int reason = errno;
    memkit_buf_free(text);
    errno = failed ? reason : errno;
    return failed ? -1 : 0;
}
