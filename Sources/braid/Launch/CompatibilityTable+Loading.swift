/// Options of SGLang's and vLLM's servers about loading of models, disaggregation, and features that do not exist here.
extension CompatibilityTable {
    static let loading: [CompatibilityOption] = joined([
        options(.loading, .json, "--model-loader-extra-config"),
        options(.loading, .oneOf(["auto", "slow", "hf", "deepseek_v32", "deepseek_v4"]), "--tokenizer-mode"),
        options(.loading, .oneOf(["huggingface", "fastokens"]), "--tokenizer-backend"),
        options(.loading, .oneOf(["auto", "sglang", "transformers", "vllm"]), "--model-impl"),
        options(.loading, .oneOf(["auto", "string", "openai"]), "--chat-template-content-format"),
        options(.loading, .oneOf(["auto", "hf", "mistral"]), "--config-format", "--model-config-parser"),
        options(.loading, .oneOf(["serial", "overlap"]), "--startup-weight-load-mode"),
        options(
            .loading, count, "--max-parallel-loading-workers", "--weight-loader-prefetch-num-threads",
            "--safetensors-prefetch-num-threads", "--safetensors-prefetch-block-size", "--weight-cache-timeout",
            "--engine-info-bootstrap-port", "--remote-instance-weight-loader-seed-instance-service-port"),
        options(
            .loading, .any, "--tokenizer-revision", "--code-revision", "--hf-token", "--pt-load-map-location",
            "--speculative-draft-model-revision", "--speculative-draft-load-format", "--weight-cache-socket",
            "--remote-instance-weight-loader-send-weights-group-ports", "--remote-instance-weight-loader-backend"),
        lists(.loading, .any, "--ignore-patterns"),
        options(.loading, .oneOf(["generate", "auto"]), "--task", "--runner"),
        options(.loading, .oneOf(["auto", "none", "generate"]), "--convert"),
        flags(
            .loading, "--weight-loader-disable-mmap", "--weight-loader-drop-cache-after-load",
            "--allow-deprecated-quantization", "--enable-ep-weight-filter", "--use-tqdm-on-load"),
        [
            CompatibilityOption(
                ["--safetensors-load-strategy"], .one, .oneOf(["lazy", "eager", "prefetch"]),
                .same(as: "--preload (lazy: nothing)") { $0[0].lowercased() == "lazy" ? [] : ["--preload"] })
        ],
        flag("--weight-loader-prefetch-checkpoints", means: ["--preload"]),
    ])

    static let disaggregation: [CompatibilityOption] = joined([
        options(.disaggregation, .any, "--disaggregation-ib-device"),
        options(
            .disaggregation, count, "--num-reserved-decode-tokens", "--disaggregation-decode-tp",
            "--disaggregation-decode-dp", "--disaggregation-prefill-pp", "--disaggregation-decode-polling-interval",
            "--disaggregation-decode-extra-slots", "--optimistic-prefill-attempts"),
        options(
            .disaggregation, .oneOf(["early", "prefill_complete"]), "--disaggregation-decode-allocation-policy"),
        options(
            .disaggregation, .oneOf(["cpu_tensor", "host_pool", "none"]), "--disaggregation-decode-retraction-backup"),
        options(.disaggregation, .number(0...1), "--disaggregation-decode-host-receive-threshold"),
        flags(
            .disaggregation, "--disaggregation-decode-enable-offload-kvcache",
            "--disaggregation-decode-enable-fake-auto", "--disaggregation-enable-kv-checksum"),
        always(
            "--disaggregation-decode-enable-radix-cache",
            because: "a decode server keeps finished prompts too, unless --disable-radix-cache is given"),
        refused(
            "--kv-transfer-config",
            because: "give --disaggregation-mode, which lets one server compute the prompts of another"),
        refused(
            flags: "--enable-pd-role-switch",
            because: "a server keeps its --disaggregation-mode; start another server for the other role"),
        refused("--ec-transfer-config", because: "only text is generated here"),
    ])

