// Braid's kernels are plain C functions behind one table, which is chosen once for the processor.
//
// Every kernel keeps these rules:
// - It receives rows and scratch, starts no threads, allocates nothing, reads no globals, never fails.
// - Its result for a row depends on that row alone, never on the number of rows in the call.
// - Its order of summation is written in its header. The scalar version in reference/ spells that order out; the fast
//   versions in cpu/ are bitwise equal to it on every instruction set, because lanes only ever run along independent
//   outputs or along the 16 documented accumulators, and every multiply-add is one fused rounding.
// - Zero rows are legal and do nothing. Strides count elements.
#pragma once

#include "attention.h"
#include "compress.h"
#include "elementwise.h"
#include "experts.h"
#include "indexer.h"
#include "matmul.h"
#include "norm.h"
#include "sharded.h"
#include "peaks.h"
#include "quantization.h"
#include "rope.h"
#include "streams.h"
#include "topk.h"
#include "types.h"

/// The table holds every operation once. A second backend fills the same table.
typedef struct {
    const char *name;
    void (*embedding)(const braid_embedding *);
    void (*matmul)(const braid_matmul *);
    void (*batched_matmul)(const braid_batched_matmul *);
    void (*sliced_matmul)(const braid_sliced_matmul *);
    void (*rms_norm)(const braid_norm *);
    void (*layer_norm)(const braid_norm *);
    void (*rope)(const braid_rope *);
    void (*stream_mix)(const braid_stream_mix *);
    void (*read_streams)(const braid_streams *);
    void (*write_streams)(const braid_streams *);
    void (*add)(const braid_add *);
    void (*copy_rows)(const braid_copy_rows *);
    void (*scale)(const braid_scale *);
    void (*swiglu)(const braid_swiglu *);
    void (*softmax)(const braid_softmax *);
    void (*log_softmax)(const braid_softmax *);
    void (*compress_entries)(const braid_compress *);
    void (*index_scores)(const braid_index_scores *);
    void (*top_k)(const braid_top_k *);
    void (*pack_candidates)(const braid_pack_candidates *);
    void (*merge_candidates)(const braid_merge_candidates *);
    void (*sharded_keys)(const braid_sharded_keys *);
    void (*attention)(const braid_attention *);
    void (*merge_attention)(const braid_merge *);
    void (*apply_sink)(const braid_sink *);
    void (*gate)(const braid_gate *);
    void (*group_by_expert)(const braid_group_by_expert *);
    void (*dispatch)(const braid_dispatch *);
    void (*expert_hidden)(const braid_expert_hidden *);
    void (*expert_sums)(const braid_expert_sums *);
    void (*combine_experts)(const braid_combine *);
    void (*store_rows)(const braid_store_rows *);
    void (*load_entries)(const braid_load_entries *);
    void (*hadamard)(const braid_hadamard *);
    void (*quantize_groups)(const braid_quantize_groups *);
    void (*dequantize_groups)(const braid_quantize_groups *);

    // Processor limits that kernels are measured against. `multiply_adds` runs `turns` rounds of multiply-adds in
    // registers, in as many chains as a tile of a matrix product has, and returns the floating-point operations done.
    // `read_bytes` only reads memory, in order, in whole pieces of 256 bytes.
    int64_t (*multiply_adds)(int64_t turns);
    void (*read_bytes)(const void *from, int64_t bytes);
} braid_kernels;

/// The instruction-set levels are numbered from the worst to the best.
typedef enum {
    BRAID_REFERENCE = 0,  // scalar C, any processor
    BRAID_NEON = 1,       // 64-bit Arm
    BRAID_AVX2 = 2,       // x86-64 with AVX2, FMA, F16C
    BRAID_AVX512 = 3,     // and AVX-512 F, BW, DQ, VL; INT8 products also use VNNI, and BF16 ones VDPBF16PS, where that is faster
    BRAID_AMX = 4,        // and AVX-512 VNNI, VBMI and BF16, AMX tiles of BF16 and of bytes
} braid_level;

/// Returns the table of a level, or NULL where this build or processor lacks the level.
const braid_kernels *braid_kernels_at(braid_level level);

/// Returns the table that level AVX512 has where VNNI is missing, which tests compare, or NULL.
const braid_kernels *braid_avx512_without_vnni(void);

/// Returns the table that level AVX512 has where VDPBF16PS is fast, which tests compare on every processor that has the
/// instruction, or NULL.
const braid_kernels *braid_avx512_with_dots(void);

/// Returns the best level of this processor.
braid_level braid_best_level(void);

/// The state of AMX: missing, refused or usable. Some sandboxes and virtual machines show it and refuse it.
typedef enum {
    BRAID_TILES_MISSING,
    BRAID_TILES_REFUSED,
    BRAID_TILES_USABLE,
} braid_tiles_state;

/// Asks the operating system for the use of AMX, for all threads of this process.
braid_tiles_state braid_tiles(void);

/// Hints to the processor that this thread is waiting for another thread's write.
static inline void braid_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
