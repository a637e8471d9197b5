/* prog_hook_cxx.cc - a C++ program with threads: every form of operator new and delete, what they
 * do when memory is out, containers, strings and exceptions. Says on standard output what it saw,
 * which must be the same with the hook and without; and where the hook is there compares its
 * counters with the truth.
 *
 *     prog_hook_cxx hooked|unhooked|none [nofail]
 *       hooked    the hook must be there and count; unhooked: be there and say it does not; none
 *       nofail    leaves out calls that fail: some mallocs end the program then
 */
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "core/attach.h"
}

namespace {

const memkit__prof_table *prof;
bool hooked;
memkit__counts before;
size_t volatile huge = SIZE_MAX / 4;

void no_objects(void (*)(void *, const memkit__object_row *), void *) {}

memkit__core_table make_core()
{
    memkit__core_table t = {};
    t.abi = MEMKIT__ATTACH_ABI;
    t.size = sizeof t;
    t.library_version = "0.0.0";
    t.each_object = no_objects;
    return t;
}

const memkit__core_table core = make_core();

void attach()
{
    auto fn = reinterpret_cast<const memkit__prof_table *(*)(const memkit__core_table *)>(
        dlsym(RTLD_DEFAULT, "memkit_prof_attach"));
    if (fn != nullptr)
        prof = fn(&core);
}

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (0)

void start()
{
    if (hooked)
        prof->process_counts(&before);
}

/* What was counted since start is exactly this. */
void counted(uint64_t mallocs, uint64_t frees, uint64_t bytes, uint64_t freed)
{
    memkit__counts now;
    if (!hooked)
        return;
    prof->process_counts(&now);
    if (now.mallocs - before.mallocs != mallocs || now.frees - before.frees != frees)
        std::fprintf(stderr, "%llu mallocs, %llu frees\n",
                     static_cast<unsigned long long>(now.mallocs - before.mallocs),
                     static_cast<unsigned long long>(now.frees - before.frees));
    CHECK(now.mallocs - before.mallocs == mallocs);
    CHECK(now.frees - before.frees == frees);
    CHECK(now.alloc_bytes - before.alloc_bytes == bytes);
    CHECK(now.freed_bytes - before.freed_bytes == freed);
}

/* ---- every form ---- */

template <typename New, typename Delete> void pair(const char *name, New take, Delete give)
{
    for (size_t n : {size_t(0), size_t(1), size_t(100), size_t(5000), size_t(3000000)}) {
        start();
        void *p = take(n);
        CHECK(p != nullptr);
        size_t usable = malloc_usable_size(p);
        CHECK(usable >= n);
        counted(1, 0, usable, 0);
        std::memset(p, 1, n);
        give(p, n);
        counted(1, 1, usable, usable);
    }
    start();
    give(nullptr, 100);
    counted(0, 0, 0, 0);
    std::printf("%s\n", name);
}

constexpr std::align_val_t wide{128};

void *aligned(void *p)
{
    CHECK(reinterpret_cast<uintptr_t>(p) % 128 == 0);
    return p;
}

void every_form_counts_once()
{
    const std::nothrow_t &t = std::nothrow;
    using P = void *;
    pair(
        "new", [](size_t n) { return ::operator new(n); },
        [](P p, size_t) { ::operator delete(p); });
    pair(
        "new[]", [](size_t n) { return ::operator new[](n); },
        [](P p, size_t) { ::operator delete[](p); });
    pair(
        "nothrow", [&](size_t n) { return ::operator new(n, t); },
        [&](P p, size_t) { ::operator delete(p, t); });
    pair(
        "nothrow[]", [&](size_t n) { return ::operator new[](n, t); },
        [&](P p, size_t) { ::operator delete[](p, t); });
    pair(
        "sized", [](size_t n) { return ::operator new(n); },
        [](P p, size_t n) { ::operator delete(p, n); });
    pair(
        "sized[]", [](size_t n) { return ::operator new[](n); },
        [](P p, size_t n) { ::operator delete[](p, n); });
    pair(
        "aligned", [](size_t n) { return aligned(::operator new(n, wide)); },
        [](P p, size_t) { ::operator delete(p, wide); });
    pair(
        "aligned[]", [](size_t n) { return aligned(::operator new[](n, wide)); },
        [](P p, size_t) { ::operator delete[](p, wide); });
    pair(
        "aligned nothrow", [&](size_t n) { return aligned(::operator new(n, wide, t)); },
        [&](P p, size_t) { ::operator delete(p, wide, t); });
    pair(
        "aligned nothrow[]", [&](size_t n) { return aligned(::operator new[](n, wide, t)); },
        [&](P p, size_t) { ::operator delete[](p, wide, t); });
    pair(
        "aligned sized", [](size_t n) { return aligned(::operator new(n, wide)); },
        [](P p, size_t n) { ::operator delete(p, n, wide); });
    pair(
        "aligned sized[]", [](size_t n) { return aligned(::operator new[](n, wide)); },
        [](P p, size_t n) { ::operator delete[](p, n, wide); });
}

/* ---- out of memory ---- */

int handler_calls;

void handler()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}

