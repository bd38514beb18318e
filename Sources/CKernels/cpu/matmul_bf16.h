// Matrix products in the BF16 profile with vectors: the panels and the transposed rows of matmul.h, and for each block
// of 32 terms two chains, of the even and of the odd ones.
#pragma once

#include "bf16.h"
#include "chains.h"
#include "matmul_pairs.h"
#include "matmul_parts.h"

#if BRAID_PAIRS
#define BRAID_LARGEST_SCALE BRAID_FP8_PAIR_SCALES
#else
#define BRAID_LARGEST_SCALE INFINITY
#endif

/// Returns whether stored elements times their scales may have more bits than BF16, or need another order of
/// multiplications than usual because a scale is very large.
static bool needs_rounding(const braid_matmul *p, int64_t n, int64_t lanes, int64_t k, int64_t count) {
    const braid_weight *w = &p->w;
    if (w->dtype == BRAID_BF16 || w->dtype == BRAID_FP4) return false;
    if (w->dtype != BRAID_FP8) return true;
    const int64_t row = p->transposed ? k : n, column = p->transposed ? n : k;
    const int64_t rows = p->transposed ? count : lanes, columns = p->transposed ? lanes : count;
    if (w->row_shift < 5) return true;  // not worth looking at so many
    for (int64_t i = row; i < row + rows; i = block_end(w->row + i, w->row_shift) - w->row)
        for (int64_t j = column; j < column + columns; j = block_end(w->column + j, w->column_shift) - w->column)
            if (!is_power_of_two(scale_at(w, i, j)) || fabsf(scale_at(w, i, j)) > BRAID_LARGEST_SCALE) return true;
    return false;
}

/// Packs rows as pack_x does, rounded to BF16.
static void pack_bf16_x(const braid_matmul *p, int64_t m, int64_t end, int64_t k, int64_t x_k, float *x) {
    pack_x(p, m, end, k, x_k, x);
    round_elements(x, x_k * (end - m));
}

/// Packs weights as pack_weights does, rounded to BF16.
static void pack_bf16_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel) {
    pack_weights(p, n, k, count, panel);
    if (needs_rounding(p, n, at_most(p->n - n, BRAID_PANEL_WIDTH), k, count))
        round_elements(panel, count * BRAID_PANEL_WIDTH);
}

#define BRAID_BF16_ROWS (BRAID_TILE_ROWS / 2)  // rows side by side, with two chains for each output

/// Continues a chain of each of `rows` rows with one term. `rows` is a constant.
BRAID_INLINE void run_term(
    int rows, const float *x, const float *panel, f16 a[BRAID_BF16_ROWS][BRAID_PANEL]
) {
    f16 w[BRAID_PANEL];
    BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) w[v] = load16(panel + 16 * v);
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = fma16(splat(x[r]), w[v], a[r][v]);
}

/// Adds the two chains of a block of `terms` terms to the outputs of `rows` rows, which begin at +0 if `first`. `rows` is a
/// constant.
BRAID_INLINE void add_chains(
    int rows, f16 even[BRAID_BF16_ROWS][BRAID_PANEL], f16 odd[BRAID_BF16_ROWS][BRAID_PANEL], int64_t terms, bool first,
    float *const *out
) {
    // A missing term is +0 * +0, which matters only to a chain that is -0, and not how often.
    const bool short_even = terms < BRAID_BF16_BLOCK - 1, short_odd = terms < BRAID_BF16_BLOCK;
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) {
            if (short_even) even[r][v] = even[r][v] + splat(0);
            if (short_odd) odd[r][v] = odd[r][v] + splat(0);
            f16 total = first ? splat(0) : load16(out[r] + 16 * v);
            store16(out[r] + 16 * v, total + (even[r][v] + odd[r][v]));
        }
}