    /// What images, sound and video would need. Requests that contain some are refused.
    static let media: [CompatibilityOption] = joined([
        options(
            .media, .json, "--limit-mm-per-prompt", "--limit-mm-data-per-request", "--mm-processor-kwargs",
            "--mm-process-config", "--media-io-kwargs", "--ec-manager-config"),
        options(
            .media, .any, "--encoder-transfer-backend", "--allowed-local-media-path", "--image-processor-backend",
            "--mm-global-cache-backend", "--mm-feature-transport", "--mm-processor-cache-type",
            "--mm-hasher-algorithm", "--mm-encoder-tp-mode", "--mm-encoder-attn-backend", "--mm-encoder-attn-dtype",
            "--mm-encoder-fp8-scale-path", "--mm-encoder-fp8-scale-save-path", "--video-pruning-method",
            "--mm-tensor-ipc", "--mm-processor-device"),
        options(
            .media, .number(0...1_000_000), "--encoder-bootstrap-port", "--mm-processor-worker-num",
            "--mm-io-worker-num", "--media-url-max-file-size-mb", "--mm-preprocess-cache-size-mb",
            "--mm-processor-cache-gb", "--mm-shm-cache-max-object-size-mb", "--mm-encoder-fp8-scale-save-margin",
            "--video-pruning-rate", "--mm-ipc-gpu-memory-gb", "--asr-max-buffer-seconds",
            "--asr-max-concurrent-sessions"),
        lists(.media, .any, "--encoder-urls", "--encoder-register-urls", "--allowed-media-domains"),
        flags(
            .media, "--language-only", "--language-model-only", "--enable-adaptive-dispatch-to-encoder",
            "--enable-precise-embedding-interpolation", "--enable-broadcast-mm-inputs-process",
            "--enable-prefix-mm-cache", "--mm-enable-dp-encoder", "--trust-mm-content-hashes",
            "--enable-mm-global-cache", "--enable-mm-embeds", "--interleave-mm-strings", "--skip-mm-profiling",
            "--mm-device-do-normalize", "--disable-chunked-mm-input", "--trust-request-mm-kwargs",
            "--keep-mm-feature-on-device", "--disable-fast-image-processor", "--disable-mm-preprocessor-cache",
            "--enable-llama4-multimodal"),
        refused(
            flags: "--enable-multimodal", "--encoder-only", "--mm-encoder-only",
            because: "only text is generated here"),
    ])

    static let adapters: [CompatibilityOption] = joined([
        options(
            .adapters, .any, "--max-lora-rank", "--max-loras", "--max-cpu-loras", "--max-loaded-loras",
            "--max-loras-per-batch", "--max-lora-chunk-size", "--max-lora-cls-labels", "--lora-eviction-policy",
            "--lora-backend", "--lora-dtype", "--lora-drain-wait-threshold", "--lora-extra-vocab-size",
            "--default-mm-loras", "--max-prompt-adapters", "--max-prompt-adapter-token"),
        lists(.adapters, .any, "--lora-target-modules", "--long-lora-scaling-factors"),
        flags(
            .adapters, "--enable-lora-overlap-loading", "--experts-shared-outer-loras", "--lora-use-virtual-experts",
            "--lora-strict-loading", "--enable-tower-connector-lora", "--fully-sharded-loras",
            "--specialize-active-lora", "--enable-mixed-moe-lora-format", "--enable-moe-shared-loras",
            "--enable-lora-bias"),
        refused(
            "--lora-paths", "--lora-modules", arity: .oneOrMore, because: "LoRA adapters are not supported"),
        refused(flags: "--enable-lora", "--enable-prompt-adapter", because: "LoRA adapters are not supported"),
    ])

