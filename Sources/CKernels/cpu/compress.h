// The compression of tokens' inputs to entries, sixteen columns at a time.
#pragma once

#include "../include/compress.h"
#include "select.h"
#include "vector.h"

/// Computes `lanes` columns from `d` on of one entry. `lanes` is a constant where it is 16.
BRAID_INLINE void compress_columns(
    const braid_compress *p, const float *inputs, int64_t d, int64_t lanes, float *out
) {
    const int64_t each = p->slots / p->halves, columns = p->halves * p->n;
    f16 largest = splat(-INFINITY), values = splat(0), sum = splat(0);
    for (int64_t h = 0; h < p->halves; h++) {
        const float *gates = inputs + h * each * p->inputs_stride + columns + h * p->n + d, *ape = p->ape + h * p->n + d;
        for (int64_t s = 0; s < each; s++, gates += p->inputs_stride, ape += columns)
            largest = larger_of(load_some(gates, lanes) + load_some(ape, lanes), largest);
    }
    for (int64_t h = 0; h < p->halves; h++) {
        const float *from = inputs + h * each * p->inputs_stride + h * p->n + d, *ape = p->ape + h * p->n + d;
        for (int64_t s = 0; s < each; s++, from += p->inputs_stride, ape += columns) {
            f16 e = exp16(load_some(from + columns, lanes) + load_some(ape, lanes) - largest);
            values = fma16(e, load_some(from, lanes), values);
            sum = sum + e;
        }
    }
    store_some(out + d, values / sum, lanes);
}

static void compress_entries(const braid_compress *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *inputs = p->inputs + r * p->slots * p->inputs_stride;
        float *out = p->out + r * p->out_stride;
        int64_t d = 0;
        for (; d + 16 <= p->n; d += 16) compress_columns(p, inputs, d, 16, out);
        if (d < p->n) compress_columns(p, inputs, d, p->n - d, out);
    }
}
