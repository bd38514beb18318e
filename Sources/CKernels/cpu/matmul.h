// Matrix products: panels of weights are widened and transposed once, then every tile of rows runs its chains down
// them. Products of few rows are limited by reading the weights, and use no panels.
#pragma once

#include "../include/matmul.h"
#include "chains.h"
#include "elementwise.h"

#define BRAID_AHEAD 512  // without a panel, each weight row is prefetched this many bytes ahead

/// Returns the number of 16-output groups computed side by side. A step of a chain waits for the previous one, however
/// many rows there are, and a second group fills the wait. If memory is slower than the wait (F32) or registers are
/// scarce, one group is faster. One-byte weights, whose cache lines last longest, profit from two for any number of
/// rows.
BRAID_INLINE int few_groups(braid_dtype dtype, int m) {
    return bytes_of(dtype) == 1 || (dtype == BRAID_BF16 && m == 1) ? BRAID_FEW_GROUPS : 1;
}

/// Returns the most rows that are faster without a panel. Rows beyond those side by side read the same weights again
/// from the second-level cache and widen them again; that pays for one more pass while a panel would have fewer rows.
BRAID_INLINE int64_t gemv_rows_at_most(const braid_matmul *p) {
    const braid_dtype dtype = p->w.dtype;
    if (p->gemv_max_rows > 0) return p->gemv_max_rows;
    if (BRAID_FEW_GROUPS == 1 || dtype == BRAID_F32) return BRAID_FEW_ROWS;
    return dtype == BRAID_BF16 ? 2 * BRAID_FEW_ROWS : BRAID_FEW_ROWS + BRAID_FEW_ROWS / 2;
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

BRAID_INLINE const char *weight_bytes(const braid_weight *w, int64_t row, int64_t column) {
    return (const char *)w->data + (row * w->stride + column) * bytes_of(w->dtype);
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
    int64_t stride = w->stride * bytes_of(w->dtype);
    switch (w->dtype) {
    case BRAID_F32: return pack_transposed_of(BRAID_F32, from, stride, lanes, count, scale, panel);
    case BRAID_BF16: return pack_transposed_of(BRAID_BF16, from, stride, lanes, count, scale, panel);
    case BRAID_FP8: return pack_transposed_of(BRAID_FP8, from, stride, lanes, count, scale, panel);
    case BRAID_INT8: return pack_transposed_of(BRAID_INT8, from, stride, lanes, count, scale, panel);
    }
}

/// Packs `count` of k of the weights of outputs `n ...` as a panel.
static void pack_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel) {
    for (int v = 0; v < BRAID_PANEL; v++, n += 16, panel += 16) {
        int64_t lanes = lanes_left(p->n - n);
        if (lanes == 0) return;  // the tile's results in these lanes are not stored
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

BRAID_INLINE const float *x_row(const braid_matmul *p, int64_t i) {
    return p->x + (p->x_rows ? p->x_rows[i] : i) * p->x_stride;
}

BRAID_INLINE float *out_row(const braid_matmul *p, int64_t i) {
    return p->out + (p->out_rows ? p->out_rows[i] : i) * p->out_stride;
}

BRAID_INLINE void matmul_tile(
    int rows, const float *x, const float *panel, int64_t k, braid_wanted wanted, bool first, float *const *out
) {
    f16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = first ? splat(0) : load16(out[r] + 16 * v);
    run_chains(rows, x, panel, k, wanted, a);
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) store16(out[r] + 16 * v, a[r][v]);
}

/// Returns what to prefetch for the panel at (n, k), spread over `tiles` tiles.
BRAID_INLINE braid_wanted wanted_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t tiles) {
    braid_wanted wanted = {0};
    if (p->transposed || n >= p->n || k >= p->k) return wanted;
    wanted.from = weight_bytes(&p->w, n, k);
    wanted.row = p->w.stride * bytes_of(p->w.dtype);
    wanted.piece = BRAID_K_BLOCK / BRAID_PIECES * bytes_of(p->w.dtype);
    wanted.lines = (int)((wanted.piece / 64 + tiles - 1) / tiles);
    return wanted;
}

