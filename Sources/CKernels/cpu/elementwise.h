// Element-wise operations, and softmax over rows.
#pragma once

#include "../include/elementwise.h"
#include "select.h"
#include "vector.h"

static void add(const braid_add *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *a = p->a + r * p->a_stride, *b = p->b + r * p->b_stride;
        float *out = p->out + r * p->out_stride;
        int64_t j = 0;
        for (; j + 16 <= p->n; j += 16) store16(out + j, load16(a + j) + load16(b + j));
        int64_t rest = p->n - j;
        store_some(out + j, load_some(a + j, rest) + load_some(b + j, rest), rest);
    }
}

static void copy_rows(const braid_copy_rows *p) {
    const int64_t line = 16;
    for (int64_t i = 0; i < p->m; i++) {
        const float *x = p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
        float *out = p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
        for (int64_t b = 0; b < p->pieces; b++, x += p->x_step, out += p->out_step) {
            if (p->n > 16 * line) {
                memcpy(out, x, (size_t)p->n * sizeof(float));
                continue;
            }
            int64_t j = 0;
            for (; j + line <= p->n; j += line) store16(out + j, load16(x + j));
            if (j < p->n) store_some(out + j, load_some(x + j, p->n - j), p->n - j);
        }
    }
}

static void scale(const braid_scale *p) {
    for (int64_t r = 0; r < p->m; r++) {
        float *x = p->x + r * p->x_stride;
        int64_t j = 0;
        for (; j + 16 <= p->n; j += 16) store16(x + j, load16(x + j) * splat(p->factor));
        store_some(x + j, load_some(x + j, p->n - j) * splat(p->factor), p->n - j);
    }
}

/// Computes silu(gate) * up with both bounded by `limit`; a comparison with NaN leaves NaN.
BRAID_INLINE f16 gated(f16 gate, f16 up, f16 limit) {
    gate = where(gate > limit, limit, gate);
    up = where(up > limit, limit, where(up < -limit, -limit, up));
    return gate / (splat(1) + exp16(-gate)) * up;
}

BRAID_INLINE void swiglu_row(
    const float *gate, const float *up, float *out, int64_t n, float bound, bool weighted, float weight
) {
    f16 w = splat(weight), limit = splat(bound);
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        f16 y = gated(load16(gate + j), load16(up + j), limit);
        store16(out + j, weighted ? y * w : y);
    }
    f16 y = gated(load_some(gate + j, n - j), load_some(up + j, n - j), limit);
    store_some(out + j, weighted ? y * w : y, n - j);
}

static void swiglu(const braid_swiglu *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *gate = p->gate + r * p->gate_stride, *up = p->up + r * p->up_stride;
        float *out = p->out + r * p->out_stride;
        if (p->row_weight) swiglu_row(gate, up, out, p->n, p->limit, true, p->row_weight[r]);
        else swiglu_row(gate, up, out, p->n, p->limit, false, 0);
    }
}

/// Loads the first `n` lanes of p, and -infinity in the others, whose exponential adds nothing.
BRAID_INLINE f16 load_some_scores(const float *p, int64_t n) {
    f16 v = splat(-INFINITY);
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

/// Vectorizes reference/elementwise.c's function. The largest value does not depend on the order of comparisons.
BRAID_INLINE float softmax_shift(const float *x, int64_t n) {
    f16 a = splat(-INFINITY), b = a, c = a, d = a;
    int64_t j = 0;
    for (; j + 64 <= n; j += 64) {
        a = larger_of(load16(x + j), a);
        b = larger_of(load16(x + j + 16), b);
        c = larger_of(load16(x + j + 32), c);
        d = larger_of(load16(x + j + 48), d);
    }
    for (; j + 16 <= n; j += 16) a = larger_of(load16(x + j), a);
    a = larger_of(load_some_scores(x + j, n - j), a);
    a = larger_of(larger_of(a, b), larger_of(c, d));
    float largest = largest_lane(a);
    return largest == -INFINITY ? 0.0f : largest;
}

/// Returns the sum of the exponentials, which are stored in `out` unless that is NULL.
BRAID_INLINE float softmax_sum(const float *x, int64_t n, float shift, float *out) {
    f16 sum = splat(0), s = splat(shift);
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        f16 e = exp16(load16(x + j) - s);
        sum = sum + e;
        if (out) store16(out + j, e);
    }
    f16 e = exp16(load_some_scores(x + j, n - j) - s);
    if (out) store_some(out + j, e, n - j);
    return sum_lanes(sum + e);
}

static void softmax(const braid_softmax *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float sum = softmax_sum(x, p->n, softmax_shift(x, p->n), out);
        f16 scale = splat(sum == 0 ? 0.0f : 1.0f / sum);
        int64_t j = 0;
        for (; j + 16 <= p->n; j += 16) store16(out + j, load16(out + j) * scale);
        store_some(out + j, load_some(out + j, p->n - j) * scale, p->n - j);
    }
}

static void log_softmax(const braid_softmax *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float shift = softmax_shift(x, p->n), sum = softmax_sum(x, p->n, shift, NULL);
        f16 total = splat(sum == 0 ? 0.0f : shift + log_scalar(sum));
        int64_t j = 0;
        for (; j + 16 <= p->n; j += 16) store16(out + j, load16(x + j) - total);
        store_some(out + j, load_some(x + j, p->n - j) - total, p->n - j);
    }
}
