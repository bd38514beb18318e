// Attention in the BF16 profile with vectors. Scores are the product of queries and keys, and values the product of
// exponentials and keys, so that both run on the panels and tiles of matrix products: the lanes of a panel are keys for
// scores, and dimensions for values; a tile's rows are heads.
#pragma once

#include "attention_row.h"
#include "matmul_bf16.h"

#define BRAID_HEAD_GROUP 128        // the most heads whose tiles of exponentials are kept
#define BRAID_VALUE_BLOCK 128       // keys summed together, whole blocks of the sum
#define BRAID_KEY_PIECE 128         // dimensions of a panel of keys
#define BRAID_KEY_PANEL (BRAID_KEY_PIECE * BRAID_PANEL_WIDTH)
_Static_assert(
    BRAID_VALUE_BLOCK <= BRAID_KEY_PIECE
        && BRAID_KEY_PANEL + BRAID_HEAD_GROUP * BRAID_VALUE_BLOCK + 16 <= BRAID_ATTENTION_KEYS,
    "a panel and the tiles of exponentials fit where keys are widened");

/// Adds the blocks of `k` terms to the outputs of `rows` rows, which begin at +0 if `first`.
static __attribute__((noinline)) void add_bf16_tile(
    int64_t rows, const float *x, const float *panel, int64_t k, bool first, float *const *out
) {
    const braid_wanted nothing = {.lines = 0};
    BRAID_FOR_ROWS(rows, bf16_tile, x, panel, k, nothing, first, out)
}

/// Packs rows of `k` terms, rounded to BF16, as tiles one after the other: [tiles][k][rows of the tile].
static void pack_bf16_tiles(const float *from, int64_t stride, int64_t rows, int64_t k, float *to) {
    const float *x[BRAID_TILE_ROWS];
    for (int64_t r = 0, n; r < rows; r += n) {
        n = tile_rows(rows - r);
        for (int64_t i = 0; i < n; i++) x[i] = from + (r + i) * stride;
        pack_tile(x, n, k, to + r * k);
    }
    round_elements(to, rows * k);
}

/// Packs the row's queries for groups of so many heads, if they are not yet.
static void pack_row_queries(braid_attention_row *w, int64_t group) {
    const int64_t width = w->p->latent.width + w->p->rope.width;
    if (w->packed == group) return;
    for (int64_t h = 0; h < w->heads; h += group)
        pack_bf16_tiles(w->q + h * width, width, at_most(group, w->heads - h), width, w->queries + h * width);
    w->packed = group;
}

/// Returns the scales of a group of columns of up to sixteen FP8 keys, a lane each, and sets `exact` to false where a
/// scaled element may have more bits than BF16.
BRAID_INLINE f16 key_scales(
    const braid_lane *lane, const char *const *keys, int64_t count, int64_t group, bool *exact
) {
    f16 scales = splat(0);
    for (int64_t l = 0; l < count; l++) {
        float scale = entry_scale(lane, keys[l], group);
        scales[l] = scale;
        *exact = *exact && is_power_of_two(scale);
    }
    return scales;
}

/// Packs `n` elements, from `from` on, of up to sixteen keys as a vector of a panel. The lanes of missing keys are
/// zeros. Returns whether the panel needs to be rounded.
static bool pack_key_vector(
    const braid_lane *lane, const char *const *keys, int64_t count, int64_t from, int64_t n, float *panel
) {
    const char *at[16];
    bool exact = lane->dtype != BRAID_F32;
    for (int64_t d = from, end; d < from + n; d = end) {
        f16 scales = splat(0);
        end = from + n;
        if (lane->dtype == BRAID_FP8) {
            end = at_most(end, (d / lane->group + 1) * lane->group);
            scales = key_scales(lane, keys, count, d / lane->group, &exact);
        }
        for (int64_t l = 0; l < count; l++) at[l] = keys[l] + d * bytes_of(lane->dtype);
        pack_rows(lane->dtype, at, count, end - d, scales, panel + (d - from) * BRAID_PANEL_WIDTH);
    }
    return !exact;
}

