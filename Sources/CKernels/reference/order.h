// Orders that kernels share: how sixteen partial sums become one, and how floats compare in a selection.
#pragma once

#include <stdint.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/// Adds sixteen partial sums: l with l + 8, + 4, + 2, + 1.
static inline float add_halves(const float partial[16]) {
    float a[8], b[4];
    for (int l = 0; l < 8; l++) a[l] = partial[l] + partial[l + 8];
    for (int l = 0; l < 4; l++) b[l] = a[l] + a[l + 4];
    float c0 = b[0] + b[2], c1 = b[1] + b[3];
    return c0 + c1;
}

/// Returns an unsigned integer that orders like the float: -0 equals +0, and every NaN is 0, below -infinity.
static inline uint32_t order_key(float x) {
    if (x != x) return 0;
    x += 0.0f;  // -0 becomes +0
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
