import Parallelism

/// Options of SGLang's and vLLM's servers about the memory of accelerators and of caches, and about communication.
extension CompatibilityTable {
    static let memory: [CompatibilityOption] = joined([
        options(.memory, .number(0...1_000_000), "--swap-space", "--cpu-offload-gb", "--kv-offloading-size"),
        options(.memory, .any, "--kv-offloading-backend", "--offload-backend", "--sleep-mode-backend"),
        options(
            .memory, count, "--offload-group-size", "--offload-num-in-group", "--offload-prefetch-step",
            "--hicache-size", "--num-gpu-blocks-override", "--paged-experts-num-resident", "--prefix-match-unit",
            "--prefix-cache-retention-interval", "--swa-prefix-tails", "--c128-page-size", "--kt-cpuinfer",
            "--kt-threadpool-count", "--kt-num-gpu-experts", "--hicache-storage-prefetch-retry-poll-interval",
            "--hicache-storage-prefetch-retry-max-attempts"),
        options(.memory, .number(0...1000), "--hicache-ratio", "--swa-full-tokens-ratio", "--mamba-full-memory-ratio"),
        options(.memory, .number(0...1), "--hicache-host-memory-fraction", "--watermark"),
        options(
            .memory, .any, "--hicache-write-policy", "--hicache-io-backend", "--hicache-mem-layout",
            "--hicache-storage-backend", "--hicache-storage-prefetch-policy", "--hicache-storage-backend-extra-config",
            "--offload-mode", "--radix-cache-backend", "--lmcache-config-file", "--flexkv-config-file",
            "--hisparse-config", "--hierarchical-sparse-attention-extra-config", "--quantization-param-path"),
        options(.memory, .oneOf(["cache", "buffer_only"]), "--hicache-host-memory-mode"),
        options(.memory, .oneOf(["mooncake", "mori", "dynamic"]), "--unified-cache-external-linker-backend"),
        options(
            .memory, .oneOf(["sha256", "sha256_cbor", "xxhash", "xxhash_cbor", "builtin"]),
            "--prefix-caching-hash-algo"),
        options(
            .memory, .oneOf(["auto", "fp8_e5m2", "fp8_e4m3", "bf16", "bfloat16"]),
            "--speculative-draft-kv-cache-dtype"),
        options(.memory, .json, "--radix-eviction-policy-config", "--unified-cache-external-linker-config"),
        lists(.memory, .any, "--offload-params", "--cpu-offload-params", "--sleep-preserve-parameter-names"),
        flags(
            .memory, "--enable-hierarchical-cache", "--enable-hicache", "--enable-lmcache", "--enable-flexkv",
            "--enable-memory-saver", "--enable-weights-cpu-backup", "--enable-draft-weights-cpu-backup",
            "--disable-hybrid-swa-memory", "--disable-hybrid-kv-cache-manager", "--calculate-kv-scales",
            "--enable-sleep-mode", "--sleep-mode-offload-cudagraph", "--enable-cumem-allocator",
            "--enable-nccl-comm-suspend", "--enable-page-major-kv-layout", "--enable-unified-memory",
            "--enable-session-radix-cache", "--enable-unified-cache-external-linker", "--enable-linker-mla-dedup",
            "--enable-hisparse", "--enable-paged-experts", "--enable-dsa-cache-layer-split",
            "--enable-kv-cache-sharding", "--prefill-only-disable-kv-cache", "--strip-thinking-cache",
            "--swa-bounded-replay", "--enable-encoder-swa-bounded-replay", "--enable-decoder-swa-bounded-replay",
            "--use-v2-block-manager"),
    ])

