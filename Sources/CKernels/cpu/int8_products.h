// Matrix products of INT8 weights with activations rounded to INT8. Included once for each way to multiply integers:
// with BRAID_VNNI, 64 products of bytes at a time; without, 32 of sixteen-bit words. BRAID_INT8(name) names a function.
//
// Sums are exact, so lanes may run along terms as well as along outputs. Few rows read the weights as they are stored,
// lanes along terms, at the speed of memory. For many rows, panels hold weights transposed: a lane is an output, and
// 32 bits of it are the four (or two) terms that one instruction multiplies and adds.
#include "int8.h"

#if BRAID_VNNI
/// VNNI multiplies an unsigned byte by a signed one. Weights are made unsigned by adding 128, which flips their sign
/// bit; the sum then has 128 times the sum of the activations too much.
typedef int8_t BRAID_INT8(term);
#define BRAID_TERMS 4      // of 32 bits
#define BRAID_OFFSET 128
#else
typedef int16_t BRAID_INT8(term);
#define BRAID_TERMS 2
#define BRAID_OFFSET 0
#endif
#define BRAID_VECTOR_TERMS (16 * BRAID_TERMS)
#define BRAID_PANEL_UNITS 128  // 32-bit units of each output in a panel, which fits half of the first-level cache
#if BRAID_REGISTERS >= 32
#define BRAID_FEW_SUMS 16      // sums in registers, where lanes run along terms
#else
#define BRAID_FEW_SUMS 4
#endif

