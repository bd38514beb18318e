// Rotary position embedding, in place.
#pragma once

#include "types.h"

/// Rotates the first `width` elements of every head of every row by the row's angles.
///   interleaved: pairs (x[2i], x[2i + 1]);  half-split: pairs (x[i], x[i + width / 2])
///   (a, b) -> (a * cos - b * sin, a * sin + b * cos), as fma(a, cos, -(b * sin)) and fma(a, sin, b * cos)
/// The inverse rotation negates the sines first.
typedef struct {
    int64_t m, heads, width;
    bool interleaved;
    bool inverse;
    float *x;               // row r, head h begins at x + r * x_stride + h * head_stride
    int64_t x_stride;
    int64_t head_stride;
    const float *cosine;    // [m, width / 2]
    const float *sine;      // [m, width / 2]
} braid_rope;
