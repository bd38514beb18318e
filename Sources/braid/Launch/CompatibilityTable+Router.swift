/// The options of SGLang's router that `braid router` does not have under their names.
extension CompatibilityTable {
    static let router: [CompatibilityOption] = joined([
        flag("--mini-lb", means: ["--policy", "random"]),
        flag("--disable-retries", means: ["--retry-max-retries", "0"]),
        renamed("--max-payload-size", to: "--max-body-bytes", .integer(1024...1 << 40)),
        renamed("--shutdown-grace-period-secs", to: "--drain-timeout", .integer(0...86_400)),
        [
            CompatibilityOption(
                ["--cors-allowed-origins"], .oneOrMore, .any,
                .same(as: "--cors-allow-origin") { $0.flatMap { ["--cors-allow-origin", $0] } })
        ],
        // A decode server has one prefill server, which it is started with: the router has nothing to choose.
        options(
            .disaggregation, .oneOf(["random", "round_robin", "cache_aware", "power_of_two", "bucket"]),
            "--prefill-policy"),
        options(.routing, .number(0...1), "--cache-threshold"),
        options(.routing, .number(0...1e9), "--balance-rel-threshold", "--retry-backoff-multiplier"),
        options(.routing, .number(0...1), "--retry-jitter-factor"),
        options(
            .routing, count, "--balance-abs-threshold", "--eviction-interval", "--eviction-interval-secs",
            "--max-tree-size", "--worker-startup-timeout-secs", "--worker-startup-check-interval",
            "--cb-window-duration-secs", "--retry-initial-backoff-ms", "--retry-max-backoff-ms",
            "--request-timeout-secs"),
        options(.routing, .any, "--model-path", "--tokenizer-path", "--reasoning-parser", "--tool-call-parser"),
        options(.routing, .oneOf(["sglang"]), "--backend"),
        options(.telemetry, .any, "--log-dir", "--prometheus-host"),
        options(.telemetry, .integer(0...65_535), "--prometheus-port"),
        lists(.telemetry, .any, "--request-id-headers"),
        refused(
            flags: "--service-discovery", "--enable-igw",
            because: "workers are given by --worker-urls, --workers-file and POST /workers"),
        refused(
            "--selector", "--prefill-selector", "--decode-selector", arity: .oneOrMore,
            because: "workers are given by --worker-urls, --workers-file and POST /workers"),
        refused(
            flags: "--dp-aware", because: "a server of several data groups balances them itself; leave it out"),
        refused(
            "--rate-limit-tokens-per-second", neutral: ["-1", "0"],
            because: "there is no such limit; see --max-concurrent-requests"),
        refused(
            "--tls-cert-path", "--tls-key-path", because: "there is no TLS; put a proxy in front of the router"),
        refused(
            "--history-backend", "--mcp-config-path", neutral: ["none", "memory"],
            because: "the router keeps no conversations"),
    ])
}
