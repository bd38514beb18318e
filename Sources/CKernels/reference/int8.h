// The arithmetic of the INT8 profiles (see profile.h) in scalar code.
#pragma once

#include "../include/profile.h"
#include "weights.h"

#pragma STDC FP_CONTRACT OFF

/// Returns whether the outputs of a product are INT8 sums.
static inline bool is_int8_product(braid_profile profile, const braid_weight *w, bool transposed) {
    const bool is_int8 = profile == BRAID_PROFILE_INT8 || profile == BRAID_PROFILE_INT8_F32;
    return is_int8 && w->dtype == BRAID_INT8 && !transposed;
}

/// Returns where the segment that contains term `k` ends, `end` at most.
static inline int64_t int8_segment_end(const braid_weight *w, int64_t k, int64_t end) {
    const int64_t scaled = block_end(w->column + k, w->column_shift) - w->column;
    const int64_t longest = block_end(w->column + k, BRAID_INT8_SEGMENT_SHIFT) - w->column;
    const int64_t next = scaled < longest ? scaled : longest;
    return next < end ? next : end;
}

/// The factors between a segment's activations and their integers.
typedef struct {
    float scale, inverse;
} braid_int8_factors;

/// Returns the factors for a largest magnitude, given by its bits, among which those of a NaN are the largest.
static inline braid_int8_factors int8_factors(uint32_t bits) {
    const float largest = float_of_bits(bits);
    if (!(largest < INFINITY)) return (braid_int8_factors){NAN, 0};
    if (largest < BRAID_INT8_LEAST) return (braid_int8_factors){0, 0};
    return (braid_int8_factors){largest / 127.0f, 127.0f / largest};
}

/// Returns the INT8 sum from `sum` of one output: row `n` of the weights.
static inline float int8_dot(const braid_weight *w, const float *x, int64_t n, int64_t k, float sum) {
    for (int64_t first = 0, end; first < k; first = end) {
        end = int8_segment_end(w, first, k);
        uint32_t largest = 0;
        for (int64_t i = first; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, &x[i], sizeof bits);
            bits &= 0x7FFFFFFFu;
            largest = bits > largest ? bits : largest;
        }
        const braid_int8_factors factors = int8_factors(largest);
        const int8_t *weights = (const int8_t *)weight_bytes(w, n, 0);
        int32_t total = 0;
        for (int64_t i = first; i < end && factors.inverse > 0; i++)
            total += (int32_t)rintf(x[i] * factors.inverse) * weights[i];
        sum = fmaf((float)total, factors.scale * scale_at(w, n, first), sum);
    }
    return sum;
}
