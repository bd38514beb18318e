// The keys of the lightning indexer: where they are, and how they become panels.
#pragma once

#include "../include/indexer.h"
#include "panel.h"

// This many panels of keys are packed before the queries run over them, so that a tile of queries is read once for all.
#define BRAID_KEY_PANELS 8

// Without panels, keys are prefetched this many ahead.
#define BRAID_FEW_AHEAD 32

/// Returns the entry at which the key of score `i` is stored.
BRAID_INLINE int64_t key_entry(const braid_index_scores *p, int64_t i) {
    return entry_of(p->pages, p->page_shift, braid_sharded(p->owned, p->first + i));
}

/// Prefetches part number `share` of `shares` of the panel of keys at `i`.
BRAID_INLINE void fetch_keys(const braid_index_scores *p, int64_t i, int64_t share, int64_t shares) {
    for (int64_t l = share; l < BRAID_PANEL_WIDTH; l += shares)
        if (i + l < p->count) fetch_entry(&p->keys, entry_at(&p->keys, key_entry(p, i + l)));
}

/// Packs FP8 keys group by group, with the scales as factors of the panel's lanes.
static void pack_scaled_keys(const braid_lane *keys, const char *const rows[16], int64_t lanes, float *panel) {
    const char *at[16];
    for (int64_t k = 0, group = 0; k < keys->width; k += keys->group, group++) {
        f16 scale = splat(0);
        for (int64_t l = 0; l < lanes; l++) scale[l] = entry_scale(keys, rows[l], group);
        for (int64_t l = 0; l < 16; l++) at[l] = rows[l] + k;
        pack_rows(BRAID_FP8, at, lanes, at_most(keys->group, keys->width - k), scale, panel + k * BRAID_PANEL_WIDTH);
    }
}

/// Packs FP4 keys, 64 bytes of each at a time. A word has eight elements, which share a scale.
static void pack_fp4_keys(const braid_lane *keys, const char *const rows[16], int64_t lanes, float *panel) {
    f16 scale = splat(0);
    u16 v[16];
    for (int64_t k = 0; k < keys->width; k += 128) {
        const int64_t count = at_most(keys->width - k, 128);
        if (lanes == 16 && count == 128) load_columns(rows, k / 2, v);
        else load_some_columns(rows, lanes, k / 2, (count + 1) / 2, v);
        for (int64_t i = 0; i < count; i += 8, panel += 8 * BRAID_PANEL_WIDTH) {
            if ((k + i) % keys->group == 0)
                for (int64_t l = 0; l < lanes; l++) scale[l] = entry_scale(keys, rows[l], (k + i) / keys->group);
            BRAID_UNROLL for (int e = 0; e < 8; e++)
                if (i + e < count) store16(panel + e * BRAID_PANEL_WIDTH, widen_fp4(v[i / 8], e) * scale);
        }
    }
}

static void pack_keys(const braid_index_scores *p, int64_t i, int64_t lanes, float *panel) {
    const char *rows[16];
    for (int64_t l = 0; l < 16; l++) {
        rows[l] = entry_at(&p->keys, key_entry(p, i + at_most(l, lanes - 1)));
    }
    if (p->keys.dtype == BRAID_FP8) pack_scaled_keys(&p->keys, rows, lanes, panel);
    else if (p->keys.dtype == BRAID_FP4) pack_fp4_keys(&p->keys, rows, lanes, panel);
    else pack_rows(p->keys.dtype, rows, lanes, p->keys.width, splat(0), panel);
}
