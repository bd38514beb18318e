// Products of many rows in the BF16 profile for AVX-512 with VDPBF16PS, which continues sixteen chains with two terms
// each. With terms k and k + 2 as its pair, and from +0, its chains are those of the profile. Every other kernel of the
// table is that of AVX-512 with VNNI.
#pragma once

#include "exactness.h"
#include "vnni.h"

#define BRAID_DOT_TERMS 4  // that two words hold: one word of even terms, and one of odd terms

/// Joins terms, each `width` floats that are exact in BF16, to half as many rows of words: of terms k and k + 2, and of
/// k + 1 and k + 3. The earlier term is the upper half, whose product the instruction adds first. `to` may be `from`.
static void join_terms(const float *from, int64_t count, int64_t width, float *to) {
    for (int64_t k = 0; k < count; k += BRAID_DOT_TERMS, from += BRAID_DOT_TERMS * width, to += 2 * width)
        for (int64_t i = 0; i < width; i += 16) {
            const int64_t lanes = lanes_left(width - i);
            u16 terms[BRAID_DOT_TERMS];
            BRAID_UNROLL for (int j = 0; j < BRAID_DOT_TERMS; j++)
                terms[j] = (u16)load_some(from + j * width + i, lanes);
            store_some(to + i, (f16)((terms[0] & 0xFFFF0000u) | terms[2] >> 16), lanes);
            store_some(to + width + i, (f16)((terms[1] & 0xFFFF0000u) | terms[3] >> 16), lanes);
        }
}

static void pack_dot_x(const braid_matmul *p, int64_t m, int64_t end, int64_t k, int64_t x_k, float *x) {
    pack_bf16_x(p, m, end, k, x_k, x);
    float *to = x;
    for (int64_t rows; m < end; m += rows, x += x_k * rows, to += x_k / 2 * rows) {
        rows = tile_rows(end - m);
        join_terms(x, x_k, rows, to);
    }
}

static void pack_dot_weights(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel) {
    pack_bf16_weights(p, n, k, count, panel);
    join_terms(panel, count, BRAID_PANEL_WIDTH, panel);
}

/// Continues a chain of each of `rows` rows with two terms. `rows` is a constant.
BRAID_INLINE void run_dots(int rows, const float *x, const float *panel, f16 a[BRAID_BF16_ROWS][BRAID_PANEL]) {
    f16 w[BRAID_PANEL];
    BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) w[v] = load16(panel + 16 * v);
    BRAID_UNROLL for (int r = 0; r < rows; r++) {
        const __m512bh both = (__m512bh)splat(x[r]);
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++)
            a[r][v] = (f16)_mm512_dpbf16_ps((__m512)a[r][v], both, (__m512bh)w[v]);
    }
}

/// Adds a block of `terms` terms to the outputs of `rows` rows of a tile of `all` rows. The outputs begin at +0 if
/// `first`. `rows` and `all` are constants.
BRAID_INLINE void dots_block(
    int rows, int all, const float *x, const float *panel, int64_t terms, bool first, float *const *out
) {
    f16 even[BRAID_BF16_ROWS][BRAID_PANEL], odd[BRAID_BF16_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) even[r][v] = odd[r][v] = splat(0);
    for (int64_t i = 0; i < terms; i += BRAID_DOT_TERMS, x += 2 * all, panel += 2 * BRAID_PANEL_WIDTH) {
        run_dots(rows, x, panel, even);
        run_dots(rows, x + all, panel + BRAID_PANEL_WIDTH, odd);
    }
    add_chains(rows, even, odd, terms, first, out);
}

