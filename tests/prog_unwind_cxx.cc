/* prog_unwind_cxx.cc - stacks of a C++ program: destructors while an exception is on its way,
 * virtual calls, lambdas, std::sort's callbacks. Exit code: how many were not as they had to be. */
#include "prog_unwind.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

int destroyed;

/* ENTER and LEAVE that an exception does not step over. */
struct entered {
    explicit entered(void *returns_to)
    {
        expected[n_expected++] = (uintptr_t)returns_to;
    }
    ~entered()
    {
        n_expected--;
    }
    entered(const entered &) = delete;
    entered &operator=(const entered &) = delete;
};

#define ENTERED() entered entered_here(__builtin_extract_return_addr(__builtin_return_address(0)))

NOINLINE void take_in_order(const char *what)
{
    ENTERED();
    TAKE();
    check_in_order(what, 2);
}

struct takes_when_it_ends {
    NOINLINE ~takes_when_it_ends()
    {
        take_in_order("destructor while an exception is on its way");
        destroyed++;
    }
};

struct base {
    virtual ~base() = default;
    virtual int work(int n) = 0;
};

struct derived : base {
    NOINLINE int work(int n) override
    {
        ENTERED();
        takes_when_it_ends t;
        std::vector<int> v = {3, 1, 2, 5, 4};
        std::sort(v.begin(), v.end(), [](int a, int b) {
            take_in_order("lambda of std::sort");
            return a < b;
        });
        if (n == 0)
            throw std::runtime_error("as planned");
        int result = 0;
        try {
            std::function<int(int)> again = [this](int k) { return work(k); };
            result = again(n - 1);
        } catch (const std::out_of_range &) { /* another: it goes on */
        }
        return result;
    }
};

NOINLINE int catches(int depth)
{
    ENTERED();
    std::unique_ptr<base> b(new derived);
    try {
        depth += b->work(depth);
    } catch (const std::exception &) {
        take_in_order("catch");
    }
    return depth;
}

} // namespace

int main()
{
    ENTERED();
    if (memkit__unwind_prepare() != 0)
        return 99;
    for (int i = 0; i < 3; i++)
        catches(i);
    return destroyed == 6 ? failures : 97;
}
