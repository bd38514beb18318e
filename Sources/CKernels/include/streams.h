// The residual streams of manifold-constrained hyper-connections (DeepSeek-V4), which replace a single residual stream.
#pragma once

#include "types.h"

/// There are at most this many streams; callers check.
#define BRAID_MAX_STREAMS 8

/// Computes the coefficients with which a sublayer reads and writes each row's `count` residual streams, in place.
/// A row of `mixes` holds the products `fn u` of the flattened streams `u`, `(2 + count) * count` of them or, with
/// `reads_only`, `count`. They become `pre` [count], `post` [count] and `A` [count, count] (or `pre` alone):
///   r = 1 / sqrt(mean(u^2) + norm_eps), with the sum of squares of norm.h;  z_i = (mixes_i * r) * scale_g + base_i,
///   where g is 0 for pre, 1 for post and 2 for A
///   pre = sigmoid(z) + eps;  post = 2 * sigmoid(z);  sigmoid(z) = 1 / (1 + exp(-z))
///   A = softmax over the columns of each row of z, + eps;  A = A / (sum over rows + eps)
///   then `rounds - 1` times: A = A / (sum over columns + eps);  A = A / (sum over rows + eps)
/// A softmax is exp(z - largest) / sum. Sums of `count` numbers are chains of plain additions, ascending from the first.
/// exp is the kernels' own (reference/math.h). Source: DeepSeek-V4's `hc_split_sinkhorn`.
typedef struct {
    int64_t m, count;
    int64_t n;              // columns of the flattened streams, count * hidden
    int64_t rounds;         // at least 1
    bool reads_only;
    const float *streams;   // [m, n]
    int64_t streams_stride;
    const float *scale;     // [3], or [1] with reads_only
    const float *base;      // as many as a row of mixes has numbers
    float norm_eps, eps;
    float *mixes;
    int64_t mixes_stride;
} braid_stream_mix;

/// Reads or writes a sublayer's rows from or to the residual streams, with the coefficients of braid_stream_mix.
///   read:   x = sum over j of pre_j X_j, as `a = pre_0 * X_0`, then `a = fma(pre_j, X_j, a)` for j ascending
///   write:  X_k = post_k x + sum over j of A_jk X_j, as `a = post_k * x`, then `a = fma(A_jk, X_j, a)` for j
///           ascending, with all X_j as they were before
typedef struct {
    int64_t m, count;
    int64_t n;              // columns of a stream
    const float *mixes;     // [m, ...]: pre, post, A
    int64_t mixes_stride;
    float *streams;         // [m, count, n], row stride streams_stride
    int64_t streams_stride;
    float *x;               // [m, n]
    int64_t x_stride;
} braid_streams;
