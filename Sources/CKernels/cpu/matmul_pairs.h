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
#define BRAID_PAIR_UNITS 4  // units of eight outputs side by side, at most

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

/// Adds a block of 32 terms to the outputs of `m` rows and `units` units. A unit's weights are every second one of
/// `from`, and its scales are those of its pairs. All arguments but `from`, `scale`, `x` and `total` are constants.
BRAID_INLINE void add_pair_block(
    braid_dtype dtype, bool nan, int m, int units, const __m256i *const *from, const f8 scale[BRAID_PAIR_UNITS][2],
    const float *const *x, int64_t k, f8 total[BRAID_PAIR_UNITS][BRAID_FEW_ROWS]
) {
    const int words = BRAID_BF16_BLOCK * bits_of(dtype) / 32, steps = BRAID_BF16_BLOCK / 2 / words;
    f8 a[BRAID_PAIR_UNITS][BRAID_FEW_ROWS][2];
    BRAID_UNROLL for (int u = 0; u < units; u++)
        BRAID_UNROLL for (int r = 0; r < m; r++) a[u][r][0] = a[u][r][1] = (f8){0};
    for (int j = 0; j < words; j++)
        BRAID_UNROLL for (int u = 0; u < units; u++) {
            f8 w[4][2];
            widen_pairs(dtype, nan, _mm256_loadu_si256(from[u] + 2 * j), w);
            BRAID_UNROLL for (int s = 0; s < steps; s++)
                BRAID_UNROLL for (int q = 0; q < 2; q++) {
                    const f8 weight = w[s][q] * scale[u][q];
                    BRAID_UNROLL for (int r = 0; r < m; r++)
                        a[u][r][q] = __builtin_elementwise_fma(
                            splat_pair(x[r] + k + 2 * (steps * j + s)), weight, a[u][r][q]);
                }
        }
    // Sums of pairs have the order of outputs 0 1 4 5 2 3 6 7.
    BRAID_UNROLL for (int u = 0; u < units; u++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            total[u][r] = total[u][r] + (f8)_mm256_hadd_ps((__m256)a[u][r][0], (__m256)a[u][r][1]);
}

/// Reorders eight outputs from the order of sums of pairs, or to it.
BRAID_INLINE f8 reorder_pair_sums(f8 v) { return __builtin_shufflevector(v, v, 0, 1, 4, 5, 2, 3, 6, 7); }

/// Returns true if one of 64 bytes of sixteen outputs is a NaN of E4M3.
BRAID_INLINE bool has_fp8_nan(const u16 v[16]) {
    const __m256i *from = (const __m256i *)v, ones = _mm256_set1_epi8(-1), sign = _mm256_set1_epi8((char)0x80);
    __m256i found = _mm256_setzero_si256();
    for (int i = 0; i < 32; i++)
        found = _mm256_or_si256(found, _mm256_cmpeq_epi8(_mm256_or_si256(_mm256_loadu_si256(from + i), sign), ones));
    return !_mm256_testz_si256(found, found);
}

/// Writes the scales of sixteen outputs for each lane of pairs, times what widened elements lack.
BRAID_INLINE void spread_scales(braid_dtype dtype, f16 scale, f8 to[2][2]) {
    if (dtype == BRAID_FP8) scale = scale * splat(BRAID_FP8_PAIR_FACTOR);
    to[0][0] = __builtin_shufflevector(scale, scale, 0, 0, 1, 1, 2, 2, 3, 3);
    to[0][1] = __builtin_shufflevector(scale, scale, 4, 4, 5, 5, 6, 6, 7, 7);
    to[1][0] = __builtin_shufflevector(scale, scale, 8, 8, 9, 9, 10, 10, 11, 11);
    to[1][1] = __builtin_shufflevector(scale, scale, 12, 12, 13, 13, 14, 14, 15, 15);
}

/// Adds a chunk of 64 bytes of each of sixteen times `groups` outputs, which are transposed in `v`. All arguments but
/// `v`, `scales`, `x` and `total` are constants.
BRAID_INLINE void add_pair_chunk(
    braid_dtype dtype, bool nan, int m, int groups, const u16 v[][16], const u16 *scales, const float *const *x, int64_t k,
    f8 total[BRAID_PAIR_UNITS][BRAID_FEW_ROWS]
) {
    const int blocks = 512 / bits_of(dtype) / BRAID_BF16_BLOCK, words = 16 / blocks;
    // So many units that their accumulators fill half of the registers.
    const int units = m == 1 ? 2 * groups : m == 2 ? 2 : 1;
    for (int b = 0; b < blocks; b++) {
        f8 scale[BRAID_PAIR_UNITS][2];
        BRAID_UNROLL for (int g = 0; g < groups; g++)
            spread_scales(dtype, dtype == BRAID_FP4 ? widen_e8m0(scales[g], b) : (f16)scales[g], scale + 2 * g);
        BRAID_UNROLL for (int first = 0; first < 2 * groups; first += units) {
            const __m256i *from[BRAID_PAIR_UNITS];
            BRAID_UNROLL for (int u = 0; u < units; u++)
                from[u] = (const __m256i *)&v[(first + u) / 2][words * b] + (first + u) % 2;
            add_pair_block(
                dtype, nan, m, units, from, scale + first, x, k + b * BRAID_BF16_BLOCK, total + first);
        }
    }
}
#else
#define BRAID_PAIRS 0
#endif
