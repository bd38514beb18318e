// Attention keys that are sharded over ranks.
#include "../include/sharded.h"

#include "sharded_body.h"

void reference_top_k(const braid_top_k *);

void reference_pack_candidates(const braid_pack_candidates *p) { pack_candidate_rows(p); }

void reference_merge_candidates(const braid_merge_candidates *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const float *scores;
        const int32_t *positions;
        int64_t count = merge_candidate_lists(p, i, &scores, &positions);
        int32_t visible = (int32_t)count, found, *selected = p->selected + p->out_rows[i] * p->k;
        const braid_top_k best = {
            .m = 1, .k = p->k, .scores = scores, .visible = &visible, .selected = selected, .counts = &found,
            .scratch = p->scratch};
        reference_top_k(&best);
        finish_selection(p, i, count, positions, selected);
    }
}

void reference_sharded_keys(const braid_sharded_keys *p) { sharded_key_rows(p); }