/// Multiplies rows `m ..< end` with one panel. `x` holds their tiles, each [x_k][rows of the tile], at the panel's
/// first k.
static void matmul_panel(
    const braid_matmul *p, const float *panel, int64_t m, int64_t end, int64_t n, int64_t count, const float *x,
    int64_t x_k, int64_t x_from, bool first, braid_wanted wanted
) {
    int64_t width = at_most(p->n - n, BRAID_PANEL_WIDTH);
    float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH];  // holds a narrow panel's outputs, so that tiles are always whole
    float *out[BRAID_TILE_ROWS], *to[BRAID_TILE_ROWS];
    const char *start = wanted.from;
    for (int64_t rows; m < end; m += rows) {
        rows = tile_rows(end - m);
        for (int64_t r = 0; r < rows; r++) {
            out[r] = to[r] = out_row(p, m + r) + n;
            if (width == BRAID_PANEL_WIDTH) continue;
            to[r] = edge[r];
            memset(edge[r], 0, sizeof edge[r]);
            if (!first) memcpy(edge[r], out[r], (size_t)width * sizeof(float));
        }
        for (int64_t r = m + rows; r < at_most(m + 2 * rows, end); r++)  // prefetches the next tile's outputs
            BRAID_UNROLL for (int line = 0; line < BRAID_PANEL; line++)
                __builtin_prefetch(out_row(p, r) + n + 16 * line, 1, 3);
        BRAID_FOR_ROWS(rows, matmul_tile, x + x_from * rows, panel, count, wanted, first, to)
        x += x_k * rows;
        wanted.from += 64 * wanted.lines;
        if (wanted.from - start >= wanted.piece) wanted.lines = 0;
        if (width == BRAID_PANEL_WIDTH) continue;
        for (int64_t r = 0; r < rows; r++) memcpy(out[r], edge[r], (size_t)width * sizeof(float));
    }
}

static void matmul_panels(const braid_matmul *p) {
    const int64_t room = BRAID_MATMUL_SCRATCH - BRAID_K_BLOCK * BRAID_PANEL_WIDTH - 16;
    const int64_t most_rows = room / BRAID_K_BLOCK / BRAID_TILE_ROWS * BRAID_TILE_ROWS;
    float *panel = p->scratch, *x = panel + BRAID_K_BLOCK * BRAID_PANEL_WIDTH;
    const float *rows[BRAID_TILE_ROWS];
    for (int64_t m = 0; m < p->m; m += most_rows) {
        int64_t end = at_most(m + most_rows, p->m);
        int64_t k_step = room / (end - m) / BRAID_K_BLOCK * BRAID_K_BLOCK;  // this much of x is packed at once
        int64_t k0 = 0;
        do {
            int64_t x_k = at_most(k_step, p->k - k0);
            float *to = x;
            for (int64_t i = m, n; i < end; i += n, to += n * x_k) {
                n = tile_rows(end - i);
                for (int64_t r = 0; r < n; r++) rows[r] = x_row(p, i + r) + k0;
                pack_tile(rows, n, x_k, to);
            }
            for (int64_t n = 0; n < p->n; n += BRAID_PANEL_WIDTH) {
                int64_t k = k0;
                do {
                    int64_t count = at_most(k0 + x_k - k, BRAID_K_BLOCK);
                    pack_weights(p, n, k, count, panel);
                    bool first = k == 0 && !p->accumulate;
                    bool again = k + count < k0 + x_k;  // the next panel continues this one
                    braid_wanted wanted = wanted_weights(
                        p, again ? n : n + BRAID_PANEL_WIDTH, again ? k + count : k0,
                        (end - m + BRAID_TILE_ROWS - 1) / BRAID_TILE_ROWS);
                    matmul_panel(p, panel, m, end, n, count, x, x_k, k - k0, first, wanted);
                    k += count;
                } while (k < k0 + x_k);
            }
            k0 += x_k;
        } while (k0 < p->k);
    }
}

