// FP4 weights: sixteen rows are transposed in registers, eight elements of each in a lane. A chunk is 64 bytes of each
// row, which have four scales; other lengths are taken block by block of the scales.
#pragma once

#include "../reference/weights.h"
#include "chains.h"

#define BRAID_FP4_CHUNK 128  // elements of a chunk
#define BRAID_FP4_BLOCK 32   // elements of a chunk that share a scale

/// Returns whether a chunk begins at column `k`, with four whole blocks of scales.
BRAID_INLINE bool begins_chunk(const braid_weight *w, int64_t k, int64_t end) {
    const bool usual = w->row_shift == 0 && w->column_shift == 5;
    return usual && (w->column + k) % BRAID_FP4_BLOCK == 0 && end - k >= BRAID_FP4_CHUNK;
}

/// Returns the four scales of a chunk in each lane, one in each byte. Lanes from `lanes` on repeat the last row.
BRAID_INLINE u16 load_chunk_scales(const braid_weight *w, int64_t n, int64_t lanes, int64_t k) {
    const uint8_t *from = (const uint8_t *)w->scale + (w->row + n) * w->scale_stride + (w->column + k) / BRAID_FP4_BLOCK;
    u16 scales;
    BRAID_UNROLL for (int l = 0; l < 16; l++) {
        uint32_t four;
        memcpy(&four, from + at_most(l, lanes - 1) * w->scale_stride, sizeof four);
        scales[l] = four;
    }
    return scales;
}

/// Widens the E8M0 byte at bit 8 `b` of each lane.
BRAID_INLINE f16 widen_e8m0(u16 scales, int b) {
    u16 byte = scales >> (uint32_t)(8 * b) & 0xFFu;
    u16 bits = byte << 23 | ((u16)(byte == 0) & 0x400000u) | ((u16)(byte == 0xFFu) & 0x7FC00000u);
    return (f16)bits;
}

/// Returns the scales of sixteen rows from `n` on at column `k`, and lowers `*end` to where they change.
BRAID_INLINE f16 block_scales(const braid_weight *w, int64_t n, int64_t lanes, int64_t k, int64_t *end) {
    f16 scale = splat(0);
    *end = at_most(*end, block_end(w->column + k, w->column_shift) - w->column);
    *end = at_most(*end, k + BRAID_FP4_CHUNK - 1);  // what is loaded at once, even from an odd column
    for (int64_t l = 0; l < lanes; l++) scale[l] = scale_at(w, n + l, k);
    return scale;
}

/// Loads elements `k ..< end` of the rows, fewer than a chunk, transposed. The first is element `is_high` of its lane.
BRAID_INLINE void load_block(
    const braid_weight *w, const char *const *rows, int64_t lanes, int64_t k, int64_t end, u16 v[16]
) {
    const int64_t first = (is_high(w, 0) + k) >> 1, last = (is_high(w, 0) + end - 1) >> 1;
    load_some_columns(rows, lanes, first, last + 1 - first, v);
}

/// Fills `rows` with the addresses of sixteen rows from `n` on; rows from `lanes` on are the last.
BRAID_INLINE void rows_from(const braid_weight *w, int64_t n, int64_t lanes, const char **rows) {
    for (int64_t l = 0; l < 16; l++) rows[l] = weight_bytes(w, n + at_most(l, lanes - 1), 0);
}

/// Packs elements `k ..< k + count` of `lanes` rows from `n` on into sixteen lanes of a panel.
static void pack_fp4(const braid_weight *w, int64_t n, int64_t lanes, int64_t k, int64_t count, float *panel) {
    const char *rows[16];
    u16 v[16];
    rows_from(w, n, lanes, rows);
    for (const int64_t stop = k + count; k < stop;) {
        int64_t end = stop;
        if (begins_chunk(w, k, stop)) {
            u16 scales = load_chunk_scales(w, n, lanes, k);
            load_columns(rows, (is_high(w, 0) + k) >> 1, v);
            BRAID_UNROLL for (int b = 0; b < 4; b++) {
                f16 scale = widen_e8m0(scales, b);
                for (int j = 4 * b; j < 4 * b + 4; j++)
                    BRAID_UNROLL for (int e = 0; e < 8; e++, panel += BRAID_PANEL_WIDTH)
                        store16(panel, widen_fp4(v[j], e) * scale);
            }
            k += BRAID_FP4_CHUNK;
            continue;
        }
        f16 scale = block_scales(w, n, lanes, k, &end);
        load_block(w, rows, lanes, k, end, v);
        for (int64_t i = is_high(w, k), past = i + end - k; i < past; i++, panel += BRAID_PANEL_WIDTH)
            store16(panel, widen_fp4(v[i / 8] >> (uint32_t)(i % 8 * 4), 0) * scale);
        k = end;
    }
}

