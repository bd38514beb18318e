// Matrix products on tiles, of the BF16 profile and of bytes. Sixteen weight rows as they are stored are an A tile (of
// BF16 and bytes directly, of other types after widening), sixteen rows of activations a B tile: so weights need not be
// transposed, and even a single row is worth it. Weights that are stored transposed are the B tiles instead.
#pragma once

#include "experts.h"
#include "few_tiles.h"
#include "many_tiles.h"
#include "vnni.h"

#define BRAID_WORTHY_ROWS 128        // many rows are cut along their terms if fewer than these fit the scratch
#define BRAID_TRANSPOSED_ROWS 256    // of transposed weights' activations, which are packed together
#define BRAID_TRANSPOSED_K (64 * BRAID_TILE_K)

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
        add_tile_products(false, 4, x + k * BRAID_TILE_BYTES, 64, weights + 4 * k * BRAID_TILE_BYTES);
    store_tiles(4, sums[0][0]);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < 4; t++)
            store_some(out_row(p, first + r) + n + 16 * t, load16(sums[t][r]), lanes_left(p->n - n - 16 * t));
}

/// Multiplies by transposed weights: activations are the A tiles, pairs of weight rows the B tiles.
static void tiles_transposed(const braid_matmul *p) {
    braid_scaled_codes codes = {.is_filled = false};
    char *x = (char *)p->scratch, *weights = x + BRAID_TRANSPOSED_ROWS * BRAID_TRANSPOSED_K * 2;
    for (int64_t first = 0; first < p->m; first += BRAID_TRANSPOSED_ROWS)
        for (int64_t k = 0; k < p->k; k += BRAID_TRANSPOSED_K) {
            const int64_t rows = at_most(BRAID_TRANSPOSED_ROWS, p->m - first);
            const int64_t count = at_most(BRAID_TRANSPOSED_K, p->k - k);
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

/// Returns whether the rows of `count` products, or enough of them where there are many, fit the scratch as tiles.
static bool fits_tiles(const braid_matmul *p, int64_t count, bool bytes, bool adds_slices) {
    if (p->m <= BRAID_TILED_FEW_ROWS) return fits_few_tiles(p, count, bytes);
    return tiled_rows(p, count, bytes, adds_slices) >= at_most(p->m, BRAID_WORTHY_ROWS);
}

/// Computes products whose rows fit the scratch, see `fits_tiles`.
static void multiply_by_rows(const braid_matmul *parts, int64_t count, bool bytes, bool adds_slices) {
    if (parts->m <= BRAID_TILED_FEW_ROWS) tiles_few(parts, count, bytes, adds_slices);
    else tiles_many(parts, count, bytes, adds_slices);
}

/// Computes one product, whose terms are cut into parts if they do not fit the scratch: sums continue in the outputs.
static void multiply_in_parts(const braid_matmul *p) {
    braid_matmul part = *p;
    while (!fits_tiles(&part, 1, false, false)) part.k = part.k / 2 / BRAID_TILE_K * BRAID_TILE_K;
    for (int64_t k = 0, step = part.k; k < p->k; k += step) {
        part.k = at_most(step, p->k - k);
        part.w = weight_part(p->w, 0, k);
        part.x = p->x + k;
        part.accumulate = p->accumulate || k > 0;
        multiply_by_rows(&part, 1, false, false);
    }
}

/// Computes products, or, if `adds_slices`, the tree of products whose rows fit the scratch.
BRAID_FLUSHING void multiply_flushed(const braid_matmul *parts, int64_t count, bool adds_slices) {
    if (adds_slices || (!parts->transposed && fits_tiles(parts, count, false, false)))
        return multiply_by_rows(parts, count, false, adds_slices);
    for (int64_t part = 0; part < count; part++)
        if (parts->transposed) tiles_transposed(parts + part);
        else multiply_in_parts(parts + part);
}

/// Computes products, or, if `adds_slices`, the tree of products whose rows fit the scratch. Rows of bytes always do.
static void multiply_tiles(const braid_matmul *parts, int64_t count, bool bytes, bool adds_slices) {
    if (bytes) return multiply_by_rows(parts, count, true, adds_slices);
    const unsigned before = begin_flushing();
    multiply_flushed(parts, count, adds_slices);
    end_flushing(before);
}

/// Computes products while tiles are in use.
static void products_in_tiles(const braid_matmul *parts, int64_t count) {
    const bool bytes = is_int8_product(parts->profile, &parts->w, parts->transposed);
    const bool is_tiled = bytes ? has_byte_tiles(parts, count) && fits_tiles(parts, count, true, false)
                                : braid_rounds_to_bf16(parts->profile) && parts->k > 0;
    if (parts->m == 0 || !is_tiled) vnni_products(parts, count);
    else multiply_tiles(parts, count, bytes, false);
}

/// Computes a sliced product while tiles are in use: the slices' tree is added while sums are tiles.
static void slices_in_tiles(const braid_sliced_matmul *p) {
    const braid_matmul *product = &p->product;
    const bool bytes = is_int8_product(product->profile, &product->w, false);
    braid_matmul parts[BRAID_TILED_SLICES];
    if (product->m == 0 || product->k == 0 || p->slices > BRAID_TILED_SLICES)
        return sliced_products(p, products_in_tiles);
    for (int64_t slice = 0; slice < p->slices; slice++) parts[slice] = slice_of(product, p->slices, slice);
    const bool is_tiled = bytes ? has_byte_tiles(parts, p->slices) : braid_rounds_to_bf16(product->profile);
    if (is_tiled && fits_tiles(parts, p->slices, bytes, true)) multiply_tiles(parts, p->slices, bytes, true);
    else sliced_products(p, products_in_tiles);
}

/// Returns whether products of a profile may use tiles.
static bool uses_tiles(braid_profile profile) { return profile != BRAID_PROFILE_F32; }

static void tiles_matmul(const braid_matmul *p) {
    if (!uses_tiles(p->profile)) return vnni_matmul(p);
    begin_tiles();
    products_in_tiles(p, 1);
    end_tiles();
}

static void tiles_batched_matmul(const braid_batched_matmul *p) {
    if (!uses_tiles(p->product.profile)) return vnni_batched_matmul(p);
    begin_tiles();
    batched_products(p, products_in_tiles);
    end_tiles();
}

static void tiles_sliced_matmul(const braid_sliced_matmul *p) {
    if (!uses_tiles(p->product.profile)) return vnni_sliced_matmul(p);
    begin_tiles();
    slices_in_tiles(p);
    end_tiles();
}

static void tiles_expert_hidden(const braid_expert_hidden *p) {
    if (!uses_tiles(p->profile)) return vnni_expert_hidden(p);
    begin_tiles();
    expert_hidden_products(p, products_in_tiles);
    end_tiles();
}

static void tiles_expert_sums(const braid_expert_sums *p) {
    if (!uses_tiles(p->profile)) return vnni_expert_sums(p);
    begin_tiles();
    expert_sums_products(p, products_in_tiles);
    end_tiles();
}
