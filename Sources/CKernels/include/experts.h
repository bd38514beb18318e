// The router of a mixture of experts, and the sum of its experts' outputs.
#pragma once

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

/// Sums the outputs of each row's experts: `out[r] = tree over groups (tree over slices (sum of the group's experts))`.
///
/// `y` holds, for each K-slice s of the down projection and each (row, expert) slot, the partial output, the router's
/// weight already multiplied in: y + (s * slots + slot) * y_stride. Within a group of `experts_per_group` consecutive
/// experts: plain additions by ascending expert. Groups (`groups`, a power of two, from `first_group`) and slices
/// (`slices`, a power of two) are balanced binary trees in index order, slices inside groups: a rank that holds some
/// groups whole has one partial to send.
/// A slot below zero is an expert somebody else holds. What is absent adds nothing; a result with nothing is +0,
/// and every leaf has +0 added, so that no negative zero can tell who computed what.
typedef struct {
    int64_t m, n, k;
    const float *y;
    int64_t y_stride;
    int64_t slots;
    int64_t slices;
    const int32_t *chosen;  // [m, k] ascending experts
    const int32_t *slot;    // [m, k]
    int64_t experts_per_group, first_group, groups;
    float *out;
    int64_t out_stride;
} braid_combine;
