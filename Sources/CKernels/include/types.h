// What kernels are given: element types, stored weights, paged cache lanes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// How an element is stored. Values are part of the Swift mirror `DType`.
typedef enum {
    BRAID_F32 = 0,
    BRAID_BF16 = 1,
    BRAID_FP8 = 2,   // E4M3 (bias 7, max 448, no infinity, NaN 0x7F and 0xFF); weights: scaled per 128 x 128 block
    BRAID_INT8 = 3,  // weights: scaled per row
} braid_dtype;

/// A matrix of weights as the checkpoint stores it: row-major `[rows, columns]`, possibly a part of a larger one.
/// An element's value is the stored value widened exactly to F32, times its scale, rounded once to F32:
/// an FP8 or INT8 matrix gives the same bits as its dequantized F32 twin.
typedef struct {
    const void *data;       // element (0, 0) of this part
    braid_dtype dtype;
    int64_t stride;         // elements from one row to the next
    const float *scale;     // FP8: [ceil(R/128), scale_stride]; INT8: [R]; else NULL. Of the whole matrix.
    int64_t scale_stride;   // FP8: block columns of the whole matrix
    int64_t row;            // where this part begins in the whole matrix, to find its scales
    int64_t column;
} braid_weight;

/// One lane of the paged KV cache of one layer: entries of `width` elements, `1 << page_shift` entries a page.
/// Position `p` is at entry `(pages[p >> page_shift] << page_shift) + (p & mask)`.
///
/// An FP8 entry is its E4M3 values, zero bytes up to a multiple of four, then one F32 scale for each `group` columns,
/// the last group maybe a shorter one. Element i is value i widened exactly to F32, times scale i / group, rounded once
/// to F32: an FP8 lane gives the same bits as its dequantized F32 twin.
typedef struct {
    const void *data;       // 4-byte aligned
    braid_dtype dtype;      // F32, BF16 or FP8
    int64_t width;
    int64_t group;          // FP8: columns of a scale; a multiple of 16, or no less than the width
} braid_lane;

/// Where the scales of an FP8 entry begin, in bytes.
static inline int64_t braid_scales_offset(int64_t width) { return (width + 3) / 4 * 4; }

/// Bytes from one entry of a lane to the next.
static inline int64_t braid_entry_bytes(braid_dtype dtype, int64_t width, int64_t group) {
    if (dtype == BRAID_FP8) return braid_scales_offset(width) + (width + group - 1) / group * 4;
    return width * (dtype == BRAID_F32 ? 4 : 2);
}

/// Which positions of a request somebody owns: runs of `unit`, dealt in turn over `ranks`. All of them: (1, 1, 0).
typedef struct {
    int64_t ranks, unit, rank;
} braid_kv_sharding;

/// The position of the owned number `i`.
static inline int64_t braid_sharded(braid_kv_sharding o, int64_t i) {
    return o.ranks == 1 ? i : (i / o.unit * o.ranks + o.rank) * o.unit + i % o.unit;
}

/// Whether position `p`, not below zero, is owned.
static inline bool braid_in_shard(braid_kv_sharding o, int64_t p) { return p / o.unit % o.ranks == o.rank; }
