// The lightning indexer in the BF16 profile with vectors: dot products are those of matmul_bf16.h, and sixteen
// accumulators for each key take the heads. Only dot products flush small numbers, so those of a row's heads with a
// panel of keys are in memory before the heads are added.
#pragma once

#include "indexer_keys.h"
#include "matmul_bf16.h"

// This many panels of keys are packed before the queries, which are packed and rounded for each block of keys again,
// run over them: 1024 keys. A panel is then read by all heads of a row at once, so it may be far away.
#define BRAID_BF16_PANELS (1024 / BRAID_PANEL_WIDTH)

// Heads of a row whose dot products with a panel are in memory before they are added.
#define BRAID_DOT_HEADS 64

/// Returns whether keys enter dot products without their scale, which then multiplies the score.
BRAID_INLINE bool has_scale_last(const braid_lane *keys) {
    return keys->dtype == BRAID_FP8 && keys->group >= keys->width;
}

/// Returns what the score of a key is multiplied by: 1, which changes nothing, if its scales are in the dot products.
BRAID_INLINE float score_factor(const braid_lane *keys, const char *key) {
    return has_scale_last(keys) ? entry_scale(keys, key, 0) : 1;
}

/// A panel of keys in scratch.
typedef struct {
    float *keys;     // [width][BRAID_PANEL_WIDTH]
    float *sums;     // [16][BRAID_PANEL_WIDTH], a row's accumulators when only some of its heads have been added
    float *factors;  // [BRAID_PANEL_WIDTH]
} braid_key_panel;

BRAID_INLINE int64_t key_panel_size(int64_t width) { return (width + 16 + 1) * BRAID_PANEL_WIDTH; }

BRAID_INLINE braid_key_panel key_panel_at(float *from, int64_t width) {
    float *sums = from + width * BRAID_PANEL_WIDTH;
    return (braid_key_panel){.keys = from, .sums = sums, .factors = sums + 16 * BRAID_PANEL_WIDTH};
}

/// Packs the keys `i ..< end` as panels that follow each other in `to`.
BRAID_FLUSHING void pack_bf16_keys(const braid_index_scores *p, int64_t i, int64_t end, float *to) {
    const braid_lane *keys = &p->keys;
    for (int64_t lane = 0; i < end; i += 16, lane = (lane + 16) % BRAID_PANEL_WIDTH) {
        const braid_key_panel panel = key_panel_at(to, keys->width);
        const int64_t lanes = lanes_left(end - i);
        const char *rows[16];
        for (int64_t l = 0; l < 16; l++) {
            rows[l] = entry_at(keys, key_entry(p, i + at_most(l, lanes - 1)));
            panel.factors[lane + l] = score_factor(keys, rows[l]);
        }
        if (has_scale_last(keys)) pack_rows(BRAID_FP8, rows, lanes, keys->width, splat(1), panel.keys + lane);
        else pack_keys(p, i, lanes, panel.keys + lane);
        if (keys->dtype == BRAID_F32 || (keys->dtype == BRAID_FP8 && !has_scale_last(keys)))
            for (int64_t k = 0; k < keys->width; k++) {
                float *at = panel.keys + k * BRAID_PANEL_WIDTH + lane;
                store16(at, round_bf16(load16(at)));
            }
        if (lane + 16 == BRAID_PANEL_WIDTH) to += key_panel_size(keys->width);
    }
}

/// Continues a chain of each of `rows` queries and each lane of a panel with term `k`. `rows` and `k` are constants.
BRAID_INLINE void step_chains(
    int rows, const float *x, const float *panel, int k, f16 a[BRAID_TILE_ROWS][BRAID_PANEL]
) {
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
            a[r][v] = fma16(splat(x[k * rows + r]), load16(panel + k * BRAID_PANEL_WIDTH + 16 * v), a[r][v]);
}

