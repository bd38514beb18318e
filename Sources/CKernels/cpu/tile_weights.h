// Weights as tiles: sixteen rows of them, widened to BF16, or pairs of the rows of transposed weights.
#pragma once

#include "matmul_parts.h"
#include "tile_rows.h"

#define BRAID_STRIP_TILES 4   // tiles of weights widened together, one strip before they are multiplied
#define BRAID_STRIP_K (BRAID_TILE_K * BRAID_STRIP_TILES)

/// The products of every magnitude of E4M3 with one scale, rounded to BF16: the high and the low byte of each.
typedef struct {
    __m512i high[2], low[2];
    float scale;
    bool is_filled;
} braid_scaled_codes;

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

#define BRAID_E2M1_AS_BF16                                       \
    0, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0,   \
    0x8000, 0xBF00, 0xBF80, 0xBFC0, 0xC000, 0xC040, 0xC080, 0xC0C0

/// Widens a strip of a row of FP4 weights, four tiles' rows, if its scales are in the range in which exponents can be
/// moved; otherwise returns false.
BRAID_INLINE bool widen_fp4_terms(const char *from, const uint8_t *scales, char *to) {
    // Twice, because the lookup uses five bits of each word: a number's four and one of the next.
    static const uint16_t values[32] __attribute__((aligned(64))) = {BRAID_E2M1_AS_BF16, BRAID_E2M1_AS_BF16};
    const __mmask32 is_not_zero = 0xFEFEFEFE;  // of those values: the exponent of a zero does not move
    uint32_t four;
    memcpy(&four, scales, sizeof four);
    // The exponents of 0.5 to 6, moved by each byte less 127, must be those of normal numbers.
    const __m128i bytes = _mm_cvtsi32_si128((int)four);
    const __m128i bounded = _mm_min_epu8(_mm_max_epu8(bytes, _mm_set1_epi8(2)), _mm_set1_epi8((char)252));
    if (_mm_cvtsi128_si32(bounded) != (int)four) return false;
    const __m128i moves = _mm_slli_epi32(_mm_sub_epi32(_mm_cvtepu8_epi32(bytes), _mm_set1_epi32(127)), 7);
    int32_t moved[BRAID_STRIP_TILES] __attribute__((aligned(16)));
    const __m128i low_words = _mm_and_si128(moves, _mm_set1_epi32(0xFFFF));
    _mm_store_si128((__m128i *)moved, _mm_or_si128(_mm_slli_epi32(moves, 16), low_words));
    const __m512i row = _mm512_loadu_si512(from), table = _mm512_load_si512(values);
    // The bits from each of sixteen numbers on, as words: the lower half from the first eight bytes, the upper from the
    // next.
    const __m512i places = _mm512_broadcast_i64x4(_mm256_setr_epi64x(
        0x000C000800040000, 0x001C001800140010, 0x002C002800240020, 0x003C003800340030));
    BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++) {
        const int64_t q = 2 * t;
        const __m512i halves = _mm512_permutexvar_epi64(_mm512_setr_epi64(q, q, q, q, q + 1, q + 1, q + 1, q + 1), row);
        const __m512i codes = _mm512_multishift_epi64_epi8(places, halves);
        const __m512i scaled = _mm512_mask_add_epi16(table, is_not_zero, table, _mm512_set1_epi32(moved[t]));
        _mm512_store_si512(to + t * BRAID_TILE_BYTES, _mm512_permutexvar_epi16(codes, scaled));
    }
    return true;
}

/// Fills row `l` of the A tiles at `to` with `count` terms of weight row `n` from `k` on, fewer than a strip or with
/// scales of any kind, and with zeros beyond.
static void widen_any_row(const braid_weight *w, int64_t n, int64_t k, int64_t count, int64_t l, char *to) {
    for (int t = 0; t < BRAID_STRIP_TILES; t++) {
        const int64_t own = at_most(count - BRAID_TILE_K * t, BRAID_TILE_K), first = k + BRAID_TILE_K * t;
        u16 terms = (u16)splat(0);
        if (own == BRAID_TILE_K && w->dtype != BRAID_FP4 && (!w->scale || is_one_block(w, first, own)))
            terms = widen_even_terms(w->dtype, weight_bytes(w, n, first), w->scale ? scale_at(w, n, first) : 0);
        else if (own > 0) terms = widen_terms(w, n, first, own);
        memcpy(to + t * BRAID_TILE_BYTES + 64 * l, &terms, 64);
    }
}

/// The ways to widen a strip.
typedef enum {
    BRAID_STRIP_ANY,   // term by term if need be
    BRAID_STRIP_EVEN,  // every row has one scale or none
    BRAID_STRIP_FP8,   // all rows have the same scale
    BRAID_STRIP_FP4,   // a scale for each tile's terms
} braid_strip_kind;

