// Matrix products of few rows in the BF16 profile with FP8 and FP4 weights, for AVX2. Both chains of a block run in one
// register: its lanes are pairs, the even and the odd term of four outputs. Stored elements become FP16 numbers by shifts
// or a table, and the processor widens those exactly, subnormal ones too, whatever its flushing mode. So an element takes
// half as many instructions as in lanes of 32 bits.
#pragma once

#include "bf16.h"
#include "chains.h"
#include "matmul_parts.h"

#if defined(__x86_64__) && BRAID_REGISTERS == 8
#define BRAID_PAIRS 1
#define BRAID_PAIR_UNITS 2  // units of eight outputs

/// FP8 numbers are widened to 2^-8 of their value, which their scale makes up for.
#define BRAID_FP8_PAIR_FACTOR 0x1p8f
/// Scales of FP8 numbers must be smaller, so that the product with that factor is finite.
#define BRAID_FP8_PAIR_SCALES 0x1p119f

/// Widens FP16 numbers, whose upper bytes are the eight upper bytes of each half of `words`.
BRAID_INLINE void widen_halves(__m256i words, f8 to[2]) {
    to[0] = (f8)_mm256_cvtph_ps(_mm256_castsi256_si128(words));
    to[1] = (f8)_mm256_cvtph_ps(_mm256_extracti128_si256(words, 1));
}

/// Widens sixteen E4M3 numbers, the upper bytes of words, to 2^-8 of their value. The code of a NaN becomes 480 * 2^-8,
/// unless `nan`, a constant, says that there may be some.
BRAID_INLINE void widen_fp8_words(__m256i words, bool nan, f8 to[2]) {
    // The sign stays, and exponent and mantissa move to where FP16 has them.
    widen_halves(_mm256_and_si256(_mm256_srai_epi16(words, 1), _mm256_set1_epi16((short)0xBF80)), to);
    if (!nan) return;
    for (int q = 0; q < 2; q++) {
        __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)to[q]);
        __m256 is_nan = _mm256_cmp_ps(magnitude, _mm256_set1_ps(480 * 0x1p-8f), _CMP_EQ_OQ);
        to[q] = (f8)_mm256_or_ps((__m256)to[q], _mm256_and_ps(is_nan, _mm256_set1_ps(NAN)));
    }
}

/// Widens four bytes of each of eight outputs: step s has pair s of outputs 0 to 3 and of outputs 4 to 7. `dtype` and
/// `nan` are constants.
BRAID_INLINE void widen_pairs(braid_dtype dtype, bool nan, __m256i v, f8 to[4][2]) {
    const __m256i zero = _mm256_setzero_si256();
    if (dtype == BRAID_FP8) {
        // The outputs' first two bytes, then their last two.
        const __m256i order = _mm256_setr_epi8(
            0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
        v = _mm256_shuffle_epi8(v, order);
        widen_fp8_words(_mm256_unpacklo_epi8(zero, v), nan, to[0]);
        widen_fp8_words(_mm256_unpackhi_epi8(zero, v), nan, to[1]);
        return;
    }
    // The outputs' first bytes, then their second ones, and so on.
    const __m256i order = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // The upper bytes of 0, 0.5, 1, 1.5, 2, 3, 4, 6 in FP16, and of their negatives; the lower ones are 0.
    const __m256i numbers = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 0x38, 0x3C, 0x3E, 0x40, 0x42, 0x44, 0x46, (char)0x80, (char)0xB8, (char)0xBC, (char)0xBE, (char)0xC0,
        (char)0xC2, (char)0xC4, (char)0xC6));
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    v = _mm256_shuffle_epi8(v, order);
    const __m256i even = _mm256_shuffle_epi8(numbers, _mm256_and_si256(v, nibble));
    const __m256i odd = _mm256_shuffle_epi8(numbers, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
    const __m256i first = _mm256_unpacklo_epi8(even, odd), second = _mm256_unpackhi_epi8(even, odd);
    widen_halves(_mm256_unpacklo_epi8(zero, first), to[0]);
    widen_halves(_mm256_unpackhi_epi8(zero, first), to[1]);
    widen_halves(_mm256_unpacklo_epi8(zero, second), to[2]);
    widen_halves(_mm256_unpackhi_epi8(zero, second), to[3]);
}

/// Returns two consecutive numbers, four times.
BRAID_INLINE f8 splat_pair(const float *x) {
    double pair;
    memcpy(&pair, x, sizeof pair);
    return (f8)_mm256_castpd_ps(_mm256_set1_pd(pair));
}

/// Loads 16 bytes of each of eight outputs: lane i of word j has bytes 4 j ... 4 j + 3 of output i.
BRAID_INLINE void load_words(const char *const *rows, int64_t offset, __m256i words[4]) {
    __m256i row[4];
    BRAID_UNROLL for (int i = 0; i < 4; i++)
        row[i] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(rows[i] + offset))),
            _mm_loadu_si128((const __m128i *)(rows[i + 4] + offset)), 1);
    const __m256i low01 = _mm256_unpacklo_epi32(row[0], row[1]), high01 = _mm256_unpackhi_epi32(row[0], row[1]);
    const __m256i low23 = _mm256_unpacklo_epi32(row[2], row[3]), high23 = _mm256_unpackhi_epi32(row[2], row[3]);
    words[0] = _mm256_unpacklo_epi64(low01, low23);
    words[1] = _mm256_unpackhi_epi64(low01, low23);
    words[2] = _mm256_unpacklo_epi64(high01, high23);
    words[3] = _mm256_unpackhi_epi64(high01, high23);
}