/// Packs `n` elements, from `from` on, of keys `begin ..< begin + count`, at most those of a panel, rounded to BF16.
static void pack_key_panel(
    const braid_attention_row *w, bool rotary, int64_t begin, int64_t count, int64_t from, int64_t n, float *panel
) {
    const char *keys[16];
    bool needs_rounding = false;
    for (int64_t v = 0; v < BRAID_PANEL_WIDTH; v += 16) {
        const int64_t lanes = lanes_left(count - v);
        for (int64_t l = 0; l < lanes; l++)
            keys[l] = rotary ? rope_of(w, begin + v + l) : latent_of(w, begin + v + l);
        needs_rounding |= pack_key_vector(rotary ? &w->p->rope : &w->p->latent, keys, lanes, from, n, panel + v);
    }
    if (needs_rounding) round_elements(panel, n * BRAID_PANEL_WIDTH);
}

/// Prefetches `n` elements, from `from` on, of the keys `begin ..< end`, and an FP8 key's scales with its first
/// element.
static void fetch_panel_keys(
    const braid_attention_row *w, bool rotary, int64_t begin, int64_t end, int64_t from, int64_t n
) {
    const braid_lane *lane = rotary ? &w->p->rope : &w->p->latent;
    const int64_t bytes = bytes_of(lane->dtype);
    for (int64_t key = begin; key < at_most(end, w->begin[8]); key++) {
        const char *entry = rotary ? rope_of(w, key) : latent_of(w, key);
        if (from == 0 && lane->dtype == BRAID_FP8)
            __builtin_prefetch(entry + entry_bytes(lane) - 1, 0, 2);
        for (int64_t at = from * bytes; at < (from + n) * bytes; at += 64) __builtin_prefetch(entry + at, 0, 2);
    }
}

/// Writes the dot products of a group of heads with keys `begin ..< begin + count` into e [heads, e_stride], which has
/// room for whole panels. Meanwhile the keys that come next are prefetched, a few with each tile.
BRAID_FLUSHING void score_bf16_keys(
    const braid_attention_row *w, const float *queries, int64_t heads, int64_t begin, int64_t count, int64_t e_stride
) {
    const int64_t width = w->p->latent.width + w->p->rope.width, panel_keys = BRAID_PANEL_WIDTH;
    float *out[BRAID_TILE_ROWS];
    for (int64_t i = 0; i < count; i += panel_keys)
        for (int64_t d = 0, n; d < width; d += n) {
            const bool rotary = d >= w->p->latent.width;
            const int64_t from = rotary ? d - w->p->latent.width : d, next = begin + i + panel_keys;
            n = at_most((rotary ? w->p->rope.width : w->p->latent.width) - from, BRAID_KEY_PIECE);
            pack_key_panel(w, rotary, begin + i, at_most(count - i, panel_keys), from, n, w->keys);
            for (int64_t h = 0, rows; h < heads; h += rows) {
                rows = tile_rows(heads - h);
                for (int64_t r = 0; r < rows; r++) out[r] = w->e + (h + r) * e_stride + i;
                const int64_t fetched = next + h * panel_keys / heads, end = next + (h + rows) * panel_keys / heads;
                for (int64_t b = 0; b < n; b += BRAID_BF16_BLOCK) {
                    const int64_t terms = at_most(n - b, BRAID_BF16_BLOCK);
                    fetch_panel_keys(w, rotary, fetched, end, from + b, terms);
                    const float *x = queries + h * width + (d + b) * rows;
                    add_bf16_tile(rows, x, w->keys + b * BRAID_PANEL_WIDTH, terms, d + b == 0, out);
                }
            }
        }
}

/// Widens `n` elements, from `from` on, of `count` keys from `begin` on, a key a row of the panel, rounded to BF16.
static void widen_values(
    const braid_attention_row *w, bool rotary, int64_t begin, int64_t count, int64_t from, int64_t n, float *panel
) {
    const braid_lane *lane = rotary ? &w->p->rope : &w->p->latent;
    const int64_t at = from * bytes_of(lane->dtype), group = lane->dtype == BRAID_FP8 ? from / lane->group : 0;
    const bool is_whole = n == BRAID_PANEL_WIDTH && (lane->dtype != BRAID_FP8 || from + n <= (group + 1) * lane->group);
    bool exact = lane->dtype != BRAID_F32;
    for (int64_t i = 0; i < count; i++, panel += BRAID_PANEL_WIDTH) {
        const char *key = rotary ? rope_of(w, begin + i) : latent_of(w, begin + i);
        f16 *to = (f16 *)panel;
        __builtin_prefetch(key + at + 64, 0, 3);
        for (int64_t g = group; lane->dtype == BRAID_FP8 && g * lane->group < from + n; g++)
            exact = exact && is_power_of_two(entry_scale(lane, key, g));
        if (!is_whole) widen_lane(lane, key, from, n, panel);
        else if (lane->dtype == BRAID_BF16) widen_vectors(BRAID_BF16, BRAID_PANEL, key + at, splat(0), to);
        else if (lane->dtype == BRAID_FP8)
            widen_vectors(BRAID_FP8, BRAID_PANEL, key + at, splat(entry_scale(lane, key, group)), to);
        else memcpy(panel, key + at, BRAID_PANEL_WIDTH * sizeof(float));
    }
    if (!exact) round_elements(panel - count * BRAID_PANEL_WIDTH, count * BRAID_PANEL_WIDTH);
}

