/* support_profile.c - profiles made up for the tests of the writers. */
#include "support_profile.h"

#include <string.h>

#include "support.h"

#define TYPE(name, type, unit, ...) {type, unit},
static const memkit__value_type heap_types[] = {MEMKIT__HEAP_TYPES(TYPE)};
#undef TYPE

static void *array(memkit__scratch *s, size_t n, size_t size)
{
    void *p = memkit__scratch_array(s, n, size);
    assert_non_null(p);
    return p;
}

static const char *text(memkit__scratch *s, const char *fmt, unsigned a, unsigned b)
{
    char out[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(out, sizeof out, fmt, a, b);
#pragma GCC diagnostic pop
    const char *copy = memkit__scratch_strndup(s, out, (size_t)n);
    assert_non_null(copy);
    return copy;
}

int64_t profile_total(const memkit__profile *p, uint32_t type)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < p->n_samples; i++)
        sum += p->samples[i].values[type];
    return sum;
}

/* ---- small ---- */

static memkit__function small_functions[] = {
    {"main", "main", "/src/main.c"},
    {"read_all", "read_all", NULL},
    {"std::vector<char, std::allocator<char> >::push_back(char&&) \"x\"", "_ZNSt6vector9push_back",
     NULL},
    {"malloc", "malloc", NULL},
    {"odd;name\nof \xff\x01", "odd", NULL},
    {"[memkit held]", "[memkit held]", NULL},
    {"read_all", "read_all", NULL},
};

/* The third has no name, the seventh no module. */
static memkit__location small_locations[] = {
    {0x401050, 0, 0},
    {0x401120, 0, 1},
    {0x401999, 0, MEMKIT__NONE},
    {0x401200, 0, 2},
    {0x7f0000002345, 1, 3},
    {0x7f0000003000, 1, 4},
    {0, MEMKIT__NONE, 5},
    {0x401150, 0, 1},
    {0x7f0000004000, 1, 6},
    {0xdeadbeef, MEMKIT__NONE, MEMKIT__NONE},
};

static memkit__mapping small_mappings[] = {
    {0x400000, 0x500000, 0x1000, "/usr/bin/server", "0123abcd", true},
    {0x7f0000000000, 0x7f0000100000, 0, "/usr/lib/libodd & <co>.so.1", "", true},
};

memkit__profile *small_profile(memkit__scratch *s)
{
    static const uint32_t a[] = {4, 1, 0}, b[] = {3, 2, 0}, c[] = {5, 8, 0}, d[] = {6},
                          e[] = {4, 7, 0}, f[] = {9, 1, 0};
    static const uint32_t *const stacks[SMALL_SAMPLES] = {a, b, c, d, e, f};
    static const uint32_t depths[SMALL_SAMPLES] = {3, 3, 3, 1, 3, 3};
    static const int64_t inuse[SMALL_SAMPLES] = {4096, 1048576, 300, 65536, 4000, 0};
    static const char *const threads[SMALL_SAMPLES] = {NULL, "worker 1", NULL, NULL, NULL, NULL};
    static const char *const comments[] = {"dropped: 0", "own memory: 1.2 MiB"};
    memkit__profile *p = array(s, 1, sizeof *p);
    memkit__sample *samples = array(s, SMALL_SAMPLES, sizeof *samples);
    for (uint32_t i = 0; i < SMALL_SAMPLES; i++) {
        int64_t *v = array(s, MEMKIT__HEAP_TYPE_COUNT, sizeof *v);
        double *variance = array(s, MEMKIT__HEAP_TYPE_COUNT, sizeof *variance);
        v[MEMKIT__ALLOC_OBJECTS] = 10 * (int64_t)(i + 1);
        v[MEMKIT__ALLOC_SPACE] = 2 * inuse[i] + 1000;
        v[MEMKIT__INUSE_OBJECTS] = inuse[i] > 0 ? (int64_t)i + 1 : 0;
        v[MEMKIT__INUSE_SPACE] = inuse[i];
        v[MEMKIT__FREED_OBJECTS] = v[MEMKIT__ALLOC_OBJECTS] - v[MEMKIT__INUSE_OBJECTS];
        v[MEMKIT__TEMPORARY_OBJECTS] = i;
        v[MEMKIT__FOREIGN_FREED_OBJECTS] = 1;
        v[MEMKIT__LIFE_10US] = 2;
        v[MEMKIT__LIFE_1S] = v[MEMKIT__FREED_OBJECTS] - 2;
        variance[MEMKIT__INUSE_SPACE] = 1e6;
        samples[i] = (memkit__sample){.depth = depths[i],
                                      .locations = stacks[i],
                                      .thread = threads[i],
                                      .values = v,
                                      .variance = i == 1 ? variance : NULL};
    }
    *p = (memkit__profile){
        .types = heap_types,
        .n_types = MEMKIT__HEAP_TYPE_COUNT,
        .default_type = MEMKIT__INUSE_SPACE,
        .samples = samples,
        .n_samples = SMALL_SAMPLES,
        .locations = small_locations,
        .n_locations = sizeof small_locations / sizeof *small_locations,
        .functions = small_functions,
        .n_functions = sizeof small_functions / sizeof *small_functions,
        .mappings = small_mappings,
        .n_mappings = sizeof small_mappings / sizeof *small_mappings,
        .period_type = {"space", "bytes"},
        .period = 524288,
        .time_ns = INT64_C(1764000000123456789),
        .duration_ns = INT64_C(12500000000),
        .drop_frames = "malloc|memkit__.*",
        .keep_frames = "memkit__kept",
        .comments = comments,
        .n_comments = 2,
    };
    return p;
}

