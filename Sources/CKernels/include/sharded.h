// Keys that several ranks divide: what each finds among its own, and the best of all.
#pragma once

#include "topk.h"
#include "types.h"

/// A rank's candidates for each row, as one row of words: how many there are, room for `k` scores, and for `k` positions,
/// the last two ascending by position. Counts and positions are integers.
typedef struct {
    int64_t m, k;
    const float *scores;     // [m, scores_stride], of the positions owned, by their numbers
    int64_t scores_stride;
    const int32_t *selected; // [m, k]: the numbers of the best, ascending, as braid_top_k leaves them
    const int32_t *counts;   // [m]
    braid_kv_sharding owned;
    float *out;              // [m, 1 + 2 * k], row stride out_stride
    int64_t out_stride;
} braid_pack_candidates;

/// The `k` best of several ranks' candidates: those with the largest scores, written ascending by position. Ties at the
/// cut go to the smaller position; -0 equals +0; NaN is below -infinity.
///
/// Candidates come from other ranks, and callers check them. Here no number leads out of bounds: counts are cut to 0 ... k,
/// positions that are not within 0 ... last[i] do not count, and where fewer than `k` remain, or two are the same or out of
/// order, zeros are written.
typedef struct {
    int64_t m, k, ranks;
    const float *candidates; // rank s's of row i are row s * rank_rows + rows[i]
    int64_t stride, rank_rows;
    const int32_t *rows;     // [m]
    const int32_t *last;     // [m]
    int32_t *selected;       // row i writes row out_rows[i] of [*, k]
    const int32_t *out_rows; // [m]
    uint32_t *scratch;       // braid_merge_scratch(ranks, k) words, 64-byte aligned
} braid_merge_candidates;

/// Scores and positions of all candidates, twice, where lists end, and what top_k needs.
static inline int64_t braid_merge_scratch(int64_t ranks, int64_t k) {
    return BRAID_TOP_K_SCRATCH + 4 * ranks * k + 2 * (ranks + 1) + 64;
}

/// The keys owned here that rows attend to: of those selected, in their order, where a row selects, which it does from
/// position `k` on; otherwise all it sees.
typedef struct {
    int64_t m, k;            // k is 0 where no row selects
    const int32_t *positions; // [m]
    const int32_t *selected; // [m, k], row stride selected_stride, or NULL
    int64_t selected_stride;
    braid_kv_sharding owned;
    int32_t *keys;           // [m, keys_stride], room for the most a row may have
    int64_t keys_stride;
    int32_t *counts;         // [m]
    int64_t *total;          // grows by all counts
} braid_sharded_keys;
