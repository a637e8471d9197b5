/* prog_gbench.c - benches of which every figure is known, for test_gbench.c. Linked twice: with
 * libmemkit-prof, and without it.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "../bench/gbench.h"

static void touch(void *p)
{
    GBENCH_KEEP(p);
}

static void none(gbench_state *s)
{
    int64_t n = 0;
    GBENCH_LOOP(s)
    {
        n++;
        GBENCH_KEEP(n);
    }
    if (n != gbench_rounds(s))
        gbench_skip(s, "not as many rounds as were told");
}

/* Three allocations an iteration, of which malloc_usable_size says how large they are. */
static void three(gbench_state *s)
{
    size_t n = (size_t)gbench_arg(s, 0);
    size_t usable = 0;
    GBENCH_LOOP(s)
    {
        void *a = malloc(n), *b = calloc(1, 2 * n), *c = realloc(NULL, 3 * n);
        usable = malloc_usable_size(a) + malloc_usable_size(b) + malloc_usable_size(c);
        touch(a), touch(b), touch(c);
        free(a), free(b), free(c);
    }
    gbench_counter(s, "usable", (double)usable, GBENCH_SUM);
}

/* What is not timed is not counted: before, after, and while paused. */
static void around(gbench_state *s)
{
    void *before = malloc(1000);
    GBENCH_LOOP(s)
    {
        gbench_pause(s);
        void *paused = malloc(100);
        touch(paused);
        free(paused);
        gbench_resume(s);
        void *counted = malloc(10);
        touch(counted);
        free(counted);
    }
    void *after = malloc(1000);
    touch(before), touch(after);
    free(before), free(after);
}

/* Left paused at the end of each iteration, and asked twice: harmless. */
static void left_paused(gbench_state *s)
{
    gbench_pause(s);
    GBENCH_LOOP(s)
    {
        gbench_resume(s);
        void *p = malloc(10);
        touch(p);
        gbench_pause(s);
        gbench_pause(s);
        free(p);
    }
    gbench_pause(s);
}

/* Thread 0 allocates twice an iteration, thread 1 four times: three on average, exactly. */
static void threads(gbench_state *s)
{
    int n = 2 + 2 * gbench_thread(s);
    GBENCH_LOOP(s)
    {
        for (int i = 0; i < n; i++) {
            void *p = malloc(40);
            touch(p);
            free(p);
        }
    }
    gbench_counter(s, "threads_seen", 1, GBENCH_SUM);
}

/* Has 8 MiB more than before at its most, after a bench's worth of more has come and gone. */
static void holds(gbench_state *s)
{
    enum { N = 8 };
    char *blocks[N];
    char *earlier = malloc(32 << 20);
    touch(earlier);
    free(earlier);
    GBENCH_LOOP(s)
    {
        for (int i = 0; i < N; i++) {
            blocks[i] = malloc((1 << 20) - 64);
            touch(blocks[i]);
        }
        for (int i = 0; i < N; i++)
            free(blocks[i]);
    }
}

static void figures(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        GBENCH_CLOBBER();
    }
    gbench_items(s, gbench_rounds(s));
    gbench_bytes(s, 2 * gbench_rounds(s));
    gbench_label(s, "a label");
    gbench_counter(s, "sum", 7, GBENCH_SUM);
    gbench_counter(s, "per_round", 5.0 * (double)gbench_rounds(s), GBENCH_PER_ROUND);
    gbench_counter(s, "context", *(const int *)gbench_context(s), GBENCH_SUM);
    gbench_counter(s, "no_argument", (double)gbench_arg(s, 9), GBENCH_SUM);
}

static void uncounted(gbench_state *s)
{
    gbench_uncounted(s);
    GBENCH_LOOP(s)
    {
        GBENCH_CLOBBER();
    }
}

/* For instruction counts: arg 0 iterations of nothing, by the macro and by hand. */
static void empty(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        __asm__ volatile("");
    }
}

static void empty_by_hand(gbench_state *s)
{
    int64_t n = gbench_arg(s, 0);
    GBENCH_LOOP(s)
    {
        GBENCH_HIDE(n);
        for (int64_t left = n; left != 0; left--)
            __asm__ volatile("");
    }
}

/* ---- wrong ones ---- */

static void skips_before(gbench_state *s)
{
    gbench_skip(s, "answers differ");
    GBENCH_LOOP(s)
    {
        abort();
    }
}

static void skips_within(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        gbench_skip(s, "the second of two answers");
        gbench_skip(s, "not shown");
        return;
    }
}

static void one_thread_skips(gbench_state *s)
{
    if (gbench_thread(s) == 1) {
        gbench_skip(s, "thread 1 fails");
        return;
    }
    GBENCH_LOOP(s)
    {
        GBENCH_CLOBBER();
    }
}

static void leaves_early(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        break;
    }
}

static void returns_early(gbench_state *s)
{
    GBENCH_LOOP(s)
    {
        return;
    }
}

static void never_loops(gbench_state *s)
{
    (void)s;
}

static void loops_twice(gbench_state *s)
{
    for (int i = 0; i < 2; i++)
        GBENCH_LOOP(s)
        {
            GBENCH_CLOBBER();
        }
}

int main(int argc, char **argv)
{
    static int seventeen = 17;
    gbench_add("count/none", none, NULL);
    gbench *b = gbench_add("count/three", three, NULL);
    gbench_add_args(b, 1, (const int64_t[]){10});
    gbench_add_args(b, 1, (const int64_t[]){1000});
    gbench_compare(b, "count/none", "a target in words");
    gbench_add("count/around", around, NULL);
    gbench_add("count/left_paused", left_paused, NULL);
    gbench_add_threads(gbench_add("count/threads", threads, NULL), 2);
    gbench_add("count/holds", holds, NULL);
    gbench_add("figures", figures, &seventeen);
    gbench_add("uncounted", uncounted, NULL);
    gbench_use_unit(gbench_add("unit/ms", none, NULL), GBENCH_MS);

    gbench_add_range(gbench_add("args/range", none, NULL), 8, 512, 8);
    gbench_add_steps(gbench_add("args/steps", none, NULL), 1, 3, 1);
    b = gbench_add("args/two", none, NULL);
    gbench_add_args(b, 2, (const int64_t[]){1, 2});
    gbench_name_args(b, 2, (const char *const[]){"x", "y"});
    gbench_add_thread_range(gbench_add("args/threads", none, NULL), 1, 4);
    gbench_use_real_time(gbench_add("args/real", none, NULL));

    for (int64_t n = 1000000; n <= 2000000; n += 1000000) {
        b = gbench_add(n == 1000000 ? "empty/few" : "empty/many", empty, NULL);
        gbench_fix_rounds(b, n);
        b = gbench_add(n == 1000000 ? "by_hand/few" : "by_hand/many", empty_by_hand, NULL);
        gbench_add_args(b, 1, &n);
        gbench_fix_rounds(b, 1);
    }

    gbench_add("wrong/skips_before", skips_before, NULL);
    gbench_add("wrong/skips_within", skips_within, NULL);
    gbench_add_threads(gbench_add("wrong/one_thread", one_thread_skips, NULL), 2);
    gbench_add("wrong/leaves_early", leaves_early, NULL);
    gbench_add("wrong/returns_early", returns_early, NULL);
    gbench_add("wrong/never_loops", never_loops, NULL);
    gbench_add("wrong/loops_twice", loops_twice, NULL);
    return gbench_main(argc, argv);
}
