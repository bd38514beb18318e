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

static void pack_keys(const braid_index_scores *p, int64_t i, int64_t lanes, float *panel) {
    const char *rows[16];
    for (int64_t l = 0; l < 16; l++) {
        rows[l] = entry_at(&p->keys, key_entry(p, i + at_most(l, lanes - 1)));
    }
    if (p->keys.dtype == BRAID_FP8) pack_scaled_keys(&p->keys, rows, lanes, panel);
    else pack_rows(p->keys.dtype, rows, lanes, p->keys.width, splat(0), panel);
}
