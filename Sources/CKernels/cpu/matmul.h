// Matrix products: panels of weights are widened and transposed once, then every tile of rows runs its chains down
// them. Products of few rows are limited by reading the weights, and use no panels.
#pragma once

#include "chains.h"
#include "elementwise.h"
#include "matmul_bf16.h"

#define BRAID_VNNI 0
#define BRAID_INT8(name) int8_word_##name
#define BRAID_INT8_FEW_ROWS 6
#include "int8_products.h"
#undef BRAID_VNNI
#undef BRAID_INT8
#undef BRAID_INT8_FEW_ROWS

/// Returns the number of 16-output groups computed side by side. A step of a chain waits for the previous one, however
/// many rows there are, and a second group fills the wait. If memory is slower than the wait (F32) or registers are
/// scarce, one group is faster. Weights of a byte or less, whose cache lines last longest, profit from two for any
/// number of rows.
BRAID_INLINE int few_groups(braid_dtype dtype, int m) {
    return bits_of(dtype) <= 8 || (dtype == BRAID_BF16 && m == 1) ? BRAID_FEW_GROUPS : 1;
}

/// Returns the most rows that are faster without a panel. Rows beyond those side by side read the same weights again
/// from the second-level cache and widen them again; that pays for one more pass while a panel would have fewer rows.
BRAID_INLINE int64_t gemv_rows_at_most(const braid_matmul *p) {
    const braid_dtype dtype = p->w.dtype;
    if (p->gemv_max_rows > 0) return p->gemv_max_rows;
    if (BRAID_FEW_GROUPS == 1 || dtype == BRAID_F32) return BRAID_FEW_ROWS;
    return dtype == BRAID_BF16 ? 2 * BRAID_FEW_ROWS : BRAID_FEW_ROWS + BRAID_FEW_ROWS / 2;
}

BRAID_INLINE void matmul_tile(
    int rows, const float *x, const float *panel, int64_t k, braid_wanted wanted, bool first, float *const *out
) {
    f16 a[BRAID_TILE_ROWS][BRAID_PANEL];
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) a[r][v] = first ? splat(0) : load16(out[r] + 16 * v);
    run_chains(rows, x, panel, k, wanted, a);
    BRAID_UNROLL for (int r = 0; r < rows; r++)
        BRAID_UNROLL for (int v = 0; v < BRAID_PANEL; v++) store16(out[r] + 16 * v, a[r][v]);
}

/// How a product's rows and weights are packed and multiplied, tile by tile.
typedef struct {
    /// Packs terms k ..< k + x_k of rows `m ..< end`, in tiles, each [x_k][rows of the tile].
    void (*pack_rows)(const braid_matmul *p, int64_t m, int64_t end, int64_t k, int64_t x_k, float *x);
    /// Packs terms k ..< k + count of the weights of a panel's outputs, which begin at `n`.
    void (*pack_weights)(const braid_matmul *p, int64_t n, int64_t k, int64_t count, float *panel);
    /// Continues the outputs of a tile's rows, which begin at +0 if `first`.
    void (*multiply)(
        int64_t rows, const float *x, const float *panel, int64_t count, braid_wanted wanted, bool first,
        float *const *out);
    int64_t terms;  // in each packed word
} braid_panel_kind;

static void multiply_f32(
    int64_t rows, const float *x, const float *panel, int64_t count, braid_wanted wanted, bool first, float *const *out
) {
    BRAID_FOR_ROWS(rows, matmul_tile, x, panel, count, wanted, first, out)
}

static void multiply_bf16(
    int64_t rows, const float *x, const float *panel, int64_t count, braid_wanted wanted, bool first, float *const *out
) {
    BRAID_FOR_ROWS(rows, bf16_tile, x, panel, count, wanted, first, out)
}

static const braid_panel_kind f32_panels = {pack_x, pack_weights, multiply_f32, 1};
static const braid_panel_kind bf16_panels = {pack_bf16_x, pack_bf16_weights, multiply_bf16, 1};

