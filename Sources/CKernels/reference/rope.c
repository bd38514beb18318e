// Rotary position embedding, in place.
#include "../include/rope.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

void reference_rope(const braid_rope *p) {
    int64_t pairs = p->width / 2;
    for (int64_t r = 0; r < p->m; r++) {
        const float *cosine = p->cosine + r * pairs, *sine = p->sine + r * pairs;
        for (int64_t h = 0; h < p->heads; h++) {
            float *x = p->x + r * p->x_stride + h * p->head_stride;
            for (int64_t i = 0; i < pairs; i++) {
                float *first = p->interleaved ? x + 2 * i : x + i;
                float *second = p->interleaved ? x + 2 * i + 1 : x + i + pairs;
                float a = *first, b = *second;
                float s = p->inverse ? -sine[i] : sine[i];
                *first = fmaf(a, cosine[i], -(b * s));
                *second = fmaf(a, s, b * cosine[i]);
            }
        }
    }
}
