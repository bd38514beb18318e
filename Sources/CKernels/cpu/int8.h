// What INT8 products share, with whichever instructions integers are multiplied: how terms are cut, and how rows of
// activations are searched and outputs finished.
#pragma once

#include "../reference/int8.h"
#include "matmul_parts.h"

/// Quantized activations of a segment fill whole steps of this many terms; those after the last are 0.
#define BRAID_INT8_STEP 64

/// A part of the terms that is quantized at once: whole segments, whose steps have this many terms at most.
#define BRAID_INT8_PART BRAID_INT8_SEGMENT

/// Some whole segments of a product's terms.
typedef struct {
    int64_t k, end;
    int64_t segments;
    int64_t width;      // terms of a row, in whole steps
} braid_int8_part;

/// What remains of a row's segment beside its integers.
typedef struct {
    float scale;
    int32_t excess;     // what the sums of products have too much
} braid_int8_segment;

/// Quantized rows, where a product puts them in its scratch.
typedef struct {
    braid_int8_part part;
    int64_t first, rows;            // of the product
    void *terms;                    // [rows, width], or tiles of rows
    braid_int8_segment *segments;   // [rows, segments]
    int32_t *sums;                  // [rows, BRAID_PANEL_WIDTH]
    uint32_t *panel;
    void *row;                      // space for the terms of a row
} braid_int8_rows;

BRAID_INLINE int64_t int8_steps(int64_t terms) {
    return (terms + BRAID_INT8_STEP - 1) / BRAID_INT8_STEP * BRAID_INT8_STEP;
}

/// Returns the part of a product's terms that begins at `k`.
static braid_int8_part int8_part(const braid_matmul *p, int64_t k) {
    braid_int8_part part = {.k = k, .end = k};
    while (part.end < p->k) {
        const int64_t end = int8_segment_end(&p->w, part.end, p->k), width = int8_steps(end - part.end);
        if (part.width + width > BRAID_INT8_PART) break;
        part.width += width;
        part.segments++;
        part.end = end;
    }
    return part;
}

/// Returns the bits of the largest magnitude of a segment.
static uint32_t largest_bits(const float *x, int64_t count) {
    u16 largest = {0};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        largest = __builtin_elementwise_max(largest, (u16)load16(x + i) & 0x7FFFFFFFu);
    if (i < count) largest = __builtin_elementwise_max(largest, (u16)load_some(x + i, count - i) & 0x7FFFFFFFu);
    return __builtin_reduce_max(largest);
}

/// Rounds to integers as rintf does: the sum's low bits are the integer, for magnitudes below 2^22.
BRAID_INLINE i16 rounded_integers(f16 x) { return (i16)(x + splat(0x1.8p23f)) - (i16)splat(0x1.8p23f); }

/// Returns the integers of activations, of which those of a segment are finite.
BRAID_INLINE i16 activation_integers(f16 x, braid_int8_factors factors) {
    const f16 product = x * splat(factors.inverse), moved = product + splat(factors.offset);
    const f16 least = splat(-128), most = splat(127), above = where(moved < least, least, moved);
    return rounded_integers(where(above > most, most, above));
}

/// Returns what is taken off the sums of sixteen outputs from `n` on, of which `lanes` exist, over `k ..< end`.
BRAID_INLINE i16 corrections_at(const braid_matmul *p, int64_t n, int64_t lanes, int64_t k, int64_t end) {
    i16 corrections = {0};
    if (p->w.rounding)
        for (int64_t l = 0; l < lanes; l++) corrections[l] = int8_correction(&p->w, n + l, k, end);
    return corrections;
}

/// Adds the sums of a segment, less their corrections, to sixteen outputs, of which `lanes` exist.
BRAID_INLINE void finish_int8(
    const braid_int8_segment *segment, i16 sums, i16 corrections, f16 scale, bool first, int64_t lanes, float *out
) {
    const f16 sum = __builtin_convertvector(sums - segment->excess - corrections, f16);
    const f16 factor = splat(segment->scale) * scale;
    if (lanes == 16) store16(out, fma16(sum, factor, first ? splat(0) : load16(out)));
    else store_some(out, fma16(sum, factor, first ? splat(0) : load_some(out, lanes)), lanes);
}

/// Adds pairs of vectors into halves of one, until there is one vector whose lane l is the sum of `v[l]`.
BRAID_INLINE i16 sums_of_16(i16 v[16]) {
    BRAID_UNROLL for (int i = 0; i < 8; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
            + __builtin_shufflevector(v[2 * i], v[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    BRAID_UNROLL for (int i = 0; i < 4; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
            + __builtin_shufflevector(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    BRAID_UNROLL for (int i = 0; i < 2; i++)
        v[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29)
            + __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
    return __builtin_shufflevector(v[0], v[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
        + __builtin_shufflevector(v[0], v[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