/// Multiplies rows `m ..< end` with one panel. `x` holds their tiles, at the panel's first term.
BRAID_INLINE void matmul_panel(
    const braid_panel_kind *kind, const braid_matmul *p, const float *panel, int64_t m, int64_t end, int64_t n,
    int64_t count, const float *x, int64_t x_k, int64_t x_from, bool first, braid_wanted wanted
) {
    float edge[BRAID_TILE_ROWS][BRAID_PANEL_WIDTH];
    float *out[BRAID_TILE_ROWS], *to[BRAID_TILE_ROWS];
    const char *start = wanted.from;
    for (int64_t rows; m < end; m += rows) {
        rows = tile_rows(end - m);
        begin_edge(p, m, rows, end, n, first, edge, out, to);
        kind->multiply(rows, x + x_from / kind->terms * rows, panel, count, wanted, first, to);
        x += x_k / kind->terms * rows;
        next_wanted(&wanted, start);
        end_edge(p, rows, n, edge, out);
    }
}

/// Computes a product with panels. `kind` is a constant.
BRAID_INLINE void matmul_panels(const braid_panel_kind *kind, const braid_matmul *p) {
    const int64_t room = BRAID_PANEL_SCRATCH - BRAID_K_BLOCK * BRAID_PANEL_WIDTH - 16;
    const int64_t most_rows = room / BRAID_K_BLOCK / BRAID_TILE_ROWS * BRAID_TILE_ROWS;
    float *panel = p->scratch, *x = panel + BRAID_K_BLOCK * BRAID_PANEL_WIDTH;
    for (int64_t m = 0; m < p->m; m += most_rows) {
        int64_t end = at_most(m + most_rows, p->m);
        int64_t k_step = room / (end - m) / BRAID_K_BLOCK * BRAID_K_BLOCK;  // this much of x is packed at once
        int64_t k0 = 0;
        do {
            int64_t x_k = at_most(k_step, p->k - k0);
            kind->pack_rows(p, m, end, k0, x_k, x);
            for (int64_t n = 0; n < p->n; n += BRAID_PANEL_WIDTH) {
                int64_t k = k0;
                do {
                    int64_t count = at_most(k0 + x_k - k, BRAID_K_BLOCK);
                    kind->pack_weights(p, n, k, count, panel);
                    bool first = k == 0 && !p->accumulate;
                    bool again = k + count < k0 + x_k;  // the next panel continues this one
                    braid_wanted wanted = wanted_weights(
                        p, again ? n : n + BRAID_PANEL_WIDTH, again ? k + count : k0,
                        (end - m + BRAID_TILE_ROWS - 1) / BRAID_TILE_ROWS);
                    matmul_panel(kind, p, panel, m, end, n, count, x, x_k, k - k0, first, wanted);
                    k += count;
                } while (k < k0 + x_k);
            }
            k0 += x_k;
        } while (k0 < p->k);
    }
}