/* ---- as of a service ---- */

enum { FUNCTIONS = 500, MODULES = 8, SITES = 3 };

static void name_functions(memkit__profile *p, memkit__scratch *s)
{
    static const char *const verbs[] = {
        "http_parse",    "cache_lookup", "json_emit",   "buffer_append", "session_open",
        "tls_handshake", "db_query",     "route_match", "log_write",     "header_find"};
    memkit__function *f = array(s, FUNCTIONS, sizeof *f);
    memkit__mapping *m = array(s, MODULES, sizeof *m);
    memkit__location *l = array(s, (size_t)FUNCTIONS * SITES, sizeof *l);
    uint64_t seed = 7;
    for (unsigned i = 0; i < MODULES; i++) {
        uint64_t start =
            i == 0 ? UINT64_C(0x555555554000) : UINT64_C(0x7ffff7000000) + i * 0x400000;
        m[i] = (memkit__mapping){start,
                                 start + 0x200000,
                                 0x1000,
                                 i == 0 ? "/usr/bin/service"
                                        : text(s, "/usr/lib/libpart%u.so.%u", i, i),
                                 text(s, "%08x%08x0011223344556677", i * 2654435761u, i * 40503u),
                                 true};
    }
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        const char *name = text(s, "_%u_%u", i / 10, i % 7);
        char full[96];
        snprintf(full, sizeof full, "%s%s", verbs[i % 10], name);
        f[i].name = f[i].system_name = memkit__scratch_strndup(s, full, strlen(full));
        uint32_t module = i % 3 != 0 ? 0 : i % MODULES;
        uint64_t at = m[module].start + i * 0x1000 % 0x200000 + next_random(&seed) % 0x800;
        for (unsigned k = 0; k < SITES; k++)
            l[i * SITES + k] = (memkit__location){at += 16 + next_random(&seed) % 200, module, i};
    }
    p->functions = f;
    p->n_functions = FUNCTIONS;
    p->mappings = m;
    p->n_mappings = MODULES;
    p->locations = l;
    p->n_locations = FUNCTIONS * SITES;
}

/* The location called from one: most have one callee, some several (choice tells which). */
static uint32_t called_from(uint32_t at, uint64_t choice)
{
    uint64_t calls = at * UINT64_C(0x9e3779b97f4a7c15) + (choice % 10 < 7 ? 0 : choice % 4);
    return (uint32_t)(next_random(&calls) % (FUNCTIONS * SITES));
}

/* A stack that leaves an earlier one some frames before its leaf, as those of a program do: the
 * outer frames are the ways to a request's handler, the inner ones what it allocates. */
static const uint32_t *walk(memkit__scratch *s, const memkit__sample *earlier, uint32_t *depth,
                            uint64_t *seed)
{
    uint32_t shared = 0, length = 10 + (uint32_t)(next_random(seed) % 21);
    if (earlier != NULL) {
        uint32_t own = 1; /* 1 to 12, 4 in the mean */
        while (own < 12 && next_random(seed) % 4 != 0)
            own++;
        shared = earlier->depth > own + 1 ? earlier->depth - own : 1;
        length = shared + 1 + (uint32_t)(next_random(seed) % (2 * own));
        length = length < 10 ? 10 : length > 30 ? 30 : length;
        shared = shared < length ? shared : length - 1;
    }
    uint32_t *stack = array(s, length, sizeof *stack), at = 0;
    for (uint32_t i = 0; i < length; i++) { /* from the root */
        if (i < shared)
            at = earlier->locations[earlier->depth - 1 - i];
        else if (i > 0)
            at = called_from(at, i == shared ? 7 + next_random(seed) % 3 : next_random(seed));
        stack[length - 1 - i] = at;
    }
    *depth = length;
    return stack;
}

