import JSON

/// The options of SGLang's and vLLM's servers that `braid serve` does not have under their names.
extension CompatibilityTable {
    static let serve: [CompatibilityOption] = joined([
        kernels,
        graphs,
        memory,
        communication,
        scheduling,
        telemetry,
        loading,
        disaggregation,
        alwaysDone,
        otherNames,
        answers,
    ])

    private static let kernels: [CompatibilityOption] = joined([
        options(
            .kernel, .oneOf(attentionBackends), "--attention-backend", "--prefill-attention-backend",
            "--decode-attention-backend", "--mm-attention-backend", "--speculative-draft-attention-backend"),
        options(
            .kernel,
            .oneOf([
                "flashmla_prefill", "flashmla_decode", "flashmla_sparse", "flashmla_kv", "flashmla_auto", "fa3",
                "tilelang", "aiter", "trtllm",
            ]),
            "--nsa-prefill-backend", "--nsa-decode-backend", "--nsa-prefill", "--nsa-decode", "--dsa-prefill-backend",
            "--dsa-decode-backend"),
        options(.kernel, .oneOf(["prefill", "decode"]), "--speculative-attention-mode"),
        options(.kernel, .oneOf(["flashinfer", "pytorch", "ascend"]), "--sampling-backend"),
        options(.kernel, .oneOf(["xgrammar", "outlines", "llguidance", "none"]), "--grammar-backend"),
        options(
            .kernel, .oneOf(["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"]),
            "--guided-decoding-backend", "--structured-outputs-config.backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "deep_gemm", "triton", "triton_kernel", "flashinfer_trtllm", "flashinfer_trtllm_routed",
                "flashinfer_cutlass", "flashinfer_mxfp4", "flashinfer_cutedsl", "cutlass", "aiter", "marlin", "ascend",
            ]), "--moe-runner-backend", "--speculative-moe-runner-backend", "--moe-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "deep_gemm", "flashinfer_trtllm", "flashinfer_cutlass", "flashinfer_deepgemm", "cutlass",
                "triton", "aiter",
            ]), "--fp8-gemm-backend", "--fp8-gemm-runner-backend"),
        options(
            .kernel,
            .oneOf([
                "auto", "cudnn", "cutlass", "trtllm", "flashinfer_cudnn", "flashinfer_cutlass", "flashinfer_trtllm",
            ]),
            "--fp4-gemm-backend", "--fp4-gemm-runner-backend"),
        options(.kernel, .oneOf(["auto", "cpu", "cuda", "rocm", "npu", "xpu", "hpu", "tpu", "musa"]), "--device"),
        options(.kernel, .integer(0...1024), "--base-gpu-id", "--gpu-id-step"),
        options(.kernel, count, "--triton-attention-num-kv-splits", "--triton-attention-split-tile-size"),
        flags(
            .kernel, "--triton-attention-reduce-in-fp32", "--flashinfer-mla-disable-ragged",
            "--disable-shared-experts-fusion", "--enforce-shared-experts-fusion", "--disable-flashinfer-autotune",
            "--enable-flashinfer-allreduce-fusion", "--enable-flashinfer-autotune", "--enable-aiter-allreduce-fusion",
            "--enable-fused-qk-norm-rope", "--enable-fused-moe-sum-all-reduce", "--enable-fp32-lm-head",
            "--enable-attn-tp-input-scattered", "--enable-nsa-prefill-fuse-mode", "--disable-cascade-attn",
            "--keep-mm-feature-on-device", "--disable-fast-image-processor"),
    ])

    private static let attentionBackends = [
        "nsa", "dsa", "ascend", "flashinfer", "fa2", "fa3", "fa4", "flashmla", "flashmla_sparse", "cutlass_mla",
        "trtllm_mla", "trtllm_mha", "triton", "triton_mla", "torch_native", "flex_attention",
        "dual_chunk_flash_attn", "hybrid_linear_attn", "aiter", "wave", "intel_amx", "intel_xpu", "compressed",
        // vLLM's names, which it writes in capitals.
        "flash_attn", "flash_attn_mla", "flashinfer_mla", "flashmla_dense", "triton_attn", "torch_sdpa",
        "rocm_aiter_mla", "rocm_aiter_mla_sparse", "rocm_aiter_fa", "cpu_attn", "xformers", "auto",
    ]

    private static let graphs: [CompatibilityOption] = joined([
        flags(
            .graph, "--disable-cuda-graph", "--disable-cuda-graph-padding", "--enable-profile-cuda-graph",
            "--enable-cudagraph-gc", "--disable-piecewise-cuda-graph", "--enable-piecewise-cuda-graph",
            "--enforce-piecewise-cuda-graph", "--enable-torch-compile", "--enable-torch-compile-debug-mode",
            "--enable-breakable-cuda-graph", "--enforce-eager", "--no-enforce-eager", "--disable-draft-cuda-graph",
            "-O0", "-O1", "-O2", "-O3"),
        options(
            .graph, count, "--cuda-graph-max-bs", "--torch-compile-max-bs", "--piecewise-cuda-graph-max-tokens",
            "--max-cudagraph-capture-size", "--max-seq-len-to-capture"),
        options(.graph, .oneOf(["eager", "inductor"]), "--piecewise-cuda-graph-compiler"),
        lists(
            .graph, .integer(1...1 << 20), "--cuda-graph-bs", "--piecewise-cuda-graph-tokens",
            "--cudagraph-capture-sizes", "--cuda-graph-sizes"),
        options(.graph, .any, "--torchao-config"),
        options(.graph, .json, "--compilation-config", "-O", "-cc"),
    ])

    private static let memory: [CompatibilityOption] = joined([
        options(.memory, .number(0...1_000_000), "--swap-space", "--cpu-offload-gb", "--kv-offloading-size"),
        options(.memory, .any, "--kv-offloading-backend"),
        options(
            .memory, count, "--offload-group-size", "--offload-num-in-group", "--offload-prefetch-step",
            "--hicache-size", "--num-gpu-blocks-override"),
        options(.memory, .number(0...1000), "--hicache-ratio", "--swa-full-tokens-ratio", "--mamba-full-memory-ratio"),
        options(
            .memory, .any, "--hicache-write-policy", "--hicache-io-backend", "--hicache-mem-layout",
            "--hicache-storage-backend", "--hicache-storage-prefetch-policy", "--hicache-storage-backend-extra-config",
            "--offload-mode"),
        flags(
            .memory, "--enable-hierarchical-cache", "--enable-lmcache", "--enable-memory-saver",
            "--enable-weights-cpu-backup", "--enable-draft-weights-cpu-backup", "--disable-hybrid-swa-memory",
            "--disable-hybrid-kv-cache-manager", "--calculate-kv-scales", "--enable-sleep-mode"),
    ])

    private static let communication: [CompatibilityOption] = joined([
        flags(
            .communication, "--disable-custom-all-reduce", "--enable-mscclpp", "--enable-nccl-nvls",
            "--enable-symm-mem", "--enable-torch-symm-mem", "--enable-p2p-check", "--enable-dp-lm-head",
            "--enable-dp-attention-local-control-broadcast", "--enable-ep-moe", "--disable-nccl-for-dp-synchronization",
            "--use-ray", "--disable-dp-attention-port-args", "--enable-mixed-chunk"),
        options(.communication, .oneOf(["auto", "normal", "low_latency"]), "--deepep-mode"),
        options(.communication, .any, "--deepep-config", "--mooncake-ib-device", "--elastic-ep-backend"),
        options(
            .communication,
            .oneOf([
                "naive", "pplx", "deepep_high_throughput", "deepep_low_latency", "allgather_reducescatter",
                "flashinfer_all2allv", "mori",
            ]), "--all2all-backend"),
        options(.communication, .oneOf(["mp", "ray", "uni", "external_launcher"]), "--distributed-executor-backend"),
        options(
            .communication, .integer(1...65_535), "--nccl-port", "--master-port", "--data-parallel-rpc-port"),
        options(.communication, .oneOf(["mp", "ray"]), "--data-parallel-backend"),
        options(.communication, count, "--dist-timeout", "--distributed-timeout-seconds"),
        lists(.communication, count, "--numa-node"),
        refused(
            "--data-parallel-size-local", "--data-parallel-address", "--data-parallel-start-rank",
            "--data-parallel-rank",
            because: "ranks of several hosts are one job: give the ranks of all hosts as --dp-size, and --nnodes, "
                + "--node-rank and --dist-init-addr (Docs/several-hosts.md)"),
        refused(
            flags: "--headless", "--data-parallel-hybrid-lb", "--data-parallel-external-lb",
            because: "ranks of several hosts are one job with one address: give --nnodes, --node-rank and "
                + "--dist-init-addr (Docs/several-hosts.md), or start a server on each host and braid router"),
    ])

    private static let scheduling: [CompatibilityOption] = joined([
        options(
            .scheduling,
            .oneOf(["lpm", "random", "fcfs", "dfs-weight", "lof", "priority", "routing-key"]), "--schedule-policy"),
        options(.scheduling, .oneOf(["fcfs", "priority"]), "--scheduling-policy"),
        options(.scheduling, .number(0...1000), "--schedule-conservativeness", "--prefill-max-requests"),
        options(
            .scheduling,
            .oneOf([
                "auto", "round_robin", "shortest_queue", "minimum_tokens", "decode_round_robin",
                "follow_bootstrap_room",
                "total_requests", "total_tokens",
            ]), "--load-balance-method"),
        options(
            .scheduling, count, "--num-continuous-decode-steps", "--num-scheduler-steps", "--stream-interval",
            "--pp-max-micro-batch-size", "--pp-async-batch-depth", "--tokenizer-worker-num",
            "--prefill-delayer-max-delay-passes",
            "--max-num-partial-prefills", "--max-long-partial-prefills", "--long-prefill-token-threshold",
            "--api-server-count", "--detokenizer-worker-num", "--scheduler-recv-interval",
            "--dbo-decode-token-threshold",
            "--dbo-prefill-token-threshold"),
        options(.scheduling, .number(0...1), "--tbo-token-distribution-threshold"),
        options(.scheduling, .oneOf(["lru", "lfu", "slru", "priority"]), "--radix-eviction-policy"),
        flags(
            .scheduling, "--disable-overlap-schedule", "--enable-two-batch-overlap", "--enable-single-batch-overlap",
            "--disable-chunked-prefix-cache", "--async-scheduling", "--no-async-scheduling", "--enable-dbo",
            "--enable-tokenizer-batch-encode", "--enable-priority-scheduling", "--sleep-on-idle",
            "--enable-prefill-delayer", "--prefill-round-robin-balance", "--disable-frontend-multiprocessing",
            "--enable-eplb", "--multi-step-stream-outputs"),
        options(.scheduling, .any, "--eplb-algorithm", "--ep-dispatch-algorithm", "--init-expert-location"),
        options(.scheduling, count, "--ep-num-redundant-experts", "--eplb-rebalance-num-iterations"),
        options(.scheduling, .json, "--eplb-config"),
    ])

    private static let telemetry: [CompatibilityOption] = joined([
        flags(
            .telemetry, "--collect-tokens-histogram", "--enable-request-time-stats-logging",
            "--enable-metrics-for-all-schedulers", "--show-time-cost", "--enable-trace", "--disable-log-stats",
            "--enable-layerwise-nvtx-marker", "--enable-expert-distribution-metrics", "--show-hidden-metrics",
            "--disable-uvicorn-access-log",
            "--enable-mfu-metrics", "--kv-cache-metrics", "--enable-nan-detection", "--export-metrics-to-file"),
        options(
            .telemetry, count, "--decode-log-interval", "--log-requests-level", "--max-log-len",
            "--gc-warning-threshold-secs", "--expert-distribution-recorder-buffer-size", "--soft-watchdog-timeout"),
        options(
            .telemetry, .any, "--oltp-traces-endpoint", "--otlp-traces-endpoint", "--collect-detailed-traces",
            "--log-level-http", "--uvicorn-log-level", "--crash-dump-folder", "--expert-distribution-recorder-mode",
            "--tokenizer-metrics-custom-labels-header", "--weight-version", "--log-requests-format",
            "--export-metrics-to-file-dir", "--debug-tensor-dump-output-folder"),
        options(.telemetry, .json, "--kv-events-config", "--extra-metric-labels"),
        lists(
            .telemetry, .any, "--bucket-time-to-first-token", "--bucket-inter-token-latency",
            "--bucket-e2e-request-latency", "--prompt-tokens-buckets", "--generation-tokens-buckets",
            "--tokenizer-metrics-allowed-custom-labels", "--log-requests-target"),
    ])

    private static let loading: [CompatibilityOption] = joined([
        options(.loading, .json, "--model-loader-extra-config"),
        options(.loading, .oneOf(["auto", "slow", "hf", "deepseek_v32", "deepseek_v4"]), "--tokenizer-mode"),
        options(.loading, .oneOf(["auto", "sglang", "transformers", "vllm"]), "--model-impl"),
        options(.loading, .oneOf(["auto", "string", "openai"]), "--chat-template-content-format"),
        options(.loading, .oneOf(["auto", "hf", "mistral"]), "--config-format"),
        options(.loading, count, "--max-parallel-loading-workers", "--weight-loader-prefetch-num-threads"),
        options(.loading, .any, "--tokenizer-revision", "--code-revision", "--hf-token", "--ignore-patterns"),
        options(.loading, .json, "--limit-mm-per-prompt", "--mm-processor-kwargs", "--media-io-kwargs"),
        options(.loading, .oneOf(["generate", "auto"]), "--task", "--runner", "--convert"),
        flags(
            .loading, "--weight-loader-disable-mmap", "--language-model-only", "--disable-mm-preprocessor-cache",
            "--use-tqdm-on-load"),
    ])

    private static let disaggregation: [CompatibilityOption] = joined([
        options(.disaggregation, .any, "--disaggregation-ib-device"),
        options(
            .disaggregation, count, "--num-reserved-decode-tokens", "--disaggregation-decode-tp",
            "--disaggregation-decode-dp", "--disaggregation-prefill-pp", "--disaggregation-decode-polling-interval"),
        flags(
            .disaggregation, "--disaggregation-decode-enable-offload-kvcache",
            "--disaggregation-decode-enable-fake-auto"),
        refused(
            "--kv-transfer-config",
            because: "give --disaggregation-mode, which lets one server compute the prompts of another"),
        refused("--ec-transfer-config", because: "only text is generated here"),
    ])

    private static let alwaysDone: [CompatibilityOption] = joined([
        always("--trust-remote-code", "--no-trust-remote-code", because: "no code of a checkpoint is ever executed"),
        always("--enable-metrics", because: "/metrics is always served"),
        always(
            "--enable-cache-report", "--enable-prompt-tokens-details",
            because: "usage always has prompt_tokens_details.cached_tokens"),
        always("--skip-server-warmup", because: "the server sends itself no requests"),
        always("--enable-prefix-caching", because: "finished prompts are kept unless --disable-radix-cache is given"),
        always("--enable-chunked-prefill", because: "prompts are computed in chunks; see --chunked-prefill-size"),
        always("--enable-deterministic-inference", because: "results never depend on the batch"),
        always(
            "--enable-expert-parallel", because: "experts are divided among the ranks unless --ep-size says otherwise"),
        always("--enable-auto-tool-choice", "--enable-reasoning", because: "the chat format of the model is used"),
        always("--enable-server-load-tracking", because: "/metrics has the load"),
    ])

    private static let otherNames: [CompatibilityOption] = joined([
        renamed("--block-size", to: "--page-size"),
        renamed("-tp", to: "--tp-size"),
        renamed("-pp", to: "--pp-size"),
        renamed("-dp", to: "--dp-size"),
        renamed("-ep", to: "--ep-size"),
        renamed("-dcp", to: "--dcp-size"),
        renamed("--dcp-kv-cache-interleave-size", "--cp-kv-cache-interleave-size", to: "--dcp-interleave"),
        renamed("--master-addr", to: "--dist-init-addr"),
        flag("--enable-deepep-moe", means: ["--moe-a2a-backend", "alltoall"]),
        flag("--no-enable-prefix-caching", means: ["--disable-radix-cache"]),
        flag("--no-enable-chunked-prefill", means: ["--chunked-prefill-size", "-1"]),
        flag("--log-requests", "--enable-log-requests", means: ["--access-log"]),
        flag("--no-enable-log-requests", "--disable-log-requests", means: ["--access-log=false"]),
        [
            CompatibilityOption(
                ["--generation-config"], .one, .oneOf(["auto", "vllm"]),
                .same(as: "--sampling-defaults") {
                    ["--sampling-defaults", $0[0] == "vllm" ? "openai" : "model"]
                }),
            CompatibilityOption(
                ["--allowed-origins"], .one, .json,
                .same(as: "--cors-allow-origin") { try origins($0[0]) }),
            CompatibilityOption(
                ["--speculative-config"], .one, .json,
                .same(as: "--speculative-algorithm NEXTN --speculative-num-steps", speculation)),
        ],
    ])

    /// Returns Braid's options for vLLM's list, such as `["https://app.example"]`.
    private static func origins(_ text: String) throws -> [String] {
        guard let list = try JSONValue(parsing: text).array, case let origins = list.compactMap(\.string),
            origins.count == list.count
        else { throw CommandError("--allowed-origins: it is not a list of origins such as [\"https://app.example\"]") }
        return origins.flatMap { ["--cors-allow-origin", $0] }
    }

    /// Returns Braid's options for vLLM's JSON, such as `{"method": "deepseek_mtp", "num_speculative_tokens": 1}`.
    @Sendable private static func speculation(_ values: [String]) throws -> [String] {
        let json = try JSONValue(parsing: values[0])
        guard let method = json["method"]?.string, method == "mtp" || method.hasSuffix("_mtp") else {
            throw CommandError(
                "--speculative-config: drafts come from the checkpoint's next-token block; write {\"method\": \"mtp\", "
                    + "\"num_speculative_tokens\": 1}")
        }
        for member in json.object ?? [] where !["method", "num_speculative_tokens", "model"].contains(member.key) {
            throw CommandError("--speculative-config: '\(member.key.prefix(40))' is not supported; leave it out")
        }
        guard let steps = json["num_speculative_tokens"] else { return ["--speculative-algorithm", "NEXTN"] }
        guard let count = steps.integer else {
            throw CommandError("--speculative-config: num_speculative_tokens is not a whole number")
        }
        return ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "\(count)"]
    }

    private static let answers: [CompatibilityOption] = joined([
        refused(
            "--chat-template", "--completion-template", "--hf-chat-template-name", neutral: ["auto"],
            because: "conversations are written in the chat format of the checkpoint's family; leave it out"),
        refused(
            "--json-model-override-args", "--hf-overrides", "--rope-scaling", neutral: ["{}"],
            because: "config.json is read as it is; edit a copy of it"),
        refused("--rope-theta", because: "config.json is read as it is; edit a copy of it"),
        refused(
            "--override-generation-config", "--preferred-sampling-params", "--default-chat-template-kwargs",
            neutral: ["{}"], because: "edit generation_config.json, or give the parameters with each request"),
        refused(
            "--speculative-draft-model-path", "--speculative-draft-model-quantization", "--speculative-token-map",
            because: "drafts come from the checkpoint's own next-token block; leave it out"),
        refused(
            "--speculative-accept-threshold-single", "--speculative-accept-threshold-acc", neutral: ["1.0", "1"],
            because: "only drafts that the model itself would have sampled are accepted; leave it out"),
        refused(
            "--constrained-json-whitespace-pattern", "--logits-processors", "--logits-processor-pattern",
            "--tool-server", "--tool-parser-plugin", "--reasoning-parser-plugin", "--middleware",
            because: "there is no such extension; leave it out"),
        refused(
            "--logprobs-mode", neutral: ["raw_logprobs"],
            because: "log-probabilities are those of the model, before penalties and temperature; leave it out"),
        refused(
            "--allowed-methods", "--allowed-headers", neutral: ["[\"*\"]"],
            because: "pages of an allowed origin may use every route and header; leave it out"),
        refused(flags: "--allow-credentials", because: "no route uses cookies; leave it out"),
        refused("--response-role", neutral: ["assistant"], because: "answers have the role assistant"),
        refused(
            "--lora-paths", "--lora-modules", arity: .oneOrMore, because: "LoRA adapters are not supported"),
        refused(flags: "--enable-lora", because: "LoRA adapters are not supported"),
        refused(
            flags: "--is-embedding", "--enable-multimodal", "--encoder-only",
            because: "only text is generated here"),
        refused(
            "--admin-api-key", because: "there is one key, for every route; give it with --api-key"),
        refused(
            flags: "--skip-tokenizer-init",
            because: "the routes need text; send input_ids to /generate and leave it out"),
        refused(
            flags: "--allow-auto-truncate", because: "a prompt that is too long is refused, never cut; leave it out"),
        refused(
            flags: "--enable-custom-logit-processor", "--enable-return-hidden-states",
            "--constrained-json-disable-any-whitespace", "--return-tokens-as-token-ids", "--enable-prompt-embeds",
            because: "requests cannot ask for that here; leave it out"),
        refused(
            "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password",
            because: "there is no TLS; put a proxy in front of the server"),
        refused("--root-path", "--fastapi-root-path", neutral: [""], because: "let the proxy remove the prefix"),
    ])
}
