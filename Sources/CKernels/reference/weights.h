// Stored elements, widened to F32.
#pragma once

#include <math.h>
#include <string.h>

#include "../include/types.h"

static inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float bf16_at(const void *data, int64_t i) {
    return float_of_bits((uint32_t)((const uint16_t *)data)[i] << 16);
}

/// Widens an E4M3 byte: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, one NaN of each sign.
static inline float fp8_value(uint8_t byte) {
    int exponent = byte >> 3 & 15, mantissa = byte & 7;
    float magnitude;
    if ((byte & 0x7F) == 0x7F) magnitude = NAN;
    else if (exponent == 0) magnitude = (float)mantissa * 0x1p-9f;
    else magnitude = (1.0f + (float)mantissa * 0.125f) * float_of_bits((uint32_t)(exponent - 7 + 127) << 23);
    return byte & 0x80 ? -magnitude : magnitude;
}

/// Widens an E2M1 number: sign, 2 bits of exponent (bias 1), 1 of mantissa.
static inline float fp4_value(unsigned code) {
    static const float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
}

/// Widens an E8M0 byte, 2^(byte - 127).
static inline float e8m0_value(uint8_t byte) {
    return byte == 0xFF ? NAN : float_of_bits(byte == 0 ? 0x400000u : (uint32_t)byte << 23);
}

/// Returns scale `i` of an array of scales.
static inline float stored_scale(braid_scale_type type, const void *scales, int64_t i) {
    return type == BRAID_SCALE_E8M0 ? e8m0_value(((const uint8_t *)scales)[i]) : ((const float *)scales)[i];
}

/// Stores scale `i` of an array of scales: for E8M0, a power of two that is at least 2^-126, or infinity, which becomes
/// NaN.
static inline void store_scale(braid_scale_type type, void *scales, int64_t i, float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    if (type == BRAID_SCALE_E8M0) ((uint8_t *)scales)[i] = (uint8_t)(bits >> 23);
    else ((float *)scales)[i] = scale;
}

/// Returns the scale of element (row, column) of `w`, which must have scales.
static inline float scale_at(const braid_weight *w, int64_t row, int64_t column) {
    const int64_t block_row = (w->row + row) >> w->row_shift, block = (w->column + column) >> w->column_shift;
    const int64_t i = block_row * w->scale_stride + block;
    return stored_scale(w->dtype == BRAID_FP4 ? BRAID_SCALE_E8M0 : BRAID_SCALE_F32, w->scale, i);
}

/// Returns where the block of `1 << shift` that contains `i` ends.
static inline int64_t block_end(int64_t i, int32_t shift) { return ((i >> shift) + 1) << shift; }

/// Returns the bits of an element.
static inline int64_t bits_of(braid_dtype dtype) {
    return dtype == BRAID_F32 ? 32 : dtype == BRAID_BF16 ? 16 : dtype == BRAID_FP4 ? 4 : 8;
}

/// Returns the bytes of an element, of a type other than FP4.
static inline int64_t bytes_of(braid_dtype dtype) { return bits_of(dtype) / 8; }

/// Returns 1 if element (·, column) of an FP4 matrix is in the high bits of its byte, and 0 otherwise.
static inline int64_t is_high(const braid_weight *w, int64_t column) { return (w->column + column) & 1; }

/// Returns where element (row, column) is stored; of FP4, its byte.
static inline const char *weight_bytes(const braid_weight *w, int64_t row, int64_t column) {
    int64_t i = row * w->stride + column;
    return (const char *)w->data + (w->dtype == BRAID_FP4 ? (is_high(w, 0) + i) >> 1 : i * bytes_of(w->dtype));
}

/// Returns an element as it is stored, without its scale.
static inline float unscaled_weight_at(const braid_weight *w, int64_t row, int64_t column) {
    int64_t i = row * w->stride + column;
    switch (w->dtype) {
    case BRAID_F32: return ((const float *)w->data)[i];
    case BRAID_BF16: return bf16_at(w->data, i);
    case BRAID_FP8: return fp8_value(((const uint8_t *)w->data)[i]);
    case BRAID_INT8: return (float)((const int8_t *)w->data)[i];
    case BRAID_FP4: {
        unsigned byte = *(const uint8_t *)weight_bytes(w, row, column);
        return fp4_value(is_high(w, column) ? byte >> 4 : byte);
    }
    }
    return NAN;
}

static inline float weight_at(const braid_weight *w, int64_t row, int64_t column) {
    float value = unscaled_weight_at(w, row, column);
    return w->scale ? value * scale_at(w, row, column) : value;
}

/// Returns the part of `w` that begins at (row, column).
static inline braid_weight weight_part(braid_weight w, int64_t row, int64_t column) {
    w.data = weight_bytes(&w, row, column);
    w.row += row;
    w.column += column;
    return w;
}

/// Returns the entry at which position `p` is stored.
static inline int64_t entry_of(const int32_t *pages, int32_t page_shift, int64_t p) {
    return ((int64_t)pages[p >> page_shift] << page_shift) + (p & (((int64_t)1 << page_shift) - 1));
}

/// Returns the bytes from one entry of a lane to the next.
static inline int64_t entry_bytes(const braid_lane *lane) {
    return braid_entry_bytes(lane->dtype, lane->width, lane->group, lane->scale_type);
}

static inline const void *entry_at(const braid_lane *lane, int64_t entry) {
    return (const char *)lane->data + entry * entry_bytes(lane);
}

/// Returns where the scale of a group of columns is in an FP8 or FP4 entry, in bytes.
static inline int64_t scale_offset(const braid_lane *lane, int64_t group) {
    return braid_scales_offset(lane->dtype, lane->width) + group * braid_scale_bytes(lane->scale_type);
}

/// Returns the scale of a group of columns of an FP8 or FP4 entry.
static inline float entry_scale(const braid_lane *lane, const void *entry, int64_t group) {
    return stored_scale(lane->scale_type, (const char *)entry + scale_offset(lane, group), 0);
}

/// Returns an element as it is stored, without its scale.
static inline float unscaled_lane_at(const braid_lane *lane, int64_t entry, int64_t i) {
    const void *data = entry_at(lane, entry);
    switch (lane->dtype) {
    case BRAID_F32: return ((const float *)data)[i];
    case BRAID_BF16: return bf16_at(data, i);
    case BRAID_FP8: return fp8_value(((const uint8_t *)data)[i]);
    case BRAID_FP4: return fp4_value(((const uint8_t *)data)[i / 2] >> (i & 1 ? 4 : 0));
    default: return NAN;
    }
}

static inline float lane_at(const braid_lane *lane, int64_t entry, int64_t i) {
    const float value = unscaled_lane_at(lane, entry, i);
    if (!braid_lane_has_scales(lane->dtype)) return value;
    return value * entry_scale(lane, entry_at(lane, entry), i / lane->group);
}
