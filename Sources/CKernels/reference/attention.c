// Attention by classes of positions, and the merge of partial results.
#include "../include/attention.h"

#include "bf16.h"
#include "math.h"
#include "order.h"

#pragma STDC FP_CONTRACT OFF

static float bf16_score_of(const braid_attention *p, const float *q, int64_t entry) {
    braid_bf16_sum sum = bf16_sum_from(0);
    for (int64_t d = 0; d < p->latent.width; d++)
        bf16_sum_add(&sum, bf16_rounded(q[d]), bf16_lane_at(&p->latent, entry, d));
    sum = bf16_sum_from(bf16_sum_total(&sum));
    for (int64_t d = 0; d < p->rope.width; d++)
        bf16_sum_add(&sum, bf16_rounded(q[p->latent.width + d]), bf16_lane_at(&p->rope, entry, d));
    return bf16_sum_total(&sum) * p->scale;
}

static float score_of(const braid_attention *p, const float *q, int64_t entry) {
    if (p->profile == BRAID_PROFILE_BF16) return bf16_score_of(p, q, entry);
    float a[16] = {0};
    for (int64_t d = 0; d < p->latent.width; d++) a[d % 16] = fmaf(q[d], lane_at(&p->latent, entry, d), a[d % 16]);
    for (int64_t d = 0; d < p->rope.width; d++)
        a[d % 16] = fmaf(q[p->latent.width + d], lane_at(&p->rope, entry, d), a[d % 16]);
    return add_halves(a) * p->scale;
}

/// Writes the positions of row `r` in class `c`, ascending, into `positions`, and returns their number.
static int64_t keys_of_class(const braid_attention *p, int64_t r, int32_t c, int32_t *positions) {
    int64_t count = 0;
    if (p->selected) {
        for (int32_t i = 0; i < p->selected_count[r]; i++) {
            int32_t position = p->selected[r * p->selected_stride + i];
            if (position % 8 == c) positions[count++] = position;
        }
    } else {
        for (int64_t position = c; position <= p->positions[r]; position += 8) positions[count++] = (int32_t)position;
    }
    return count;
}

/// Computes softmax and weighted sum over one class; `e` has space for one number per key.
static void attend_class(
    const braid_attention *p, const float *q, const int32_t *positions, int64_t count, float *e, float *out, float *lse
) {
    const int64_t latent = p->latent.width, width = braid_value_width(p);
    for (int64_t d = 0; d < width; d++) out[d] = 0;
    *lse = -INFINITY;
    if (count == 0) return;
    float maximum = -INFINITY, sums[16] = {0};
    for (int64_t i = 0; i < count; i++) {
        e[i] = score_of(p, q, entry_of(p->pages, p->page_shift, positions[i]));
        if (e[i] > maximum) maximum = e[i];
    }
    for (int64_t i = 0; i < count; i++) {
        e[i] = exp_scalar(e[i] - maximum);
        sums[i % 16] += e[i];
    }
    float sum = add_halves(sums), factor = 1.0f / sum;
    for (int64_t d = 0; d < width; d++) {
        const braid_lane *lane = d < latent ? &p->latent : &p->rope;
        const int64_t column = d < latent ? d : d - latent;
        braid_bf16_sum sum = bf16_sum_from(0);
        for (int64_t i = 0; i < count; i++) {
            const int64_t entry = entry_of(p->pages, p->page_shift, positions[i]);
            if (p->profile == BRAID_PROFILE_BF16)
                bf16_sum_add(&sum, bf16_rounded(e[i]), bf16_lane_at(lane, entry, column));
            else out[d] = fmaf(e[i], lane_at(lane, entry, column), out[d]);
        }
        if (p->profile == BRAID_PROFILE_BF16) out[d] = bf16_sum_total(&sum);
        out[d] *= factor;
    }
    *lse = maximum + log_scalar(sum);
}

static void merge(int64_t width, float *a, float *a_lse, const float *b, float b_lse) {
    bool empty = *a_lse == -INFINITY && b_lse == -INFINITY;
    float m = *a_lse > b_lse ? *a_lse : b_lse;
    float wa = exp_scalar(*a_lse - m), wb = exp_scalar(b_lse - m), s = wa + wb;
    for (int64_t d = 0; d < width; d++) a[d] = empty ? 0 : fmaf(wb / s, b[d], (wa / s) * a[d]);
    *a_lse = empty ? -INFINITY : m + log_scalar(s);
}

/// Merges the classes `c`, `c + step`, `c + 2 step` … as a tree: the left half takes every other class from `c`, the
/// right half every other class from `c + step`. From (0, 1) the leaves come in the order 0 4 2 6 1 5 3 7. `scratch`
/// holds the right halves on the way down, then a class's positions and its exponentials.
static void attend_subtree(
    const braid_attention *p, int64_t r, int64_t h, int32_t c, int32_t step, float *out, float *lse, float *scratch
) {
    const float *q = p->q + r * p->q_stride + h * (p->latent.width + p->rope.width);
    if (step == 8) {
        int32_t *positions = (int32_t *)scratch;
        int64_t count = keys_of_class(p, r, c, positions);
        attend_class(p, q, positions, count, scratch + count, out, lse);
        return;
    }
    const int64_t width = braid_value_width(p);
    float *right = scratch, right_lse;
    attend_subtree(p, r, h, c, step * 2, out, lse, scratch);
    attend_subtree(p, r, h, c + step, step * 2, right, &right_lse, scratch + width);
    merge(width, out, lse, right, right_lse);
}

void reference_attention(const braid_attention *p) {
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < p->heads; h++)
            attend_subtree(
                p, r, h, p->class_offset, p->class_stride, p->out + r * p->out_stride + h * braid_value_width(p),
                p->lse + r * p->heads + h, p->scratch);
}

void reference_merge_attention(const braid_merge *p) {
    for (int64_t i = 0; i < p->m * p->heads; i++)
        merge(p->width, p->a + i * p->width, p->a_lse + i, p->b + i * p->width, p->b_lse[i]);
}

void reference_apply_sink(const braid_sink *p) {
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < p->heads; h++) {
            float *x = p->x + r * p->x_stride + h * p->width;
            float factor = 1.0f / (1.0f + exp_scalar(p->sinks[h] - p->lse[r * p->heads + h]));
            for (int64_t d = 0; d < p->width; d++) x[d] = x[d] * factor;
        }
}
