/* debug_process.c - /debug/pprof/cmdline and /debug/pprof/symbol.
 *
 * symbol is what pprof asks where a profile has addresses alone: "num_symbols: 1" says that names
 * are known, and "0x401136+0x401200" is answered with a line for each address that has one.
 */
#include "prof/debug.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "prof/module.h"
#include "prof/profile.h"

#define MOST_ADDRESSES 65536u

int memkit__debug_cmdline(memkit_debug_req *req, memkit_buf *out)
{
    (void)req;
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = 0;
    int failed = 0;
    do {
        failed = memkit_buf_reserve(out, 4096);
        if (failed == 0)
            n = read(fd, out->data + out->len, 4096);
        if (failed == 0 && n > 0)
            out->len += (size_t)n;
    } while (failed == 0 && (n > 0 || (n < 0 && errno == EINTR)));
    int err = errno;
    close(fd);
    /* NULs are between the arguments, as Go has it; /proc has one after the last, too. */
    if (out->len > 0 && out->data[out->len - 1] == '\0')
        out->len--;
    if (out->data != NULL)
        out->data[out->len] = '\0';
    errno = err;
    return failed != 0 || n < 0 ? -1 : 0;
}

/* The next address; a word that is none is skipped. False: there are no more. */
static bool next_address(const char **at, const char *end, uint64_t *out)
{
    while (*at < end) {
        char word[32];
        size_t n = strcspn(*at, "+ \r\n\t");
        const char *start = *at;
        *at += n;
        *at += *at < end;
        if (n == 0 || n >= sizeof word)
            continue;
        memcpy(word, start, n);
        word[n] = '\0';
        char *stop;
        *out = strtoull(word, &stop, 0);
        if (*stop == '\0' && word[0] >= '0' && word[0] <= '9')
            return true;
    }
    return false;
}

/* One sample for each address, of one frame. */
static int read_addresses(const memkit_debug_req *req, memkit__profile *p, memkit__scratch *s)
{
    const char *end = req->data + req->data_len, *at = req->data;
    uint64_t address;
    uint32_t n = 0;
    while (n < MOST_ADDRESSES && next_address(&at, end, &address))
        n++;
    p->samples = memkit__scratch_array(s, n, sizeof *p->samples);
    uint64_t *frames = memkit__scratch_array(s, n, sizeof *frames);
    if (p->samples == NULL || frames == NULL)
        return -1;
    at = req->data;
    while (p->n_samples < n && next_address(&at, end, &address)) {
        uint32_t i = p->n_samples++;
        /* pprof asks for the address within the call; a frame has the one behind it. */
        frames[i] = (address + 1) & ((UINT64_C(1) << MEMKIT__FRAME_BITS) - 1);
        p->samples[i].frames = &frames[i];
        p->samples[i].depth = 1;
    }
    return 0;
}

static int write_names(const memkit__profile *p, memkit_buf *out)
{
    for (uint32_t i = 0; i < p->n_samples; i++) {
        const memkit__sample *s = &p->samples[i];
        if (s->locations == NULL || s->depth == 0)
            continue;
        const memkit__location *l = &p->locations[s->locations[0]];
        if (l->function == MEMKIT__NONE)
            continue;
        if (memkit_buf_appendf(out, "0x%" PRIx64 " %s\n", memkit__frame_pc(*s->frames) - 1,
                               p->functions[l->function].name) != 0)
            return -1;
    }
    return 0;
}

int memkit__debug_symbol(memkit_debug_req *req, memkit_buf *out)
{
    if (memkit_buf_append_str(out, "num_symbols: 1\n") != 0)
        return -1;
    memkit__scratch s = {0};
    memkit__profile p = {0};
    int failed = read_addresses(req, &p, &s);
    /* No profiler may have looked yet at what is loaded. */
    if (failed == 0 && p.n_samples > 0)
        failed = memkit__modules_prepare() != 0 || memkit__profile_resolve(&p, &s) != 0 ||
                         write_names(&p, out) != 0
                     ? -1
                     : 0;
    int err = errno;
    memkit__scratch_free(&s);
    errno = err;
    return failed;
}
