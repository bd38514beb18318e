// Attention by classes of positions: for each class all scores, softmax, then the weighted sums.
#pragma once

#include "attention_tiles.h"

#define BRAID_SUM_BLOCK 128  // keys summed together

/// Holds the work of one row, and the places of its parts in the scratch.
typedef struct {
    const braid_attention *p;
    int64_t heads;
    bool stored;             // tiles read keys as they are stored, not widened into `keys`
    int64_t latent_width, width;  // of the latent part and of all, padded to whole vectors
    int64_t latent_bytes, rope_bytes;  // from one stored entry to the next
    const float *q;          // [heads, width]
    float *keys;             // widened keys: [BRAID_KEY_BLOCK, width] or [BRAID_SUM_BLOCK, BRAID_SUM_WIDTH]
    float *factor;           // [heads of a group] 1 / sum
    float *results[3];       // right halves of the tree: [heads, latent], followed by [heads] of lse
    int64_t *entries;        // the row's keys, class by class in the order of their places
    int64_t begin[9];        // the index in `entries` at which each place's class begins
    float *e;                // [heads of a group, a class's keys]
    int64_t e_size;
} braid_attention_row;

BRAID_INLINE const char *latent_of(const braid_attention_row *w, int64_t key) {
    return (const char *)w->p->latent.data + w->entries[key] * w->latent_bytes;
}

BRAID_INLINE const char *rope_of(const braid_attention_row *w, int64_t key) {
    return (const char *)w->p->rope.data + w->entries[key] * w->rope_bytes;
}

/// Returns true if tiles should read keys as stored and widen them in registers.
BRAID_INLINE bool reads_as_stored(const braid_attention *p) {
    const braid_lane *lane = &p->latent;
    const int64_t most = p->direct_key_max_heads > 0 ? p->direct_key_max_heads : BRAID_STORED_HEADS;
    if (p->heads > most || p->rope.dtype == BRAID_FP8) return false;
    // Tiles must be whole, and no tile may have elements of two groups.
    bool one_group = lane->dtype != BRAID_FP8 || lane->group % BRAID_STORED_WIDTH == 0 || lane->group >= lane->width;
    return lane->width % BRAID_STORED_WIDTH == 0 && p->rope.width % 16 == 0 && one_group;
}

/// Widens FP8 elements as widen_lane does; `from` is a multiple of sixteen, so that no vector has elements of two
/// groups.
BRAID_INLINE void widen_scaled(const braid_lane *lane, const char *entry, int64_t from, int64_t n, float *out) {
    const float *scales = entry_scales(lane, entry);
    for (int64_t d = 0, group = from / lane->group; d < n; group++) {
        int64_t end = at_most(n, (group + 1) * lane->group - from);
        f16 scale = splat(scales[group]);
        for (; d + 32 <= end; d += 32) {
            f16 two[2];
            widen_32_fp8(entry + from + d, two);
            store16(out + d, two[0] * scale);
            store16(out + d + 16, two[1] * scale);
        }
        for (; d + 16 <= end; d += 16) store16(out + d, widen_row(BRAID_FP8, entry + from + d, 16, scale));
        if (d == end) continue;
        f16 rest = widen_row(BRAID_FP8, entry + from + d, end - d, scale);
        store16(out + d, splat(0));  // clears the padding, whatever the scale is
        store_some(out + d, rest, end - d);
        d = end;
    }
}

/// Widens `n` elements of a stored entry to F32, and writes zeros up to a whole vector.
static void widen_lane(const braid_lane *lane, const char *data, int64_t from, int64_t n, float *out) {
    int64_t d = 0;
    if (lane->dtype == BRAID_FP8) {
        widen_scaled(lane, data, from, n, out);
    } else if (lane->dtype == BRAID_BF16) {
        const char *p = data + from * 2;
        for (; d + 16 <= n; d += 16) store16(out + d, widen_bf16(p + d * 2));
        if (d < n) store16(out + d, widen_row(BRAID_BF16, p + d * 2, n - d, splat(0)));
    } else {
        const float *p = (const float *)data + from;
        for (; d + 16 <= n; d += 16) store16(out + d, load16(p + d));
        if (d < n) store16(out + d, load_some(p + d, n - d));
    }
}

/// Returns the place of a class in the tree, which is its bits reversed.
BRAID_INLINE int64_t place_of(int64_t c) { return (c & 1) << 2 | (c & 2) | (c & 4) >> 2; }

