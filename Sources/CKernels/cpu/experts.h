// The router and its experts. Products are those of matmul.h, computed in an order that keeps partial sums in the
// caches.
#pragma once

#include "../reference/experts_body.h"
#include "elementwise.h"
#include "matmul.h"
#include "vector.h"

static void gate(const braid_gate *p) { gate_rows(p); }
static void group_by_expert(const braid_group_by_expert *p) { group_by_expert_rows(p); }
static void dispatch(const braid_dispatch *p) { dispatch_rows(p); }

BRAID_INLINE void expert_hidden_products(const braid_expert_hidden *p, braid_products products) {
    float *upper = p->scratch + BRAID_MATMUL_SCRATCH;
    for (int64_t e = 0; e < p->count; e++) {
        const int64_t first = p->start[e], m = p->start[e + 1] - first;
        const braid_expert *expert = p->experts + e;
        braid_matmul product = {
            .w = weight_part(expert->gate, p->first_column, 0), .profile = p->profile, .m = m, .n = p->n, .k = p->k,
            .x = p->x, .x_stride = p->x_stride, .x_rows = p->rows + first, .out = p->out + first * p->out_stride,
            .out_stride = p->out_stride, .gemv_max_rows = p->gemv_max_rows[expert->gate.dtype], .scratch = p->scratch};
        const braid_swiglu gated = {
            .m = m, .n = p->n, .gate = product.out, .gate_stride = p->out_stride, .up = upper, .up_stride = p->n,
            .row_weight = p->slot_weights + first, .limit = p->limit, .out = product.out, .out_stride = p->out_stride};
        products(&product, 1);
        product.w = weight_part(expert->up, p->first_column, 0);
        product.out = upper;
        product.out_stride = p->n;
        products(&product, 1);
        swiglu(&gated);
    }
}

static void expert_hidden(const braid_expert_hidden *p) { expert_hidden_products(p, products); }

/// The number of 16-column vectors that are summed together.
#define BRAID_COMBINE_VECTORS 4

/// Adds a leaf to a tree whose leaves come in index order: a finished subtree stays on the stack until its sibling is
/// finished, as in binary counting. `leaf` is the index of the leaf in `sum`, and `*depth` the height of the stack.
BRAID_INLINE void add_siblings(
    f16 stack[][BRAID_COMBINE_VECTORS], int *depth, int64_t leaf, int vectors, f16 sum[BRAID_COMBINE_VECTORS]
) {
    for (; leaf & 1; leaf >>= 1) {
        --*depth;
        for (int v = 0; v < vectors; v++) sum[v] = stack[*depth][v] + sum[v];
    }
}

BRAID_INLINE void add_columns(const float *part, int vectors, int64_t last, f16 sum[BRAID_COMBINE_VECTORS]) {
    for (int v = 0; v < vectors - 1; v++) sum[v] = sum[v] + load16(part + 16 * v);
    sum[vectors - 1] = sum[vectors - 1] + load_some(part + 16 * (vectors - 1), last);
}

BRAID_INLINE void store_columns(float *out, int vectors, int64_t last, const f16 sum[BRAID_COMBINE_VECTORS]) {
    for (int v = 0; v < vectors - 1; v++) store16(out + 16 * v, sum[v]);
    store_some(out + 16 * (vectors - 1), sum[vectors - 1], last);
}

/// Holds the partial outputs of one group of experts, and the destination of its sums.
typedef struct {
    const float *y;         // [slices, slots, columns]
    int64_t first, slots, columns, slices;
    int64_t leaf;           // the group's index in its tree
    float *waiting;         // [level][m, columns]: subtrees of groups whose siblings are not finished
    int64_t level;          // elements of a level
    float *out;             // the tree's sum if this group completes it, otherwise the next waiting subtree
    int64_t out_stride;
} braid_group_sums;

/// Sums the columns of one row from `column` on, in `vectors` vectors, the last of which has `last` columns. `own`
/// holds the row's slots.
BRAID_INLINE void group_columns(
    const braid_group_sums *p, int64_t row, const int32_t *own, int64_t count, int64_t column, const int vectors,
    int64_t last
) {
    f16 stack[64][BRAID_COMBINE_VECTORS], sum[BRAID_COMBINE_VECTORS];
    for (int v = 0; v < vectors; v++) sum[v] = splat(0);
    int depth = 0;
    for (int64_t slice = 0; slice < p->slices && count > 0; slice++) {
        const float *y = p->y + slice * p->slots * p->columns + column;
        for (int v = 0; v < vectors; v++) sum[v] = splat(0);
        for (int64_t j = 0; j < count; j++) add_columns(y + own[j] * p->columns, vectors, last, sum);
        add_siblings(stack, &depth, slice, vectors, sum);
        for (int v = 0; v < vectors; v++) stack[depth][v] = sum[v];
        depth++;
    }
    int64_t level = __builtin_popcountll((uint64_t)p->leaf);
    for (int64_t leaf = p->leaf; leaf & 1; leaf >>= 1) {
        const float *sibling = p->waiting + --level * p->level + row * p->columns + column;
        for (int v = 0; v < vectors - 1; v++) sum[v] = load16(sibling + 16 * v) + sum[v];
        sum[vectors - 1] = load_some(sibling + 16 * (vectors - 1), last) + sum[vectors - 1];
    }
    store_columns(p->out + row * p->out_stride + column, vectors, last, sum);
}

