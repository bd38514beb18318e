// The exact top k of each row.
//
// Radix selection: histograms of the scores' order keys (11, 11 and 10 bits) find the k-th largest key, then one
// ascending pass writes the selected positions. In a long row, a sample first gives a key that slightly more than k
// scores should reach; only those scores are kept and selected from. If the sample was misleading (too few or too many
// reach the key), the whole row is selected from, so the result never depends on the sample.
#pragma once

#include "../include/topk.h"
#include "select.h"
#include "vector.h"

/// The widest histogram has this many bins.
#define BRAID_TOP_K_BINS 2048
/// At most this many scores are kept. Their positions follow them, and each list has space for a last whole vector.
#define BRAID_TOP_K_KEPT ((BRAID_TOP_K_SCRATCH - BRAID_TOP_K_BINS) / 2 - 16)
/// Rows with fewer scores are not sampled.
#define BRAID_TOP_K_SAMPLED 8192

/// A cut takes all scores above `key`, and the first `wanted` of the scores with exactly this key.
typedef struct {
    uint32_t key;
    int64_t wanted;
} topk_cut;

/// Computes `order_key` (reference/order.h) on sixteen lanes.
BRAID_INLINE u16 order_keys(f16 x) {
    u16 bits = (u16)(x + splat(0));
    u16 keys = bits ^ ((u16)((i16)bits >> 31) | 0x80000000u);
    return keys & (u16)(x == x);
}

