// INT8 products on tiles: weights as they are stored are A tiles, and rows rounded to bytes are B tiles. Integer sums
// are exact; their conversion is that of profile.h.
#pragma once

#include "int8.h"
#include "tile_rows.h"

#define BRAID_VNNI_ROWS 2  // that VNNI multiplies at the speed of memory

/// Returns whether tiles multiply the bytes of `count` INT8 products of one shape: they have whole tiles, each of them
/// one segment, as in released checkpoints, which have a scale for each row, and more than very few rows.
static bool has_byte_tiles(const braid_matmul *parts, int64_t count) {
    if (parts->m <= BRAID_VNNI_ROWS || parts->k == 0 || parts->k % BRAID_BYTE_TILE_K != 0) return false;
    for (const braid_matmul *p = parts; p < parts + count; p++)
        if (int8_segment_end(&p->w, 0, p->k) != p->k) return false;
    return true;
}

/// Returns 64 terms as signed bytes.
BRAID_INLINE u16 rounded_bytes(const float *x, braid_int8_factors factors) {
    __m128i quarters[4];
    BRAID_UNROLL for (int i = 0; i < 4; i++)
        quarters[i] = _mm512_cvtepi32_epi8((__m512i)activation_integers(load16(x + 16 * i), factors));
    return (u16)of_quarters(quarters);
}

/// Packs at most BRAID_TILED_FEW_ROWS rows from `first` on, rounded to bytes, as B tiles, [terms / 64][(rows + 15) /
/// 16], and sets their scales, those of missing rows as well.
static void pack_bytes(const braid_matmul *p, int64_t first, int64_t rows, char *to, float *scales) {
    braid_int8_factors factors[BRAID_TILED_FEW_ROWS];
    const int64_t tiles = (rows + 15) / 16;
    for (int64_t r = 0; r < 16 * tiles; r++) {
        factors[r] = (braid_int8_factors){0, 0, 0};
        if (r < rows) factors[r] = int8_factors(largest_bits(x_row(p, first + r), p->k), p->w.rounding);
        scales[r] = factors[r].scale;
    }
    for (int64_t k = 0; k < p->k; k += BRAID_BYTE_TILE_K)
        for (int64_t r = 0; r < 16 * tiles; r += 16, to += BRAID_TILE_BYTES) {
            u16 v[16];
            for (int64_t l = 0; l < 16; l++)
                v[l] = factors[r + l].inverse > 0 ? rounded_bytes(x_row(p, first + r + l) + k, factors[r + l]) : (u16){0};
            transpose16(v);
            memcpy(to, v, sizeof v);
        }
}

/// Copies `count` A tiles of sixteen rows from `n` on, of which `lanes` exist, from tile `from` along their terms on.
/// Missing rows are zeros.
static void copy_byte_tiles(const braid_weight *w, int64_t n, int64_t lanes, int64_t from, int64_t count, char *to) {
    for (int64_t l = 0; l < 16; l++)
        for (int64_t t = 0; t < count; t++) {
            u16 terms = {0};
            if (l < lanes) {
                const char *bytes = weight_bytes(w, n + l, (from + t) * BRAID_BYTE_TILE_K);
                memcpy(&terms, bytes, sizeof terms);
                __builtin_prefetch(bytes + BRAID_AHEAD, 0, 3);
            }
            memcpy(to + t * BRAID_TILE_BYTES + 64 * l, &terms, sizeof terms);
        }
}

/// Replaces integer sums, [16 outputs][16 rows] to a tile, by the outputs `n ..< n + lanes` of `rows` rows from `first`
/// on, which continue what is there if the product accumulates.
static void finish_byte_sums(
    const braid_matmul *p, int64_t first, int64_t rows, int64_t n, int64_t lanes, const float *scales, float *sums
) {
    float before[256] __attribute__((aligned(64)));
    for (int64_t r = 0; r < rows; r += 16, sums += 256) {
        const f16 scale = load16(scales + r);
        if (p->accumulate) load_sums(p, first + r, at_most(rows - r, 16), n, lanes, before);
        for (int64_t l = 0; l < lanes; l++) {
            i16 sum;
            memcpy(&sum, sums + 16 * l, sizeof sum);
            sum -= int8_correction(&p->w, n + l, 0, p->k);
            const f16 factor = scale * splat(scale_at(&p->w, n + l, 0));
            const f16 from = p->accumulate ? load16(before + 16 * l) : splat(0);
            store16(sums + 16 * l, fma16(__builtin_convertvector(sum, f16), factor, from));
        }
    }
}
