// The kernels for AMX, their table, and the check that the processor adds as the BF16 profile says.
#pragma once

#include "attention_amx.h"
#include "exactness.h"
#include "indexer_tiles.h"
#include "matmul_tiles.h"

static void add_exact_tile(braid_exact_sums *s) {
    load_tiles(1, s->c[0]);
    add_tile_products(false, 1, s->a, 64, (const char *)s->b);
    store_tiles(1, s->c[0]);
}

/// Returns whether tiles of random numbers, and of sums next to 2^-126, are added as profile.h defines.
bool braid_amx_is_exact(void) {
    begin_tiles();
    const bool is_exact = are_exact(add_exact_tile);
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
