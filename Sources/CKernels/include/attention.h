// Multi-head latent attention in absorbed form over a paged cache, and the merge of partial results.
#pragma once

#include "types.h"

/// Computes attention of `m` rows and `heads` heads. For each row and head it computes the scores
/// `scale * (q_latent . latent[p] + q_rope . rope_key[p])` over the row's keys and their softmax, and writes
/// `out = sum of probability * latent[p]` and `lse`, the natural log of the sum of exponentials.
/// A row's keys are `selected[r, 0 ..< selected_count[r]]` (ascending) or, when NULL, positions 0 ... positions[r].
///
/// The order of summation is the canonical form, which allows keys to be split over ranks:
/// - Keys fall into 8 classes by position mod 8. Only classes with `c mod class_stride == class_offset` are computed.
/// - A dot product has 16 accumulators from +0. Accumulator l takes latent dimensions l, l + 16, … ascending, then rope
///   dimensions l, l + 16, … ascending (fma). Halves are added: l with l + 8, + 4, + 2, + 1. The sum is multiplied by
///   `scale`.
/// - Within a class, `maximum` is the largest score and e = exp(score - maximum). The sum of e has 16 accumulators by
///   index within the class, then halves. out[d] is one chain over keys ascending (`a = fma(e, latent[d], a)` from +0),
///   then multiplied by (1 / sum). lse is maximum + log(sum). An empty class gives out = 0 and lse = -infinity.
/// - Classes are merged (see braid_merge) as a balanced binary tree over the order 0 4 2 6 1 5 3 7 (bits reversed),
///   so that the classes of rank r of N, `c mod N == r`, are one subtree.
typedef struct {
    int64_t m, heads;
    const float *q;         // [m, heads, latent.width + rope.width], latent part first; row stride q_stride
    int64_t q_stride;
    float scale;
    braid_lane latent;
    braid_lane rope;
    const int32_t *pages;
    int32_t page_shift;
    const int32_t *positions;      // [m]
    const int32_t *selected;       // [m, selected_stride] or NULL
    int64_t selected_stride;
    const int32_t *selected_count; // [m] or NULL
    int32_t class_stride, class_offset;  // 1, 0 for all keys; class_stride is 1, 2, 4 or 8
    float *out;             // [m, heads, latent.width], row stride out_stride
    int64_t out_stride;
    float *lse;             // [m, heads]
    int64_t direct_key_max_heads;   // with at most so many heads, tiles widen stored keys; 0: default of the level
    float *scratch;         // braid_attention_scratch(...) floats, 64-byte aligned
} braid_attention;

/// Returns the number of floats for the scores of one class and all heads, when the row's keys are spread evenly over
/// the classes. It is always enough for one head when all keys are of one class.
static inline int64_t braid_attention_scores(int64_t heads, int64_t keys) {
    int64_t per_class = (keys / 8 + 1 + 63) / 64 * 64;
    return (heads < 8 ? 8 : heads) * per_class;
}

/// These are the widest latent and rotary parts that scratch is made for; callers check.
#define BRAID_MAX_LATENT 2048
#define BRAID_MAX_ROPE 128

/// The number of floats for keys widened to F32: 8 entries of at most 4096 elements.
#define BRAID_ATTENTION_KEYS (32 * 1024)

/// Returns the floats of scratch for one attention call. `max_keys` is the largest number of keys of a row.
static inline int64_t braid_attention_scratch(int64_t heads, int64_t latent, int64_t max_keys) {
    const int64_t entries = 2 * max_keys;  // of 64 bits
    return BRAID_ATTENTION_KEYS + heads * 4 * (latent + 64) + braid_attention_scores(heads, max_keys) + entries + 64;
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
