// Element-wise operations, and softmax over rows; orders and special values are in include/elementwise.h.
#include "../include/elementwise.h"

#include <string.h>

#include "math.h"
#include "order.h"

void reference_add(const braid_add *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j++) {
            p->out[r * p->out_stride + j] = p->a[r * p->a_stride + j] + p->b[r * p->b_stride + j];
        }
    }
}

void reference_copy_rows(const braid_copy_rows *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const float *x = p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
        float *out = p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
        for (int64_t b = 0; b < p->pieces; b++)
            memcpy(out + b * p->out_step, x + b * p->x_step, (size_t)p->n * sizeof(float));
    }
}

void reference_scale(const braid_scale *p) {
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t j = 0; j < p->n; j++) p->x[r * p->x_stride + j] = p->x[r * p->x_stride + j] * p->factor;
}

void reference_swiglu(const braid_swiglu *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j++) {
            float gate = bounded_scalar(p->gate[r * p->gate_stride + j], -INFINITY, p->limit);
            float silu = gate / (1.0f + exp_scalar(-gate));
            float y = silu * bounded_scalar(p->up[r * p->up_stride + j], -p->limit, p->limit);
            p->out[r * p->out_stride + j] = p->row_weight ? y * p->row_weight[r] : y;
        }
    }
}

/// Returns what is subtracted from a row before exp: its largest value, or 0 where that is -infinity, so that such a
/// row has the sum 0. NaN is ignored here; it appears again in the sum.
static float softmax_shift(const float *x, int64_t n) {
    float largest = -INFINITY;
    for (int64_t j = 0; j < n; j++) largest = x[j] > largest ? x[j] : largest;
    return largest == -INFINITY ? 0.0f : largest;
}

static float softmax_sum(const float *x, int64_t n, float shift) {
    float partial[16] = {0};
    for (int64_t j = 0; j < n; j++) partial[j % 16] = partial[j % 16] + exp_scalar(x[j] - shift);
    return add_halves(partial);
}

void reference_softmax(const braid_softmax *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float shift = softmax_shift(x, p->n), sum = softmax_sum(x, p->n, shift);
        float scale = sum == 0 ? 0.0f : 1.0f / sum;
        for (int64_t j = 0; j < p->n; j++) out[j] = exp_scalar(x[j] - shift) * scale;
    }
}

void reference_log_softmax(const braid_softmax *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float shift = softmax_shift(x, p->n), sum = softmax_sum(x, p->n, shift);
        float total = sum == 0 ? 0.0f : shift + log_scalar(sum);
        for (int64_t j = 0; j < p->n; j++) out[j] = x[j] - total;
    }
}