/// Continues the chains of `m` rows over a chunk of `groups` times sixteen weight rows. `m` and `groups` are constants.
BRAID_INLINE void dot_chunk(
    int m, int groups, const u16 v[BRAID_FEW_GROUPS][16], const u16 *scales, const float *const *x, int64_t k,
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    for (int b = 0; b < 4; b++) {
        f16 scale[BRAID_FEW_GROUPS];
        BRAID_UNROLL for (int g = 0; g < groups; g++) scale[g] = widen_e8m0(scales[g], b);
        for (int j = 4 * b; j < 4 * b + 4; j++)
            BRAID_UNROLL for (int e = 0; e < 8; e++)
                BRAID_UNROLL for (int g = 0; g < groups; g++) {
                    f16 w = widen_fp4(v[g][j], e) * scale[g];
                    BRAID_UNROLL for (int r = 0; r < m; r++) a[g][r] = fma16(splat(x[r][k + 8 * j + e]), w, a[g][r]);
                }
    }
}

/// Computes outputs n ..< n + lanes of all rows, at most `groups` times sixteen. `m` and `groups` are constants.
BRAID_INLINE void few_outputs_fp4(
    const braid_weight *w, int64_t all, braid_row_bytes row, int m, int groups, const float *const *x, int64_t n,
    int64_t lanes, f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int64_t stride = w->stride / 2;
    const char *rows[BRAID_FEW_GROUPS][16];
    u16 v[BRAID_FEW_GROUPS][16], scales[BRAID_FEW_GROUPS];
    for (int g = 0; g < groups; g++) rows_from(w, n + 16 * g, lanes_left(lanes - 16 * g), rows[g]);
    for (int64_t k = 0, end; k < all; k = end) {
        end = all;
        if (begins_chunk(w, k, all)) {
            end = k + BRAID_FP4_CHUNK;
            const int64_t offset = (is_high(w, 0) + k) >> 1, ahead = ahead_of(offset, row, 16 * groups * stride);
            BRAID_UNROLL for (int g = 0; g < groups; g++) {
                BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(rows[g][0] + l * stride + ahead, 0, 3);
                scales[g] = load_chunk_scales(w, n + 16 * g, lanes_left(lanes - 16 * g), k);
                load_columns(rows[g], offset, v[g]);
            }
            dot_chunk(m, groups, v, scales, x, k, a);
            continue;
        }
        f16 scale[BRAID_FEW_GROUPS];
        for (int g = 0; g < groups; g++) {
            const int64_t own = lanes_left(lanes - 16 * g);
            scale[g] = block_scales(w, n + 16 * g, own, k, &end);
            load_block(w, rows[g], own, k, end, v[g]);
        }
        for (int64_t i = is_high(w, k), at = k; at < end; i++, at++)
            BRAID_UNROLL for (int g = 0; g < groups; g++) {
                f16 element = widen_fp4(v[g][i / 8] >> (uint32_t)(i % 8 * 4), 0) * scale[g];
                BRAID_UNROLL for (int r = 0; r < m; r++) a[g][r] = fma16(splat(x[r][at]), element, a[g][r]);
            }
    }
}

/// Widens `n` of sixteen consecutive elements of a row, the first in the high bits of `from` if `high` is 1, and fills
/// the other lanes with zeros.
BRAID_INLINE f16 widen_fp4_row(const char *from, int64_t high, int64_t n, f16 scale) {
    u16 codes = {0};
    for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)from[(high + i) >> 1] >> ((high + i) & 1) * 4;
    return widen_fp4(codes & 0xFu, 0) * scale;
}