/// Adds the products of terms in each 32 bits of `w` and `x` to `a`.
BRAID_INLINE i16 BRAID_INT8(add)(i16 a, u16 w, u16 x) {
#if BRAID_VNNI
    return (i16)_mm512_dpbusd_epi32((__m512i)a, (__m512i)w, (__m512i)x);
#elif defined(__x86_64__) && BRAID_REGISTERS >= 32
    return a + (i16)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#elif defined(__x86_64__)
    typedef int32_t i8x __attribute__((vector_size(32)));
    const __m256i w0 = (__m256i)__builtin_shufflevector(w, w, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i w1 = (__m256i)__builtin_shufflevector(w, w, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i x0 = (__m256i)__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i x1 = (__m256i)__builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    const i8x low = (i8x)_mm256_madd_epi16(w0, x0), high = (i8x)_mm256_madd_epi16(w1, x1);
    return a + __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    return a + ((i16)(w << 16) >> 16) * ((i16)(x << 16) >> 16) + ((i16)w >> 16) * ((i16)x >> 16);
#endif
}

/// Loads `count` weights at most, as `add` takes them; the others are 0, or do not matter because activations are.
BRAID_INLINE u16 BRAID_INT8(weights)(const char *from, int64_t count) {
#if BRAID_VNNI
    u16 bytes = {0};
    if (count >= 64) memcpy(&bytes, from, 64);
    else memcpy(&bytes, from, (size_t)count);
    return bytes ^ 0x80808080u;
#else
    typedef int8_t bytes32 __attribute__((vector_size(32)));
    typedef int16_t words32 __attribute__((vector_size(64)));
    bytes32 bytes = {0};
    if (count >= 32) memcpy(&bytes, from, 32);
    else memcpy(&bytes, from, (size_t)count);
    return (u16)__builtin_convertvector(bytes, words32);
#endif
}

/// Quantizes the activations of a segment, followed by zeros up to a whole step.
static void BRAID_INT8(quantize)(
    const float *x, int64_t count, const braid_static_rounding *rounding, BRAID_INT8(term) *to,
    braid_int8_segment *segment
) {
    typedef BRAID_INT8(term) terms16 __attribute__((vector_size(16 * sizeof(BRAID_INT8(term)))));
    const braid_int8_factors factors = int8_factors(largest_bits(x, count), rounding);
    *segment = (braid_int8_segment){.scale = factors.scale};
    if (!(factors.inverse > 0)) {
        memset(to, 0, (size_t)int8_steps(count) * sizeof *to);
        return;
    }
    i16 total = {0};
    for (int64_t i = 0; i < int8_steps(count); i += 16) {
        const f16 v = i + 16 <= count ? load16(x + i) : load_some(x + i, lanes_left(count - i));
        i16 q = activation_integers(v, factors);
        for (int64_t l = lanes_left(count - i); l < 16; l++) q[l] = 0;
        const terms16 terms = __builtin_convertvector(q, terms16);
        total += q;
        memcpy(to + i, &terms, sizeof terms);
    }
    segment->excess = BRAID_OFFSET * __builtin_reduce_add(total);
}

/// Quantizes the terms of a part of row `r` of the rows.
static void BRAID_INT8(quantize_row)(const braid_matmul *p, const braid_int8_rows *q, int64_t r, void *to) {
    const float *x = x_row(p, q->first + r);
    braid_int8_segment *segment = q->segments + r * q->part.segments;
    BRAID_INT8(term) *terms = to;
    for (int64_t k = q->part.k, end; k < q->part.end; k = end, segment++) {
        end = int8_segment_end(&p->w, k, q->part.end);
        BRAID_INT8(quantize)(x + k, end - k, p->w.rounding, terms, segment);
        terms += int8_steps(end - k);
    }
}

/// Computes the sums of `outputs` weight rows with `m` rows of activations, over `count` terms. `outputs` and `m` are
/// constants.
BRAID_INLINE void BRAID_INT8(dots)(
    int outputs, int m, const braid_matmul *p, const char *const *weights, int64_t k, int64_t count,
    const BRAID_INT8(term) *const *x, i16 sums[][16]
) {
    const int64_t distance = at_most(BRAID_AHEAD, p->k), rest = 16 * p->w.stride - p->k;
    i16 a[BRAID_FEW_SUMS];
    BRAID_UNROLL for (int s = 0; s < outputs * m; s++) a[s] = (i16){0};
    for (int64_t i = 0; i < count; i += BRAID_VECTOR_TERMS) {
        u16 terms[4];
        int64_t ahead = k + i + distance;
        if (ahead >= p->k) ahead += rest;  // continues with the next sixteen rows' first bytes
        BRAID_UNROLL for (int r = 0; r < m; r++) memcpy(&terms[r], x[r] + i, sizeof terms[r]);
        BRAID_UNROLL for (int o = 0; o < outputs; o++) {
            const char *from = weights[o] + k + i;
            if (BRAID_VNNI || i % 64 == 0) __builtin_prefetch(weights[o] + ahead, 0, 3);
            const u16 w = count - i >= BRAID_VECTOR_TERMS ? BRAID_INT8(weights)(from, BRAID_VECTOR_TERMS)
                                                          : BRAID_INT8(weights)(from, count - i);
            BRAID_UNROLL for (int r = 0; r < m; r++) a[o * m + r] = BRAID_INT8(add)(a[o * m + r], w, terms[r]);
        }
    }
    BRAID_UNROLL for (int o = 0; o < outputs; o++)
        BRAID_UNROLL for (int r = 0; r < m; r++) sums[r][o] = a[o * m + r];
}

/// Computes sixteen outputs from `n` on of rows `from ..< from + m` of the quantized rows. `m` is a constant.
BRAID_INLINE void BRAID_INT8(few_outputs)(
    int m, const braid_matmul *p, const braid_int8_rows *q, int64_t from, int64_t n
) {
    const int outputs = BRAID_FEW_SUMS / m;
    const int64_t lanes = lanes_left(p->n - n);
    const char *weights[16];
    const BRAID_INT8(term) *x[4];
    i16 sums[4][16];
    for (int64_t l = 0; l < 16; l++) weights[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), 0);
    for (int r = 0; r < m; r++) x[r] = (const BRAID_INT8(term) *)q->terms + (from + r) * q->part.width;
    int64_t segment = 0;
    for (int64_t k = q->part.k, end; k < q->part.end; k = end, segment++) {
        end = int8_segment_end(&p->w, k, q->part.end);
        for (int o = 0; o < 16; o += outputs)
            BRAID_INT8(dots)(outputs, m, p, weights + o, k, end - k, x, (i16(*)[16])&sums[0][o]);
        int64_t same = end;
        const f16 scale = scales_at(p, n, lanes, k, &same);
        const i16 corrections = corrections_at(p, n, lanes, k, end);
        BRAID_UNROLL for (int r = 0; r < m; r++) {
            const braid_int8_segment *own = q->segments + (from + r) * q->part.segments + segment;
            const bool first = k == 0 && !p->accumulate;
            finish_int8(
                own, sums_of_16(sums[r]), corrections, scale, first, lanes, out_row(p, q->first + from + r) + n);
            x[r] += int8_steps(end - k);
        }
    }
}

/// Multiplies quantized rows by weights as they are stored.
static void BRAID_INT8(few)(const braid_matmul *p, const braid_int8_rows *q) {
    for (int64_t r = 0; r < q->rows; r++)
        BRAID_INT8(quantize_row)(p, q, r, (BRAID_INT8(term) *)q->terms + r * q->part.width);
    for (int64_t n = 0; n < p->n; n += 16)
        for (int64_t r = 0, m; r < q->rows; r += m) {
            const int64_t left = q->rows - r;
            m = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            switch (m) {
            case 4: BRAID_INT8(few_outputs)(4, p, q, r, n); break;
            case 2: BRAID_INT8(few_outputs)(2, p, q, r, n); break;
            default: BRAID_INT8(few_outputs)(1, p, q, r, n); break;
            }
        }
}

/// Packs `count` terms of weights from `k` on as a panel.
static void BRAID_INT8(pack)(const braid_matmul *p, int64_t n, int64_t k, int64_t count, uint32_t *panel) {
    for (int v = 0; v < BRAID_PANEL; v++, n += 16, panel += 16) {
        const int64_t lanes = lanes_left(p->n - n);
        const char *rows[16];
        if (lanes == 0) return;  // the tile's results in these lanes are not stored
        for (int64_t l = 0; l < 16; l++) rows[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), k);
        for (int64_t i = 0; i < count; i += 64) {
            u16 bytes[16];
            uint32_t *to = panel + i / BRAID_TERMS * BRAID_PANEL_WIDTH;
            if (lanes == 16 && count - i >= 64) {
                BRAID_UNROLL for (int l = 0; l < 16; l++) __builtin_prefetch(rows[l] + i + BRAID_AHEAD, 0, 3);
                load_columns(rows, i, bytes);
            } else load_some_columns(rows, lanes, i, count - i, bytes);
            BRAID_UNROLL for (int j = 0; j < 16; j++) {
                const u16 b = bytes[j];
#if BRAID_VNNI
                const u16 unsigned_bytes = b ^ 0x80808080u;
                memcpy(to + j * BRAID_PANEL_WIDTH, &unsigned_bytes, 64);
#else
                const i16 first = (i16)(b << 24) >> 24, second = (i16)(b << 16) >> 24;
                const i16 third = (i16)(b << 8) >> 24, fourth = (i16)b >> 24;
                const u16 low = ((u16)first & 0xFFFFu) | (u16)second << 16;
                const u16 high = ((u16)third & 0xFFFFu) | (u16)fourth << 16;
                memcpy(to + 2 * j * BRAID_PANEL_WIDTH, &low, 64);
                memcpy(to + (2 * j + 1) * BRAID_PANEL_WIDTH, &high, 64);
#endif
            }
        }
    }
}

