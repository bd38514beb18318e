// Products of few rows with weights on tiles: weights are read once, as they are stored, and each strip of them is
// widened while the one before is multiplied. Sixteen weight rows are an A tile (of BF16 directly, of other types after
// widening), sixteen rows of activations a B tile.
#pragma once

#include "byte_tiles.h"
#include "tile_rows.h"
#include "tile_weights.h"

/// A product of few rows, or several that are consecutive K-slices of the same weights.
typedef struct {
    const braid_matmul *parts;
    int64_t count;
    bool bytes;           // weights are bytes, and rows are rounded to bytes
    bool adds_slices;     // the slices' tree is the output of the first part
    const char *x;        // B tiles, [count][tiles along the terms][rows / 16]
    const float *scales;  // of rounded rows, [count][BRAID_TILED_FEW_ROWS]
    braid_scaled_codes *codes;
    char *strips[2];      // [BRAID_STRIP_TILES] tiles each
    float *tree;          // [levels][BRAID_TILED_FEW_ROWS * 16]
} braid_few_tiles;

/// A place in the order in which weights are read: along sixteen rows through all parts, then along the next sixteen.
typedef struct {
    int64_t part, n, k;
} braid_strip;

static braid_strip strip_after(const braid_few_tiles *f, braid_strip at) {
    at.k += BRAID_STRIP_K;
    if (at.k < f->parts->k) return at;
    at.k = 0;
    if (++at.part < f->count) return at;
    at.part = 0;
    at.n += 16;
    return at;
}

/// Returns how many bytes behind those of a strip to prefetch.
static int64_t ahead_of_strip(const braid_few_tiles *f, braid_strip at) {
    const int64_t bits = bits_of(f->parts->w.dtype);
    const int64_t offset = at.k * bits / 8, rows = 16 * f->parts->w.stride * bits / 8;
    return ahead_of(offset, row_bytes(f->parts, f->count, at.part), rows) - offset;
}

/// Sets tile registers 0 ..< tiles to what a part's outputs from `n` on have so far, or to zeros for bytes, whose sums
/// are added to that in the end. `bytes` and `tiles` are constants.
BRAID_INLINE void begin_few_sums(bool bytes, int tiles, const braid_matmul *p, int64_t n) {
    float sums[4 * 256] __attribute__((aligned(64)));
    if (bytes || !p->accumulate) return zero_tiles(tiles);
    load_sums(p, 0, p->m, n, lanes_left(p->n - n), sums);
    load_tiles(tiles, sums);
}

/// Writes tile registers 0 ..< tiles as a part's outputs from `n` on. `bytes` and `tiles` are constants.
BRAID_INLINE void finish_few_sums(bool bytes, int tiles, braid_few_tiles *f, int64_t part, int64_t n) {
    const braid_matmul *own = f->parts + part, *p = f->adds_slices ? f->parts : own;
    float sums[4 * 256] __attribute__((aligned(64)));
    store_tiles(tiles, sums);
    if (bytes)
        finish_byte_sums(own, 0, p->m, n, lanes_left(p->n - n), f->scales + part * BRAID_TILED_FEW_ROWS, sums);
    if (!f->adds_slices || add_slice(part, f->count, 256 * tiles, f->tree, BRAID_TILED_FEW_ROWS * 16, sums))
        store_sums(p, 0, p->m, n, lanes_left(p->n - n), sums);
}

/// Multiplies a whole widened strip at `weights` and widens the one at `next` meanwhile: four rows of it before each
/// tile, so that the processor, which does not look far ahead, does both at a time. A tile that is loaded right after
/// it was written would wait for the stores. `kind` and `tiles` are constants.
BRAID_INLINE void multiply_while_widening(
    braid_strip_kind kind, int tiles, const braid_few_tiles *f, const char *weights, const char *x, braid_strip next,
    char *to
) {
    const braid_weight *w = &f->parts[next.part].w;
    const int64_t ahead = ahead_of_strip(f, next);
    BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++) {
        widen_rows(kind, w, f->codes, next.n, next.k, ahead, 4 * t, 4 * t + 4, to);
        add_tile_products(false, tiles, weights + t * BRAID_TILE_BYTES, 64, x + t * tiles * BRAID_TILE_BYTES);
    }
}

