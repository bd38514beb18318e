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
        connections,
        loading,
        disaggregation,
        media,
        adapters,
        otherModels,
        drafting,
        alwaysDone,
        otherNames,
        answers,
    ])

    private static let alwaysDone: [CompatibilityOption] = joined([
        always("--trust-remote-code", because: "no code of a checkpoint is ever executed"),
        always("--enable-metrics", because: "/metrics is always served"),
        always(
            "--enable-cache-report", "--enable-prompt-tokens-details",
            because: "usage always has prompt_tokens_details.cached_tokens"),
        always("--skip-server-warmup", because: "the server sends itself no requests"),
        always("--enable-prefix-caching", because: "finished prompts are kept unless --disable-radix-cache is given"),
        always("--enable-chunked-prefill", because: "prompts are computed in chunks; see --chunked-prefill-size"),
        always("--enable-deterministic-inference", because: "results never depend on the batch"),
        always(
            "--enable-expert-parallel", "-ep",
            because: "experts are divided among the ranks unless --ep-size says otherwise"),
        always("--enable-auto-tool-choice", "--enable-reasoning", because: "the chat format of the model is used"),
        always("--enable-server-load-tracking", because: "/metrics has the load"),
        always("--enable-request-id-headers", because: "answers have the header x-request-id"),
        always("--enable-tokenizer-info-endpoint", because: "/tokenizer_info is always served"),
        always("--mlx-enable-sampling", because: "tokens are sampled as each request asks"),
        always("--abort-on-priority-when-disabled", because: "requests with a priority are refused"),
        always(
            "--exclude-tools-when-tool-choice-none",
            because: "a request with tool_choice none has no tools in its prompt"),
    ])

    private static let otherNames: [CompatibilityOption] = joined([
        renamed("--block-size", to: "--page-size"),
        renamed("-tp", to: "--tp-size"),
        renamed("-pp", to: "--pp-size"),
        renamed("-dp", to: "--dp-size"),
        renamed("-dcp", to: "--dcp-size"),
        renamed("--dcp-kv-cache-interleave-size", "--cp-kv-cache-interleave-size", to: "--dcp-interleave"),
        renamed("-pcp", to: "--attn-cp-size"),
        renamed("-n", to: "--nnodes"),
        renamed("-r", to: "--node-rank"),
        renamed("-q", to: "--quantization"),
        renamed("--master-addr", to: "--dist-init-addr"),
        renamed("--device-memory-utilization", to: "--mem-fraction-static", .number(0.01...1)),
        renamed("--max-num-active-seqs", to: "--max-running-requests"),
        renamed("--max-num-queued-reqs", to: "--max-queued-requests"),
        renamed("--max-num-scheduled-tokens", to: "--max-prefill-tokens"),
        renamed("--shutdown-timeout", to: "--drain-timeout"),
        flag("--numa-bind", means: ["--numa", "auto"]),
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
                ["--speculative-config", "-sc"], .one, .json,
                .same(as: "--speculative-algorithm NEXTN --speculative-num-steps", speculation)),
            CompatibilityOption(
                ["--spec-method"], .one, .oneOf(["mtp", "deepseek_mtp", "glm4_moe_mtp", "glm5_next_mtp"]),
                .same(as: "--speculative-algorithm NEXTN") { _ in ["--speculative-algorithm", "NEXTN"] }),
            CompatibilityOption(
                ["--spec-tokens", "--num-speculative-tokens"], .one, .integer(1...1024),
                .same(as: "--speculative-algorithm NEXTN --speculative-num-steps") {
                    ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", $0[0]]
                }),
            CompatibilityOption(
                ["--structured-outputs-config"], .one, .json, .same(as: "--reasoning-parser", structuredOutputs)),
            CompatibilityOption(
                ["--attention-config", "-ac"], .one, .json,
                .same(as: "--enable-deepseek-v4-fp4-indexer", indexKeys)),
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

    /// Returns Braid's options for vLLM's JSON, such as `{"backend": "xgrammar", "reasoning_parser": "deepseek_v3"}`.
    @Sendable private static func structuredOutputs(_ values: [String]) throws -> [String] {
        let option = "--structured-outputs-config"
        guard let members = try JSONValue(parsing: values[0]).object else {
            throw CommandError("\(option): it is not an object, such as {\"backend\": \"auto\"}")
        }
        // Values of vLLM by default ask for nothing.
        let asking = members.filter { ![.null, .bool(false), .string("")].contains($0.value) }
        return try asking.flatMap { member -> [String] in
            let advice: String
            switch (member.key, member.value) {
            case ("backend", .string(let name)): return ["\(option).backend", name]
            case ("reasoning_parser", .string(let name)): return ["--reasoning-parser", name]
            case ("disable_any_whitespace", _): advice = "the model chooses the spaces of JSON, within bounds"
            case ("disable_additional_properties", _): advice = "write additionalProperties into each schema"
            case ("enable_in_reasoning", _): advice = "a grammar begins where the reasoning ends"
            default: advice = "'backend' and 'reasoning_parser' are"
            }
            throw CommandError(
                "\(option): '\(member.key.prefix(40))' is not supported with the value "
                    + "\(member.value.pythonText.prefix(40)); \(advice)")
        }
    }

    /// Returns Braid's options for vLLM's JSON, such as `{"use_fp4_indexer_cache": true}`. Other members select kernels of
    /// GPUs, which change no answer.
    @Sendable private static func indexKeys(_ values: [String]) throws -> [String] {
        let option = "--attention-config"
        guard let members = try JSONValue(parsing: values[0]).object else {
            throw CommandError("\(option): it is not an object, such as {\"use_fp4_indexer_cache\": true}")
        }
        switch members.first(where: { $0.key == "use_fp4_indexer_cache" })?.value {
        case nil, .null, .bool(false): return []
        case .bool(true): return ["--enable-deepseek-v4-fp4-indexer"]
        default: throw CommandError("\(option): use_fp4_indexer_cache is neither true nor false")
        }
    }
}
