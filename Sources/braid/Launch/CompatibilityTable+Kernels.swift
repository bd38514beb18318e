/// Options of SGLang's and vLLM's servers that select kernels of accelerators, and how those are captured and compiled.
extension CompatibilityTable {
    static let kernels: [CompatibilityOption] = joined([
        options(
            .kernel, .oneOf(attentionBackends), "--attention-backend", "--prefill-attention-backend",
            "--decode-attention-backend", "--mm-attention-backend", "--speculative-draft-attention-backend"),
        options(
            .kernel,
            .oneOf([
                "flashmla_prefill", "flashmla_decode", "flashmla_sparse", "flashmla_sparse_q8", "flashmla_kv",
                "flashmla_auto", "flashinfer_sparse_mla", "triton_sparse_mla", "fa3", "tilelang", "triton", "aiter",
                "trtllm", "intel_xpu",
            ]),
            "--nsa-prefill-backend", "--nsa-decode-backend", "--nsa-prefill", "--nsa-decode", "--dsa-prefill-backend",
            "--dsa-decode-backend"),
        options(.kernel, .oneOf(["auto", "flashmla_sparse", "flashmla_sparse_q8"]), "--dsv4-prefill-backend"),
        options(.kernel, .oneOf(["auto", "flashmla", "flashmla_mega", "trtllm"]), "--dsv4-attn-backend"),
        options(.kernel, .oneOf(["auto", "deepgemm", "cutedsl", "aiter"]), "--dsa-paged-mqa-logits-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "sgl-kernel", "torch", "flashinfer", "deep_select", "cooperative", "persistent", "per_row",
                "aiter",
            ]), "--dsa-topk-backend", "--speculative-dsa-topk-backend", "--sparse-indexer-topk-backend"),
        options(.kernel, .oneOf(["0", "2", "4"]), "--dsa-triton-union"),
        options(.kernel, .oneOf(["prefill", "decode"]), "--speculative-attention-mode"),
        options(.kernel, .oneOf(["flashinfer", "pytorch", "ascend", "intel_xpu"]), "--sampling-backend"),
        options(.kernel, .oneOf(["xgrammar", "outlines", "llguidance", "none"]), "--grammar-backend"),
        options(
            .kernel, .oneOf(["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"]),
            "--guided-decoding-backend", "--structured-outputs-config.backend"),
        options(
            .kernel, .oneOf(expertBackends), "--moe-runner-backend", "--speculative-moe-runner-backend",
            "--moe-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "deep_gemm", "flashinfer_trtllm", "flashinfer_cutlass", "flashinfer_deepgemm",
                "flashinfer_cutedsl", "cutlass", "triton", "aiter",
            ]), "--fp8-gemm-backend", "--fp8-gemm-runner-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "cudnn", "cutlass", "trtllm", "marlin", "flashinfer_cudnn", "flashinfer_cutedsl",
                "flashinfer_cutlass", "flashinfer_trtllm",
            ]),
            "--fp4-gemm-backend", "--fp4-gemm-runner-backend"),
        options(.kernel, .oneOf(["auto", "cutedsl", "gemv", "torch"]), "--bf16-gemm-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "cutlass", "flashinfer_cutlass", "flashinfer_cutedsl", "flashinfer_trtllm", "flashinfer_cudnn",
                "flashinfer_b12x", "b12x", "marlin", "humming", "triton", "deep_gemm", "torch", "aiter", "machete",
                "fbgemm", "conch", "exllama", "emulation", "xpu", "xpu_woq",
            ]), "--linear-backend"),
        options(.kernel, .oneOf(["auto", "nvfp4", "fp8_e4m3"]), "--prefill-kv-cache-dequant-dtype"),
        options(.kernel, .oneOf(["default", "bf16", "fp8"]), "--flashinfer-mxfp4-moe-precision"),
        options(.kernel, .oneOf(["amd"]), "--monokernel-backend"),
        options(.kernel, .oneOf(["auto", "trtllm", "mnnvl", "cutedsl"]), "--flashinfer-allreduce-fusion-backend"),
        options(.kernel, .oneOf(["auto", "cpu", "cuda", "rocm", "npu", "xpu", "hpu", "tpu", "musa"]), "--device"),
        options(.kernel, .integer(0...1024), "--base-gpu-id", "--gpu-id-step"),
        options(.kernel, count, "--triton-attention-num-kv-splits", "--triton-attention-split-tile-size"),
        options(.kernel, count, "--sm-group-num"),
        options(.kernel, .any, "--device-ids", "--ir-op-priority", "--pdmux-config-path"),
        options(.kernel, .json, "--kernel-config", "--additional-config"),
        lists(.kernel, .any, "--flashinfer-autotune-skip-ops"),
        flags(
            .kernel, "--triton-attention-reduce-in-fp32", "--flashinfer-mla-disable-ragged",
            "--disable-shared-experts-fusion", "--enforce-shared-experts-fusion", "--disable-flashinfer-autotune",
            "--enable-flashinfer-allreduce-fusion", "--enforce-disable-flashinfer-allreduce-fusion",
            "--enable-flashinfer-autotune", "--enable-aiter-allreduce-fusion",
            "--disable-aiter-allreduce-fusion-in-prefill", "--disable-aiter-allreduce-fusion-in-decode",
            "--enable-fused-qk-norm-rope", "--enable-fused-moe-sum-all-reduce", "--enable-fp32-lm-head",
            "--enable-attn-tp-input-scattered", "--enable-nsa-prefill-fuse-mode", "--disable-cascade-attn",
            "--enable-tf32-matmul", "--enable-lean-attention", "--enable-nvidia-megakernel",
            "--enable-amd-monokernel", "--monokernel", "--enable-dsa-fused-indexer", "--disable-outlines-disk-cache",
            "--use-fp64-gumbel", "--enable-pdmux", "--speculative-enable-w4a4-mxfp4-megamoe"),
        // Names of earlier releases.
        flags(
            .kernel, "--enable-flashinfer-mla", "--enable-flashmla", "--enable-flashinfer-moe",
            "--enable-flashinfer-cutlass-moe", "--enable-flashinfer-trtllm-moe", "--enable-flashinfer-cutedsl-moe",
            "--enable-flashinfer-mxfp4-moe", "--enable-triton-kernel-moe", "--disable-mla", "--enable-mla",
            "--disable-flashinfer", "--disable-flashinfer-sampling"),
    ])

    private static let attentionBackends = [
        "nsa", "dsa", "qsa", "dsv4", "ascend", "flashinfer", "fa2", "fa3", "fa4", "flashmla", "flashmla_sparse",
        "cutlass_mla", "trtllm_mla", "trtllm_mha", "cutedsl_mla", "tokenspeed_mla", "triton", "triton_mla",
        "torch_native", "flex_attention", "dual_chunk_flash_attn", "hybrid_linear_attn", "aiter", "wave", "hpc_ops",
        "intel_amx", "intel_xpu", "compressed", "minicpm_flashattn", "minicpm_flashinfer", "llada2_cfg_flashinfer",
        // vLLM's names, which it writes in capitals.
        "flash_attn", "flash_attn_mla", "flash_attn_mla_sparse", "flashinfer_mla", "flashinfer_mla_sparse",
        "flashinfer_mla_sparse_dsv4", "flashmla_dense", "flashmla_sparse_dsv4", "triton_attn", "triton_flashinfer",
        "torch_sdpa", "rocm_attn", "rocm_aiter_mla", "rocm_aiter_mla_sparse", "rocm_aiter_triton_mla",
        "rocm_aiter_fa", "rocm_aiter_unified_attn", "rocm_flashmla_sparse_dsv4", "xpu_mla_sparse", "b12x", "hpc_attn",
        "cpu_attn", "cpu_mla", "amx_mla", "xformers", "auto",
    ]

    private static let expertBackends = [
        "auto", "deep_gemm", "triton", "triton_kernel", "flashinfer_trtllm", "flashinfer_trtllm_routed",
        "flashinfer_cutlass", "flashinfer_mxfp4", "flashinfer_cutedsl", "flashinfer_megamoe", "cutlass", "aiter",
        "marlin", "humming", "hpc_ops", "megamoe", "ascend", "intel_xpu", "experimental_sgl_trtllm",
        "experimental_sgl_marlin", "lora_cutedsl", "lora_triton", "lora_marlin",
        // vLLM's names.
        "batched_triton", "triton_unfused", "deep_gemm_mega_moe", "flashinfer_moe_ep_cutedsl",
        "flashinfer_moe_ep_mega_deep_gemm", "flashinfer_b12x", "b12x", "aiter_mega_moe", "aiter_triton_mxfp4_bf16",
        "aiter_triton_mxfp4_mxfp4", "flydsl", "hpc", "emulation", "rdna3",
    ]

    static let graphs: [CompatibilityOption] = joined([
        flags(
            .graph, "--disable-cuda-graph", "--disable-prefill-cuda-graph", "--disable-decode-cuda-graph",
            "--debug-cuda-graph", "--disable-cuda-graph-padding", "--enable-profile-cuda-graph",
            "--enable-cudagraph-gc", "--disable-piecewise-cuda-graph", "--enable-piecewise-cuda-graph",
            "--enforce-piecewise-cuda-graph", "--enable-torch-compile", "--enable-torch-compile-debug-mode",
            "--enable-breakable-cuda-graph", "--enforce-eager", "--disable-draft-cuda-graph", "-O0", "-O1", "-O2",
            "-O3"),
        options(
            .graph, count, "--cuda-graph-max-bs", "--cuda-graph-max-bs-decode", "--cuda-graph-max-bs-prefill",
            "--cuda-graph-max-seq-len-prefill", "--cuda-graph-prefill-max-context", "--context-bucket",
            "--torch-compile-max-bs", "--piecewise-cuda-graph-max-tokens", "--max-cudagraph-capture-size",
            "--max-seq-len-to-capture", "--max-context-len-to-capture"),
        options(.graph, .oneOf(["eager", "inductor"]), "--piecewise-cuda-graph-compiler"),
        options(
            .graph, .oneOf(["full", "breakable", "tc_piecewise", "disabled"]), "--cuda-graph-backend-decode",
            "--cuda-graph-backend-prefill"),
        options(.graph, .oneOf(["0", "1", "2", "3", "O0", "O1", "O2", "O3"]), "--optimization-level"),
        lists(
            .graph, .integer(1...1 << 20), "--cuda-graph-bs", "--cuda-graph-bs-decode", "--cuda-graph-bs-prefill",
            "--piecewise-cuda-graph-tokens", "--cudagraph-capture-sizes", "--cuda-graph-sizes"),
        options(.graph, .any, "--torchao-config"),
        options(.graph, .json, "--compilation-config", "-O", "-cc", "--cuda-graph-config"),
    ])
}
