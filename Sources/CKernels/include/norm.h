// Normalisation of rows.
#pragma once

#include "types.h"

/// Normalizes rows.
/// rms_norm:   `out = weight * (x * (1 / sqrt(mean(x^2) + eps)))`
/// layer_norm: `out = fma(weight, (x - mean) * (1 / sqrt(mean((x - mean)^2) + eps)), bias)`, biased variance.
///
/// Every sum has 16 accumulators from +0. Accumulator l takes columns l, l + 16, … ascending
/// (`a = fma(x, x, a)`, or `a = a + x` for a mean), then halves are added: l with l + 8, l + 4, l + 2, l + 1.
/// Division, square root and products are separate F32 roundings. `out` may be `x`.
typedef struct {
    int64_t m, n;
    const float *x;
    int64_t x_stride;
    const float *weight;    // [n]
    const float *bias;      // [n], layer_norm only
    float eps;
    float *out;
    int64_t out_stride;
} braid_norm;
