// Vectors of sixteen lanes, on every instruction set.
//
// `f16` is one AVX-512 register, two AVX registers or four NEON registers; the compiler splits it. A kernel is written
// once with it, in a header beside this one; level_<name>.c includes them all under that level's target attribute, so
// the package needs no compiler flags. Lanes never mix except in `sum_lanes`, so results are bitwise equal everywhere.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../reference/math.h"

#pragma STDC FP_CONTRACT OFF  // every fused rounding below is written as one

typedef float f16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef float f8 __attribute__((vector_size(32)));
typedef float f4 __attribute__((vector_size(16)));
typedef uint16_t h16 __attribute__((vector_size(32)));
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef uint8_t b8 __attribute__((vector_size(8)));

#define BRAID_INLINE static inline __attribute__((always_inline))

BRAID_INLINE f16 load16(const float *p) { f16 v; memcpy(&v, p, sizeof v); return v; }
BRAID_INLINE void store16(float *p, f16 v) { memcpy(p, &v, sizeof v); }
BRAID_INLINE f16 splat(float x) { return (f16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
BRAID_INLINE f16 fma16(f16 a, f16 b, f16 c) { return __builtin_elementwise_fma(a, b, c); }

/// Loads the first `n` (0...16) lanes of p, and zero in the others; never reads past them.
BRAID_INLINE f16 load_some(const float *p, int64_t n) {
    f16 v = splat(0);
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}
BRAID_INLINE void store_some(float *p, f16 v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof(float)); }

/// Widens sixteen BF16 values exactly.
BRAID_INLINE f16 widen_bf16(const void *p) {
    h16 h;
    memcpy(&h, p, sizeof h);
    u16 w = __builtin_convertvector(h, u16) << 16;
    return (f16)w;
}

/// Adds the lanes in the documented order: l with l + 8, l + 4, l + 2, l + 1.
BRAID_INLINE float sum_lanes(f16 v) {
    f8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    f4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    float c0 = b[0] + b[2], c1 = b[1] + b[3];
    return c0 + c1;
}

/// Computes `exp_scalar` on sixteen lanes.
BRAID_INLINE f16 exp16(f16 y) {
    i16 high = y > splat(88.72f), low = y < splat(-87.33f), nan = y != y;
    i16 plain = ~(high | low | nan);
    f16 x = (f16)((i16)y & plain);  // out-of-range lanes compute e^0 and are replaced
    BRAID_EXP_BODY(f16, i16, fma16, splat, 0)
    i16 e = __builtin_convertvector(n, i16), half = e >> 1;
    f16 fa = (f16)((half + 127) << 23), fb = (f16)((e - half + 127) << 23);
    f16 v = p * fa * fb;
    i16 special = ((i16)splat(INFINITY) & high) | ((i16)y & nan);
    return (f16)(((i16)v & plain) | special);
}

/// Computes `log_scalar` on eight numbers that are positive and finite.
BRAID_INLINE f8 log_of_8(f8 x) {
    typedef double d8 __attribute__((vector_size(64)));
    typedef int64_t l8 __attribute__((vector_size(64)));
    typedef int32_t w8 __attribute__((vector_size(32)));
    l8 bits = (l8)__builtin_convertvector(x, d8);
    l8 e = (bits >> 52) - 1022;
    d8 m = (d8)((bits & 0xFFFFFFFFFFFFF) | (int64_t)1022 << 52);
    l8 low = m < 0.70710678118654752;
    m = (d8)((l8)m + (low & (int64_t)1 << 52));  // doubled
    e += low;
    d8 t = (m - 1) / (m + 1), t2 = t * t, sum = t - t;
    for (int k = 21; k >= 1; k -= 2) sum = sum * t2 + 1.0 / k;
    d8 exponent = __builtin_convertvector(__builtin_convertvector(e, w8), d8);
    return __builtin_convertvector(2 * t * sum + exponent * 0.69314718055994530942, f8);
}

/// Computes `log_scalar` on sixteen lanes.
BRAID_INLINE f16 log16(f16 x) {
    i16 positive = x > splat(0), infinite = x == splat(INFINITY), zero = x == splat(0), plain = positive & ~infinite;
    f16 v = (f16)(((i16)x & plain) | ((i16)splat(1) & ~plain));
    f8 low = log_of_8(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7));
    f8 high = log_of_8(__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    f16 log = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    i16 rest = ((i16)splat(INFINITY) & infinite) | ((i16)splat(-INFINITY) & zero)
        | ((i16)splat(NAN) & ~(positive | zero));
    return (f16)(((i16)log & plain) | rest);
}
