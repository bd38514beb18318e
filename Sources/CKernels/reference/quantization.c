// Conversions between F32, in which kernels compute, and stored types.
#include "../include/quantization.h"

#include <math.h>
#include <string.h>

#include "weights.h"

#pragma STDC FP_CONTRACT OFF

/// Rounds to nearest even; a NaN stays a (quiet) NaN with its sign.
static uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// Returns the smallest power of two that is at least `x`, which is positive and normal or infinite.
static float power_of_two_from(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFFFF) & 0x7F800000;  // the exponent, one more unless x is that power of two already
    memcpy(&x, &bits, 4);
    return x;
}

/// Returns the scale of a group. NaN does not count towards the largest magnitude.
static float group_scale(const float *x, int64_t n, bool power_of_two) {
    float largest = 1e-4f;
    for (int64_t j = 0; j < n; j++) largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    return power_of_two ? power_of_two_from(largest / 448.0f) : largest / 448.0f;
}

/// Returns the scale of a group of FP4: a power of two, or a NaN.
static float fp4_group_scale(const float *x, int64_t n) {
    float largest = BRAID_FP4_LEAST;
    for (int64_t j = 0; j < n; j++) {
        if (!(fabsf(x[j]) < INFINITY)) return NAN;
        largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    }
    return power_of_two_from(largest / 6.0f);
}

/// Rounds to nearest even; x is within -448 ... 448, or NaN, which becomes 0x7F.
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

/// Rounds to nearest even; x is within -6 ... 6, or NaN, which becomes 0.
static unsigned e2m1_of(float x) {
    if (x != x) return 0;
    const unsigned sign = signbit(x) ? 8 : 0;
    const float magnitude = fabsf(x);
    uint32_t bits;
    if (magnitude < 1) {  // denormal: counted in steps of 1/2, the last place of 2^22
        float counted = magnitude + 0x1p22f;
        memcpy(&bits, &counted, 4);
        return sign | (bits - 0x4A800000);
    }
    memcpy(&bits, &magnitude, 4);
    bits = bits + 0x1FFFFF + (bits >> 22 & 1);
    return sign | ((bits >> 22) - (126 << 1));
}

/// Quantizes one row of `n` columns to FP4, group by group, into zeros.
static void quantize_fp4_row(const float *x, int64_t n, int64_t group, uint8_t *values, uint8_t *scales) {
    for (int64_t j = 0; j < n; j += group) {
        int64_t end = n - j < group ? n : j + group;
        float scale = fp4_group_scale(x + j, end - j);
        store_scale(BRAID_SCALE_E8M0, scales, j / group, scale);
        for (int64_t i = j; i < end; i++) values[i / 2] |= (uint8_t)(e2m1_of(x[i] / scale) << (i & 1 ? 4 : 0));
    }
}

/// Quantizes one row of `n` columns, group by group.
static void quantize_row(
    const float *x, int64_t n, int64_t group, bool power_of_two, uint8_t *values, braid_scale_type type, void *scales
) {
    for (int64_t j = 0; j < n; j += group) {
        int64_t count = n - j < group ? n - j : group;
        float scale = group_scale(x + j, count, power_of_two);
        store_scale(type, scales, j / group, scale);
        for (int64_t i = j; i < j + count; i++) {
            float v = x[i] / scale;
            v = v > 448.0f ? 448.0f : v < -448.0f ? -448.0f : v;
            values[i] = e4m3_of(v);
        }
    }
}

void reference_quantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++)
        quantize_row(
            p->x + r * p->x_stride, p->n, p->group, p->power_of_two, p->values + r * p->values_stride,
            BRAID_SCALE_F32, p->scales + r * p->scales_stride);
}

void reference_dequantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j++) {
            float scale = p->scales[r * p->scales_stride + j / p->group];
            p->x[r * p->x_stride + j] = fp8_value(p->values[r * p->values_stride + j]) * scale;
        }
    }
}

void reference_store_rows(const braid_store_rows *p) {
    for (int64_t r = 0; r < p->m; r++) {
        if (p->slots[r] < 0) continue;
        const float *x = p->x + r * p->x_stride;
        int64_t bytes = braid_entry_bytes(p->dtype, p->n, p->group, p->scale_type);
        char *entry = (char *)p->lane + p->slots[r] * bytes;
        char *scales = entry + braid_scales_offset(p->dtype, p->n);
        if (braid_lane_has_scales(p->dtype)) memset(entry, 0, (size_t)bytes);
        if (p->dtype == BRAID_FP8) {
            quantize_row(
                x, p->n, p->group, p->scale_type == BRAID_SCALE_E8M0, (uint8_t *)entry, p->scale_type, scales);
            continue;
        }
        if (p->dtype == BRAID_FP4) {
            quantize_fp4_row(x, p->n, p->group, (uint8_t *)entry, (uint8_t *)scales);
            continue;
        }
        for (int64_t j = 0; j < p->n; j++) {
            if (p->dtype == BRAID_BF16) ((uint16_t *)entry)[j] = bf16_of(x[j]);
            else ((float *)entry)[j] = x[j];
        }
    }
}

void reference_load_entries(const braid_load_entries *p) {
    for (int64_t i = 0; i < p->m; i++) {
        if (p->entries[i] < 0) continue;
        char *row = (char *)(p->rows + i * p->stride);
        memcpy(row, (const char *)p->lane + p->entries[i] * p->bytes, (size_t)p->bytes);
        memset(row + p->bytes, 0, (size_t)((p->bytes + 3) / 4 * 4 - p->bytes));
    }
}

static void hadamard(float *x, int64_t width) {
    for (int64_t apart = 1; apart < width; apart *= 2) {
        for (int64_t i = 0; i < width; i++) {
            if (i & apart) continue;
            float a = x[i], b = x[i + apart];
            x[i] = a + b;
            x[i + apart] = a - b;
        }
    }
    for (int64_t i = 0; i < width; i++) x[i] = x[i] * braid_hadamard_scale(width);
}

void reference_hadamard(const braid_hadamard *p) {
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < p->heads; h++) hadamard(p->x + r * p->x_stride + h * p->width, p->width);
}
