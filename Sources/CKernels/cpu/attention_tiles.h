// Attention's tiles in registers: scores of heads x keys, and weighted sums of heads x dimensions.
//
// Tiles read keys either as the cache stores them, widening them in registers, or widened beforehand. With few heads, a
// key is read by only one or two tiles: then widening it there costs less than storing it widened, and fewer bytes come
// from the outer cache levels.
#pragma once

#include "../include/attention.h"
#include "panel.h"

#if BRAID_REGISTERS >= 32
#define BRAID_STORED_HEADS 24   // with more heads, widened keys are usually faster
#define BRAID_STORED_SCORES 8   // heads in a tile of scores, with two stored keys
#define BRAID_WIDENED_SCORES 4  // heads in a tile of scores, with four widened keys
#define BRAID_STORED_SUMS 8     // heads in a tile of sums, with two vectors of dimensions
#define BRAID_WIDENED_SUMS 6    // heads in a tile of sums, with four vectors of dimensions
#define BRAID_STEP 2            // vectors of a key that are widened together
#define BRAID_SUM_VECTORS 4
#else
#define BRAID_STORED_HEADS 0    // tiles have so few heads that too many would widen the same key
#define BRAID_STORED_SCORES 2
#define BRAID_WIDENED_SCORES 2
#define BRAID_STORED_SUMS 3
#define BRAID_WIDENED_SUMS 3
#define BRAID_STEP 1
#define BRAID_SUM_VECTORS 2
#endif
#define BRAID_STORED_KEYS 2
#define BRAID_WIDENED_KEYS (BRAID_WIDENED_SCORES == 4 ? 4 : 2)
#define BRAID_STORED_VECTORS 2
#define BRAID_SUM_WIDTH (BRAID_SUM_VECTORS * 16)
#define BRAID_STORED_WIDTH (BRAID_STORED_VECTORS * 16)
#define BRAID_KEY_BLOCK 8       // keys scored together
#define BRAID_KEYS_AHEAD 8      // keys are prefetched this many ahead

BRAID_INLINE int64_t whole_vectors(int64_t n) { return (n + 15) / 16 * 16; }

/// The latent or the rotary part of a block of keys.
typedef struct {
    braid_dtype dtype;   // F32 if the keys were widened
    int64_t width;       // whole vectors
    int64_t group, scales_at;  // FP8: columns that share a scale, and the scales' byte offset in an entry
    braid_scale_type scale_type;  // FP8
    const char *keys[BRAID_KEY_BLOCK];
    const char *ahead[BRAID_KEY_BLOCK];  // keys that tiles of stored keys prefetch
} braid_key_part;

/// Adds the lanes of `a` and `b` that the two lists name: the halves of both vectors at once.
#define BRAID_ADD_HALVES(a, b, lower, upper) \
    (__builtin_shufflevector(a, b, lower) + __builtin_shufflevector(a, b, upper))
#define BRAID_LANES(...) __VA_ARGS__

