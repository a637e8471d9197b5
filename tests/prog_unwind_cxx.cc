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

NOINLINE void take_in_order(const char *what)
{
    ENTER();
    TAKE();
    check_in_order(what, 2);
    LEAVE();
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
        ENTER();
        takes_when_it_ends t;
        std::vector<int> v = {3, 1, 2, 5, 4};
        std::sort(v.begin(), v.end(), [](int a, int b) {
            take_in_order("lambda of std::sort");
            return a < b;
        });
        if (n == 0) {
            LEAVE();
            throw std::runtime_error("as planned");
        }
        int result = 0;
        try {
            std::function<int(int)> again = [this](int k) { return work(k); };
            result = again(n - 1);
        } catch (const std::out_of_range &) { /* another: it goes on */
        }
        LEAVE();
        return result;
    }
};

NOINLINE int catches(int depth)
{
    ENTER();
    unsigned before = n_expected;
    std::unique_ptr<base> b(new derived);
    try {
        depth += b->work(depth);
    } catch (const std::exception &) {
        n_expected = before;
        take_in_order("catch");
    }
    LEAVE();
    return depth;
}

} // namespace

int main()
{
    ENTER();
    if (memkit__unwind_prepare() != 0)
        return 99;
    for (int i = 0; i < 3; i++)
        catches(i);
    n_expected = 0;
    return destroyed == 6 ? failures : 97;
}
