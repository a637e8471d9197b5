/* siphash.h - SipHash-c-d of a byte string (Aumasson, Bernstein 2012), rounds chosen by the caller.
 *
 * The caches use 1-3: as keyed hash of a table it resists crafted keys, and costs 6 rounds on 21
 * bytes. The rounds are parameters so that the tests can run this very code as 2-4, for which
 * reference vectors are published. Constant arguments make the loops disappear.
 */
#ifndef MEMKIT_CORE_SIPHASH_H
#define MEMKIT_CORE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t k0, k1;
} memkit__sip_key;

static inline uint64_t memkit__load64le(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline uint64_t memkit__rotl64(uint64_t v, int n)
{
    return (v << n) | (v >> (64 - n));
}

/* The last 0..7 bytes as a little-endian number. A string of 8 or more has its last word read whole
 * and shifted, which spares the loop. */
static inline uint64_t memkit__sip_tail(const unsigned char *p, size_t len)
{
    size_t left = len & 7;
    if (left == 0)
        return 0;
    if (len >= 8)
        return memkit__load64le(p + len - 8) >> (64 - 8 * left);
    uint64_t v = 0;
    for (size_t i = 0; i < left; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

#define MEMKIT__SIP_ROUND                 \
    do {                                  \
        v0 += v1;                         \
        v2 += v3;                         \
        v1 = memkit__rotl64(v1, 13) ^ v0; \
        v3 = memkit__rotl64(v3, 16) ^ v2; \
        v0 = memkit__rotl64(v0, 32);      \
        v2 += v1;                         \
        v0 += v3;                         \
        v1 = memkit__rotl64(v1, 17) ^ v2; \
        v3 = memkit__rotl64(v3, 21) ^ v0; \
        v2 = memkit__rotl64(v2, 32);      \
    } while (0)

static inline __attribute__((always_inline)) uint64_t memkit__siphash(const memkit__sip_key *key,
                                                                      const void *data, size_t len,
                                                                      int c_rounds, int d_rounds)
{
    const unsigned char *p = data;
    uint64_t v0 = key->k0 ^ 0x736f6d6570736575u, v1 = key->k1 ^ 0x646f72616e646f6du;
    uint64_t v2 = key->k0 ^ 0x6c7967656e657261u, v3 = key->k1 ^ 0x7465646279746573u;
    size_t whole = len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t m = memkit__load64le(p + i);
        v3 ^= m;
        for (int r = 0; r < c_rounds; r++)
            MEMKIT__SIP_ROUND;
        v0 ^= m;
    }
    uint64_t b = ((uint64_t)len << 56) | memkit__sip_tail(p, len);
    v3 ^= b;
    for (int r = 0; r < c_rounds; r++)
        MEMKIT__SIP_ROUND;
    v0 ^= b;
    v2 ^= 0xff;
    for (int r = 0; r < d_rounds; r++)
        MEMKIT__SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#endif
