/* test_prof_chance.c - the arithmetic of sampling against libm's, and the gaps' distribution. */
#include "support.h"

#include <math.h>

#include "prof/chance.h"

static void ln_and_exp_are_libms_to_14_digits(void **state)
{
    (void)state;
    for (int i = 1; i < 200000; i++) {
        double x = i / 200000.0, tiny = ldexp(x, -50);
        assert_true(fabs(memkit__chance_ln(x) - log(x)) <= 4e-15 * (1 + fabs(log(x))));
        assert_true(fabs(memkit__chance_ln(tiny) / log(tiny) - 1) <= 4e-15);
        double y = x * 50;
        assert_true(fabs(memkit__chance_hit(y) / -expm1(-y) - 1) <= 1e-14);
        assert_true(fabs(memkit__chance_hit(tiny) / -expm1(-tiny) - 1) <= 1e-14);
    }
    assert_true(memkit__chance_ln(1) == 0 && memkit__chance_hit(1e9) == 1);
}

/* Of 4,000,000 draws the share of those at most s is 1 - exp(-s / rate), as the weight has it. */
static void gaps_are_exponential(void **state)
{
    (void)state;
    enum { N = 4000000, RATE = 1000 };
    static const uint64_t bounds[] = {1, 10, 100, 1000, 5000};
    uint64_t random = 7, below[5] = {0};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        uint64_t gap = memkit__chance_gap(&random, RATE);
        assert_true(gap > 0);
        sum += (double)gap;
        for (int k = 0; k < 5; k++)
            below[k] += gap <= bounds[k];
    }
    assert_true(fabs(sum / N - RATE - 0.5) < 4 * RATE / sqrt(N)); /* rounded up: half more */
    for (int k = 0; k < 5; k++) {
        double p = 1 / memkit__chance_weight(bounds[k], RATE), share = (double)below[k] / N;
        assert_true(fabs(share - p) < 4 * sqrt(p * (1 - p) / N));
    }
}

static void extremes_are_numbers(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int i = 0; i < 1000; i++)
        assert_true(memkit__chance_gap(&random, INT64_MAX) > 0);
    assert_true(memkit__chance_weight(1, INT64_MAX) > 9e18);
    assert_true(memkit__chance_weight(SIZE_MAX, 1) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ln_and_exp_are_libms_to_14_digits),
        cmocka_unit_test(gaps_are_exponential),
        cmocka_unit_test(extremes_are_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