/// Sorts those of the row's keys that are in the classes to be computed by the places of their classes; within a class
/// keys stay ascending.
static void sort_keys(braid_attention_row *w, int64_t r) {
    const braid_attention *p = w->p;
    int64_t next[8] = {0}, total = p->selected ? p->selected_count[r] : (int64_t)p->positions[r] + 1;
    const int32_t *selected = p->selected ? p->selected + r * p->selected_stride : 0;
    const int32_t mask = p->class_stride - 1;
    for (int64_t i = 0; i < total; i++) {
        int32_t position = selected ? selected[i] : (int32_t)i;
        next[place_of(position & 7)] += (position & mask) == p->class_offset;
    }
    w->begin[0] = 0;
    for (int place = 0; place < 8; place++) {
        w->begin[place + 1] = w->begin[place] + next[place];
        next[place] = w->begin[place];
    }
    for (int64_t i = 0; i < total; i++) {
        int32_t position = selected ? selected[i] : (int32_t)i;
        if ((position & mask) != p->class_offset) continue;
        w->entries[next[place_of(position & 7)]++] = entry_of(p->pages, p->page_shift, position);
    }
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
         .scales_at = braid_scales_offset(latent->width)},
        {.dtype = w->stored ? rope->dtype : BRAID_F32, .width = w->width - w->latent_width},
    };
    for (int64_t i = 0; i < count; i += BRAID_KEY_BLOCK) {
        int64_t keys = at_most(count - i, BRAID_KEY_BLOCK);
        begin_block(w, begin + i, keys, parts);
        score_block(
            heads, keys, w->stored, w->q + h0 * w->width, w->width, parts, w->p->scale, w->e + i, e_stride);
    }
}

/// Replaces scores by their exponentials, sets `maximum` to the largest score, and returns the sum of exponentials.
static float exponentials(float *e, int64_t count, float *maximum) {
    for (int64_t i = count; i < whole_vectors(count); i++) e[i] = -INFINITY;
    f16 largest = splat(-INFINITY), sum = splat(0);
    for (int64_t i = 0; i < count; i += 16) largest = larger_of(load16(e + i), largest);
    *maximum = largest_lane(largest);
    for (int64_t i = 0; i < count; i += 16) {
        f16 v = exp16(load16(e + i) - splat(*maximum));
        store16(e + i, v);
        sum = sum + v;
    }
    return sum_lanes(sum);
}

/// Replaces the scores of all heads by their exponentials. `w->factor` becomes 1 / their sums, and `lse` the logs of
/// the sums of the scores' exponentials.
static void softmax_keys(const braid_attention_row *w, int64_t heads, int64_t count, int64_t e_stride, float *lse) {
    for (int64_t h = 0; h < heads; h += 16) {
        const int64_t lanes = lanes_left(heads - h);
        f16 maxima = splat(0), sums = splat(1);
        for (int64_t i = 0; i < lanes; i++) {
            float maximum;
            sums[i] = exponentials(w->e + (h + i) * e_stride, count, &maximum);
            maxima[i] = maximum;
        }
        store_some(w->factor + h, splat(1) / sums, lanes);
        store_some(lse + h, maxima + log16(sums), lanes);
    }
}

/// Computes the weighted sums of a group of heads; out is [heads, latent].
static void sum_keys(
    const braid_attention_row *w, int64_t heads, int64_t begin, int64_t count, int64_t e_stride, const float *factor,
    float *out
) {
    const braid_lane *lane = &w->p->latent;
    const int64_t step = w->stored ? BRAID_STORED_WIDTH : BRAID_SUM_WIDTH, scales_at = braid_scales_offset(lane->width);
    const char *keys[BRAID_SUM_BLOCK];
    for (int64_t i = 0; i < count; i += BRAID_SUM_BLOCK) {
        braid_sum_keys block = {w->stored ? lane->dtype : BRAID_F32, keys, at_most(count - i, BRAID_SUM_BLOCK), 0, 0};
        const float *last = i + block.count == count ? factor : 0;
        for (int64_t d = 0; d < lane->width; d += step) {
            int64_t width = at_most(lane->width - d, step);
            for (int64_t j = 0; j < block.count && (d == 0 || !w->stored); j++) {
                float *widened = w->keys + j * BRAID_SUM_WIDTH;
                keys[j] = latent_of(w, begin + i + j);
                if (w->stored) continue;
                widen_lane(lane, keys[j], d, width, widened);
                keys[j] = (const char *)widened;
            }
            if (w->stored) block.at = d * bytes_of(lane->dtype);
            if (block.dtype == BRAID_FP8) block.scale_at = scales_at + d / lane->group * 4;
            sum_block(heads, w->stored, w->e + i, e_stride, &block, i == 0, last, width, out + d, lane->width);
        }
    }
}

/// Computes attention of all heads over the keys of the class at a place.
static void attend_class(const braid_attention_row *w, int64_t place, float *out, float *lse) {
    int64_t begin = w->begin[place], count = w->begin[place + 1] - begin, latent = w->p->latent.width;
    if (count == 0) {
        memset(out, 0, (size_t)(w->heads * latent) * sizeof(float));
        for (int64_t h = 0; h < w->heads; h++) lse[h] = -INFINITY;
        return;
    }
    // Selected keys may all be of one class; then there is space for the scores of fewer heads at a time.
    int64_t e_stride = whole_vectors(count), group = at_most(w->heads, w->e_size / e_stride);
    for (int64_t h = 0; h < w->heads; h += group) {
        int64_t heads = at_most(group, w->heads - h);
        score_keys(w, h, heads, begin, count, e_stride);
        softmax_keys(w, heads, count, e_stride, lse + h);
        sum_keys(w, heads, begin, count, e_stride, w->factor, out + h * latent);
    }
}

