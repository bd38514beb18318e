// Products of many rows with weights on tiles: a block of weights is widened once for many rows, and sums stay as tiles
// until all of their terms are added. Bytes are not widened, but brought together.
#pragma once

#include "byte_tiles.h"
#include "tile_rows.h"
#include "tile_weights.h"

#define BRAID_BLOCK_OUTPUTS 256  // whose widened weights and sums stay in the second-level cache
#define BRAID_BLOCK_ROWS 256     // that share widened weights, at most
#define BRAID_BLOCK_TILES 16     // along the terms of a group of rows, most of which stay in the first-level cache
#define BRAID_GROUP_ROWS 32      // whose sums, with those of 32 outputs, are in tile registers
#define BRAID_BLOCK_BYTES (BRAID_BLOCK_OUTPUTS * BRAID_BLOCK_TILES * 64)

/// Products of many rows: one, or several that are consecutive K-slices of the same weights.
typedef struct {
    const braid_matmul *parts;
    int64_t count;
    bool bytes;             // weights are bytes, and rows are rounded to bytes
    bool adds_slices;       // the slices' tree is the output of the first part
    int64_t first, rows;    // of the activations
    int64_t part_tiles;     // tiles along the terms of a part
    char *x;                // B tiles, [rows / 32][count * part_tiles][2 at most]
    float *scales;          // of rounded rows, [count][BRAID_BLOCK_ROWS]
    char *weights;          // A tiles, [outputs / 16][BRAID_BLOCK_TILES]
    float *sums;            // [outputs / 32][rows / 16][2] tiles, which later terms continue; then levels of subtrees that wait
    int64_t level;          // floats of a level
    braid_scaled_codes *codes;
} braid_many_tiles;

/// The outputs, and the tiles along a part's terms, that are multiplied.
typedef struct {
    int64_t n, outputs;
    int64_t part, from, count;
} braid_tile_block;

/// Widens a block's weights, or brings its bytes together.
static void widen_block(const braid_many_tiles *f, const braid_tile_block *b) {
    const braid_matmul *p = f->parts + b->part;
    for (int64_t n = 0; n < b->outputs; n += 16) {
        char *to = f->weights + n / 16 * b->count * BRAID_TILE_BYTES;
        const int64_t lanes = lanes_left(b->outputs - n), k = b->from * BRAID_TILE_K;
        if (f->bytes) copy_byte_tiles(&p->w, b->n + n, lanes, b->from, b->count, to);
        else
            // A last strip may have fewer tiles; all four are written, and those beyond are written over.
            for (int64_t i = 0; i < b->count; i += BRAID_STRIP_TILES) {
                const int64_t from = k + i * BRAID_TILE_K, terms = at_most(BRAID_STRIP_K, p->k - from);
                const braid_strip_kind kind = strip_kind(&p->w, b->n + n, lanes, from, terms);
                widen_strip(
                    kind, &p->w, f->codes, b->n + n, lanes, from, terms, BRAID_AHEAD, to + i * BRAID_TILE_BYTES);
            }
    }
}

