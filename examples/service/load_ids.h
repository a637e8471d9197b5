/* load_ids.h - which id the next request asks for: seeded populations of ids.
 *
 * The same kind, count, length and seed give the same sequence on every machine with IEEE doubles
 * and the same libm; so before and after meet the same ids in the same order. O(1) memory whatever
 * the count.
 */
#ifndef LOAD_IDS_H
#define LOAD_IDS_H

#include <stddef.h>
#include <stdint.h>

typedef enum { LOAD_UNIFORM = 0, LOAD_ZIPF } load_ids_kind;

#define LOAD_ZIPF_THETA   0.99
#define LOAD_ID_BYTES_MAX 15000 /* the service takes request lines up to 16 KiB */

typedef struct {
    load_ids_kind kind;
    uint64_t count;
    size_t bytes;
    uint64_t rng[4];
    /* Zipf only: constants of the sampler, see load_ids.c */
    double theta, h_x1, h_n, s;
} load_ids;

/* count ids of `bytes` bytes each. theta counts for LOAD_ZIPF only, 0 < theta <= 10.
 * 0, or -1: EINVAL (count 0 or above 2^53; bytes above LOAD_ID_BYTES_MAX, or too few to write
 * count - 1 in decimal; theta). */
int load_ids_init(load_ids *ids, load_ids_kind kind, uint64_t count, size_t bytes, double theta,
                  uint64_t seed);

/* The next number, 0 .. count - 1. Under Zipf number k has a probability proportional to
 * 1 / (k + 1)^theta: 0 is the most popular. */
uint64_t load_ids_next(load_ids *ids);

/* Writes the id of a number to dst: exactly ids->bytes bytes, no '\0', of [0-9-] only. */
void load_ids_write(const load_ids *ids, uint64_t number, char *dst);

#endif
