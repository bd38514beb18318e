// Residual streams. The coefficients of four streams are computed in sixteen lanes: a row of A in each quarter.
#pragma once

#include "../reference/streams_body.h"
#include "norm.h"
#include "select.h"
#include "vector.h"

BRAID_INLINE f16 sigmoid16(f16 z) { return splat(1) / (splat(1) + exp16(-z)); }

/// Copies element k of each row of four to the whole row, and the sum of four such copies.
#define BRAID_ROW_OF(v, k) \
    __builtin_shufflevector( \
        v, v, k, k, k, k, 4 + k, 4 + k, 4 + k, 4 + k, 8 + k, 8 + k, 8 + k, 8 + k, 12 + k, 12 + k, 12 + k, 12 + k)
#define BRAID_COLUMN_OF(v, k) \
    __builtin_shufflevector( \
        v, v, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k, 4 * k + 1, \
        4 * k + 2, 4 * k + 3, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3)

/// Returns in each lane the sum of its row, or of its column, of a 4 × 4 matrix.
BRAID_INLINE f16 row_sums(f16 a) {
    return BRAID_ROW_OF(a, 0) + BRAID_ROW_OF(a, 1) + BRAID_ROW_OF(a, 2) + BRAID_ROW_OF(a, 3);
}
BRAID_INLINE f16 column_sums(f16 a) {
    return BRAID_COLUMN_OF(a, 0) + BRAID_COLUMN_OF(a, 1) + BRAID_COLUMN_OF(a, 2) + BRAID_COLUMN_OF(a, 3);
}

/// Returns in each lane the largest number of its row of a 4 × 4 matrix; NaN is ignored.
BRAID_INLINE f16 row_maxima(f16 a) {
    f16 largest = larger_of(BRAID_ROW_OF(a, 0), splat(-INFINITY));
    largest = larger_of(BRAID_ROW_OF(a, 1), largest);
    largest = larger_of(BRAID_ROW_OF(a, 2), largest);
    return larger_of(BRAID_ROW_OF(a, 3), largest);
}

/// Does what mix_row does, for four streams with writing.
BRAID_INLINE void mix_row_of_4(const braid_stream_mix *p, float r, float *mixes) {
    const float s0 = p->scale[0], s1 = p->scale[1];
    const f16 scale = {s0, s0, s0, s0, s1, s1, s1, s1}, eps = splat(p->eps);
    f16 gates = load_some(mixes, 8) * splat(r) * scale + load_some(p->base, 8);
    f16 a = load16(mixes + 8) * splat(r) * splat(p->scale[2]) + load16(p->base + 8);
    gates = sigmoid16(gates);
    f16 pre = gates + eps, post = splat(2) * gates;
    store_some(mixes, pre, 4);
    store_some(mixes + 4, __builtin_shufflevector(post, post, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7), 4);
    a = exp16(a - row_maxima(a));
    a = a / row_sums(a) + eps;
    a = a / (column_sums(a) + eps);
    for (int64_t round = 1; round < p->rounds; round++) {
        a = a / (row_sums(a) + eps);
        a = a / (column_sums(a) + eps);
    }
    store16(mixes + 8, a);
}

static void stream_mix(const braid_stream_mix *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *u = p->streams + r * p->streams_stride;
        f16 sum = splat(0);
        int64_t j = 0;
        for (; j + 16 <= p->n; j += 16) sum = fma16(load16(u + j), load16(u + j), sum);
        f16 rest = load_some(u + j, p->n - j);
        float factor = inverse_deviation(sum_lanes(fma16(rest, rest, sum)), p->n, p->norm_eps);
        float *mixes = p->mixes + r * p->mixes_stride;
        if (p->count == 4 && !p->reads_only) mix_row_of_4(p, factor, mixes);
        else mix_row(p, factor, mixes);
    }
}

static void read_streams(const braid_streams *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *pre = p->mixes + r * p->mixes_stride, *from = p->streams + r * p->streams_stride;
        float *x = p->x + r * p->x_stride;
        for (int64_t d = 0, lanes; d < p->n; d += 16) {
            lanes = p->n - d < 16 ? p->n - d : 16;
            f16 a = splat(pre[0]) * load_some(from + d, lanes);
            for (int64_t j = 1; j < p->count; j++) a = fma16(splat(pre[j]), load_some(from + j * p->n + d, lanes), a);
            store_some(x + d, a, lanes);
        }
    }
}

/// Writes `lanes` columns of all streams; `count` and `lanes` are constants where they can be.
BRAID_INLINE void write_columns(
    int64_t count, int64_t lanes, const float *post, const float *mix, const float *x, float *streams, int64_t n
) {
    f16 before[BRAID_MAX_STREAMS], o = load_some(x, lanes);
    for (int64_t j = 0; j < count; j++) before[j] = load_some(streams + j * n, lanes);
    for (int64_t k = 0; k < count; k++) {
        f16 a = splat(post[k]) * o;
        for (int64_t j = 0; j < count; j++) a = fma16(splat(mix[j * count + k]), before[j], a);
        store_some(streams + k * n, a, lanes);
    }
}

static void write_streams(const braid_streams *p) {
    const int64_t count = p->count, n = p->n;
    for (int64_t r = 0; r < p->m; r++) {
        const float *post = p->mixes + r * p->mixes_stride + count, *mix = post + count, *x = p->x + r * p->x_stride;
        float *streams = p->streams + r * p->streams_stride;
        int64_t d = 0;
        if (count == 4)
            for (; d + 16 <= n; d += 16) write_columns(4, 16, post, mix, x + d, streams + d, n);
        for (; d < n; d += 16) write_columns(count, n - d < 16 ? n - d : 16, post, mix, x + d, streams + d, n);
    }
}