/// Adds the blocks of `k` terms to the outputs of a tile, which begin at +0 if `first`. `rows` is a constant.
BRAID_INLINE void dots_tile(
    int rows, const float *x, const float *panel, int64_t k, braid_wanted wanted, bool first, float *const *out
) {
    const int upper = (rows + 1) / 2;
    for (int64_t i = 0; i < k; i += BRAID_BF16_BLOCK, first = false) {
        const int64_t terms = at_most(k - i, BRAID_BF16_BLOCK);
        const float *xs = x + i / 2 * rows, *weights = panel + i / 2 * BRAID_PANEL_WIDTH;
        for (int64_t piece = i / 4; piece < (i + terms) / 4; piece++) fetch_piece(wanted, piece);
        dots_block(upper, rows, xs, weights, terms, first, out);
        if (rows > 1) dots_block(rows - upper, rows, xs + upper, weights, terms, first, out + upper);
    }
}

static void multiply_with_dots(
    int64_t rows, const float *x, const float *panel, int64_t count, braid_wanted wanted, bool first, float *const *out
) {
    BRAID_FOR_ROWS(rows, dots_tile, x, panel, count, wanted, first, out)
}

static const braid_panel_kind dot_panels = {pack_dot_x, pack_dot_weights, multiply_with_dots, 2};

BRAID_FLUSHING void multiply_dots(const braid_matmul *parts, int64_t count) {
    for (int64_t part = 0; part < count; part++) matmul_panels(&dot_panels, parts + part);
}

static void dots_products(const braid_matmul *parts, int64_t count) {
    if (!braid_rounds_to_bf16(parts->profile) || parts->m == 0 || parts->k == 0 || parts->k % BRAID_DOT_TERMS != 0
        || is_int8_product(parts->profile, &parts->w, parts->transposed) || are_few(parts, count))
        return vnni_products(parts, count);
    unsigned before = begin_flushing();
    multiply_dots(parts, count);
    end_flushing(before);
}

static void dots_matmul(const braid_matmul *p) { dots_products(p, 1); }
static void dots_batched_matmul(const braid_batched_matmul *p) { batched_products(p, dots_products); }
static void dots_sliced_matmul(const braid_sliced_matmul *p) { sliced_products(p, dots_products); }
static void dots_expert_hidden(const braid_expert_hidden *p) { expert_hidden_products(p, dots_products); }
static void dots_expert_sums(const braid_expert_sums *p) { expert_sums_products(p, dots_products); }

/// Adds a block of terms to sixteen sums, as dots_block does.
BRAID_FLUSHING void add_exact_block(const uint16_t a[BRAID_BF16_BLOCK], const braid_exact_sums *s, float sums[16]) {
    f16 chains[2] = {splat(0), splat(0)};
    for (int k = 0; k < BRAID_BF16_BLOCK; k += BRAID_DOT_TERMS)
        for (int odd = 0; odd < 2; odd++) {
            uint32_t words[16];
            for (int j = 0; j < 16; j++)
                words[j] = (uint32_t)s->b[k / 2][j][odd] << 16 | s->b[k / 2 + 1][j][odd];
            const uint32_t both = (uint32_t)a[k + odd] << 16 | a[k + 2 + odd];
            chains[odd] = (f16)_mm512_dpbf16_ps(
                (__m512)chains[odd], (__m512bh)_mm512_set1_epi32((int)both), (__m512bh)_mm512_loadu_si512(words));
        }
    store16(sums, load16(sums) + (chains[0] + chains[1]));
}

static void add_exact_dots(braid_exact_sums *s) {
    unsigned before = begin_flushing();
    for (int i = 0; i < 16; i++) add_exact_block(s->a[i], s, s->c[i]);
    end_flushing(before);
}

/// Returns whether random numbers, and sums next to 2^-126, are added as profile.h defines.
bool braid_dots_are_exact(void) {
    return are_exact(add_exact_dots);
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winitializer-overrides"
const braid_kernels braid_avx512_dots = {
    BRAID_TABLE_ENTRIES
    .name = "AVX-512 BF16",
    .matmul = dots_matmul,
    .batched_matmul = dots_batched_matmul,
    .sliced_matmul = dots_sliced_matmul,
    .expert_hidden = dots_expert_hidden,
    .expert_sums = dots_expert_sums,
};
#pragma clang diagnostic pop
