// Normalisation of rows; the order of every sum is in include/norm.h.
#include "../include/norm.h"

#include <math.h>

#include "order.h"

void reference_rms_norm(const braid_norm *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float partial[16] = {0};
        for (int64_t j = 0; j < p->n; j++) partial[j % 16] = fmaf(x[j], x[j], partial[j % 16]);
        float mean = add_halves(partial) / (float)p->n;
        float scale = 1.0f / sqrtf(mean + p->eps);
        for (int64_t j = 0; j < p->n; j++) out[j] = p->weight[j] * (x[j] * scale);
    }
}

void reference_layer_norm(const braid_norm *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *x = p->x + r * p->x_stride;
        float *out = p->out + r * p->out_stride;
        float sums[16] = {0};
        for (int64_t j = 0; j < p->n; j++) sums[j % 16] = sums[j % 16] + x[j];
        float mean = add_halves(sums) / (float)p->n;
        float squares[16] = {0};
        for (int64_t j = 0; j < p->n; j++) {
            float d = x[j] - mean;
            squares[j % 16] = fmaf(d, d, squares[j % 16]);
        }
        float variance = add_halves(squares) / (float)p->n;
        float scale = 1.0f / sqrtf(variance + p->eps);
        for (int64_t j = 0; j < p->n; j++) out[j] = fmaf(p->weight[j], (x[j] - mean) * scale, p->bias[j]);
    }
}
