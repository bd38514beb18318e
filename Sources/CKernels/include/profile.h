// Numerics profiles: how products and attention round, and in which order they add.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// A profile is a property of a run. Every level computes every profile with the same bits.
///
/// **F32.** Operands are widened to F32; the order of summation is that of each operation's header.
///
/// **BF16.** Operands are rounded to BF16 and added in the order in which AMX (TDPBF16PS) adds, so that a processor
/// with that instruction and one without it give the same bits. Where an operation's header says "a BF16 sum" of a and
/// b, with K terms and from `C`, it is, for each block of 32 terms ascending:
///
///   e = o = +0;  for p = 0 ... 15:  e = fma(a[2p], b[2p], e);  o = fma(a[2p + 1], b[2p + 1], o)
///   C = C + (e + o)
///
/// Terms beyond K are +0 * +0. In each of those lines, and in products of a stored weight or key with its scale, an
/// operand of magnitude below 2^-126 counts as a zero of its sign, and a result that would be below 2^-126 if it were
/// rounded to 24 bits with an unbounded exponent becomes a zero of its sign. All roundings are to nearest, ties to
/// even.
///
/// `bf16(x)` keeps the sign, makes magnitudes below 2^-126 zero, rounds to 8 bits, and leaves a NaN a NaN. Which NaN is
/// not promised. A stored weight or key becomes `bf16(value * scale)`, where FP4, FP8 with a power of two as scale, and
/// BF16 lose nothing. Sources: Intel's Software Developer's Manual, TDPBF16PS and VCVTNEPS2BF16.
///
/// **INT8, INT8_F32.** As BF16 and F32, but where the weights are INT8 and not transposed, activations are rounded to
/// integers, and each output is "an INT8 sum" from `S`. Terms are cut into segments, which end where the weights' scale changes along
/// a row, and at columns of the whole matrix that are multiples of BRAID_INT8_SEGMENT. For each segment ascending:
///
///   a = max |x|;  s = a / 127;  q = rint(x * (127 / a))      of a row's terms in the segment, ties to even
///   I = sum of q * w                                         exact in 32 bits, so its order does not matter
///   S = fma(float(I), s * scale, S)                          with the scale of the weights
///
/// If the weights fix how activations are rounded (braid_static_rounding), with `offset` and `scale`, instead
///
///   s = scale;  q = rint(clamp(x * (1 / scale) + offset, -128, 127))        three roundings before rint
///   I = sum of q * w - corrections of the segment
///
/// where the corrections are what the offset adds to the sums. A segment with an infinity or a NaN is as
/// below, and no a is too small.
///
/// If a is less than BRAID_INT8_LEAST, s and all q are 0. If it is infinite or a NaN, s is a NaN and all q are 0. A term
/// of the sum is computed without flushing.
typedef enum {
    BRAID_PROFILE_F32 = 0,
    BRAID_PROFILE_BF16 = 1,
    BRAID_PROFILE_INT8_F32 = 2,
    BRAID_PROFILE_INT8 = 3,
} braid_profile;

/// Returns whether products other than INT8 sums are BF16 sums.
static inline bool braid_rounds_to_bf16(braid_profile profile) {
    return profile == BRAID_PROFILE_BF16 || profile == BRAID_PROFILE_INT8;
}

/// The terms of a block of a BF16 sum.
#define BRAID_BF16_BLOCK 32

/// The most terms of a segment of an INT8 sum, as a power of two: sums stay below 2^31, also with 128 added to weights.
#define BRAID_INT8_SEGMENT_SHIFT 16
#define BRAID_INT8_SEGMENT (1 << BRAID_INT8_SEGMENT_SHIFT)

/// A segment whose activations are all smaller counts as zeros, lest 127 / a be infinite.
#define BRAID_INT8_LEAST 0x1p-100f
