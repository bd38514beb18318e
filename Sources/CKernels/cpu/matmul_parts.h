// What the products of every profile share: panels of widened weights, packed rows, and the outputs at a panel's edge.
#pragma once

#include "../include/matmul.h"
#include "fp4.h"
#include "panel.h"

#define BRAID_SLICES_AT_ONCE 8  // products that share a reading of weight rows, at most

/// Returns the bytes of each weight row that `count` products read, consecutive K-slices of the same rows, from where number
/// `part` of them begins.
BRAID_INLINE braid_row_bytes row_bytes(const braid_matmul *parts, int64_t count, int64_t part) {
    const int64_t each = parts->k * bits_of(parts->w.dtype) / 8;
    return (braid_row_bytes){.begin = -part * each, .end = (count - part) * each};
}

/// Returns the scales of sixteen outputs from `n` on, for k up to `*end`, which is lowered to where they change.
BRAID_INLINE f16 scales_at(const braid_matmul *p, int64_t n, int64_t lanes, int64_t k, int64_t *end) {
    const braid_weight *w = &p->w;
    f16 scale = splat(0);
    if (!w->scale) return scale;
    const int32_t along = p->transposed ? w->row_shift : w->column_shift;
    const int32_t side = p->transposed ? w->column_shift : w->row_shift;
    const int64_t offset = p->transposed ? w->row : w->column, across = n + (p->transposed ? w->column : w->row);
    *end = at_most(*end, block_end(offset + k, along) - offset);
    if ((across >> side) == ((across + lanes - 1) >> side))
        return splat(p->transposed ? scale_at(w, k, n) : scale_at(w, n, k));
    for (int64_t i = 0; i < lanes; i++) scale[i] = p->transposed ? scale_at(w, k, n + i) : scale_at(w, n + i, k);
    return scale;
}

BRAID_INLINE void pack_transposed_of(
    braid_dtype dtype, const char *from, int64_t stride, int64_t lanes, int64_t k, f16 scale, float *panel
) {
    for (int64_t i = 0; i < k; i++)
        store16(panel + i * BRAID_PANEL_WIDTH, widen_row(dtype, from + i * stride, lanes, scale));
}

static void pack_transposed(
    const braid_weight *w, int64_t n, int64_t lanes, int64_t k, int64_t count, f16 scale, float *panel
) {
    const char *from = weight_bytes(w, k, n);
    int64_t stride = w->stride * bits_of(w->dtype) / 8;
    switch (w->dtype) {
    case BRAID_F32: return pack_transposed_of(BRAID_F32, from, stride, lanes, count, scale, panel);
    case BRAID_BF16: return pack_transposed_of(BRAID_BF16, from, stride, lanes, count, scale, panel);
    case BRAID_FP8: return pack_transposed_of(BRAID_FP8, from, stride, lanes, count, scale, panel);
    case BRAID_INT8: return pack_transposed_of(BRAID_INT8, from, stride, lanes, count, scale, panel);
    case BRAID_FP4:
        for (int64_t i = 0; i < count; i++)
            store16(panel + i * BRAID_PANEL_WIDTH, widen_fp4_row(from + i * stride, is_high(w, n), lanes, scale));
        return;
    }
}

/// Packs `count` of k of the weights of outputs `n ...` as a panel.
static void pack_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel) {
    for (int v = 0; v < BRAID_PANEL; v++, n += 16, panel += 16) {
        int64_t lanes = lanes_left(p->n - n);
        if (lanes == 0) return;  // the tile's results in these lanes are not stored
        if (p->w.dtype == BRAID_FP4 && !p->transposed) {
            pack_fp4(&p->w, n, lanes, k, count, panel);
            continue;
        }
        for (int64_t i = k, end; i < k + count; i = end) {
            end = k + count;
            f16 scale = scales_at(p, n, lanes, i, &end);
            float *to = panel + (i - k) * BRAID_PANEL_WIDTH;
            if (p->transposed) {
                pack_transposed(&p->w, n, lanes, i, end - i, scale, to);
            } else {
                const char *rows[16];
                for (int64_t l = 0; l < 16; l++) rows[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), i);
                pack_rows(p->w.dtype, rows, lanes, end - i, scale, to);
            }
        }
    }
}