/// Computes a = fa * a + fb * b, rounding fa * a first. If both are empty, the result is 0.
static void merge_row(int64_t width, float *a, const float *b, f16 fa, f16 fb, bool empty) {
    if (empty) {
        memset(a, 0, (size_t)width * sizeof(float));
        return;
    }
    int64_t d = 0;
    for (; d + 16 <= width; d += 16) store16(a + d, fma16(fb, load16(b + d), fa * load16(a + d)));
    if (d == width) return;
    int64_t n = width - d;
    store_some(a + d, fma16(fb, load_some(b + d, n), fa * load_some(a + d, n)), n);
}

static void merge_rows(int64_t rows, int64_t width, float *a, float *a_lse, const float *b, const float *b_lse) {
    for (int64_t i = 0; i < rows; i += 16) {
        const int64_t lanes = lanes_left(rows - i);
        f16 la = load_some(a_lse + i, lanes), lb = load_some(b_lse + i, lanes);
        f16 m = where(la > lb, la, lb), wa = exp16(la - m), wb = exp16(lb - m), s = wa + wb;
        i16 empty = (la == splat(-INFINITY)) & (lb == splat(-INFINITY));
        f16 fa = wa / s, fb = wb / s;
        store_some(a_lse + i, where(empty, la, m + log16(s)), lanes);
        for (int64_t l = 0; l < lanes; l++)
            merge_row(width, a + (i + l) * width, b + (i + l) * width, splat(fa[l]), splat(fb[l]), empty[l]);
    }
}

/// Merges the leaves in order as a binary counter does: after leaf i, one merge follows for each 1 bit at the end of i.
static void attend_row(const braid_attention_row *w, float *out, float *lse) {
    const braid_attention *p = w->p;
    int64_t latent = p->latent.width, stride = p->class_stride;
    float *result[4] = {out, w->results[0], w->results[1], w->results[2]};
    float *result_lse[4] = {lse};
    for (int i = 1; i < 4; i++) result_lse[i] = result[i] + w->heads * latent;
    for (int64_t i = 0, first = place_of(p->class_offset); i * stride < 8; i++) {
        int depth = __builtin_popcountll((unsigned long long)i);
        attend_class(w, first + i, result[depth], result_lse[depth]);
        for (int64_t j = i; j & 1; j >>= 1, depth--)
            merge_rows(
                w->heads, latent, result[depth - 1], result_lse[depth - 1], result[depth], result_lse[depth]);
    }
}

/// Copies the row's queries to `to`, both parts padded to whole vectors, and returns `to`.
static const float *pad_queries(const braid_attention_row *w, float *to) {
    const int64_t latent = w->p->latent.width, rope = w->p->rope.width;
    memset(to, 0, (size_t)(w->heads * w->width) * sizeof(float));
    for (int64_t h = 0; h < w->heads; h++) {
        const float *from = w->q + h * (latent + rope);
        memcpy(to + h * w->width, from, (size_t)latent * sizeof(float));
        memcpy(to + h * w->width + w->latent_width, from + latent, (size_t)rope * sizeof(float));
    }
    return to;
}

static void attention(const braid_attention *p) {
    braid_attention_row w = {.p = p, .heads = p->heads, .stored = reads_as_stored(p)};
    int64_t latent = p->latent.width, rope = p->rope.width;
    w.latent_bytes = braid_entry_bytes(p->latent.dtype, latent, p->latent.group);
    w.rope_bytes = braid_entry_bytes(p->rope.dtype, rope, p->rope.group);
    w.latent_width = whole_vectors(latent);
    w.width = w.latent_width + whole_vectors(rope);
    w.keys = p->scratch;
    float *q = w.keys + BRAID_ATTENTION_KEYS, *next = q + p->heads * w.width;
    for (int i = 0; i < 3; i++, next += p->heads * (latent + 1)) w.results[i] = next;
    w.factor = next;
    w.e = q + whole_vectors(next + p->heads - q);
    for (int64_t r = 0; r < p->m; r++) {
        w.e_size = braid_attention_scores(p->heads, p->selected ? p->selected_count[r] : (int64_t)p->positions[r] + 1);
        w.entries = (int64_t *)(w.e + w.e_size);
        sort_keys(&w, r);
        w.q = p->q + r * p->q_stride;
        if (w.width != latent + rope) w.q = pad_queries(&w, q);
        attend_row(&w, p->out + r * p->out_stride, p->lse + r * p->heads);
    }
}

static void merge_attention(const braid_merge *p) {
    merge_rows(p->m * p->heads, p->width, p->a, p->a_lse, p->b, p->b_lse);
}
