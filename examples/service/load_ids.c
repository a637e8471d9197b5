/* load_ids.c - see load_ids.h.
 *
 * Zipf numbers come from rejection-inversion: W. Hörmann, G. Derflinger, "Rejection-inversion to
 * generate variates from monotone discrete distributions", ACM TOMACS 6(3), 1996, in the form of
 * Apache Commons' RejectionInversionZipfSampler. It is exact (unlike YCSB's approximation), needs
 * no table and rejects at most a few in a hundred draws.
 *
 *   h(x) = 1 / x^theta           the weight, as a function of a real x
 *   H(x) = its integral          (x^(1-theta) - 1) / (1 - theta); log(x) where theta = 1
 *   draw u uniform in [H(3/2) - 1, H(n + 1/2)), x = H^-1(u), k = round(x)
 *   take k at once when k - x <= s, else when u >= H(k + 1/2) - h(k); else draw again
 *
 * Uniform numbers use Lemire's multiplication with rejection, so that they are exact as well. The
 * generator is xoshiro256** (Blackman, Vigna), its state filled by splitmix64.
 */
#include "load_ids.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t next64(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* Uniform in [0, 1), 53 bits. */
static double next_double(uint64_t s[4])
{
    return (double)(next64(s) >> 11) * 0x1p-53;
}

__extension__ typedef unsigned __int128 u128;

static uint64_t next_below(uint64_t s[4], uint64_t n)
{
    u128 m = (u128)next64(s) * n;
    if ((uint64_t)m < n) {
        uint64_t threshold = (0 - n) % n;
        while ((uint64_t)m < threshold)
            m = (u128)next64(s) * n;
    }
    return (uint64_t)(m >> 64);
}

/* (exp(x) - 1) / x and log(1 + x) / x, well behaved around 0: that is what theta = 1 comes down to.
 */
static double expm1_over(double x)
{
    return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x * 0.5 * (1 + x / 3 * (1 + 0.25 * x));
}

static double log1p_over(double x)
{
    return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x * (1.0 / 3 - 0.25 * x));
}

static double h(double theta, double x)
{
    return exp(-theta * log(x));
}

static double h_integral(double theta, double x)
{
    double lx = log(x);
    return expm1_over((1 - theta) * lx) * lx;
}

static double h_integral_inverse(double theta, double u)
{
    double t = u * (1 - theta);
    if (t < -1)
        t = -1; /* rounding at the lower end of u */
    return exp(log1p_over(t) * u);
}

static unsigned decimal_digits(uint64_t n)
{
    unsigned d = 1;
    while (n >= 10) {
        n /= 10;
        d++;
    }
    return d;
}

int load_ids_init(load_ids *ids, load_ids_kind kind, uint64_t count, size_t bytes, double theta,
                  uint64_t seed)
{
    if (ids == NULL || count == 0 || count > ((uint64_t)1 << 53) || bytes > LOAD_ID_BYTES_MAX ||
        bytes < decimal_digits(count - 1) || (kind != LOAD_UNIFORM && kind != LOAD_ZIPF) ||
        (kind == LOAD_ZIPF && !(theta > 0 && theta <= 10))) {
        errno = EINVAL;
        return -1;
    }
    *ids = (load_ids){.kind = kind, .count = count, .bytes = bytes, .theta = theta};
    for (int i = 0; i < 4; i++)
        ids->rng[i] = splitmix64(&seed);
    if (kind == LOAD_ZIPF) {
        ids->h_x1 = h_integral(theta, 1.5) - 1;
        ids->h_n = h_integral(theta, (double)count + 0.5);
        ids->s = 2 - h_integral_inverse(theta, h_integral(theta, 2.5) - h(theta, 2));
    }
    return 0;
}

static uint64_t next_zipf(load_ids *ids)
{
    for (;;) {
        double u = ids->h_n + next_double(ids->rng) * (ids->h_x1 - ids->h_n);
        double x = h_integral_inverse(ids->theta, u);
        double k = floor(x + 0.5);
        if (k < 1)
            k = 1;
        else if (k > (double)ids->count)
            k = (double)ids->count;
        if (k - x <= ids->s || u >= h_integral(ids->theta, k + 0.5) - h(ids->theta, k))
            return (uint64_t)k - 1;
    }
}

uint64_t load_ids_next(load_ids *ids)
{
    return ids->kind == LOAD_ZIPF ? next_zipf(ids) : next_below(ids->rng, ids->count);
}

/* A short id is the number padded with zeros. From 20 bytes on it is the number as 19 digits and a
 * '-', over and over: ids of any length differ in every part, as a hash and a comparison of real
 * keys would see it, and the text is cheap to make. */
void load_ids_write(const load_ids *ids, uint64_t number, char *dst)
{
    enum { BLOCK = 20 };
    char block[BLOCK];
    for (int i = BLOCK - 2; i >= 0; i--) {
        block[i] = (char)('0' + number % 10);
        number /= 10;
    }
    block[BLOCK - 1] = '-';
    if (ids->bytes < BLOCK) {
        memcpy(dst, block + BLOCK - 1 - ids->bytes, ids->bytes);
        return;
    }
    size_t at = 0;
    for (; at + BLOCK <= ids->bytes; at += BLOCK)
        memcpy(dst + at, block, BLOCK);
    memcpy(dst + at, block, ids->bytes - at);
}
