/* support_matrix.h - what the tests of bad input (test_matrix_*.c) and of failing allocation
 * (test_oom*.c) share.
 *
 * Either kind of program is a table with at least one row for each public function of its part. The
 * library's own list of exported names (src/core/libmemkit.map, src/hook/libmemkit-prof.map) says which those are: a function
 * without a row is a failed test.
 *
 * Each row runs as a test of its own, between two looks at the allocations: what it leaves behind
 * is a failure. So is a fault that no assertion asked for.
 */
#ifndef MEMKIT_TESTS_SUPPORT_MATRIX_H
#define MEMKIT_TESTS_SUPPORT_MATRIX_H

#include "support.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

typedef struct {
    const char *function; /* "memkit_buf_new" */
    const char *what;     /* what is tried with it, where there are several rows; else NULL */
    void (*test)(void **state);
} matrix_row;

/* Runs the rows. The part is the functions whose names begin with `prefix`; NULL: what the other
 * parts leave over; MORE_ROWS: none, the functions have their rows elsewhere; PROF_ROWS: those of
 * libmemkit-prof. Returns cmocka's answer, for main. */
#define MORE_ROWS ""
#define PROF_ROWS "libmemkit-prof"
int run_matrix(const char *prefix, const matrix_row *rows, size_t n);

/* ---- an object that an error must not change ---- */

/* What can be seen of an object, as text; broken invariants are in it, or fail at once. */
typedef struct {
    size_t len;
    char text[24000];
} record;

void note(record *r, const char *fmt, ...) MEMKIT_PRINTF(2, 3);
/* Bytes, in a form that tells any two strings apart. */
void note_bytes(record *r, const void *p, size_t n);

typedef void (*recorder)(const void *object, record *r);

/* From now on `refused` and `misused` look at this object. */
void watch(recorder fn, const void *object);
extern record record_before; /* of the macros below */
void record_watched(record *r);
void assert_same_record(const record *before, const char *call);

/* The call answers `want`, errno is `code`, and the watched object is as it was. */
#define refused(call, want, code)                                                           \
    do {                                                                                    \
        record_watched(&record_before);                                                     \
        errno = 0;                                                                          \
        if (!((call) == (want)))                                                            \
            fail_msg("%s: another answer than %s, errno %d", #call, #want, errno);          \
        if (errno != (code))                                                                \
            fail_msg("%s: errno is %d (%s), not %s", #call, errno, strerror(errno), #code); \
        assert_same_record(&record_before, #call);                                          \
    } while (0)

/* The same for a function that returns nothing. */
#define refused_void(call, code) refused(((call), 0), 0, code)

/* The call raises one fault whose message contains `part`, and changes nothing. */
#define misused(call, part)                        \
    do {                                           \
        record_watched(&record_before);            \
        assert_faults(call, part);                 \
        assert_same_record(&record_before, #call); \
    } while (0)

/* Sizes that no object has: above PTRDIFF_MAX - 1, so that not even a '\0' fits behind. */
extern const size_t no_sizes[8];
/* Sizes that an object might have, and no allocator gives. */
extern const size_t refused_sizes[4];

/* Names as no one would choose them: every byte there is, some 100 KiB, none. */
extern const char *const strange_names[4];

/* ---- an allocation that fails ---- */

typedef struct {
    const char *function; /* as in matrix_row */
    const char *what;
    unsigned least;      /* allocations that the call makes at least; 0: it makes none */
    void *(*make)(void); /* an object for the call; nothing fails meanwhile */
    int (*call)(void *); /* 0, or the errno of the failure */
    recorder same;       /* what a failure must not change */
    void (*end)(void *);
} oom_row;

/* Runs each row with the n-th allocation failing, once, and with all from the n-th on, for n = 1
 * and so on until no failure is met. A call that fails must say ENOMEM, have changed nothing,
 * succeed when it is tried again, and leak nothing; one that can do without the memory may succeed.
 * A row without a call says that one of the `more` tests tries the function. */
int run_oom(const char *prefix, const oom_row *rows, size_t n, const struct CMUnitTest *more,
            size_t more_n);

/* A test for `more`, which fails where it leaves blocks behind. */
int before_more(void **state);
int after_more(void **state);
#define more_test(test) cmocka_unit_test_setup_teardown(test, before_more, after_more)

/* fn(mode) in a child process, where nothing was done yet that is done once a process; what it
 * answered, -1 where the child died. Asserts do not work in there. (The exit code is not asked, as
 * valgrind changes it where a child leaves something.) */
int in_child(int (*fn)(int mode), int mode);

#endif
