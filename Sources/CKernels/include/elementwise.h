// Element by element, and softmax over rows.
#pragma once

#include "types.h"

/// `out = a + b` over `m` rows of `n`. `out` may be `a` or `b`.
typedef struct {
    int64_t m, n;
    const float *a;
    int64_t a_stride;
    const float *b;
    int64_t b_stride;
    float *out;
    int64_t out_stride;
} braid_add;

/// `out = (silu(gate) * up) * row_weight`, silu(x) = x / (1 + exp(-x)); without weights the last factor is left out.
/// exp is the kernels' own (reference/math.h): the same bits on every level. `out` may be `gate` or `up`.
typedef struct {
    int64_t m, n;
    const float *gate;
    int64_t gate_stride;
    const float *up;
    int64_t up_stride;
    const float *row_weight;  // [m] or NULL
    float *out;
    int64_t out_stride;
} braid_swiglu;

/// softmax: `exp(x - max) * (1 / sum)`; log_softmax: `x - (max + log(sum))`. In place allowed.
/// Order of the sum: 16 accumulators along columns, then halves, as in norm.h. A NaN anywhere makes the row NaN;
/// a row of only -infinity gives zeros (softmax) or -infinity (log_softmax).
typedef struct {
    int64_t m, n;
    const float *x;
    int64_t x_stride;
    float *out;
    int64_t out_stride;
} braid_softmax;
