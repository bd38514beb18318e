// Conversions between F32, in which kernels compute, and stored types.
#pragma once

#include "types.h"

/// Stores row i of x as entry slots[i] of a cache lane: BF16 rounds to nearest even, F32 is copied, FP8 is quantized as
/// braid_quantize_groups does, with powers of two if the scales are E8M0. The E8M0 scale of a group with an infinite
/// element is NaN. FP4 is quantized as DeepSeek-V4's own code rounds index keys:
///
///   amax = max(max|x|, 6 * 2^-126);  scale = 2^ceil(log2(amax / 6))
///   value = e2m1, round to nearest even, of x / scale
///
/// E2M1 has no NaN, so the scale of a group with a NaN or an infinite element is NaN, and its values are zeros. A row with
/// a negative slot is not stored.
typedef struct {
    int64_t m, n;
    const float *x;
    int64_t x_stride;
    const int32_t *slots;   // [m]
    void *lane;             // entries of n, as in braid_lane
    braid_dtype dtype;
    int64_t group;          // FP8: columns that share a scale; FP4: the same, a multiple of 16, or at least n
    braid_scale_type scale_type;  // FP8; E8M0 for FP4
} braid_store_rows;

/// The least magnitude that counts as the largest of a group of FP4: the largest E2M1 number with the least normal scale.
#define BRAID_FP4_LEAST 0x1.8p-124f

/// Copies entries of a cache lane as they are stored: entry `entries[i]` fills the words of row i, and zeros fill the
/// rest of its last word. A row with a negative entry is not written.
typedef struct {
    int64_t m, bytes;       // of an entry
    const int32_t *entries; // [m]
    const void *lane;
    float *rows;            // [m, (bytes + 3) / 4], row stride stride
    int64_t stride;
} braid_load_entries;

/// Transforms every head of every row in place to H x / sqrt(width), where H is the Sylvester Hadamard matrix.
/// Butterflies are 1, 2, 4, … width / 2 apart in that order; then follows one product with 1 / sqrt(width) rounded to
/// F32.
typedef struct {
    int64_t m, heads;
    int64_t width;          // a power of two, at most BRAID_MAX_HADAMARD
    float *x;               // [m, heads, width], row stride x_stride
    int64_t x_stride;
} braid_hadamard;

#define BRAID_MAX_HADAMARD 1024

/// Returns 1 / sqrt(width) for a power of two: exact, or an exact multiple of sqrt(1/2) rounded once.
static inline float braid_hadamard_scale(int64_t width) {
    float scale = 1;
    for (; width >= 4; width /= 4) scale *= 0.5f;
    return width == 2 ? scale * 0.70710678118654752f : scale;
}

/// Quantizes groups of `group` columns to E4M3 with one F32 scale each, or dequantizes them.
///   amax = max(max|x|, 1e-4);  scale = amax / 448, or 2^ceil(log2(amax / 448)) by exponent arithmetic if power_of_two
///   value = e4m3, round to nearest even, of clamp(x / scale, -448, 448);  dequantized: value * scale
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