/// Multiplies tiles of `outputs` times sixteen outputs with `tiles` times sixteen rows over `count` tiles of terms.
/// Sums, [outputs][tiles], begin with those at `from`, or with zeros if it is null. `bytes`, and `outputs` and `tiles`,
/// 1 or 2, are constants: with 2, each product needs one load.
BRAID_INLINE void multiply_group(
    bool bytes, int outputs, int tiles, int64_t count, const char *weights, const char *x, const float *from, float *to
) {
    const char *upper = weights + count * BRAID_TILE_BYTES;
    if (!from) {
        zero_tiles(4);
    } else {
        _tile_loadd(0, from, 64);
        if (tiles > 1) _tile_loadd(1, from + 256, 64);
        if (outputs > 1) _tile_loadd(2, from + 256 * tiles, 64);
        if (outputs > 1 && tiles > 1) _tile_loadd(3, from + 256 * (tiles + 1), 64);
    }
    for (int64_t k = 0; k < count; k++, x += tiles * BRAID_TILE_BYTES) {
        _tile_loadd(4, weights + k * BRAID_TILE_BYTES, 64);
        _tile_loadd(6, x, 64);
        BRAID_ADD_TILES(bytes, 0, 4, 6);
        if (outputs > 1) {
            _tile_loadd(5, upper + k * BRAID_TILE_BYTES, 64);
            BRAID_ADD_TILES(bytes, 2, 5, 6);
        }
        if (tiles > 1) {
            _tile_loadd(7, x + BRAID_TILE_BYTES, 64);
            BRAID_ADD_TILES(bytes, 1, 4, 7);
            if (outputs > 1) BRAID_ADD_TILES(bytes, 3, 5, 7);
        }
    }
    _tile_stored(0, to, 64);
    if (tiles > 1) _tile_stored(1, to + 256, 64);
    if (outputs > 1) _tile_stored(2, to + 256 * tiles, 64);
    if (outputs > 1 && tiles > 1) _tile_stored(3, to + 256 * (tiles + 1), 64);
}

/// Returns where the tiles of a group of rows from `r` on begin, of which `tiles` are side by side, for those from
/// `from` on along a part's terms.
static char *group_tiles(const braid_many_tiles *f, int64_t r, int64_t tiles, int64_t part, int64_t from) {
    return f->x + (r / 16 * f->count * f->part_tiles + tiles * (part * f->part_tiles + from)) * BRAID_TILE_BYTES;
}

/// Multiplies `outputs` times sixteen outputs of a block from `n` on with the `rows` rows from `r` on. `bytes`,
/// `outputs` and `tiles` are constants.
BRAID_INLINE void multiply_outputs(
    bool bytes, int outputs, int tiles, const braid_many_tiles *f, const braid_tile_block *b, int64_t n, int64_t r,
    int64_t rows
) {
    const braid_matmul *p = f->parts + b->part, *target = f->adds_slices ? f->parts : p;
    const bool is_first = b->from == 0, is_last = b->from + b->count == f->part_tiles;
    const int64_t first = f->first + r, size = 256 * tiles;
    const int64_t lanes[2] = {lanes_left(b->outputs - n), lanes_left(b->outputs - n - 16)};
    float *kept = f->sums + (n / 16 * ((f->rows + 15) / 16) + r / 16 * 2) * 256;
    float now[4 * 256] __attribute__((aligned(64)));
    for (int i = 0; i < outputs && is_first && p->accumulate && !bytes; i++)
        load_sums(p, first, rows, b->n + n + 16 * i, lanes[i], kept + size * i);
    multiply_group(
        bytes, outputs, tiles, b->count, f->weights + n / 16 * b->count * BRAID_TILE_BYTES,
        group_tiles(f, r, tiles, b->part, b->from), is_first && (bytes || !p->accumulate) ? 0 : kept,
        is_last ? now : kept);
    if (!is_last) return;
    for (int i = 0; i < outputs && bytes; i++)
        finish_byte_sums(
            p, first, rows, b->n + n + 16 * i, lanes[i], f->scales + b->part * BRAID_BLOCK_ROWS + r, now + size * i);
    if (f->adds_slices && !add_slice(b->part, f->count, size * outputs, kept + f->level, f->level, now))
        return;
    for (int i = 0; i < outputs; i++) store_sums(target, first, rows, b->n + n + 16 * i, lanes[i], now + size * i);
}

/// Multiplies a block. `bytes` is a constant.
BRAID_INLINE void multiply_block(bool bytes, const braid_many_tiles *f, const braid_tile_block *b) {
    for (int64_t r = 0; r < f->rows; r += BRAID_GROUP_ROWS) {
        const int64_t rows = at_most(f->rows - r, BRAID_GROUP_ROWS);
        for (int64_t n = 0; n < b->outputs; n += 32) {
            const bool has_two = b->outputs - n > 16;
            if (rows > 16 && has_two) multiply_outputs(bytes, 2, 2, f, b, n, r, rows);
            else if (rows > 16) multiply_outputs(bytes, 1, 2, f, b, n, r, rows);
            else if (has_two) multiply_outputs(bytes, 2, 1, f, b, n, r, rows);
            else multiply_outputs(bytes, 1, 1, f, b, n, r, rows);
        }
    }
}

