// Conversions between what is computed and what is stored.
#include "../include/quantization.h"

#include <math.h>
#include <string.h>

#include "weights.h"

#pragma STDC FP_CONTRACT OFF

/// Round to nearest even; a NaN stays a (quiet) NaN with its sign.
static uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void reference_store_rows(const braid_store_rows *p) {
    for (int64_t r = 0; r < p->m; r++) {
        if (p->slots[r] < 0) continue;
        const float *x = p->x + r * p->x_stride;
        int64_t entry = p->slots[r] * p->n;
        for (int64_t j = 0; j < p->n; j++) {
            if (p->dtype == BRAID_BF16) ((uint16_t *)p->lane)[entry + j] = bf16_of(x[j]);
            else ((float *)p->lane)[entry + j] = x[j];
        }
    }
}

void reference_hadamard(const braid_hadamard *p) {
    for (int64_t r = 0; r < p->m; r++) {
        float *x = p->x + r * p->x_stride;
        for (int width = 1; width < 128; width *= 2) {
            for (int i = 0; i < 128; i++) {
                if (i & width) continue;
                float a = x[i], b = x[i + width];
                x[i] = a + b;
                x[i + width] = a - b;
            }
        }
        for (int i = 0; i < 128; i++) x[i] = x[i] * 0.08838834764831845f;
    }
}

/// The scale of a group. NaN does not count towards the largest magnitude.
static float group_scale(const float *x, int64_t n, bool power_of_two) {
    float largest = 1e-4f;
    for (int64_t j = 0; j < n; j++) largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    float scale = largest / 448.0f;
    if (!power_of_two) return scale;
    uint32_t bits;
    memcpy(&bits, &scale, 4);
    bits = (bits + 0x7FFFFF) & 0x7F800000;  // the exponent, one more unless the scale is that power of two already
    memcpy(&scale, &bits, 4);
    return scale;
}

/// Round to nearest even; x is within -448 ... 448, or NaN, which becomes 0x7F.
static uint8_t e4m3_of(float x) {
    if (x != x) return 0x7F;
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float magnitude = fabsf(x);
    uint32_t bits;
    if (magnitude < 0x1p-6f) {  // denormal: counted in steps of 2^-9, the last place of 2^14
        float counted = magnitude + 0x1p14f;
        memcpy(&bits, &counted, 4);
        return sign | (uint8_t)(bits - 0x46800000);
    }
    memcpy(&bits, &magnitude, 4);
    bits = bits + 0x7FFFF + (bits >> 20 & 1);
    return sign | (uint8_t)((bits >> 20) - (120 << 3));
}

void reference_quantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j += p->group) {
            int64_t count = p->n - j < p->group ? p->n - j : p->group;
            const float *x = p->x + r * p->x_stride + j;
            float scale = group_scale(x, count, p->power_of_two);
            p->scales[r * p->scales_stride + j / p->group] = scale;
            for (int64_t i = 0; i < count; i++) {
                float v = x[i] / scale;
                v = v > 448.0f ? 448.0f : v < -448.0f ? -448.0f : v;
                p->values[r * p->values_stride + j + i] = e4m3_of(v);
            }
        }
    }
}

void reference_dequantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j++) {
            float scale = p->scales[r * p->scales_stride + j / p->group];
            p->x[r * p->x_stride + j] = fp8_value(p->values[r * p->values_stride + j]) * scale;
        }
    }
}
