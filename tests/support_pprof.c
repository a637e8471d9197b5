/* support_pprof.c - see support_pprof.h. The text is that of pprof's profile.String(): samples,
 * "values: location ids", their labels below them; locations, "id: 0xaddress M=mapping name
 * file:line s=0(system name)"; mappings, "id: 0xstart/0xlimit/0xoffset file build-id [FN]".
 */
#include "support.h"

#include <fnmatch.h>

#include "support_pprof.h"
#include "tools.h"

#define MAX_TYPES 32

typedef struct {
    unsigned long long address;
    size_t mapping; /* 0: none */
    char *name;     /* NULL: none */
} location;

typedef struct {
    unsigned long long start, limit, offset;
    char *path;
} mapping;

typedef struct {
    long long values[MAX_TYPES];
    size_t n;
    size_t *ids; /* of locations, innermost first */
} sample;

struct pprof {
    long long period;
    size_t n_types, n_samples, n_locations, n_mappings, n_comments;
    char types[MAX_TYPES][40];
    sample *samples;
    location *locations; /* by id; 0 is none */
    mapping *mappings;
    char *comments[64];
};

/* Makes room for the element at `index`, zeroed. */
#define ROOM(array, count, index)                                        \
    do {                                                                 \
        if ((index) >= (count)) {                                        \
            size_t had_ = (count);                                       \
            size_t want_ = (index) + 1;                                  \
            if ((had_ & (had_ - 1)) == 0 || want_ > had_ + 1) {          \
                size_t room_ = 1;                                        \
                while (room_ < want_)                                    \
                    room_ *= 2;                                          \
                (array) = realloc((array), room_ * sizeof *(array));     \
                assert_non_null(array);                                  \
            }                                                            \
            memset((array) + had_, 0, (want_ - had_) * sizeof *(array)); \
            (count) = want_;                                             \
        }                                                                \
    } while (0)

static void read_types(pprof *p, char *line)
{
    for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n")) {
        assert_true(p->n_types < MAX_TYPES);
        snprintf(p->types[p->n_types++], sizeof p->types[0], "%.*s", (int)strcspn(word, "/"), word);
    }
}

/* A line of labels has no ids. */
static void read_sample(pprof *p, char *line)
{
    char *at = line;
    sample s = {0};
    for (size_t i = 0; i < p->n_types; i++) {
        char *end;
        s.values[i] = strtoll(at, &end, 10);
        if (end == at)
            return;
        at = end;
    }
    assert_true(*at == ':');
    size_t room = 0;
    for (at++;;) {
        char *end;
        size_t id = strtoul(at, &end, 10);
        if (end == at)
            break;
        ROOM(s.ids, room, s.n);
        s.ids[s.n++] = id;
        at = end;
    }
    ROOM(p->samples, p->n_samples, p->n_samples);
    p->samples[p->n_samples - 1] = s;
}

/* One that has inlined functions goes on in a line without an id; ours have none. */
static void read_location(pprof *p, char *line)
{
    size_t id, m;
    unsigned long long address;
    int n = 0, m_n = 0;
    if (sscanf(line, " %zu: 0x%llx %n", &id, &address, &n) != 2)
        fail_msg("a location that is none: %s", line);
    ROOM(p->locations, p->n_locations, id);
    location *l = &p->locations[id];
    l->address = address;
    char *at = line + n;
    if (sscanf(at, "M=%zu %n", &m, &m_n) == 1) {
        l->mapping = m;
        at += m_n;
    }
    char *end = NULL;
    for (char *s = at; (s = strstr(s, " s=")) != NULL; s++)
        end = s;
    if (end == NULL)
        return;
    while (end > at && *--end != ' ') /* file:line */
        continue;
    l->name = strndup(at, (size_t)(end - at));
    assert_non_null(l->name);
}

