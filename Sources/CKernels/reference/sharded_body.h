// Attention keys that are sharded over ranks. All levels share this code: integers are moved and compared.
#pragma once

#include <string.h>

#include "../include/sharded.h"

static inline int32_t word_at(const float *row, int64_t i) {
    int32_t word;
    memcpy(&word, row + i, sizeof word);
    return word;
}

static inline void pack_candidate_rows(const braid_pack_candidates *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const float *scores = p->scores + r * p->scores_stride;
        float *out = p->out + r * p->out_stride;
        memcpy(out, p->counts + r, sizeof *out);
        for (int64_t i = 0; i < p->counts[r]; i++) {
            int32_t number = p->selected[r * p->k + i], position = (int32_t)braid_sharded(p->owned, number);
            out[1 + i] = scores[number];
            memcpy(out + 1 + p->k + i, &position, sizeof position);
        }
    }
}

/// Returns true if all positions are valid keys of the row: at most `last`, and strictly ascending.
static inline bool is_ascending(const int32_t *positions, int64_t n, int32_t last) {
    for (int64_t i = 0; i < n; i++)
        if (positions[i] < 0 || positions[i] > last || (i > 0 && positions[i] <= positions[i - 1])) return false;
    return true;
}

/// Merges two lists that ascend by position into one.
static inline void merge_two(
    const float *scores, const int32_t *positions, int64_t first, int64_t middle, int64_t end, float *to_scores,
    int32_t *to_positions
) {
    for (int64_t a = first, b = middle, i = first; i < end; i++) {
        int64_t next = b == end || (a < middle && positions[a] < positions[b]) ? a++ : b++;
        to_scores[i] = scores[next];
        to_positions[i] = positions[next];
    }
}

/// Merges the candidates of all ranks for row `i`, ascending by position, into `*scores` and `*positions`. Returns
/// their number.
static inline int64_t merge_candidate_lists(
    const braid_merge_candidates *p, int64_t i, const float **scores, const int32_t **positions
) {
    const int64_t room = p->ranks * p->k;
    float *values[2];
    int32_t *keys[2];
    int64_t *ends = (int64_t *)(p->scratch + BRAID_TOP_K_SCRATCH), count = 0;
    values[0] = (float *)(ends + p->ranks + 1);
    values[1] = values[0] + room;
    keys[0] = (int32_t *)(values[1] + room);
    keys[1] = keys[0] + room;
    for (int64_t s = 0; s < p->ranks; s++) {
        const float *row = p->candidates + (s * p->rank_rows + p->rows[i]) * p->stride;
        int64_t n = word_at(row, 0);
        n = n < 0 ? 0 : n > p->k ? p->k : n;
        for (int64_t j = 0; j < n; j++) {
            int32_t position = word_at(row, 1 + p->k + j);
            if (position < 0 || position > p->last[i]) continue;
            values[0][count] = row[1 + j];
            keys[0][count++] = position;
        }
        ends[s] = count;
    }
    int from = 0;
    for (int64_t lists = p->ranks; lists > 1; lists = (lists + 1) / 2, from ^= 1)
        for (int64_t s = 0, first = 0; s < lists; s += 2) {
            int64_t middle = ends[s], end = s + 1 < lists ? ends[s + 1] : middle;
            merge_two(values[from], keys[from], first, middle, end, values[from ^ 1], keys[from ^ 1]);
            first = ends[s / 2] = end;
        }
    *scores = values[from];
    *positions = keys[from];
    return count;
}

/// Replaces the indices that top_k left in `selected` by positions, or by zeros where they cannot be right.
static inline void finish_selection(
    const braid_merge_candidates *p, int64_t i, int64_t count, const int32_t *positions, int32_t *selected
) {
    bool is_whole = count >= p->k;
    for (int64_t j = 0; j < p->k && is_whole; j++) selected[j] = positions[selected[j]];
    if (is_whole && is_ascending(selected, p->k, p->last[i])) return;
    memset(selected, 0, (size_t)p->k * sizeof *selected);
}

static inline void sharded_key_rows(const braid_sharded_keys *p) {
    for (int64_t r = 0; r < p->m; r++) {
        const int64_t position = p->positions[r];
        int32_t *keys = p->keys + r * p->keys_stride;
        int64_t count = 0;
        if (p->k > 0 && position >= p->k) {
            const int32_t *selected = p->selected + r * p->selected_stride;
            for (int64_t i = 0; i < p->k; i++)
                if (braid_in_shard(p->owned, selected[i])) keys[count++] = selected[i];
        } else {
            for (int64_t own; (own = braid_sharded(p->owned, count)) <= position; count++) keys[count] = (int32_t)own;
        }
        p->counts[r] = (int32_t)count;
        *p->total += count;
    }
}
