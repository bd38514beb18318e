// The router of a mixture of experts, and the sum of its experts' outputs.
#pragma once

#include "matmul.h"
#include "types.h"

/// The most experts a router may have; the caller checks.
#define BRAID_MAX_EXPERTS 1024

/// DeepSeek-V3's gate. From logits [m, experts]:
///   s = 1 / (1 + exp(-logit));  c = s + bias
///   groups > 1: a group's score is the sum of its two largest c (larger first); the best `top_groups` groups stay
///   the `k` largest c of those choose;  ties everywhere to the smaller index
///   g = s of the chosen (without bias); normalize: g / (sum + 1e-20), sum one chain by ascending expert; g * scaling
/// Chosen experts are written in ascending order with their weights. NaN logits count as below -infinity.
/// A group of one expert scores that expert's c. `k` is at most the experts of `top_groups` groups.
typedef struct {
    int64_t m, experts, k, groups, top_groups;
    const float *logits;
    int64_t logits_stride;
    const float *bias;      // [experts] or NULL
    bool normalize;
    float scaling;
    int32_t *chosen;        // [m, k]
    float *weights;         // [m, k]
} braid_gate;

/// Which rows go to which of the experts `first ..< first + experts`: slots sorted by expert, expert `first + e` having
/// slots `start[e] ..< start[e + 1]`, in the order of the rows. Numbers of experts outside that range, whatever they are,
/// have no slot.
typedef struct {
    int64_t m, k;
    const int32_t *chosen;  // [m, k]
    const float *weights;   // [m, k]
    int64_t first, experts; // BRAID_MAX_EXPERTS at most
    int32_t *start;         // [experts + 1]
    int32_t *rows;          // [m * k]: the row of each slot
    float *slot_weights;    // [m * k]: the router's weight of each slot
    int32_t *slots;         // [m, k]: the slot of each choice, -1 where the expert is not in the range
} braid_group_by_expert;

/// Which rows go to the ranks that have their experts: place p has experts `bounds[p] ..< bounds[p + 1]`, and each of its
/// `copies` ranks gets every row that chose one of those. Numbers of experts that nobody has go nowhere.
typedef struct {
    int64_t m, k, places, copies;
    const int32_t *chosen;  // [m, k]
    const int32_t *bounds;  // [places + 1], ascending
    int32_t *counts;        // [places]: rows that go to each rank of a place
    int32_t *rows;          // [places * copies * m]: rank by rank the rows that go there, in order; what is behind is left
    int32_t *slots;         // [m, places]: a row's number among all that go to some place, place by place; -1: not there
} braid_dispatch;

/// One expert's matrices.
typedef struct {
    braid_weight gate, up;  // [width, hidden]
    braid_weight down;      // [hidden, width]
} braid_expert;

/// The hidden values of all slots of `count` experts, columns `first_column ..< first_column + n` of their width:
/// `out[slot] = (silu(gate x) * up x) * weight[slot]`, x the slot's row, as braid_matmul and braid_swiglu say.
typedef struct {
    const braid_expert *experts;  // [count]
    int64_t count;
    int64_t first_column, n, k;
    const float *x;         // [*, k]
    int64_t x_stride;
    const int32_t *start;   // [count + 1], see braid_group_by_expert
    const int32_t *rows;
    const float *slot_weights;
    float *out;             // [slots, n]
    int64_t out_stride;
    int64_t gemv_max_rows[4];    // by the type of weights; see braid_matmul
    float *scratch;         // BRAID_MATMUL_SCRATCH + (slots of an expert, at most) * n floats, 64-byte aligned
} braid_expert_hidden;

/// The sums of each row's experts, down projections included. Output n of row r is, for each of `trees` equal parts of
/// the groups, written to row `tree * m + r` of out:
///
///   tree over groups (tree over slices (sum over the group's experts of down[n, slice] . hidden[slot, slice]))
///
/// A dot is one chain as in braid_matmul, over a K-slice: `width` is cut into `slices` equal ones. Within a group of
/// `experts_per_group` consecutive experts: plain additions in the order of the row's choices, which ascend. Groups and
/// slices (powers of two) are balanced binary trees in index order, slices inside groups: a rank that holds some groups
/// whole has one partial to send. Experts without a slot add nothing; a result with nothing is +0, and every leaf has +0
/// added, so that no negative zero can tell who computed what.
typedef struct {
    const braid_expert *experts;  // [count]
    int64_t count, first_expert;
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
    int64_t gemv_max_rows[4];    // by the type of weights; see braid_matmul
    float *scratch;         // braid_expert_scratch(...) floats, 64-byte aligned
} braid_expert_sums;

/// Sums of experts are made a block of outputs and a group at a time. So many partial outputs of a group's slots are
/// meant to stay in the caches; blocks are within bounds that are worth the packing of the slots' hidden values.
#define BRAID_EXPERT_PARTIALS (1024 * 1024)
#define BRAID_EXPERT_MIN_COLUMNS 64
#define BRAID_EXPERT_MAX_COLUMNS 256

/// Scratch of braid_expert_sums for `m` rows of `k` choices, whichever experts they chose. It is address space: only
/// what the fullest group needs is touched.
static inline int64_t braid_expert_scratch(int64_t m, int64_t k, int64_t slices) {
    int64_t partials = slices * m * k * BRAID_EXPERT_MIN_COLUMNS;
    if (partials < BRAID_EXPERT_PARTIALS) partials = BRAID_EXPERT_PARTIALS;
    return BRAID_MATMUL_SCRATCH + partials + 16 * m * BRAID_EXPERT_MAX_COLUMNS;
}

/// Sums what ranks have computed of each row's experts: `out[r] = tree over parts (+0 + y[slots[r, part]])`, a balanced
/// binary tree in index order over the next power of two. A slot below zero is a part nobody has computed: +0.
typedef struct {
    int64_t m, n, parts;    // 2^30 parts at most
    const float *y;         // [*, n]
    int64_t y_stride;
    const int32_t *slots;   // [m, parts]
    float *out;
    int64_t out_stride;
} braid_combine;
