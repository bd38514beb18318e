// The arithmetic of the BF16 profile (see profile.h) on vectors.
#pragma once

#include "../include/profile.h"
#include "panel.h"
#include "vector.h"

/// A function whose arithmetic needs the flushing mode is not inlined: the compiler may move arithmetic across a change
/// of the mode, but not out of a call.
#define BRAID_FLUSHING static __attribute__((noinline))

#if defined(__x86_64__)
/// Makes operands and results below 2^-126 zeros of their sign until `end_flushing`. Returns the mode before.
BRAID_INLINE unsigned begin_flushing(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
BRAID_INLINE void end_flushing(unsigned before) { _mm_setcsr(before); }

/// Keeps magnitudes below 2^-126, for sums outside of products, until `end_flushing`. Returns the mode before.
BRAID_INLINE unsigned pause_flushing(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(before & ~0x8040u);
    return before;
}
#endif

/// Rounds each lane to BF16, widened again: magnitudes below 2^-126 become zeros, a NaN stays one.
BRAID_INLINE f16 round_bf16(f16 x) {
    u16 bits = (u16)x, magnitude = bits & 0x7FFFFFFFu;
    u16 rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u;
    i16 nan = (i16)(magnitude > 0x7F800000u), tiny = (i16)(magnitude < 0x800000u);
    f16 finite = where(tiny, (f16)(bits & 0x80000000u), (f16)rounded);
    return where(nan, (f16)((bits & 0xFFFF0000u) | 0x400000u), finite);
}

/// Returns whether a scale is a power of two, so that its products with FP8 and FP4 numbers are exact in BF16.
BRAID_INLINE bool is_power_of_two(float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    return (bits & 0x7FFFFFu) == 0;
}

/// Rounds elements of an array that has room for whole vectors.
BRAID_INLINE void round_elements(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store16(x + i, round_bf16(load16(x + i)));
}
