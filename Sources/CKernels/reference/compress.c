// The compression of tokens' inputs to entries; the order is in include/compress.h.
#include "../include/compress.h"

#include "math.h"

#pragma STDC FP_CONTRACT OFF

void reference_compress_entries(const braid_compress *p) {
    const int64_t each = p->slots / p->halves, columns = p->halves * p->n;
    for (int64_t r = 0; r < p->m; r++) {
        const float *inputs = p->inputs + r * p->slots * p->inputs_stride;
        for (int64_t d = 0; d < p->n; d++) {
            float largest = -INFINITY, values = 0, sum = 0;
            for (int64_t pass = 0; pass < 2; pass++)
                for (int64_t s = 0; s < p->slots; s++) {
                    const int64_t column = s / each * p->n + d;
                    float gate = inputs[s * p->inputs_stride + columns + column] + p->ape[s % each * columns + column];
                    if (pass == 0) {
                        largest = gate > largest ? gate : largest;
                        continue;
                    }
                    float e = exp_scalar(gate - largest);
                    values = fmaf(e, inputs[s * p->inputs_stride + column], values);
                    sum = sum + e;
                }
            p->out[r * p->out_stride + d] = values / sum;
        }
    }
}
