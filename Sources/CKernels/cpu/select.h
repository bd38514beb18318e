// Lane-by-lane selection between two vectors.
#pragma once

#include "vector.h"

/// Returns the lanes of `yes` where `mask` is set (all ones), and of `no` elsewhere.
BRAID_INLINE u16 bits_where(i16 mask, u16 yes, u16 no) { return ((u16)mask & yes) | (~(u16)mask & no); }
BRAID_INLINE f16 where(i16 mask, f16 yes, f16 no) { return (f16)bits_where(mask, (u16)yes, (u16)no); }

BRAID_INLINE u16 splat_bits(uint32_t x) { return (u16)splat(0) + x; }

/// Returns the larger of each pair of lanes; where `a` is NaN, `b`.
BRAID_INLINE f16 larger_of(f16 a, f16 b) { return where(a > b, a, b); }

/// Returns the largest lane. NaN lanes are ignored; the sign of a zero is unspecified.
BRAID_INLINE float largest_lane(f16 v) {
    v = larger_of(v, splat(-INFINITY));  // a NaN would hide the lanes it is compared with
    v = larger_of(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    v = larger_of(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    v = larger_of(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    float a = v[0], b = v[1];
    return a > b ? a : b;
}
