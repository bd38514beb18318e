// Conversions between F32, in which kernels compute, and stored types, sixteen elements at a time.
#pragma once

#include "../include/quantization.h"
#include "select.h"
#include "vector.h"

BRAID_INLINE h16 narrow_bf16(f16 x) {
    u16 bits = (u16)x;
    u16 rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return __builtin_convertvector(bits_where(x != x, bits >> 16 | 0x40, rounded), h16);
}

BRAID_INLINE void store_bf16(uint16_t *out, const float *x, int64_t n) {
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        h16 h = narrow_bf16(load16(x + j));
        memcpy(out + j, &h, sizeof h);
    }
    h16 h = narrow_bf16(load_some(x + j, n - j));
    memcpy(out + j, &h, (size_t)(n - j) * sizeof(uint16_t));
}

/// Does one butterfly inside a vector: a lane of the lower half becomes own + other, of the upper half other - own.
#define BRAID_BUTTERFLY(v, width, ...)                                                  \
    do {                                                                                \
        f16 other = __builtin_shufflevector(v, v, __VA_ARGS__);                         \
        i16 upper = ((i16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & width) != 0; \
        v = other + (f16)((u16)v ^ ((u16)upper & 0x80000000u));                         \
    } while (0)

/// Does the butterflies up to eight apart of the first `width` lanes.
BRAID_INLINE f16 small_butterflies(f16 v, int64_t width) {
    if (width > 1) BRAID_BUTTERFLY(v, 1, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    if (width > 2) BRAID_BUTTERFLY(v, 2, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    if (width > 4) BRAID_BUTTERFLY(v, 4, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    if (width > 8) BRAID_BUTTERFLY(v, 8, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    return v;
}

/// Transforms `vectors` times sixteen elements.
BRAID_INLINE void large_hadamard(float *x, int64_t vectors, f16 scale) {
    f16 v[BRAID_MAX_HADAMARD / 16];
    for (int64_t i = 0; i < vectors; i++) v[i] = small_butterflies(load16(x + 16 * i), 16);
    for (int64_t apart = 1; apart < vectors; apart *= 2) {
        for (int64_t i = 0; i < vectors; i++) {
            if (i & apart) continue;
            f16 a = v[i], b = v[i + apart];
            v[i] = a + b;
            v[i + apart] = a - b;
        }
    }
    for (int64_t i = 0; i < vectors; i++) store16(x + 16 * i, v[i] * scale);
}

static void hadamard(const braid_hadamard *p) {
    f16 scale = splat(braid_hadamard_scale(p->width));
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t h = 0; h < p->heads; h++) {
            float *x = p->x + r * p->x_stride + h * p->width;
            if (p->width >= 16) large_hadamard(x, p->width / 16, scale);
            else store_some(x, small_butterflies(load_some(x, p->width), p->width) * scale, p->width);
        }
    }
}

BRAID_INLINE f16 larger_magnitude(f16 x, f16 largest) {
    return larger_of((f16)((u16)x & 0x7FFFFFFFu), largest);
}

/// Returns the smallest power of two that is at least `x`, which is positive and normal or infinite.
BRAID_INLINE float power_of_two_from(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFFFF) & 0x7F800000;
    memcpy(&x, &bits, 4);
    return x;
}

/// Vectorizes reference/quantization.c's function.
BRAID_INLINE float group_scale(const float *x, int64_t n, bool power_of_two) {
    f16 largest = splat(1e-4f);
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) largest = larger_magnitude(load16(x + j), largest);
    largest = larger_magnitude(load_some(x + j, n - j), largest);
    const float scale = largest_lane(largest) / 448.0f;
    return power_of_two ? power_of_two_from(scale) : scale;
}

BRAID_INLINE b16 narrow_e4m3(f16 x) {
    u16 sign = (u16)x >> 24 & 0x80, bits = (u16)x & 0x7FFFFFFFu;
    u16 denormal = (u16)((f16)bits + splat(0x1p14f)) - 0x46800000u;
    u16 normal = ((bits + 0x7FFFF + (bits >> 20 & 1)) >> 20) - (120 << 3);
    u16 value = sign | bits_where((f16)bits < splat(0x1p-6f), denormal, normal);
    return __builtin_convertvector(bits_where(x != x, splat_bits(0x7F), value), b16);
}

BRAID_INLINE b16 quantize16(f16 x, f16 scale) {
    f16 v = x / scale;
    v = where(v > splat(448), splat(448), v);
    v = where(v < splat(-448), splat(-448), v);
    return narrow_e4m3(v);
}

BRAID_INLINE void quantize_group(const float *x, int64_t n, float scale, uint8_t *values) {
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        b16 v = quantize16(load16(x + j), splat(scale));
        memcpy(values + j, &v, sizeof v);
    }
    b16 v = quantize16(load_some(x + j, n - j), splat(scale));
    memcpy(values + j, &v, (size_t)(n - j));
}

BRAID_INLINE void quantize_row(
    const float *x, int64_t n, int64_t group, bool power_of_two, uint8_t *values, braid_scale_type type, void *scales
) {
    for (int64_t j = 0; j < n; j += group) {
        int64_t count = n - j < group ? n - j : group;
        float scale = group_scale(x + j, count, power_of_two);
        store_scale(type, scales, j / group, scale);
        quantize_group(x + j, count, scale, values + j);
    }
}

