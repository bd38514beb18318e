// The coefficients of residual streams, for any number of streams; orders are in include/streams.h.
#pragma once

#include "../include/streams.h"
#include "math.h"

static inline float sigmoid_scalar(float z) { return 1.0f / (1.0f + exp_scalar(-z)); }

/// Adds `count` numbers that are `step` apart, ascending.
static inline float chain_sum(const float *x, int64_t count, int64_t step) {
    float sum = x[0];
    for (int64_t i = 1; i < count; i++) sum = sum + x[i * step];
    return sum;
}

/// Divides each of `count` lines of `count` numbers by its sum + eps.
static inline void normalize_lines(float *a, int64_t count, int64_t line, int64_t step, float eps) {
    for (int64_t i = 0; i < count; i++) {
        float sum = chain_sum(a + i * line, count, step) + eps;
        for (int64_t j = 0; j < count; j++) a[i * line + j * step] = a[i * line + j * step] / sum;
    }
}

static inline void softmax_line(float *a, int64_t count, float eps) {
    float largest = -INFINITY;
    for (int64_t j = 0; j < count; j++) largest = a[j] > largest ? a[j] : largest;
    for (int64_t j = 0; j < count; j++) a[j] = exp_scalar(a[j] - largest);
    float sum = chain_sum(a, count, 1);
    for (int64_t j = 0; j < count; j++) a[j] = a[j] / sum + eps;
}

/// Makes the coefficients of one row from its products; `r` is 1 / sqrt(mean square of the streams + norm_eps).
static inline void mix_row(const braid_stream_mix *p, float r, float *mixes) {
    const int64_t count = p->count, numbers = p->reads_only ? count : (2 + count) * count;
    for (int64_t i = 0; i < numbers; i++) {
        float product = mixes[i] * r, scaled = product * p->scale[i / count < 2 ? i / count : 2];
        mixes[i] = scaled + p->base[i];
    }
    for (int64_t j = 0; j < count; j++) mixes[j] = sigmoid_scalar(mixes[j]) + p->eps;
    if (p->reads_only) return;
    for (int64_t j = count; j < 2 * count; j++) mixes[j] = 2.0f * sigmoid_scalar(mixes[j]);
    float *a = mixes + 2 * count;
    for (int64_t j = 0; j < count; j++) softmax_line(a + j * count, count, p->eps);
    normalize_lines(a, count, 1, count, p->eps);
    for (int64_t round = 1; round < p->rounds; round++) {
        normalize_lines(a, count, count, 1, p->eps);
        normalize_lines(a, count, 1, count, p->eps);
    }
}
