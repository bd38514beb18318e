// Tiles of cached keys, widened to BF16: sixteen keys as an A tile, or sixteen pairs of keys as B tiles. Only the AMX
// level includes this.
#pragma once

#include "attention_row.h"
#include "tiles.h"

#define BRAID_TILE_KEYS 32        // keys that are brought together: two A tiles, or a pair of B tiles
#define BRAID_TILE_DIMENSIONS 32  // dimensions of a chunk
#define BRAID_BYTES_AHEAD (96 * 1024)  // of keys that are prefetched
#define BRAID_PAIR_BYTES (2 * BRAID_TILE_BYTES)

/// A chunk of dimensions: `n` elements, 32 at most, of a lane from `from` on.
typedef struct {
    const braid_lane *lane;
    const char *data;
    int64_t bytes;       // of an entry
    bool rotary;
    int64_t from, n;
    int64_t scale_at;    // byte offset of the scale in an FP8 entry
    bool is_whole;       // has 32 elements, of one scale
} braid_key_chunk;

/// Returns the chunk of dimensions `index`, of which the latent part has `latent_chunks`.
BRAID_INLINE braid_key_chunk chunk_at(const braid_attention_row *w, int64_t latent_chunks, int64_t index) {
    const bool rotary = index >= latent_chunks;
    const braid_lane *lane = rotary ? &w->p->rope : &w->p->latent;
    braid_key_chunk c = {.lane = lane, .data = lane->data, .rotary = rotary};
    c.bytes = rotary ? w->rope_bytes : w->latent_bytes;
    c.from = BRAID_TILE_DIMENSIONS * (rotary ? index - latent_chunks : index);
    c.n = at_most(lane->width - c.from, BRAID_TILE_DIMENSIONS);
    c.is_whole = c.n == BRAID_TILE_DIMENSIONS;
    if (lane->dtype != BRAID_FP8) return c;
    const int64_t group = c.from / lane->group;
    c.scale_at = scale_offset(lane, group);
    c.is_whole = c.is_whole && c.from + c.n <= (group + 1) * lane->group;
    return c;
}

/// Widens 32 E4M3 bytes and multiplies them by `scale`, rounded to BF16. The products of the significands are looked
/// up: first those of subnormal numbers, then those of normal ones with the exponent field 0, to which the exponent is
/// added. So `scale` must be one that `keeps_exponents`.
BRAID_INLINE u16 scale_32_fp8(const char *from, float scale) {
    static const float significands[16] __attribute__((aligned(64))) = {
        0, 0x1p-9f, 0x2p-9f, 0x3p-9f, 0x4p-9f, 0x5p-9f, 0x6p-9f, 0x7p-9f,
        0x8p-10f, 0x9p-10f, 0xap-10f, 0xbp-10f, 0xcp-10f, 0xdp-10f, 0xep-10f, 0xfp-10f};
    const __m512i v = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
    const __m512i products = _mm512_castsi256_si512(
        (__m256i)_mm512_cvtneps_pbh((__m512)(load16(significands) * splat(scale))));
    // The index is the low five bits: the mantissa, and two bits of the exponent, which is why there are four copies.
    const __m512i normal = _mm512_permutexvar_epi16(v, _mm512_shuffle_i32x4(products, products, 0x55));
    const __mmask32 is_subnormal = _mm512_testn_epi16_mask(v, _mm512_set1_epi16(0x78));
    const __m512i product = _mm512_mask_permutexvar_epi16(normal, is_subnormal, v, products);
    const __m512i others = _mm512_and_si512(_mm512_slli_epi16(v, 4), _mm512_set1_epi16((short)0x8780));
    const __mmask32 is_nan = _mm512_cmpeq_epi16_mask(
        _mm512_and_si512(v, _mm512_set1_epi16(0x7F)), _mm512_set1_epi16(0x7F));
    return (u16)_mm512_mask_mov_epi16(_mm512_add_epi16(product, others), is_nan, _mm512_set1_epi16(0x7FC0));
}

/// Returns whether products of a scale with any E4M3 number are zeros or normal numbers of BF16.
BRAID_INLINE bool keeps_exponents(float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    return (bits >> 23 & 0xFF) - 27 < 200;
}

BRAID_FLUSHING u16 some_elements_flushed(const braid_key_chunk *c, const char *entry) {
    float some[BRAID_TILE_DIMENSIONS] __attribute__((aligned(64))) = {0};
    widen_lane(c->lane, entry, c->from, c->n, some);
    return load_pairs(some, BRAID_TILE_DIMENSIONS);
}

