/* test_prof_oom.c - the writers while memory fails, at each of their allocations: malloc for what
 * they append, mmap for what they sort with. Each time: -1, ENOMEM, the buffer as it was, and no
 * mapping left.
 */
#include <sys/mman.h>

#include "support.h"
#include "support_profile.h"

static unsigned maps_to_go, maps_seen;
static long mapped;

void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n);

/* The nth from now fails. */
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    maps_seen++;
    if (maps_to_go > 0 && --maps_to_go == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    mapped += (long)n;
    return __real_mmap(at, n, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t n)
{
    mapped -= (long)n;
    return __real_munmap(at, n);
}

typedef int write_fn(const memkit__profile *p, memkit_buf *out);

static int pprof(const memkit__profile *p, memkit_buf *out)
{
    return memkit__pprof_write(p, out);
}

static int folded(const memkit__profile *p, memkit_buf *out)
{
    return memkit__folded_write(p, 1, out);
}

static int svg(const memkit__profile *p, memkit_buf *out)
{
    return memkit__svg_write(p, 1, "title", out);
}

static int text(const memkit__profile *p, memkit_buf *out)
{
    return memkit__text_write(p, 1, out);
}

/* Fails the nth allocation of both kinds, until one does not need as many. */
static void fails_cleanly(write_fn *write_to)
{
    memkit__scratch s = {0};
    memkit__profile *p = service_profile(&s, 400, 1);
    unsigned failures = 0;
    memkit_buf *first =
        memkit_buf_new(0); /* what a write keeps for the next: compiled drop_frames */
    assert_int_equal(write_to(p, first), 0);
    memkit_buf_free(first);
    for (int kind = 0; kind < 2; kind++)
        for (unsigned n = 1;; n++) {
            memkit_buf *b = memkit_buf_new(0);
            assert_int_equal(memkit_buf_append_str(b, "before"), 0);
            long maps_before = mapped, blocks_before = blocks_out;
            if (kind == 0)
                fail_malloc(n, false);
            else
                maps_to_go = n;
            errno = 0;
            int result = write_to(p, b);
            int reason = errno;
            fail_malloc(0, false);
            bool failed = kind == 0 ? mallocs_failed > 0 || result != 0 : maps_to_go == 0;
            maps_to_go = 0;
            if (mapped != maps_before || blocks_out != blocks_before)
                fail_msg("failure %u of kind %d: %ld bytes mapped, %ld blocks left behind", n, kind,
                         (long)(mapped - maps_before), (long)(blocks_out - blocks_before));
            if (!failed) {
                assert_int_equal(result, 0);
                memkit_buf_free(b);
                break;
            }
            failures++;
            assert_int_equal(result, -1);
            assert_int_equal(reason, ENOMEM);
            assert_string_equal(b->data, "before");
            assert_int_equal(b->len, 6);
            memkit_buf_free(b);
        }
    assert_true(failures >= 2); /* of both kinds at least one */
    print_message("%u failures\n", failures);
    memkit__scratch_free(&s);
}

static void pprof_without_memory(void **state)
{
    (void)state;
    fails_cleanly(pprof);
}

static void folded_without_memory(void **state)
{
    (void)state;
    fails_cleanly(folded);
}

static void svg_without_memory(void **state)
{
    (void)state;
    fails_cleanly(svg);
}

static void text_without_memory(void **state)
{
    (void)state;
    fails_cleanly(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pprof_without_memory),
        cmocka_unit_test(folded_without_memory),
        cmocka_unit_test(svg_without_memory),
        cmocka_unit_test(text_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
