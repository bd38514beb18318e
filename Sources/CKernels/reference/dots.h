// The sum of one output of a product, in each profile.
#pragma once

#include "bf16.h"
#include "int8.h"

#pragma STDC FP_CONTRACT OFF

/// Returns `first + sum over k of x[k] * w[n, k]`, or of `w[k, n]` when `transposed`, in the order of braid_matmul.
static inline float weight_dot(
    braid_profile profile, const braid_weight *w, bool transposed, const float *x, int64_t n, int64_t k, float first
) {
    if (is_int8_product(profile, w, transposed)) return int8_dot(w, x, n, k, first);
    if (braid_rounds_to_bf16(profile)) {
        braid_bf16_sum sum = bf16_sum_from(first);
        for (int64_t i = 0; i < k; i++)
            bf16_sum_add(
                &sum, bf16_rounded(x[i]), transposed ? bf16_weight_at(w, i, n) : bf16_weight_at(w, n, i));
        return bf16_sum_total(&sum);
    }
    float a = first;
    for (int64_t i = 0; i < k; i++) a = fmaf(x[i], transposed ? weight_at(w, i, n) : weight_at(w, n, i), a);
    return a;
}
