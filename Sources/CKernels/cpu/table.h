// The kernels and the table of one level. Each level_<name>.c includes this under the level's target attribute.
#include "../include/ckernels.h"

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

// Bytes that are copied unchanged need no instruction set.
void reference_load_entries(const braid_load_entries *);

#define BRAID_TABLE_ENTRIES \
    .embedding = embedding, \
    .matmul = matmul, \
    .batched_matmul = batched_matmul, \
    .sliced_matmul = sliced_matmul, \
    .rms_norm = rms_norm, \
    .layer_norm = layer_norm, \
    .rope = rope, \
    .stream_mix = stream_mix, \
    .read_streams = read_streams, \
    .write_streams = write_streams, \
    .add = add, \
    .copy_rows = copy_rows, \
    .scale = scale, \
    .swiglu = swiglu, \
    .softmax = softmax, \
    .log_softmax = log_softmax, \
    .compress_entries = compress_entries, \
    .index_scores = index_scores, \
    .top_k = top_k, \
    .pack_candidates = pack_candidates, \
    .merge_candidates = merge_candidates, \
    .sharded_keys = sharded_keys, \
    .attention = attention, \
    .merge_attention = merge_attention, \
    .apply_sink = apply_sink, \
    .gate = gate, \
    .group_by_expert = group_by_expert, \
    .dispatch = dispatch, \
    .expert_hidden = expert_hidden, \
    .expert_sums = expert_sums, \
    .combine_experts = combine_experts, \
    .store_rows = store_rows, \
    .load_entries = reference_load_entries, \
    .hadamard = hadamard, \
    .quantize_groups = quantize_groups, \
    .dequantize_groups = dequantize_groups, \
    .multiply_adds = multiply_adds, \
    .read_bytes = read_bytes,

const braid_kernels BRAID_TABLE = {.name = BRAID_TABLE_NAME, BRAID_TABLE_ENTRIES};
