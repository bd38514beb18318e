// Matrix products and embeddings.
#include "../include/matmul.h"

#include "dots.h"

#pragma STDC FP_CONTRACT OFF

void reference_matmul(const braid_matmul *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const float *x = p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
        float *out = p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
        for (int64_t n = 0; n < p->n; n++) {
            const float first = p->accumulate ? out[n] : 0.0f;
            out[n] = weight_dot(p->profile, &p->w, p->transposed, x, n, p->k, first);
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

/// Returns the balanced tree over `slices` K-slices of the columns, for output `n` of one row.
static float sliced_sum(const braid_matmul *p, const float *x, int64_t n, int64_t slices) {
    if (slices == 1) return weight_dot(p->profile, &p->w, false, x, n, p->k, 0);
    braid_matmul left = *p, right = *p;
    left.k = right.k = p->k / 2;
    right.w = weight_part(p->w, 0, left.k);
    float sum = sliced_sum(&left, x, n, slices / 2);
    return sum + sliced_sum(&right, x + left.k, n, slices / 2);
}

void reference_sliced_matmul(const braid_sliced_matmul *p) {
    const braid_matmul *q = &p->product;
    for (int64_t r = 0; r < q->m; r++)
        for (int64_t n = 0; n < q->n; n++)
            q->out[r * q->out_stride + n] = sliced_sum(q, q->x + r * q->x_stride, n, p->slices);
}

void reference_embedding(const braid_embedding *p) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t n = 0; n < p->n; n++) p->out[i * p->out_stride + n] = weight_at(&p->w, p->ids[i], n);
}
