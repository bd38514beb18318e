// Sums with which an instruction that adds products of BF16 numbers is checked when a program starts: processors may
// round otherwise than their makers wrote, and a run must have the bits of the profile.
#pragma once

#include "../reference/bf16.h"

/// Terms of 16 times 16 sums of a block, what the sums begin at, and what they must become.
typedef struct {
    uint16_t a[16][BRAID_BF16_BLOCK];          // of sums [i][...], by their terms
    uint16_t b[BRAID_BF16_BLOCK / 2][16][2];   // of sums [...][j], by pairs of terms
    float c[16][16], expected[16][16];
} braid_exact_sums;

/// Returns the next of a sequence of numbers whose exponents are spread widely, among them zeros of both signs and
/// numbers below 2^-126.
static float spread_number(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t bits = *state >> 20;
    if (bits % 23 == 0) return bits & 32 ? -0.0f : 0;
    const float number = (float)(int32_t)(bits & 0xFFFFFF) * 0x1p-24f * (bits >> 24 & 1 ? 1 : -1);
    const int exponent = bits % 29 == 0 ? -128 : bits >> 25 & 1 ? -63 : (int)(bits >> 26 & 15);
    return ldexpf(number, exponent);
}

/// Draws terms; in some turns the sums are next to 2^-126.
static void draw_exact_sums(int turn, uint64_t *state, braid_exact_sums *s) {
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < BRAID_BF16_BLOCK; k++) {
            float x = spread_number(state), y = spread_number(state);
            if (turn % 8 == 7 && k < 4) {  // 2^-126 less a little more, or less, than rounds to it
                x = k == 0 ? 0x1p-63f : k == 2 ? -0x1p-75f : 0;
                y = k == 2 ? i % 2 ? 0x1.02p-76f : 0x1.fep-77f : 0x1p-63f;
            }
            uint32_t bits;
            memcpy(&bits, &x, 4);
            s->a[i][k] = (uint16_t)(bits >> 16);
            memcpy(&bits, &y, 4);
            s->b[k / 2][i][k % 2] = (uint16_t)(bits >> 16);
            if (k < 16) s->c[i][k] = spread_number(state);
        }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            braid_bf16_sum sum = bf16_sum_from(s->c[i][j]);
            for (int k = 0; k < BRAID_BF16_BLOCK; k++)
                bf16_sum_add(&sum, bf16_at(s->a[i], k), bf16_at(s->b[k / 2][j], k % 2));
            s->expected[i][j] = bf16_sum_total(&sum);
        }
}

/// Returns whether `add`, which adds the terms to `c`, gives what is expected in every turn.
static bool are_exact(void (*add)(braid_exact_sums *s)) {
    braid_exact_sums s;
    uint64_t state = 1;
    for (int turn = 0; turn < 64; turn++) {
        draw_exact_sums(turn, &state, &s);
        add(&s);
        if (memcmp(s.c, s.expected, sizeof s.c) != 0) return false;
    }
    return true;
}
