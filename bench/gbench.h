/* gbench.h - benches in plain C, run by google-benchmark, with allocations counted by memkit.
 *
 *     static void copy(gbench_state *s)
 *     {
 *         size_t n = (size_t)gbench_arg(s, 0);
 *         char *from = calloc(n, 1), *to = malloc(n);       // not timed, not counted
 *         if (from == NULL || to == NULL)
 *             gbench_skip(s, "no memory");                  // the loop below then runs no time
 *         GBENCH_LOOP(s) {
 *             memcpy(to, from, n);                          // timed; its allocations are counted
 *             GBENCH_KEEP(to);
 *         }
 *         gbench_bytes(s, gbench_rounds(s) * (int64_t)n);
 *         free(from), free(to);
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         gbench *b = gbench_add("copy", copy, NULL);
 *         gbench_add_range(b, 8, 8192, 8);
 *         return gbench_main(argc, argv);
 *     }
 *
 * Compile as C, link gbench*.o, libmemkit.a, libmemkit-prof.a with
 * -Wl,--export-dynamic-symbol=memkit_prof_attach, and -lbenchmark by a C++ compiler.
 *
 * Beside the times stand three figures, on the console, in JSON and in CSV (`allocs_per_op`,
 * `bytes_per_op`, `peak_bytes`). They are of the very iterations that were timed:
 *
 *   allocs/op   allocations of all threads of the bench, by all iterations: exact. Threads that
 *               the code under test starts itself are not counted
 *   B/op        usable bytes of those: exact
 *   peak B <=   the most that was in use above what was when the loop began, in the whole process:
 *               never below the truth, above it by at most 64 KiB a thread
 *
 * Where malloc is not counted (libmemkit-prof is not linked, or another malloc is in front) the
 * console says n/a and JSON and CSV have no such fields.
 */
#ifndef GBENCH_H
#define GBENCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gbench gbench;             /* a bench that is registered; lives as long as main */
typedef struct gbench_state gbench_state; /* one thread's run of it */
typedef void (*gbench_fn)(gbench_state *s);

/* ---- registration: from main, before gbench_main -------------------------------------------- */

/* Registers fn; `context` is what gbench_context gives it. The name is copied. A "/" in names
 * groups them: --benchmark_filter is a regular expression over them. */
gbench *gbench_add(const char *name, gbench_fn fn, void *context);

/* One more instance, run with these arguments. All instances of a bench take as many. */
void gbench_add_args(gbench *b, size_t count, const int64_t *args);

/* Instances for first, the powers of `multiplier` between, and last; or for first, first + step ...
 * up to last. One argument each. */
void gbench_add_range(gbench *b, int64_t first, int64_t last, int multiplier);
void gbench_add_steps(gbench *b, int64_t first, int64_t last, int step);

/* What the arguments are called in the instances' names. */
void gbench_name_args(gbench *b, size_t count, const char *const *names);

/* Each instance once more, by so many threads at a time; or by first, 2 first, 4 first ... last. */
void gbench_add_threads(gbench *b, int threads);
void gbench_add_thread_range(gbench *b, int first, int last);

/* Exactly so many iterations, where the work of one depends on how many there were. */
void gbench_fix_rounds(gbench *b, int64_t rounds);

/* Time on the wall, not of the CPU, decides how many iterations are enough. */
void gbench_use_real_time(gbench *b);

typedef enum { GBENCH_NS, GBENCH_US, GBENCH_MS, GBENCH_S } gbench_unit;
void gbench_use_unit(gbench *b, gbench_unit unit);

/* A row of the summary that follows all results on the console: b's median beside that of the bench
 * called `other`, and their ratio; other NULL: b's alone. Of other's instances it is the one with
 * the same arguments and threads, or else its only one. `target` is printed beside the ratio as it
 * is; NULL: none. */
void gbench_compare(gbench *b, const char *other, const char *target);

/* Runs what the command line asks for; takes all of google-benchmark's flags, and
 *
 *   --gbench_medians    a line for each instance on the console, not for each repetition: the
 *                       median, the least and the most
 *
 * 0; 1: a bench failed, or none matched; 2: the command line is wrong. Once in a process. */
int gbench_main(int argc, char **argv);

/* ---- within a bench -------------------------------------------------------------------------- */

/* Runs the statement behind it as often as is asked, timed and counted; once in each run of a
 * bench. Threads start it together and leave it together. It costs what a loop over a local counter
 * costs. `break` and `return` leave it only after gbench_skip. */
#define GBENCH_LOOP(s)                                                               \
    for (int64_t gbench_left_ = gbench__begin(s), gbench_run_ = 1; gbench_run_ != 0; \
         gbench_run_ = 0, gbench__end(s, gbench_left_))                              \
        for (; gbench_left_ != 0; gbench_left_--)

/* Makes the compiler believe that a pointer or an integer is used; and that what pointers reach was
 * read and written. */
#define GBENCH_KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")
#define GBENCH_CLOBBER()   __asm__ volatile("" : : : "memory")

/* Makes the compiler forget what it knows of a variable. */
#define GBENCH_HIDE(variable) __asm__ volatile("" : "+r"(variable) : : "memory")

/* Within the loop: what is between the two is neither timed nor counted, in this thread. They cost
 * some 0.5 us together. Resumes at the loop's end by itself. */
void gbench_pause(gbench_state *s);
void gbench_resume(gbench_state *s);

/* This run failed: nothing of it is reported but the message, and the program's exit code is 1.
 * Before the loop it makes the loop run no time; within, follow it by `break` or `return`. */
void gbench_skip(gbench_state *s, const char *message);

/* The malloc that this bench uses is none that memkit counts: its three figures are n/a. */
void gbench_uncounted(gbench_state *s);

/* What was registered, and who we are. An argument that is not there is 0. */
void *gbench_context(const gbench_state *s);
int64_t gbench_arg(const gbench_state *s, size_t index);
int gbench_thread(const gbench_state *s); /* from 0 */
int gbench_threads(const gbench_state *s);
int64_t gbench_rounds(const gbench_state *s); /* iterations that this thread's loop runs */

/* After the loop. Items and bytes, of this thread, become rates. */
void gbench_items(gbench_state *s, int64_t items);
void gbench_bytes(gbench_state *s, int64_t bytes);
void gbench_label(gbench_state *s, const char *text);

/* A figure of one's own, shown as `name`; threads' values are summed first. */
typedef enum {
    GBENCH_SUM = 0,      /* as it is */
    GBENCH_RATE = 1,     /* by the seconds it took */
    GBENCH_AVERAGE = 2,  /* by threads */
    GBENCH_PER_ROUND = 8 /* by iterations */
} gbench_figure;
void gbench_counter(gbench_state *s, const char *name, double value, gbench_figure what);

/* private: GBENCH_LOOP's ends */
int64_t gbench__begin(gbench_state *s);
void gbench__end(gbench_state *s, int64_t left);

#ifdef __cplusplus
}
#endif

#endif
