// Matrix products with stored weights, and rows of an embedding.
#pragma once

#include "types.h"

/// Computes `out[r, n] = sum over k of x[r, k] * w[n, k]` (or `w[k, n]` when `transposed`).
///
/// Each output is one chain: `a = accumulate ? out[r, n] : +0`, then for k ascending `a = fma(x, w, a)`.
/// A sum that may be split over ranks is a `braid_sliced_matmul`. In the BF16 profile each output is a BF16 sum (see
/// profile.h) of bf16(x) and bf16(w), from `accumulate ? out[r, n] : +0`, and in the INT8 profiles, for INT8 weights that
/// are not transposed, an INT8 sum from there.
typedef struct {
    braid_weight w;
    braid_profile profile;
    bool transposed;
    bool accumulate;
    int64_t m, n, k;
    const float *x;         // row i of the product reads row x_rows[i] (or i when x_rows is NULL) of x [*, x_stride]
    int64_t x_stride;
    const int32_t *x_rows;
    float *out;             // row i writes row out_rows[i] (or i) of out [*, out_stride]; rows must not repeat
    int64_t out_stride;
    const int32_t *out_rows;
    int64_t gemv_max_rows;       // up to this many rows, weights are read without a panel; 0: the level's default
    float *scratch;         // BRAID_MATMUL_SCRATCH floats, 64-byte aligned
} braid_matmul;

/// This many floats hold the widened weights and packed rows of any product. Tiles may use all of them.
#define BRAID_MATMUL_SCRATCH (2048 * 1024)

/// This many floats of those hold what products without tiles pack, which should stay in the second-level cache.
#define BRAID_PANEL_SCRATCH (512 * 1024)

/// Computes `count` products of one shape, for instance those of all attention heads: product b reads x from column
/// `b * x_step` on and weights from row `b * w_step` on, and writes out from column `b * out_step` on. Each product has
/// the order of braid_matmul.
typedef struct {
    braid_matmul product;   // the first
    int64_t count;
    int64_t x_step, w_step, out_step;
} braid_batched_matmul;

/// Computes a product in the canonical form of a sum that ranks may share: k is cut into `slices` equal K-slices (a
/// power of two that divides k), each slice is one chain (or BF16 or INT8 sum) from +0, and slices are added as a balanced binary
/// tree in index order. A rank that holds a subtree of the slices multiplies its columns, and adding the ranks' results
/// continues the tree: the sum is bitwise equal.
typedef struct {
    braid_matmul product;   // neither transposed nor accumulating, without row lists
    int64_t slices;
    float *partial;         // braid_sliced_scratch(product.profile, product.m, slices) floats, 64-byte aligned
} braid_sliced_matmul;

/// A sliced product is computed in blocks of at most this many outputs, whose partial sums fit the caches. Rows are
/// packed again for each block, which costs more where products take less time.
#define BRAID_SLICED_ELEMENTS (64 * 1024)
#define BRAID_SLICED_FAST_ELEMENTS (512 * 1024)
#define BRAID_SLICED_COLUMNS 64  // at least, in a block

/// For so few rows, the partial sums of all slices of a block are kept until it is complete, so that a level can read each
/// row of weights once from its beginning to its end.
#define BRAID_SLICED_FEW_ROWS 8
#define BRAID_SLICED_FEW_COLUMNS 512

/// Returns the number of columns in a block of a sliced product of `m` rows.
static inline int64_t braid_sliced_columns(braid_profile profile, int64_t m) {
    if (m <= BRAID_SLICED_FEW_ROWS) return BRAID_SLICED_FEW_COLUMNS;
    const int64_t all = profile == BRAID_PROFILE_F32 ? BRAID_SLICED_ELEMENTS : BRAID_SLICED_FAST_ELEMENTS;
    const int64_t columns = all / (m < 1 ? 1 : m) / BRAID_SLICED_COLUMNS * BRAID_SLICED_COLUMNS;
    return columns < BRAID_SLICED_COLUMNS ? BRAID_SLICED_COLUMNS : columns;
}

/// Returns the floats of scratch for one block at each level of the tree except the first, which is the output, or for few
/// rows those of all slices.
static inline int64_t braid_sliced_scratch(braid_profile profile, int64_t m, int64_t slices) {
    if (m <= BRAID_SLICED_FEW_ROWS) return slices * m * BRAID_SLICED_FEW_COLUMNS;
    int64_t levels = 0;
    while (slices >> levels > 1) levels++;
    return levels * m * braid_sliced_columns(profile, m);
}

/// Copies rows of a matrix, widened: `out[i, :] = w[ids[i], :]`. The caller checks the ids.
typedef struct {
    braid_weight w;
    const int32_t *ids;
    int64_t m, n;
    float *out;
    int64_t out_stride;
} braid_embedding;