/// Widens elements of a row from column `n` on, before column `end`: sixteen, or fewer at the end and where a block of
/// scales ends. `*lanes` becomes their number.
static f16 widen_some(const braid_weight *w, int64_t row, int64_t n, int64_t end, int64_t *lanes) {
    *lanes = lanes_left(end - n);
    if (w->scale) *lanes = at_most(*lanes, block_end(w->column + n, w->column_shift) - (w->column + n));
    const f16 scale = splat(w->scale ? scale_at(w, row, n) : 0);
    const char *from = weight_bytes(w, row, n);
    switch (w->dtype) {
    case BRAID_F32: return widen_row(BRAID_F32, from, *lanes, scale);
    case BRAID_BF16: return widen_row(BRAID_BF16, from, *lanes, scale);
    case BRAID_FP8: return widen_row(BRAID_FP8, from, *lanes, scale);
    case BRAID_INT8: return widen_row(BRAID_INT8, from, *lanes, scale);
    case BRAID_FP4: return widen_fp4_row(from, is_high(w, n), *lanes, scale);
    }
    return scale;
}

BRAID_INLINE const float *x_row(const braid_matmul *p, int64_t i) {
    return p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
}

BRAID_INLINE float *out_row(const braid_matmul *p, int64_t i) {
    return p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
}

/// Returns what to prefetch for the panel at (n, k), spread over `tiles` tiles.
BRAID_INLINE braid_wanted wanted_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t tiles) {
    braid_wanted wanted = {0};
    if (p->transposed || n >= p->n || k >= p->k) return wanted;
    wanted.from = weight_bytes(&p->w, n, k);
    wanted.row = p->w.stride * bits_of(p->w.dtype) / 8;
    wanted.piece = BRAID_K_BLOCK / BRAID_PIECES * bits_of(p->w.dtype) / 8;
    wanted.lines = (int)((wanted.piece / 64 + tiles - 1) / tiles);
    return wanted;
}

/// Fills `x` with the tiles of rows `m ..< end`, each [x_k][rows of the tile], from term `k` on.
static void pack_x(const braid_matmul *p, int64_t m, int64_t end, int64_t k, int64_t x_k, float *x) {
    const float *rows[BRAID_TILE_ROWS];
    for (int64_t n; m < end; m += n, x += n * x_k) {
        n = tile_rows(end - m);
        for (int64_t r = 0; r < n; r++) rows[r] = x_row(p, m + r) + k;
        pack_tile(rows, n, x_k, x);
    }
}

/// Sets `to` to where a tile of `rows` rows from `m` on has its outputs: in `out`, or, where the panel is narrow, in
/// `edge`, so that tiles are always whole. Also prefetches the next tile's outputs.
BRAID_INLINE void begin_edge(
    const braid_matmul *p, int64_t m, int64_t rows, int64_t end, int64_t n, bool first,
    float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH], float **out, float **to
) {
    const int64_t width = at_most(p->n - n, BRAID_PANEL_WIDTH);
    for (int64_t r = 0; r < rows; r++) {
        out[r] = to[r] = out_row(p, m + r) + n;
        if (width == BRAID_PANEL_WIDTH) continue;
        to[r] = edge[r];
        memset(edge[r], 0, BRAID_PANEL_WIDTH * sizeof(float));
        if (!first) memcpy(edge[r], out[r], (size_t)width * sizeof(float));
    }
    for (int64_t r = m + rows; r < at_most(m + 2 * rows, end); r++)
        BRAID_UNROLL for (int line = 0; line < BRAID_PANEL; line++)
            __builtin_prefetch(out_row(p, r) + n + 16 * line, 1, 3);
}

/// Copies what a narrow panel's tile has written to `edge` to the outputs.
BRAID_INLINE void end_edge(
    const braid_matmul *p, int64_t rows, int64_t n, float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH], float *const *out
) {
    const int64_t width = at_most(p->n - n, BRAID_PANEL_WIDTH);
    if (width == BRAID_PANEL_WIDTH) return;
    for (int64_t r = 0; r < rows; r++) memcpy(out[r], edge[r], (size_t)width * sizeof(float));
}

/// Moves on to what the next tile should prefetch; `start` is where the first tile's piece began.
BRAID_INLINE void next_wanted(braid_wanted *wanted, const char *start) {
    wanted->from += 64 * wanted->lines;
    if (wanted->from - start >= wanted->piece) wanted->lines = 0;
}
