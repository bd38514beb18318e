// Matrix products with stored weights, and rows of an embedding.
#pragma once

#include "types.h"

/// `out[r, n] = sum over k of x[r, k] * w[n, k]` (or `w[k, n]` when `transposed`).
///
/// Order: one chain per output. `a = accumulate ? out[r, n] : +0`, then for k ascending `a = fma(x, w, a)`.
/// A sum that may be split over ranks is made of several calls (one per K-slice) added as a balanced tree by the caller.
typedef struct {
    braid_weight w;
    bool transposed;
    bool accumulate;
    int64_t m, n, k;
    const float *x;         // row i of the product reads row x_rows[i] (or i when x_rows is NULL) of x [*, x_stride]
    int64_t x_stride;
    const int32_t *x_rows;
    float *out;             // row i writes row out_rows[i] (or i) of out [*, out_stride]; rows must not repeat
    int64_t out_stride;
    const int32_t *out_rows;
    int64_t gemv_max_rows;       // this many rows or fewer make no panel of the weights; 0: as the level does it
    float *scratch;         // BRAID_MATMUL_SCRATCH floats, 64-byte aligned
} braid_matmul;

/// Enough for a panel of weights widened to F32, whatever the shape.
#define BRAID_MATMUL_SCRATCH (64 * 1024)

/// `out[i, :] = w[ids[i], :]` widened. Ids are checked by the caller.
typedef struct {
    braid_weight w;
    const int32_t *ids;
    int64_t m, n;
    float *out;
    int64_t out_stride;
} braid_embedding;
