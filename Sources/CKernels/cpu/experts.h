// The router (reference/experts_body.h, on every level) and the sum of the experts' outputs.
#pragma once

#include "../reference/experts_body.h"
#include "vector.h"

static void gate(const braid_gate *p) { gate_rows(p); }

/// Vectors of sixteen columns summed together.
#define BRAID_COMBINE_VECTORS 4

/// The columns from `column` of one row, in `vectors` vectors, the last of `last` columns. Leaves come in index order; a
/// finished subtree waits on the stack until its sibling is finished, as in binary counting.
BRAID_INLINE void combine_columns(
    const braid_combine *p, int64_t row, int64_t column, const int vectors, int64_t last) {
    const int32_t *chosen = p->chosen + row * p->k, *slot = p->slot + row * p->k;
    f16 stack[32][BRAID_COMBINE_VECTORS];
    int depth = 0;
    int64_t next = 0;
    while (next < p->k && chosen[next] < p->first_group * p->experts_per_group) next++;
    for (int64_t group = 0; group < p->groups; group++) {
        int64_t begin = next, end = (p->first_group + group + 1) * p->experts_per_group;
        while (next < p->k && chosen[next] < end) next++;
        for (int64_t slice = 0; slice < p->slices; slice++) {
            const float *y = p->y + slice * p->slots * p->y_stride + column;
            f16 sum[BRAID_COMBINE_VECTORS];
            for (int v = 0; v < vectors; v++) sum[v] = splat(0);
            for (int64_t j = begin; j < next; j++) {
                if (slot[j] < 0) continue;
                const float *part = y + slot[j] * p->y_stride;
                for (int v = 0; v < vectors - 1; v++) sum[v] = sum[v] + load16(part + 16 * v);
                sum[vectors - 1] = sum[vectors - 1] + load_some(part + 16 * (vectors - 1), last);
            }
            int64_t leaf = group * p->slices + slice;
            for (; leaf & 1; leaf >>= 1) {
                depth--;
                for (int v = 0; v < vectors; v++) sum[v] = stack[depth][v] + sum[v];
            }
            for (int v = 0; v < vectors; v++) stack[depth][v] = sum[v];
            depth++;
        }
    }
    float *out = p->out + row * p->out_stride + column;
    for (int v = 0; v < vectors - 1; v++) store16(out + 16 * v, stack[0][v]);
    store_some(out + 16 * (vectors - 1), stack[0][vectors - 1], last);
}

static void combine_experts(const braid_combine *p) {
    const int64_t block = 16 * BRAID_COMBINE_VECTORS;
    for (int64_t r = 0; r < p->m; r++) {
        int64_t j = 0;
        for (; j + block <= p->n; j += block) combine_columns(p, r, j, BRAID_COMBINE_VECTORS, 16);
        for (; j < p->n; j += 16) combine_columns(p, r, j, 1, p->n - j < 16 ? p->n - j : 16);
    }
}