static void read_mapping(pprof *p, const char *line)
{
    size_t id;
    mapping m = {0};
    char path[4096] = "";
    int got =
        sscanf(line, " %zu: 0x%llx/0x%llx/0x%llx %4095s", &id, &m.start, &m.limit, &m.offset, path);
    if (got < 4)
        fail_msg("a mapping that is none: %s", line);
    m.path = strdup(path);
    ROOM(p->mappings, p->n_mappings, id);
    p->mappings[id] = m;
}

pprof *pprof_read(const char *source)
{
    enum { HEAD, TYPES, SAMPLES, LOCATIONS, MAPPINGS } part = HEAD;
    char command[9000], *line = NULL, said[2000] = "";
    size_t room = 0;
    pprof *p = calloc(1, sizeof *p);
    assert_non_null(p);
    snprintf(command, sizeof command,
             "PPROF_TMPDIR=/tmp go tool pprof -raw -symbolize=none '%s' 2>&1", source);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (getline(&line, &room, f) > 0) {
        if (strcmp(line, "Samples:\n") == 0)
            part = TYPES;
        else if (strcmp(line, "Locations\n") == 0)
            part = LOCATIONS;
        else if (strcmp(line, "Mappings\n") == 0)
            part = MAPPINGS;
        else if (part == TYPES)
            read_types(p, line), part = SAMPLES;
        else if (part == SAMPLES)
            read_sample(p, line);
        else if (part == LOCATIONS)
            read_location(p, line);
        else if (part == MAPPINGS)
            read_mapping(p, line);
        else if (sscanf(line, "Period: %lld", &p->period) != 1 &&
                 strncmp(line, "Comment: ", 9) == 0 && p->n_comments < 64)
            p->comments[p->n_comments++] = strdup(line + 9);
        if (part == HEAD && strlen(said) + strlen(line) < sizeof said)
            strcat(said, line);
    }
    free(line);
    if (pclose(f) != 0 || part != MAPPINGS)
        fail_msg("go tool pprof cannot read %s: %s", source, said);
    return p;
}

