// Attention in the BF16 profile on tiles. For scores, sixteen keys are an A tile and sixteen heads' queries a B tile,
// so that softmax runs down the keys with a head a lane. For values, sixteen heads' exponentials are an A tile and
// pairs of keys a B tile.
//
// Keys are widened and brought together as tiles a few steps before these are multiplied, so that both overlap: a tile
// that is loaded right after it was written would wait for the stores. This happens twice, for scores and for values,
// because to keep it would write more to the outer cache levels than it costs to read the stored keys again.
#pragma once

#include "attention_keys.h"

#define BRAID_BLOCK_FLOATS (BRAID_TILE_KEYS * 16)  // scores of a tile of heads with a block of keys
#define BRAID_PART_BLOCKS 16        // blocks whose values are summed together
#define BRAID_FEW_TILES 2           // with so few tiles of heads, each tile of keys is multiplied once
#define BRAID_RING 4                // then so many pairs of tiles suffice, which stay in the first-level cache
#define BRAID_STEPS_AHEAD 2         // pairs of tiles that are filled before they are multiplied
_Static_assert(BRAID_STEPS_AHEAD < BRAID_RING, "no tile is filled that is still to be multiplied");
_Static_assert(
    ((BRAID_MAX_LATENT + BRAID_MAX_ROPE) / BRAID_TILE_DIMENSIONS + BRAID_PART_BLOCKS) * BRAID_PAIR_BYTES
        <= BRAID_ATTENTION_KEYS * 4,
    "the tiles of the widest keys and of a part's values fit");

/// The sizes of a class's work in tiles, and where the tiles of keys are.
typedef struct {
    int64_t latent_chunks, chunks, value_chunks;
    int64_t blocks;      // of keys
    int64_t kept_chunks; // pairs of tiles at `keys`: those of all chunks of a block, or few
    int64_t kept_blocks; // pairs of tiles at `values`: those of all blocks of a part in a chunk, or few
    char *keys, *values;
} braid_attention_tiles;

static braid_attention_tiles attention_tiles(const braid_attention_row *w, int64_t count) {
    const int64_t dimensions = BRAID_TILE_DIMENSIONS;
    const bool has_few_heads = w->heads <= 16 * BRAID_FEW_TILES;
    braid_attention_tiles t = {.latent_chunks = (w->p->latent.width + dimensions - 1) / dimensions};
    t.chunks = t.latent_chunks + (w->p->rope.width + dimensions - 1) / dimensions;
    t.value_chunks = w->p->rotary_values ? t.chunks : t.latent_chunks;
    t.blocks = (count + BRAID_TILE_KEYS - 1) / BRAID_TILE_KEYS;
    t.kept_chunks = has_few_heads ? BRAID_RING : t.chunks;
    t.kept_blocks = has_few_heads ? BRAID_RING : BRAID_PART_BLOCKS;
    t.keys = (char *)w->keys;
    t.values = t.keys + t.kept_chunks * BRAID_PAIR_BYTES;
    return t;
}

/// Packs the row's queries as B tiles, [heads / 16][chunks].
static void pack_attention_queries(const braid_attention_row *w, const braid_attention_tiles *t) {
    const int64_t latent = w->p->latent.width, rope = w->p->rope.width;
    char *to = (char *)w->queries;
    for (int64_t h = 0; h < w->heads; h += 16)
        for (int64_t c = 0; c < t->chunks; c++, to += BRAID_TILE_BYTES) {
            const int64_t d = BRAID_TILE_DIMENSIONS * (c < t->latent_chunks ? c : c - t->latent_chunks);
            const int64_t at = c < t->latent_chunks ? d : latent + d, n = (c < t->latent_chunks ? latent : rope) - d;
            u16 v[16];
            for (int64_t l = 0; l < 16; l++)
                v[l] = h + l < w->heads ? load_pairs(w->q + (h + l) * (latent + rope) + at, n) : (u16)splat(0);
            transpose16(v);
            memcpy(to, v, sizeof v);
        }
}

