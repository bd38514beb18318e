/// Options of SGLang's and vLLM's servers that change answers, or what requests may ask for.
extension CompatibilityTable {
    static let answers: [CompatibilityOption] = joined([prompts, sampling, numerics, outputs, extensions])

    private static let prompts: [CompatibilityOption] = joined([
        refused(
            "--chat-template", "--completion-template", "--hf-chat-template-name", neutral: ["auto"],
            because: "conversations are written in the chat format of the checkpoint's family; leave it out"),
        refused(
            flags: "--trust-request-chat-template",
            because: "conversations are written in the chat format of the checkpoint's family; leave it out"),
        refused(
            "--default-chat-template-kwargs", neutral: ["{}"],
            because: "give chat_template_kwargs with each request; leave it out"),
        refused(
            "--reasoning-effort-map", neutral: ["{}"],
            because: "give the efforts that the model's encoder knows (Docs/requests.md); leave it out"),
        refused(
            "--reasoning-config", neutral: ["{}"],
            because: "reasoning ends where the model ends it, or at max_tokens; leave it out"),
        refused(
            "--anthropic-disabled-thinking-effort", neutral: ["auto"],
            because: "without thinking there is no effort; leave it out"),
        refused(
            flags: "--enable-strict-thinking",
            because: "a call that the model opens ends its reasoning; leave it out"),
        refused(
            flags: "--allow-auto-truncate", because: "a prompt that is too long is refused, never cut; leave it out"),
        refused(
            flags: "--skip-tokenizer-init",
            because: "the routes need text; send input_ids to /generate and leave it out"),
        refused("--response-role", neutral: ["assistant"], because: "answers have the role assistant"),
    ])

    private static let sampling: [CompatibilityOption] = joined([
        refused(
            "--override-generation-config", "--preferred-sampling-params", neutral: ["{}"],
            because: "edit generation_config.json, or give the parameters with each request"),
        refused(
            flags: "--constrained-json-disable-any-whitespace",
            because: "the model chooses the spaces of JSON, within bounds (Docs/structured-output.md); leave it out"),
        refused(
            "--constrained-json-whitespace-pattern", "--constrained-json-max-whitespace-cnt",
            because: "the model chooses the spaces of JSON, within bounds (Docs/structured-output.md); leave it out"),
        refused(
            "--tool-strict-level", neutral: ["auto"],
            because: "give tools with strict, or tool_choice; leave it out"),
        refused(flags: "--enable-watermark", because: "answers are not marked; leave it out"),
        refused("--watermark-config", neutral: ["{}"], because: "answers are not marked; leave it out"),
        refused(
            "--dllm-algorithm", "--dllm-algorithm-config", "--diffusion-config", "-dc",
            because: "models that generate by diffusion are not supported"),
        refused(
            flags: "--enable-double-sparsity", because: "attention is the checkpoint's own; leave it out"),
        refused(
            "--ds-channel-config-path", "--ds-heavy-channel-num", "--ds-heavy-token-num", "--ds-heavy-channel-type",
            "--ds-sparse-decode-threshold", because: "attention is the checkpoint's own; leave it out"),
        refused(
            flags: "--disable-sliding-window", because: "attention is the checkpoint's own; leave it out"),
    ])

