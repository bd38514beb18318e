// Rotary position embedding, sixteen pairs at a time.
#pragma once

#include "../include/rope.h"
#include "vector.h"

typedef struct {
    f16 first, second;
} rope_pairs;

/// Negates the lanes of `sine` if `signs` is the sign bit, and leaves them if it is 0.
BRAID_INLINE f16 with_signs(f16 sine, uint32_t signs) { return (f16)((u16)sine ^ signs); }

BRAID_INLINE rope_pairs rotate_pairs(f16 a, f16 b, f16 cosine, f16 sine) {
    return (rope_pairs){fma16(a, cosine, -(b * sine)), fma16(a, sine, b * cosine)};
}

BRAID_INLINE void rotate_head_halves(
    float *x, const float *cosine, const float *sine, uint32_t signs, int64_t pairs
) {
    int64_t i = 0;
    for (; i + 16 <= pairs; i += 16) {
        f16 s = with_signs(load16(sine + i), signs);
        rope_pairs y = rotate_pairs(load16(x + i), load16(x + pairs + i), load16(cosine + i), s);
        store16(x + i, y.first);
        store16(x + pairs + i, y.second);
    }
    int64_t rest = pairs - i;
    if (rest == 0) return;
    rope_pairs y = rotate_pairs(load_some(x + i, rest), load_some(x + pairs + i, rest),
                                load_some(cosine + i, rest), with_signs(load_some(sine + i, rest), signs));
    store_some(x + i, y.first, rest);
    store_some(x + pairs + i, y.second, rest);
}

/// Rotates sixteen interleaved pairs: the lower eight are in `low`, the upper eight in `high`.
BRAID_INLINE void rotate_interleaved(f16 *low, f16 *high, f16 cosine, f16 sine) {
    f16 a = __builtin_shufflevector(*low, *high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    f16 b = __builtin_shufflevector(*low, *high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    rope_pairs y = rotate_pairs(a, b, cosine, sine);
    *low = __builtin_shufflevector(y.first, y.second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *high = __builtin_shufflevector(y.first, y.second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

BRAID_INLINE void rotate_head_interleaved(
    float *x, const float *cosine, const float *sine, uint32_t signs, int64_t pairs
) {
    int64_t i = 0;
    for (; i + 16 <= pairs; i += 16) {
        f16 low = load16(x + 2 * i), high = load16(x + 2 * i + 16);
        rotate_interleaved(&low, &high, load16(cosine + i), with_signs(load16(sine + i), signs));
        store16(x + 2 * i, low);
        store16(x + 2 * i + 16, high);
    }
    int64_t rest = pairs - i;
    if (rest == 0) return;
    int64_t below = rest < 8 ? 2 * rest : 16, above = 2 * rest - below;
    f16 low = load_some(x + 2 * i, below), high = load_some(x + 2 * i + below, above);
    rotate_interleaved(&low, &high, load_some(cosine + i, rest), with_signs(load_some(sine + i, rest), signs));
    store_some(x + 2 * i, low, below);
    store_some(x + 2 * i + below, high, above);
}

static void rope(const braid_rope *p) {
    const int64_t pairs = p->width / 2;
    const uint32_t signs = p->inverse ? 0x80000000u : 0;
    for (int64_t r = 0; r < p->m; r++) {
        const float *cosine = p->cosine + r * pairs, *sine = p->sine + r * pairs;
        for (int64_t h = 0; h < p->heads; h++) {
            float *x = p->x + r * p->x_stride + h * p->head_stride;
            if (p->interleaved) rotate_head_interleaved(x, cosine, sine, signs, pairs);
            else rotate_head_halves(x, cosine, sine, signs, pairs);
        }
    }
}
