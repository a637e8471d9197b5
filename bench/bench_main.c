/* bench_main.c - the program behind `make bench`: all benches, one command line; and the checks
 * that come before them.
 */
#include <pthread.h>

#include "bench.h"

typedef struct {
    bench_check check;
    bool known;
    const char *why;
} verdict;

typedef struct {
    gbench_fn fn;
    verdict *verdict; /* shared by the rows of one check */
} row;

static const char *differs(verdict *v)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock); /* the threads of a row come here together */
    if (!v->known)
        v->why = v->check();
    v->known = true;
    pthread_mutex_unlock(&lock);
    return v->why;
}

static void run_checked(gbench_state *s)
{
    const row *r = gbench_context(s);
    const char *why = differs(r->verdict);
    if (why != NULL)
        gbench_skip(s, why);
    else
        r->fn(s);
}

gbench *bench_add(const char *name, gbench_fn fn, bench_check check)
{
    enum { CHECKS = 16 };
    static verdict verdicts[CHECKS];
    int i = 0;
    while (verdicts[i].check != NULL && verdicts[i].check != check)
        if (++i == CHECKS)
            abort();
    verdicts[i].check = check;
    row *r = bench_table(1, sizeof *r);
    *r = (row){fn, &verdicts[i]};
    return gbench_add(name, run_checked, r);
}

int main(int argc, char **argv)
{
    bench_process();
    bench_pool();
    bench_arena();
    bench_lru();
    bench_counters();
    return gbench_main(argc, argv);
}
