// exp and log are bitwise equal on every level: the scalar form here and the 16-lane form (cpu/vector.h) do the same
// operations.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/// Approximates e^x within about 1 ulp: x = n ln 2 + r, a degree-6 polynomial in r, then the exponent.
/// Below -87.33 (where the result would be denormal) the result is +0; above 88.72 it is +infinity; NaN stays NaN.
#define BRAID_EXP_BODY(FLOAT, INT, FMA, SPLAT, SELECT)                                                    \
    FLOAT n = FMA(x, SPLAT(0x1.715476p+0f), SPLAT(12582912.0f)) - SPLAT(12582912.0f);                      \
    FLOAT r = FMA(n, SPLAT(-0x1.62e400p-1f), x);                                                           \
    r = FMA(n, SPLAT(-0x1.7f7d1cp-20f), r);                                                                \
    FLOAT p = SPLAT(0x1.6a98dap-10f);                                                                      \
    p = FMA(p, r, SPLAT(0x1.126fd8p-7f));                                                                  \
    p = FMA(p, r, SPLAT(0x1.5558b6p-5f));                                                                  \
    p = FMA(p, r, SPLAT(0x1.55548ep-3f));                                                                  \
    p = FMA(p, r, SPLAT(0x1.fffff8p-2f));                                                                  \
    p = FMA(p, r, SPLAT(1.0f));                                                                            \
    p = FMA(p, r, SPLAT(1.0f));

static inline float exp_scalar(float x) {
    if (x != x) return x;
    if (x > 88.72f) return INFINITY;
    if (x < -87.33f) return 0.0f;
#define BRAID_ID(v) (v)
    BRAID_EXP_BODY(float, int32_t, fmaf, BRAID_ID, 0)
#undef BRAID_ID
    int32_t e = (int32_t)n, half = e >> 1;  // in two steps: 2^128 is not a float
    uint32_t a = (uint32_t)(half + 127) << 23, b = (uint32_t)(e - half + 127) << 23;
    float fa, fb;
    memcpy(&fa, &a, 4);
    memcpy(&fb, &b, 4);
    return p * fa * fb;
}

/// Returns `x`, or the bound that it exceeds; NaN stays NaN.
static inline float bounded_scalar(float x, float lower, float upper) {
    return x > upper ? upper : x < lower ? lower : x;
}

/// Computes ln x in double, for a positive and finite x, without the C library's logarithm.
static inline double log_double(double x) {
    int e;
    double m = frexp(x, &e);  // exact
    if (m < 0.70710678118654752) { m *= 2; e -= 1; }
    double t = (m - 1) / (m + 1), t2 = t * t, s = 0;
    for (int k = 21; k >= 1; k -= 2) s = s * t2 + 1.0 / k;
    return 2 * t * s + e * 0.69314718055994530942;
}

/// Computes ln x for x > 0 in double, rounded once, so that the result does not depend on the C library.
static inline float log_scalar(float x) {
    if (!(x > 0)) return x == 0 ? -INFINITY : NAN;
    if (x == INFINITY) return x;
    return (float)log_double((double)x);
}

/// Computes softplus, ln(1 + e^x), in double from the F32 exponential, rounded once. Above 20 it is x, as PyTorch
/// defines it; NaN stays NaN. Below -87.33, where `exp_scalar` is 0, results are denormal down to -103.97. PyTorch's are
/// there, too: its scalar code ends at the same logit, that for AVX-512 at -102.87.
static inline float softplus_scalar(float x) {
    if (x > 20.0f || x != x) return x;
    double e = (double)exp_scalar(x < -87.33f ? 0.5f * x : x);
    if (x < -87.33f) e *= e;
    if (e < 0x1p-12) return (float)(e - e * e * (0.5 - e * (1.0 / 3)));  // 1 + e would lose the digits of e
    return (float)log_double(1 + e);
}