/// Computes outputs n ..< n + lanes of all rows, at most `groups` times sixteen. `m` and `groups` are constants.
BRAID_INLINE void few_outputs(
    const braid_matmul *p, braid_row_bytes row, braid_dtype dtype, int m, int groups, const float *const *x, int64_t n,
    int64_t lanes, f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS]
) {
    const int64_t step = 64 / bytes_of(dtype), stride = p->w.stride * bytes_of(dtype);
    const char *rows[BRAID_FEW_GROUPS * 16];
    u16 v[BRAID_FEW_GROUPS][16];
    f16 scale[BRAID_FEW_GROUPS];
    for (int64_t l = 0; l < 16 * groups; l++) rows[l] = weight_bytes(&p->w, n + at_most(l, lanes - 1), 0);
    for (int64_t k = 0, end; k < p->k; k = end) {
        end = p->k;
        for (int g = 0; g < groups; g++) scale[g] = scales_at(p, n + 16 * g, lanes_left(lanes - 16 * g), k, &end);
        int64_t i = k;
        if (lanes == 16 * groups)
            for (; i + step <= end; i += step) {
                const int64_t offset = i * bytes_of(dtype), ahead = ahead_of(offset, row, 16 * groups * stride);
                BRAID_UNROLL for (int g = 0; g < groups; g++) {
                    BRAID_UNROLL for (int l = 0; l < 16; l++) {
                        const char *next = rows[16 * g] + l * stride + ahead;
                        if (groups == 1) __builtin_prefetch(next, 0, 0);
                        else __builtin_prefetch(next, 0, 3);  // so many rows would evict each other from L1
                    }
                    load_columns(rows + 16 * g, offset, v[g]);
                }
                dot_chains(dtype, m, groups, v, step, scale, x, i, a);
            }
        for (; i < end; i += step) {
            int64_t count = at_most(end - i, step);
            for (int g = 0; g < groups; g++)
                load_some_columns(
                    rows + 16 * g, lanes_left(lanes - 16 * g), i * bytes_of(dtype), count * bytes_of(dtype), v[g]);
            dot_chains(dtype, m, groups, v, count, scale, x, i, a);
        }
    }
}

/// Computes outputs n ..< n + lanes of rows `first ..< first + m`. `m` and `groups` are constants.
BRAID_INLINE void few_group(
    const braid_matmul *p, braid_row_bytes row, braid_dtype dtype, int m, int groups, int64_t first, int64_t n,
    int64_t lanes
) {
    const float *x[BRAID_FEW_ROWS];
    f16 a[BRAID_FEW_GROUPS][BRAID_FEW_ROWS];
    BRAID_UNROLL for (int r = 0; r < m; r++) x[r] = x_row(p, first + r);
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            a[g][r] = p->accumulate ? load_some(out_row(p, first + r) + n + 16 * g, lanes_left(lanes - 16 * g))
                                    : splat(0);
    if (dtype == BRAID_FP4) few_outputs_fp4(&p->w, p->k, row, m, groups, x, n, lanes, a);
    else few_outputs(p, row, dtype, m, groups, x, n, lanes, a);
    BRAID_UNROLL for (int g = 0; g < groups; g++)
        BRAID_UNROLL for (int r = 0; r < m; r++)
            store_some(out_row(p, first + r) + n + 16 * g, a[g][r], lanes_left(lanes - 16 * g));
}

/// Computes as many outputs from `n` on as fit side by side, for `m` rows, a constant. Returns where the next outputs
/// begin.
BRAID_INLINE int64_t few_side_by_side(
    const braid_matmul *p, braid_row_bytes row, braid_dtype dtype, int m, int64_t first, int64_t n
) {
    const int groups = few_groups(dtype, m);
    int64_t lanes = at_most(p->n - n, 16 * groups);
    if (lanes == 16 * groups) {
        few_group(p, row, dtype, m, groups, first, n, 16 * groups);
        return n + 16 * groups;
    }
    few_group(p, row, dtype, m, 1, first, n, at_most(lanes, 16));
    return n + 16;
}

/// Computes outputs from `n` on of all rows of one product, and returns where the next outputs begin.
BRAID_INLINE int64_t few_rows_of(const braid_matmul *p, braid_row_bytes row, braid_dtype dtype, int64_t n) {
    const int64_t times = (p->m + BRAID_FEW_ROWS - 1) / BRAID_FEW_ROWS, most = (p->m + times - 1) / times;
    int64_t next = p->n;
    for (int64_t first = 0; first < p->m; first += most) {
        switch (at_most(most, p->m - first)) {
#if BRAID_FEW_ROWS == 8
        case 8: next = few_side_by_side(p, row, dtype, 8, first, n); break;
        case 7: next = few_side_by_side(p, row, dtype, 7, first, n); break;
        case 6: next = few_side_by_side(p, row, dtype, 6, first, n); break;
        case 5: next = few_side_by_side(p, row, dtype, 5, first, n); break;
#endif
        case 4: next = few_side_by_side(p, row, dtype, 4, first, n); break;
        case 3: next = few_side_by_side(p, row, dtype, 3, first, n); break;
        case 2: next = few_side_by_side(p, row, dtype, 2, first, n); break;
        default: next = few_side_by_side(p, row, dtype, 1, first, n); break;
        }
    }
    return next;
}