static void group_sums(const braid_group_sums *p, int64_t m, int64_t k, const int32_t *slots) {
    const int64_t block = 16 * BRAID_COMBINE_VECTORS;
    int32_t own[BRAID_MAX_EXPERTS];
    for (int64_t r = 0; r < m; r++, slots += k) {
        int64_t count = 0, column = 0;
        for (int64_t j = 0; j < k; j++) {
            own[count] = slots[j] - (int32_t)p->first;
            count += slots[j] >= p->first && slots[j] < p->first + p->slots;
        }
        for (; column + block <= p->columns; column += block)
            group_columns(p, r, own, count, column, BRAID_COMBINE_VECTORS, 16);
        for (; column < p->columns; column += 16)
            group_columns(p, r, own, count, column, 1, at_most(p->columns - column, 16));
    }
}

/// Returns the first of the call's experts that is in `group` or a later group.
BRAID_INLINE int64_t expert_from(const braid_expert_sums *p, int64_t group) {
    int64_t e = group * p->experts_per_group - p->first_expert;
    return e < 0 ? 0 : at_most(e, p->count);
}

/// Computes the products of a group's slots with outputs `n ..< n + columns`, each slice to its part of `partial`.
static void group_products(
    const braid_expert_sums *p, int64_t e, int64_t end, int64_t n, int64_t columns, float *partial, braid_products products
) {
    const int64_t base = p->start[e], slots = p->start[end] - base;
    for (; e < end; e++) {
        const braid_weight *down = &p->experts[e].down;
        const int64_t first = p->start[e], m = p->start[e + 1] - first;
        const braid_matmul product = {
            .w = weight_part(*down, p->first_output + n, p->first_column), .profile = p->profile, .m = m, .n = columns,
            .k = p->width, .x = p->hidden + first * p->hidden_stride, .x_stride = p->hidden_stride,
            .gemv_max_rows = p->gemv_max_rows[down->dtype], .scratch = p->scratch};
        if (m > 0) slice_products(&product, p->slices, partial + (first - base) * columns, slots * columns, products);
    }
}

BRAID_INLINE void expert_sums_products(const braid_expert_sums *p, braid_products products) {
    int64_t fullest = 1;
    for (int64_t g = p->first_group; g < p->first_group + p->groups; g++) {
        int64_t slots = p->start[expert_from(p, g + 1)] - p->start[expert_from(p, g)];
        fullest = slots > fullest ? slots : fullest;
    }
    const int64_t worth = BRAID_EXPERT_PARTIALS / (p->slices * fullest) / 64 * 64;
    const int64_t block = at_most(worth < BRAID_EXPERT_MIN_COLUMNS ? BRAID_EXPERT_MIN_COLUMNS : worth,
                                  BRAID_EXPERT_MAX_COLUMNS);
    const int64_t per_tree = p->groups / p->trees, level = p->m * block;
    float *waiting = p->scratch + BRAID_MATMUL_SCRATCH, *partial = waiting + 16 * p->m * BRAID_EXPERT_MAX_COLUMNS;
    for (int64_t n = 0, columns; n < p->n; n += columns) {
        columns = at_most(block, p->n - n);
        for (int64_t g = 0; g < p->groups; g++) {
            const int64_t e = expert_from(p, p->first_group + g), end = expert_from(p, p->first_group + g + 1);
            const int64_t leaf = g % per_tree;
            int64_t finished = 0;  // the number of subtrees that this group completes
            while (leaf >> finished & 1) finished++;
            const int64_t depth = __builtin_popcountll((uint64_t)leaf) - finished;
            const bool last = leaf == per_tree - 1;
            braid_group_sums sums = {
                .y = partial, .first = p->start[e], .slots = p->start[end] - p->start[e], .columns = columns,
                .slices = p->slices, .leaf = leaf, .waiting = waiting, .level = level,
                .out = last ? p->out + g / per_tree * p->m * p->out_stride + n : waiting + depth * level,
                .out_stride = last ? p->out_stride : columns};
            group_products(p, e, end, n, columns, partial, products);
            group_sums(&sums, p->m, p->k, p->slots);
        }
    }
}

static void expert_sums(const braid_expert_sums *p) { expert_sums_products(p, products); }

/// Sums the columns of one row from `column` on, in `vectors` vectors, the last of which has `last` columns.
BRAID_INLINE void combine_columns(
    const braid_combine *p, int64_t row, int64_t leaves, int64_t column, const int vectors, int64_t last
) {
    f16 stack[32][BRAID_COMBINE_VECTORS];
    int depth = 0;
    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        f16 sum[BRAID_COMBINE_VECTORS];
        for (int v = 0; v < vectors; v++) sum[v] = splat(0);
        int64_t slot = leaf < p->parts ? p->slots[row * p->parts + leaf] : -1;
        if (slot >= 0) add_columns(p->y + slot * p->y_stride + column, vectors, last, sum);
        add_siblings(stack, &depth, leaf, vectors, sum);
        for (int v = 0; v < vectors; v++) stack[depth][v] = sum[v];
        depth++;
    }
    store_columns(p->out + row * p->out_stride + column, vectors, last, stack[0]);
}

static void combine_experts(const braid_combine *p) {
    const int64_t block = 16 * BRAID_COMBINE_VECTORS;
    int64_t leaves = 1;
    while (leaves < p->parts) leaves *= 2;
    for (int64_t r = 0; r < p->m; r++) {
        int64_t j = 0;
        for (; j + block <= p->n; j += block) combine_columns(p, r, leaves, j, BRAID_COMBINE_VECTORS, 16);
        for (; j < p->n; j += 16) combine_columns(p, r, leaves, j, 1, at_most(p->n - j, 16));
    }
}
