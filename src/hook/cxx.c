/* cxx.c - C++'s operator new and delete, in all forms of C++17. Most only pass on.
 *
 *     over libstdc++:   new --> ours --> libstdc++'s --> malloc, ours: counted there
 *     over jemalloc:    new --> ours, counts --> jemalloc's            (does not call malloc)
 *
 * - An operator is counted here when the one behind it is of the same object as the malloc behind
 *   ours, and a trial shows that it does not come back to our malloc; each is asked for itself, as
 *   an allocator may have some of them only. All others - libstdc++'s, one that the program
 *   replaced - are jumped to as if we were not here. So each block counts once.
 * - What throws std::bad_alloc and asks the new_handler is the real one; the exception passes
 *   through the frames here (-fexceptions).
 * - The real ones are those behind us in the search order. Where a C program loads C++ later, with
 *   dlopen, libstdc++ is not in that order: it is looked up from where the caller looks, and kept
 *   loaded. Where there is none at all (libstdc++ linked statically into the program, and ours
 *   drawn in before it) they are made of malloc, as the standard says.
 * - No lock: threads that resolve at once find the same.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hook/attach.h"
#include "hook/counters.h"
#include "hook/real.h"
#include "hook/timing.h"
#include "prof/sampler.h"

#if defined(__LP64__) /* elsewhere size_t is mangled as j, and they are left alone */

#define EXPORT __attribute__((visibility("default")))

#define MAX_OBJECTS 1024 /* of a process that are looked through */

typedef const void *nothrow; /* a std::nothrow_t & */

/* X(name, mangled, parameters, arguments, arguments of a trial, bytes or where the block is from)
 */
#define NEWS(X)                                                                         \
    X(new_one, "_Znwm", (size_t n), (n), (1), new_here(n, 0, true))                     \
    X(new_array, "_Znam", (size_t n), (n), (1), new_here(n, 0, true))                   \
    X(new_one_nothrow, "_ZnwmRKSt9nothrow_t", (size_t n, nothrow t), (n, t), (1, ""),   \
      new_here(n, 0, false))                                                            \
    X(new_array_nothrow, "_ZnamRKSt9nothrow_t", (size_t n, nothrow t), (n, t), (1, ""), \
      new_here(n, 0, false))                                                            \
    X(new_one_aligned, "_ZnwmSt11align_val_t", (size_t n, size_t a), (n, a), (1, 64),   \
      new_here(n, a, true))                                                             \
    X(new_array_aligned, "_ZnamSt11align_val_t", (size_t n, size_t a), (n, a), (1, 64), \
      new_here(n, a, true))                                                             \
    X(new_one_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t",                    \
      (size_t n, size_t a, nothrow t), (n, a, t), (1, 64, ""), new_here(n, a, false))   \
    X(new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t",                  \
      (size_t n, size_t a, nothrow t), (n, a, t), (1, 64, ""), new_here(n, a, false))

#define DELETES(X)                                                                                \
    X(delete_one, "_ZdlPv", (void *p), (p), (p), new_one)                                         \
    X(delete_array, "_ZdaPv", (void *p), (p), (p), new_array)                                     \
    X(delete_one_nothrow, "_ZdlPvRKSt9nothrow_t", (void *p, nothrow t), (p, t), (p, ""), new_one) \
    X(delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", (void *p, nothrow t), (p, t), (p, ""),        \
      new_array)                                                                                  \
    X(delete_one_sized, "_ZdlPvm", (void *p, size_t n), (p, n), (p, 1), new_one)                  \
    X(delete_array_sized, "_ZdaPvm", (void *p, size_t n), (p, n), (p, 1), new_array)              \
    X(delete_one_aligned, "_ZdlPvSt11align_val_t", (void *p, size_t a), (p, a), (p, 64),          \
      new_one_aligned)                                                                            \
    X(delete_array_aligned, "_ZdaPvSt11align_val_t", (void *p, size_t a), (p, a), (p, 64),        \
      new_array_aligned)                                                                          \
    X(delete_one_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t",                          \
      (void *p, size_t a, nothrow t), (p, a, t), (p, 64, ""), new_one_aligned)                    \
    X(delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t",                        \
      (void *p, size_t a, nothrow t), (p, a, t), (p, 64, ""), new_array_aligned)                  \
    X(delete_one_sized_aligned, "_ZdlPvmSt11align_val_t", (void *p, size_t n, size_t a),          \
      (p, n, a), (p, 1, 64), new_one_aligned)                                                     \
    X(delete_array_sized_aligned, "_ZdaPvmSt11align_val_t", (void *p, size_t n, size_t a),        \
      (p, n, a), (p, 1, 64), new_array_aligned)

#define NAME(name, ...) name##_,
enum { NEWS(NAME) DELETES(NAME) OPERATORS };

#define SYMBOL(name, symbol, ...) symbol,
static const char *const symbols[OPERATORS] = {NEWS(SYMBOL) DELETES(SYMBOL)};

/* Ours, under their C++ names. */
#define DECLARE_NEW(name, symbol, params, ...)    EXPORT void *name params __asm__(symbol);
#define DECLARE_DELETE(name, symbol, params, ...) EXPORT void name params __asm__(symbol);
NEWS(DECLARE_NEW)
DELETES(DECLARE_DELETE)

/* The real ones, NULL where there is none; and which of them are counted here. */
#define NEW_MEMBER(name, symbol, params, ...)    void *(*name)params;
#define DELETE_MEMBER(name, symbol, params, ...) void(*name) params;
typedef struct {
    NEWS(NEW_MEMBER)
    DELETES(DELETE_MEMBER)
} operators;
_Static_assert(sizeof(operators) == OPERATORS * sizeof(void *), "one pointer each, in this order");

static operators real;
static bool counted_here[OPERATORS];
static atomic_bool resolved;
static MEMKIT__TLS volatile bool resolving;

/* ---- where there is no C++ library to be found ----------------------------------------------- */

/* Defined where a libstdc++ is linked statically and has them. Weak: C programs have none. */
__attribute__((weak)) void memkit__throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv");
typedef void (*new_handler)(void);
__attribute__((weak)) new_handler memkit__get_new_handler(void) __asm__("_ZSt15get_new_handlerv");

static void *new_here(size_t n, size_t align, bool throws)
{
    if (n == 0)
        n = 1;
    for (;;) {
        void *p = align != 0 ? memalign(align, n) : malloc(n);
        if (p != NULL)
            return p;
        new_handler handler = memkit__get_new_handler != NULL ? memkit__get_new_handler() : NULL;
        if (handler == NULL)
            break;
        handler();
    }
    if (!throws)
        return NULL;
    if (memkit__throw_bad_alloc != NULL)
        memkit__throw_bad_alloc();
    static const char text[] = "memkit: operator new: out of memory, and nothing to throw with\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    abort();
}

/* ---- finding the real ones ------------------------------------------------------------------- */

/* The object that holds an address, as if opened once more; NULL where that fails. */
static void *open_object(const void *address, int flags)
{
    Dl_info info;
    if (dladdr(address, &info) == 0 || info.dli_fname == NULL)
        return NULL;
    return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | flags);
}

