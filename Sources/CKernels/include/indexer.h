// Scores of DeepSeek's lightning indexer.
#pragma once

#include "types.h"

/// Computes `scores[r, i] = sum over heads h of weights[r, h] * max(0, q[r, h] . key[p(first + i)])` for `count` owned
/// positions; p(j) is the j-th position that `owned` contains. A score depends on nothing else.
///
/// Each dot product is one chain over the dimension ascending from +0 (`a = fma(q, k, a)`); the heads are one chain
/// ascending from +0 (`s = fma(weight, relu(a), s)`; relu(NaN) = NaN). No mask is applied: a caller asks for as many
/// positions as the row with the largest position sees, and top_k reads no more than each row may see.
///
/// In the BF16 profile each dot product is a BF16 sum (see profile.h) of bf16(q) and the key from +0. An FP8 key with
/// one scale enters it as bf16 of its unscaled value, and the sum over heads is multiplied by the scale at the end;
/// other keys, FP4 ones too, enter as bf16(value * scale). The heads are added by 16 accumulators from +0: accumulator
/// l takes heads l, l + 16, ... ascending (`a = fma(weight, relu(dot), a)`), then halves are added: l with l + 8, + 4,
/// + 2, + 1.
typedef struct {
    braid_profile profile;
    int64_t m, heads;
    const float *q;         // [m, heads, keys.width]
    const float *weights;   // [m, heads], scale factors included
    braid_lane keys;
    const int32_t *pages;
    int32_t page_shift;
    braid_kv_sharding owned;
    int64_t first, count;
    float *scores;          // [m, scores_stride]
    int64_t scores_stride;
    int64_t index_key_tiles;     // panels of keys that a tile of queries runs over, at most; 0: as the level does it
    float *scratch;         // BRAID_INDEX_SCRATCH floats, 64-byte aligned
} braid_index_scores;

#define BRAID_INDEX_SCRATCH (256 * 1024)

/// The widest key that scratch is made for.
#define BRAID_MAX_INDEX_WIDTH 1024
