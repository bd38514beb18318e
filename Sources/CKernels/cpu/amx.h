// The kernels for AMX, their table, and the check that the processor adds as the BF16 profile says.
#pragma once

#include "../reference/bf16.h"
#include "attention_amx.h"
#include "indexer_tiles.h"
#include "matmul_tiles.h"

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

/// Returns whether tiles of random numbers, and of sums next to 2^-126, are added as profile.h defines.
bool braid_amx_is_exact(void) {
    uint16_t a[16][32], b[16][16][2];
    float c[16][16], expected[16][16];
    uint64_t state = 1;
    bool is_exact = true;
    begin_tiles();
    for (int turn = 0; turn < 64 && is_exact; turn++) {
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < 32; k++) {
                float x = spread_number(&state), y = spread_number(&state);
                if (turn % 8 == 7 && k < 4) {  // 2^-126 less a little more, or less, than rounds to it
                    x = k == 0 ? 0x1p-63f : k == 2 ? -0x1p-75f : 0;
                    y = k == 2 ? i % 2 ? 0x1.02p-76f : 0x1.fep-77f : 0x1p-63f;
                }
                uint32_t bits;
                memcpy(&bits, &x, 4);
                a[i][k] = (uint16_t)(bits >> 16);
                memcpy(&bits, &y, 4);
                b[k / 2][i][k % 2] = (uint16_t)(bits >> 16);
                if (k < 16) c[i][k] = spread_number(&state);
            }
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 16; j++) {
                braid_bf16_sum sum = bf16_sum_from(c[i][j]);
                for (int k = 0; k < 32; k++) bf16_sum_add(&sum, bf16_at(a[i], k), bf16_at(b[k / 2][j], k % 2));
                expected[i][j] = bf16_sum_total(&sum);
            }
        load_tiles(1, c[0]);
        add_tile_products(false, 1, a, 64, (const char *)b);
        store_tiles(1, c[0]);
        is_exact = memcmp(c, expected, sizeof c) == 0;
    }
    end_tiles();
    return is_exact;
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winitializer-overrides"
const braid_kernels braid_amx = {
    BRAID_TABLE_ENTRIES
    .name = "AMX",
    .matmul = tiles_matmul,
    .batched_matmul = tiles_batched_matmul,
    .sliced_matmul = tiles_sliced_matmul,
    .attention = tiles_attention,
    .expert_hidden = tiles_expert_hidden,
    .expert_sums = tiles_expert_sums,
    .index_scores = tiles_index_scores,
};
#pragma clang diagnostic pop