/// Marks the bytes that are NaNs of E4M3.
BRAID_INLINE __m256i fp8_nans(__m256i v) {
    return _mm256_cmpeq_epi8(_mm256_or_si256(v, _mm256_set1_epi8((char)0x80)), _mm256_set1_epi8(-1));
}

/// Adds a block of 32 terms, from byte `offset` of the rows on, to the outputs of `m` rows and `units` units of eight
/// outputs. All arguments but `rows`, `offset`, `scale`, `x` and `total` are constants.
///
/// Returns whether there are NaNs of E4M3 that `nan` has denied; nothing was added then.
BRAID_INLINE bool add_pair_block(
    braid_dtype dtype, bool nan, int m, int units, const char *const *rows, int64_t offset,
    const f8 scale[BRAID_PAIR_UNITS][2], const float *const *x, f8 total[BRAID_PAIR_UNITS][BRAID_FEW_ROWS]
) {
    const int parts = BRAID_BF16_BLOCK * bits_of(dtype) / 128, steps = dtype == BRAID_FP8 ? 2 : 4;
    f8 a[BRAID_PAIR_UNITS][BRAID_FEW_ROWS][2];
    __m256i nans = _mm256_setzero_si256();
    BRAID_UNROLL for (int u = 0; u < units; u++)
        BRAID_UNROLL for (int r = 0; r < m; r++) a[u][r][0] = a[u][r][1] = (f8){0};
    BRAID_UNROLL for (int part = 0; part < parts; part++)
        BRAID_UNROLL for (int u = 0; u < units; u++) {
            __m256i words[4];
            load_words(rows + 8 * u, offset + 16 * part, words);
            BRAID_UNROLL for (int j = 0; j < 4; j++) {
                if (dtype == BRAID_FP8 && !nan) nans = _mm256_or_si256(nans, fp8_nans(words[j]));
                f8 w[4][2];
                widen_pairs(dtype, nan, words[j], w);
                BRAID_UNROLL for (int s = 0; s < steps; s++)
                    BRAID_UNROLL for (int q = 0; q < 2; q++) {
                        const f8 weight = w[s][q] * scale[u][q];
                        BRAID_UNROLL for (int r = 0; r < m; r++)
                            a[u][r][q] = __builtin_elementwise_fma(
                                splat_pair(x[r] + 2 * (steps * (4 * part + j) + s)), weight, a[u][r][q]);
                    }
            }
        }
    if (dtype == BRAID_FP8 && !nan && !_mm256_testz_si256(nans, nans)) return true;
    // Sums of pairs have the order of outputs 0 1 4 5 2 3 6 7.
    BRAID_UNROLL for (int u = 0; u < units; u++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            total[u][r] = total[u][r] + (f8)_mm256_hadd_ps((__m256)a[u][r][0], (__m256)a[u][r][1]);
    return false;
}

/// Reorders eight outputs from the order of sums of pairs, or to it.
BRAID_INLINE f8 reorder_pair_sums(f8 v) { return __builtin_shufflevector(v, v, 0, 1, 4, 5, 2, 3, 6, 7); }

/// Writes the scales of sixteen outputs for each lane of pairs, times what widened elements lack.
BRAID_INLINE void spread_scales(braid_dtype dtype, f16 scale, f8 to[2][2]) {
    if (dtype == BRAID_FP8) scale = scale * splat(BRAID_FP8_PAIR_FACTOR);
    to[0][0] = __builtin_shufflevector(scale, scale, 0, 0, 1, 1, 2, 2, 3, 3);
    to[0][1] = __builtin_shufflevector(scale, scale, 4, 4, 5, 5, 6, 6, 7, 7);
    to[1][0] = __builtin_shufflevector(scale, scale, 8, 8, 9, 9, 10, 10, 11, 11);
    to[1][1] = __builtin_shufflevector(scale, scale, 12, 12, 13, 13, 14, 14, 15, 15);
}

/// Adds a chunk of 64 bytes of each of sixteen outputs, at `k`. `dtype` and `m` are constants.
BRAID_INLINE void add_pair_chunk(
    braid_dtype dtype, int m, const char *const *rows, u16 scales, const float *const *x, int64_t k,
    f8 total[BRAID_PAIR_UNITS][BRAID_FEW_ROWS]
) {
    // More accumulators would leave too few registers for what is widened.
    const int units = m == 1 ? BRAID_PAIR_UNITS : 1;
    for (int64_t i = k; i < k + 512 / bits_of(dtype); i += BRAID_BF16_BLOCK) {
        const float *at[BRAID_FEW_ROWS];
        f8 scale[BRAID_PAIR_UNITS][2];
        BRAID_UNROLL for (int r = 0; r < m; r++) at[r] = x[r] + i;
        spread_scales(dtype, dtype == BRAID_FP4 ? widen_e8m0(scales, (int)(i - k) / BRAID_BF16_BLOCK) : (f16)scales, scale);
        const int64_t offset = i * bits_of(dtype) / 8;
        BRAID_UNROLL for (int u = 0; u < BRAID_PAIR_UNITS; u += units)
            if (add_pair_block(dtype, false, m, units, rows + 8 * u, offset, scale + u, at, total + u))
                add_pair_block(dtype, true, m, units, rows + 8 * u, offset, scale + u, at, total + u);
    }
}
#else
#define BRAID_PAIRS 0
#endif
