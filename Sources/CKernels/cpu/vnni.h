// The products of the INT8 profiles for AVX-512 with VNNI, which multiplies bytes. Every other kernel of the table is that
// of AVX-512.
#pragma once

#include "experts.h"

#define BRAID_VNNI 1
#define BRAID_INT8(name) int8_vnni_##name
#define BRAID_INT8_FEW_ROWS 6
#include "int8_products.h"
#undef BRAID_VNNI
#undef BRAID_INT8
#undef BRAID_INT8_FEW_ROWS

static void vnni_products(const braid_matmul *parts, int64_t count) {
    if (parts->m == 0 || parts->k == 0 || !is_int8_product(parts->profile, &parts->w, parts->transposed))
        return products(parts, count);
    for (int64_t part = 0; part < count; part++) int8_vnni_matmul(parts + part);
}

static void vnni_matmul(const braid_matmul *p) { vnni_products(p, 1); }
static void vnni_batched_matmul(const braid_batched_matmul *p) { batched_products(p, vnni_products); }
static void vnni_sliced_matmul(const braid_sliced_matmul *p) { sliced_products(p, vnni_products); }
static void vnni_expert_hidden(const braid_expert_hidden *p) { expert_hidden_products(p, vnni_products); }
static void vnni_expert_sums(const braid_expert_sums *p) { expert_sums_products(p, vnni_products); }

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winitializer-overrides"
const braid_kernels braid_avx512_vnni = {
    BRAID_TABLE_ENTRIES
    .name = "AVX-512 VNNI",
    .matmul = vnni_matmul,
    .batched_matmul = vnni_batched_matmul,
    .sliced_matmul = vnni_sliced_matmul,
    .expert_hidden = vnni_expert_hidden,
    .expert_sums = vnni_expert_sums,
};
#pragma clang diagnostic pop
