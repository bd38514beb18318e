// Attention keys that are sharded over ranks.
#pragma once

#include "../reference/sharded_body.h"
#include "topk.h"

static void pack_candidates(const braid_pack_candidates *p) { pack_candidate_rows(p); }

static void merge_candidates(const braid_merge_candidates *p) {
    for (int64_t i = 0; i < p->m; i++) {
        const float *scores;
        const int32_t *positions;
        int64_t count = merge_candidate_lists(p, i, &scores, &positions);
        int32_t *selected = p->selected + p->out_rows[i] * p->k;
        select_row(scores, count, at_most(count, p->k), p->scratch, selected);
        finish_selection(p, i, count, positions, selected);
    }
}

static void sharded_keys(const braid_sharded_keys *p) { sharded_key_rows(p); }