/// Vectorizes reference/quantization.c's function. As integers, infinities and NaN are larger than other magnitudes.
BRAID_INLINE float fp4_group_scale(const float *x, int64_t n) {
    i16 largest = (i16)splat(BRAID_FP4_LEAST);
    for (int64_t j = 0; j < n; j += 16) {
        const i16 magnitude = (i16)(n - j < 16 ? load_some(x + j, n - j) : load16(x + j)) & 0x7FFFFFFF;
        largest = (i16)bits_where(magnitude > largest, (u16)magnitude, (u16)largest);
    }
    int32_t bits = 0;
    for (int l = 0; l < 16; l++) bits = largest[l] > bits ? largest[l] : bits;
    return bits < 0x7F800000 ? power_of_two_from(float_of_bits((uint32_t)bits) / 6.0f) : NAN;
}

/// Rounds sixteen numbers to E2M1 and packs them in pairs.
BRAID_INLINE b8 narrow_e2m1(f16 x) {
    u16 sign = (u16)x >> 28 & 8, bits = (u16)x & 0x7FFFFFFFu;
    u16 denormal = (u16)((f16)bits + splat(0x1p22f)) - 0x4A800000u;
    u16 normal = ((bits + 0x1FFFFF + (bits >> 22 & 1)) >> 22) - (126 << 1);
    u16 value = sign | bits_where((f16)bits < splat(1), denormal, normal);
    b16 codes = __builtin_convertvector(bits_where(x != x, splat_bits(0), value), b16);
    return __builtin_shufflevector(codes, codes, 0, 2, 4, 6, 8, 10, 12, 14)
        | __builtin_shufflevector(codes, codes, 1, 3, 5, 7, 9, 11, 13, 15) << 4;
}

/// Quantizes one row of `n` columns to FP4. Only the last group may end in a vector or a byte.
BRAID_INLINE void quantize_fp4_row(const float *x, int64_t n, int64_t group, uint8_t *values, uint8_t *scales) {
    for (int64_t j = 0; j < n; j += group) {
        const int64_t end = n - j < group ? n : j + group;
        const float scale = fp4_group_scale(x + j, end - j);
        store_scale(BRAID_SCALE_E8M0, scales, j / group, scale);
        for (int64_t i = j; i < end; i += 16) {
            const int64_t count = end - i < 16 ? end - i : 16;
            b8 v = narrow_e2m1(load_some(x + i, count) / splat(scale));
            memcpy(values + i / 2, &v, (size_t)(count + 1) / 2);
        }
    }
}

static void quantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++)
        quantize_row(
            p->x + r * p->x_stride, p->n, p->group, p->power_of_two, p->values + r * p->values_stride,
            BRAID_SCALE_F32, p->scales + r * p->scales_stride);
}

BRAID_INLINE f16 dequantize16(b16 values) {
    u16 v = __builtin_convertvector(values, u16), magnitude = v & 0x7F;
    u16 denormal = (u16)(__builtin_convertvector(magnitude, f16) * splat(0x1p-9f));
    u16 normal = (magnitude << 20) + (120u << 23);
    u16 bits = bits_where(magnitude == 0x7F, splat_bits(0x7FC00000), bits_where(magnitude < 8, denormal, normal));
    return (f16)(bits | (v & 0x80) << 24);
}

BRAID_INLINE void dequantize_group(const uint8_t *values, int64_t n, float scale, float *x) {
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        b16 v;
        memcpy(&v, values + j, sizeof v);
        store16(x + j, dequantize16(v) * splat(scale));
    }
    b16 v = {0};
    memcpy(&v, values + j, (size_t)(n - j));
    store_some(x + j, dequantize16(v) * splat(scale), n - j);
}

static void dequantize_groups(const braid_quantize_groups *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j += p->group) {
            int64_t count = p->n - j < p->group ? p->n - j : p->group;
            float scale = p->scales[r * p->scales_stride + j / p->group];
            dequantize_group(p->values + r * p->values_stride + j, count, scale, p->x + r * p->x_stride + j);
        }
    }
}

static void store_rows(const braid_store_rows *p) {
    const int64_t bytes = braid_entry_bytes(p->dtype, p->n, p->group, p->scale_type);
    for (int64_t r = 0; r < p->m; r++) {
        if (p->slots[r] < 0) continue;
        const float *x = p->x + r * p->x_stride;
        char *entry = (char *)p->lane + p->slots[r] * bytes;
        char *scales = entry + braid_scales_offset(p->dtype, p->n);
        if (braid_lane_has_scales(p->dtype)) {
            const int64_t values = braid_value_bytes(p->dtype, p->n);
            memset(entry + values, 0, (size_t)(bytes - values));
        }
        if (p->dtype == BRAID_FP8) {
            quantize_row(
                x, p->n, p->group, p->scale_type == BRAID_SCALE_E8M0, (uint8_t *)entry, p->scale_type, scales);
        } else if (p->dtype == BRAID_FP4) {
            quantize_fp4_row(x, p->n, p->group, (uint8_t *)entry, (uint8_t *)scales);
        } else if (p->dtype == BRAID_BF16) {
            store_bf16((uint16_t *)entry, x, p->n);
        } else {
            memcpy(entry, x, (size_t)p->n * sizeof(float));
        }
    }
}