void pprof_free(pprof *p)
{
    for (size_t i = 0; i < p->n_samples; i++)
        free(p->samples[i].ids);
    for (size_t i = 0; i < p->n_locations; i++)
        free(p->locations[i].name);
    for (size_t i = 0; i < p->n_mappings; i++)
        free(p->mappings[i].path);
    for (size_t i = 0; i < p->n_comments; i++)
        free(p->comments[i]);
    free(p->samples);
    free(p->locations);
    free(p->mappings);
    free(p);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

const char *pprof_program(const pprof *p)
{
    return p->n_mappings > 1 && p->mappings[1].path != NULL ? base_name(p->mappings[1].path) : "";
}

const char *pprof_module(const pprof *p, const char *part)
{
    for (size_t i = 1; i < p->n_mappings; i++)
        if (p->mappings[i].path != NULL && strstr(p->mappings[i].path, part) != NULL)
            return p->mappings[i].path;
    fail_msg("the profile has no module %s", part);
    return NULL;
}

long long pprof_period(const pprof *p)
{
    return p->period;
}

size_t pprof_samples(const pprof *p)
{
    return p->n_samples;
}

const char *pprof_comment(const pprof *p, const char *part)
{
    for (size_t i = 0; i < p->n_comments; i++)
        if (strstr(p->comments[i], part) != NULL)
            return p->comments[i];
    return NULL;
}

static bool find_type(const pprof *p, const char *type, size_t *index)
{
    for (*index = 0; *index < p->n_types; ++*index)
        if (strcmp(p->types[*index], type) == 0)
            return true;
    return false;
}

static size_t type_of(const pprof *p, const char *type)
{
    size_t i;
    if (!find_type(p, type, &i))
        fail_msg("the profile has no sample type %s", type);
    return i;
}

static const location *frame(const pprof *p, const sample *s, size_t i)
{
    assert_true(i < s->n && s->ids[i] < p->n_locations);
    return &p->locations[s->ids[i]];
}

long long pprof_total(const pprof *p, const char *type)
{
    size_t t = type_of(p, type);
    long long sum = 0;
    for (size_t i = 0; i < p->n_samples; i++)
        sum += p->samples[i].values[t];
    return sum;
}

static long long named(const pprof *p, const char *type, const char *name, size_t depth)
{
    size_t t = type_of(p, type);
    long long sum = 0;
    for (size_t i = 0; i < p->n_samples; i++) {
        const sample *s = &p->samples[i];
        for (size_t k = 0; k < s->n && k < depth; k++) {
            const char *is = frame(p, s, k)->name;
            if (is != NULL && fnmatch(name, is, 0) == 0) {
                sum += s->values[t];
                break;
            }
        }
    }
    return sum;
}

long long pprof_at(const pprof *p, const char *type, const char *name)
{
    return named(p, type, name, 1);
}

long long pprof_through(const pprof *p, const char *type, const char *name)
{
    return named(p, type, name, SIZE_MAX);
}

long long pprof_in(const pprof *p, const char *type, const char *module)
{
    size_t t = type_of(p, type);
    long long sum = 0;
    for (size_t i = 0; i < p->n_samples; i++) {
        const sample *s = &p->samples[i];
        size_t m = s->n > 0 ? frame(p, s, 0)->mapping : 0;
        if (m != 0 && m < p->n_mappings && strstr(p->mappings[m].path, module) != NULL)
            sum += s->values[t];
    }
    return sum;
}

void pprof_each(const pprof *p, const char *type,
                void (*fn)(const char *name, long long value, void *arg), void *arg)
{
    size_t t = type_of(p, type);
    bool *done = calloc(p->n_samples + 1, sizeof *done);
    assert_non_null(done);
    for (size_t i = 0; i < p->n_samples; i++) {
        const char *name = p->samples[i].n > 0 ? frame(p, &p->samples[i], 0)->name : NULL;
        long long sum = 0;
        if (done[i] || name == NULL)
            continue;
        for (size_t k = i; k < p->n_samples; k++) {
            const char *other = p->samples[k].n > 0 ? frame(p, &p->samples[k], 0)->name : NULL;
            if (done[k] || other == NULL || strcmp(other, name) != 0)
                continue;
            done[k] = true;
            sum += p->samples[k].values[t];
        }
        fn(name, sum, arg);
    }
    free(done);
}

void pprof_assert_sane(const pprof *p)
{
    size_t alloc_objects = type_of(p, "alloc_objects"), alloc_space = type_of(p, "alloc_space");
    size_t inuse_objects = type_of(p, "inuse_objects"), inuse_space = type_of(p, "inuse_space");
    size_t freed = type_of(p, "frees"), temporary = type_of(p, "temporary_frees");
    size_t foreign = type_of(p, "foreign_frees"), reallocs = type_of(p, "reallocs");
    for (size_t i = 0; i < p->n_samples; i++) {
        const long long *v = p->samples[i].values;
        long long lives = 0;
        for (size_t t = 0; t < p->n_types; t++) {
            assert_true(v[t] >= 0);
            if (strncmp(p->types[t], "lt_", 3) == 0 || strncmp(p->types[t], "ge_", 3) == 0)
                lives += v[t];
        }
        assert_true(v[inuse_objects] <= v[alloc_objects]);
        assert_true(v[inuse_space] <= v[alloc_space]);
        assert_true(v[freed] <= v[alloc_objects] && v[temporary] <= v[freed]);
        assert_true(v[foreign] <= v[freed] && v[reallocs] <= v[alloc_objects]);
        assert_true(p->samples[i].n > 0);
        if (llabs(lives - v[freed]) > (long long)p->n_types) /* each is rounded by itself */
            fail_msg("%lld lives of %lld blocks freed", lives, v[freed]);
    }
}

/* ---- beside nm ------------------------------------------------------------------------------- */

typedef struct {
    unsigned long long at, size;
    char name[256];
} symbol;

/* Adds functions alone, without their versions. */
static void read_nm(const char *path, const char *option, symbol **out, size_t *n)
{
    char command[5000], line[8192], type;
    snprintf(command, sizeof command, "nm %s --defined-only -S '%s' 2>/dev/null", option, path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        symbol s;
        if (sscanf(line, "%llx %llx %c %255s", &s.at, &s.size, &type, s.name) != 4 ||
            strchr("TtWwi", type) == NULL)
            continue;
        s.name[strcspn(s.name, "@")] = '\0';
        ROOM(*out, *n, *n);
        (*out)[*n - 1] = s;
    }
    pclose(f);
}

/* The file of debugging symbols that goes with a stripped one, where it is installed. */
static void read_debug_file(const char *path, symbol **out, size_t *n)
{
    char command[5000], debug[4096];
    snprintf(command, sizeof command,
             "readelf -n '%s' 2>/dev/null | "
             "sed -n 's,.*Build ID: \\(..\\)\\(.*\\),/usr/lib/debug/.build-id/\\1/\\2.debug,p'",
             path);
    assert_int_equal(tool_says(command, debug, sizeof debug), 0);
    debug[strcspn(debug, "\n")] = '\0';
    if (access(debug, R_OK) == 0)
        read_nm(debug, "", out, n);
}

/* What to add to an offset of the file to get the linker's address of code. */
static unsigned long long code_bias(const char *path)
{
    char command[5000], text[4096];
    unsigned long long offset, at;
    snprintf(command, sizeof command, "readelf -lW '%s' | grep 'LOAD.* R E '", path);
    assert_int_equal(tool_says(command, text, sizeof text), 0);
    assert_int_equal(sscanf(text, " LOAD 0x%llx 0x%llx", &offset, &at), 2);
    return at - offset;
}

size_t pprof_assert_named_as_nm(const pprof *p, const char *path)
{
    symbol *symbols = NULL;
    size_t n = 0, seen = 0, right = 0;
    read_nm(path, "", &symbols, &n);
    read_nm(path, "-D", &symbols, &n);
    read_debug_file(path, &symbols, &n);
    unsigned long long bias = code_bias(path);
    for (size_t i = 1; i < p->n_locations; i++) {
        const location *l = &p->locations[i];
        const mapping *m = l->mapping != 0 ? &p->mappings[l->mapping] : NULL;
        if (m == NULL || m->path == NULL || strcmp(m->path, path) != 0)
            continue;
        unsigned long long at = l->address - m->start + m->offset + bias;
        bool covered = false, agrees = false;
        for (size_t k = 0; k < n; k++)
            if (at >= symbols[k].at && at < symbols[k].at + symbols[k].size) {
                covered = true;
                agrees |= l->name != NULL && strcmp(l->name, symbols[k].name) == 0;
            }
        seen++;
        right += agrees;
        if (covered && !agrees)
            fail_msg("%s+0x%llx is named %s", path, at, l->name != NULL ? l->name : "not at all");
        if (!covered && l->name != NULL)
            fail_msg("%s+0x%llx is in no function of nm's, and named %s", path, at, l->name);
    }
    printf("%s: %zu of %zu frames' functions have names, all as nm has them\n", path, right, seen);
    free(symbols);
    return right;
}

void pprof_show(const char *source, const char *type, const char *title)
{
    char command[9000];
    static char text[65536];
    snprintf(command, sizeof command,
             "go tool pprof -top -nodecount=5 -unit=B -symbolize=none -sample_index=%s '%s' 2>&1 | "
             "sed -n '/flat%%/,$p' | cut -c1-110",
             type, source);
    assert_int_equal(tool_says(command, text, sizeof text), 0);
    printf("%s, %s:\n%s", title, type, text);
    assert_non_null(strstr(text, "flat%"));
}