/// Adds the lanes of sixteen vectors in the documented order; lane i of the result is the sum of v[i]. The vectors are
/// taken in an order that needs no shuffles except those that bring halves together.
BRAID_INLINE f16 sum_lanes_of_16(const f16 v[16]) {
    f16 fours[4], twos[2];
    BRAID_UNROLL for (int i = 0; i < 4; i++) {
        f16 a = BRAID_ADD_HALVES(  // l with l + 8
            v[i], v[i + 4], BRAID_LANES(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            BRAID_LANES(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
        f16 b = BRAID_ADD_HALVES(
            v[i + 8], v[i + 12], BRAID_LANES(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            BRAID_LANES(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
        fours[i] = BRAID_ADD_HALVES(  // l with l + 4
            a, b, BRAID_LANES(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
            BRAID_LANES(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
    }
    BRAID_UNROLL for (int i = 0; i < 2; i++)  // l with l + 2
        twos[i] = BRAID_ADD_HALVES(
            fours[2 * i], fours[2 * i + 1], BRAID_LANES(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            BRAID_LANES(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31));
    return BRAID_ADD_HALVES(  // l with l + 1
        twos[0], twos[1], BRAID_LANES(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
        BRAID_LANES(1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));
}

/// `n` vectors of stored elements from `p` on. `dtype` and `n` are constants where this is inlined.
BRAID_INLINE void widen_vectors(braid_dtype dtype, int n, const char *p, f16 scale, f16 *out) {
    if (dtype == BRAID_FP8 && n == 2) {
        widen_32_fp8(p, out);
        out[0] = out[0] * scale;
        out[1] = out[1] * scale;
        return;
    }
    BRAID_UNROLL for (int v = 0; v < n; v++) out[v] = widen_row(dtype, p + 16 * v * bytes_of(dtype), 16, scale);
}

// MARK: scores

/// Continues heads x keys dot products over elements `d ..< end`, `n` vectors at a time, and returns where it stopped.
/// `a` is [heads][keys]. `heads`, `keys`, `fetch`, `dtype` and `n` are constants where this is inlined.
BRAID_INLINE int64_t add_steps(
    int heads, int keys, bool fetch, braid_dtype dtype, int n, const float *q, int64_t q_stride,
    const char *const from[4], const char *const ahead[4], const f16 scales[4], int64_t d, int64_t end, f16 a[16]
) {
    for (; d + 16 * n <= end; d += 16 * n) {
        f16 key[4][BRAID_STEP];
        int64_t at = d * bytes_of(dtype);
        BRAID_UNROLL for (int j = 0; j < keys; j++) {
            // Each step prefetches a line or two: that many at once would wait for each other, and the dots for them.
            BRAID_UNROLL for (int line = 0; fetch && line < 16 * n * bytes_of(dtype); line += 64)
                __builtin_prefetch(ahead[j] + at + line, 0, 2);
            widen_vectors(dtype, n, from[j] + at, scales[j], key[j]);
        }
        BRAID_UNROLL for (int h = 0; h < heads; h++)
            BRAID_UNROLL for (int v = 0; v < n; v++) {
                f16 query = load16(q + h * q_stride + d + 16 * v);
                BRAID_UNROLL for (int j = 0; j < keys; j++)
                    a[h * keys + j] = fma16(query, key[j][v], a[h * keys + j]);
            }
    }
    return d;
}

/// Continues heads x keys dot products over one part of the keys `first ...` of a block.
BRAID_INLINE void add_dots(
    int heads, int keys, bool fetch, braid_dtype dtype, const float *q, int64_t q_stride, const braid_key_part *part,
    int64_t first, f16 a[16]
) {
    const char *from[4], *ahead[4];
    f16 scales[4];
    BRAID_UNROLL for (int j = 0; j < keys; j++) {
        from[j] = part->keys[first + j];
        ahead[j] = fetch ? part->ahead[first + j] : 0;
        if (fetch && dtype == BRAID_FP8) __builtin_prefetch(ahead[j] + part->scales_at, 0, 2);
    }
    for (int64_t d = 0, group = 0; d < part->width; group++) {
        int64_t end = dtype == BRAID_FP8 ? at_most(part->width, (group + 1) * part->group) : part->width;
        BRAID_UNROLL for (int j = 0; j < keys; j++)
            scales[j] = splat(dtype == BRAID_FP8 ? stored_scale(part->scale_type, from[j] + part->scales_at, group) : 0);
        d = add_steps(heads, keys, fetch, dtype, BRAID_STEP, q, q_stride, from, ahead, scales, d, end, a);
        if (BRAID_STEP > 1) d = add_steps(heads, keys, fetch, dtype, 1, q, q_stride, from, ahead, scales, d, end, a);
    }
}

/// Writes heads x keys scores, for keys `first ...` of a block, into e [heads, e_stride].
BRAID_INLINE void score_tile(
    int heads, int keys, bool stored, const float *q, int64_t q_stride, const braid_key_part parts[2], int64_t first,
    float scale, float *e, int64_t e_stride
) {
    f16 a[16];
    BRAID_UNROLL for (int i = 0; i < 16; i++) a[i] = splat(0);
    BRAID_UNROLL for (int i = 0; i < 2; q += whole_vectors(parts[i].width), i++)
        switch (stored ? parts[i].dtype : BRAID_F32) {  // a constant if the keys were widened
        case BRAID_BF16: add_dots(heads, keys, stored, BRAID_BF16, q, q_stride, parts + i, first, a); break;
        case BRAID_FP8: add_dots(heads, keys, stored, BRAID_FP8, q, q_stride, parts + i, first, a); break;
        default: add_dots(heads, keys, stored, BRAID_F32, q, q_stride, parts + i, first, a); break;
        }
#if BRAID_REGISTERS >= 32
    f16 sums = sum_lanes_of_16(a) * splat(scale);
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        memcpy(e + h * e_stride, (const char *)&sums + h * keys * 4, (size_t)keys * 4);
#else
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int j = 0; j < keys; j++) e[h * e_stride + j] = sum_lanes(a[h * keys + j]) * scale;
#endif
}

/// Computes scores of `heads` heads with the first `keys` keys of a block. It also writes scores of up to three keys
/// after them, which are meaningless.
static void score_block(
    int64_t heads, int64_t keys, bool stored, const float *q, int64_t q_stride, const braid_key_part parts[2],
    float scale, float *e, int64_t e_stride
) {
    const int tile = stored ? BRAID_STORED_SCORES : BRAID_WIDENED_SCORES;
    const int across = stored ? BRAID_STORED_KEYS : BRAID_WIDENED_KEYS;
    for (int64_t h = 0; h < heads; h += tile)
        for (int64_t j = 0; j < keys; j += across) {
            const int64_t rows = at_most(heads - h, tile);
            const float *queries = q + h * q_stride;
            float *to = e + h * e_stride + j;
            if (stored) {
                BRAID_FOR_FEW(
                    rows, BRAID_STORED_SCORES, score_tile, BRAID_STORED_KEYS, true, queries, q_stride, parts, j, scale,
                    to, e_stride)
            } else {
                BRAID_FOR_FEW(
                    rows, BRAID_WIDENED_SCORES, score_tile, BRAID_WIDENED_KEYS, false, queries, q_stride, parts, j,
                    scale, to, e_stride)
            }
        }
}

// MARK: sums

/// The part of a block of keys that a tile of sums reads.
typedef struct {
    braid_dtype dtype;
    const char *const *keys;
    int64_t count;
    int64_t at, scale_at;  // byte offsets from a key's first byte to the elements and to their scale (FP8)
    braid_scale_type scale_type;  // FP8
} braid_sum_keys;

/// Begins or continues heads x vectors chains over a block of keys in `out`, and multiplies by the factors at the end.
/// `heads`, `vectors` and `dtype` are constants where this is inlined.
BRAID_INLINE void sum_tile(
    int heads, int vectors, braid_dtype dtype, const float *e, int64_t e_stride, const braid_sum_keys *block,
    bool first, const float *factor, float *const *out
) {
    f16 a[8][BRAID_SUM_VECTORS];
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int v = 0; v < vectors; v++) a[h][v] = first ? splat(0) : load16(out[h] + 16 * v);
    const char *const *keys = block->keys;
    const int64_t count = block->count, at = block->at, scale_at = block->scale_at;
    for (int64_t i = 0; i < count; i++) {
        f16 key[BRAID_SUM_VECTORS], scale = splat(0);
        if (dtype == BRAID_FP8) scale = splat(stored_scale(block->scale_type, keys[i] + scale_at, 0));
        widen_vectors(dtype, vectors, keys[i] + at, scale, key);
        BRAID_UNROLL for (int h = 0; h < heads; h++) {
            f16 probability = splat(e[h * e_stride + i]);
            BRAID_UNROLL for (int v = 0; v < vectors; v++) a[h][v] = fma16(probability, key[v], a[h][v]);
        }
    }
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int v = 0; v < vectors; v++)
            store16(out[h] + 16 * v, factor ? a[h][v] * splat(factor[h]) : a[h][v]);
}

BRAID_INLINE void sum_stored(
    int heads, const float *e, int64_t e_stride, const braid_sum_keys *block, bool first, const float *factor,
    float *const *out
) {
    switch (block->dtype) {
    case BRAID_BF16:
        return sum_tile(heads, BRAID_STORED_VECTORS, BRAID_BF16, e, e_stride, block, first, factor, out);
    case BRAID_FP8:
        return sum_tile(heads, BRAID_STORED_VECTORS, BRAID_FP8, e, e_stride, block, first, factor, out);
    default: return sum_tile(heads, BRAID_STORED_VECTORS, BRAID_F32, e, e_stride, block, first, factor, out);
    }
}

BRAID_INLINE void sum_widened(
    int heads, const float *e, int64_t e_stride, const braid_sum_keys *block, bool first, const float *factor,
    float *const *out
) {
    sum_tile(heads, BRAID_SUM_VECTORS, BRAID_F32, e, e_stride, block, first, factor, out);
}

/// Computes `width` dimensions of the weighted sums of one block of keys for all heads of a group; heads are `stride`
/// apart in out.
static void sum_block(
    int64_t heads, bool stored, const float *e, int64_t e_stride, const braid_sum_keys *block, bool first,
    const float *factor, int64_t width, float *out, int64_t stride
) {
    const int tile = stored ? BRAID_STORED_SUMS : BRAID_WIDENED_SUMS;
    const bool whole = width == (stored ? BRAID_STORED_WIDTH : BRAID_SUM_WIDTH);
    float edge[8][BRAID_SUM_WIDTH], *to[8];  // a buffer that keeps tiles whole
    for (int64_t h = 0; h < heads; h += tile) {
        const int64_t rows = at_most(heads - h, tile);
        const float *probabilities = e + h * e_stride;
        for (int64_t i = 0; i < rows; i++) {
            to[i] = out + (h + i) * stride;
            if (whole) continue;
            memset(edge[i], 0, sizeof edge[i]);
            memcpy(edge[i], to[i], (size_t)width * sizeof(float));
            to[i] = edge[i];
        }
        const float *f = factor ? factor + h : 0;
        if (stored) {
            BRAID_FOR_FEW(rows, BRAID_STORED_SUMS, sum_stored, probabilities, e_stride, block, first, f, to)
        } else {
            BRAID_FOR_FEW(rows, BRAID_WIDENED_SUMS, sum_widened, probabilities, e_stride, block, first, f, to)
        }
        if (whole) continue;
        for (int64_t i = 0; i < rows; i++) memcpy(out + (h + i) * stride, edge[i], (size_t)width * sizeof(float));
    }
}
