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

/// The factors between a segment's activations and their integers, and the integer of 0.
typedef struct {
    float scale, inverse, offset;
} braid_int8_factors;

/// Returns the factors for a largest magnitude, given by its bits, among which those of a NaN are the largest. They are
/// those of `rounding` if that is given.
static inline braid_int8_factors int8_factors(uint32_t bits, const braid_static_rounding *rounding) {
    const float largest = float_of_bits(bits);
    if (!(largest < INFINITY)) return (braid_int8_factors){NAN, 0, 0};
    if (rounding) return (braid_int8_factors){rounding->scale, 1.0f / rounding->scale, (float)rounding->offset};
    if (largest < BRAID_INT8_LEAST) return (braid_int8_factors){0, 0, 0};
    return (braid_int8_factors){largest / 127.0f, 127.0f / largest, 0};
}

/// Returns what is taken off the sum of row `n` over the segment `k ..< end`.
static inline int32_t int8_correction(const braid_weight *w, int64_t n, int64_t k, int64_t end) {
    const braid_static_rounding *rounding = w->rounding;
    if (!rounding) return 0;
    const int32_t *of_row = rounding->corrections + (w->row + n) * rounding->parts;
    const int64_t columns = rounding->part_columns;
    int32_t total = 0;
    for (int64_t part = (w->column + k + columns - 1) / columns; part * columns < w->column + end; part++)
        total += of_row[part];
    return total;
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
        const braid_int8_factors factors = int8_factors(largest, w->rounding);
        const int8_t *weights = (const int8_t *)weight_bytes(w, n, 0);
        int64_t total = 0;
        for (int64_t i = first; i < end && factors.inverse > 0; i++) {
            const float product = x[i] * factors.inverse;
            total += (int32_t)rintf(fminf(fmaxf(product + factors.offset, -128), 127)) * weights[i];
        }
        total -= int8_correction(w, n, first, end);
        sum = fmaf((float)total, factors.scale * scale_at(w, n, first), sum);
    }
    return sum;
}
