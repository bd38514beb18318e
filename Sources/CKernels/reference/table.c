// The table of scalar kernels.
#include "../include/ckernels.h"

void reference_embedding(const braid_embedding *);
void reference_matmul(const braid_matmul *);
void reference_batched_matmul(const braid_batched_matmul *);
void reference_sliced_matmul(const braid_sliced_matmul *);
void reference_rms_norm(const braid_norm *);
void reference_layer_norm(const braid_norm *);
void reference_rope(const braid_rope *);
void reference_stream_mix(const braid_stream_mix *);
void reference_read_streams(const braid_streams *);
void reference_write_streams(const braid_streams *);
void reference_add(const braid_add *);
void reference_copy_rows(const braid_copy_rows *);
void reference_scale(const braid_scale *);
void reference_swiglu(const braid_swiglu *);
void reference_softmax(const braid_softmax *);
void reference_log_softmax(const braid_softmax *);
void reference_compress_entries(const braid_compress *);
void reference_index_scores(const braid_index_scores *);
void reference_top_k(const braid_top_k *);
void reference_pack_candidates(const braid_pack_candidates *);
void reference_merge_candidates(const braid_merge_candidates *);
void reference_sharded_keys(const braid_sharded_keys *);
void reference_attention(const braid_attention *);
void reference_merge_attention(const braid_merge *);
void reference_apply_sink(const braid_sink *);
void reference_gate(const braid_gate *);
void reference_group_by_expert(const braid_group_by_expert *);
void reference_dispatch(const braid_dispatch *);
void reference_expert_hidden(const braid_expert_hidden *);
void reference_expert_sums(const braid_expert_sums *);
void reference_combine_experts(const braid_combine *);
void reference_store_rows(const braid_store_rows *);
void reference_load_entries(const braid_load_entries *);
void reference_hadamard(const braid_hadamard *);
void reference_quantize_groups(const braid_quantize_groups *);
void reference_dequantize_groups(const braid_quantize_groups *);
int64_t reference_multiply_adds(int64_t);
void reference_read_bytes(const void *, int64_t);

extern const braid_kernels braid_reference;
const braid_kernels braid_reference = {
    .name = "scalar",
    .embedding = reference_embedding,
    .matmul = reference_matmul,
    .batched_matmul = reference_batched_matmul,
    .sliced_matmul = reference_sliced_matmul,
    .rms_norm = reference_rms_norm,
    .layer_norm = reference_layer_norm,
    .rope = reference_rope,
    .stream_mix = reference_stream_mix,
    .read_streams = reference_read_streams,
    .write_streams = reference_write_streams,
    .add = reference_add,
    .copy_rows = reference_copy_rows,
    .scale = reference_scale,
    .swiglu = reference_swiglu,
    .softmax = reference_softmax,
    .log_softmax = reference_log_softmax,
    .compress_entries = reference_compress_entries,
    .index_scores = reference_index_scores,
    .top_k = reference_top_k,
    .pack_candidates = reference_pack_candidates,
    .merge_candidates = reference_merge_candidates,
    .sharded_keys = reference_sharded_keys,
    .attention = reference_attention,
    .merge_attention = reference_merge_attention,
    .apply_sink = reference_apply_sink,
    .gate = reference_gate,
    .group_by_expert = reference_group_by_expert,
    .dispatch = reference_dispatch,
    .expert_hidden = reference_expert_hidden,
    .expert_sums = reference_expert_sums,
    .combine_experts = reference_combine_experts,
    .store_rows = reference_store_rows,
    .load_entries = reference_load_entries,
    .hadamard = reference_hadamard,
    .quantize_groups = reference_quantize_groups,
    .dequantize_groups = reference_dequantize_groups,
    .multiply_adds = reference_multiply_adds,
    .read_bytes = reference_read_bytes,
};
