// Scores of the lightning indexer: one chain per dot product, then one chain over the heads.
#include "../include/indexer.h"

#include "bf16.h"
#include "order.h"

#pragma STDC FP_CONTRACT OFF

/// Returns one score in the BF16 profile.
static float bf16_score(const braid_index_scores *p, int64_t r, int64_t entry) {
    const braid_lane *keys = &p->keys;
    const bool scaled_last = keys->dtype == BRAID_FP8 && keys->group >= keys->width;
    float sums[16] = {0};
    for (int64_t h = 0; h < p->heads; h++) {
        const float *q = p->q + (r * p->heads + h) * keys->width;
        braid_bf16_sum dot = bf16_sum_from(0);
        for (int64_t d = 0; d < keys->width; d++)
            bf16_sum_add(
                &dot, bf16_rounded(q[d]),
                scaled_last ? unscaled_lane_at(keys, entry, d) : bf16_lane_at(keys, entry, d));
        float a = bf16_sum_total(&dot);
        sums[h % 16] = fmaf(p->weights[r * p->heads + h], 0 > a ? 0 : a, sums[h % 16]);
    }
    float score = add_halves(sums);
    return scaled_last ? score * entry_scale(keys, entry_at(keys, entry), 0) : score;
}

void reference_index_scores(const braid_index_scores *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t i = 0; i < p->count; i++) {
            int64_t entry = entry_of(p->pages, p->page_shift, braid_sharded(p->owned, p->first + i));
            if (p->profile == BRAID_PROFILE_BF16) {
                p->scores[r * p->scores_stride + i] = bf16_score(p, r, entry);
                continue;
            }
            float s = 0;
            for (int64_t h = 0; h < p->heads; h++) {
                const float *q = p->q + (r * p->heads + h) * p->keys.width;
                float a = 0;
                for (int64_t d = 0; d < p->keys.width; d++) a = fmaf(q[d], lane_at(&p->keys, entry, d), a);
                s = fmaf(p->weights[r * p->heads + h], 0 > a ? 0 : a, s);  // a NaN stays
            }
            p->scores[r * p->scores_stride + i] = s;
        }
    }
}
