// Matrix products of the BF16 profile on tiles. Sixteen weight rows as they are stored are an A tile (of BF16 directly,
// of other types after widening), sixteen rows of activations a B tile: so weights are neither packed nor transposed,
// and even a single row is worth it. Transposed weights are the B tiles instead.
#pragma once

#include "experts.h"
#include "tile_weights.h"
#include "vnni.h"

#define BRAID_BLOCK_OUTPUTS 256   // many rows: outputs whose sums stay in the second-level cache
#define BRAID_BLOCK_ROWS 256
#define BRAID_BLOCK_K 256

/// Packs terms `k ..< k + count` of `rows` rows from `first` on as B tiles, [terms / 32][(rows + 15) / 16].
static void pack_activations(const braid_matmul *p, int64_t first, int64_t rows, int64_t k, int64_t count, char *to) {
    u16 v[16];
    for (int64_t i = 0; i < count; i += BRAID_TILE_K)
        for (int64_t r = 0; r < rows; r += 16, to += BRAID_TILE_BYTES) {
            for (int64_t l = 0; l < 16; l++)
                v[l] = r + l < rows ? load_pairs(x_row(p, first + r + l) + k + i, count - i) : (u16)splat(0);
            transpose16(v);
            memcpy(to, v, sizeof v);
        }
}

/// Exchanges sums, [16 outputs][16 rows] to a tile, with outputs `n ..< n + lanes` of `rows` rows from `first` on.
static void load_sums(const braid_matmul *p, int64_t first, int64_t rows, int64_t n, int64_t lanes, float *sums) {
    u16 v[16];
    for (int64_t r = 0; r < rows; r += 16, sums += 256) {
        for (int64_t l = 0; l < 16; l++)
            v[l] = r + l < rows ? (u16)load_some(out_row(p, first + r + l) + n, lanes) : (u16)splat(0);
        transpose16(v);
        memcpy(sums, v, sizeof v);
    }
}

static void store_sums(
    const braid_matmul *p, int64_t first, int64_t rows, int64_t n, int64_t lanes, const float *sums
) {
    u16 v[16];
    for (int64_t r = 0; r < rows; r += 16, sums += 256) {
        memcpy(v, sums, sizeof v);
        transpose16(v);
        for (int64_t l = 0; l < at_most(rows - r, 16); l++)
            if (lanes == 16) store16(out_row(p, first + r + l) + n, (f16)v[l]);
            else store_some(out_row(p, first + r + l) + n, (f16)v[l], lanes);
    }
}

/// Adds `count` terms from `k` on to sums of sixteen outputs from `n` on in tile registers, with weights read as they
/// are stored. `x` has the B tiles of these terms. `tiles` is a constant.
BRAID_INLINE void add_terms(
    int tiles, const braid_matmul *p, braid_scaled_codes *codes, char strips[2][BRAID_STRIP_TILES * BRAID_TILE_BYTES],
    int64_t n, int64_t lanes, int64_t k, int64_t count, const char *x
) {
    const braid_weight *w = &p->w;
    const int64_t step = (int64_t)tiles * BRAID_TILE_BYTES;
    if (w->dtype == BRAID_BF16 && lanes == 16) {
        const char *from = weight_bytes(w, n, k);
        for (; count >= BRAID_TILE_K; count -= BRAID_TILE_K, k += BRAID_TILE_K, from += 64, x += step) {
            const int64_t ahead = bytes_ahead(p, k);
            BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(from + l * w->stride * 2 + ahead, 0, 3);
            add_tile_products(tiles, from, w->stride * 2, x);
        }
        if (count == 0) return;
    }
    // A tile that is loaded right after it was written waits for the stores, so the strip after it is widened first.
    int turn = 0;
    widen_strip(p, codes, n, lanes, k, at_most(count, BRAID_STRIP_K), strips[0]);
    for (; count > 0; count -= BRAID_STRIP_K, turn ^= 1) {
        k += BRAID_STRIP_K;
        if (count > BRAID_STRIP_K)
            widen_strip(p, codes, n, lanes, k, at_most(count - BRAID_STRIP_K, BRAID_STRIP_K), strips[turn ^ 1]);
        for (int64_t t = 0; t < BRAID_STRIP_TILES && BRAID_TILE_K * t < count; t++, x += step)
            add_tile_products(tiles, strips[turn] + t * BRAID_TILE_BYTES, 64, x);
    }
}

/// Computes sixteen outputs from `n` on of `rows` rows, 64 at most, over `count` terms from `k` on.
BRAID_INLINE void sum_outputs(
    int tiles, const braid_matmul *p, braid_scaled_codes *codes, char strips[2][BRAID_STRIP_TILES * BRAID_TILE_BYTES],
    int64_t first, int64_t rows, int64_t n, int64_t k, int64_t count, const char *x
) {
    float sums[4 * 256] __attribute__((aligned(64)));
    const int64_t lanes = lanes_left(p->n - n);
    if (k > 0 || p->accumulate) {
        load_sums(p, first, rows, n, lanes, sums);
        load_tiles(tiles, sums);
    } else {
        zero_tiles(tiles);
    }
    add_terms(tiles, p, codes, strips, n, lanes, k, count, x);
    store_tiles(tiles, sums);
    store_sums(p, first, rows, n, lanes, sums);
}