/// Computes outputs n ..< n + lanes of all rows, at most `groups` times sixteen. `m` and `groups` are constants.
BRAID_INLINE void few_outputs(
    const braid_matmul *p, braid_dtype dtype, int m, int groups, const float *const *x, int64_t n, int64_t lanes,
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int64_t step = 64 / bytes_of(dtype), stride = p->w.stride * bytes_of(dtype), bytes = p->k * bytes_of(dtype);
    const char *rows[BRAID_FEW_GROUPS * 16];
    u16 v[BRAID_FEW_GROUPS][16];
    f16 scale[BRAID_FEW_GROUPS];
    for (int64_t l = 0; l < 16 * groups; l++) rows[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), 0);
    for (int64_t k = 0, end; k < p->k; k = end) {
        end = p->k;
        for (int g = 0; g < groups; g++) scale[g] = scales_at(p, n + 16 * g, lanes_left(lanes - 16 * g), k, &end);
        int64_t i = k;
        if (lanes == 16 * groups)
            for (; i + step <= end; i += step) {
                int64_t offset = i * bytes_of(dtype), ahead = offset + BRAID_AHEAD;
                if (ahead >= bytes) ahead += 16 * groups * stride - bytes;  // continues with the next rows' first bytes
                BRAID_UNROLL for (int g = 0; g < groups; g++) {
                    BRAID_UNROLL for (int l = 0; l < 16; l++) {
                        const char *next = rows[16 * g] + l * stride + ahead;
                        if (groups == 1) __builtin_prefetch(next, 0, 0);
                        else __builtin_prefetch(next, 0, 3);  // so many rows would evict each other from L1
                    }
                    load_columns(rows + 16 * g, offset, v[g]);
                }
                dot_chains(dtype, m, groups, v, step, scale, x, i, a);
            }
        for (; i < end; i += step) {
            int64_t count = at_most(end - i, step);
            for (int g = 0; g < groups; g++)
                load_some_columns(
                    rows + 16 * g, lanes_left(lanes - 16 * g), i * bytes_of(dtype), count * bytes_of(dtype), v[g]);
            dot_chains(dtype, m, groups, v, count, scale, x, i, a);
        }
    }
}

/// Computes outputs n ..< n + lanes of rows `first ..< first + m`. `m` and `groups` are constants.
BRAID_INLINE void few_group(
    const braid_matmul *p, braid_dtype dtype, int m, int groups, int64_t first, int64_t n, int64_t lanes
) {
    const float *x[BRAID_FEW_ROWS];
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS];
    BRAID_UNROLL for (int r = 0; r < m; r++) x[r] = x_row(p, first + r);
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            a[g][r] = p->accumulate ? load_some(out_row(p, first + r) + n + 16 * g, lanes_left(lanes - 16 * g))
                                    : splat(0);
    few_outputs(p, dtype, m, groups, x, n, lanes, a);
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            store_some(out_row(p, first + r) + n + 16 * g, a[g][r], lanes_left(lanes - 16 * g));
}

/// Computes as many outputs from `n` on as fit side by side, for `m` rows, a constant. Returns where the next outputs
/// begin.
BRAID_INLINE int64_t few_side_by_side(const braid_matmul *p, braid_dtype dtype, int m, int64_t first, int64_t n) {
    const int groups = few_groups(dtype, m);
    int64_t lanes = at_most(p->n - n, 16 * groups);
    if (lanes == 16 * groups) {
        few_group(p, dtype, m, groups, first, n, 16 * groups);
        return n + 16 * groups;
    }
    few_group(p, dtype, m, 1, first, n, at_most(lanes, 16));
    return n + 16;
}

