// Attention by classes of positions: per class all scores (tiles of heads x keys), softmax, then the weighted sums
// (tiles of heads x dimensions). What the tiles read of the cache is widened to F32 first, once for all heads; what is
// F32 already is read where it is.
#pragma once

#include "../include/attention.h"
#include "panel.h"

#if BRAID_REGISTERS >= 32
#define BRAID_SCORE_HEADS 4  // accumulators of the scores: heads x keys
#define BRAID_SCORE_KEYS 4
#define BRAID_SUM_HEADS 6    // accumulators of the sums: heads x 4 vectors of dimensions
#define BRAID_SUM_VECTORS 4
#else
#define BRAID_SCORE_HEADS 2
#define BRAID_SCORE_KEYS 2
#define BRAID_SUM_HEADS 3
#define BRAID_SUM_VECTORS 2
#endif
#define BRAID_SUM_WIDTH (BRAID_SUM_VECTORS * 16)
#define BRAID_KEY_BLOCK 8    // keys widened at once for the scores
#define BRAID_SUM_BLOCK 128  // keys widened at once for the sums

/// One row's work, and where in the scratch its parts are.
typedef struct {
    const braid_attention *p;
    int64_t heads;
    int64_t latent_width, width;  // of the latent part and of all, padded to whole vectors
    const float *q;          // [heads, width]
    float *keys;             // widened keys: [BRAID_KEY_BLOCK, width] or [BRAID_SUM_BLOCK, BRAID_SUM_WIDTH]
    float *factor;           // [heads of a group] 1 / sum
    float *results[3];       // right halves of the tree, [heads, latent] and behind it [heads] of lse
    int32_t *positions;      // the row's keys, class by class
    int64_t begin[9];        // where each class begins there
    float *e;                // [heads of a group, a class's keys]
    int64_t e_size;
} braid_attention_row;

BRAID_INLINE int64_t whole_vectors(int64_t n) { return (n + 15) / 16 * 16; }

BRAID_INLINE int64_t row_entry(const braid_attention_row *w, int64_t key) {
    return entry_of(w->p->pages, w->p->page_shift, w->positions[key]);
}

/// See widen_lane; `from` is a multiple of sixteen, so that no vector has elements of two groups.
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
        store16(out + d, splat(0));  // whatever the scale is
        store_some(out + d, rest, end - d);
        d = end;
    }
}