BRAID_INLINE void gemv_rows(const braid_matmul *parts, int64_t count, braid_dtype dtype) {
    for (int64_t n = 0, next; n < parts->n; n = next) {
        next = parts->n;
        for (int64_t part = 0; part < count; part++)
            next = few_rows_of(parts + part, row_bytes(parts, count, part), dtype, n);
    }
}

static void matmul_few(const braid_matmul *parts, int64_t count) {
    switch (parts->w.dtype) {
    case BRAID_F32: return gemv_rows(parts, count, BRAID_F32);
    case BRAID_BF16: return gemv_rows(parts, count, BRAID_BF16);
    case BRAID_FP8: return gemv_rows(parts, count, BRAID_FP8);
    case BRAID_INT8: return gemv_rows(parts, count, BRAID_INT8);
    case BRAID_FP4: return gemv_rows(parts, count, BRAID_FP4);
    }
}

/// Returns whether products are computed without panels.
BRAID_INLINE bool are_few(const braid_matmul *parts, int64_t count) {
    if (parts->transposed || parts->m > gemv_rows_at_most(parts)) return false;
    return !braid_rounds_to_bf16(parts->profile) || has_whole_chunks(parts, count);
}

BRAID_FLUSHING void multiply(const braid_matmul *parts, int64_t count) {
    const bool is_bf16 = braid_rounds_to_bf16(parts->profile);
    if (are_few(parts, count)) return is_bf16 ? bf16_few(parts, count) : matmul_few(parts, count);
    for (int64_t part = 0; part < count; part++)
        if (is_bf16) matmul_panels(&bf16_panels, parts + part);
        else matmul_panels(&f32_panels, parts + part);
}

/// Computes `count` products of one shape, which are consecutive K-slices of the same weights if there are several. Few rows
/// read each weight row once from its beginning to its end, as if there were no slices: memory is slower at short pieces.
/// INT8 products, and those of the BF16 profile on Arm, are computed slice by slice.
static void products(const braid_matmul *parts, int64_t count) {
    if (parts->m == 0) return;
    if (parts->k > 0 && is_int8_product(parts->profile, &parts->w, parts->transposed)) {
        for (int64_t part = 0; part < count; part++) int8_word_matmul(parts + part);
        return;
    }
    if (!braid_rounds_to_bf16(parts->profile)) return multiply(parts, count);
    if (parts->k == 0) {  // no block of terms ends, so that nothing would be written
        for (int64_t part = 0; part < count; part++) {
            braid_matmul empty = parts[part];
            empty.profile = BRAID_PROFILE_F32;
            multiply(&empty, 1);
        }
        return;
    }
#if defined(__x86_64__)
    unsigned before = begin_flushing();
    multiply(parts, count);
    end_flushing(before);
#else
    for (const braid_matmul *p = parts; p < parts + count; p++) {
        if (p->accumulate || can_be_tiny(p)) reference_matmul(p);
        else multiply(p, 1);
    }
#endif
}

static void matmul(const braid_matmul *p) { products(p, 1); }

/// Computes products as `products` does. What consists of products takes those of its level.
typedef void (*braid_products)(const braid_matmul *parts, int64_t count);

BRAID_INLINE void batched_products(const braid_batched_matmul *p, braid_products products) {
    for (int64_t b = 0; b < p->count; b++) {
        braid_matmul product = p->product;
        product.w = weight_part(product.w, b * p->w_step, 0);
        product.x += b * p->x_step;
        product.out += b * p->out_step;
        products(&product, 1);
    }
}

static void batched_matmul(const braid_batched_matmul *p) { batched_products(p, products); }