/// Computes the dot products of `rows` queries with a panel. A chain's steps over a block are unrolled, because
/// leaving a loop of so few is badly predicted. `rows` is a constant where this is inlined.
BRAID_INLINE void index_bf16_tile(int rows, const float *x, const float *panel, int64_t width, float *dots) {
    float even[BRAID_TILE_ROWS * BRAID_PANEL_WIDTH] __attribute__((aligned(64)));
    f16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    for (int64_t i = 0; i < width; i += BRAID_BF16_BLOCK)
        for (int64_t c = 0; c < 2; c++) {
            const int64_t terms = at_most(width - i, BRAID_BF16_BLOCK) - c;
            const float *xs = x + (i + c) * rows, *ks = panel + (i + c) * BRAID_PANEL_WIDTH;
            BRAID_UNROLL for (int r = 0; r < rows; r++)
                BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = splat(0);
            if (terms >= BRAID_BF16_BLOCK - 1) {
                BRAID_UNROLL for (int k = 0; k < BRAID_BF16_BLOCK; k += 2) step_chains(rows, xs, ks, k, a);
            } else {
                for (int k = 0; k < terms; k += 2) step_chains(rows, xs, ks, k, a);
                // Of the missing terms, +0 * +0, one is enough: another changes nothing.
                BRAID_UNROLL for (int r = 0; r < rows; r++)
                    BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = a[r][v] + splat(0);
            }
            BRAID_UNROLL for (int r = 0; r < rows; r++)
                BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) {
                    const int at = r * BRAID_PANEL_WIDTH + 16 * v;
                    if (c == 0) store16(even + at, a[r][v]);
                    else store16(dots + at, (i == 0 ? splat(0) : load16(dots + at)) + (load16(even + at) + a[r][v]));
                }
        }
}

/// Some heads of a row, with their queries in scratch.
typedef struct {
    int64_t row, first, count;  // BRAID_DOT_HEADS at most
    int64_t tiles;
    float *x;                   // [width][heads of the tile] for each tile
} braid_index_heads;

/// Returns the first head of a tile. Tiles are as even as possible.
BRAID_INLINE int64_t tile_begin(const braid_index_heads *heads, int64_t tile) {
    return heads->count * tile / heads->tiles;
}

static void pack_index_queries(const braid_index_scores *p, const braid_index_heads *heads) {
    const int64_t width = p->keys.width;
    for (int64_t t = 0; t < heads->tiles; t++) {
        const int64_t begin = tile_begin(heads, t), rows = tile_begin(heads, t + 1) - begin;
        const float *q[BRAID_TILE_ROWS];
        for (int64_t l = 0; l < rows; l++) q[l] = p->q + (heads->row * p->heads + heads->first + begin + l) * width;
        pack_tile(q, rows, width, heads->x + begin * width);
    }
    round_elements(heads->x, heads->count * width);
}

/// Computes the dot products of some heads with a panel of keys, `[heads][BRAID_PANEL_WIDTH]`, and prefetches a part
/// of the panel of keys at `next`.
BRAID_FLUSHING void dot_panel(
    const braid_index_scores *p, const braid_index_heads *heads, const float *panel, int64_t next, float *dots
) {
    const int64_t width = p->keys.width, shares = at_most(p->m * heads->tiles, BRAID_PANEL_WIDTH);
    for (int64_t t = 0; t < heads->tiles; t++) {
        const int64_t begin = tile_begin(heads, t), rows = tile_begin(heads, t + 1) - begin;
        const int64_t share = heads->row * heads->tiles + t;
        if (heads->first == 0 && share < shares) fetch_keys(p, next, share, shares);
        const float *x = heads->x + begin * width;
        BRAID_FOR_ROWS(rows, index_bf16_tile, x, panel, width, dots + begin * BRAID_PANEL_WIDTH)
    }
}

/// Adds the sixteen accumulators of each of sixteen keys in the documented order: l with l + 8, + 4, + 2, + 1.
BRAID_INLINE f16 add_accumulators(const float *sums, int64_t stride) {
    f16 v[8];
    BRAID_UNROLL for (int l = 0; l < 8; l++) v[l] = load16(sums + l * stride) + load16(sums + (l + 8) * stride);
    BRAID_UNROLL for (int l = 0; l < 4; l++) v[l] = v[l] + v[l + 4];
    return (v[0] + v[2]) + (v[1] + v[3]);
}

BRAID_INLINE f16 positive_part(f16 dot) { return where(splat(0) > dot, splat(0), dot); }  // a NaN stays