/// Computes the dot products of the block of `count` keys from `begin` on with `tiles` tiles of heads, one or two. The
/// block's tiles are filled meanwhile if `fills`. A tile's scores are `stride` floats after those of the one before,
/// [keys][16 heads]. `tiles` and `fills` are constants where this is inlined.
BRAID_INLINE void score_block_tiles(
    int tiles, bool fills, braid_attention_row *w, const braid_attention_tiles *t, int64_t begin, int64_t count,
    const char *queries, float *e, int64_t stride
) {
    const int64_t chunks = t->chunks;
    int64_t slot = 0, next = 0;
    zero_tiles(2 * tiles);
    for (int64_t i = fills ? -BRAID_STEPS_AHEAD : 0; i < chunks; i++) {
        if (fills && i + BRAID_STEPS_AHEAD < chunks) {
            const braid_key_chunk chunk = chunk_at(w, t->latent_chunks, i + BRAID_STEPS_AHEAD);
            gather_rows(&chunk, w->entries + begin, count, t->keys + next * BRAID_PAIR_BYTES);
            if (++next == t->kept_chunks) next = 0;
        }
        if (fills || i % 2) fetch_ahead(w, begin, fills && tiles == 1 ? 2 : 1);
        if (i < 0) continue;
        const char *keys = t->keys + slot * BRAID_PAIR_BYTES;
        if (++slot == t->kept_chunks) slot = 0;
        _tile_loadd(4, keys, 64);
        _tile_stream_loadd(6, queries + i * BRAID_TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, keys + BRAID_TILE_BYTES, 64);
        _tile_dpbf16ps(1, 5, 6);
        if (tiles < 2) continue;
        _tile_stream_loadd(7, queries + (chunks + i) * BRAID_TILE_BYTES, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, e, 64);
    _tile_stored(1, e + 256, 64);
    if (tiles < 2) return;
    _tile_stored(2, e + stride, 64);
    _tile_stored(3, e + stride + 256, 64);
}

/// Writes the dot products of `tiles` tiles of heads from `first` on with the keys `begin ..< begin + count` as
/// [tiles][blocks][32 keys][16 heads] into e.
static void score_class(
    braid_attention_row *w, const braid_attention_tiles *t, int64_t first, int64_t tiles, int64_t begin, int64_t count
) {
    const int64_t stride = t->blocks * BRAID_BLOCK_FLOATS;
    const char *queries = (const char *)w->queries + first * t->chunks * BRAID_TILE_BYTES;
    for (int64_t b = 0; b < t->blocks; b++) {
        float *e = w->e + b * BRAID_BLOCK_FLOATS;
        const int64_t from = begin + b * BRAID_TILE_KEYS, keys = at_most(begin + count - from, BRAID_TILE_KEYS);
        for (int64_t i = 0; i < tiles; i += 2, e += 2 * stride) {
            const char *x = queries + i * t->chunks * BRAID_TILE_BYTES;
            if (i == 0 && tiles == 1) score_block_tiles(1, true, w, t, from, keys, x, e, stride);
            else if (i == 0) score_block_tiles(2, true, w, t, from, keys, x, e, stride);
            else if (i + 1 == tiles) score_block_tiles(1, false, w, t, from, keys, x, e, stride);
            else score_block_tiles(2, false, w, t, from, keys, x, e, stride);
        }
    }
}

/// Computes exp16 of lanes that are not positive, or NaN: then the power of two needs no two steps.
BRAID_INLINE f16 exp_of_difference(f16 x) {
    const __mmask16 keeps = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-87.33f), _CMP_NLT_UQ);
    BRAID_EXP_BODY(f16, i16, fma16, splat, 0)
    return (f16)_mm512_maskz_scalef_ps(keeps, (__m512)p, (__m512)n);
}

/// Replaces a block of dot products, `count` of which exist, by their exponentials rounded to BF16, as the A tile of
/// sixteen heads, and adds the exponentials to `sums`.
BRAID_INLINE void exponentials_of_block(float *e, int64_t count, f16 scale, f16 maximum, f16 sums[16]) {
    static const uint16_t in_pairs[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    u16 pairs[16];
    for (int i = 0; i < 16; i++) {
        f16 v[2];
        BRAID_UNROLL for (int j = 0; j < 2; j++) {
            v[j] = exp_of_difference(load16(e + (2 * i + j) * 16) * scale - maximum);
            if (2 * i + j >= count) v[j] = splat(0);
            sums[(2 * i + j) % 16] = sums[(2 * i + j) % 16] + v[j];
        }
        pairs[i] = (u16)_mm512_permutexvar_epi16(_mm512_load_si512(in_pairs), (__m512i)bf16_pairs(v[0], v[1]));
    }
    transpose16(pairs);
    memcpy(e, pairs, sizeof pairs);
}

/// Returns the largest products with `scale` of `count` dot products of each of sixteen heads. NaN are ignored.
BRAID_INLINE f16 largest_scores(const float *e, int64_t count, f16 scale) {
    __m512 largest[4];  // so many, because each waits for itself
    for (int i = 0; i < 4; i++) largest[i] = (__m512)splat(-INFINITY);
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        BRAID_UNROLL for (int j = 0; j < 4; j++)  // where the first operand is a NaN, the second one is taken
            largest[j] = _mm512_max_ps((__m512)(load16(e + (i + j) * 16) * scale), largest[j]);
    for (; i < count; i++) largest[0] = _mm512_max_ps((__m512)(load16(e + i * 16) * scale), largest[0]);
    return (f16)_mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3]));
}