/// Returns a chunk of a stored key, rounded to BF16, with zeros beyond its last element.
static __attribute__((noinline)) u16 some_elements(const braid_key_chunk *c, const char *entry) {
    const unsigned before = begin_flushing();
    const u16 v = some_elements_flushed(c, entry);
    end_flushing(before);
    return v;
}

/// Returns a chunk of a stored key, rounded to BF16. `dtype` and `is_whole` are constants where this is inlined.
BRAID_INLINE u16 key_elements(braid_dtype dtype, bool is_whole, const braid_key_chunk *c, const char *entry) {
    u16 v;
    if (!is_whole) return some_elements(c, entry);
    if (dtype == BRAID_F32) return load_pairs((const float *)entry + c->from, BRAID_TILE_DIMENSIONS);
    if (dtype == BRAID_BF16) {
        memcpy(&v, entry + c->from * 2, sizeof v);
        return v;
    }
    const float scale = stored_scale(c->lane->scale_type, entry + c->scale_at, 0);
    return keeps_exponents(scale) ? scale_32_fp8(entry + c->from, scale) : some_elements(c, entry);
}

/// Calls `call(dtype, is_whole, ...)` with the constants of a chunk.
#define BRAID_FOR_CHUNK(c, call, ...)                                              \
    if (!(c)->is_whole) call(BRAID_F32, false, __VA_ARGS__);                       \
    else if ((c)->lane->dtype == BRAID_F32) call(BRAID_F32, true, __VA_ARGS__);    \
    else if ((c)->lane->dtype == BRAID_BF16) call(BRAID_BF16, true, __VA_ARGS__);  \
    else call(BRAID_FP8, true, __VA_ARGS__);

/// Fills two A tiles with a chunk of 32 keys, of which the first `count` exist. Missing keys are zeros.
BRAID_INLINE void gather_rows_of(
    braid_dtype dtype, bool is_whole, const braid_key_chunk *c, const int64_t *entries, int64_t count, char *to
) {
    for (int64_t i = 0; i < count; i++) {
        const u16 v = key_elements(dtype, is_whole, c, c->data + entries[i] * c->bytes);
        memcpy(to + 64 * i, &v, sizeof v);
    }
    memset(to + 64 * count, 0, (size_t)(BRAID_TILE_KEYS - count) * 64);
}

static void gather_rows(const braid_key_chunk *c, const int64_t *entries, int64_t count, char *to) {
    if (count == BRAID_TILE_KEYS) {  // a constant, too
        BRAID_FOR_CHUNK(c, gather_rows_of, c, entries, BRAID_TILE_KEYS, to)
    } else {
        BRAID_FOR_CHUNK(c, gather_rows_of, c, entries, count, to)
    }
}

/// Fills two B tiles with a chunk of 32 keys, of which the first `count` exist. A row has words of two keys in turn: in
/// the first tile those of the lower halves of every 128 bits, in the second the others. Missing keys are zeros.
BRAID_INLINE void gather_pairs_of(
    braid_dtype dtype, bool is_whole, const braid_key_chunk *c, const int64_t *entries, int64_t count, char *to
) {
    for (int64_t i = 0; i < BRAID_TILE_KEYS; i += 2, to += 64) {
        __m512i v[2];
        BRAID_UNROLL for (int j = 0; j < 2; j++)
            v[j] = i + j < count ? (__m512i)key_elements(dtype, is_whole, c, c->data + entries[i + j] * c->bytes)
                                 : _mm512_setzero_si512();
        _mm512_store_si512(to, _mm512_unpacklo_epi16(v[0], v[1]));
        _mm512_store_si512(to + BRAID_TILE_BYTES, _mm512_unpackhi_epi16(v[0], v[1]));
    }
}

static void gather_pairs(const braid_key_chunk *c, const int64_t *entries, int64_t count, char *to) {
    if (count == BRAID_TILE_KEYS) {  // a constant, too
        BRAID_FOR_CHUNK(c, gather_pairs_of, c, entries, BRAID_TILE_KEYS, to)
    } else {
        BRAID_FOR_CHUNK(c, gather_pairs_of, c, entries, count, to)
    }
}

/// Prefetches up to `n` of the keys that come next, if they are not too far from the key `at`. With few heads, most of
/// the time goes into fetching keys, so that memory must never be idle: every phase of the work prefetches some.
BRAID_INLINE void fetch_ahead(braid_attention_row *w, int64_t at, int64_t n) {
    const int64_t end = at_most(w->begin[8], at + BRAID_BYTES_AHEAD / (w->latent_bytes + w->rope_bytes));
    for (; n > 0 && w->fetched < end; n--, w->fetched++) {
        fetch_entry(&w->p->latent, latent_of(w, w->fetched));
        fetch_entry(&w->p->rope, rope_of(w, w->fetched));
    }
}