/// Adds dot products of some heads with a panel of keys from `i` on, and stores scores if the row has no more heads.
static void add_bf16_heads(
    const braid_index_scores *p, const braid_index_heads *heads, int64_t i, int64_t lanes, braid_key_panel panel,
    const float *dots
) {
    const float *weights = p->weights + heads->row * p->heads + heads->first;
    const bool is_last = heads->first + heads->count == p->heads;
    float sums[16][16] __attribute__((aligned(64)));
    for (int64_t v = 0; v < at_most(lanes, BRAID_PANEL_WIDTH); v += 16) {
        for (int64_t l = 0; l < 16; l++) {
            float *kept = panel.sums + l * BRAID_PANEL_WIDTH + v;
            f16 sum = heads->first == 0 ? splat(0) : load16(kept);
            for (int64_t h = l; h < heads->count; h += 16)
                sum = fma16(splat(weights[h]), positive_part(load16(dots + h * BRAID_PANEL_WIDTH + v)), sum);
            store16(is_last ? sums[l] : kept, sum);
        }
        if (!is_last) continue;
        f16 score = add_accumulators(sums[0], 16) * load16(panel.factors + v);
        store_some(p->scores + heads->row * p->scores_stride + i + v, score, lanes_left(lanes - v));
    }
}

/// Computes the scores of keys that are packed as panels.
static void score_panels(
    const braid_index_scores *p, int64_t first, int64_t end, int64_t block, float *x, float *panels
) {
    float dots[BRAID_DOT_HEADS * BRAID_PANEL_WIDTH] __attribute__((aligned(64)));
    const int64_t width = p->keys.width, size = key_panel_size(width);
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < p->heads; h += BRAID_DOT_HEADS) {
            braid_index_heads heads = {.row = r, .first = h, .count = at_most(BRAID_DOT_HEADS, p->heads - h), .x = x};
            heads.tiles = (heads.count + BRAID_TILE_ROWS - 1) / BRAID_TILE_ROWS;
            pack_index_queries(p, &heads);
            for (int64_t i = first; i < end; i += BRAID_PANEL_WIDTH) {
                const braid_key_panel panel = key_panel_at(panels + (i - first) / BRAID_PANEL_WIDTH * size, width);
                const unsigned before = begin_flushing();
                dot_panel(p, &heads, panel.keys, i + block, dots);
                end_flushing(before);
                add_bf16_heads(p, &heads, i, end - i, panel, dots);
            }
        }
}

static void index_bf16_panels(const braid_index_scores *p) {
    const int64_t width = p->keys.width, most = p->index_key_tiles > 0 ? p->index_key_tiles : BRAID_BF16_PANELS;
    float *x = p->scratch, *panels = x + width * BRAID_DOT_HEADS + 16;
    const int64_t room = BRAID_INDEX_SCRATCH - (panels - x);
    const int64_t block = at_most(most, room / key_panel_size(width)) * BRAID_PANEL_WIDTH;
    for (int64_t first = 0; first < p->count; first += block) {
        const int64_t end = at_most(first + block, p->count);
        const unsigned before = begin_flushing();
        pack_bf16_keys(p, first, end, panels);
        end_flushing(before);
        score_panels(p, first, end, block, x, panels);
    }
}

// With few pairs, the dot products of this many times sixteen keys are computed before their heads are added.
#define BRAID_FEW_KEY_GROUPS 4

/// Returns the most (row, head) pairs that are faster without panels, if they can be computed so: blocks of terms must
/// be whole.
BRAID_INLINE int64_t few_bf16_pairs_at_most(const braid_lane *keys) {
    if (keys->dtype == BRAID_FP4) return 0;
    const bool is_whole = keys->width % (64 / bytes_of(keys->dtype)) == 0;
    if (keys->dtype == BRAID_BF16 && is_whole) return 2 * BRAID_FEW_ROWS;
    return has_scale_last(keys) && is_whole ? BRAID_FEW_ROWS : 0;
}