/// Replaces the dot products of sixteen heads by A tiles of exponentials, and sets the heads' factors and logs.
static void softmax_of_tile(float *e, int64_t count, float by, f16 *factor, f16 *lse) {
    const f16 scale = splat(by), maximum = largest_scores(e, count, scale);
    f16 sums[16];
    for (int i = 0; i < 16; i++) sums[i] = splat(0);
    for (; count >= BRAID_TILE_KEYS; count -= BRAID_TILE_KEYS, e += BRAID_BLOCK_FLOATS)
        exponentials_of_block(e, BRAID_TILE_KEYS, scale, maximum, sums);
    if (count > 0) exponentials_of_block(e, count, scale, maximum, sums);
    BRAID_UNROLL for (int step = 8; step > 0; step /= 2)
        BRAID_UNROLL for (int i = 0; i < step; i++) sums[i] = sums[i] + sums[i + step];
    *factor = splat(1) / sums[0];
    *lse = maximum + log16(sums[0]);
}

/// Multiplies `count` heads' sums over a chunk of values by their factors, and writes `n` dimensions of each.
static void finish_values(
    const float *sums, const float *factor, int64_t count, int64_t n, float *out, int64_t stride
) {
    for (int64_t h = 0; h < count; h++, out += stride) {
        const f16 even = load16(sums + 16 * h), odd = load16(sums + 256 + 16 * h), by = splat(factor[h]);
        const f16 low = by * __builtin_shufflevector(even, odd, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const f16 high = by * __builtin_shufflevector(
            even, odd, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
        if (n >= 32) {
            store16(out, low);
            store16(out + 16, high);
        } else {
            store_some(out, low, lanes_left(n));
            store_some(out + 16, high, lanes_left(n - 16));
        }
    }
}

/// A part of a class's blocks, and a chunk of its values.
typedef struct {
    int64_t begin, count;    // keys of the row
    int64_t from, blocks;    // blocks of the class
    int64_t index;           // of the chunk
    braid_key_chunk chunk;
} braid_value_part;

/// Adds a part of the values to the sums of `tiles` tiles of heads, one or two. The part's tiles are filled meanwhile
/// if `fills`. The sums are [tiles][first, second tile of a pair][16 heads][16]. `tiles` and `fills` are constants.
BRAID_INLINE void add_value_tiles(
    int tiles, bool fills, braid_attention_row *w, const braid_attention_tiles *t, const braid_value_part *part,
    const float *e, float *sums
) {
    const int64_t stride = t->blocks * BRAID_BLOCK_FLOATS;
    int64_t slot = 0, next = 0;
    if (part->from == 0) zero_tiles(2 * tiles);
    else load_tiles(2 * tiles, sums);
    for (int64_t b = fills ? -BRAID_STEPS_AHEAD : 0; b < part->blocks; b++) {
        if (fills && b + BRAID_STEPS_AHEAD < part->blocks) {
            const int64_t key = (b + BRAID_STEPS_AHEAD) * BRAID_TILE_KEYS;
            const int64_t keys = at_most(part->count - key, BRAID_TILE_KEYS);
            gather_pairs(&part->chunk, w->entries + part->begin + key, keys, t->values + next * BRAID_PAIR_BYTES);
            if (++next == t->kept_blocks) next = 0;
            fetch_ahead(w, part->begin + part->count, 1);
        }
        if (b < 0) continue;
        const char *values = t->values + slot * BRAID_PAIR_BYTES;
        if (++slot == t->kept_blocks) slot = 0;
        _tile_stream_loadd(4, e + b * BRAID_BLOCK_FLOATS, 64);
        _tile_loadd(6, values, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, values + BRAID_TILE_BYTES, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (tiles < 2) continue;
        _tile_stream_loadd(5, e + stride + b * BRAID_BLOCK_FLOATS, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    store_tiles(2 * tiles, sums);
}

/// Adds a part of a chunk of the values to the weighted sums of `heads` heads, and writes the results after the last
/// part.
static void sum_part_on_tiles(
    braid_attention_row *w, const braid_attention_tiles *t, int64_t heads, const braid_value_part *part, float *out
) {
    const int64_t stride = t->blocks * BRAID_BLOCK_FLOATS, tiles = (heads + 15) / 16;
    const bool is_last = part->from + part->blocks == t->blocks, is_whole = part->blocks == t->blocks;
    float own[4 * 256] __attribute__((aligned(64)));
    out += (part->chunk.rotary ? w->p->latent.width : 0) + part->chunk.from;
    for (int64_t i = 0; i < tiles; i += 2) {
        const float *e = w->e + i * stride + part->from * BRAID_BLOCK_FLOATS;
        float *sums = is_whole ? own : w->sums + (part->index * tiles + i) * 512;
        if (i == 0 && tiles == 1) add_value_tiles(1, true, w, t, part, e, sums);
        else if (i == 0) add_value_tiles(2, true, w, t, part, e, sums);
        else if (i + 1 == tiles) add_value_tiles(1, false, w, t, part, e, sums);
        else add_value_tiles(2, false, w, t, part, e, sums);
        for (int64_t j = i; is_last && j < at_most(i + 2, tiles); j++)
            finish_values(
                sums + (j - i) * 512, w->factor + 16 * j, at_most(heads - 16 * j, 16), part->chunk.n,
                out + 16 * j * w->value_width, w->value_width);
    }
}

/// Computes the weighted sums of `heads` heads over the keys `begin ..< begin + count`, in parts that stay in the
/// second-level cache.
static void sum_tiles(
    braid_attention_row *w, const braid_attention_tiles *t, int64_t heads, int64_t begin, int64_t count, float *out
) {
    const int64_t parts = (t->blocks + BRAID_PART_BLOCKS - 1) / BRAID_PART_BLOCKS;
    braid_value_part part = {.from = 0};
    for (int64_t i = 0; i < parts; i++, part.from += part.blocks) {
        part.blocks = t->blocks * (i + 1) / parts - part.from;
        part.begin = begin + part.from * BRAID_TILE_KEYS;
        part.count = at_most(begin + count - part.begin, part.blocks * BRAID_TILE_KEYS);
        if (parts > 1) w->fetched = part.begin + part.count;  // the scores' pass is too long ago
        for (part.index = 0; part.index < t->value_chunks; part.index++) {
            part.chunk = chunk_at(w, t->latent_chunks, part.index);
            sum_part_on_tiles(w, t, heads, &part, out);
        }
    }
}

/// Computes attention of all heads over the keys of the class at a place, which are not none.
static void attend_class_on_tiles(braid_attention_row *w, int64_t place, float *out, float *lse) {
    const int64_t begin = w->begin[place], count = w->begin[place + 1] - begin;
    const braid_attention_tiles t = attention_tiles(w, count);
    // Selected keys may all be of one class; then there may be space for the scores of fewer heads at a time.
    const int64_t all = (w->heads + 15) / 16, group = at_most(all, w->e_size / (t.blocks * BRAID_BLOCK_FLOATS));
    if (!w->packed) {
        w->fetched = 0;
        fetch_ahead(w, 0, BRAID_TILE_KEYS);
        pack_attention_queries(w, &t);
        w->packed = w->heads;
    }
    for (int64_t first = 0; first < all; first += group) {
        const int64_t tiles = at_most(group, all - first), heads = at_most(w->heads - 16 * first, 16 * tiles);
        score_class(w, &t, first, tiles, begin, count);
        for (int64_t i = 0; i < tiles; i++) {
            f16 factor, logs;
            softmax_of_tile(w->e + i * t.blocks * BRAID_BLOCK_FLOATS, count, w->p->scale, &factor, &logs);
            store16(w->factor + 16 * i, factor);
            store_some(lse + 16 * (first + i), logs, lanes_left(heads - 16 * i));
        }
        sum_tiles(w, &t, heads, begin, count, out + 16 * first * w->value_width);
    }
}

static void tiles_attention(const braid_attention *p) {
    if (p->profile == BRAID_PROFILE_F32) return attention(p);
    begin_tiles();
    attend_rows(p, false, attend_class_on_tiles);
    end_tiles();
}
