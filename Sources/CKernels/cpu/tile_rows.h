// Rows of activations as B tiles, and tiles of sums as outputs.
#pragma once

#include "matmul_parts.h"
#include "tiles.h"

#define BRAID_TILE_K 32        // terms of a tile of BF16, a block of the sum
#define BRAID_BYTE_TILE_K 64   // terms of a tile of bytes
#define BRAID_TILED_FEW_ROWS 64  // of activations whose sums are in tile registers, at most
#define BRAID_TILED_SLICES 64  // whose tree is added while sums are tiles, at most
#define BRAID_TREE_LEVELS 6    // subtrees of those that wait for their siblings, at most
_Static_assert(1 << BRAID_TREE_LEVELS == BRAID_TILED_SLICES, "all but the last slice's subtree wait");

/// Returns the number of tiles along a product's terms.
BRAID_INLINE int64_t part_tiles(const braid_matmul *p, bool bytes) {
    const int64_t each = bytes ? BRAID_BYTE_TILE_K : BRAID_TILE_K;
    return (p->k + each - 1) / each;
}

/// Packs `rows` rows from `first` on as B tiles, [terms / 32][(rows + 15) / 16].
static void pack_activations(const braid_matmul *p, int64_t first, int64_t rows, char *to) {
    u16 v[16];
    for (int64_t i = 0; i < p->k; i += BRAID_TILE_K)
        for (int64_t r = 0; r < rows; r += 16, to += BRAID_TILE_BYTES) {
            for (int64_t l = 0; l < 16; l++)
                v[l] = r + l < rows ? load_pairs(x_row(p, first + r + l) + i, p->k - i) : (u16)splat(0);
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

/// Adds what is left of them to `count` sums. It is not inlined, so that no sum is moved to where small numbers are
/// flushed.
static __attribute__((noinline)) void add_left(const float *left, float *sums, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store16(sums + i, load16(left + i) + load16(sums + i));
}

/// Adds a slice's `floats` sums to the balanced tree of `slices` slices, as leaf `slice`; leaves come in index order.
/// Finished subtrees wait for their siblings at `waiting`, `level` floats apart. Returns whether `sums` is the whole
/// tree's now.
BRAID_INLINE bool add_slice(
    int64_t slice, int64_t slices, int64_t floats, float *waiting, int64_t level, float *sums
) {
    int64_t depth = __builtin_popcountll((uint64_t)slice);
    if (slice & 1) {
        const unsigned before = pause_flushing();  // only products flush
        for (int64_t leaf = slice; leaf & 1; leaf >>= 1) add_left(waiting + --depth * level, sums, floats);
        end_flushing(before);
    }
    if (slice + 1 == slices) return true;
    memcpy(waiting + depth * level, sums, (size_t)floats * sizeof(float));
    return false;
}