/// Adds a block of `terms` terms to the outputs of `rows` rows of a tile of `all` rows. The outputs begin at +0 if
/// `first`. `rows` and `all` are constants.
BRAID_INLINE void bf16_block(
    int rows, int all, const float *x, const float *panel, int64_t terms, bool first, float *const *out
) {
    f16 even[BRAID_BF16_ROWS][BRAID_PANEL], odd[BRAID_BF16_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) even[r][v] = odd[r][v] = splat(0);
    int64_t i = 0;
    for (; i + 4 <= terms; i += 4, x += 4 * all, panel += 4 * BRAID_PANEL_WIDTH)
        BRAID_UNROLL for (int j = 0; j < 4; j++)
            run_term(rows, x + j * all, panel + j * BRAID_PANEL_WIDTH, j % 2 ? odd : even);
    for (; i < terms; i++, x += all, panel += BRAID_PANEL_WIDTH) {
        if (i % 2 == 0) run_term(rows, x, panel, even);
        else run_term(rows, x, panel, odd);
    }
    add_chains(rows, even, odd, terms, first, out);
}

/// Adds the blocks of `k` terms to the outputs of a tile, which begin at +0 if `first`. `rows` is a constant.
BRAID_INLINE void bf16_tile(
    int rows, const float *x, const float *panel, int64_t k, braid_wanted wanted, bool first, float *const *out
) {
    const int upper = (rows + 1) / 2;
    for (int64_t i = 0; i < k; i += BRAID_BF16_BLOCK, first = false) {
        const int64_t terms = at_most(k - i, BRAID_BF16_BLOCK);
        const float *xs = x + i * rows, *weights = panel + i * BRAID_PANEL_WIDTH;
        for (int64_t piece = i / 4; piece < (i + terms) / 4; piece++) fetch_piece(wanted, piece);
        bf16_block(upper, rows, xs, weights, terms, first, out);
        if (rows > 1) bf16_block(rows - upper, rows, xs + upper, weights, terms, first, out + upper);
    }
}

/// The terms of 64 bytes of each weight row.
BRAID_INLINE int64_t chunk_terms(braid_dtype dtype) { return 512 / bits_of(dtype); }

/// Returns whether few rows may be multiplied without a panel in `count` products of this shape, consecutive K-slices of
/// the same rows: there is room for the rounded rows, and no block of terms is cut by the end of the rows or by a change of
/// scales.
static bool has_whole_chunks(const braid_matmul *p, int64_t count) {
    const braid_weight *w = &p->w;
    const int64_t chunk = chunk_terms(w->dtype);
    if (w->dtype == BRAID_F32 || p->k % chunk != 0 || p->m * p->k * count > BRAID_PANEL_SCRATCH) return false;
    if (w->dtype == BRAID_FP4) return w->row_shift == 0 && w->column_shift == 5 && w->column % BRAID_FP4_BLOCK == 0;
    return !w->scale || (w->column % chunk == 0 && w->column_shift >= 6);
}

/// Runs the chains `half ..< halves` (the even, the odd, or both) of a block over elements of `groups` times sixteen
/// transposed weight rows: the words of `v` from `first` on. All arguments but `x` and `k` are constants.
BRAID_INLINE void run_block_chains(
    braid_dtype dtype, bool rounds, int m, int groups, const u16 v[BRAID_FEW_GROUPS][16], int first, const f16 *scale,
    const float *const *x, int64_t k, int half, int halves, f16 a[2][BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int each = (int)(32 / bits_of(dtype)), words = BRAID_BF16_BLOCK / each;
    BRAID_UNROLL for (int h = half; h < halves; h++)
        BRAID_UNROLL for (int g = 0; g < groups; g++)
            BRAID_UNROLL for (int r = 0; r < m; r++) a[h][g][r] = splat(0);
    const int together = each >= 4 ? 1 : words;  // more unrolled elements would exceed the decoded-instruction cache
    for (int from = 0; from < words; from += together)
        BRAID_UNROLL for (int j = from; j < from + together; j++)
            BRAID_UNROLL for (int e = 0; e < each; e++) {
                const int h = e & 1;
                if (h < half || h >= halves) continue;
                BRAID_UNROLL for (int g = 0; g < groups; g++) {
                    f16 w = widen_element(dtype, v[g][first + j], e, scale[g]);
                    if (rounds) w = round_bf16(w);
                    BRAID_UNROLL for (int r = 0; r < m; r++)
                        a[h][g][r] = fma16(splat(x[r][k + j * each + e]), w, a[h][g][r]);
                }
            }
}

/// Adds a block to the outputs. Both chains run together where that fills the wait for the previous step of a chain.
BRAID_INLINE void add_block(
    braid_dtype dtype, bool rounds, int m, int groups, const u16 v[BRAID_FEW_GROUPS][16], int first, const f16 *scale,
    const float *const *x, int64_t k, f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    f16 chains[2][BRAID_FEW_GROUPS][BRAID_FEW_ROWS];
    if (m * groups <= BRAID_REGISTERS / 8) {
        run_block_chains(dtype, rounds, m, groups, v, first, scale, x, k, 0, 2, chains);
    } else {
        run_block_chains(dtype, rounds, m, groups, v, first, scale, x, k, 0, 1, chains);
        run_block_chains(dtype, rounds, m, groups, v, first, scale, x, k, 1, 2, chains);
    }
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++) a[g][r] = a[g][r] + (chains[0][g][r] + chains[1][g][r]);
}

