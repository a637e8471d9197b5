/* chance.c - the arithmetic of sampling: see chance.h. Plain sums of products, so that it may run
 * in a signal handler and links without libm; tests/test_prof_chance.c holds it against libm's. */
#include "prof/chance.h"

#include <string.h>

#define LN2     0.69314718055994530942
#define SQRT2   1.41421356237309504880
#define SETTLED 45.0 /* exp of less than that is nothing beside 1 */

/* splitmix64: a step, then the number is made of it. */
uint64_t memkit__chance_mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double power_of_2(int e)
{
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x = m * 2^e with m about 1, and ln(m) = 2 (z + z^3/3 + z^5/5 ...) with z = (m - 1) / (m + 1),
 * |z| <= 0.172: what is left out after z^19 is below 10^-16 of the sum. */
double memkit__chance_ln(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > SQRT2) {
        m *= 0.5;
        e++;
    }
    double z = (m - 1) / (m + 1), square = z * z, sum = 0;
    for (int k = 19; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return e * LN2 + 2 * z * sum;
}

/* exp(-x) = 2^-k exp(-r) with r in [0, ln 2): and for k = 0 the leading 1 is never added, as little
 * would be left of a small x beside it. */
double memkit__chance_hit(double x)
{
    if (x >= SETTLED)
        return 1;
    int k = (int)(x / LN2);
    double r = x - k * LN2, sum = 1; /* of 1 - r/2 (1 - r/3 (1 - ...)), times r: 1 - exp(-r) */
    for (int i = 18; i >= 2; i--)
        sum = 1 - r / i * sum;
    double hit = r * sum;
    return k == 0 ? hit : 1 - power_of_2(-k) * (1 - hit);
}

uint64_t memkit__chance_gap(uint64_t *state, uint64_t rate)
{
    uint64_t drawn = memkit__chance_mix(*state);
    *state += UINT64_C(0x9e3779b97f4a7c15);
    double u = (double)((drawn >> 11) + 1) * 0x1p-53; /* in (0, 1] */
    double gap = -(double)rate * memkit__chance_ln(u);
    if (gap >= 0x1p62)
        return UINT64_C(1) << 62;
    uint64_t whole = (uint64_t)gap;
    whole += (double)whole < gap;
    return whole > 0 ? whole : 1;
}

double memkit__chance_weight(uint64_t bytes, uint64_t rate)
{
    return 1 / memkit__chance_hit((double)bytes / (double)rate);
}
