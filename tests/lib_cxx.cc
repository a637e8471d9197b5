/* lib_cxx.cc - a plugin in C++ for a program in C, which has no libstdc++ until it loads this. */
#include <cstdint>
#include <new>
#include <string>
#include <vector>

extern "C" {
void *plugin_new(size_t n);
void plugin_delete(void *p);
int plugin_run();
}

void *plugin_new(size_t n)
{
    return ::operator new(n);
}

void plugin_delete(void *p)
{
    ::operator delete(p);
}

/* 0 when all is as C++ says. */
int plugin_run()
{
    std::vector<std::string> lines;
    for (int i = 0; i < 1000; i++)
        lines.push_back("a line that is too long for the string itself, " + std::to_string(i));
    size_t volatile huge = SIZE_MAX / 4;
    if (::operator new(huge, std::nothrow) != nullptr)
        return 1;
    try {
        ::operator delete(::operator new(huge));
        return 2;
    } catch (const std::bad_alloc &) {
    }
    struct alignas(256) wide {
        char bytes[300];
    };
    wide *w = new wide;
    bool aligned = reinterpret_cast<uintptr_t>(w) % 256 == 0;
    delete w;
    return aligned && lines[999].back() == '9' ? 0 : 3;
}
