/* test_prof_unwind.c - stacks of programs built in many ways: by both compilers, at each level of
 * optimization, with frame pointers and without, position-independent and not. The programs
 * (prog_unwind.c, prog_unwind_cxx.cc) know their own chain of calls and check what is seen of it.
 *
 * Environment: MEMKIT_BUILD; MEMKIT_UNWIND_CCS, the compilers that the programs were built by.
 */
#include "test_hook.h"

static const char *const variants[] = {
    "O0-fp-pie",   "O0-nofp-nopie", "O1-fp-nopie", "O1-nofp-pie",
    "O2-nofp-pie", "O2-fp-nopie",   "O3-fp-pie",   "O3-nofp-nopie",
};

static const char *compilers[4];
static unsigned n_compilers;

static void in_every_build(const char *program, const char *mode)
{
    unsigned wrong = 0;
    for (unsigned c = 0; c < n_compilers; c++)
        for (unsigned v = 0; v < sizeof variants / sizeof variants[0]; v++) {
            char name[256];
            snprintf(name, sizeof name, "tests/%s-%s-%s", program, compilers[c], variants[v]);
            const result *r = RUN(false, NULL, in_build(name), mode);
            if (r->code != 0) {
                print_error("%s %s: exit code %d\n%.2000s\n", name, mode, r->code, r->err);
                wrong++;
            }
        }
    assert_int_equal(wrong, 0);
}

/* The sanitizers' malloc is in front of the program's own, and their stacks have frames of theirs.
 */
#define NEEDS_PLAIN_BUILD() NEEDS_PRELOAD()

static void stacks_through_libc_are_whole_in_all_15_ways(void **state)
{
    (void)state;
    NEEDS_PLAIN_BUILD();
    in_every_build("prog_unwind", "ways");
}

static void a_chain_of_frames_of_all_shapes_is_seen_frame_by_frame(void **state)
{
    (void)state;
    NEEDS_PLAIN_BUILD();
    in_every_build("prog_unwind", "chain");
}

static void stacks_of_threads_that_come_and_go_are_whole(void **state)
{
    (void)state;
    NEEDS_PLAIN_BUILD();
    in_every_build("prog_unwind", "threads");
}

static void cxx_stacks_are_whole_with_an_exception_on_its_way(void **state)
{
    (void)state;
    NEEDS_PLAIN_BUILD();
    in_every_build("prog_unwind_cxx", "");
}

static void both_compilers_were_tried(void **state)
{
    (void)state;
    NEEDS_PLAIN_BUILD();
    if (n_compilers < 2)
        skip(); /* there is one alone here */
    assert_int_equal(n_compilers, 2);
}

int main(void)
{
    if (!prepare())
        return 2;
    static char list[256];
    const char *ccs = getenv("MEMKIT_UNWIND_CCS");
    snprintf(list, sizeof list, "%s", ccs != NULL ? ccs : "");
    for (char *cc = strtok(list, " "); cc != NULL && n_compilers < 4; cc = strtok(NULL, " "))
        compilers[n_compilers++] = cc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stacks_through_libc_are_whole_in_all_15_ways),
        cmocka_unit_test(a_chain_of_frames_of_all_shapes_is_seen_frame_by_frame),
        cmocka_unit_test(stacks_of_threads_that_come_and_go_are_whole),
        cmocka_unit_test(cxx_stacks_are_whole_with_an_exception_on_its_way),
        cmocka_unit_test(both_compilers_were_tried),
    };
    return finish(cmocka_run_group_tests(tests, NULL, NULL));
}
