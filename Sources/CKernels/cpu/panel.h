// Panels hold stored rows, widened to F32 and transposed; a tile of chains runs down a panel.
//
// A panel is [k][BRAID_PANEL * 16]: its lanes are outputs (weight rows, or keys), and k ascends in memory. So a dot
// product stays one chain per output, and widening is done once for all rows that use the panel.
#pragma once

#include "../include/types.h"
#include "../reference/weights.h"
#include "select.h"

#if BRAID_REGISTERS >= 32
#define BRAID_PANEL 2      // vectors per row of a panel
#define BRAID_TILE_ROWS 12 // rows of a tile: 24 accumulators
#else
#define BRAID_PANEL 1
#define BRAID_TILE_ROWS 6
#endif
#define BRAID_PANEL_WIDTH (BRAID_PANEL * 16)

#define BRAID_UNROLL _Pragma("clang loop unroll(full)")

BRAID_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
BRAID_INLINE int64_t lanes_left(int64_t n) { return n < 0 ? 0 : n > 16 ? 16 : n; }

/// Prefetches an entry of the cache.
BRAID_INLINE void fetch_entry(const braid_lane *lane, const char *from) {
    int64_t bytes = entry_bytes(lane);
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at, 0, 2);
    // With scales, entries are not aligned to lines.
    if (braid_lane_has_scales(lane->dtype)) __builtin_prefetch(from + bytes - 1, 0, 2);
}

