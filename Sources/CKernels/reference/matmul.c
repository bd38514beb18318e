// Matrix products and embeddings: one chain per output.
#include "../include/matmul.h"

#include "weights.h"

#pragma STDC FP_CONTRACT OFF

void reference_matmul(const braid_matmul *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const float *x = p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
        float *out = p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
        for (int64_t n = 0; n < p->n; n++) {
            float a = p->accumulate ? out[n] : 0.0f;
            for (int64_t k = 0; k < p->k; k++) {
                float w = p->transposed ? weight_at(&p->w, k, n) : weight_at(&p->w, n, k);
                a = fmaf(x[k], w, a);
            }
            out[n] = a;
        }
    }
}

void reference_batched_matmul(const braid_batched_matmul *p) {
    for (int64_t b = 0; b < p->count; b++) {
        braid_matmul product = p->product;
        product.w = weight_part(product.w, b * p->w_step, 0);
        product.x += b * p->x_step;
        product.out += b * p->out_step;
        reference_matmul(&product);
    }
}

/// Returns the balanced tree over `slices` K-slices of `k` columns from `first` on, for output `n` of one row.
static float sliced_sum(const braid_weight *w, const float *x, int64_t n, int64_t first, int64_t k, int64_t slices) {
    if (slices > 1) {
        float left = sliced_sum(w, x, n, first, k / 2, slices / 2);
        float right = sliced_sum(w, x, n, first + k / 2, k / 2, slices / 2);
        return left + right;
    }
    float a = 0;
    for (int64_t i = first; i < first + k; i++) a = fmaf(x[i], weight_at(w, n, i), a);
    return a;
}

void reference_sliced_matmul(const braid_sliced_matmul *p) {
    const braid_matmul *q = &p->product;
    for (int64_t r = 0; r < q->m; r++)
        for (int64_t n = 0; n < q->n; n++)
            q->out[r * q->out_stride + n] = sliced_sum(&q->w, q->x + r * q->x_stride, n, 0, q->k, p->slices);
}

void reference_embedding(const braid_embedding *p) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t n = 0; n < p->n; n++) p->out[i * p->out_stride + n] = weight_at(&p->w, p->ids[i], n);
}