    static let communication: [CompatibilityOption] = joined([
        flags(
            .communication, "--disable-custom-all-reduce", "--enable-mscclpp", "--enable-nccl-nvls",
            "--enable-symm-mem", "--enable-torch-symm-mem", "--enable-p2p-check", "--enable-dp-lm-head",
            "--enable-dp-attention-local-control-broadcast", "--enable-ep-moe", "--disable-nccl-for-dp-synchronization",
            "--use-ray", "--disable-dp-attention-port-args", "--enable-mixed-chunk", "--pre-warm-nccl",
            "--dcp-replicate-q-proj", "--dcp-q-replicate", "--enable-cp-decode-attn-tp",
            "--enable-tp-lm-head-all-to-all", "--enable-shared-experts-attn-tp", "--enable-dense-mlp-attn-tp",
            "--enable-layernorm-sp", "--enable-megamoe-for-layernorm-sp", "--disable-attn-tp-gather",
            "--disable-flashinfer-cutlass-moe-fp4-allgather", "--enable-elastic-expert-backup", "--enable-waterfill",
            "--enable-batch-sharded-sampling", "--enable-shm-tensor-arena", "--enable-hc-sp", "--worker-use-ray",
            "--engine-use-ray"),
        options(.communication, .oneOf(["auto", "normal", "low_latency"]), "--deepep-mode"),
        options(.communication, .oneOf(["direct", "hybrid"]), "--deepep-v2-mode"),
        options(.communication, .oneOf(["1", "2"]), "--fuseep-mode"),
        options(
            .communication, .oneOf(["auto", "bf16", "fp8", "int8", "nvfp4"]), "--deepep-dispatcher-output-dtype"),
        options(.communication, .oneOf(["auto", "bf16", "nvfp4", "mxfp8"]), "--flashinfer-a2a-dispatch-type"),
        options(.communication, .oneOf(["auto", "ar", "rs", "rsv", "rs+rsv"]), "--boundary-reduction"),
        options(.communication, .oneOf(["ag_rs", "a2a", "fi_a2a"]), "--dcp-comm-backend"),
        options(.communication, .oneOf(ExpertExchangeKind.namesElsewhere), "--speculative-moe-a2a-backend"),
        options(.communication, .oneOf(["linear", "round_robin"]), "--expert-placement-strategy"),
        options(
            .communication, .any, "--deepep-config", "--mooncake-ib-device", "--elastic-ep-backend"),
        options(
            .communication,
            .oneOf([
                "naive", "pplx", "deepep_high_throughput", "deepep_low_latency", "deepep_v2", "mori",
                "mori_high_throughput", "mori_low_latency", "moonep", "nixl_ep", "allgather_reducescatter",
                "flashinfer_all2allv", "flashinfer_nvlink_two_sided", "flashinfer_nvlink_one_sided", "passthrough",
            ]), "--all2all-backend"),
        options(.communication, .oneOf(["mp", "ray", "uni", "external_launcher"]), "--distributed-executor-backend"),
        options(
            .communication, .integer(1...65_535), "--nccl-port", "--master-port", "--data-parallel-rpc-port", "-dpp",
            "--data-parallel-supervisor-port", "--gated-launch-port"),
        options(.communication, .oneOf(["mp", "ray"]), "--data-parallel-backend", "-dpb"),
        options(
            .communication, count, "--dist-timeout", "--distributed-timeout-seconds",
            "--cpu-distributed-timeout-seconds", "--dp-sync-interval", "--dwdp-size",
            "--dp-supervisor-probe-failure-threshold"),
        options(
            .communication, .number(0...1_000_000), "--elastic-ep-scale-timeout", "--dp-supervisor-probe-interval-s",
            "--dp-supervisor-probe-timeout-s"),
        lists(.communication, count, "--numa-node", "--numa-bind-nodes"),
        lists(.communication, .any, "--numa-bind-cpus"),
        refused(
            "--data-parallel-size-local", "-dpl", "--data-parallel-address", "-dpa", "--data-parallel-start-rank",
            "-dpr", "--data-parallel-rank", "-dpn",
            because: "ranks of several hosts are one job: give the ranks of all hosts as --dp-size, and --nnodes, "
                + "--node-rank and --dist-init-addr (Docs/several-hosts.md)"),
        refused(
            flags: "--headless", "--data-parallel-hybrid-lb", "-dph", "--data-parallel-external-lb", "-dpe",
            "--data-parallel-multi-port-external-lb", "-dpm",
            because: "ranks of several hosts are one job with one address: give --nnodes, --node-rank and "
                + "--dist-init-addr (Docs/several-hosts.md), or start a server on each host and braid router"),
        refused(
            flags: "--enable-elastic-ep", because: "the number of ranks is fixed while a server runs; leave it out"),
        refused(
            "--elastic-ep-join-mode", "--elastic-ep-join-rank-offset", "--elastic-ep-initial-size", "--max-ep-size",
            "--elastic-ep-max-dp-size", because: "the number of ranks is fixed while a server runs; leave it out"),
        refused(
            flags: "--enable-fault-tolerance",
            because: "ranks do not end one by one; --restart-on-failure starts new ones"),
        refused("--fault-tolerance-config", neutral: ["{}"], because: "--restart-on-failure starts new ranks"),
        refused(
            "--moe-dp-size", "--moe-data-parallel-size", neutral: ["1"],
            because: "give --ep-size; the other ranks of a stage share the width of each expert"),
        refused(
            flags: "--enable-quant-communications",
            because: "values between ranks are exchanged as they are computed; leave it out"),
    ])
}