/// `n` elements of a stored entry as F32, and zeros up to a whole vector.
static void widen_lane(const braid_lane *lane, int64_t entry, int64_t from, int64_t n, float *out) {
    const char *data = entry_at(lane, entry);
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

/// Where many tiles of heads read a key, it is better close to others than where the cache has it.
BRAID_INLINE bool reads_in_place(int64_t heads) { return heads <= 4 * BRAID_SUM_HEADS; }

/// Where `n` elements of a stored entry are as F32, for tiles that read `tile` of them together: in the cache itself
/// where `in_place`, and they are F32 and whole tiles, else widened into `room`.
BRAID_INLINE const float *lane_row(
    const braid_lane *lane, int64_t entry, int64_t from, int64_t n, bool in_place, int64_t tile, float *room
) {
    if (in_place && lane->dtype == BRAID_F32 && n % tile == 0) return (const float *)entry_at(lane, entry) + from;
    widen_lane(lane, entry, from, n, room);
    return room;
}

/// Sorts the row's keys by class; within a class they stay ascending.
static void sort_keys(braid_attention_row *w, int64_t r) {
    const braid_attention *p = w->p;
    int64_t count[8] = {0}, total = p->selected ? p->selected_count[r] : (int64_t)p->positions[r] + 1;
    const int32_t *selected = p->selected ? p->selected + r * p->selected_stride : 0;
    for (int64_t i = 0; i < total; i++) count[(selected ? selected[i] : i) & 7]++;
    w->begin[0] = 0;
    for (int c = 0; c < 8; c++) {
        w->begin[c + 1] = w->begin[c] + count[c];
        count[c] = w->begin[c];
    }
    for (int64_t i = 0; i < total; i++) {
        int32_t position = selected ? selected[i] : (int32_t)i;
        w->positions[count[position & 7]++] = position;
    }
}

/// Adds the lanes of sixteen vectors in the documented order; lane i of the result is the sum of v[i].
BRAID_INLINE f16 sum_lanes_of_16(const f16 v[16]) {
    f16 a[8], b[4], c[2];
    BRAID_UNROLL for (int i = 0; i < 8; i++)  // l with l + 8
        a[i] = __builtin_shufflevector(v[i], v[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
            + __builtin_shufflevector(v[i], v[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    BRAID_UNROLL for (int i = 0; i < 4; i++)  // l with l + 4
        b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
            + __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    BRAID_UNROLL for (int i = 0; i < 2; i++)  // l with l + 2
        c[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(b[i], b[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return __builtin_shufflevector(c[0], c[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)  // l + 1
        + __builtin_shufflevector(c[0], c[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

/// Continues heads x BRAID_SCORE_KEYS dots over `width` (whole vectors). `heads` is a constant where this is inlined.
BRAID_INLINE void add_dots(
    int heads, const float *q, int64_t q_stride, const float *const *keys, int64_t width,
    f16 a[BRAID_SCORE_HEADS * BRAID_SCORE_KEYS]
) {
    for (int64_t d = 0; d < width; d += 16) {
        f16 key[BRAID_SCORE_KEYS];
        BRAID_UNROLL for (int j = 0; j < BRAID_SCORE_KEYS; j++) key[j] = load16(keys[j] + d);
        BRAID_UNROLL for (int h = 0; h < heads; h++) {
            f16 query = load16(q + h * q_stride + d);
            BRAID_UNROLL for (int j = 0; j < BRAID_SCORE_KEYS; j++)
                a[h * BRAID_SCORE_KEYS + j] = fma16(query, key[j], a[h * BRAID_SCORE_KEYS + j]);
        }
    }
}

/// heads x BRAID_SCORE_KEYS scores. `heads` is a constant where this is inlined.
BRAID_INLINE void score_tile(
    int heads, const braid_attention_row *w, const float *q, const float *const *latents, const float *const *ropes,
    float *e, int64_t e_stride
) {
    f16 a[BRAID_SCORE_HEADS * BRAID_SCORE_KEYS];
    BRAID_UNROLL for (int i = 0; i < BRAID_SCORE_HEADS * BRAID_SCORE_KEYS; i++) a[i] = splat(0);
    add_dots(heads, q, w->width, latents, w->latent_width, a);
    add_dots(heads, q + w->latent_width, w->width, ropes, w->width - w->latent_width, a);
#if BRAID_SCORE_HEADS * BRAID_SCORE_KEYS == 16
    f16 sums = sum_lanes_of_16(a) * splat(w->p->scale);
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        memcpy(e + h * e_stride, (const char *)&sums + h * 16, 16);
#else
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int j = 0; j < BRAID_SCORE_KEYS; j++)
            e[h * e_stride + j] = sum_lanes(a[h * BRAID_SCORE_KEYS + j]) * w->p->scale;
#endif
}

/// Scores of heads `h0 ..< h0 + heads` with keys `begin ..< begin + count` of the row, into e [heads, e_stride].
static void score_keys(
    const braid_attention_row *w, int64_t h0, int64_t heads, int64_t begin, int64_t count, int64_t e_stride
) {
    const float *latents[BRAID_KEY_BLOCK], *ropes[BRAID_KEY_BLOCK];
    const bool in_place = reads_in_place(heads);
    for (int64_t i = 0; i < count; i += BRAID_KEY_BLOCK) {
        int64_t keys = at_most(count - i, BRAID_KEY_BLOCK);
        for (int64_t j = 0; j < keys; j++) {
            float *key = w->keys + j * w->width;
            int64_t entry = row_entry(w, begin + i + j);
            latents[j] = lane_row(&w->p->latent, entry, 0, w->p->latent.width, in_place, 16, key);
            ropes[j] = lane_row(&w->p->rope, entry, 0, w->p->rope.width, in_place, 16, key + w->latent_width);
            // The next block's, beyond the class too: the classes follow each other.
            int64_t next = begin + i + j + BRAID_KEY_BLOCK;
            if (next >= w->begin[8]) continue;
            entry = row_entry(w, next);
            fetch_entry(&w->p->latent, entry);
            fetch_entry(&w->p->rope, entry);
        }
        for (int64_t j = keys; j < BRAID_KEY_BLOCK; j++) {  // scores of keys behind the last are replaced
            latents[j] = latents[0];
            ropes[j] = ropes[0];
        }
        for (int64_t h = 0; h < heads; h += BRAID_SCORE_HEADS) {
            const float *q = w->q + (h0 + h) * w->width;
            for (int64_t j = 0; j < keys; j += BRAID_SCORE_KEYS) {
                float *e = w->e + h * e_stride + i + j;
                switch (at_most(heads - h, BRAID_SCORE_HEADS)) {
#if BRAID_SCORE_HEADS == 4
                case 4: score_tile(4, w, q, latents + j, ropes + j, e, e_stride); break;
                case 3: score_tile(3, w, q, latents + j, ropes + j, e, e_stride); break;
#endif
                case 2: score_tile(2, w, q, latents + j, ropes + j, e, e_stride); break;
                default: score_tile(1, w, q, latents + j, ropes + j, e, e_stride); break;
                }
            }
        }
    }
}

/// Scores to exponentials; `factor` becomes 1 / their sum. Returns the log of the sum of exponentials of the scores.
static float exponentials(float *e, int64_t count, float *factor) {
    for (int64_t i = count; i < whole_vectors(count); i++) e[i] = -INFINITY;
    f16 largest = splat(-INFINITY), sum = splat(0);
    for (int64_t i = 0; i < count; i += 16) largest = larger_of(load16(e + i), largest);
    float maximum = largest_lane(largest);
    for (int64_t i = 0; i < count; i += 16) {
        f16 v = exp16(load16(e + i) - splat(maximum));
        store16(e + i, v);
        sum = sum + v;
    }
    float total = sum_lanes(sum);
    *factor = 1.0f / total;
    return maximum + log_scalar(total);
}

/// heads x BRAID_SUM_WIDTH chains over `count` keys, begun or continued in `out`, multiplied by the factors at the end.
BRAID_INLINE void sum_tile(
    int heads, const float *e, int64_t e_stride, const float *const *keys, int64_t count, bool first,
    const float *factor, float *const *out
) {
    f16 a[BRAID_SUM_HEADS][BRAID_SUM_VECTORS];
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int v = 0; v < BRAID_SUM_VECTORS; v++) a[h][v] = first ? splat(0) : load16(out[h] + 16 * v);
    for (int64_t i = 0; i < count; i++) {
        f16 key[BRAID_SUM_VECTORS];
        BRAID_UNROLL for (int v = 0; v < BRAID_SUM_VECTORS; v++) key[v] = load16(keys[i] + 16 * v);
        BRAID_UNROLL for (int h = 0; h < heads; h++) {
            f16 probability = splat(e[h * e_stride + i]);
            BRAID_UNROLL for (int v = 0; v < BRAID_SUM_VECTORS; v++) a[h][v] = fma16(probability, key[v], a[h][v]);
        }
    }
    BRAID_UNROLL for (int h = 0; h < heads; h++)
        BRAID_UNROLL for (int v = 0; v < BRAID_SUM_VECTORS; v++)
            store16(out[h] + 16 * v, factor ? a[h][v] * splat(factor[h]) : a[h][v]);
}

/// Dimensions `d ...` of the weighted sums of one block of widened keys, for all heads of a group.
static void sum_block(
    const braid_attention_row *w, int64_t heads, const float *e, int64_t e_stride, const float *const *keys,
    int64_t count, bool first, const float *factor, int64_t d, float *out
) {
    int64_t latent = w->p->latent.width, width = at_most(latent - d, BRAID_SUM_WIDTH);
    float edge[BRAID_SUM_HEADS][BRAID_SUM_WIDTH], *to[BRAID_SUM_HEADS];  // the edge keeps tiles whole
    for (int64_t h = 0; h < heads; h += BRAID_SUM_HEADS) {
        int64_t rows = at_most(heads - h, BRAID_SUM_HEADS);
        for (int64_t i = 0; i < rows; i++) {
            to[i] = out + (h + i) * latent + d;
            if (width == BRAID_SUM_WIDTH) continue;
            memset(edge[i], 0, sizeof edge[i]);
            memcpy(edge[i], to[i], (size_t)width * sizeof(float));
            to[i] = edge[i];
        }
        const float *f = factor ? factor + h : 0, *eh = e + h * e_stride;
        switch (rows) {
#if BRAID_SUM_HEADS == 6
        case 6: sum_tile(6, eh, e_stride, keys, count, first, f, to); break;
        case 5: sum_tile(5, eh, e_stride, keys, count, first, f, to); break;
        case 4: sum_tile(4, eh, e_stride, keys, count, first, f, to); break;
#endif
        case 3: sum_tile(3, eh, e_stride, keys, count, first, f, to); break;
        case 2: sum_tile(2, eh, e_stride, keys, count, first, f, to); break;
        default: sum_tile(1, eh, e_stride, keys, count, first, f, to); break;
        }
        if (width == BRAID_SUM_WIDTH) continue;
        for (int64_t i = 0; i < rows; i++)
            memcpy(out + (h + i) * latent + d, edge[i], (size_t)width * sizeof(float));
    }
}

/// The weighted sums of a group of heads; out [heads, latent].
static void sum_keys(
    const braid_attention_row *w, int64_t heads, int64_t begin, int64_t count, int64_t e_stride, const float *factor,
    float *out
) {
    const float *rows[BRAID_SUM_BLOCK];
    for (int64_t d = 0; d < w->p->latent.width; d += BRAID_SUM_WIDTH) {
        int64_t width = at_most(w->p->latent.width - d, BRAID_SUM_WIDTH);
        for (int64_t i = 0; i < count; i += BRAID_SUM_BLOCK) {
            int64_t keys = at_most(count - i, BRAID_SUM_BLOCK);
            for (int64_t j = 0; j < keys; j++) {
                int64_t entry = row_entry(w, begin + i + j);
                float *room = w->keys + j * BRAID_SUM_WIDTH;
                rows[j] = lane_row(&w->p->latent, entry, d, width, reads_in_place(heads), BRAID_SUM_WIDTH, room);
            }
            bool last = i + keys == count;
            sum_block(w, heads, w->e + i, e_stride, rows, keys, i == 0, last ? factor : 0, d, out);
        }
    }
}

/// All heads over the keys of class `c`.
static void attend_class(const braid_attention_row *w, int64_t c, float *out, float *lse) {
    int64_t begin = w->begin[c], count = w->begin[c + 1] - begin, latent = w->p->latent.width;
    if (count == 0) {
        memset(out, 0, (size_t)(w->heads * latent) * sizeof(float));
        for (int64_t h = 0; h < w->heads; h++) lse[h] = -INFINITY;
        return;
    }
    // Selected keys may all be of one class; then the scores of fewer heads fit at once.
    int64_t e_stride = whole_vectors(count), group = at_most(w->heads, w->e_size / e_stride);
    for (int64_t h = 0; h < w->heads; h += group) {
        int64_t heads = at_most(group, w->heads - h);
        score_keys(w, h, heads, begin, count, e_stride);
        for (int64_t i = 0; i < heads; i++) lse[h + i] = exponentials(w->e + i * e_stride, count, w->factor + i);
        sum_keys(w, heads, begin, count, e_stride, w->factor, out + h * latent);
    }
}

static void merge_rows(int64_t rows, int64_t width, float *a, float *a_lse, const float *b, const float *b_lse) {
    for (int64_t i = 0; i < rows; i++, a += width, b += width) {
        float m = a_lse[i] > b_lse[i] ? a_lse[i] : b_lse[i];
        if (a_lse[i] == -INFINITY && b_lse[i] == -INFINITY) {
            memset(a, 0, (size_t)width * sizeof(float));
            continue;
        }
        float wa = exp_scalar(a_lse[i] - m), wb = exp_scalar(b_lse[i] - m), s = wa + wb;
        f16 fa = splat(wa / s), fb = splat(wb / s);
        int64_t d = 0;
        for (; d + 16 <= width; d += 16) store16(a + d, fma16(fb, load16(b + d), fa * load16(a + d)));
        if (d < width) {
            int64_t n = width - d;
            store_some(a + d, fma16(fb, load_some(b + d, n), fa * load_some(a + d, n)), n);
        }
        a_lse[i] = m + log_scalar(s);
    }
}

/// The tree over the leaves in order, as a binary counter: after leaf i, one merge for each 1 that i ends with.
static void attend_row(const braid_attention_row *w, float *out, float *lse) {
    const braid_attention *p = w->p;
    int64_t latent = p->latent.width, stride = p->class_stride;
    float *result[4] = {out, w->results[0], w->results[1], w->results[2]};
    float *result_lse[4] = {lse};
    for (int i = 1; i < 4; i++) result_lse[i] = result[i] + w->heads * latent;
    for (int64_t i = 0; i * stride < 8; i++) {
        int64_t c = p->class_offset;
        for (int64_t bit = 4, j = i; j > 0; j >>= 1, bit >>= 1) c += (j & 1) * bit;
        int depth = __builtin_popcountll((unsigned long long)i);
        attend_class(w, c, result[depth], result_lse[depth]);
        for (int64_t j = i; j & 1; j >>= 1, depth--)
            merge_rows(
                w->heads, latent, result[depth - 1], result_lse[depth - 1], result[depth], result_lse[depth]);
    }
}

static void attention(const braid_attention *p) {
    braid_attention_row w = {.p = p, .heads = p->heads};
    int64_t latent = p->latent.width, rope = p->rope.width;
    w.latent_width = whole_vectors(latent);
    w.width = w.latent_width + whole_vectors(rope);
    w.keys = p->scratch;
    float *q = w.keys + BRAID_ATTENTION_KEYS, *next = q + p->heads * w.width;
    w.q = q;
    for (int i = 0; i < 3; i++, next += p->heads * (latent + 1)) w.results[i] = next;
    w.factor = next;
    w.e = q + whole_vectors(next + p->heads - q);
    for (int64_t r = 0; r < p->m; r++) {
        w.e_size = braid_attention_scores(p->heads, p->selected ? p->selected_count[r] : (int64_t)p->positions[r] + 1);
        w.positions = (int32_t *)(w.e + w.e_size);
        sort_keys(&w, r);
        for (int64_t h = 0; h < p->heads; h++) {
            const float *from = p->q + r * p->q_stride + h * (latent + rope);
            float *to = q + h * w.width;
            memset(to, 0, (size_t)w.width * sizeof(float));
            memcpy(to, from, (size_t)latent * sizeof(float));
            memcpy(to + w.latent_width, from + latent, (size_t)rope * sizeof(float));
        }
        attend_row(&w, p->out + r * p->out_stride, p->lse + r * p->heads);
    }
}

static void merge_attention(const braid_merge *p) {
    merge_rows(p->m * p->heads, p->width, p->a, p->a_lse, p->b, p->b_lse);
}