/// Returns the scales of sixteen outputs in a chunk at `k`, of which `lanes` exist; FP4's are four, a byte each.
BRAID_INLINE u16 chunk_scales(const braid_matmul *p, braid_dtype dtype, int64_t n, int64_t lanes, int64_t k) {
    int64_t end = p->k;
    if (dtype == BRAID_FP4) return load_chunk_scales(&p->w, n, lanes, k);
    return (u16)scales_at(p, n, lanes, k, &end);
}

/// Computes outputs n ..< n + lanes of `m` rows, at most `groups` times sixteen. `dtype`, `rounds`, `m` and `groups`
/// are constants.
BRAID_INLINE void few_bf16_outputs(
    const braid_matmul *p, braid_row_bytes row, braid_dtype dtype, bool rounds, int m, int groups,
    const float *const *x, int64_t n, int64_t lanes, f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int64_t step = chunk_terms(dtype), stride = p->w.stride * bits_of(dtype) / 8;
    const char *rows[BRAID_FEW_GROUPS * 16];
    u16 v[BRAID_FEW_GROUPS][16], scales[BRAID_FEW_GROUPS];
    f16 scale[BRAID_FEW_GROUPS];
    for (int64_t l = 0; l < 16 * groups; l++) rows[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), 0);
    for (int64_t k = 0; k < p->k; k += step) {
        const int64_t offset = k * bits_of(dtype) / 8, ahead = ahead_of(offset, row, 16 * groups * stride);
        BRAID_UNROLL for (int g = 0; g < groups; g++) {
            if (lanes == 16 * groups)
                BRAID_UNROLL for (int l = 0; l < 16; l++) {
                    const char *next = rows[16 * g] + l * stride + ahead;
                    if (groups == 1) __builtin_prefetch(next, 0, 0);
                    else __builtin_prefetch(next, 0, 3);
                }
            load_columns(rows + 16 * g, offset, v[g]);
            scales[g] = chunk_scales(p, dtype, n + 16 * g, lanes_left(lanes - 16 * g), k);
            scale[g] = (f16)scales[g];
        }
        BRAID_UNROLL for (int b = 0; b < step / BRAID_BF16_BLOCK; b++) {
            if (dtype == BRAID_FP4)
                BRAID_UNROLL for (int g = 0; g < groups; g++) scale[g] = widen_e8m0(scales[g], b);
            add_block(
                dtype, rounds, m, groups, v, 16 * b * BRAID_BF16_BLOCK / (int)step, scale, x,
                k + b * BRAID_BF16_BLOCK, a);
        }
    }
}

/// A product of few rows, which are rounded already.
typedef struct {
    const braid_matmul *product;
    const float *x;       // [product->m, product->k]
    braid_row_bytes row;
} braid_few_bf16;