/// Multiplies at most 64 rows: weights are read once.
static void tiles_few(const braid_matmul *p) {
    char strips[2][BRAID_STRIP_TILES * BRAID_TILE_BYTES] __attribute__((aligned(64)));
    braid_scaled_codes codes = {.is_filled = false};
    const int64_t tiles = (p->m + 15) / 16, room = BRAID_MATMUL_SCRATCH * 4 / BRAID_TILE_BYTES / tiles;
    const int64_t part = room / BRAID_STRIP_TILES * BRAID_STRIP_K;  // this many terms of x are packed at once
    for (int64_t k = 0, count; k < p->k; k += count) {
        count = at_most(part, p->k - k);
        pack_activations(p, 0, p->m, k, count, (char *)p->scratch);
        for (int64_t n = 0; n < p->n; n += 16)
            BRAID_FOR_TILES(tiles, sum_outputs, p, &codes, strips, 0, p->m, n, k, count, (const char *)p->scratch)
    }
}

/// Adds a block's tiles of weights times those of up to 64 rows to their sums. `tiles` is a constant.
BRAID_INLINE void multiply_block(
    int tiles, int64_t strips, int64_t k_tiles, const char *weights, const char *x, float *sums, int64_t row_tiles
) {
    for (int64_t s = 0; s < strips; s++, sums += row_tiles * 256) {
        load_tiles(tiles, sums);
        for (int64_t k = 0; k < k_tiles; k++, weights += BRAID_TILE_BYTES)
            add_tile_products(tiles, weights, 64, x + k * tiles * BRAID_TILE_BYTES);
        store_tiles(tiles, sums);
    }
}

/// Multiplies a block of rows over `count` terms from `k` on: for a block of outputs, weights are widened once for all
/// rows, and sums stay as tiles until all terms are added.
static void tiles_block(
    const braid_matmul *p, braid_scaled_codes *codes, int64_t first, int64_t rows, int64_t k, int64_t count
) {
    const int64_t row_tiles = (rows + 15) / 16, k_tiles = BRAID_BLOCK_K / BRAID_TILE_K;
    char *x = (char *)p->scratch, *weights = x + BRAID_BLOCK_ROWS / 16 * 64 * BRAID_TILE_BYTES;
    float *sums = (float *)(weights + BRAID_BLOCK_OUTPUTS / 16 * k_tiles * BRAID_TILE_BYTES);
    for (int64_t r = 0; r < rows; r += 64)
        pack_activations(
            p, first + r, at_most(64, rows - r), k, count, x + r / 16 * ((count + 31) / 32) * BRAID_TILE_BYTES);
    for (int64_t n = 0; n < p->n; n += BRAID_BLOCK_OUTPUTS) {
        const int64_t outputs = at_most(BRAID_BLOCK_OUTPUTS, p->n - n), strips = (outputs + 15) / 16;
        for (int64_t s = 0; s < strips; s++)
            if (k > 0 || p->accumulate)
                load_sums(p, first, rows, n + 16 * s, lanes_left(p->n - n - 16 * s), sums + s * row_tiles * 256);
            else memset(sums + s * row_tiles * 256, 0, (size_t)row_tiles * BRAID_TILE_BYTES);
        for (int64_t part = 0; part < count; part += BRAID_BLOCK_K) {
            const int64_t terms = at_most(BRAID_BLOCK_K, count - part), tiles = (terms + 31) / 32;
            for (int64_t s = 0; s < strips; s++)
                for (int64_t i = 0; i < terms; i += BRAID_STRIP_K) {
                    // A last strip may have fewer tiles; all four are written, and those beyond are written over.
                    char *to = weights + (s * tiles + i / BRAID_TILE_K) * BRAID_TILE_BYTES;
                    widen_strip(p, codes, n + 16 * s, lanes_left(p->n - n - 16 * s), k + part + i,
                                at_most(BRAID_STRIP_K, terms - i), to);
                }
            for (int64_t r = 0; r < rows; r += 64) {
                const int64_t own = (at_most(64, rows - r) + 15) / 16;
                const char *from = x + (r / 16 * ((count + 31) / 32) + own * (part / 32)) * BRAID_TILE_BYTES;
                BRAID_FOR_TILES(own, multiply_block, strips, tiles, weights, from, sums + r / 16 * 256, row_tiles)
            }
        }
        for (int64_t s = 0; s < strips; s++)
            store_sums(p, first, rows, n + 16 * s, lanes_left(p->n - n - 16 * s), sums + s * row_tiles * 256);
    }
}

