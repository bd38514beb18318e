// Element-wise operations, and softmax over rows.
#pragma once

#include "types.h"

/// Adds: `out = a + b` over `m` rows of `n`. `out` may be `a` or `b`.
typedef struct {
    int64_t m, n;
    const float *a;
    int64_t a_stride;
    const float *b;
    int64_t b_stride;
    float *out;
    int64_t out_stride;
} braid_add;

/// Copies `pieces` runs of `n` elements of each row, bit by bit: piece b of row i begins at `b * x_step` and goes to
/// `b * out_step`. The elements may be integers. Output rows must not repeat, and no input element may be an output.
typedef struct {
    int64_t m, pieces, n;
    const float *x;         // row i is row x_rows[i] (or i when x_rows is NULL) of x [*, x_stride]
    int64_t x_stride, x_step;
    const int32_t *x_rows;
    float *out;             // row i writes row out_rows[i] (or i) of out [*, out_stride]
    int64_t out_stride, out_step;
    const int32_t *out_rows;
} braid_copy_rows;

/// Multiplies in place: `x = x * factor`.
typedef struct {
    int64_t m, n;
    float factor;
    float *x;
    int64_t x_stride;
} braid_scale;

/// Computes `out = (silu(gate) * up) * row_weight` with silu(x) = x / (1 + exp(-x)); without weights the last factor is
/// left out. exp is the kernels' own (reference/math.h), bitwise equal on every level. `out` may be `gate` or `up`.
/// Both are bounded first: gate to at most `limit`, up to `-limit ... limit`. NaN stays NaN.
typedef struct {
    int64_t m, n;
    const float *gate;
    int64_t gate_stride;
    const float *up;
    int64_t up_stride;
    const float *row_weight;  // [m] or NULL
    float limit;              // not negative; infinity for no bounds
    float *out;
    int64_t out_stride;
} braid_swiglu;

/// Computes softmax, `exp(x - max) * (1 / sum)`, or log_softmax, `x - (max + log(sum))`. `out` may be `x`.
/// The sum has 16 accumulators along columns, then halves are added, as in norm.h. A NaN anywhere makes the row NaN;
/// a row of only -infinity gives zeros (softmax) or -infinity (log_softmax).
typedef struct {
    int64_t m, n;
    const float *x;
    int64_t x_stride;
    float *out;
    int64_t out_stride;
} braid_softmax;