/// Adds a panel's products to the sums of a tile, which begin at 0 if `first`. `rows` is a constant.
BRAID_INLINE void BRAID_INT8(tile)(
    int rows, const uint32_t *x, const uint32_t *panel, int64_t units, bool first, int32_t *sums
) {
    i16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) {
            a[r][v] = (i16){0};
            if (!first) memcpy(&a[r][v], sums + r * BRAID_PANEL_WIDTH + 16 * v, 64);
        }
    for (int64_t i = 0; i < units; i++, x += rows, panel += BRAID_PANEL_WIDTH) {
        u16 w[BRAID_PANEL];
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) memcpy(&w[v], panel + 16 * v, 64);
        BRAID_UNROLL for (int r = 0; r < rows; r++)
            BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
                a[r][v] = BRAID_INT8(add)(a[r][v], w[v], splat_bits(x[r]));
    }
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
            memcpy(sums + r * BRAID_PANEL_WIDTH + 16 * v, &a[r][v], 64);
}

/// Quantizes rows into tiles, each [units][rows of the tile].
static void BRAID_INT8(quantize_tiles)(const braid_matmul *p, const braid_int8_rows *q) {
    const int64_t units = q->part.width / BRAID_TERMS;
    uint32_t *to = q->terms;
    for (int64_t first = 0, rows; first < q->rows; first += rows, to += units * rows) {
        rows = tile_rows(q->rows - first);
        for (int64_t r = 0; r < rows; r++) {
            BRAID_INT8(quantize_row)(p, q, first + r, q->row);
            for (int64_t i = 0; i < units; i++) to[i * rows + r] = ((const uint32_t *)q->row)[i];
        }
    }
}

