/* bench_process.c - the example service's work without its 10 ms and its HTTP: the very handlers of
 * before.c and after.c, linked both into one program under names of their own.
 *
 *   process    handler_process and the answer's release, on a request object that is kept: the
 *              article's process()
 *   request    all the handler does for a request, its object and its id too
 *
 * `new` draws ids from a million, all equally likely, as `make compare` does: nearly each is one
 * that the bounded cache does not have. `hot` draws from 500 that it does have. There `before`
 * answers with all that it ever appended, longer each time; so that it can be repeated at all, it
 * starts anew in each run and has a fixed number of iterations. Each run begins with enough
 * requests to fill the bounded cache, which are not timed.
 */
#include <string.h>

#include "../examples/service/handler.h"
#include "bench.h"

enum {
    IDS = 1000000,
    HOT_IDS = 500,
    CACHE = 1000,
    WARM = 4 * CACHE,
    HOT_ROUNDS = 100000,
    ID_MAX = 1024
};

typedef struct {
    int (*init)(const service_config *);
    void (*finish)(void);
    service_request *(*begin)(unsigned worker, size_t id_len);
    int (*process)(service_request *);
    void (*end)(service_request *);
} handlers;

#define HANDLERS(who)                                             \
    int who##_init(const service_config *cfg);                    \
    void who##_finish(void);                                      \
    service_request *who##_begin(unsigned worker, size_t id_len); \
    int who##_process(service_request *r);                        \
    void who##_end(service_request *r)
HANDLERS(before);
HANDLERS(after);

static const handlers before = {before_init, before_finish, before_begin, before_process,
                                before_end};
static const handlers after = {after_init, after_finish, after_begin, after_process, after_end};

static const service_config config = {.workers = 1, .cache_entries = CACHE};

static const char target[] = "<= 100 ns at 32, 150 ns at 1024";

/* An id of a number: its eight bytes, then the same filling in all. */
static inline void write_id(char *id, uint64_t number)
{
    memcpy(id, &number, sizeof number);
}

static inline void release(service_request *r)
{
    if (r->body.release != NULL)
        r->body.release(r->body.arg);
}

BENCH_INLINE void process_once(service_request *r, handlers h, uint64_t number)
{
    write_id(r->id, number);
    if (h.process(r) != 0)
        abort();
    GBENCH_KEEP(r->body.data);
    release(r);
}

BENCH_INLINE void request_once(char *id, size_t len, handlers h, uint64_t number)
{
    service_request *r = h.begin(0, len);
    if (r == NULL)
        abort();
    write_id(id, number);
    memcpy(r->id, id, len);
    if (h.process(r) != 0)
        abort();
    GBENCH_KEEP(r->body.data);
    release(r);
    h.end(r);
}

BENCH_INLINE void process_with(gbench_state *s, handlers h, uint64_t ids)
{
    size_t len = (size_t)gbench_arg(s, 0);
    service_request *r = h.init(&config) == 0 ? h.begin(0, len) : NULL;
    if (r == NULL) {
        gbench_skip(s, "the handlers do not begin");
        return;
    }
    memset(r->id, 'x', len);
    uint64_t seed = 1;
    for (uint64_t i = 0; i < WARM; i++)
        process_once(r, h, i % ids);
    GBENCH_LOOP(s)
    {
        process_once(r, h, bench_random(&seed) % ids);
    }
    h.end(r);
    h.finish();
}

BENCH_INLINE void request_with(gbench_state *s, handlers h, uint64_t ids)
{
    size_t len = (size_t)gbench_arg(s, 0);
    char id[ID_MAX];
    memset(id, 'x', sizeof id);
    if (h.init(&config) != 0) {
        gbench_skip(s, "the handlers do not begin");
        return;
    }
    uint64_t seed = 1;
    for (uint64_t i = 0; i < WARM; i++)
        request_once(id, len, h, i % ids);
    GBENCH_LOOP(s)
    {
        request_once(id, len, h, bench_random(&seed) % ids);
    }
    h.finish();
}

#define ROW(what, who, which, ids)                      \
    static void what##_##which##_##who(gbench_state *s) \
    {                                                   \
        what##_with(s, who, ids);                       \
    }
ROW(process, before, new, IDS)
ROW(process, after, new, IDS)
ROW(process, before, hot, HOT_IDS)
ROW(process, after, hot, HOT_IDS)
ROW(request, before, new, IDS)
ROW(request, after, new, IDS)

/* The answer to an id that is asked for the first time is the id, before and after. */
static const char *differ(void)
{
    static const size_t lens[] = {32, ID_MAX};
    const char *why = NULL;
    for (int l = 0; l < 2; l++) {
        if (before.init(&config) != 0 || after.init(&config) != 0)
            return "the handlers do not begin";
        for (uint64_t i = 0; i < 2 * CACHE && why == NULL; i++) {
            service_request *b = before.begin(0, lens[l]), *a = after.begin(0, lens[l]);
            if (b == NULL || a == NULL)
                return "no request";
            memset(b->id, 'x', lens[l]);
            write_id(b->id, i);
            memcpy(a->id, b->id, lens[l]);
            if (before.process(b) != 0 || after.process(a) != 0 || b->body.len != lens[l] ||
                a->body.len != lens[l] || memcmp(a->body.data, b->body.data, lens[l]) != 0 ||
                memcmp(a->body.data, b->id, lens[l]) != 0)
                why = "before and after answer differently";
            release(b);
            release(a);
            before.end(b);
            after.end(a);
        }
        before.finish();
        after.finish();
    }
    return why;
}

static gbench *add(const char *name, gbench_fn fn)
{
    gbench *b = bench_add(name, fn, differ);
    gbench_add_args(b, 1, (const int64_t[]){32});
    gbench_add_args(b, 1, (const int64_t[]){ID_MAX});
    return b;
}

void bench_process(void)
{
    gbench_compare(add("process/new/after", process_new_after), "process/new/before", target);
    add("process/new/before", process_new_before);
    gbench *b = add("process/hot/after", process_hot_after);
    gbench_compare(b, "process/hot/before", target);
    gbench_fix_rounds(b, HOT_ROUNDS);
    gbench_fix_rounds(add("process/hot/before", process_hot_before), HOT_ROUNDS);
    gbench_compare(add("request/new/after", request_new_after), "request/new/before", NULL);
    add("request/new/before", request_new_before);
}
