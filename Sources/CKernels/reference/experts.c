// The router, its experts, and the sums of their outputs; orders are in include/experts.h.
#include "../include/experts.h"

#include "dots.h"
#include "experts_body.h"

#pragma STDC FP_CONTRACT OFF

void reference_gate(const braid_gate *p) { gate_rows(p); }

void reference_group_by_expert(const braid_group_by_expert *p) { group_by_expert_rows(p); }

void reference_dispatch(const braid_dispatch *p) { dispatch_rows(p); }

void reference_expert_hidden(const braid_expert_hidden *p) {
    for (int64_t e = 0; e < p->count; e++) {
        braid_weight gate = weight_part(p->experts[e].gate, p->first_column, 0);
        braid_weight up = weight_part(p->experts[e].up, p->first_column, 0);
        for (int64_t slot = p->start[e]; slot < p->start[e + 1]; slot++) {
            const float *x = p->x + p->rows[slot] * p->x_stride;
            for (int64_t n = 0; n < p->n; n++) {
                float g = bounded_scalar(weight_dot(p->profile, &gate, false, x, n, p->k, 0), -INFINITY, p->limit);
                float u = weight_dot(p->profile, &up, false, x, n, p->k, 0);
                float silu = g / (1.0f + exp_scalar(-g));
                float y = silu * bounded_scalar(u, -p->limit, p->limit);
                p->out[slot * p->out_stride + n] = y * p->slot_weights[slot];
            }
        }
    }
}

/// Returns the index, among the experts of this call, of the expert that has the slot.
static int64_t expert_of(const braid_expert_sums *p, int32_t slot) {
    int64_t e = 0;
    while (p->start[e + 1] <= slot) e++;
    return e;
}

/// Returns one group's sum at one output of one slice: +0, then the experts of this call in the order of the choices.
static float leaf_sum(const braid_expert_sums *p, int64_t row, int64_t n, int64_t slice, int64_t group) {
    int64_t k = p->width / p->slices;
    float sum = 0;
    for (int64_t j = 0; j < p->k; j++) {
        int32_t slot = p->slots[row * p->k + j];
        if (slot < 0) continue;
        int64_t e = expert_of(p, slot);
        if ((p->first_expert + e) / p->experts_per_group != group) continue;
        const float *hidden = p->hidden + slot * p->hidden_stride + slice * k;
        braid_weight down = weight_part(p->experts[e].down, p->first_output + n, p->first_column + slice * k);
        sum = sum + weight_dot(p->profile, &down, false, hidden, 0, k, 0);
    }
    return sum;
}

/// Returns the balanced tree over leaves `first ..< first + count`; a leaf's index is `group * slices + slice`.
static float tree_sum(const braid_expert_sums *p, int64_t row, int64_t n, int64_t first, int64_t count) {
    if (count == 1) return leaf_sum(p, row, n, first % p->slices, p->first_group + first / p->slices);
    float left = tree_sum(p, row, n, first, count / 2);
    float right = tree_sum(p, row, n, first + count / 2, count / 2);
    return left + right;
}

void reference_expert_sums(const braid_expert_sums *p) {
    int64_t leaves = p->groups / p->trees * p->slices;
    for (int64_t tree = 0; tree < p->trees; tree++)
        for (int64_t r = 0; r < p->m; r++)
            for (int64_t n = 0; n < p->n; n++)
                p->out[(tree * p->m + r) * p->out_stride + n] = tree_sum(p, r, n, tree * leaves, leaves);
}

/// Returns the balanced tree over parts `first ..< first + count`; parts beyond the last count as absent.
static float part_sum(const braid_combine *p, int64_t row, int64_t column, int64_t first, int64_t count) {
    if (count > 1) {
        float left = part_sum(p, row, column, first, count / 2);
        float right = part_sum(p, row, column, first + count / 2, count / 2);
        return left + right;
    }
    int32_t slot = first < p->parts ? p->slots[row * p->parts + first] : -1;
    return slot < 0 ? 0.0f : 0.0f + p->y[slot * p->y_stride + column];
}

void reference_combine_experts(const braid_combine *p) {
    int64_t leaves = 1;
    while (leaves < p->parts) leaves *= 2;
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t j = 0; j < p->n; j++) p->out[r * p->out_stride + j] = part_sum(p, r, j, 0, leaves);
}