/// Returns the fastest way to widen `count` terms from `k` on of sixteen rows from `n` on, of which `lanes` exist.
BRAID_INLINE braid_strip_kind strip_kind(const braid_weight *w, int64_t n, int64_t lanes, int64_t k, int64_t count) {
    if (lanes < 16 || count < BRAID_STRIP_K) return BRAID_STRIP_ANY;
    if (w->dtype == BRAID_FP4) return begins_chunk(w, k, k + count) ? BRAID_STRIP_FP4 : BRAID_STRIP_ANY;
    if (w->dtype == BRAID_FP8 && has_one_scale(w, n, k)) return BRAID_STRIP_FP8;
    return !w->scale || is_one_block(w, k, BRAID_STRIP_K) ? BRAID_STRIP_EVEN : BRAID_STRIP_ANY;
}

/// Fills rows `first ..< end` of a strip's A tiles with a whole strip of weight rows from `n` on, each of which has one
/// scale or none. `dtype` is a constant.
BRAID_INLINE void widen_even_rows(
    const braid_weight *w, braid_dtype dtype, int64_t n, int64_t k, int64_t ahead, int64_t first, int64_t end, char *to
) {
    const int64_t step = BRAID_TILE_K * bytes_of(dtype);
    for (int64_t l = first; l < end; l++) {
        const char *from = weight_bytes(w, n + l, k);
        const float scale = w->scale ? scale_at(w, n + l, k) : 0;
        BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++) {
            if (t * step % 64 == 0) __builtin_prefetch(from + t * step + ahead, 0, 3);
            u16 terms = widen_even_terms(dtype, from + t * step, scale);
            memcpy(to + t * BRAID_TILE_BYTES + 64 * l, &terms, 64);
        }
    }
}

/// Fills rows `first ..< end` of a strip's A tiles with terms from `k` on of weight rows from `n` on, whose bytes
/// `ahead` are prefetched. `codes` is filled for the scale of FP8. `kind` is a constant, and not BRAID_STRIP_ANY.
BRAID_INLINE void widen_rows(
    braid_strip_kind kind, const braid_weight *w, const braid_scaled_codes *codes, int64_t n, int64_t k, int64_t ahead,
    int64_t first, int64_t end, char *to
) {
    if (kind == BRAID_STRIP_EVEN)
        switch (w->dtype) {
        case BRAID_F32: return widen_even_rows(w, BRAID_F32, n, k, ahead, first, end, to);
        case BRAID_BF16: return widen_even_rows(w, BRAID_BF16, n, k, ahead, first, end, to);
        case BRAID_FP8: return widen_even_rows(w, BRAID_FP8, n, k, ahead, first, end, to);
        default: return widen_even_rows(w, BRAID_INT8, n, k, ahead, first, end, to);
        }
    const char *from = weight_bytes(w, n + first, k);
    const int64_t stride = w->stride * (kind == BRAID_STRIP_FP8 ? 8 : 4) / 8;
    BRAID_UNROLL for (int64_t l = first; l < end; l++, from += stride) {
        __builtin_prefetch(from + ahead, 0, 3);
        if (kind == BRAID_STRIP_FP8) {
            __m512i terms[BRAID_STRIP_TILES];
            __builtin_prefetch(from + ahead + 64, 0, 3);
            widen_64_codes(codes, from, terms);
            widen_64_codes(codes, from + 64, terms + 2);
            BRAID_UNROLL for (int t = 0; t < BRAID_STRIP_TILES; t++)
                _mm512_store_si512(to + t * BRAID_TILE_BYTES + 64 * l, terms[t]);
        } else {
            const uint8_t *scales = (const uint8_t *)w->scale + (w->row + n + l) * w->scale_stride
                + (w->column + k) / BRAID_FP4_BLOCK;
            if (!widen_fp4_terms(from, scales, to + 64 * l)) widen_any_row(w, n + l, k, BRAID_STRIP_K, l, to);
        }
    }
}

/// Fills `to` with the A tiles of sixteen rows from `n` on, of which `lanes` exist, and `count` terms from `k` on, a
/// strip at most, in the way `kind`. Missing rows and terms are zeros. The bytes `ahead` of a whole strip are
/// prefetched.
static void widen_strip(
    braid_strip_kind kind, const braid_weight *w, braid_scaled_codes *codes, int64_t n, int64_t lanes, int64_t k,
    int64_t count, int64_t ahead, char *to
) {
    switch (kind) {
    case BRAID_STRIP_FP8:
        fill_codes(codes, scale_at(w, n, k));
        return widen_rows(BRAID_STRIP_FP8, w, codes, n, k, ahead, 0, 16, to);
    case BRAID_STRIP_FP4: return widen_rows(BRAID_STRIP_FP4, w, codes, n, k, ahead, 0, 16, to);
    case BRAID_STRIP_EVEN: return widen_rows(BRAID_STRIP_EVEN, w, codes, n, k, ahead, 0, 16, to);
    case BRAID_STRIP_ANY:
        for (int64_t l = 0; l < 16; l++) widen_any_row(w, n + l, k, l < lanes ? count : 0, l, to);
    }
}

/// Fills a row of each of four B tiles at `to` with weights [k, n] of terms `k` and `k + 1`, of which `terms` exist,
/// and 64 outputs from `n` on, as pairs of terms.
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
