// The exact best k of each row by radix selection: three histograms of the scores' order keys (11, 11 and 10 bits)
// find the k-th largest key, then one ascending pass writes the winners.
#pragma once

#include "../include/topk.h"
#include "../reference/order.h"
#include "vector.h"

/// Where the k-th largest key is known to lie: keys whose top bits are `prefix`, of which `wanted` are still to be taken.
typedef struct {
    uint32_t prefix;
    int64_t wanted;
} topk_cut;

/// Walks a histogram from its largest bin to the one with the `wanted`-th key.
BRAID_INLINE topk_cut narrow_cut(topk_cut cut, const uint32_t *histogram, int bits) {
    uint32_t bin = (1u << bits) - 1;
    while (histogram[bin] < cut.wanted) cut.wanted -= histogram[bin--];
    return (topk_cut){cut.prefix << bits | bin, cut.wanted};
}

BRAID_INLINE topk_cut find_cut(const float *scores, int64_t n, int64_t k, uint32_t *histogram) {
    static const int widths[3] = {11, 11, 10};
    topk_cut cut = {0, k};
    int seen = 0;
    for (int pass = 0; pass < 3; pass++) {
        int bits = widths[pass], below = 32 - seen - bits;
        memset(histogram, 0, sizeof(uint32_t) << bits);
        for (int64_t i = 0; i < n; i++) {
            uint32_t key = order_key(scores[i]);
            bool inside = seen == 0 || key >> (32 - seen) == cut.prefix;
            if (inside) histogram[key >> below & ((1u << bits) - 1)]++;
        }
        cut = narrow_cut(cut, histogram, bits);
        seen += bits;
    }
    return cut;
}

static void top_k(const braid_top_k *p) {
    for (int64_t r = 0; r < p->m; r++) {
        int64_t n = p->visible[r], k = n < p->k ? n : p->k;
        const float *scores = p->scores + r * p->scores_stride;
        int32_t *selected = p->selected + r * p->selected_stride;
        p->counts[r] = (int32_t)k;
        if (k == n) {
            for (int64_t i = 0; i < n; i++) selected[i] = (int32_t)i;
            continue;
        }
        if (k == 0) continue;
        topk_cut cut = find_cut(scores, n, k, p->scratch);
        for (int64_t i = 0; i < n; i++) {
            uint32_t key = order_key(scores[i]);
            if (key > cut.prefix || (key == cut.prefix && cut.wanted-- > 0)) *selected++ = (int32_t)i;
        }
    }
}
