// The lightning indexer: keys are packed in panels as weights are, and (row, head) pairs are the rows of the tiles.
// With few pairs there are no panels.
#pragma once

#include "chains.h"
#if defined(__x86_64__)
#include "indexer_bf16.h"
#endif
#include "indexer_keys.h"

/// Returns the most (row, head) pairs that are faster without panels: each further pass over the keys transposes and
/// widens them again. FP4 keys always become panels, because models that have them have many heads.
BRAID_INLINE int64_t few_pairs_at_most(braid_dtype dtype) {
    return dtype == BRAID_FP4 ? 0 : dtype == BRAID_FP8 ? BRAID_FEW_ROWS : 2 * BRAID_FEW_ROWS;
}

BRAID_INLINE void index_tile(
    int rows, const float *x, const float *panel, int64_t width, f16 dots[BRAID_TILE_ROWS][BRAID_PANEL]
) {
    f16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = splat(0);
    run_chains(rows, x, panel, width, (braid_wanted){0}, a);
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
            dots[r][v] = where(splat(0) > a[r][v], splat(0), a[r][v]);  // a NaN stays
}

/// Continues the chains over heads with the dot products of `rows` pairs from `pair` on, for the keys from `i` on.
BRAID_INLINE void add_heads(
    const braid_index_scores *p, int64_t pair, int64_t rows, int64_t i, int64_t keys,
    f16 dots[BRAID_TILE_ROWS][BRAID_PANEL]
) {
    for (int v = 0; v < BRAID_PANEL; v++) {
        int64_t lanes = lanes_left(keys - 16 * v);
        if (lanes == 0) return;
        for (int64_t t = 0; t < rows;) {
            int64_t r = (pair + t) / p->heads, h = (pair + t) % p->heads;
            int64_t end = at_most(rows, t + p->heads - h);
            float *scores = p->scores + r * p->scores_stride + i + 16 * v;
            f16 s = h == 0 ? splat(0) : lanes == 16 ? load16(scores) : load_some(scores, lanes);
            for (; t < end; t++) s = fma16(splat(p->weights[pair + t]), dots[t][v], s);
            if (lanes == 16) store16(scores, s);
            else store_some(scores, s, lanes);
        }
    }
}

/// Computes the dot products of `pairs` pairs from `pair` on with sixteen keys, of which `lanes` exist. `dtype` and
/// `pairs` are constants where this is inlined.
BRAID_INLINE void few_dots(
    int pairs, const braid_index_scores *p, braid_dtype dtype, int64_t pair, const char *const *keys,
    const char *const *ahead, int64_t lanes, f16 dots[BRAID_TILE_ROWS][BRAID_PANEL]
) {
    const int64_t step = 64 / bytes_of(dtype), width = p->keys.width;
    const float *x[BRAID_FEW_ROWS];
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS], scale[BRAID_FEW_GROUPS];
    u16 v[BRAID_FEW_GROUPS][16];
    BRAID_UNROLL for (int r = 0; r < pairs; r++) {
        x[r] = p->q + (pair + r) * width;
        a[0][r] = splat(0);
    }
    for (int64_t k = 0, end; k < width; k = end) {
        end = width;
        scale[0] = splat(0);
        if (dtype == BRAID_FP8) {
            end = at_most(width, (k / p->keys.group + 1) * p->keys.group);
            for (int64_t l = 0; l < lanes; l++) scale[0][l] = entry_scale(&p->keys, keys[l], k / p->keys.group);
        }
        int64_t i = k;
        if (lanes == 16)
            for (; i + step <= end; i += step) {
                BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(ahead[l] + i * bytes_of(dtype), 0, 3);
                load_columns(keys, i * bytes_of(dtype), v[0]);
                dot_chains(dtype, pairs, 1, v, step, scale, x, i, a);
            }
        for (; i < end; i += step) {
            int64_t count = at_most(end - i, step);
            load_some_columns(keys, lanes, i * bytes_of(dtype), count * bytes_of(dtype), v[0]);
            dot_chains(dtype, pairs, 1, v, count, scale, x, i, a);
        }
    }
    BRAID_UNROLL for (int r = 0; r < pairs; r++)
        dots[r][0] = where(splat(0) > a[0][r], splat(0), a[0][r]);  // a NaN stays
}

