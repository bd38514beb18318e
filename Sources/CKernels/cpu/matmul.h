// Matrix products: panels of weights are widened and transposed once, then every tile of rows runs its chains down them.
#pragma once

#include "../include/matmul.h"
#include "panel.h"

// A panel of this many k is 32 KiB and stays in the first level of cache.
#define BRAID_K_BLOCK 256
// From so many rows on, all panels of a K block come before the next block, so that the rows' x stays in cache.
#define BRAID_MANY_ROWS 64
// Up to so many rows the weights are used from registers, as they are transposed.
#define BRAID_DIRECT_ROWS 4

/// The scales of sixteen outputs beginning at `n`, for k up to `*end` (unchanged, or where they change).
BRAID_INLINE f16 scales_at(const braid_matmul *p, int64_t n, int64_t lanes, int64_t k, int64_t *end) {
    f16 scale = splat(0);
    if (p->w.dtype == BRAID_FP8) {
        int64_t offset = p->transposed ? p->w.row : p->w.column;
        *end = at_most(*end, (offset + k) / 128 * 128 + 128 - offset);
    } else if (p->w.dtype == BRAID_INT8) {
        if (p->transposed) *end = k + 1;
    } else {
        return scale;
    }
    for (int64_t i = 0; i < lanes; i++)
        scale[i] = p->transposed ? scale_at(&p->w, k, n + i) : scale_at(&p->w, n + i, k);
    return scale;
}

BRAID_INLINE void pack_transposed(
    braid_dtype dtype, const char *from, int64_t stride, int64_t lanes, int64_t k, f16 scale, float *panel
) {
    for (int64_t i = 0; i < k; i++)
        store16(panel + i * BRAID_PANEL_WIDTH, widen_row(dtype, from + i * stride, lanes, scale));
}

/// Weights [n, k) ... as a panel.
static void pack_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel) {
    const braid_weight *w = &p->w;
    int64_t bytes = bytes_of(w->dtype), stride = w->stride * bytes;
    for (int v = 0; v < BRAID_PANEL; v++, n += 16, panel += 16) {
        int64_t lanes = lanes_left(p->n - n);
        if (lanes == 0) return;  // what the tile computes there is not kept
        for (int64_t i = k, end; i < k + count; i = end) {
            end = k + count;
            f16 scale = scales_at(p, n, lanes, i, &end);
            float *to = panel + (i - k) * BRAID_PANEL_WIDTH;
            if (p->transposed) {
                const char *from = (const char *)w->data + i * stride + n * bytes;
                switch (w->dtype) {
                case BRAID_F32: pack_transposed(BRAID_F32, from, stride, lanes, end - i, scale, to); break;
                case BRAID_BF16: pack_transposed(BRAID_BF16, from, stride, lanes, end - i, scale, to); break;
                case BRAID_FP8: pack_transposed(BRAID_FP8, from, stride, lanes, end - i, scale, to); break;
                case BRAID_INT8: pack_transposed(BRAID_INT8, from, stride, lanes, end - i, scale, to); break;
                }
            } else {
                const char *rows[16];
                for (int64_t l = 0; l < 16; l++)
                    rows[l] = (const char *)w->data + (n + at_most(l, lanes - 1)) * stride + i * bytes;
                pack_rows(w->dtype, rows, lanes, end - i, scale, to);
            }
        }
    }
}

BRAID_INLINE void matmul_tile(
    int rows, const float *const *x, const float *panel, int64_t k, bool first, float *const *out
) {
    f16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = first ? splat(0) : load16(out[r] + 16 * v);
    run_chains(rows, x, panel, k, a);
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) store16(out[r] + 16 * v, a[r][v]);
}

BRAID_INLINE const float *x_row(const braid_matmul *p, int64_t i) {
    return p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
}

BRAID_INLINE float *out_row(const braid_matmul *p, int64_t i) {
    return p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
}

/// All rows against one panel.
static void matmul_panel(const braid_matmul *p, const float *panel, int64_t n, int64_t k, int64_t count) {
    bool first = k == 0 && !p->accumulate;
    int64_t width = at_most(p->n - n, BRAID_PANEL_WIDTH);
    float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH];  // a narrow panel's outputs, so that tiles are always whole
    const float *x[BRAID_TILE_ROWS];
    float *out[BRAID_TILE_ROWS], *to[BRAID_TILE_ROWS];
    for (int64_t i = 0; i < p->m; i += BRAID_TILE_ROWS) {
        int64_t rows = at_most(p->m - i, BRAID_TILE_ROWS);
        for (int64_t r = 0; r < rows; r++) {
            x[r] = x_row(p, i + r) + k;
            out[r] = to[r] = out_row(p, i + r) + n;
            if (width == BRAID_PANEL_WIDTH) continue;
            to[r] = edge[r];
            memset(edge[r], 0, sizeof edge[r]);
            if (!first) memcpy(edge[r], out[r], (size_t)width * sizeof(float));
        }
        BRAID_FOR_ROWS(rows, matmul_tile, x, panel, count, first, to)
        if (width == BRAID_PANEL_WIDTH) continue;
        for (int64_t r = 0; r < rows; r++) memcpy(out[r], edge[r], (size_t)width * sizeof(float));
    }
}

static void matmul(const braid_matmul *p) {
    bool many = p->m >= BRAID_MANY_ROWS;
    int64_t n_step = many ? p->n : BRAID_PANEL_WIDTH;
    for (int64_t n0 = 0; n0 < p->n; n0 += n_step) {
        int64_t k = 0;
        do {
            int64_t count = at_most(p->k - k, BRAID_K_BLOCK);
            for (int64_t n = n0; n < at_most(n0 + n_step, p->n); n += BRAID_PANEL_WIDTH) {
                pack_weights(p, n, k, count, p->scratch);
                matmul_panel(p, p->scratch, n, k, count);
            }
            k += BRAID_K_BLOCK;
        } while (k < p->k);
    }
}

static void embedding(const braid_embedding *p) {
    const braid_weight *w = &p->w;
    int64_t bytes = bytes_of(w->dtype);
    for (int64_t i = 0; i < p->m; i++) {
        int64_t row = p->ids[i];
        const char *from = (const char *)w->data + row * w->stride * bytes;
        float *out = p->out + i * p->out_stride;
        bool scaled = w->dtype == BRAID_FP8 || w->dtype == BRAID_INT8;
        for (int64_t n = 0, lanes; n < p->n; n += lanes) {
            // Sixteen at a time, fewer at the end and where a block of scales ends.
            lanes = at_most(lanes_left(p->n - n), 128 - (w->column + n) % 128);
            f16 scale = splat(scaled ? scale_at(w, row, n) : 0);
            f16 v = splat(0);
            switch (w->dtype) {
            case BRAID_F32: v = widen_row(BRAID_F32, from + n * bytes, lanes, scale); break;
            case BRAID_BF16: v = widen_row(BRAID_BF16, from + n * bytes, lanes, scale); break;
            case BRAID_FP8: v = widen_row(BRAID_FP8, from + n * bytes, lanes, scale); break;
            case BRAID_INT8: v = widen_row(BRAID_INT8, from + n * bytes, lanes, scale); break;
            }
            store_some(out + n, v, lanes);
        }
    }
}
