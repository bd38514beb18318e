// What kernels are given: element types, stored weights, paged cache lanes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// How an element is stored. Values are part of the Swift mirror `DType`.
typedef enum {
    BRAID_F32 = 0,
    BRAID_BF16 = 1,
    BRAID_FP8 = 2,   // E4M3 (bias 7, max 448, no infinity, NaN 0x7F and 0xFF), scaled per 128 x 128 block
    BRAID_INT8 = 3,  // scaled per row
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
typedef struct {
    const void *data;
    braid_dtype dtype;      // F32 or BF16
    int64_t width;
} braid_lane;