/// Computes the dot products of `pairs` pairs, whose rounded queries are at `x`, with sixteen keys. `dtype` and
/// `pairs` are constants where this is inlined.
BRAID_INLINE void few_bf16_dots(
    int pairs, const braid_lane *lane, braid_dtype dtype, const float *queries, const char *const *keys,
    const char *const *ahead, float dots[][16]
) {
    const int64_t step = 64 / bytes_of(dtype);
    const float *x[BRAID_FEW_ROWS];
    const f16 scale[BRAID_FEW_GROUPS] = {splat(1)};
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS];
    u16 v[BRAID_FEW_GROUPS][16];
    BRAID_UNROLL for (int r = 0; r < pairs; r++) {
        x[r] = queries + r * lane->width;
        a[0][r] = splat(0);
    }
    for (int64_t k = 0; k < lane->width; k += step) {
        BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(ahead[l] + k * bytes_of(dtype), 0, 3);
        load_columns(keys, k * bytes_of(dtype), v[0]);
        BRAID_UNROLL for (int b = 0; b < step / BRAID_BF16_BLOCK; b++)
            add_block(
                dtype, false, pairs, 1, v, 16 * b * BRAID_BF16_BLOCK / (int)step, scale, x, k + b * BRAID_BF16_BLOCK,
                a);
    }
    BRAID_UNROLL for (int r = 0; r < pairs; r++) store16(dots[r], a[0][r]);
}

/// Computes the dot products of all pairs with the keys `i ..< end`, at most BRAID_FEW_KEY_GROUPS times sixteen.
BRAID_INLINE void few_bf16_groups(
    const braid_index_scores *p, braid_dtype dtype, int64_t i, int64_t end, float dots[][2 * BRAID_FEW_ROWS][16],
    float factors[][16]
) {
    const int64_t pairs = p->m * p->heads;
    const char *keys[16], *ahead[16];
    for (int64_t g = 0; i < end; i += 16, g++) {
        for (int64_t l = 0; l < 16; l++) {
            keys[l] = entry_at(&p->keys, key_entry(p, at_most(i + l, p->count - 1)));
            ahead[l] = entry_at(&p->keys, key_entry(p, at_most(i + l + BRAID_FEW_AHEAD, p->count - 1)));
            factors[g][l] = score_factor(&p->keys, keys[l]);
        }
        for (int64_t pair = 0; pair < pairs; pair += BRAID_FEW_ROWS) {
            const float *x = p->scratch + pair * p->keys.width;
            const int64_t rows = at_most(pairs - pair, BRAID_FEW_ROWS);
            BRAID_FOR_FEW(rows, BRAID_FEW_ROWS, few_bf16_dots, &p->keys, dtype, x, keys, ahead, dots[g] + pair)
        }
    }
}

BRAID_FLUSHING void few_bf16_keys(
    const braid_index_scores *p, int64_t i, int64_t end, float dots[][2 * BRAID_FEW_ROWS][16], float factors[][16]
) {
    if (p->keys.dtype == BRAID_FP8) few_bf16_groups(p, BRAID_FP8, i, end, dots, factors);
    else few_bf16_groups(p, BRAID_BF16, i, end, dots, factors);
}

/// Computes the scores of few pairs: each accumulator has one head at most.
static void index_bf16_few(const braid_index_scores *p) {
    float dots[BRAID_FEW_KEY_GROUPS][2 * BRAID_FEW_ROWS][16], factors[BRAID_FEW_KEY_GROUPS][16], sums[16][16];
    for (int64_t k = 0; k < p->m * p->heads * p->keys.width; k += 16)
        store16(p->scratch + k, round_bf16(load16(p->q + k)));
    for (int64_t first = 0; first < p->count; first += 16 * BRAID_FEW_KEY_GROUPS) {
        const int64_t end = at_most(first + 16 * BRAID_FEW_KEY_GROUPS, p->count);
        const unsigned before = begin_flushing();
        few_bf16_keys(p, first, end, dots, factors);
        end_flushing(before);
        for (int64_t i = first, g = 0; i < end; i += 16, g++)
            for (int64_t r = 0; r < p->m; r++) {
                for (int64_t h = 0; h < 16; h++) {
                    const int64_t pair = r * p->heads + h;
                    f16 sum = splat(0);
                    if (h < p->heads) sum = fma16(splat(p->weights[pair]), positive_part(load16(dots[g][pair])), sum);
                    store16(sums[h], sum);
                }
                f16 score = add_accumulators(sums[0], 16) * load16(factors[g]);
                store_some(p->scores + r * p->scores_stride + i, score, lanes_left(end - i));
            }
    }
}

static void index_bf16(const braid_index_scores *p) {
    if (p->m * p->heads <= few_bf16_pairs_at_most(&p->keys)) index_bf16_few(p);
    else index_bf16_panels(p);
}
