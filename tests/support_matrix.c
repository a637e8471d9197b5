/* support_matrix.c - see support_matrix.h. */
#include "support_matrix.h"

#include <sys/wait.h>
#include <unistd.h>

enum { MAX_NAMES = 100, MAX_TESTS = 100, LONG_NAME = 100000 };

const size_t no_sizes[8] = {
    SIZE_MAX,         SIZE_MAX - 1,     SIZE_MAX - 63,       SIZE_MAX - 4095,
    SIZE_MAX / 2 + 2, SIZE_MAX / 2 + 1, (size_t)PTRDIFF_MAX, SIZE_MAX / 4 * 3};
const size_t refused_sizes[4] = {(size_t)PTRDIFF_MAX - 4096, SIZE_MAX / 4 + 1, SIZE_MAX / 4,
                                 (size_t)1 << 60};

static char every_byte[256], long_name[LONG_NAME];
const char *const strange_names[4] = {"", every_byte, long_name, "two\nlines\t{\"\\"};

/* A sanitizer's allocator answers NULL to what is too large, as malloc does. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- the functions there are ---- */

static const char *const prefixes[] = {"memkit_buf_", "memkit_pool_", "memkit_lru_",
                                       "memkit_arena_"};

static bool is_of(const char *prefix, const char *name)
{
    if (prefix != NULL)
        return strncmp(name, prefix, strlen(prefix)) == 0;
    for (size_t i = 0; i < LENGTH(prefixes); i++)
        if (is_of(prefixes[i], name))
            return false;
    return true;
}

/* Adds the part's functions of an export list to names[]; how many there are then. */
static size_t exported(const char *map, const char *prefix, char names[][64], size_t n)
{
    const char *root = getenv("MEMKIT_ROOT");
    char path[1024], line[256];
    snprintf(path, sizeof path, "%s/%s", root != NULL ? root : ".", map);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("%s: %s", path, strerror(errno));
    size_t before = n, all = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char name[64];
        if (strcmp(line, "    local:\n") == 0)
            break;
        if (sscanf(line, " memkit_%50[a-z0-9_];", name + 7) != 1)
            continue;
        memcpy(name, "memkit_", 7);
        all++;
        if (is_of(prefix, name) && n < MAX_NAMES)
            snprintf(names[n++], sizeof names[0], "%s", name);
    }
    fclose(f);
    if (all == 0 || n == MAX_NAMES || (prefix != NULL && n == before))
        fail_msg("%s: not the list it was", path);
    return n;
}

static struct {
    const char *prefix;
    const char *functions[MAX_TESTS];
    size_t n;
} covered;

static bool is_covered(const char *name)
{
    for (size_t i = 0; i < covered.n; i++)
        if (strcmp(covered.functions[i], name) == 0)
            return true;
    return false;
}

static void every_public_function_has_a_row(void **state)
{
    (void)state;
    static char names[MAX_NAMES][64];
    bool hook = covered.prefix != NULL && strcmp(covered.prefix, PROF_ROWS) == 0;
    size_t n = hook ? exported("src/hook/libmemkit-prof.map", NULL, names, 0)
                    : exported("src/core/libmemkit.map", covered.prefix, names, 0);
    for (size_t i = 0; i < n; i++)
        if (!is_covered(names[i]))
            fail_msg("%s is exported, and nothing here tries it", names[i]);
    for (size_t i = 0; i < covered.n; i++) {
        bool known = strcmp(covered.functions[i], "memkit_arena_alloc") == 0; /* inline */
        for (size_t k = 0; k < n && !known; k++)
            known = strcmp(covered.functions[i], names[k]) == 0;
        if (!known)
            fail_msg("%s has a row, and is not exported", covered.functions[i]);
    }
}

/* ---- records ---- */

record record_before;
static recorder watched_by;
static const void *watched;

void watch(recorder fn, const void *object)
{
    watched_by = fn;
    watched = object;
}

void note(record *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(r->text + r->len, sizeof r->text - r->len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof r->text - r->len)
        fail_msg("the record is full");
    r->len += (size_t)n;
}

void note_bytes(record *r, const void *p, size_t n)
{
    const unsigned char *bytes = p;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    note(r, "%zu bytes %016llx %.*s\n", n, (unsigned long long)hash, n < 40 ? (int)n : 40,
         n > 0 ? (const char *)bytes : "");
}

static void take_record(recorder fn, const void *object, record *r)
{
    r->len = 0;
    r->text[0] = '\0';
    if (fn != NULL)
        fn(object, r);
}

void record_watched(record *r)
{
    take_record(watched_by, watched, r);
}

static void assert_same(const record *before, recorder fn, const void *object, const char *call)
{
    static record after;
    take_record(fn, object, &after);
    if (after.len != before->len || memcmp(after.text, before->text, after.len) != 0)
        fail_msg("%s has changed\n%sinto\n%s", call, before->text, after.text);
}

