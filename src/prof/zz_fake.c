/* zz_fake.c - goes at integration: weak stand-ins for the parts that are not merged yet, so that
 * the library links. The unwinder follows frame pointers within the thread's stack. */
#include <errno.h>
#include <memkit/prof.h>

#include "prof/heap.h"
#include "prof/unwind.h"

#define WEAK __attribute__((weak))

WEAK __attribute__((noinline)) unsigned memkit__unwind_here(uint64_t *frames, unsigned max,
                                                            bool *cut)
{
    uintptr_t *fp = __builtin_frame_address(0);
    unsigned n = 0;
    *cut = false;
    while (n < max && fp != NULL && ((uintptr_t)fp & 7) == 0 && fp[1] > 4096) {
        frames[n++] = fp[1] & ((UINT64_C(1) << 48) - 1);
        uintptr_t *up = (uintptr_t *)fp[0];
        if (up <= fp || (char *)up - (char *)fp > 65536)
            break;
        fp = up;
    }
    *cut = n == max;
    return n;
}

WEAK int memkit__unwind_prepare(void)
{
    return 0;
}

WEAK memkit__profile *memkit__cpu_profile(memkit__scratch *s)
{
    (void)s;
    errno = ENODATA;
    return NULL;
}

WEAK int memkit__profile_resolve(memkit__profile *p, memkit__scratch *s)
{
    (void)p, (void)s;
    return 0;
}

WEAK int memkit__pprof_write(const memkit__profile *p, memkit_buf *out)
{
    return memkit_buf_appendf(out, "pprof of %u samples\n", p->n_samples);
}

WEAK int memkit__folded_write(const memkit__profile *p, uint32_t type, memkit_buf *out)
{
    return memkit_buf_appendf(out, "folded %u of %u samples\n", type, p->n_samples);
}

WEAK int memkit__svg_write(const memkit__profile *p, uint32_t type, const char *title,
                           memkit_buf *out)
{
    return memkit_buf_appendf(out, "svg %s %u of %u samples\n", title, type, p->n_samples);
}

WEAK int memkit__text_write(const memkit__profile *p, uint32_t type, memkit_buf *out)
{
    return memkit_buf_appendf(out, "text %u of %u samples\n", type, p->n_samples);
}