/// Computes outputs n ..< n + lanes of rows `first ..< first + m`. `m` and `groups` are constants.
BRAID_INLINE void few_bf16_group(
    const braid_few_bf16 *few, braid_dtype dtype, bool rounds, int m, int groups, int64_t first, int64_t n,
    int64_t lanes
) {
    const braid_matmul *p = few->product;
    const float *x[BRAID_FEW_ROWS];
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS];
    BRAID_UNROLL for (int r = 0; r < m; r++) x[r] = few->x + (first + r) * p->k;
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            a[g][r] = p->accumulate ? load_some(out_row(p, first + r) + n + 16 * g, lanes_left(lanes - 16 * g))
                                    : splat(0);
    few_bf16_outputs(p, few->row, dtype, rounds, m, groups, x, n, lanes, a);
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            store_some(out_row(p, first + r) + n + 16 * g, a[g][r], lanes_left(lanes - 16 * g));
}

#if BRAID_PAIRS
/// Computes outputs n ..< n + 16 of rows `first ..< first + m` in pairs of terms. `dtype` and `m` are constants.
BRAID_INLINE void few_bf16_pairs(const braid_few_bf16 *few, braid_dtype dtype, int m, int64_t first, int64_t n) {
    const braid_matmul *p = few->product;
    const int64_t step = chunk_terms(dtype), stride = p->w.stride * bits_of(dtype) / 8;
    const char *rows[16];
    const float *x[BRAID_FEW_ROWS];
    f8 total[BRAID_PAIR_UNITS][BRAID_FEW_ROWS];
    for (int64_t l = 0; l < 16; l++) rows[l] = weight_bytes(&p->w, n + l, 0);
    BRAID_UNROLL for (int r = 0; r < m; r++) {
        x[r] = few->x + (first + r) * p->k;
        BRAID_UNROLL for (int u = 0; u < BRAID_PAIR_UNITS; u++) {
            f8 before = {0};
            if (p->accumulate) memcpy(&before, out_row(p, first + r) + n + 8 * u, sizeof before);
            total[u][r] = reorder_pair_sums(before);
        }
    }
    for (int64_t k = 0; k < p->k; k += step) {
        const int64_t ahead = ahead_of(k * bits_of(dtype) / 8, few->row, 16 * stride);
        BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(rows[0] + l * stride + ahead, 0, 3);
        add_pair_chunk(dtype, m, rows, chunk_scales(p, dtype, n, 16, k), x, k, total);
    }
    BRAID_UNROLL for (int r = 0; r < m; r++)
        BRAID_UNROLL for (int u = 0; u < BRAID_PAIR_UNITS; u++) {
            f8 sums = reorder_pair_sums(total[u][r]);
            memcpy(out_row(p, first + r) + n + 8 * u, &sums, sizeof sums);
        }
}

/// Returns whether elements are multiplied in pairs of terms. The arguments are constants.
BRAID_INLINE bool has_pairs(braid_dtype dtype, bool rounds) {
    return dtype == BRAID_FP4 || (dtype == BRAID_FP8 && !rounds);
}
#endif

/// Computes as many outputs from `n` on as fit side by side, and returns where the next outputs begin.
BRAID_INLINE int64_t few_bf16_side_by_side(
    const braid_few_bf16 *few, braid_dtype dtype, bool rounds, int m, int64_t first, int64_t n
) {
    const int64_t left = few->product->n - n;
#if BRAID_PAIRS
    if (has_pairs(dtype, rounds) && left >= 16) {
        few_bf16_pairs(few, dtype, m, first, n);
        return n + 16;
    }
#endif
    const int groups = m > 4 ? 1 : BRAID_FEW_GROUPS;
    const int64_t lanes = at_most(left, 16 * groups);
    if (lanes == 16 * groups) few_bf16_group(few, dtype, rounds, m, groups, first, n, 16 * groups);
    else few_bf16_group(few, dtype, rounds, m, 1, first, n, at_most(lanes, 16));
    return n + (lanes == 16 * groups ? lanes : 16);
}

/// Computes outputs n ..< end of one product.
BRAID_INLINE void few_bf16_block(
    const braid_few_bf16 *few, braid_dtype dtype, bool rounds, int64_t n, int64_t end
) {
    for (int64_t first = 0, m; first < few->product->m; first += m) {
        const int64_t left = few->product->m - first;
        m = left >= BRAID_FEW_ROWS ? BRAID_FEW_ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        for (int64_t i = n; i < end;)
            switch (m) {
#if BRAID_FEW_ROWS == 8
            case 8: i = few_bf16_side_by_side(few, dtype, rounds, 8, first, i); break;
#endif
            case 4: i = few_bf16_side_by_side(few, dtype, rounds, 4, first, i); break;
            case 2: i = few_bf16_side_by_side(few, dtype, rounds, 2, first, i); break;
            default: i = few_bf16_side_by_side(few, dtype, rounds, 1, first, i); break;
            }
    }
}