/// Computes the scores of few pairs, sixteen keys at a time.
BRAID_INLINE void index_few_of(const braid_index_scores *p, braid_dtype dtype) {
    const int64_t pairs = p->m * p->heads;
    const char *keys[16], *ahead[16];
    f16 dots[BRAID_TILE_ROWS][BRAID_PANEL];
    for (int64_t i = 0; i < p->count; i += 16) {
        const int64_t lanes = lanes_left(p->count - i);
        for (int64_t l = 0; l < 16; l++) {
            keys[l] = entry_at(&p->keys, key_entry(p, i + at_most(l, lanes - 1)));
            ahead[l] = entry_at(&p->keys, key_entry(p, at_most(i + l + BRAID_FEW_AHEAD, p->count - 1)));
        }
        for (int64_t pair = 0; pair < pairs; pair += BRAID_FEW_ROWS) {
            const int64_t rows = at_most(pairs - pair, BRAID_FEW_ROWS);
            BRAID_FOR_FEW(rows, BRAID_FEW_ROWS, few_dots, p, dtype, pair, keys, ahead, lanes, dots)
            add_heads(p, pair, rows, i, lanes, dots);
        }
    }
}

static void index_few(const braid_index_scores *p) {
    switch (p->keys.dtype) {
    case BRAID_BF16: return index_few_of(p, BRAID_BF16);
    case BRAID_FP8: return index_few_of(p, BRAID_FP8);
    default: return index_few_of(p, BRAID_F32);
    }
}

static void index_panels(const braid_index_scores *p) {
    int64_t width = p->keys.width, pairs = p->m * p->heads, panel_size = width * BRAID_PANEL_WIDTH;
    int64_t tile_size = width * BRAID_TILE_ROWS + 16;
    int64_t most = p->index_key_tiles > 0 ? p->index_key_tiles : BRAID_KEY_PANELS;
    int64_t panels = at_most(most, (BRAID_INDEX_SCRATCH - tile_size) / (panel_size > 0 ? panel_size : 1));
    int64_t block = panels * BRAID_PANEL_WIDTH, shares = at_most(pairs, BRAID_PANEL_WIDTH);
    float *keys = p->scratch, *x = keys + panels * panel_size;
    const float *q[BRAID_TILE_ROWS];
    f16 dots[BRAID_TILE_ROWS][BRAID_PANEL];
    for (int64_t first = 0; first < p->count; first += block) {
        int64_t end = at_most(first + block, p->count);
        for (int64_t i = first; i < end; i += 16) {
            int64_t lane = i - first;
            float *panel = keys + lane / BRAID_PANEL_WIDTH * panel_size + lane % BRAID_PANEL_WIDTH;
            pack_keys(p, i, lanes_left(p->count - i), panel);
        }
        for (int64_t pair = 0, rows; pair < pairs; pair += rows) {
            rows = tile_rows(pairs - pair);
            for (int64_t r = 0; r < rows; r++) q[r] = p->q + (pair + r) * width;
            pack_tile(q, rows, width, x);
            for (int64_t i = first; i < end; i += BRAID_PANEL_WIDTH) {
                for (int64_t s = pair; s < at_most(pair + rows, shares); s++)
                    fetch_keys(p, i + block, s, shares);  // the next block, in parts
                const float *panel = keys + (i - first) / BRAID_PANEL_WIDTH * panel_size;
                BRAID_FOR_ROWS(rows, index_tile, x, panel, width, dots)
                add_heads(p, pair, rows, i, end - i, dots);
            }
        }
    }
}

void reference_index_scores(const braid_index_scores *);

static void index_scores(const braid_index_scores *p) {
#if defined(__x86_64__)
    if (p->profile == BRAID_PROFILE_BF16) return index_bf16(p);
#else
    if (p->profile == BRAID_PROFILE_BF16) return reference_index_scores(p);  // see decision 0023
#endif
    if (p->m * p->heads <= few_pairs_at_most(p->keys.dtype)) index_few(p);
    else index_panels(p);
}
