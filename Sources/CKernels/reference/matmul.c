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

void reference_embedding(const braid_embedding *p) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t n = 0; n < p->n; n++) p->out[i * p->out_stride + n] = weight_at(&p->w, p->ids[i], n);
}
