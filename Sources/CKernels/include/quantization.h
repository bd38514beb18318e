// Conversions between what is computed (F32) and what is stored.
#pragma once

#include "types.h"

/// Row i of x goes to entry slots[i] of a cache lane, converted: BF16 by round to nearest even, F32 as it is.
/// A negative slot is not stored.
typedef struct {
    int64_t m, n;
    const float *x;
    int64_t x_stride;
    const int32_t *slots;   // [m]
    void *lane;             // [*, n]
    braid_dtype dtype;
} braid_store_rows;

/// In place: every row of 128 becomes H x / sqrt(128), H the Sylvester Hadamard matrix; butterflies of width
/// 1, 2, 4, … 64 in that order, then one product with 0.08838834764831845f.
typedef struct {
    int64_t m;
    float *x;
    int64_t x_stride;
} braid_hadamard;

/// Groups of `group` columns to E4M3 with one F32 scale each, and back.
///   amax = max(max|x|, 1e-4);  scale = amax / 448, or 2^ceil(log2(amax / 448)) by exponent arithmetic if power_of_two
///   value = e4m3, round to nearest even, of clamp(x / scale, -448, 448);  back: value * scale
/// The last group of a row may be shorter. NaN becomes E4M3 NaN.
typedef struct {
    int64_t m, n, group;
    bool power_of_two;
    float *x;               // quantize reads, dequantize writes
    int64_t x_stride;
    uint8_t *values;        // [m, values_stride]
    int64_t values_stride;
    float *scales;          // [m, scales_stride], ceil(n / group) used
    int64_t scales_stride;
} braid_quantize_groups;