BRAID_INLINE void gemv_rows(const braid_matmul *p, braid_dtype dtype) {
    int64_t times = (p->m + BRAID_FEW_ROWS - 1) / BRAID_FEW_ROWS, most = (p->m + times - 1) / times;
    for (int64_t n = 0, next; n < p->n; n = next) {
        next = p->n;
        for (int64_t first = 0; first < p->m; first += most) {
            switch (at_most(most, p->m - first)) {
#if BRAID_FEW_ROWS == 8
            case 8: next = few_side_by_side(p, dtype, 8, first, n); break;
            case 7: next = few_side_by_side(p, dtype, 7, first, n); break;
            case 6: next = few_side_by_side(p, dtype, 6, first, n); break;
            case 5: next = few_side_by_side(p, dtype, 5, first, n); break;
#endif
            case 4: next = few_side_by_side(p, dtype, 4, first, n); break;
            case 3: next = few_side_by_side(p, dtype, 3, first, n); break;
            case 2: next = few_side_by_side(p, dtype, 2, first, n); break;
            default: next = few_side_by_side(p, dtype, 1, first, n); break;
            }
        }
    }
}

static void matmul_few(const braid_matmul *p) {
    switch (p->w.dtype) {
    case BRAID_F32: return gemv_rows(p, BRAID_F32);
    case BRAID_BF16: return gemv_rows(p, BRAID_BF16);
    case BRAID_FP8: return gemv_rows(p, BRAID_FP8);
    case BRAID_INT8: return gemv_rows(p, BRAID_INT8);
    }
}

static void matmul(const braid_matmul *p) {
    if (p->m == 0) return;
    if (p->transposed || p->m > gemv_rows_at_most(p)) matmul_panels(p);
    else matmul_few(p);
}

static void batched_matmul(const braid_batched_matmul *p) {
    for (int64_t b = 0; b < p->count; b++) {
        braid_matmul product = p->product;
        product.w = weight_part(product.w, b * p->w_step, 0);
        product.x += b * p->x_step;
        product.out += b * p->out_step;
        matmul(&product);
    }
}

/// Computes the subtree of `slices` K-slices of one block of outputs; `spare` has space for the levels below.
static void slice_tree(const braid_matmul *p, int64_t slices, float *spare) {
    if (slices == 1) {
        matmul(p);
        return;
    }
    braid_matmul left = *p, right = *p;
    left.k = right.k = p->k / 2;
    right.w = weight_part(p->w, 0, right.k);
    right.x += right.k;
    right.out = spare;
    right.out_stride = p->n;
    slice_tree(&left, slices / 2, spare + p->m * p->n);
    slice_tree(&right, slices / 2, spare + p->m * p->n);
    const braid_add sum = {
        .m = p->m, .n = p->n, .a = left.out, .a_stride = left.out_stride, .b = right.out, .b_stride = right.out_stride,
        .out = p->out, .out_stride = p->out_stride};
    add(&sum);
}

static void sliced_matmul(const braid_sliced_matmul *p) {
    const int64_t columns = braid_sliced_columns(p->product.m);
    for (int64_t n = 0; n < p->product.n; n += columns) {
        braid_matmul block = p->product;
        block.w = weight_part(block.w, n, 0);
        block.n = at_most(columns, block.n - n);
        block.out += n;
        slice_tree(&block, p->slices, p->partial);
    }
}

static void embedding(const braid_embedding *p) {
    const braid_weight *w = &p->w;
    for (int64_t i = 0; i < p->m; i++) {
        int64_t row = p->ids[i];
        float *out = p->out + i * p->out_stride;
        for (int64_t n = 0, lanes; n < p->n; n += lanes) {
            // There are sixteen lanes at a time, fewer at the end and where a block of scales ends.
            lanes = lanes_left(p->n - n);
            if (w->scale) lanes = at_most(lanes, block_end(w->column + n, w->column_shift) - (w->column + n));
            f16 scale = splat(w->scale ? scale_at(w, row, n) : 0), v = splat(0);
            const char *from = weight_bytes(w, row, n);
            switch (w->dtype) {
            case BRAID_F32: v = widen_row(BRAID_F32, from, lanes, scale); break;
            case BRAID_BF16: v = widen_row(BRAID_BF16, from, lanes, scale); break;
            case BRAID_FP8: v = widen_row(BRAID_FP8, from, lanes, scale); break;
            case BRAID_INT8: v = widen_row(BRAID_INT8, from, lanes, scale); break;
            }
            store_some(out + n, v, lanes);
        }
    }
}
