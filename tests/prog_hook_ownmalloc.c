/* prog_hook_ownmalloc.c - a program with a malloc of its own, which the hook does not see; it must
 * say so. 0: it does. The malloc takes from a static array and never reuses anything. */
#define INCLUDED_BY_A_TEST
#include "prog_hook_family.c"

static _Alignas(16) unsigned char heap[8 << 20];
static size_t top;
static volatile unsigned calls;

void *malloc(size_t n)
{
    calls = calls + 1;
    size_t at = __atomic_fetch_add(&top, ((n + 15) & ~(size_t)15) + 16, __ATOMIC_RELAXED);
    if (n > sizeof heap || at > sizeof heap - n - 16)
        return NULL;
    memcpy(heap + at, &n, sizeof n);
    return heap + at + 16;
}

void free(void *p)
{
    (void)p;
}

void *calloc(size_t n, size_t size)
{
    return malloc(n * size); /* static memory is clear */
}

void *realloc(void *p, size_t n)
{
    void *q = malloc(n);
    if (p != NULL && q != NULL) {
        size_t old;
        memcpy(&old, (char *)p - 16, sizeof old);
        memcpy(q, p, old < n ? old : n);
    }
    return q;
}

int main(void)
{
    REQUIRE(attach_by_name(RTLD_DEFAULT));
    unsigned before = calls;
    /* By pointer: what clang knows of malloc, it believes of this one. */
    void *(*volatile take)(size_t) = malloc;
    void (*volatile give)(void *) = free;
    give(take(hundred));
    REQUIRE(calls > before); /* it is this malloc that the program uses */
    if (prof->hooked() != 0) {
        fprintf(stderr, "reported as hooked\n");
        return 1;
    }
    return 0;
}
