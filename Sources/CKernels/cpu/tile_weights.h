// Weights as tiles: sixteen rows of them, widened to BF16, or pairs of the rows of transposed weights.
#pragma once

#include "matmul_parts.h"
#include "tiles.h"

#define BRAID_TILE_K 32       // terms of a tile, a block of the sum
#define BRAID_STRIP_TILES 4   // tiles of weights widened together, one strip before they are multiplied
#define BRAID_STRIP_K (BRAID_TILE_K * BRAID_STRIP_TILES)

/// Returns how many bytes behind term `k` of a row to prefetch: behind the last term, the next sixteen rows begin.
BRAID_INLINE int64_t bytes_ahead(const braid_matmul *p, int64_t k) {
    const int64_t bits = bits_of(p->w.dtype), bytes = p->k * bits / 8;
    return k * bits / 8 + BRAID_AHEAD < bytes ? BRAID_AHEAD : BRAID_AHEAD + 16 * p->w.stride * bits / 8 - bytes;
}

/// The products of every magnitude of E4M3 with one scale, rounded to BF16: the high and the low byte of each.
typedef struct {
    __m512i high[2], low[2];
    float scale;
    bool is_filled;
} braid_scaled_codes;

BRAID_INLINE __m512i of_quarters(const __m128i quarters[4]) {
    // In registers: a load behind narrower stores would wait for them.
    __m512i v = _mm512_castsi128_si512(quarters[0]);
    v = _mm512_inserti32x4(v, quarters[1], 1);
    v = _mm512_inserti32x4(v, quarters[2], 2);
    return _mm512_inserti32x4(v, quarters[3], 3);
}

static void fill_codes(braid_scaled_codes *codes, float scale) {
    if (codes->is_filled && memcmp(&codes->scale, &scale, sizeof scale) == 0) return;
    for (int half = 0; half < 2; half++) {
        __m128i low[4], high[4];
        BRAID_UNROLL for (int i = 0; i < 4; i++) {
            u16 bits = (u16)round_bf16(widen_bf16(e4m3_as_bf16 + 64 * half + 16 * i) * splat(scale));
            low[i] = _mm512_cvtepi32_epi8((__m512i)(bits >> 16));
            high[i] = _mm512_cvtepi32_epi8((__m512i)(bits >> 24));
        }
        codes->low[half] = of_quarters(low);
        codes->high[half] = of_quarters(high);
    }
    codes->scale = scale;
    codes->is_filled = true;
}

/// Widens 64 E4M3 bytes to BF16.
BRAID_INLINE void widen_64_codes(const braid_scaled_codes *codes, const char *from, __m512i out[2]) {
    // The unpacking below takes halves of 128-bit lanes.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    __m512i v = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(from));
    __m512i low = _mm512_permutex2var_epi8(codes->low[0], v, codes->low[1]);
    __m512i high = _mm512_permutex2var_epi8(codes->high[0], v, codes->high[1]);
    high = _mm512_xor_si512(high, _mm512_and_si512(v, _mm512_set1_epi8((char)0x80)));
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
}

#define BRAID_E2M1_AS_BF16 0, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0

/// Widens 32 E2M1 numbers, whose scale is the E8M0 byte `scale`, to BF16.
BRAID_INLINE u16 widen_32_fp4(const char *from, uint8_t scale) {
    static const uint16_t values[32] __attribute__((aligned(64))) = {
        BRAID_E2M1_AS_BF16, BRAID_E2M1_AS_BF16, BRAID_E2M1_AS_BF16, BRAID_E2M1_AS_BF16};
    b16 bytes;
    memcpy(&bytes, from, sizeof bytes);
    u16 v = __builtin_convertvector(bytes, u16);
    u16 codes = (v | v << 12) & 0xF000Fu, sign = codes << 12 & 0x80008000u;
    __m512i value = _mm512_permutexvar_epi16((__m512i)codes, _mm512_load_si512(values));
    // The exponent moves, except that of a zero.
    __m512i moved = _mm512_add_epi16(value, _mm512_set1_epi16((short)((scale - 127) * 128)));
    return (u16)_mm512_maskz_mov_epi16(_mm512_test_epi16_mask(value, value), moved) | sign;
}

/// Widens `count` of 32 numbers of a row from term `k` on, whatever their scales, and fills with zeros.
static u16 widen_terms(const braid_weight *w, int64_t row, int64_t k, int64_t count) {
    float terms[32] __attribute__((aligned(64))) = {0};
    for (int64_t i = 0, n; i < count; i += n) {
        f16 v = widen_some(w, row, k + i, k + count, &n);
        store_some(terms + i, v, n);
    }
    return load_pairs(terms, 32);
}

/// Returns whether `count` columns from `k` on are in one block of scales.
BRAID_INLINE bool is_one_block(const braid_weight *w, int64_t k, int64_t count) {
    return (w->column + k) >> w->column_shift == (w->column + k + count - 1) >> w->column_shift;
}

