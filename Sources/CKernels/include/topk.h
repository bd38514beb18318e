// The exact top k of each row.
#pragma once

#include "types.h"

/// Selects for row r, among scores[r, 0 ..< visible[r]], the `counts[r] = min(k, visible[r])` positions with the
/// largest scores, and writes them in ascending order. Ties at the cut go to the smaller position. -0 equals +0; NaN is
/// below -infinity.
typedef struct {
    int64_t m, k;
    const float *scores;
    int64_t scores_stride;
    const int32_t *visible; // [m]
    int32_t *selected;      // [m, selected_stride]
    int64_t selected_stride;
    int32_t *counts;        // [m]
    uint32_t *scratch;      // BRAID_TOP_K_SCRATCH words
} braid_top_k;

#define BRAID_TOP_K_SCRATCH (16 * 1024)