/* What samples of a mean of 512 KiB make of a site's blocks: each sample stands for many. */
static int64_t *sampled_values(memkit__scratch *s, uint32_t leaf, uint64_t *seed)
{
    int64_t *v = array(s, MEMKIT__HEAP_TYPE_COUNT, sizeof *v);
    uint64_t of_leaf = leaf; /* most places allocate one size: a struct */
    uint64_t *sizes = next_random(seed) % 3 != 0 ? &of_leaf : seed;
    uint64_t size = UINT64_C(16) << next_random(sizes) % 11;
    size -= next_random(sizes) % (size / 2) / 8 * 8;
    uint64_t samples = 1 + next_random(seed) % 3, weight = 524288 / size + (size > 8192);
    uint64_t live = next_random(seed) % 3 == 0 ? samples : 0, dead = samples - live;
    v[MEMKIT__ALLOC_OBJECTS] = (int64_t)(samples * weight);
    v[MEMKIT__ALLOC_SPACE] = v[MEMKIT__ALLOC_OBJECTS] * (int64_t)size;
    v[MEMKIT__INUSE_OBJECTS] = (int64_t)(live * weight);
    v[MEMKIT__INUSE_SPACE] = v[MEMKIT__INUSE_OBJECTS] * (int64_t)size;
    v[MEMKIT__FREED_OBJECTS] = (int64_t)(dead * weight);
    v[MEMKIT__TEMPORARY_OBJECTS] = next_random(seed) % 4 == 0 ? v[MEMKIT__FREED_OBJECTS] : 0;
    v[MEMKIT__FOREIGN_FREED_OBJECTS] = next_random(seed) % 8 == 0 ? v[MEMKIT__FREED_OBJECTS] : 0;
    v[MEMKIT__LIFE_1US + next_random(seed) % 10] = v[MEMKIT__FREED_OBJECTS];
    return v;
}

static bool is_new(const memkit__sample *samples, uint32_t n, const uint32_t *locations,
                   uint32_t depth)
{
    for (uint32_t i = 0; i < n; i++)
        if (samples[i].depth == depth &&
            memcmp(samples[i].locations, locations, depth * sizeof *locations) == 0)
            return false;
    return true;
}

/* Takes away the locations that are in no stack, as none is in a real profile. */
static void drop_unused(memkit__profile *p, memkit__scratch *s)
{
    uint32_t *number = array(s, p->n_locations, sizeof *number), n = 0;
    for (uint32_t i = 0; i < p->n_samples; i++)
        for (uint32_t d = 0; d < p->samples[i].depth; d++)
            number[p->samples[i].locations[d]] = 1;
    for (uint32_t i = 0; i < p->n_locations; i++)
        if (number[i] != 0) {
            p->locations[n] = p->locations[i];
            number[i] = n++;
        }
    p->n_locations = n;
    for (uint32_t i = 0; i < p->n_samples; i++) {
        uint32_t *stack = array(s, p->samples[i].depth, sizeof *stack);
        for (uint32_t d = 0; d < p->samples[i].depth; d++)
            stack[d] = number[p->samples[i].locations[d]];
        p->samples[i].locations = stack;
    }
}

memkit__profile *service_profile(memkit__scratch *s, uint32_t stacks, uint64_t seed)
{
    static const char *const comments[] = {"memkit: 1,900 stacks, 0 samples dropped"};
    memkit__profile *p = array(s, 1, sizeof *p);
    memkit__sample *samples = array(s, stacks, sizeof *samples);
    *p = (memkit__profile){
        .types = heap_types,
        .n_types = MEMKIT__HEAP_TYPE_COUNT,
        .default_type = MEMKIT__INUSE_SPACE,
        .samples = samples,
        .n_samples = stacks,
        .period_type = {"space", "bytes"},
        .period = 524288,
        .time_ns = INT64_C(1764000000123456789),
        .duration_ns = INT64_C(30000000000),
        .drop_frames = "malloc|calloc|realloc|memkit__.*",
        .comments = comments,
        .n_comments = 1,
    };
    name_functions(p, s);
    for (uint32_t i = 0; i < stacks; i++) {
        uint32_t depth;
        const memkit__sample *earlier =
            i > 0 && i % 40 != 0 ? &samples[next_random(&seed) % i] : NULL;
        const uint32_t *locations;
        do
            locations = walk(s, earlier, &depth, &seed);
        while (!is_new(samples, i, locations, depth));
        double *variance = array(s, MEMKIT__HEAP_TYPE_COUNT, sizeof *variance);
        samples[i] = (memkit__sample){.depth = depth,
                                      .locations = locations,
                                      .values = sampled_values(s, locations[0], &seed),
                                      .variance = variance};
        for (uint32_t k = 0; k < MEMKIT__HEAP_TYPE_COUNT; k++)
            variance[k] = (double)samples[i].values[k] * (k % 2 != 0 ? 524288.0 : 64.0);
    }
    drop_unused(p, s);
    return p;
}

/* ---- CPU ---- */

memkit__profile *cpu_profile(memkit__scratch *s)
{
    static const memkit__value_type types[] = {{"samples", "count"}, {"cpu", "nanoseconds"}};
    memkit__profile *p = small_profile(s);
    for (uint32_t i = 0; i < p->n_samples; i++) {
        int64_t *v = array(s, 2, sizeof *v);
        v[0] = i + 1;
        v[1] = v[0] * 10000000;
        p->samples[i].values = v;
        p->samples[i].variance = NULL;
    }
    p->types = types;
    p->n_types = 2;
    p->default_type = 1;
    p->period_type = types[1];
    p->period = 10000000;
    return p;
}