/// Returns whether sixteen rows from `n` on have one and the same scale for a strip's terms from `k` on.
BRAID_INLINE bool has_one_scale(const braid_weight *w, int64_t n, int64_t k) {
    return (w->row + n) >> w->row_shift == (w->row + n + 15) >> w->row_shift && is_one_block(w, k, BRAID_STRIP_K);
}

/// Widens the 32 terms at `from`, which have one scale or none.
BRAID_INLINE u16 widen_even_terms(braid_dtype dtype, const char *from, float scale) {
    if (dtype == BRAID_BF16) {
        u16 terms;
        memcpy(&terms, from, sizeof terms);
        return terms;
    }
    return bf16_pairs(
        widen_row(dtype, from, 16, splat(scale)), widen_row(dtype, from + 16 * bytes_of(dtype), 16, splat(scale)));
}

/// Widens a strip of a row of FP4 weights, four tiles' rows, if its scales are in the range in which exponents can be
/// moved; otherwise returns false.
BRAID_INLINE bool widen_fp4_terms(const char *from, const uint8_t *scales, char *to) {
    uint32_t four;
    memcpy(&four, scales, sizeof four);
    // The exponents of 0.5 to 6, moved by each byte less 127, must be those of normal numbers.
    const __m128i bytes = _mm_cvtsi32_si128((int)four);
    const __m128i bounded = _mm_min_epu8(_mm_max_epu8(bytes, _mm_set1_epi8(2)), _mm_set1_epi8((char)252));
    if (_mm_cvtsi128_si32(bounded) != (int)four) return false;
    BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++) {
        u16 terms = widen_32_fp4(from + 16 * t, scales[t]);
        memcpy(to + t * BRAID_TILE_BYTES, &terms, 64);
    }
    return true;
}

/// Fills `to` with the A tiles of sixteen rows from `n` on, of which `lanes` exist, and `count` terms from `k` on,
/// fewer than a strip or with scales of any kind. Missing rows and terms are zeros.
static void widen_any_strip(const braid_matmul *p, int64_t n, int64_t lanes, int64_t k, int64_t count, char *to) {
    const braid_weight *w = &p->w;
    for (int64_t l = 0; l < 16; l++)
        for (int t = 0; t < BRAID_STRIP_TILES; t++) {
            const int64_t own = at_most(count - BRAID_TILE_K * t, BRAID_TILE_K), first = k + BRAID_TILE_K * t;
            u16 terms = (u16)splat(0);
            if (l < lanes && own == BRAID_TILE_K && w->dtype != BRAID_FP4 && (!w->scale || is_one_block(w, first, own)))
                terms = widen_even_terms(
                    w->dtype, weight_bytes(w, n + l, first), w->scale ? scale_at(w, n + l, first) : 0);
            else if (l < lanes && own > 0) terms = widen_terms(w, n + l, first, own);
            memcpy(to + t * BRAID_TILE_BYTES + 64 * l, &terms, 64);
        }
}

/// Fills `to` with the A tiles of a whole strip of sixteen rows from `n` on, each of which has one scale or none.
/// `dtype` is a constant.
BRAID_INLINE void widen_even_rows(const braid_matmul *p, braid_dtype dtype, int64_t n, int64_t k, char *to) {
    const braid_weight *w = &p->w;
    const int64_t ahead = bytes_ahead(p, k);
    const int64_t stride = w->stride * bytes_of(dtype), step = BRAID_TILE_K * bytes_of(dtype);
    const char *from = weight_bytes(w, n, k);
    for (int64_t l = 0; l < 16; l++, from += stride) {
        const float scale = w->scale ? scale_at(w, n + l, k) : 0;
        BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++) {
            if (t * step % 64 == 0) __builtin_prefetch(from + t * step + ahead, 0, 3);
            u16 terms = widen_even_terms(dtype, from + t * step, scale);
            memcpy(to + t * BRAID_TILE_BYTES + 64 * l, &terms, 64);
        }
    }
}