/// Multiplies the widened strip at `weights`, with `count` tiles, and widens the one at `next`, if there is one, to
/// `to`. `tiles` is a constant.
BRAID_INLINE void multiply_strip(
    int tiles, const braid_few_tiles *f, const char *weights, int64_t count, const char *x, braid_strip next, char *to
) {
    const braid_matmul *p = f->parts + next.part;
    const int64_t terms = at_most(p->k - next.k, BRAID_STRIP_K), lanes = lanes_left(p->n - next.n);
    const braid_strip_kind kind = strip_kind(&p->w, next.n, lanes, next.k, terms);
    if (count == BRAID_STRIP_TILES && kind == BRAID_STRIP_FP8) {
        fill_codes(f->codes, scale_at(&p->w, next.n, next.k));
        multiply_while_widening(BRAID_STRIP_FP8, tiles, f, weights, x, next, to);
    } else if (count == BRAID_STRIP_TILES && kind == BRAID_STRIP_FP4) {
        multiply_while_widening(BRAID_STRIP_FP4, tiles, f, weights, x, next, to);
    } else {
        if (lanes > 0)
            widen_strip(kind, &p->w, f->codes, next.n, lanes, next.k, terms, ahead_of_strip(f, next), to);
        for (int64_t t = 0; t < count; t++)
            add_tile_products(false, tiles, weights + t * BRAID_TILE_BYTES, 64, x + t * tiles * BRAID_TILE_BYTES);
    }
}

/// Computes the outputs from `n` on with weights that are widened. `tiles` is a constant.
BRAID_INLINE void multiply_strips(int tiles, braid_few_tiles *f, int64_t n) {
    const braid_matmul *p = f->parts;
    braid_strip at = {.n = n};
    const char *x = f->x;
    if (n >= p->n) return;
    const int64_t lanes = lanes_left(p->n - n), terms = at_most(p->k, BRAID_STRIP_K);
    widen_strip(
        strip_kind(&p->w, n, lanes, 0, terms), &p->w, f->codes, n, lanes, 0, terms, ahead_of_strip(f, at), f->strips[0]);
    for (int turn = 0; at.n < p->n; turn ^= 1) {
        const braid_strip next = strip_after(f, at);
        const int64_t count = at_most((p->k - at.k + BRAID_TILE_K - 1) / BRAID_TILE_K, BRAID_STRIP_TILES);
        if (at.k == 0) begin_few_sums(false, tiles, f->parts + at.part, at.n);
        multiply_strip(tiles, f, f->strips[turn], count, x, next, f->strips[turn ^ 1]);
        if (next.k == 0) finish_few_sums(false, tiles, f, at.part, at.n);
        x = next.n == at.n ? x + count * tiles * BRAID_TILE_BYTES : f->x;
        at = next;
    }
}

/// Adds a part's products of sixteen weight rows from `n` on that are tiles as they are stored, and returns the rows'
/// tiles after those of the part. `bytes` and `tiles` are constants.
BRAID_INLINE const char *add_stored_tiles(
    bool bytes, int tiles, const braid_few_tiles *f, int64_t part, int64_t n, const char *x
) {
    const braid_matmul *p = f->parts + part;
    const braid_row_bytes row = row_bytes(f->parts, f->count, part);
    const int64_t stride = p->w.stride * (bytes ? 1 : 2), end = p->k * (bytes ? 1 : 2);
    const char *from = weight_bytes(&p->w, n, 0);
    for (int64_t at = 0; at < end; at += 64, x += tiles * BRAID_TILE_BYTES) {
        const int64_t ahead = ahead_of(at, row, 16 * stride);
        BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(from + l * stride + ahead, 0, 3);
        add_tile_products(bytes, tiles, from + at, stride, x);
    }
    return x;
}