    private static let numerics: [CompatibilityOption] = joined([
        refused(
            "--json-model-override-args", "--hf-overrides", "--rope-scaling", neutral: ["{}"],
            because: "config.json is read as it is; edit a copy of it"),
        refused(
            "--rope-theta", "--hf-config-path", "--decrypted-config-file", "--decrypted-draft-config-file",
            because: "config.json is read as it is; edit a copy of it"),
        refused(
            "--model-class-overrides", neutral: ["{}"],
            because: "the class of a model follows from config.json; leave it out"),
        refused(
            "--quantization-config", neutral: ["{}"],
            because: "weights are computed as the checkpoint stores them, see --quantization; leave it out"),
        refused(
            "--modelopt-quant", "--modelopt-checkpoint-restore-path", "--modelopt-checkpoint-save-path",
            "--modelopt-export-path", "--rl-quant-profile", "--qlora-adapter-name-or-path",
            because: "checkpoints are never converted; give one that is stored so, see --quantization"),
        refused(
            flags: "--quantize-and-serve",
            because: "checkpoints are never converted; give one that is stored so, see --quantization"),
        refused(
            "--kt-weight-path", "--kt-method",
            because: "all experts are computed from the checkpoint's weights, on this processor; leave it out"),
        refused(
            "--kt-max-deferred-experts-per-token", neutral: ["0"],
            because: "all experts of a token are computed in its layer; leave it out"),
        refused(
            "--kv-cache-dtype-skip-layers", arity: .oneOrMore,
            because: "the keys of all layers are kept as --kv-cache-dtype says; leave it out"),
        refused(
            flags: "--enable-w4a4-mxfp4-megamoe",
            because: "operands are rounded as --dtype says, never to four bits; leave it out"),
        refused(
            "--rl-on-policy-target",
            because: "how it computes is said by --dtype, and results never depend on the batch; leave it out"),
        refused(
            "--weight-cache-mode", neutral: ["off"],
            because: "weights are mapped from their files, which all processes of a host share; leave it out"),
        refused(
            "--custom-weight-loader", arity: .oneOrMore,
            because: "weights are read from .safetensors files; leave it out"),
        refused(
            flags: "--checkpoint-engine-wait-weights-before-ready",
            "--remote-instance-weight-loader-start-seed-via-transfer-engine",
            because: "weights are read from .safetensors files; leave it out"),
        refused(
            "--remote-instance-weight-loader-seed-instance-ip", "--modelexpress-config", "--weight-transfer-config",
            because: "weights are read from .safetensors files; leave it out"),
        refused(
            flags: "--delete-ckpt-after-loading",
            because: "weights are read from their files while the server runs; remove them when it has ended"),
        refused(
            "--model-checksum", arity: .oneOrMore,
            because: "files are not compared with those of a hub; do so before the start"),
        refused(
            "--max-num-queued-tokens", because: "requests are counted, not their tokens; give --max-queued-requests"),
    ])

    private static let outputs: [CompatibilityOption] = joined([
        options(.features, count, "--sampling-mask-max-tokens"),
        refused(
            "--logprobs-mode", neutral: ["raw_logprobs"],
            because: "log-probabilities are those of the model, before penalties and temperature; leave it out"),
        refused(
            flags: "--enable-custom-logit-processor", "--enable-return-hidden-states",
            "--enable-return-aux-hidden-states", "--enable-return-routed-experts", "--enable-return-indexer-topk",
            "--return-sampling-mask", "--return-tokens-as-token-ids", "--enable-prompt-embeds", "--enable-trace-replay",
            because: "requests cannot ask for that here; leave it out"),
        refused(
            "--return-aux-hidden-state-layer-ids", arity: .oneOrMore,
            because: "requests cannot ask for that here; leave it out"),
        refused("--return-hidden-states-mode", because: "requests cannot ask for that here; leave it out"),
        refused("--aux-output-config", neutral: ["{}"], because: "requests cannot ask for that here; leave it out"),
        refused(
            flags: "--return-input-ids", "--return-output-ids",
            because: "/generate shows token ids; leave it out"),
        refused(
            flags: "--stream-response-default-include-usage", "--enable-force-include-usage",
            because: "requests ask for it by stream_options.include_usage; leave it out"),
        refused(
            flags: "--incremental-streaming-output",
            because: "each event of /generate has the whole text so far; leave it out, or use /v1/completions"),
        refused(
            flags: "--is-embedding", "--enable-mis", because: "only text is generated here"),
        refused("--pooler-config", "--override-pooler-config", because: "only text is generated here"),
    ])

    private static let extensions: [CompatibilityOption] = joined([
        refused(
            "--logits-processor-pattern", "--tool-server", "--tool-parser-plugin",
            "--reasoning-parser-plugin", "--middleware", "--io-processor-plugin", "--forward-hooks", "--scheduler-cls",
            "--override-neuron-config", because: "there is no such extension; leave it out"),
        refused(
            "--logits-processors", arity: .oneOrMore, because: "there is no such extension; leave it out"),
        refused("--worker-cls", neutral: ["auto"], because: "there is no such extension; leave it out"),
        refused("--worker-extension-cls", neutral: [""], because: "there is no such extension; leave it out"),
    ])
}
