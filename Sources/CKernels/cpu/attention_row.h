// Attention of one row, whatever its profile: its keys class by class, softmax, and the merge of classes.
#pragma once

#include "attention_tiles.h"

/// Holds the work of one row, and the places of its parts in the scratch.
typedef struct {
    const braid_attention *p;
    int64_t heads;
    bool stored;             // tiles read keys as they are stored, not widened into `keys`
    int64_t latent_width, width;  // of the latent part and of all of a key, padded to whole vectors
    int64_t value_width;     // of a value, not padded
    int64_t latent_bytes, rope_bytes;  // from one stored entry to the next
    const float *q;          // [heads, width], or as the caller gave them
    float *queries;          // the place of queries that are padded or packed
    int64_t packed;          // the heads of each group for which they are packed, or 0
    int64_t fetched;         // tiles: the number of keys that have been prefetched
    float *keys;             // the place of keys that are widened, as rows, as a panel or as tiles
    float *sums;             // tiles: unfinished sums
    float *factor;           // [heads of a group] 1 / sum
    float *results[3];       // right halves of the tree: [heads, value_width], followed by [heads] of lse
    int64_t *entries;        // the row's keys, class by class in the order of their places
    int64_t begin[9];        // the index in `entries` at which each place's class begins
    float *e;                // scores, then exponentials: [heads of a group, a class's keys], or in the order of tiles
    int64_t e_size;
} braid_attention_row;

BRAID_INLINE const char *latent_of(const braid_attention_row *w, int64_t key) {
    return (const char *)w->p->latent.data + w->entries[key] * w->latent_bytes;
}

BRAID_INLINE const char *rope_of(const braid_attention_row *w, int64_t key) {
    return (const char *)w->p->rope.data + w->entries[key] * w->rope_bytes;
}

/// Widens FP8 elements as widen_lane does; `from` is a multiple of sixteen, so that no vector has elements of two
/// groups.
BRAID_INLINE void widen_scaled(const braid_lane *lane, const char *entry, int64_t from, int64_t n, float *out) {
    for (int64_t d = 0, group = from / lane->group; d < n; group++) {
        int64_t end = at_most(n, (group + 1) * lane->group - from);
        f16 scale = splat(entry_scale(lane, entry, group));
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

/// Multiplies `width` elements of each row in place by the row's factor, or by `factor` where there are no factors.
BRAID_INLINE void scale_rows(
    float *x, int64_t stride, int64_t rows, int64_t width, const float *factors, float factor
) {
    for (int64_t r = 0; r < rows; r++, x += stride) {
        const f16 by = splat(factors ? factors[r] : factor);
        int64_t d = 0;
        for (; d + 16 <= width; d += 16) store16(x + d, load16(x + d) * by);
        if (d < width) store_some(x + d, load_some(x + d, width - d) * by, width - d);
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

/// Computes attention of all heads over the keys of the class at a place, which are not none.
typedef void (*braid_attend_class)(braid_attention_row *w, int64_t place, float *out, float *lse);

/// Merges the leaves in order as a binary counter does: after leaf i, one merge follows for each 1 bit at the end of i.
static void attend_row(braid_attention_row *w, braid_attend_class attend, float *out, float *lse) {
    const braid_attention *p = w->p;
    const int64_t width = w->value_width, stride = p->class_stride;
    float *result[4] = {out, w->results[0], w->results[1], w->results[2]};
    float *result_lse[4] = {lse};
    for (int i = 1; i < 4; i++) result_lse[i] = result[i] + w->heads * width;
    for (int64_t i = 0, first = place_of(p->class_offset); i * stride < 8; i++) {
        int depth = __builtin_popcountll((unsigned long long)i);
        if (w->begin[first + i] < w->begin[first + i + 1]) {
            attend(w, first + i, result[depth], result_lse[depth]);
        } else {
            memset(result[depth], 0, (size_t)(w->heads * width) * sizeof(float));
            for (int64_t h = 0; h < w->heads; h++) result_lse[depth][h] = -INFINITY;
        }
        for (int64_t j = i; j & 1; j >>= 1, depth--)
            merge_rows(
                w->heads, width, result[depth - 1], result_lse[depth - 1], result[depth], result_lse[depth]);
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

/// Computes attention of all rows, with `attend` for each class.
static void attend_rows(const braid_attention *p, bool stored, braid_attend_class attend) {
    braid_attention_row w = {.p = p, .heads = p->heads, .stored = stored};
    int64_t latent = p->latent.width, rope = p->rope.width;
    w.latent_bytes = entry_bytes(&p->latent);
    w.rope_bytes = entry_bytes(&p->rope);
    w.latent_width = whole_vectors(latent);
    w.width = w.latent_width + whole_vectors(rope);
    w.value_width = braid_value_width(p);
    w.keys = p->scratch;
    w.queries = w.keys + BRAID_ATTENTION_KEYS;
    w.sums = w.queries + braid_whole_heads(p->heads) * w.width + 16;  // packing writes so many beyond
    float *next = w.sums + braid_whole_heads(p->heads) * (w.value_width + 62);  // both parts in whole tiles
    for (int i = 0; i < 3; i++, next += p->heads * (w.value_width + 1)) w.results[i] = next;
    w.factor = next;
    w.e = w.keys + whole_vectors(next + braid_whole_heads(p->heads) - w.keys);
    for (int64_t r = 0; r < p->m; r++) {
        w.e_size = braid_attention_scores(p->heads, p->selected ? p->selected_count[r] : (int64_t)p->positions[r] + 1);
        w.entries = (int64_t *)(w.e + w.e_size);
        sort_keys(&w, r);
        w.q = p->q + r * p->q_stride;
        w.packed = 0;
        if (p->profile == BRAID_PROFILE_F32 && w.width != latent + rope) w.q = pad_queries(&w, w.queries);
        attend_row(&w, attend, p->out + r * p->out_stride, p->lse + r * p->heads);
    }
}