/// Adds a part's products of the last weight rows, fewer than sixteen, of bytes. `tiles` is a constant.
BRAID_INLINE const char *add_last_bytes(int tiles, const braid_few_tiles *f, int64_t part, int64_t n, const char *x) {
    const braid_matmul *p = f->parts + part;
    for (int64_t t = 0; t < part_tiles(p, true); t++, x += tiles * BRAID_TILE_BYTES) {
        copy_byte_tiles(&p->w, n, p->n - n, t, 1, f->strips[0]);
        add_tile_products(true, tiles, f->strips[0], 64, x);
    }
    return x;
}

/// Computes outputs of weights that are tiles as they are stored, and returns where the others begin: those of whole
/// tiles of BF16, and all of bytes. `bytes` and `tiles` are constants.
BRAID_INLINE int64_t multiply_stored_tiles(bool bytes, int tiles, braid_few_tiles *f) {
    const braid_matmul *p = f->parts;
    int64_t n = 0;
    if (!bytes && (p->w.dtype != BRAID_BF16 || p->k % BRAID_TILE_K != 0)) return 0;
    for (; n + (bytes ? 1 : 16) <= p->n; n += 16) {
        const char *x = f->x;
        for (int64_t part = 0; part < f->count; part++) {
            begin_few_sums(bytes, tiles, f->parts + part, n);
            if (n + 16 <= p->n) x = add_stored_tiles(bytes, tiles, f, part, n, x);
            else x = add_last_bytes(tiles, f, part, n, x);
            finish_few_sums(bytes, tiles, f, part, n);
        }
    }
    return n;
}

/// Computes the products. `tiles` is a constant.
BRAID_INLINE void multiply_few(int tiles, braid_few_tiles *f) {
    if (f->bytes) multiply_stored_tiles(true, tiles, f);
    else multiply_strips(tiles, f, multiply_stored_tiles(false, tiles, f));
}

/// Returns whether the rows of `count` products fit the scratch as tiles.
static bool fits_few_tiles(const braid_matmul *p, int64_t count, bool bytes) {
    const int64_t tiles = (p->m + 15) / 16 * count * part_tiles(p, bytes);
    return tiles * BRAID_TILE_BYTES + count * BRAID_TILED_FEW_ROWS * 4 <= BRAID_MATMUL_SCRATCH * 4;
}

/// Computes `count` products of at most BRAID_TILED_FEW_ROWS rows, or, if `adds_slices`, the tree of such products.
/// Their rows fit the scratch as tiles.
static void tiles_few(const braid_matmul *parts, int64_t count, bool bytes, bool adds_slices) {
    const int64_t tiles = (parts->m + 15) / 16, part_bytes = part_tiles(parts, bytes) * tiles * BRAID_TILE_BYTES;
    float *scales = parts->scratch;
    char *x = (char *)(scales + count * BRAID_TILED_FEW_ROWS);
    braid_scaled_codes codes = {.is_filled = false};
    char strips[2][BRAID_STRIP_TILES * BRAID_TILE_BYTES] __attribute__((aligned(64)));
    float tree[BRAID_TREE_LEVELS][BRAID_TILED_FEW_ROWS * 16] __attribute__((aligned(64)));
    braid_few_tiles f = {
        .parts = parts, .count = count, .bytes = bytes, .adds_slices = adds_slices, .x = x, .scales = scales,
        .codes = &codes, .strips = {strips[0], strips[1]}, .tree = tree[0]};
    for (int64_t part = 0; part < count; part++)
        if (bytes) pack_bytes(parts + part, 0, parts->m, x + part * part_bytes, scales + part * BRAID_TILED_FEW_ROWS);
        else pack_activations(parts + part, 0, parts->m, x + part * part_bytes);
    BRAID_FOR_TILES(tiles, multiply_few, &f)
}
