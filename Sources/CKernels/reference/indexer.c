// Scores of the lightning indexer: one chain per dot product, then one chain over the heads.
#include "../include/indexer.h"

#include "weights.h"

#pragma STDC FP_CONTRACT OFF

void reference_index_scores(const braid_index_scores *p) {
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t i = 0; i < p->count; i++) {
            int64_t entry = entry_of(p->pages, p->page_shift, braid_sharded(p->owned, p->first + i));
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
