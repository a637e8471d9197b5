/* folded.c - a line a stack, "root;...;leaf value": what flamegraph.pl and its kin read. */
#include <errno.h>

#include "prof/out.h"
#include "prof/stacks.h"

static int write_lines(const memkit__profile *p, uint32_t type, memkit_buf *out, memkit__scratch *s)
{
    memkit__stacks k;
    if (memkit__stacks_make(&k, p, type, MEMKIT__BY_NAME, s) != 0)
        return -1;
    memkit__out o = memkit__out_begin(out);
    for (uint32_t i = 0; i < k.n_stacks; i++) {
        const memkit__stack *stack = &k.stacks[i];
        for (uint32_t d = 0; d < stack->depth; d++) {
            memkit__out_bytes(&o, ";", d > 0);
            memkit__out_str(&o, k.labels[stack->labels[d]].name);
        }
        memkit__out_fmt(&o, " %lld\n", (long long)stack->value);
    }
    return memkit__out_end(&o);
}

int memkit__folded_write(const memkit__profile *p, uint32_t type, memkit_buf *out)
{
    memkit__scratch s = {0};
    int result = write_lines(p, type, out, &s);
    int reason = errno;
    memkit__scratch_free(&s);
    errno = reason;
    return result;
}