/// Computes the outputs of the rows of a block.
static void multiply_rows(const braid_many_tiles *f) {
    for (int64_t part = 0; part < f->count; part++)
        for (int64_t r = 0; r < f->rows; r += BRAID_GROUP_ROWS) {
            const int64_t rows = at_most(BRAID_GROUP_ROWS, f->rows - r);
            char *to = group_tiles(f, r, (rows + 15) / 16, part, 0);
            if (f->bytes) pack_bytes(f->parts + part, f->first + r, rows, to, f->scales + part * BRAID_BLOCK_ROWS + r);
            else pack_activations(f->parts + part, f->first + r, rows, to);
        }
    braid_tile_block b = {.n = 0};
    for (; b.n < f->parts->n; b.n += b.outputs) {
        b.outputs = at_most(BRAID_BLOCK_OUTPUTS, f->parts->n - b.n);
        for (b.part = 0; b.part < f->count; b.part++)
            for (b.from = 0; b.from < f->part_tiles; b.from += b.count) {
                b.count = at_most(BRAID_BLOCK_TILES, f->part_tiles - b.from);
                widen_block(f, &b);
                if (f->bytes) multiply_block(true, f, &b);
                else multiply_block(false, f, &b);
            }
    }
}

/// Returns how many levels of a block's sums `count` products need: one of sums that later terms continue, and those of
/// the tree of slices.
static int64_t levels_of_sums(int64_t count, bool adds_slices) {
    int64_t levels = 1;
    while (adds_slices && count >> levels > 0) levels++;
    return levels;
}

/// Returns how many rows of `count` products fit the scratch as tiles, beside a block's weights and sums.
static int64_t tiled_rows(const braid_matmul *p, int64_t count, bool bytes, bool adds_slices) {
    const int64_t levels = levels_of_sums(count, adds_slices);
    const int64_t room = BRAID_MATMUL_SCRATCH * 4 - BRAID_BLOCK_BYTES - count * BRAID_BLOCK_ROWS * 4;
    const int64_t each = count * part_tiles(p, bytes) * 64 + levels * BRAID_BLOCK_OUTPUTS * 4;
    return at_most(room / each / BRAID_GROUP_ROWS * BRAID_GROUP_ROWS, BRAID_BLOCK_ROWS);
}

/// Computes `count` products, or, if `adds_slices`, the tree of such products. Some of their rows fit the scratch as
/// tiles.
static void tiles_many(const braid_matmul *parts, int64_t count, bool bytes, bool adds_slices) {
    braid_scaled_codes codes = {.is_filled = false};
    braid_many_tiles f = {.parts = parts, .count = count, .bytes = bytes, .adds_slices = adds_slices, .codes = &codes};
    const int64_t most = tiled_rows(parts, count, bytes, adds_slices), times = (parts->m + most - 1) / most;
    // Not many and then few: weights are widened for each time.
    const int64_t groups = (parts->m + times * BRAID_GROUP_ROWS - 1) / (times * BRAID_GROUP_ROWS);
    const int64_t rows = groups * BRAID_GROUP_ROWS;
    f.part_tiles = part_tiles(parts, bytes);
    f.weights = (char *)parts->scratch;
    f.sums = (float *)(f.weights + BRAID_BLOCK_BYTES);
    f.level = BRAID_BLOCK_OUTPUTS * rows;
    f.scales = f.sums + levels_of_sums(count, adds_slices) * f.level;
    f.x = (char *)(f.scales + count * BRAID_BLOCK_ROWS);
    for (f.first = 0; f.first < parts->m; f.first += f.rows) {
        f.rows = at_most(rows, parts->m - f.first);
        multiply_rows(&f);
    }
}