void assert_same_record(const record *before, const char *call)
{
    assert_same(before, watched_by, watched, call);
}

/* ---- running ---- */

typedef struct {
    const void *row;
    long blocks;
} run_state;

static int before_row(void **state)
{
    run_state *run = *state;
    watch(NULL, NULL);
    catch_faults();
    fail_malloc(0, false);
    run->blocks = blocks_out;
    return 0;
}

static int after_row(void **state)
{
    const run_state *run = *state;
    memkit_set_fault_handler(NULL);
    if (blocks_out == run->blocks)
        return 0;
    print_error("%ld blocks were left behind\n", blocks_out - run->blocks);
    return -1;
}

static void run_matrix_row(void **state)
{
    const matrix_row *row = ((run_state *)*state)->row;
    row->test(state);
}

static void run_oom_row(void **state);

static run_state runs[MAX_TESTS];
static char test_names[MAX_TESTS][120];

static struct CMUnitTest as_test(const char *function, const char *what, const void *row,
                                 CMUnitTestFunction run)
{
    size_t i = covered.n++;
    assert_true(i < MAX_TESTS - 10);
    covered.functions[i] = function;
    snprintf(test_names[i], sizeof test_names[i], "%s%s%s", function, what != NULL ? ": " : "",
             what != NULL ? what : "");
    runs[i].row = row;
    return (struct CMUnitTest){test_names[i], run, before_row, after_row, &runs[i]};
}

static void prepare(const char *prefix)
{
    covered.prefix = prefix;
    covered.n = 0;
    for (int i = 0; i < 255; i++)
        every_byte[i] = (char)(i + 1);
    memset(long_name, 'n', sizeof long_name - 1);
}

int run_matrix(const char *prefix, const matrix_row *rows, size_t n)
{
    static struct CMUnitTest tests[MAX_TESTS];
    prepare(prefix);
    for (size_t i = 0; i < n; i++)
        tests[i] = as_test(rows[i].function, rows[i].what, &rows[i], run_matrix_row);
    if (prefix == NULL || *prefix != '\0')
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_public_function_has_a_row);
    return _cmocka_run_group_tests(prefix != NULL ? prefix : "the rest", tests, n, NULL, NULL);
}

/* ---- failing allocations ---- */

/* One try. False when no allocation was there to fail. */
static bool try_failing(const oom_row *row, unsigned nth, bool from_then_on)
{
    static record before;
    int faults_before = faults;
    void *object = row->make != NULL ? row->make() : NULL;
    take_record(row->same, object, &before);
    fail_malloc(nth, from_then_on);
    int error = row->call(object);
    unsigned failed = mallocs_failed, seen = mallocs_seen;
    fail_malloc(0, false);
    if (error != 0) {
        char call[160];
        snprintf(call, sizeof call, "%s with allocation %u failing%s", row->function, nth,
                 from_then_on ? ", and all after it," : "");
        if (error != ENOMEM || failed == 0)
            fail_msg("%s: %s", call, strerror(error));
        assert_same(&before, row->same, object, call);
        assert_int_equal(row->call(object), 0);
    }
    if (failed == 0 && (seen < row->least || (row->least == 0 && seen > 0)))
        fail_msg("%s allocates %u times", row->function, seen);
    if (row->end != NULL)
        row->end(object);
    assert_int_equal(faults, faults_before);
    return failed > 0;
}

static void run_oom_row(void **state)
{
    run_state *run = *state;
    const oom_row *row = run->row;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++)
        for (unsigned nth = 1; try_failing(row, nth, from_then_on); nth++) {
            assert_true(nth < 10000);
            assert_int_equal(blocks_out, run->blocks);
        }
}

int run_oom(const char *prefix, const oom_row *rows, size_t n, const struct CMUnitTest *more,
            size_t more_n)
{
    static struct CMUnitTest tests[MAX_TESTS];
    size_t made = 0;
    prepare(prefix);
    for (size_t i = 0; i < more_n; i++) /* first: some want a process where nothing was done yet */
        tests[made++] = more[i];
    for (size_t i = 0; i < n; i++) {
        struct CMUnitTest test = as_test(rows[i].function, rows[i].what, &rows[i], run_oom_row);
        if (rows[i].call != NULL)
            tests[made++] = test;
    }
    tests[made++] = (struct CMUnitTest)cmocka_unit_test(every_public_function_has_a_row);
    return _cmocka_run_group_tests(prefix != NULL ? prefix : "the rest", tests, made, NULL, NULL);
}

static run_state more_run;

int before_more(void **state)
{
    *state = &more_run;
    return before_row(state);
}

int after_more(void **state)
{
    return after_row(state);
}

int in_child(int (*fn)(int mode), int mode)
{
    int ends[2], answer, status;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        answer = fn(mode);
        _exit(write(ends[1], &answer, sizeof answer) == sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &answer, sizeof answer) != sizeof answer)
        answer = -1;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? answer : -1;
}