struct from_handler {};

void throwing_handler()
{
    handler_calls++;
    throw from_handler();
}

template <typename New> void fails(const char *name, New take, bool throws)
{
    bool thrown = false;
    void *p = nullptr;
    handler_calls = 0;
    std::set_new_handler(handler);
    try {
        p = take();
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(p == nullptr);
    CHECK(thrown == throws);
    CHECK(handler_calls == 3);
    std::printf("%s fails\n", name);
}

void failing_calls_ask_the_handler_and_throw()
{
    memkit__counts at, now;
    if (hooked)
        prof->process_counts(&at);
    const std::nothrow_t &t = std::nothrow;
    fails(
        "new", [] { return ::operator new(huge); }, true);
    fails(
        "new[]", [] { return ::operator new[](huge); }, true);
    fails(
        "nothrow", [&] { return ::operator new(huge, t); }, false);
    fails(
        "nothrow[]", [&] { return ::operator new[](huge, t); }, false);
    fails(
        "aligned", [] { return ::operator new(huge, wide); }, true);
    fails(
        "aligned[]", [] { return ::operator new[](huge, wide); }, true);
    fails(
        "aligned nothrow", [&] { return ::operator new(huge, wide, t); }, false);
    fails(
        "aligned nothrow[]", [&] { return ::operator new[](huge, wide, t); }, false);
    bool caught = false;
    handler_calls = 0;
    std::set_new_handler(throwing_handler);
    try {
        ::operator delete(::operator new(huge));
    } catch (const from_handler &) {
        caught = true;
    }
    CHECK(caught && handler_calls == 1);
    std::set_new_handler(nullptr);
    if (hooked) { /* the exceptions themselves are blocks, and gone */
        prof->process_counts(&now);
        CHECK(now.mallocs - at.mallocs == now.frees - at.frees);
        CHECK(now.alloc_bytes - at.alloc_bytes == now.freed_bytes - at.freed_bytes);
    }
    std::printf("a handler may throw\n");
}

/* ---- threads ---- */

struct alignas(64) line {
    char bytes[64];
};

uint64_t work(unsigned seed)
{
    uint64_t sum = 0;
    std::map<std::string, std::vector<int>> index;
    for (unsigned i = 0; i < 1500; i++) {
        std::string key =
            "a key too long to fit into the string: " + std::to_string((seed + i) % 97);
        index[key].push_back(static_cast<int>(i));
        std::unique_ptr<line> l(new line());
        CHECK(reinterpret_cast<uintptr_t>(l.get()) % 64 == 0);
        std::unique_ptr<char[]> text(new (std::nothrow) char[i + 1]);
        text[i] = 'x';
        try {
            if (i % 10 == 0)
                throw std::runtime_error(key);
            sum += index.size();
        } catch (const std::exception &e) {
            sum += std::strlen(e.what());
        }
        if (i % 500 == 499)
            index.clear();
    }
    return sum;
}

uint64_t eight_threads()
{
    std::atomic<uint64_t> sum{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 8; i++)
        threads.emplace_back([i, &sum] { sum += work(i); });
    for (auto &t : threads)
        t.join();
    return sum;
}

uint64_t live()
{
    memkit__counts now;
    prof->process_counts(&now);
    return now.alloc_bytes - now.freed_bytes;
}

/* Threads leave their stacks, and what belongs to them, for the next ones. */
void what_threads_allocated_is_gone_after_them()
{
    uint64_t sum = eight_threads();
    sum += eight_threads();
    start();
    uint64_t at = hooked ? live() : 0;
    sum += eight_threads();
    if (hooked) {
        memkit__counts now;
        prof->process_counts(&now);
        CHECK(now.mallocs - before.mallocs >= 8 * 1500 * 2);
        CHECK(now.mallocs - before.mallocs == now.frees - before.frees);
        CHECK(live() == at);
    }
    std::printf("threads: %llu\n", static_cast<unsigned long long>(sum));
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    static char room[1024]; /* or the first printf would allocate, some time */
    std::setvbuf(stdout, room, _IOFBF, sizeof room);
    attach();
    std::string want = argv[1];
    CHECK((prof != nullptr) == (want != "none"));
    hooked = prof != nullptr && prof->hooked() == 1;
    CHECK(hooked == (want == "hooked"));
    start();
    void *first = ::operator new(1); /* for which the hook looks around */
    size_t const bytes = malloc_usable_size(first);
    ::operator delete(first);
    counted(1, 1, bytes, bytes);
    every_form_counts_once();
    if (argc < 3)
        failing_calls_ask_the_handler_and_throw();
    what_threads_allocated_is_gone_after_them();
    return 0;
}
