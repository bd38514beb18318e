// The compression of several tokens' inputs to one entry of the cache.
#pragma once

#include "types.h"

/// Computes entries, each a weighted sum over the inputs of `slots` tokens, apart for every column d. An entry's input
/// is `slots` consecutive rows of `2 * halves * n` columns, all values and then all gates. With two halves, the first
/// `slots / 2` rows (those of the previous window, which overlaps) use the first half of both, and the others the
/// second. For slot s with half h, value v_s, and gate g_s = gate + ape[s mod (slots / halves), h * n + d]:
///   largest = max over s of g_s;  e_s = exp(g_s - largest)
///   out = (sum over s of e_s v_s) / (sum over s of e_s)
/// Both sums are chains from +0 with s ascending, `a = fma(e, v, a)` and `b = b + e`; then follows one division. exp is
/// the kernels' own (reference/math.h). A slot whose gate is -infinity adds nothing; if all are, the result is NaN.
typedef struct {
    int64_t m, slots;
    int64_t halves;         // 1 or 2; divides slots
    int64_t n;
    const float *inputs;    // [m * slots, 2 * halves * n]
    int64_t inputs_stride;
    const float *ape;       // [slots / halves, halves * n], packed
    float *out;             // [m, n]
    int64_t out_stride;
} braid_compress;