/// Adds the products of a panel of values with `count` exponentials of each head, packed as tiles, to `n` dimensions.
static void add_bf16_values(
    int64_t heads, const float *tiles, const float *panel, int64_t count, bool first, int64_t n, float *out,
    int64_t stride
) {
    float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH], *to[BRAID_TILE_ROWS];  // a buffer that keeps panels whole
    for (int64_t h = 0, rows; h < heads; h += rows) {
        rows = tile_rows(heads - h);
        for (int64_t r = 0; r < rows; r++) {
            to[r] = n == BRAID_PANEL_WIDTH ? out + (h + r) * stride : edge[r];
            if (n < BRAID_PANEL_WIDTH && !first) memcpy(edge[r], out + (h + r) * stride, (size_t)n * sizeof(float));
        }
        add_bf16_tile(rows, tiles + h * count, panel, count, first, to);
        for (int64_t r = 0; r < rows && n < BRAID_PANEL_WIDTH; r++)
            memcpy(out + (h + r) * stride, edge[r], (size_t)n * sizeof(float));
    }
}

/// Computes the weighted sums of a group of heads. The heads' sums are a value apart in `out`.
BRAID_FLUSHING void sum_bf16_values(
    const braid_attention_row *w, int64_t heads, int64_t begin, int64_t count, int64_t e_stride, float *out
) {
    float *panel = w->keys, *tiles = w->keys + BRAID_KEY_PANEL;
    for (int64_t i = 0; i < count; i += BRAID_VALUE_BLOCK) {
        const int64_t keys = at_most(count - i, BRAID_VALUE_BLOCK);
        pack_bf16_tiles(w->e + i, e_stride, heads, keys, tiles);
        for (int64_t d = 0, n; d < w->value_width; d += n) {
            const bool rotary = d >= w->p->latent.width;
            const int64_t from = rotary ? d - w->p->latent.width : d;
            n = at_most((rotary ? w->p->rope.width : w->p->latent.width) - from, BRAID_PANEL_WIDTH);
            widen_values(w, rotary, begin + i, keys, from, n, panel);
            add_bf16_values(heads, tiles, panel, keys, i == 0, n, out + d, w->value_width);
        }
    }
}

/// Computes attention of all heads over the keys of the class at a place, which are not none.
static void attend_bf16_class(braid_attention_row *w, int64_t place, float *out, float *lse) {
    const int64_t begin = w->begin[place], count = w->begin[place + 1] - begin, width = w->value_width;
    const int64_t e_stride = (count + BRAID_PANEL_WIDTH - 1) / BRAID_PANEL_WIDTH * BRAID_PANEL_WIDTH;
    const int64_t group = at_most(at_most(w->heads, BRAID_HEAD_GROUP), w->e_size / e_stride);
    pack_row_queries(w, group);
    for (int64_t h = 0; h < w->heads; h += group, out += group * width) {
        const int64_t heads = at_most(group, w->heads - h);
        const float *queries = w->queries + h * (w->p->latent.width + w->p->rope.width);
        unsigned before = begin_flushing();
        score_bf16_keys(w, queries, heads, begin, count, e_stride);
        end_flushing(before);
        scale_rows(w->e, e_stride, heads, e_stride, 0, w->p->scale);
        softmax_keys(w, heads, count, e_stride, lse + h);
        before = begin_flushing();
        sum_bf16_values(w, heads, begin, count, e_stride, out);
        end_flushing(before);
        scale_rows(out, width, heads, width, w->factor, 1);
    }
}
