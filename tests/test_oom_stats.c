/* test_oom_stats.c - metrics, counters and faults while malloc fails. */
#include "support_matrix.h"

static void record_text(const void *object, record *r)
{
    const memkit_buf *b = object;
    note(r, "%p len %zu cap %zu\n", (void *)b->data, b->len, b->cap);
    note_bytes(r, b->data, b->len + 1);
}

static memkit_pool *shown_pool;
static memkit_lru *shown_lru;
static memkit_arena *shown_arena;

static void *make_shown(void)
{
    shown_pool = memkit_pool_new(NULL);
    shown_lru = memkit_lru_new(&(memkit_lru_opts){.max_entries = 10});
    shown_arena = memkit_arena_new(&(memkit_arena_opts){.name = "shown"});
    memkit_buf *out = memkit_buf_new(0);
    memkit_buf_append_str(out, "mine\n");
    return out;
}

static void end_shown(void *b)
{
    memkit_buf_free(b);
    memkit_arena_free(shown_arena);
    memkit_lru_free(shown_lru);
    memkit_pool_free(shown_pool);
}

static int write_metrics(void *out)
{
    return memkit_metrics_write(out) == 0 ? 0 : errno;
}

static int memstats(void *unused)
{
    (void)unused;
    memkit_memstats_t m;
    memkit_memstats(&m);
    return m.rss_bytes > 0 ? 0 : EPROTO;
}

static int thread_allocs(void *unused)
{
    (void)unused;
    memkit_thread_allocs_t t;
    return memkit_thread_allocs(&t) == 0 ? 0 : EPROTO;
}

static int version(void *unused)
{
    (void)unused;
    return strcmp(memkit_version(), MEMKIT_VERSION) == 0 ? 0 : EPROTO;
}

static int set_handler(void *unused)
{
    (void)unused;
    memkit_fault_fn ours = memkit_set_fault_handler(NULL);
    memkit_set_fault_handler(ours);
    return ours != NULL ? 0 : EPROTO;
}

/* A fault is told without an allocation: there may be nothing left to allocate. */
static int fault(void *object)
{
    memkit_buf stray;
    memset(&stray, 0, sizeof stray);
    stray.data = stray.empty;
    int before = faults;
    memkit_buf_free(&stray);
    bool told = faults == before + 1;
    faults = before;
    return told && strstr(last_fault, "is not a memkit buffer") != NULL && object == NULL ? 0
                                                                                          : EPROTO;
}

int main(void)
{
    const oom_row rows[] = {
        {"memkit_metrics_write", NULL, 2, make_shown, write_metrics, record_text, end_shown},
        {"memkit_memstats", NULL, 0, NULL, memstats, NULL, NULL},
        {"memkit_thread_allocs", NULL, 0, NULL, thread_allocs, NULL, NULL},
        {"memkit_version", NULL, 0, NULL, version, NULL, NULL},
        {"memkit_set_fault_handler", NULL, 0, NULL, set_handler, NULL, NULL},
        {"memkit_set_fault_handler", "a fault", 0, NULL, fault, NULL, NULL},
    };
    return run_oom(NULL, rows, LENGTH(rows), NULL, 0);
}