/* Of the object that this is in, so one of the functions below. */
static bool is_ours(const void *fn)
{
    Dl_info its, our;
    return dladdr(fn, &its) != 0 && dladdr(&resolved, &our) != 0 && its.dli_fbase == our.dli_fbase;
}

typedef struct {
    const void *at[MAX_OBJECTS]; /* an address in each object */
    size_t n;
} objects;

static int note_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    objects *o = arg;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum && o->n < MAX_OBJECTS; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            memcpy(&o->at[o->n++], &at, sizeof at);
            break;
        }
    return 0;
}

/* An object from which one finds an operator new that is not ours: the caller's, and if that is
 * none, as after a jump in place of a call, any. Opened; NULL: there is none. Objects are opened
 * after they were listed, for dl_iterate_phdr holds a lock that dlopen takes second. */
static void *open_cxx(const void *caller)
{
    objects o = {.at = {caller}, .n = 1};
    dl_iterate_phdr(note_object, &o);
    for (size_t i = 0; i < o.n; i++) {
        void *object = open_object(o.at[i], 0);
        const void *fn = object != NULL ? dlsym(object, symbols[0]) : NULL;
        if (fn != NULL && !is_ours(fn))
            return object;
        if (object != NULL)
            dlclose(object);
    }
    return NULL;
}

static void look_up(void *fns[OPERATORS], const void *caller)
{
    void *from = dlsym(RTLD_NEXT, symbols[0]) != NULL ? RTLD_NEXT : open_cxx(caller);
    if (from == NULL)
        return;
    for (int i = 0; i < OPERATORS; i++) {
        fns[i] = dlsym(from, symbols[i]);
        if (fns[i] != NULL && is_ours(fns[i]))
            fns[i] = NULL;
        void *kept = NULL;
        if (fns[i] != NULL && from != RTLD_NEXT) /* else it may be unloaded */
            kept = open_object(fns[i], RTLD_NODELETE);
        if (kept != NULL)
            dlclose(kept);
    }
    if (from != RTLD_NEXT)
        dlclose(from);
}

/* Calls each operator that the allocator underneath has of its own, and looks whether the hook saw
 * it already. */
