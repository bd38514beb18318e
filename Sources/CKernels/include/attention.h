// Multi-head latent attention in absorbed form over a paged cache, and the merge of partial results.
#pragma once

#include "types.h"

/// Computes attention of `m` rows and `heads` heads. For each row and head it computes the scores
/// `scale * (q_latent . latent[p] + q_rope . rope_key[p])` over the row's keys and their softmax, and writes
/// `out = sum of probability * latent[p]` and `lse`, the natural log of the sum of exponentials.
/// With `rotary_values`, a value is the whole key: the latent part, then the rotary part (DeepSeek-V4).
/// A row's keys are `selected[r, 0 ..< selected_count[r]]` (ascending) or, when NULL, positions 0 ... positions[r].
///
/// The order of summation is the canonical form, which allows keys to be split over ranks:
/// - Keys fall into 8 classes by position mod 8. Only classes with `c mod class_stride == class_offset` are computed.
/// - A dot product has 16 accumulators from +0. Accumulator l takes latent dimensions l, l + 16, … ascending, then rope
///   dimensions l, l + 16, … ascending (fma). Halves are added: l with l + 8, + 4, + 2, + 1. The sum is multiplied by
///   `scale`.
/// - Within a class, `maximum` is the largest score and e = exp(score - maximum). The sum of e has 16 accumulators by
///   index within the class, then halves. out[d] is one chain over keys ascending (`a = fma(e, value[d], a)` from +0),
///   then multiplied by (1 / sum). lse is maximum + log(sum). An empty class gives out = 0 and lse = -infinity.
/// - Classes are merged (see braid_merge) as a balanced binary tree over the order 0 4 2 6 1 5 3 7 (bits reversed),
///   so that the classes of rank r of N, `c mod N == r`, are one subtree.
///
/// In the BF16 profile (see profile.h) a dot product is a BF16 sum from +0 of bf16(q) and the key, over the latent part
/// padded with zeros to a multiple of 32, then the rotary part alike; its product with `scale` is plain. e and the sum
/// of e are as above. Within a class, out[d] is a BF16 sum from +0 of bf16(e) and the keys' elements over the keys
/// ascending, multiplied by (1 / sum). Merges are as above.
typedef struct {
    braid_profile profile;
    int64_t m, heads;
    const float *q;         // [m, heads, latent.width + rope.width], latent part first; row stride q_stride
    int64_t q_stride;
    float scale;
    braid_lane latent;
    braid_lane rope;
    bool rotary_values;
    const int32_t *pages;
    int32_t page_shift;
    const int32_t *positions;      // [m]
    const int32_t *selected;       // [m, selected_stride] or NULL
    int64_t selected_stride;
    const int32_t *selected_count; // [m] or NULL
    int32_t class_stride, class_offset;  // 1, 0 for all keys; class_stride is 1, 2, 4 or 8
    float *out;             // [m, heads, braid_value_width(...)], row stride out_stride
    int64_t out_stride;
    float *lse;             // [m, heads]
    int64_t direct_key_max_heads;   // with at most so many heads, tiles widen stored keys; 0: default of the level
    float *scratch;         // braid_attention_scratch(...) floats, 64-byte aligned
} braid_attention;

/// Returns the width of a value.
static inline int64_t braid_value_width(const braid_attention *p) {
    return p->latent.width + (p->rotary_values ? p->rope.width : 0);
}

/// Returns `heads` rounded up to a whole tile.
static inline int64_t braid_whole_heads(int64_t heads) { return (heads + 15) / 16 * 16; }

/// Returns the number of floats for the scores of one class. It is enough for all heads when the row's keys are spread
/// evenly over the classes, and, up to 4 MiB, when all keys are of one class; it always is for sixteen heads. More keys
/// never need less.
static inline int64_t braid_attention_scores(int64_t heads, int64_t keys) {
    const int64_t one_class = (keys + 1 + 63) / 64 * 64, per_class = (keys / 8 + 1 + 63) / 64 * 64;
    const int64_t all = braid_whole_heads(heads) * one_class, even = braid_whole_heads(heads) * per_class;
    const int64_t enough = 16 * one_class > 1024 * 1024 ? 16 * one_class : 1024 * 1024;
    const int64_t least = all < enough ? all : enough;
    return even > least ? even : least;
}

/// These are the widest latent and rotary parts that scratch is made for; callers check.
#define BRAID_MAX_LATENT 2048
#define BRAID_MAX_ROPE 128

/// The number of floats for keys that are widened or brought together.
#define BRAID_ATTENTION_KEYS (64 * 1024)

/// Returns the floats of scratch for one attention call. `value` is the width of a value, and `max_keys` the largest
/// number of keys of a row.
static inline int64_t braid_attention_scratch(int64_t heads, int64_t value, int64_t max_keys) {
    const int64_t entries = 2 * max_keys;  // of 64 bits
    const int64_t per_head = 5 * (value + 64);  // queries and unfinished sums, and three results with their factors
    const int64_t scores = braid_attention_scores(heads, max_keys);
    return BRAID_ATTENTION_KEYS + braid_whole_heads(heads) * per_head + scores + entries + 64;
}

/// Merges partial attention results of the same rows: `a` becomes the result over the keys of `a` and `b`.
///   m = max(lse_a, lse_b); wa = exp(lse_a - m); wb = exp(lse_b - m); s = wa + wb
///   out = fma(wb / s, out_b, (wa / s) * out_a);  lse = m + log(s)
/// If both are empty, out is 0 and lse is -infinity.
typedef struct {
    int64_t m, heads, width;
    float *a;               // [m, heads, width]
    float *a_lse;           // [m, heads]
    const float *b;
    const float *b_lse;
} braid_merge;

/// Adds to each softmax one more exponential, of the head's sink, whose value is zero: every head's output is multiplied
/// by `1 / (1 + exp(sink - lse))`, in place. A row without keys (lse = -infinity) stays 0.
typedef struct {
    int64_t m, heads, width;
    float *x;               // [m, heads, width], row stride x_stride
    int64_t x_stride;
    const float *lse;       // [m, heads]
    const float *sinks;     // [heads], finite
} braid_sink;
