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

static void vnni_matmul(const braid_matmul *p) {
    if (p->m > 0 && p->k > 0 && is_int8_product(p->profile, &p->w, p->transposed)) int8_vnni_matmul(p);
    else matmul(p);
}

static void vnni_batched_matmul(const braid_batched_matmul *p) { batched_products(p, vnni_matmul); }
static void vnni_sliced_matmul(const braid_sliced_matmul *p) { sliced_products(p, vnni_matmul); }
static void vnni_expert_hidden(const braid_expert_hidden *p) { expert_hidden_products(p, vnni_matmul); }
static void vnni_expert_sums(const braid_expert_sums *p) { expert_sums_products(p, vnni_matmul); }

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