static void try_all(const operators *ops, bool here[OPERATORS])
{
    memkit__tally before;
    if (!memkit__trial_begin(&before))
        return;
#define TRY_NEW(name, symbol, params, args, trial, ...)       \
    if (here[name##_]) {                                      \
        uint64_t seen = memkit__trial_count(&before);         \
        void *p = ops->name trial;                            \
        here[name##_] = memkit__trial_count(&before) == seen; \
        END_##name(p);                                        \
    }
#define TRY_DELETE(name, symbol, params, args, trial, source) \
    if (here[name##_]) {                                      \
        void *p = BEGIN_##source;                             \
        uint64_t seen = memkit__trial_count(&before);         \
        ops->name trial;                                      \
        here[name##_] = memkit__trial_count(&before) == seen; \
    }
/* In pairs: an allocator may insist that what came by new[] goes by delete[]. */
#define END_new_one(p)                   ops->delete_one(p)
#define END_new_array(p)                 ops->delete_array(p)
#define END_new_one_nothrow(p)           ops->delete_one(p)
#define END_new_array_nothrow(p)         ops->delete_array(p)
#define END_new_one_aligned(p)           ops->delete_one_aligned(p, 64)
#define END_new_array_aligned(p)         ops->delete_array_aligned(p, 64)
#define END_new_one_aligned_nothrow(p)   ops->delete_one_aligned(p, 64)
#define END_new_array_aligned_nothrow(p) ops->delete_array_aligned(p, 64)
#define BEGIN_new_one                    ops->new_one(1)
#define BEGIN_new_array                  ops->new_array(1)
#define BEGIN_new_one_aligned            ops->new_one_aligned(1, 64)
#define BEGIN_new_array_aligned          ops->new_array_aligned(1, 64)
    NEWS(TRY_NEW)
    DELETES(TRY_DELETE)
    memkit__trial_end(&before);
}

/* A call that comes meanwhile from this very thread only passes on, and so does one that comes
 * while the thread finds malloc: tcmalloc calls operator new when it sets itself up. */
__attribute__((noinline, cold)) static void resolve(const void *caller)
{
    if (resolving)
        return;
    resolving = true;
    int saved = errno;
    void *fns[OPERATORS] = {0};
    bool here[OPERATORS] = {0};
    memkit__tally before; /* what looking allocates is none of the program's */
    bool counting = memkit__trial_begin(&before);
    look_up(fns, caller);
    if (counting)
        memkit__trial_end(&before);
    operators ops;
    memcpy(&ops, fns, sizeof ops);
    real = ops;
    if (memkit__real_known()) {
        bool all = ops.delete_one != NULL && ops.delete_array != NULL &&
                   ops.delete_one_aligned != NULL && ops.delete_array_aligned != NULL;
#define HAVE(name, ...) all = all && ops.name != NULL;
        NEWS(HAVE)
        if (all && memkit__hooked()) {
            for (int i = 0; i < OPERATORS; i++)
                here[i] = fns[i] != NULL && memkit__beside_real_malloc(fns[i]);
            try_all(&ops, here);
        }
        memcpy(counted_here, here, sizeof here);
        atomic_store_explicit(&resolved, true, memory_order_release);
    }
    errno = saved;
    resolving = false;
}

/* ---- the operators --------------------------------------------------------------------------- */

static void *counted(void *p, memkit__asked asked)
{
    if (p == NULL)
        return NULL;
    size_t bytes = memkit__usable(p);
    if (memkit__count_malloc(bytes))
        return memkit__on_alloc(p, bytes, asked.bytes, asked.function, asked.caller);
    return p;
}

/* For the sampler: this very operator, and its caller. */
#define ASKED(name) ((memkit__asked){n, (uintptr_t)(name), __builtin_return_address(0)})

#define BE_RESOLVED()                                                                \
    do {                                                                             \
        if (MEMKIT_UNLIKELY(!atomic_load_explicit(&resolved, memory_order_acquire))) \
            resolve(__builtin_return_address(0));                                    \
    } while (0)

#define DEFINE_NEW(name, symbol, params, args, trial, otherwise) \
    EXPORT void *name params                                     \
    {                                                            \
        BE_RESOLVED();                                           \
        if (MEMKIT_UNLIKELY(real.name == NULL))                  \
            return otherwise;                                    \
        if (!counted_here[name##_])                              \
            return real.name args;                               \
        if (MEMKIT_LIKELY(!memkit__timing))                      \
            return counted(real.name args, ASKED(name));         \
        memkit__stamp entered = memkit__timing_enter();          \
        void *p = real.name args;                                \
        memkit__timing_leave(entered, "operator new", n);        \
        return counted(p, ASKED(name));                          \
    }

#define DEFINE_DELETE(name, symbol, params, args, ...)           \
    EXPORT void name params                                      \
    {                                                            \
        BE_RESOLVED();                                           \
        if (MEMKIT_UNLIKELY(real.name == NULL)) {                \
            free(p);                                             \
            return;                                              \
        }                                                        \
        if (p == NULL || !counted_here[name##_]) {               \
            real.name args;                                      \
            return;                                              \
        }                                                        \
        size_t bytes = memkit__usable(p);                        \
        memkit__count_free(bytes);                               \
        if (memkit__perhaps_sampled(p))                          \
            memkit__on_free(p);                                 \
        if (MEMKIT_LIKELY(!memkit__timing)) {                    \
            real.name args;                                      \
            return;                                              \
        }                                                        \
        memkit__stamp entered = memkit__timing_enter();          \
        real.name args;                                          \
        memkit__timing_leave(entered, "operator delete", bytes); \
    }

#pragma GCC diagnostic ignored "-Wunused-parameter" /* a tag or a size, where malloc stands in */
NEWS(DEFINE_NEW)
DELETES(DEFINE_DELETE)

#endif