/// Fills `to` with the A tiles of sixteen rows from `n` on, of which `lanes` exist, and `count` terms from `k` on, a
/// strip at most. Missing rows and terms are zeros.
static void widen_strip(
    const braid_matmul *p, braid_scaled_codes *codes, int64_t n, int64_t lanes, int64_t k, int64_t count, char *to
) {
    const braid_weight *w = &p->w;
    const int64_t stride = w->stride * bits_of(w->dtype) / 8, ahead = bytes_ahead(p, k);
    const char *from = weight_bytes(w, n, k);
    if (lanes < 16 || count < BRAID_STRIP_K) return widen_any_strip(p, n, lanes, k, count, to);
    if (w->dtype == BRAID_FP8 && has_one_scale(w, n, k)) {
        fill_codes(codes, scale_at(w, n, k));
        for (int64_t l = 0; l < 16; l++, from += stride) {
            __m512i terms[BRAID_STRIP_TILES];
            __builtin_prefetch(from + ahead, 0, 3);
            __builtin_prefetch(from + ahead + 64, 0, 3);
            widen_64_codes(codes, from, terms);
            widen_64_codes(codes, from + 64, terms + 2);
            BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++)
                _mm512_store_si512(to + t * BRAID_TILE_BYTES + 64 * l, terms[t]);
        }
    } else if (w->dtype == BRAID_FP4 && begins_chunk(w, k, k + count)) {
        const uint8_t *scales = (const uint8_t *)w->scale + (w->row + n) * w->scale_stride
            + (w->column + k) / BRAID_TILE_K;
        for (int64_t l = 0; l < 16; l++, from += stride, scales += w->scale_stride) {
            __builtin_prefetch(from + ahead, 0, 3);
            if (!widen_fp4_terms(from, scales, to + 64 * l)) return widen_any_strip(p, n, lanes, k, count, to);
        }
    } else if (w->dtype != BRAID_FP4 && (!w->scale || is_one_block(w, k, BRAID_STRIP_K))) {
        switch (w->dtype) {
        case BRAID_F32: return widen_even_rows(p, BRAID_F32, n, k, to);
        case BRAID_BF16: return widen_even_rows(p, BRAID_BF16, n, k, to);
        case BRAID_FP8: return widen_even_rows(p, BRAID_FP8, n, k, to);
        default: return widen_even_rows(p, BRAID_INT8, n, k, to);
        }
    } else {
        widen_any_strip(p, n, lanes, k, count, to);
    }
}

/// Fills a row of each of four B tiles at `to` with weights [k, n] of terms `k` and `k + 1`, of which `terms` exist, and 64
/// outputs from `n` on, as pairs of terms.
BRAID_INLINE void widen_pairs(
    const braid_matmul *p, const braid_scaled_codes *codes, int64_t k, int64_t terms, int64_t n, char *to
) {
    const braid_weight *w = &p->w;
    const int64_t stride = w->stride * bits_of(w->dtype) / 8;
    const char *from = weight_bytes(w, k, n);
    __m512i a[2], b[2] = {(__m512i)splat(0), (__m512i)splat(0)};
    const bool is_whole = terms == 2 && p->n - n >= 64;
    if (is_whole && (codes || w->dtype == BRAID_BF16)) {
        static const uint16_t pairs[32] __attribute__((aligned(64))) = {
            0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
        const __m512i lower = _mm512_load_si512(pairs), upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
        if (codes) {
            widen_64_codes(codes, from, a);
            widen_64_codes(codes, from + stride, b);
        } else {
            for (int i = 0; i < 2; i++) {
                a[i] = _mm512_loadu_si512(from + 64 * i);
                b[i] = _mm512_loadu_si512(from + stride + 64 * i);
            }
        }
        BRAID_UNROLL for (int i = 0; i < 2; i++) {
            _mm512_store_si512(to + 2 * i * BRAID_TILE_BYTES, _mm512_permutex2var_epi16(a[i], lower, b[i]));
            _mm512_store_si512(to + (2 * i + 1) * BRAID_TILE_BYTES, _mm512_permutex2var_epi16(a[i], upper, b[i]));
        }
        return;
    }
    for (int64_t t = 0; t < 4; t++, to += BRAID_TILE_BYTES) {
        const int64_t lanes = lanes_left(p->n - n - 16 * t);
        u16 both = (u16)splat(0);
        for (int64_t i = 0; i < terms && lanes > 0; i++) {
            int64_t end = p->k;
            f16 scale = scales_at(p, n + 16 * t, lanes, k + i, &end);
            const char *data = weight_bytes(w, k + i, n + 16 * t);
            f16 v = w->dtype == BRAID_FP4 ? widen_fp4_row(data, is_high(w, n + 16 * t), lanes, scale)
                                          : widen_row(w->dtype, data, lanes, scale);
            u16 bits = (u16)round_bf16(v);
            both |= i == 0 ? bits >> 16 : bits;
        }
        memcpy(to, &both, 64);
    }
}

/// Fills `to` with the B tiles of 64 outputs from `n` on of transposed weights: [count / 32][4].
static void widen_transposed(
    const braid_matmul *p, braid_scaled_codes *codes, int64_t n, int64_t k, int64_t count, char *to
) {
    const braid_weight *w = &p->w;
    for (int64_t i = 0; i < count; i += BRAID_TILE_K, to += 4 * BRAID_TILE_BYTES) {
        const int64_t row = w->row + k + i, column = w->column + n;
        const bool one_scale = w->dtype == BRAID_FP8 && p->n - n >= 64
            && row >> w->row_shift == (row + 31) >> w->row_shift
            && column >> w->column_shift == (column + 63) >> w->column_shift;
        if (one_scale) fill_codes(codes, scale_at(w, k + i, n));
        for (int64_t pair = 0; pair < 16; pair++) {
            const int64_t terms = at_most(count - i - 2 * pair, 2);
            if (terms > 0) widen_pairs(p, one_scale ? codes : 0, k + i + 2 * pair, terms, n, to + 64 * pair);
            else for (int t = 0; t < 4; t++) memset(to + t * BRAID_TILE_BYTES + 64 * pair, 0, 64);
        }
    }
}