    /// What models of other architectures would need.
    static let otherModels: [CompatibilityOption] = joined([
        options(
            .models, .any, "--mamba-backend", "--mamba-ssm-dtype", "--mamba-max-states-per-path",
            "--mamba-cache-philox-rounds", "--mamba-radix-cache-strategy", "--mamba-track-interval",
            "--int8-mamba-ckpt-size", "--max-mamba-cache-size", "--mamba-ssu-algorithm", "--mamba-cache-dtype",
            "--mamba-ssm-cache-dtype", "--mamba-block-size", "--mamba-cache-mode", "--linear-attn-backend",
            "--linear-attn-decode-backend", "--linear-attn-prefill-backend", "--linear-attn-verify-backend",
            "--linear-replayssm-cache-len", "--replayssm-buffer-len", "--gdn-prefill-backend",
            "--kda-prefill-backend", "--kda-decode-backend", "--qsa-indexer-dtype", "--ple-offload-backend",
            "--ple-offload-dir", "--shared-experts-tp-size", "--cohere-format"),
        options(.models, .json, "--engram-config"),
        flags(
            .models, "--enable-mamba-cache-stochastic-rounding", "--enable-int8-mamba-checkpoint",
            "--enable-linear-replayssm", "--enable-linear-replayssm-spec", "--use-replayssm",
            "--enable-mamba-shared-prefix-checkpoint", "--enable-scattered-sconv", "--ple-offload-embedding",
            "--dllm-fdfo", "--kv-sharing-fast-prefill", "--enable-flash-late-interaction",
            "--cohere-is-reasoning-model"),
    ])

    /// What other methods of speculative decoding would need, which `--speculative-algorithm` refuses.
    static let drafting: [CompatibilityOption] = joined([
        options(
            .drafting, .any, "--speculative-dflash-block-size", "--speculative-domino-candidate-pool-size",
            "--speculative-dspark-block-size", "--speculative-dspark-sps-table-path",
            "--speculative-dspark-confidence-sts-path", "--speculative-draft-window-size",
            "--speculative-draft-sink-size", "--speculative-ngram-min-bfs-breadth",
            "--speculative-ngram-max-bfs-breadth", "--speculative-ngram-match-type",
            "--speculative-ngram-max-trie-depth", "--speculative-ngram-capacity",
            "--speculative-ngram-min-match-window-size", "--speculative-ngram-max-match-window-size",
            "--speculative-ngram-branch-length", "--speculative-ngram-external-corpus-path",
            "--speculative-ngram-external-sam-budget", "--speculative-ngram-external-corpus-max-tokens",
            "--ngram-prompt-lookup-max", "--ngram-prompt-lookup-min", "--speculative-max-model-len",
            "--speculative-disable-by-batch-size", "--speculative-draft-tensor-parallel-size"),
        flags(
            .drafting, "--speculative-dspark-align-verify-tokens-to-graph-tier", "--speculative-disable-mqa-scorer",
            "--disable-logprobs-during-spec-decoding"),
        always(
            "--speculative-use-rejection-sampling", "--speculative-use-block-verification",
            because: "drafts never change what is sampled, however they are accepted"),
        refused(
            "--speculative-draft-model-path", "--speculative-draft-model", "--speculative-model", "--spec-model",
            "--speculative-draft-model-quantization", "--speculative-model-quantization", "--speculative-token-map",
            "--uno-lora-path", because: "drafts come from the checkpoint's own next-token block; leave it out"),
        refused(
            "--decoupled-spec-role", neutral: ["null"],
            because: "drafts come from the checkpoint's own next-token block; leave it out"),
        refused(
            "--decoupled-spec-bind-endpoint", "--decoupled-spec-connect-endpoints", "--decoupled-spec-rank",
            because: "drafts come from the checkpoint's own next-token block; leave it out"),
        refused(
            "--speculative-accept-threshold-single", "--speculative-accept-threshold-acc", neutral: ["1.0", "1"],
            because: "only drafts that the model itself would have sampled are accepted; leave it out"),
        refused(
            "--spec-decoding-acceptance-method", neutral: ["rejection_sampler"],
            because: "only drafts that the model itself would have sampled are accepted; leave it out"),
        refused(
            "--typical-acceptance-sampler-posterior-threshold", "--typical-acceptance-sampler-posterior-alpha",
            because: "only drafts that the model itself would have sampled are accepted; leave it out"),
    ])
}