/// Converts a comparison to bits: bit l is lane l.
BRAID_INLINE uint32_t lane_bits(i16 mask) {
    typedef _Bool flags __attribute__((ext_vector_type(16)));
    flags f = __builtin_convertvector(mask, flags);
    uint16_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

BRAID_INLINE f16 load_scores(const float *scores, int64_t i, int64_t n) {
    return n - i >= 16 ? load16(scores + i) : load_some(scores + i, n - i);
}

/// Returns the bits of the lanes from `i` on that are inside a row of n.
BRAID_INLINE uint32_t lanes_inside(int64_t i, int64_t n) { return n - i >= 16 ? 0xFFFF : (1u << (n - i)) - 1; }

/// Writes the lanes of `values` in `lanes` consecutively; may overwrite up to a whole vector from `out` on.
BRAID_INLINE void compress_lanes(uint32_t *out, u16 values, uint32_t lanes) {
#if defined(BRAID_COMPRESS)
    u16 packed = (u16)_mm512_maskz_compress_epi32((__mmask16)lanes, (__m512i)values);
    memcpy(out, &packed, sizeof packed);
#else
    uint32_t v[16];
    memcpy(v, &values, sizeof v);
    for (; lanes; lanes &= lanes - 1) *out++ = v[__builtin_ctz(lanes)];
#endif
}

/// Counts keys by the `bits` bits from bit `below` on, among those whose higher bits are `prefix`.
BRAID_INLINE void count_keys(
    const float *scores, int64_t n, uint32_t prefix, int below, int bits, uint32_t *histogram) {
    uint32_t last = (1u << bits) - 1;
    memset(histogram, 0, sizeof(uint32_t) << bits);
    for (int64_t i = 0; i < n; i += 16) {
        u16 keys = order_keys(load_scores(scores, i, n)), bins = keys >> below & last;
        uint32_t lanes = lanes_inside(i, n), bin[16];
        memcpy(bin, &bins, sizeof bin);
        if (below + bits < 32) lanes &= lane_bits(keys >> (below + bits) == prefix);
        if (lanes == 0xFFFF) {
            for (int l = 0; l < 16; l++) histogram[bin[l]]++;
        } else {
            for (; lanes; lanes &= lanes - 1) histogram[bin[__builtin_ctz(lanes)]]++;
        }
    }
}

/// Returns the cut of the `k` largest of n scores, 1 <= k <= n.
static topk_cut find_cut(const float *scores, int64_t n, int64_t k, uint32_t *histogram) {
    static const int widths[3] = {11, 11, 10};
    topk_cut cut = {0, k};
    int below = 32;
    for (int pass = 0; pass < 3; pass++) {
        int bits = widths[pass];
        below -= bits;
        count_keys(scores, n, cut.key, below, bits, histogram);
        uint32_t bin = (1u << bits) - 1;
        while (histogram[bin] < cut.wanted) cut.wanted -= histogram[bin--];
        cut.key = cut.key << bits | bin;
    }
    return cut;
}

/// Writes, ascending, the positions of the scores above the cut and of the first `wanted` at it: k in all.
/// The position of score i is `positions[i]`, or i when that is NULL.
static void write_winners(
    const float *scores, const uint32_t *positions, int64_t n, topk_cut cut, int64_t k, int32_t *selected) {
    const u16 iota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int64_t count = 0;
    for (int64_t i = 0; count < k; i += 16) {
        u16 keys = order_keys(load_scores(scores, i, n)), at = iota + (uint32_t)i;
        uint32_t inside = lanes_inside(i, n);
        uint32_t lanes = lane_bits(keys > cut.key) & inside, ties = lane_bits(keys == cut.key) & inside;
        for (; ties && cut.wanted > 0; ties &= ties - 1, cut.wanted--) lanes |= ties & -ties;
        if (positions) memcpy(&at, positions + i, sizeof at);
        uint32_t winners[16];
        int64_t found = __builtin_popcount(lanes);
        if (k - count >= 16) {
            compress_lanes((uint32_t *)selected + count, at, lanes);
        } else {
            compress_lanes(winners, at, lanes);
            memcpy(selected + count, winners, (size_t)found * sizeof(int32_t));
        }
        count += found;
    }
}

/// Keeps the scores whose keys reach `key`, with their positions. Returns the number that reach it, kept or not.
static int64_t keep_scores(const float *scores, int64_t n, uint32_t key, float *kept, uint32_t *positions) {
    const u16 iota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int64_t count = 0;
    for (int64_t i = 0; i < n && count <= BRAID_TOP_K_KEPT; i += 16) {
        f16 v = load_scores(scores, i, n);
        uint32_t lanes = lane_bits(order_keys(v) >= key) & lanes_inside(i, n);
        compress_lanes((uint32_t *)kept + count, (u16)v, lanes);
        compress_lanes(positions + count, iota + (uint32_t)i, lanes);
        count += __builtin_popcount(lanes);
    }
    return count;
}

/// Returns the key that, judging by one vector of scores in 32, k scores plus four standard deviations should reach.
static uint32_t sampled_key(const float *scores, int64_t n, int64_t k, float *sample, uint32_t *histogram) {
    int64_t vectors = n / 512 < BRAID_TOP_K_KEPT / 16 ? n / 512 : BRAID_TOP_K_KEPT / 16, stride = n / 16 / vectors;
    for (int64_t i = 0; i < vectors; i++) store16(sample + 16 * i, load16(scores + 16 * i * stride));
    float expected = (float)k * (float)(16 * vectors) / (float)n;
    int64_t rank = (int64_t)(expected + 4 * sqrtf(expected)) + 4;
    return find_cut(sample, 16 * vectors, rank, histogram).key;
}

/// Selects with the help of a sample; returns false if the sample was misleading.
static bool select_sampled(const float *scores, int64_t n, int64_t k, uint32_t *scratch, int32_t *selected) {
    uint32_t *histogram = scratch, *positions = scratch + BRAID_TOP_K_BINS;
    float *kept = (float *)(positions + BRAID_TOP_K_KEPT + 16);
    uint32_t key = sampled_key(scores, n, k, kept, histogram);
    int64_t count = keep_scores(scores, n, key, kept, positions);
    if (count < k || count > BRAID_TOP_K_KEPT) return false;
    write_winners(kept, positions, count, find_cut(kept, count, k, histogram), k, selected);
    return true;
}

static void select_row(const float *scores, int64_t n, int64_t k, uint32_t *scratch, int32_t *selected) {
    if (k <= 0) return;
    if (k == n) {
        for (int64_t i = 0; i < n; i++) selected[i] = (int32_t)i;
        return;
    }
    bool sampled = n >= BRAID_TOP_K_SAMPLED && k <= n / 4 && k <= BRAID_TOP_K_KEPT / 2;
    if (sampled && select_sampled(scores, n, k, scratch, selected)) return;
    write_winners(scores, NULL, n, find_cut(scores, n, k, scratch), k, selected);
}

static void top_k(const braid_top_k *p) {
    for (int64_t r = 0; r < p->m; r++) {
        int64_t n = p->visible[r], k = n < p->k ? n : p->k;
        p->counts[r] = (int32_t)k;
        select_row(
            p->scores + r * p->scores_stride, n, k, p->scratch, p->selected + r * p->selected_stride);
    }
}