BRAID_INLINE void few_bf16_rows(const braid_matmul *parts, int64_t count, braid_dtype dtype, bool rounds) {
    // Blocks of outputs whose weights stay in the second-level cache for the later rows. Of several slices a block has just
    // the outputs side by side: after a slice its rows go on, and only after the last one others follow.
    const int64_t block = count == 1 ? 32 : 16 * (parts->m < BRAID_FEW_ROWS ? BRAID_FEW_GROUPS : 1);
    for (int64_t n = 0; n < parts->n; n += block)
        for (int64_t part = 0; part < count; part++) {
            const braid_few_bf16 few = {
                .product = parts + part, .x = parts->scratch + part * parts->m * parts->k,
                .row = row_bytes(parts, count, part)};
            few_bf16_block(&few, dtype, rounds, n, at_most(n + block, parts->n));
        }
}

/// Computes `count` products, consecutive K-slices of the same rows, of few rows without a panel; see has_whole_chunks.
static void bf16_few(const braid_matmul *parts, int64_t count) {
    float *to = parts->scratch;
    bool rounds = false;
    for (const braid_matmul *p = parts; p < parts + count; p++) {
        for (int64_t r = 0; r < p->m; r++, to += p->k)
            for (int64_t k = 0; k < p->k; k += 16) store16(to + k, round_bf16(load16(x_row(p, r) + k)));
        rounds = rounds || needs_rounding(p, 0, p->n, 0, p->k);
    }
    switch (parts->w.dtype) {
    case BRAID_F32: return;  // see has_whole_chunks
    case BRAID_BF16: return few_bf16_rows(parts, count, BRAID_BF16, false);
    case BRAID_FP8:
        return rounds ? few_bf16_rows(parts, count, BRAID_FP8, true) : few_bf16_rows(parts, count, BRAID_FP8, false);
    case BRAID_INT8: return few_bf16_rows(parts, count, BRAID_INT8, true);
    case BRAID_FP4: return few_bf16_rows(parts, count, BRAID_FP4, false);
    }
}

#if !defined(__x86_64__)
void reference_matmul(const braid_matmul *);

/// Returns the smaller of `least` and the magnitudes of the lanes that are not zero.
BRAID_INLINE f16 min_magnitude(f16 least, f16 x) {
    u16 magnitude = (u16)x & 0x7FFFFFFFu;
    return where((i16)(magnitude == 0) | (i16)(magnitude >= (u16)least), least, (f16)magnitude);
}

/// Returns whether a product may have an intermediate result below 2^-126, which this processor does not make zero as
/// the profile says. BF16 numbers of at least 2^a and 2^b are multiples of 2^(a - 7) and 2^(b - 7), so that all sums of
/// their products are multiples of 2^(a + b - 14).
static bool can_be_tiny(const braid_matmul *p) {
    f16 x = splat(INFINITY), w = splat(INFINITY);
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t k = 0; k < p->k; k += 16)
            x = min_magnitude(x, round_bf16(load_some(x_row(p, r) + k, lanes_left(p->k - k))));
    const int64_t rows = p->transposed ? p->k : p->n, columns = p->transposed ? p->n : p->k;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t n = 0, lanes; n < columns; n += lanes) {
            f16 v = widen_some(&p->w, row, n, columns, &lanes);
            w = min_magnitude(w, v);
        }
    float min_x = INFINITY, min_w = INFINITY;
    for (int l = 0; l < 16; l++) {
        min_x = fminf(min_x, x[l]);
        min_w = fminf(min_w, w[l]);
    }
    // Below 448 * 2^-126 a weight may have a scale, or be one, that counts as zero.
    return min_w < 0x1p-117f || (double)min_x * (double)min_w < 0x1p-110;  // by the bits of both more than 2^(-126 + 14)
}
#endif