/// Adds the products of one panel of weights, `count` terms from `k` on, to the sums of all rows. `at` is where the
/// panel's terms begin among the quantized ones.
static void BRAID_INT8(panel_sums)(
    const braid_matmul *p, const braid_int8_rows *q, int64_t n, int64_t k, int64_t count, int64_t at, bool first
) {
    const int64_t all = q->part.width / BRAID_TERMS, units = (count + BRAID_TERMS - 1) / BRAID_TERMS;
    const uint32_t *x = q->terms;
    BRAID_INT8(pack)(p, n, k, count, q->panel);
    for (int64_t r = 0, rows; r < q->rows; r += rows, x += all * rows) {
        rows = tile_rows(q->rows - r);
        int32_t *sums = q->sums + r * BRAID_PANEL_WIDTH;
        BRAID_FOR_ROWS(rows, BRAID_INT8(tile), x + at / BRAID_TERMS * rows, q->panel, units, first, sums)
    }
}

/// Multiplies quantized rows by panels of weights.
static void BRAID_INT8(panels)(const braid_matmul *p, const braid_int8_rows *q) {
    BRAID_INT8(quantize_tiles)(p, q);
    for (int64_t n = 0; n < p->n; n += BRAID_PANEL_WIDTH) {
        int64_t segment = 0, at = 0;
        for (int64_t k = q->part.k, end; k < q->part.end; at += int8_steps(end - k), k = end, segment++) {
            end = int8_segment_end(&p->w, k, q->part.end);
            for (int64_t i = k, count; i < end; i += count) {
                count = at_most(end - i, BRAID_PANEL_UNITS * BRAID_TERMS);
                BRAID_INT8(panel_sums)(p, q, n, i, count, at + i - k, i == k);
            }
            for (int v = 0; v < BRAID_PANEL; v++) {
                const int64_t column = n + 16 * v, lanes = lanes_left(p->n - column);
                if (lanes == 0) break;
                int64_t same = end;
                const f16 scale = scales_at(p, column, lanes, k, &same);
                const i16 corrections = corrections_at(p, column, lanes, k, end);
                for (int64_t r = 0; r < q->rows; r++) {
                    i16 sums;
                    memcpy(&sums, q->sums + r * BRAID_PANEL_WIDTH + 16 * v, sizeof sums);
                    finish_int8(
                        q->segments + r * q->part.segments + segment, sums, corrections, scale,
                        k == 0 && !p->accumulate, lanes, out_row(p, q->first + r) + column);
                }
            }
        }
    }
}

/// Lays out the scratch for as many rows of a part as fit, and returns them.
static braid_int8_rows BRAID_INT8(rows)(const braid_matmul *p, braid_int8_part part) {
    const int64_t panel = BRAID_PANEL_UNITS * BRAID_PANEL_WIDTH * 4;
    const int64_t terms = (part.width * (int64_t)sizeof(BRAID_INT8(term)) + 63) / 64 * 64;
    const int64_t each = terms + part.segments * (int64_t)sizeof(braid_int8_segment) + BRAID_PANEL_WIDTH * 4;
    int64_t rows = at_most(p->m, (BRAID_PANEL_SCRATCH * 4 - panel - terms) / each);
    if (rows < p->m) rows = rows / BRAID_TILE_ROWS * BRAID_TILE_ROWS;
    char *at = (char *)p->scratch;
    braid_int8_rows q = {.part = part, .rows = rows, .panel = (uint32_t *)at, .row = at + panel};
    q.sums = (int32_t *)(at + panel + terms);
    q.terms = q.sums + rows * BRAID_PANEL_WIDTH;
    q.segments = (braid_int8_segment *)((char *)q.terms + rows * terms);
    return q;
}

/// Computes a product whose outputs are INT8 sums.
static void BRAID_INT8(matmul)(const braid_matmul *p) {
    const bool is_few = p->m <= (p->gemv_max_rows > 0 ? p->gemv_max_rows : BRAID_INT8_FEW_ROWS);
    for (int64_t k = 0; k < p->k;) {
        const braid_int8_part part = int8_part(p, k);
        braid_int8_rows q = BRAID_INT8(rows)(p, part);
        for (const int64_t most = q.rows; q.first < p->m; q.first += q.rows) {
            q.rows = at_most(most, p->m - q.first);
            if (is_few) BRAID_INT8(few)(p, &q);
            else BRAID_INT8(panels)(p, &q);
        }
        k = part.end;
    }
}

#undef BRAID_TERMS
#undef BRAID_OFFSET
#undef BRAID_VECTOR_TERMS
#undef BRAID_PANEL_UNITS
#undef BRAID_FEW_SUMS
