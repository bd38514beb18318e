// Attention keys that are sharded over ranks: a rank's candidates, the best candidates of all ranks, and a rank's keys.
#pragma once

#include "topk.h"
#include "types.h"

/// Writes a rank's candidates for each row as one row of words: their count, then `k` scores, then `k` positions, both
/// ascending by position. Count and positions are integers; only the first `count` of the `k` words are written.
typedef struct {
    int64_t m, k;
    const float *scores;     // [m, scores_stride], by index among the owned positions
    int64_t scores_stride;
    const int32_t *selected; // [m, k]: indices of the best scores, ascending, as braid_top_k writes them
    const int32_t *counts;   // [m]
    braid_kv_sharding owned;
    float *out;              // [m, 1 + 2 * k], row stride out_stride
    int64_t out_stride;
} braid_pack_candidates;

/// Selects the `k` best of several ranks' candidates: those with the largest scores, written ascending by position.
/// Ties at the cut go to the smaller position; -0 equals +0; NaN is below -infinity.
///
/// Candidates come from other ranks, and callers check them. Nothing received can be used as an index out of bounds:
/// counts are clamped to 0 ... k and positions outside 0 ... last[i] are ignored. Zeros are written where fewer than
/// `k` candidates remain, or where two positions are equal or out of order.
typedef struct {
    int64_t m, k, ranks;
    const float *candidates; // rank s's candidates for row i are row s * rank_rows + rows[i]
    int64_t stride, rank_rows;
    const int32_t *rows;     // [m]
    const int32_t *last;     // [m]
    int32_t *selected;       // row i writes row out_rows[i] of [*, k]
    const int32_t *out_rows; // [m]
    uint32_t *scratch;       // braid_merge_scratch(ranks, k) words, 64-byte aligned
} braid_merge_candidates;

/// Returns the words of scratch: scores and positions of all candidates, twice, the ends of lists, and top_k's scratch.
static inline int64_t braid_merge_scratch(int64_t ranks, int64_t k) {
    return BRAID_TOP_K_SCRATCH + 4 * ranks * k + 2 * (ranks + 1) + 64;
}

/// Lists the owned keys that each row attends to. A row at position `k` or later attends to its selected keys, in their
/// order; an earlier row attends to all positions up to its own.
typedef struct {
    int64_t m, k;            // 0 where no row selects
    const int32_t *positions; // [m]
    const int32_t *selected; // [m, k], row stride selected_stride, or NULL
    int64_t selected_stride;
    braid_kv_sharding owned;
    int32_t *keys;           // [m, keys_stride], enough for the most keys of a row
    int64_t keys_stride;
    int32_t *counts;         // [m]
    int64_t *total;          // the sum of all counts is added to it
} braid_sharded_keys;
