/* stats.c - the counters as the program asks for them: libmemkit-prof's figures, and /proc's
 * (metrics_process.c). */
#include <stdatomic.h>

#include <memkit/stats.h>

#include "core/attach.h"
#include "core/internal.h"
#include "core/metrics.h"

/* The table, once it is known that malloc is counted; saves memkit_thread_allocs the question. */
static _Atomic(const memkit__prof_table *) counting;

const memkit__prof_table *memkit__counting_prof(void)
{
    const memkit__prof_table *prof = atomic_load_explicit(&counting, memory_order_acquire);
    if (MEMKIT_LIKELY(prof != NULL))
        return prof;
    prof = memkit__prof();
    if (prof == NULL || !prof->hooked())
        return NULL;
    atomic_store(&counting, prof);
    return prof;
}

void memkit_memstats(memkit_memstats_t *out)
{
    if (out == NULL) {
        errno = EINVAL;
        return;
    }
    int saved = errno;
    const memkit__prof_table *prof = memkit__counting_prof();
    memkit__counts c;
    if (prof != NULL)
        prof->process_counts(&c);
    memkit__memstats_fill(out, prof != NULL ? &c : NULL);
    errno = saved;
}

int memkit_thread_allocs(memkit_thread_allocs_t *out)
{
    if (MEMKIT_UNLIKELY(out == NULL)) {
        errno = EINVAL;
        return -1;
    }
    *out = (memkit_thread_allocs_t){0};
    const memkit__prof_table *prof = memkit__counting_prof();
    if (MEMKIT_UNLIKELY(prof == NULL))
        return 0;
    memkit__counts c;
    prof->thread_counts(&c);
    out->mallocs = c.mallocs;
    out->frees = c.frees;
    out->bytes = c.alloc_bytes;
    return 1;
}
