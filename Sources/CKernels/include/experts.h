// The router of a mixture of experts, the dispatch of rows, and the sum of experts' outputs.
#pragma once

#include "matmul.h"
#include "types.h"

/// A router may have at most this many experts; callers check.
#define BRAID_MAX_EXPERTS 1024

/// Says how a router's logits become scores.
typedef enum {
    BRAID_SIGMOID = 0,        // 1 / (1 + exp(-logit))
    BRAID_SQRT_SOFTPLUS = 1,  // sqrt(softplus(logit)); softplus is log(1 + exp(logit)), and the logit itself above 20
} braid_scoring;

/// Chooses `k` experts for each row as DeepSeek-V3's gate does. From logits [m, experts]:
///   s = the score of the logit;  c = s + bias
///   groups > 1: a group's score is the sum of its two largest c (larger first); the best `top_groups` groups remain
///   the experts with the `k` largest c of those groups are chosen;  ties everywhere to the smaller index
///   g = s of the chosen (without bias); normalize: g / (sum + 1e-20), sum one chain by ascending expert; g * scaling
/// Chosen experts are written in ascending order with their weights. NaN logits count as below -infinity, and a row
/// that has one gets NaN for every weight: an expert with a damaged row in the router would otherwise never be chosen,
/// and no later number would show it.
/// The score of a group of one expert is that expert's c. `k` is at most the number of experts in `top_groups` groups.
///
/// With `given`, the experts are chosen already (DeepSeek-V4 chooses those of its first layers by token): `chosen` is
/// read, in any order, and only the weights are computed, with the sum in the order given; a NaN logit of any expert
/// counts there, too.
typedef struct {
    int64_t m, experts, k, groups, top_groups;
    braid_scoring scoring;
    bool given;
    const float *logits;
    int64_t logits_stride;
    const float *bias;      // [experts] or NULL
    bool normalize;
    float scaling;
    int32_t *chosen;        // [m, k], each less than `experts`
    float *weights;         // [m, k]
} braid_gate;

/// Sorts the choices of rows by expert, for experts `first ..< first + experts`. Each choice of one of those has a
/// slot: expert `first + e` has slots `start[e] ..< start[e + 1]`, in the order of the rows. Choices of any other
/// number have no slot.
typedef struct {
    int64_t m, k;
    const int32_t *chosen;  // [m, k]
    const float *weights;   // [m, k]
    int64_t first, experts; // at most BRAID_MAX_EXPERTS
    int32_t *start;         // [experts + 1]
    int32_t *rows;          // [m * k]: the row of each slot
    float *slot_weights;    // [m * k]: the router's weight of each slot
    int32_t *slots;         // [m, k]: the slot of each choice, -1 where the expert is not in the range
} braid_group_by_expert;

/// Lists the rows to send to each rank. Place p holds experts `bounds[p] ..< bounds[p + 1]`, and each of its `copies`
/// ranks receives every row that chose one of those. Experts outside all bounds are sent to no rank.
typedef struct {
    int64_t m, k, places, copies;
    const int32_t *chosen;  // [m, k]
    const int32_t *bounds;  // [places + 1], ascending
    int32_t *counts;        // [places]: the number of rows that each rank of a place receives
    int32_t *rows;          // [places * copies * m]: each rank's rows, ascending, rank by rank without gaps
    int32_t *slots;         // [m, places]: the row's index among all rows sent, place by place; -1: not sent there
} braid_dispatch;

/// Holds the three weight matrices of one expert.
typedef struct {
    braid_weight gate, up;  // [width, hidden]
    braid_weight down;      // [hidden, width]
} braid_expert;

/// Computes the hidden values of all slots of `count` experts, for columns `first_column ..< first_column + n` of their
/// width: `out[slot] = (silu(gate x) * up x) * weight[slot]`, where x is the slot's row, in the orders of braid_matmul
/// and with the bounds of braid_swiglu.
typedef struct {
    const braid_expert *experts;  // [count]
    int64_t count;
    braid_profile profile;
    int64_t first_column, n, k;
    const float *x;         // [*, k]
    int64_t x_stride;
    const int32_t *start;   // [count + 1], see braid_group_by_expert
    const int32_t *rows;
    const float *slot_weights;
    float limit;            // infinity for no bounds
    float *out;             // [slots, n]
    int64_t out_stride;
    int64_t gemv_max_rows[BRAID_DTYPES];  // by type of weights; see braid_matmul
    float *scratch;         // BRAID_MATMUL_SCRATCH + (most slots of an expert) * n floats, 64-byte aligned
} braid_expert_hidden;

/// Computes the sums of each row's experts, including the down projections. For each of `trees` equal parts of the
/// groups, output n of row r is written to row `tree * m + r` of out:
///
///   tree over groups (tree over slices (sum over the group's experts of down[n, slice] . hidden[slot, slice]))
///
/// `width` is cut into `slices` equal K-slices. A dot product is over a K-slice, as in braid_matmul. Within a
/// group of `experts_per_group` consecutive experts, plain additions follow the row's choices, which ascend. Groups and
/// slices (powers of two) are balanced binary trees in index order with slices inside groups, so that a rank that holds
/// whole groups sends one partial sum. Experts without a slot add nothing, and an empty sum is +0. +0 is added to every
/// leaf, because a negative zero would show which rank computed what.
typedef struct {
    const braid_expert *experts;  // [count]
    int64_t count, first_expert;
    braid_profile profile;
    int64_t experts_per_group, first_group, groups, trees;
    int64_t first_output, n;      // rows of the down projections
    int64_t first_column, width;  // columns of the down projections
    int64_t slices;
    int64_t m, k;
    const float *hidden;    // [slots, width]
    int64_t hidden_stride;
    const int32_t *start;   // [count + 1], see braid_group_by_expert
    const int32_t *slots;   // [m, k]
    float *out;             // [trees * m, n]
    int64_t out_stride;
    int64_t gemv_max_rows[BRAID_DTYPES];  // by type of weights; see braid_matmul
    float *scratch;         // braid_expert_scratch(...) floats, 64-byte aligned
} braid_expert_sums;

/// Sums of experts are computed for a block of outputs and a group at a time. The partial outputs of a group's slots,
/// this many at most, should fit the caches. A block has enough columns to be worth packing the slots' hidden values.
#define BRAID_EXPERT_PARTIALS (1024 * 1024)
#define BRAID_EXPERT_MIN_COLUMNS 64
#define BRAID_EXPERT_MAX_COLUMNS 512

/// Returns the floats of scratch that braid_expert_sums needs for `m` rows of `k` choices, whichever experts they
/// chose. Most of it stays untouched address space: only the fullest group's need is used.
static inline int64_t braid_expert_scratch(int64_t m, int64_t k, int64_t slices) {
    int64_t partials = slices * m * k * BRAID_EXPERT_MIN_COLUMNS;
    if (partials < BRAID_EXPERT_PARTIALS) partials = BRAID_EXPERT_PARTIALS;
    return BRAID_MATMUL_SCRATCH + partials + 16 * m * BRAID_EXPERT_MAX_COLUMNS;
}

/// Sums the partial results of each row's experts: `out[r] = tree over parts (+0 + y[slots[r, part]])`, a balanced
/// binary tree in index order over the next power of two. A part with a negative slot was not computed and counts as
/// +0.
typedef struct {
    int64_t m, n, parts;    // at most 2^30 parts
    const float *y;         // [*, n]
    int64_t y_stride;
    const int32_t *slots;   // [m, parts]
    float *out;
    int64_t out_stride;
} braid_combine;
