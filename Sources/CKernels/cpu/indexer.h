// The lightning indexer: keys are packed in panels as weights are, (row, head) pairs are the rows of the tiles.
#pragma once

#include "../include/indexer.h"
#include "panel.h"

// Panels of keys packed before the queries run over them, so that a tile of queries is read once for several.
#define BRAID_KEY_PANELS 8

/// Where the key of score `i` is stored.
BRAID_INLINE int64_t key_entry(const braid_index_scores *p, int64_t i) {
    return entry_of(p->pages, p->page_shift, braid_owned(p->owned, p->first + i));
}

/// Of the panel of keys at `i`, what share number `share` of `shares` is to fetch.
BRAID_INLINE void fetch_keys(const braid_index_scores *p, int64_t i, int64_t share, int64_t shares) {
    for (int64_t l = share; l < BRAID_PANEL_WIDTH; l += shares)
        if (i + l < p->count) fetch_entry(&p->keys, entry_at(&p->keys, key_entry(p, i + l)));
}

/// FP8 keys, group by group: the scales are factors of the panel's lanes.
static void pack_scaled_keys(const braid_lane *keys, const char *rows[16], int64_t lanes, float *panel) {
    const float *scales[16];
    for (int64_t l = 0; l < lanes; l++) scales[l] = entry_scales(keys, rows[l]);
    for (int64_t k = 0, group = 0; k < keys->width; k += keys->group, group++) {
        f16 scale = splat(0);
        for (int64_t l = 0; l < lanes; l++) scale[l] = scales[l][group];
        pack_rows(BRAID_FP8, rows, lanes, at_most(keys->group, keys->width - k), scale, panel + k * BRAID_PANEL_WIDTH);
        for (int64_t l = 0; l < 16; l++) rows[l] += keys->group;
    }
}

static void pack_keys(const braid_index_scores *p, int64_t i, int64_t lanes, float *panel) {
    const char *rows[16];
    for (int64_t l = 0; l < 16; l++) {
        rows[l] = entry_at(&p->keys, key_entry(p, i + at_most(l, lanes - 1)));
    }
    if (p->keys.dtype == BRAID_FP8) pack_scaled_keys(&p->keys, rows, lanes, panel);
    else pack_rows(p->keys.dtype, rows, lanes, p->keys.width, splat(0), panel);
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

/// Continues the chains over heads with the dots of `rows` pairs from `pair` on, for the keys from `i` on.
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

static void index_scores(const braid_index_scores *p) {
    int64_t width = p->keys.width, pairs = p->m * p->heads, panel_size = width * BRAID_PANEL_WIDTH;
    int64_t tile_size = width * BRAID_TILE_ROWS + 16;
    int64_t most = p->key_panels > 0 ? p->key_panels : BRAID_KEY_PANELS;
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
                    fetch_keys(p, i + block, s, shares);  // the next block, a share with each of the first tiles
                const float *panel = keys + (i - first) / BRAID_PANEL_WIDTH * panel_size;
                BRAID_FOR_ROWS(rows, index_tile, x, panel, width, dots)
                add_heads(p, pair, rows, i, end - i, dots);
            }
        }
    }
}