/// Transposes: lane i of result j is lane j of v[i].
BRAID_INLINE void transpose16(u16 v[16]) {
    u16 t[16];
    BRAID_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    BRAID_UNROLL for (int i = 0; i < 16; i += 4) {
        BRAID_UNROLL for (int j = 0; j < 2; j++) {
            u16 a = t[i + j], b = t[i + 2 + j], *to = v + i + 2 * j;
            to[0] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            to[1] = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    }
    // Now quarter L of v[4g + j] is column 4L + j of rows 4g ... 4g + 3.
    BRAID_UNROLL for (int j = 0; j < 4; j++) {
        u16 a = v[j], b = v[4 + j], c = v[8 + j], d = v[12 + j];
        u16 p = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        u16 q = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        u16 r = __builtin_shufflevector(c, d, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        u16 s = __builtin_shufflevector(c, d, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        v[j] = __builtin_shufflevector(p, r, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        v[4 + j] = __builtin_shufflevector(q, s, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        v[8 + j] = __builtin_shufflevector(p, r, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        v[12 + j] = __builtin_shufflevector(q, s, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
}

#if BRAID_WORD_TABLES
/// BF16 represents every E4M3 magnitude exactly; the table lists them by their E4M3 code.
#define BRAID_E4M3(e) \
    (e) + 0x3C00, (e) + 0x3C10, (e) + 0x3C20, (e) + 0x3C30, (e) + 0x3C40, (e) + 0x3C50, (e) + 0x3C60, (e) + 0x3C70
static const uint16_t e4m3_as_bf16[128] __attribute__((aligned(64))) = {
    0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60,  // subnormal
    BRAID_E4M3(0x080), BRAID_E4M3(0x100), BRAID_E4M3(0x180), BRAID_E4M3(0x200), BRAID_E4M3(0x280),
    BRAID_E4M3(0x300), BRAID_E4M3(0x380), BRAID_E4M3(0x400), BRAID_E4M3(0x480), BRAID_E4M3(0x500),
    BRAID_E4M3(0x580), BRAID_E4M3(0x600), BRAID_E4M3(0x680), BRAID_E4M3(0x700),
    0x4380, 0x4390, 0x43A0, 0x43B0, 0x43C0, 0x43D0, 0x43E0, 0x7FC0,
};

/// Converts the low E4M3 byte of each 16-bit word to BF16.
BRAID_INLINE u16 e4m3_words(u16 v) {
    const __m512i *table = (const __m512i *)e4m3_as_bf16;
    __m512i w = (__m512i)v;
    __m512i small = _mm512_permutex2var_epi16(table[0], w, table[1]);  // uses six bits as the index
    __m512i large = _mm512_permutex2var_epi16(table[2], w, table[3]);
    __m512i magnitude = _mm512_mask_mov_epi16(small, _mm512_test_epi16_mask(w, _mm512_set1_epi16(0x40)), large);
    return (u16)magnitude | ((v << 8) & 0x80008000u);
}

/// Widens the E4M3 byte at bit 8 `e` of each lane exactly.
BRAID_INLINE f16 widen_fp8(u16 v, int e) {
    u16 words = e4m3_words(e & 1 ? v >> 8 : v);
    return (f16)(e & 2 ? words & 0xFFFF0000u : words << 16);
}

/// Widens 32 consecutive E4M3 bytes exactly, with one table look-up for all.
BRAID_INLINE void widen_32_fp8(const char *p, f16 out[2]) {
    typedef uint8_t b32 __attribute__((vector_size(32)));
    typedef uint16_t h32 __attribute__((vector_size(64)));
    b32 bytes;
    memcpy(&bytes, p, sizeof bytes);
    u16 words = e4m3_words((u16)__builtin_convertvector(bytes, h32));
    out[0] = widen_bf16(&words);
    out[1] = widen_bf16((const char *)&words + 32);
}
#else
/// Widens the E4M3 byte at bit 8 `e` of each lane exactly and without denormal operands, so that the processor's
/// denormal modes do not matter. With the exponent moved, a normal value is `normal`; m * 2^-9 of a subnormal value is
/// 2^-6 (1 + m / 8) - 2^-6. Both are computed for every value, and the wrong one is always the larger.
BRAID_INLINE f16 widen_fp8(u16 v, int e) {
    u16 magnitude = (e < 3 ? v << (uint32_t)(20 - 8 * e) : v >> 4) & 0x7F00000u;
    u16 sign = (v << (uint32_t)(24 - 8 * e)) & 0x80000000u;
    f16 normal = (f16)(magnitude + (120u << 23));
    f16 subnormal = (f16)(magnitude + (121u << 23)) - splat(0x1p-6f);
    f16 value = __builtin_elementwise_min(normal, subnormal);
    return (f16)((u16)value | ((u16)(magnitude == 0x7F00000u) & 0x7FC00000u) | sign);
}

/// Widens 32 consecutive E4M3 bytes exactly.
BRAID_INLINE void widen_32_fp8(const char *p, f16 out[2]) {
    for (int i = 0; i < 2; i++) {
        b16 bytes;
        memcpy(&bytes, p + 16 * i, sizeof bytes);
        out[i] = widen_fp8(__builtin_convertvector(bytes, u16), 0);
    }
}
#endif

/// Widens the E2M1 number at bit 4 `e` of each lane exactly, as widen_fp8 does: with the exponent moved, a normal value
/// is `normal`; the value m / 2 of a subnormal one is (1 + m / 2) - 1. The wrong one of both is never the smaller.
BRAID_INLINE f16 widen_fp4(u16 v, int e) {
    u16 magnitude = (e < 6 ? v << (uint32_t)(22 - 4 * e) : v >> (uint32_t)(4 * e - 22)) & 0x1C00000u;
    u16 sign = (v << (uint32_t)(28 - 4 * e)) & 0x80000000u;
    f16 normal = (f16)(magnitude + (126u << 23));
    f16 subnormal = (f16)(magnitude + (127u << 23)) - splat(1);
    return (f16)((u16)__builtin_elementwise_min(normal, subnormal) | sign);
}

/// Widens element `e` of the stored elements in each 32-bit lane, and multiplies by its scale if the type has scales.
BRAID_INLINE f16 widen_element(braid_dtype dtype, u16 v, int e, f16 scale) {
    switch (dtype) {
    case BRAID_F32: return (f16)v;
    case BRAID_BF16: return e ? (f16)(v & 0xFFFF0000u) : (f16)(v << 16);
    case BRAID_FP8: return widen_fp8(v, e) * scale;
    case BRAID_INT8: return __builtin_convertvector((i16)(v << (24 - 8 * (uint32_t)e)) >> 24, f16) * scale;
    case BRAID_FP4: return widen_fp4(v, e) * scale;
    }
    return scale;
}

/// Widens `n` of sixteen consecutive stored elements, and fills the other lanes with zeros.
BRAID_INLINE f16 widen_row(braid_dtype dtype, const char *p, int64_t n, f16 scale) {
    u16 v = {0};
    h16 h = {0};
    b16 b = {0};
    switch (dtype) {
    case BRAID_F32: return n == 16 ? load16((const float *)p) : load_some((const float *)p, n);
    case BRAID_BF16:
        if (n == 16) return widen_bf16(p);
        memcpy(&h, p, (size_t)n * 2);
        return widen_bf16(&h);
    default:
        if (n == 16) memcpy(&b, p, 16);
        else memcpy(&b, p, (size_t)n);
        v = __builtin_convertvector(b, u16);
        return widen_element(dtype, v, 0, scale);
    }
}

/// Loads 64 bytes from each of sixteen rows, transposed: lane i of v[j] is 32 bits of rows[i].
BRAID_INLINE void load_columns(const char *const *rows, int64_t offset, u16 v[16]) {
    BRAID_UNROLL for (int i = 0; i < 16; i++) memcpy(&v[i], rows[i] + offset, 64);
    transpose16(v);
}

/// Loads as load_columns does where fewer rows or bytes may be read, and fills the rest with zeros.
BRAID_INLINE void load_some_columns(const char *const *rows, int64_t lanes, int64_t offset, int64_t bytes, u16 v[16]) {
    for (int i = 0; i < 16; i++) {
        v[i] = (u16){0};
        if (i < lanes) memcpy(&v[i], rows[i] + offset, (size_t)at_most(bytes, 64));
    }
    transpose16(v);
}

/// Packs the elements of 64 bytes of each of `lanes` rows, `count` at most, into sixteen lanes of [k][width].
BRAID_INLINE void pack_chunk(
    braid_dtype dtype, const char *const *rows, int64_t lanes, int64_t offset, int64_t count, f16 scale, int64_t width,
    float *to
) {
    const int each = (int)(4 / bytes_of(dtype));
    u16 v[16];
    if (lanes == 16 && count >= 16 * each) {
        load_columns(rows, offset, v);
        BRAID_UNROLL for (int j = 0; j < 16; j++)
            BRAID_UNROLL for (int e = 0; e < each; e++)
                store16(to + (j * each + e) * width, widen_element(dtype, v[j], e, scale));
    } else {
        load_some_columns(rows, lanes, offset, count * bytes_of(dtype), v);
        for (int j = 0; j < 16; j++)
            BRAID_UNROLL for (int e = 0; e < each; e++)
                if (j * each + e < count) store16(to + (j * each + e) * width, widen_element(dtype, v[j], e, scale));
    }
}

BRAID_INLINE void pack_rows_of(
    braid_dtype dtype, const char *const *rows, int64_t lanes, int64_t k, f16 scale, int64_t width, float *panel
) {
    const int64_t step = 64 / bytes_of(dtype);
    for (int64_t i = 0; i < k; i += step)
        pack_chunk(dtype, rows, lanes, i * bytes_of(dtype), k - i, scale, width, panel + i * width);
}

/// Packs `k` elements of each of `lanes` rows into sixteen lanes of a panel; the lanes after them become zero.
static void pack_rows(
    braid_dtype dtype, const char *const *rows, int64_t lanes, int64_t k, f16 scale, float *panel
) {
    const int64_t width = BRAID_PANEL_WIDTH;
    switch (dtype) {
    case BRAID_F32: return pack_rows_of(BRAID_F32, rows, lanes, k, scale, width, panel);
    case BRAID_BF16: return pack_rows_of(BRAID_BF16, rows, lanes, k, scale, width, panel);
    case BRAID_FP8: return pack_rows_of(BRAID_FP8, rows, lanes, k, scale, width, panel);
    case BRAID_INT8: return pack_rows_of(BRAID_INT8, rows, lanes, k, scale, width, panel);
    case BRAID_FP4: return;  // see fp4.h
    }
}

/// Packs the rows of a tile as [k][rows], so that a tile reads through one pointer. Writes up to 16 floats beyond.
static void pack_tile(const float *const *x, int64_t rows, int64_t k, float *to) {
    const char *from[16];
    for (int64_t r = 0; r < 16; r++) from[r] = (const char *)x[at_most(r, rows - 1)];
    if (rows == BRAID_TILE_ROWS) pack_rows_of(BRAID_F32, from, rows, k, splat(0), BRAID_TILE_ROWS, to);
    else pack_rows_of(BRAID_F32, from, rows, k, splat(0), rows, to);
}

/// Returns the number of rows of the next tile when `left` remain. Tiles are as even as possible, because a tile with
/// few rows has too few chains to keep the units busy.
BRAID_INLINE int64_t tile_rows(int64_t left) {
    int64_t tiles = (left + BRAID_TILE_ROWS - 1) / BRAID_TILE_ROWS;
    return (left + tiles - 1) / tiles;
}

/// Rows that will be packed next and are prefetched meanwhile: piece i, prefetched at step 4 i of a tile, is `lines`
/// cache lines of row i / BRAID_PIECES. BRAID_PIECES pieces make up the row's K block.
typedef struct {
    const char *from;
    int64_t row, piece;  // distances in bytes
    int lines;
} braid_wanted;

#define BRAID_K_BLOCK 256  // k of a panel of weights: 32 KiB, which fit the first-level cache
#define BRAID_PIECES (BRAID_K_BLOCK / 4 / BRAID_PANEL_WIDTH)

BRAID_INLINE void fetch_piece(braid_wanted wanted, int64_t i) {
    uint64_t row = (uint64_t)i / BRAID_PIECES, piece = (uint64_t)i % BRAID_PIECES;
    const char *from = wanted.from + (int64_t)row * wanted.row + (int64_t)piece * wanted.piece;
    for (int line = 0; line < wanted.lines; line++) __builtin_prefetch(from + 64 * line, 0, 2);
}

/// Continues rows * BRAID_PANEL vectors of chains down a panel. `rows` is a constant where this is inlined.
BRAID_INLINE void run_chains(
    int rows, const float *x, const float *panel, int64_t k, braid_wanted wanted, f16 a[BRAID_TILE_ROWS][BRAID_PANEL]
) {
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        fetch_piece(wanted, (int64_t)((uint64_t)i / 4));
        BRAID_UNROLL for (int j = 0; j < 4; j++) {
            f16 w[BRAID_PANEL];
            BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) w[v] = load16(panel + j * BRAID_PANEL_WIDTH + 16 * v);
            BRAID_UNROLL for (int r = 0; r < rows; r++)
                BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
                    a[r][v] = fma16(splat(x[j * rows + r]), w[v], a[r][v]);
        }
        x += 4 * rows;
        panel += 4 * BRAID_PANEL_WIDTH;
    }
    for (; i < k; i++, x += rows, panel += BRAID_PANEL_WIDTH)
        BRAID_UNROLL for (int r = 0; r < rows; r++)
            BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
                a[r][v] = fma16(splat(x[r]), load16(panel + 16 * v), a[r][v]);
}

/// Calls `tile(constant, ...)` with the constant that equals `rows`.
#if BRAID_TILE_ROWS == 12
#define BRAID_FOR_ROWS(rows, tile, ...)               \
    switch (rows) {                                   \
    case 12: tile(12, __VA_ARGS__); break;            \
    case 11: tile(11, __VA_ARGS__); break;            \
    case 10: tile(10, __VA_ARGS__); break;            \
    case 9: tile(9, __VA_ARGS__); break;              \
    case 8: tile(8, __VA_ARGS__); break;              \
    case 7: tile(7, __VA_ARGS__); break;              \
    case 6: tile(6, __VA_ARGS__); break;              \
    case 5: tile(5, __VA_ARGS__); break;              \
    case 4: tile(4, __VA_ARGS__); break;              \
    case 3: tile(3, __VA_ARGS__); break;              \
    case 2: tile(2, __VA_ARGS__); break;              \
    default: tile(1, __VA_ARGS__); break;             \
    }
#else
#define BRAID_FOR_ROWS(rows, tile, ...)               \
    switch (rows) {                                   \
    case 6: tile(6, __VA_ARGS__); break;              \
    case 5: tile(5, __VA_ARGS__); break;              \
    case 4: tile(4, __VA_ARGS__); break;              \
    case 3: tile(3, __VA_ARGS__); break;              \
    case 2: tile(2, __VA_ARGS__); break;              \
    default: tile(1, __VA_ARGS__); break;             \
    }
#endif

/// Calls `tile(constant, ...)` with the constant that equals `n`, which is 1 to `most`.
#define BRAID_FOR_FEW(n, most, tile, ...)                          \
    switch (n) {                                                     \
    case 8: if ((most) >= 8) { tile(8, __VA_ARGS__); } break;        \
    case 7: if ((most) >= 7) { tile(7, __VA_ARGS__); } break;        \
    case 6: if ((most) >= 6) { tile(6, __VA_ARGS__); } break;        \
    case 5: if ((most) >= 5) { tile(5, __VA_ARGS__); } break;        \
    case 4: if ((most) >= 4) { tile(4, __VA_ARGS__); } break;        \
    case 3: if ((most) >= 3) { tile(3, __VA_ARGS__); } break;        \
    case 2: tile(2, __VA_ARGS__); break;                             \
    default: tile(1, __VA_ARGS__); break;                            \
    }
