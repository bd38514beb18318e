// Normalization of rows, several rows at a time: a row's sum is one chain of sixteen lanes, so only other rows can hide
// the latency of a multiply-add.
#pragma once

#include "../include/norm.h"
#include "vector.h"

/// This many rows are summed side by side.
#define BRAID_NORM_ROWS 4

BRAID_INLINE float inverse_deviation(float sum, int64_t n, float eps) {
    return 1.0f / sqrtf(sum / (float)n + eps);
}

BRAID_INLINE void rms_norm_rows(const braid_norm *p, int64_t first, const int rows) {
    int64_t n = p->n, whole = n & ~(int64_t)15;
    const float *x = p->x + first * p->x_stride;
    float *out = p->out + first * p->out_stride;
    f16 sum[BRAID_NORM_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = splat(0);
    for (int64_t j = 0; j < whole; j += 16) {
        for (int r = 0; r < rows; r++) {
            f16 v = load16(x + r * p->x_stride + j);
            sum[r] = fma16(v, v, sum[r]);
        }
    }
    f16 scale[BRAID_NORM_ROWS];
    for (int r = 0; r < rows; r++) {
        f16 v = load_some(x + r * p->x_stride + whole, n - whole);
        scale[r] = splat(inverse_deviation(sum_lanes(fma16(v, v, sum[r])), n, p->eps));
    }
    for (int64_t j = 0; j < whole; j += 16) {
        f16 w = load16(p->weight + j);
        for (int r = 0; r < rows; r++) {
            store16(out + r * p->out_stride + j, w * (load16(x + r * p->x_stride + j) * scale[r]));
        }
    }
    f16 w = load_some(p->weight + whole, n - whole);
    for (int r = 0; r < rows; r++) {
        f16 v = load_some(x + r * p->x_stride + whole, n - whole);
        store_some(out + r * p->out_stride + whole, w * (v * scale[r]), n - whole);
    }
}

static void rms_norm(const braid_norm *p) {
    int64_t r = 0;
    for (; r + BRAID_NORM_ROWS <= p->m; r += BRAID_NORM_ROWS) rms_norm_rows(p, r, BRAID_NORM_ROWS);
    for (; r < p->m; r++) rms_norm_rows(p, r, 1);
}

BRAID_INLINE void layer_norm_rows(const braid_norm *p, int64_t first, const int rows) {
    int64_t n = p->n, whole = n & ~(int64_t)15;
    const float *x = p->x + first * p->x_stride;
    float *out = p->out + first * p->out_stride;
    f16 sum[BRAID_NORM_ROWS], mean[BRAID_NORM_ROWS], scale[BRAID_NORM_ROWS];
    for (int r = 0; r < rows; r++) sum[r] = splat(0);
    for (int64_t j = 0; j < whole; j += 16) {
        for (int r = 0; r < rows; r++) sum[r] = sum[r] + load16(x + r * p->x_stride + j);
    }
    for (int r = 0; r < rows; r++) {
        sum[r] = sum[r] + load_some(x + r * p->x_stride + whole, n - whole);
        mean[r] = splat(sum_lanes(sum[r]) / (float)n);
        sum[r] = splat(0);
    }
    for (int64_t j = 0; j < whole; j += 16) {
        for (int r = 0; r < rows; r++) {
            f16 d = load16(x + r * p->x_stride + j) - mean[r];
            sum[r] = fma16(d, d, sum[r]);
        }
    }
    for (int r = 0; r < rows; r++) {
        f16 d = load_some(x + r * p->x_stride + whole, n - whole) - mean[r];
        d = load_some((const float *)&d, n - whole);  // clears the lanes beyond the row, which are no deviations
        scale[r] = splat(inverse_deviation(sum_lanes(fma16(d, d, sum[r])), n, p->eps));
    }
    for (int64_t j = 0; j < whole; j += 16) {
        f16 w = load16(p->weight + j), b = load16(p->bias + j);
        for (int r = 0; r < rows; r++) {
            f16 v = (load16(x + r * p->x_stride + j) - mean[r]) * scale[r];
            store16(out + r * p->out_stride + j, fma16(w, v, b));
        }
    }
    f16 w = load_some(p->weight + whole, n - whole), b = load_some(p->bias + whole, n - whole);
    for (int r = 0; r < rows; r++) {
        f16 v = (load_some(x + r * p->x_stride + whole, n - whole) - mean[r]) * scale[r];
        store_some(out + r * p->out_stride + whole, fma16(w, v, b), n - whole);
    }
}

static void layer_norm(const braid_norm *p) {
    int64_t r = 0;
    for (; r + BRAID_NORM_ROWS <= p->m; r += BRAID_NORM_ROWS) layer_norm_rows(p, r, BRAID_NORM_ROWS);
    for (; r < p->m; r++) layer_norm_rows(p, r, 1);
}
