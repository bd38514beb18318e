// The arguments of kernels: element types, stored weights, lanes of the paged cache.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "profile.h"

/// Says how an element is stored. The values equal those of the Swift enum `DType`.
typedef enum {
    BRAID_F32 = 0,
    BRAID_BF16 = 1,
    BRAID_FP8 = 2,   // E4M3 (bias 7, max 448, no infinity, NaN 0x7F and 0xFF)
    BRAID_INT8 = 3,
    BRAID_FP4 = 4,   // E2M1 (0, 0.5, 1, 1.5, 2, 3, 4, 6 and a sign), two in a byte, the first in the low four bits
} braid_dtype;

#define BRAID_DTYPES 5

/// Says how a scale is stored. The values equal those of the Swift enum `ScaleType`.
typedef enum {
    BRAID_SCALE_F32 = 0,
    BRAID_SCALE_E8M0 = 1,  // a byte, 2^(byte - 127), NaN 0xFF
} braid_scale_type;

/// Returns the bytes of a scale.
static inline int64_t braid_scale_bytes(braid_scale_type type) { return type == BRAID_SCALE_E8M0 ? 1 : 4; }

/// Says how the activations that multiply an INT8 matrix are rounded where the checkpoint fixes it for all tokens (static
/// W8A8); profile.h has the formula.
typedef struct {
    float scale;              // finite and greater than 0
    int32_t offset;           // -128 ... 127, the integer of an activation of 0
    /// What is taken off the sums of the whole matrix's rows, [rows, parts]: `offset` times the sum of a part's weights. The
    /// segment with a part's first column takes off all of it, so that every part counts once however segments are cut.
    const int32_t *corrections;
    int64_t parts;            // of the whole matrix's columns, of which there are at most 32,768
    int64_t part_columns;     // in each
} braid_static_rounding;

/// Describes a matrix of weights in the checkpoint's format: row-major `[rows, columns]`, possibly a part of a larger
/// matrix. FP8, INT8 and FP4 elements have scales, F32 and BF16 ones have none. An element's value is the stored value
/// widened exactly to F32, times its scale, rounded once to F32: in the profile F32 a matrix with scales gives the same
/// bits as its dequantized F32 twin. In the profile BF16 (profile.h) the product is also rounded to BF16; in the profiles
/// INT8 and INT8_F32 integers are multiplied as stored, and sums by the scale.
///
/// A scale belongs to a block of `1 << row_shift` rows and `1 << column_shift` columns of the whole matrix, whose last
/// blocks may be partial. The element format says nothing about the size of blocks; one scale per row is blocks of
/// shifts 0 and BRAID_WHOLE_SHIFT.
///
/// The rows of an FP4 matrix begin with whole bytes, so that an element of an even column is in the low four bits.
typedef struct {
    const void *data;       // element (0, 0) of this part; the byte that holds it
    braid_dtype dtype;
    int64_t stride;         // elements from one row to the next; even for FP4
    const void *scale;      // [blocks of rows, scale_stride] of the whole matrix, F32, or E8M0 for FP4; NULL without scales
    int64_t scale_stride;   // scales of a block row of the whole matrix
    int64_t row;            // where this part begins in the whole matrix, to find its scales
    int64_t column;
    int32_t row_shift, column_shift;
    const braid_static_rounding *rounding;  // INT8: of the activations, or NULL if their own numbers decide
} braid_weight;

/// This shift makes a block as wide as any matrix.
#define BRAID_WHOLE_SHIFT 62

/// Describes one lane of one layer's paged KV cache, with entries of `width` elements and `1 << page_shift` entries per
/// page. Position `p` is stored at entry `(pages[p >> page_shift] << page_shift) + (p & mask)`.
///
/// An FP8 or FP4 entry consists of its E4M3 or E2M1 values, zero bits up to a multiple of four bytes, then one scale for
/// each `group` columns, and zero bytes up to a multiple of four again; the last group may be shorter. Element i is value
/// i widened exactly to F32, times scale i / group, rounded once to F32: in the profile F32 such a lane gives the same
/// bits as its dequantized F32 twin.
typedef struct {
    const void *data;       // 4-byte aligned
    braid_dtype dtype;      // F32, BF16 or FP8, and FP4 for index keys
    int64_t width;
    int64_t group;          // FP8, FP4: columns that share a scale; a multiple of 16, or at least the width
    braid_scale_type scale_type;  // FP8; E8M0 for FP4
} braid_lane;

/// Returns whether entries of a lane have scales.
static inline bool braid_lane_has_scales(braid_dtype dtype) { return dtype == BRAID_FP8 || dtype == BRAID_FP4; }

/// Returns the bytes of the values of an FP8 or FP4 entry.
static inline int64_t braid_value_bytes(braid_dtype dtype, int64_t width) {
    return dtype == BRAID_FP4 ? (width + 1) / 2 : width;
}

/// Returns the offset of the scales in an FP8 or FP4 entry, in bytes.
static inline int64_t braid_scales_offset(braid_dtype dtype, int64_t width) {
    return (braid_value_bytes(dtype, width) + 3) / 4 * 4;
}

/// Returns the bytes from one entry of a lane to the next.
static inline int64_t braid_entry_bytes(
    braid_dtype dtype, int64_t width, int64_t group, braid_scale_type scale_type
) {
    if (!braid_lane_has_scales(dtype)) return width * (dtype == BRAID_F32 ? 4 : 2);
    const int64_t scales = (width + group - 1) / group * braid_scale_bytes(scale_type);
    return braid_scales_offset(dtype, width) + (scales + 3) / 4 * 4;
}

/// A rank's share of the positions of a request: runs of `unit` positions are assigned to `ranks` ranks round-robin.
/// (1, 1, 0) owns all positions.
typedef struct {
    int64_t ranks, unit, rank;
} braid_kv_sharding;

/// Returns the `i`-th owned position.
static inline int64_t braid_sharded(braid_kv_sharding o, int64_t i) {
    return o.ranks == 1 ? i : (i / o.unit * o.ranks + o.rank) * o.unit + i % o.unit;
}

/// Returns true if position `p`, which is not negative, is owned.
static inline bool braid_in_shard(braid_kv_sharding o, int64_t p) { return p / o.unit % o.ranks == o.rank; }