/// Computes the subtree of `slices` K-slices of one block of outputs; `spare` has space for the levels below.
static void slice_tree(const braid_matmul *p, int64_t slices, float *spare, braid_products products) {
    if (slices == 1) {
        products(p, 1);
        return;
    }
    braid_matmul left = *p, right = *p;
    left.k = right.k = p->k / 2;
    right.w = weight_part(p->w, 0, right.k);
    right.x += right.k;
    right.out = spare;
    right.out_stride = p->n;
    slice_tree(&left, slices / 2, spare + p->m * p->n, products);
    slice_tree(&right, slices / 2, spare + p->m * p->n, products);
    const braid_add sum = {
        .m = p->m, .n = p->n, .a = left.out, .a_stride = left.out_stride, .b = right.out, .b_stride = right.out_stride,
        .out = p->out, .out_stride = p->out_stride};
    add(&sum);
}

/// Returns the product of one of `slices` K-slices of a product, with the same outputs.
BRAID_INLINE braid_matmul slice_of(const braid_matmul *p, int64_t slices, int64_t slice) {
    braid_matmul part = *p;
    part.k = p->k / slices;
    part.w = weight_part(p->w, 0, slice * part.k);
    part.x += slice * part.k;
    return part;
}

/// Computes the `slices` K-slices of a product, [p->m, p->n] each. Their outputs begin `distance` floats apart in `partial`.
BRAID_INLINE void slice_products(
    const braid_matmul *p, int64_t slices, float *partial, int64_t distance, braid_products products
) {
    braid_matmul parts[BRAID_SLICES_AT_ONCE];
    for (int64_t slice = 0, count; slice < slices; slice += count) {
        count = at_most(BRAID_SLICES_AT_ONCE, slices - slice);
        for (int64_t part = 0; part < count; part++) {
            parts[part] = slice_of(p, slices, slice + part);
            parts[part].out = partial + (slice + part) * distance;
            parts[part].out_stride = p->n;
        }
        products(parts, count);
    }
}

/// Computes a block of outputs of few rows: all slices, and then their tree, in place.
static void few_slices(const braid_matmul *p, int64_t slices, float *partial, braid_products products) {
    const int64_t each = p->m * p->n;
    if (slices == 1) return products(p, 1);
    slice_products(p, slices, partial, each, products);
    for (int64_t left = slices / 2; left > 0; left /= 2)
        for (int64_t i = 0; i < left; i++) {
            const braid_add sum = {
                .m = p->m, .n = p->n, .a = partial + 2 * i * each, .a_stride = p->n,
                .b = partial + (2 * i + 1) * each, .b_stride = p->n, .out = left == 1 ? p->out : partial + i * each,
                .out_stride = left == 1 ? p->out_stride : p->n};
            add(&sum);
        }
}

BRAID_INLINE void sliced_products(const braid_sliced_matmul *p, braid_products products) {
    const int64_t columns = braid_sliced_columns(p->product.profile, p->product.m);
    for (int64_t n = 0; n < p->product.n; n += columns) {
        braid_matmul block = p->product;
        block.w = weight_part(block.w, n, 0);
        block.n = at_most(columns, block.n - n);
        block.out += n;
        if (p->product.m <= BRAID_SLICED_FEW_ROWS) few_slices(&block, p->slices, p->partial, products);
        else slice_tree(&block, p->slices, p->partial, products);
    }
}

static void sliced_matmul(const braid_sliced_matmul *p) { sliced_products(p, products); }

static void embedding(const braid_embedding *p) {
    const braid_weight *w = &p->w;
    for (int64_t i = 0; i < p->m; i++) {
        int64_t row = p->ids[i];
        float *out = p->out + i * p->out_stride;
        for (int64_t n = 0, lanes; n < p->n; n += lanes) {
            f16 v = widen_some(w, row, n, p->n, &lanes);
            store_some(out + n, v, lanes);
        }
    }
}
