// Attention by classes of positions: for each class all scores, softmax, then the weighted sums.
#pragma once

#if defined(__x86_64__)
#include "attention_bf16.h"
#endif
#include "attention_row.h"

#define BRAID_SUM_BLOCK 128  // keys summed together

/// Returns true if tiles should read keys as stored and widen them in registers.
BRAID_INLINE bool reads_as_stored(const braid_attention *p) {
    const braid_lane *lane = &p->latent;
    const int64_t most = p->direct_key_max_heads > 0 ? p->direct_key_max_heads : BRAID_STORED_HEADS;
    if (p->heads > most || p->rope.dtype == BRAID_FP8) return false;
    // Tiles must be whole, and no tile may have elements of two groups.
    if (p->rotary_values && p->rope.width % BRAID_STORED_WIDTH != 0) return false;
    bool one_group = lane->dtype != BRAID_FP8 || lane->group % BRAID_STORED_WIDTH == 0 || lane->group >= lane->width;
    return lane->width % BRAID_STORED_WIDTH == 0 && p->rope.width % 16 == 0 && one_group;
}

/// Prepares the keys `begin ..< begin + count` as a block for tiles of scores, widened if tiles need that. The last key
/// fills the rest of the block.
static void begin_block(const braid_attention_row *w, int64_t begin, int64_t count, braid_key_part parts[2]) {
    const int64_t last = w->begin[8] - 1;  // prefetching goes beyond the class, because the next class follows
    for (int64_t j = 0; j < BRAID_KEY_BLOCK; j++) {
        int64_t key = begin + at_most(j, count - 1), ahead = at_most(begin + j + BRAID_KEYS_AHEAD, last);
        parts[0].keys[j] = latent_of(w, key);
        parts[1].keys[j] = rope_of(w, key);
        parts[0].ahead[j] = latent_of(w, ahead);
        parts[1].ahead[j] = rope_of(w, ahead);
    }
    for (int64_t j = 0; j < BRAID_KEY_BLOCK && !w->stored; j++) {
        float *widened = w->keys + at_most(j, count - 1) * w->width, *rope = widened + w->latent_width;
        if (j < count) {
            widen_lane(&w->p->latent, parts[0].keys[j], 0, w->p->latent.width, widened);
            widen_lane(&w->p->rope, parts[1].keys[j], 0, w->p->rope.width, rope);
            fetch_entry(&w->p->latent, parts[0].ahead[j]);
            fetch_entry(&w->p->rope, parts[1].ahead[j]);
        }
        parts[0].keys[j] = (const char *)widened;
        parts[1].keys[j] = (const char *)rope;
    }
}

/// Writes scores of heads `h0 ..< h0 + heads` with keys `begin ..< begin + count` of the row into e [heads, e_stride].
static void score_keys(
    const braid_attention_row *w, int64_t h0, int64_t heads, int64_t begin, int64_t count, int64_t e_stride
) {
    const braid_lane *latent = &w->p->latent, *rope = &w->p->rope;
    braid_key_part parts[2] = {
        {.dtype = w->stored ? latent->dtype : BRAID_F32, .width = w->latent_width, .group = latent->group,
         .scales_at = scale_offset(latent, 0), .scale_type = latent->scale_type},
        {.dtype = w->stored ? rope->dtype : BRAID_F32, .width = w->width - w->latent_width},
    };
    for (int64_t i = 0; i < count; i += BRAID_KEY_BLOCK) {
        int64_t keys = at_most(count - i, BRAID_KEY_BLOCK);
        begin_block(w, begin + i, keys, parts);
        score_block(
            heads, keys, w->stored, w->q + h0 * w->width, w->width, parts, w->p->scale, w->e + i, e_stride);
    }
}

/// Computes the weighted sums of a group of heads over one part of the keys, the latent or the rotary one. The heads'
/// sums are a value apart in `out`.
static void sum_part(
    const braid_attention_row *w, bool rotary, int64_t heads, int64_t begin, int64_t count, int64_t e_stride, float *out
) {
    const braid_lane *lane = rotary ? &w->p->rope : &w->p->latent;
    const int64_t step = w->stored ? BRAID_STORED_WIDTH : BRAID_SUM_WIDTH;
    const char *keys[BRAID_SUM_BLOCK];
    for (int64_t i = 0; i < count; i += BRAID_SUM_BLOCK) {
        braid_sum_keys block = {
            .dtype = w->stored ? lane->dtype : BRAID_F32, .keys = keys, .count = at_most(count - i, BRAID_SUM_BLOCK),
            .scale_type = lane->scale_type};
        const float *last = i + block.count == count ? w->factor : 0;
        for (int64_t d = 0; d < lane->width; d += step) {
            int64_t width = at_most(lane->width - d, step);
            for (int64_t j = 0; j < block.count && (d == 0 || !w->stored); j++) {
                float *widened = w->keys + j * BRAID_SUM_WIDTH;
                keys[j] = rotary ? rope_of(w, begin + i + j) : latent_of(w, begin + i + j);
                if (w->stored) continue;
                widen_lane(lane, keys[j], d, width, widened);
                keys[j] = (const char *)widened;
            }
            if (w->stored) block.at = d * bytes_of(lane->dtype);
            if (block.dtype == BRAID_FP8) block.scale_at = scale_offset(lane, d / lane->group);
            sum_block(heads, w->stored, w->e + i, e_stride, &block, i == 0, last, width, out + d, w->value_width);
        }
    }
}

/// Computes attention of all heads over the keys of the class at a place, which are not none.
static void attend_class(braid_attention_row *w, int64_t place, float *out, float *lse) {
    const int64_t begin = w->begin[place], count = w->begin[place + 1] - begin, width = w->value_width;
    // Selected keys may all be of one class; then there is space for the scores of fewer heads at a time.
    int64_t e_stride = whole_vectors(count), group = at_most(w->heads, w->e_size / e_stride);
    for (int64_t h = 0; h < w->heads; h += group) {
        int64_t heads = at_most(group, w->heads - h);
        score_keys(w, h, heads, begin, count, e_stride);
        softmax_keys(w, heads, count, e_stride, lse + h);
        sum_part(w, false, heads, begin, count, e_stride, out + h * width);
        if (!w->p->rotary_values) continue;
        sum_part(w, true, heads, begin, count, e_stride, out + h * width + w->p->latent.width);
    }
}

void reference_attention(const braid_attention *);

static void attention(const braid_attention *p) {
    if (p->profile == BRAID_PROFILE_F32) return attend_rows(p, reads_as_stored(p), attend_class);
#if defined(__x86_64__)
    attend_rows(p, false, attend_bf16_class);
#else
    reference_attention(p);  // see decision 0023
#endif
}

static void merge_attention(const braid_merge *p) {
    merge_rows(p->m * p->heads, p->width, p->a, p->a_lse, p->b, p->b_lse);
}

static void apply_sink(const braid_sink *p) {
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < p->heads; h++) {
            float *x = p->x + r * p->x_stride + h * p->width;
            const f16 factor = splat(1.0f / (1.0f + exp_scalar(p->sinks[h] - p->lse[r * p->heads + h])));
            int64_t d = 0;
            for (; d + 16 <= p->width; d += 16) store16(x + d, load16(x + d) * factor);
            store_some(x + d, load_some(x + d, p->width - d) * factor, p->width - d);
        }
}