static void tiles_many(const braid_matmul *p) {
    braid_scaled_codes codes = {.is_filled = false};
    const int64_t part = 64 * BRAID_TILE_K;
    for (int64_t first = 0; first < p->m; first += BRAID_BLOCK_ROWS)
        for (int64_t k = 0; k < p->k; k += part)
            tiles_block(p, &codes, first, at_most(BRAID_BLOCK_ROWS, p->m - first), k, at_most(part, p->k - k));
}

/// Adds tiles of activations and of transposed weights to the outputs of sixteen rows and 64 columns from `n` on.
static void add_transposed(
    const braid_matmul *p, int64_t first, int64_t rows, int64_t n, bool continues, int64_t tiles, const char *x,
    const char *weights
) {
    float sums[4][16][16] __attribute__((aligned(64)));
    for (int64_t t = 0; t < 4 && continues; t++)
        for (int64_t r = 0; r < 16; r++)
            store16(
                sums[t][r], r < rows ? load_some(out_row(p, first + r) + n + 16 * t, lanes_left(p->n - n - 16 * t))
                                     : splat(0));
    if (continues) load_tiles(4, sums[0][0]);
    else zero_tiles(4);
    for (int64_t k = 0; k < tiles; k++)
        add_tile_products(4, x + k * BRAID_TILE_BYTES, 64, weights + 4 * k * BRAID_TILE_BYTES);
    store_tiles(4, sums[0][0]);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < 4; t++)
            store_some(out_row(p, first + r) + n + 16 * t, load16(sums[t][r]), lanes_left(p->n - n - 16 * t));
}

/// Multiplies by transposed weights: activations are the A tiles, pairs of weight rows the B tiles.
static void tiles_transposed(const braid_matmul *p) {
    braid_scaled_codes codes = {.is_filled = false};
    const int64_t part = 64 * BRAID_TILE_K;
    char *x = (char *)p->scratch, *weights = x + BRAID_BLOCK_ROWS / 16 * 64 * BRAID_TILE_BYTES;
    for (int64_t first = 0; first < p->m; first += BRAID_BLOCK_ROWS)
        for (int64_t k = 0; k < p->k; k += part) {
            const int64_t rows = at_most(BRAID_BLOCK_ROWS, p->m - first), count = at_most(part, p->k - k);
            const int64_t tiles = (count + 31) / 32;
            for (int64_t r = 0; r < (rows + 15) / 16 * 16; r++)
                for (int64_t i = 0; i < tiles; i++) {
                    u16 terms = r < rows ? load_pairs(x_row(p, first + r) + k + 32 * i, count - 32 * i) : (u16)splat(0);
                    memcpy(x + (r / 16 * tiles + i) * BRAID_TILE_BYTES + r % 16 * 64, &terms, 64);
                }
            for (int64_t n = 0; n < p->n; n += 64) {
                widen_transposed(p, &codes, n, k, count, weights);
                for (int64_t r = 0; r < rows; r += 16)
                    add_transposed(p, first + r, at_most(16, rows - r), n, k > 0 || p->accumulate, tiles,
                                   x + r / 16 * tiles * BRAID_TILE_BYTES, weights);
            }
        }
}

BRAID_FLUSHING void multiply_tiles(const braid_matmul *p) {
    if (p->transposed) tiles_transposed(p);
    else if (p->m <= 64) tiles_few(p);
    else tiles_many(p);
}

/// Computes a product while tiles are in use.
static void product_in_tiles(const braid_matmul *p) {
    if (p->m == 0 || p->k == 0 || is_int8_product(p->profile, &p->w, p->transposed)) return vnni_matmul(p);
    const unsigned before = begin_flushing();
    multiply_tiles(p);
    end_flushing(before);
}

static void products_in_tiles(const braid_matmul *parts, int64_t count) {
    for (int64_t part = 0; part < count; part++) product_in_tiles(parts + part);
}

static void tiles_matmul(const braid_matmul *p) {
    if (!braid_rounds_to_bf16(p->profile)) return vnni_matmul(p);
    begin_tiles();
    product_in_tiles(p);
    end_tiles();
}

static void tiles_batched_matmul(const braid_batched_matmul *p) {
    if (!braid_rounds_to_bf16(p->product.profile)) return vnni_batched_matmul(p);
    begin_tiles();
    batched_products(p, products_in_tiles);
    end_tiles();
}

static void tiles_sliced_matmul(const braid_sliced_matmul *p) {
    if (!braid_rounds_to_bf16(p->product.profile)) return vnni_sliced_matmul(p);
    begin_tiles();
    sliced_products(p, products_in_tiles);
    end_tiles();
}

static void tiles_expert_hidden(const braid_expert_hidden *p) {
    if (!braid_rounds_to_bf16(p->profile)) return vnni_expert_hidden(p);
    begin_tiles();
    expert_hidden_products(p, products_in_tiles);
    end_tiles();
}

static void tiles_expert_sums(const braid_expert_sums *p) {
    if (!braid_rounds_to_bf16(p->profile)) return vnni_expert_sums(p);
    begin_tiles();
    expert_sums_products(p, products_in_tiles);
    end_tiles();
}
