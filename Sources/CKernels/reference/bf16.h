// The arithmetic of the BF16 profile (see profile.h) in scalar code that does not depend on the processor's modes.
#pragma once

#include "../include/profile.h"
#include "weights.h"

#pragma STDC FP_CONTRACT OFF

/// Returns `x`, or a zero of its sign if its magnitude is below 2^-126.
static inline float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

/// Computes a * b + c with operands and the result flushed. A result near 2^-126 is decided in double: `a * b` is
/// exact there, and so is the sum wherever it matters whether it rounds to 2^-126, because `c` then is a small multiple
/// of 2^-149, and `a * b` has few bits or is too small to matter.
static inline float flushed_fma(float a, float b, float c) {
    a = flushed(a);
    b = flushed(b);
    c = flushed(c);
    float plain = fmaf(a, b, c);
    if (!(fabsf(plain) <= 0x1p-126f)) return plain;
    double exact = (double)a * (double)b + (double)c;
    if (exact == 0) return plain;
    return copysignf(fabs(exact) >= 0x1p-126 - 0x1p-151 ? 0x1p-126f : 0, exact < 0 ? -1.0f : 1.0f);
}

/// Computes a + b with operands and the result flushed. A sum that small is exact.
static inline float flushed_add(float a, float b) { return flushed(flushed(a) + flushed(b)); }

/// Computes a * b with operands and the result flushed. Adding -0 keeps the sign of a zero.
static inline float flushed_product(float a, float b) { return flushed_fma(a, b, -0.0f); }

/// Rounds to BF16, widened again.
static inline float bf16_rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return float_of_bits((bits & 0xFFFF0000u) | 0x400000u);
    if (fabsf(x) < 0x1p-126f) return float_of_bits(bits & 0x80000000u);
    return float_of_bits((bits + 0x7FFFu + (bits >> 16 & 1)) & 0xFFFF0000u);
}

/// Returns a weight as it enters a product.
static inline float bf16_weight_at(const braid_weight *w, int64_t row, int64_t column) {
    if (!w->scale) return bf16_rounded(weight_at(w, row, column));
    return bf16_rounded(flushed_product(unscaled_weight_at(w, row, column), scale_at(w, row, column)));
}

/// Returns an element of a cached key as it enters a sum.
static inline float bf16_lane_at(const braid_lane *lane, int64_t entry, int64_t i) {
    const float value = unscaled_lane_at(lane, entry, i);
    if (!braid_lane_has_scales(lane->dtype)) return bf16_rounded(value);
    return bf16_rounded(flushed_product(value, entry_scale(lane, entry_at(lane, entry), i / lane->group)));
}

/// A BF16 sum in progress: terms are added one by one, and a block's two chains join the total when it is full.
typedef struct {
    float total, chain[2];
    int64_t terms;
} braid_bf16_sum;

static inline braid_bf16_sum bf16_sum_from(float total) { return (braid_bf16_sum){.total = total}; }

static inline void bf16_sum_add(braid_bf16_sum *s, float a, float b) {
    s->chain[s->terms & 1] = flushed_fma(a, b, s->chain[s->terms & 1]);
    if (++s->terms % BRAID_BF16_BLOCK) return;
    s->total = flushed_add(s->total, flushed_add(s->chain[0], s->chain[1]));
    s->chain[0] = s->chain[1] = 0;
}

/// Fills the last block with +0 * +0, which makes a chain that is -0 positive, and returns the sum.
static inline float bf16_sum_total(braid_bf16_sum *s) {
    while (s->terms % BRAID_BF16_BLOCK) bf16_sum_add(s, 0, 0);
    return s->total;
}
