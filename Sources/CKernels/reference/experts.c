// The router, and the sum of the experts' outputs; orders are in include/experts.h.
#include "../include/experts.h"

#include "experts_body.h"

void reference_gate(const braid_gate *p) { gate_rows(p); }

/// One group's sum at one column of one slice: +0 and then the experts that are here, ascending.
static float leaf_sum(const braid_combine *p, int64_t row, int64_t column, int64_t slice, int64_t group) {
    const int32_t *chosen = p->chosen + row * p->k, *slot = p->slot + row * p->k;
    float sum = 0;
    for (int64_t j = 0; j < p->k; j++) {
        bool inside = chosen[j] / p->experts_per_group == p->first_group + group;
        if (inside && slot[j] >= 0) sum = sum + p->y[(slice * p->slots + slot[j]) * p->y_stride + column];
    }
    return sum;
}

/// The balanced tree over leaves `first ..< first + count`; leaf `group * slices + slice`.
static float tree_sum(const braid_combine *p, int64_t row, int64_t column, int64_t first, int64_t count) {
    if (count == 1) return leaf_sum(p, row, column, first % p->slices, first / p->slices);
    float left = tree_sum(p, row, column, first, count / 2);
    float right = tree_sum(p, row, column, first + count / 2, count / 2);
    return left + right;
}

void reference_combine_experts(const braid_combine *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t j = 0; j < p->n; j++) {
            p->out[r * p->out_stride + j] = tree_sum(p, r, j, 0, p->slices * p->groups);
        }
    }
}
